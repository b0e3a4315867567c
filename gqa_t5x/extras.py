# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the extras of setup.py bring, and what each is for.

This file has to parse on Pythons that are too old to run the rest.
"""

# Modules by the extra that brings them, and what cannot be done without.
FEATURES = {
    '': (
        'convert, inspect, plan, benchmark decode; the network in your code',
        ('jax', 'flax', 'numpy', 'scipy', 'threadpoolctl'),
    ),
    'text': (
        'generate, and convert with text to calibrate on',
        ('sentencepiece',),
    ),
    'train': (
        'train, reproduce and benchmark train, with data',
        ('clu', 'gin', 'optax', 'orbax.checkpoint', 'tensorboard', 'tqdm'),
    ),
    'data': (
        'cache, eval, infer, and tasks for t5x',
        (
            'babel', 'gin', 'importlib_resources', 'rouge_score', 'sacrebleu',
            'seqio', 'tensorflow', 'tensorflow_datasets', 'tensorflow_text',
        ),
    ),
    'hf': (
        'a tokenizer.json of Hugging Face as the vocabulary',
        ('tokenizers',),
    ),
    'bench': (
        'benchmark --against hf,ctranslate2',
        ('ctranslate2', 'torch', 'transformers'),
    ),
    'compile': ('compile: TPU programs without a TPU', ('libtpu', 'optax')),
    'completion': ('completion of commands in a shell', ('shtab',)),
}  # pyformat: disable

# Not on the package index.
T5X = ('t5x', 'airio', 'jestimator')


def extra_of(module: str) -> str:
  """Returns the first extra that brings a module, '' if none does."""
  for extra, (_, modules) in FEATURES.items():
    if module.split('.')[0] in {m.split('.')[0] for m in modules}:
      return extra
  return ''


def install_command(extra: str) -> str:
  """Returns what to type to get an extra."""
  return (
      f"pip install 'gqa-t5x[{extra}]' (in a checkout: pip install -c"
      f" constraints.txt '.[{extra}]')"
  )


def install_t5x_command(module: str) -> str:
  return (
      f'pip install "{module} @ git+https://github.com/google-research/'
      f'{module}"'
  )
