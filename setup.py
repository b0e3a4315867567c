# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Packages gqa_t5x: a lean core, and extras for what needs more.

`tasks/` and `gin_configs/` lie beside `gqa_t5x/` in the repository, where users
look for them, and are installed inside it, so that the environment gets no
packages of such general names.
"""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).resolve().parent
_FOLDERS = {  # package: its folder in the repository
    'gqa_t5x': 'gqa_t5x',
    'gqa_t5x.tasks': 'tasks',
    'gqa_t5x.gin_configs': 'gin_configs',
}


def _version() -> str:
  text = (_ROOT / 'gqa_t5x' / '__init__.py').read_text(encoding='utf-8')
  return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


def _readme() -> str:
  path = _ROOT / 'README.md'
  return path.read_text(encoding='utf-8') if path.exists() else ''


def _packages() -> list[str]:
  found = []
  for package, folder in _FOLDERS.items():
    inside = setuptools.find_packages(str(_ROOT / folder))
    found += [package, *(f'{package}.{name}' for name in inside)]
  return found


def _pretrained_files() -> list[str]:
  """Returns every file of the shipped checkpoint; most have no suffix."""
  folder = _ROOT / 'gqa_t5x' / 'pretrained'
  return sorted(
      str(path.relative_to(folder))
      for path in folder.rglob('*')
      if path.is_file() and '__pycache__' not in path.parts
  )


_TEXT = ['sentencepiece']
_DATA = _TEXT + [
    'seqio>=0.0.20',  # brings tensorflow-text, and that TensorFlow
    'tensorflow',
    'tensorflow-datasets>=4.9.10',
    'importlib_resources',  # tensorflow-datasets needs it to download
    'babel',
    'gin-config',
    'rouge-score',
    'sacrebleu',
]
_TRAIN = _DATA + [
    'clu',
    'optax',
    'orbax-checkpoint>=0.12',
    'tensorboard',
    'tqdm',
]
# t5x itself is not on the package index:
#   pip install "t5x @ git+https://github.com/google-research/t5x"
_T5X = [
    'cached_property', 'fiddle', 'google-cloud-storage', 'grain', 'jaxtyping',
    'tensorboard',
]  # pyformat: disable
# Hugging Face's tokenizers that have no SentencePiece model.
_HF = ['tokenizers']
# Peers that the decode benchmark runs beside ours; it needs none of them.
_BENCH = ['ctranslate2', 'torch', 'transformers']
# The compiler of a TPU, 700 MB installed; a machine with TPUs has its own.
_COMPILE = ['libtpu', 'optax']
_COMPLETION = ['shtab']
_DOCS = ['mkdocs']
_DEV = [
    'hypothesis', 'ipykernel', 'nbmake', 'pytest', 'pytest-xdist', 'ruff',
    'safetensors', 'setuptools>=77',
]  # pyformat: disable

setuptools.setup(
    name='gqa-t5x',
    version=_version(),
    description='Grouped-query attention for T5, in JAX and Flax',
    long_description=_readme(),
    long_description_content_type='text/markdown',
    author='The gqa_t5x Authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    package_dir=_FOLDERS,
    packages=_packages(),
    package_data={
        'gqa_t5x': ['py.typed'],
        'gqa_t5x.pretrained': _pretrained_files(),
        **{
            package: ['*.gin']
            for package in _packages()
            if package.startswith('gqa_t5x.gin_configs')
        },
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={'console_scripts': ['gqa-t5x=gqa_t5x.cli:main']},
    install_requires=[
        'jax>=0.10', 'flax>=0.12', 'numpy>=2', 'scipy>=1.14', 'threadpoolctl',
    ],  # pyformat: disable
    extras_require={
        'text': _TEXT,
        'data': _DATA,
        'train': _TRAIN,
        't5x': _T5X,
        'hf': _HF,
        'bench': _BENCH,
        'compile': _COMPILE,
        'completion': _COMPLETION,
        'docs': _DOCS,
        'dev': _DEV,
        # What the Makefile installs: all that this repository's tests use.
        'all': _TRAIN + _HF + _COMPLETION + _DOCS + _DEV,
    },
    classifiers=[
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
