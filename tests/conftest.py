# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: CPU, a cache of its own, t5x if it is there."""

import importlib.util
import os
import shutil
import tempfile

import pytest

# Before anything imports jax or TensorFlow.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax

# Here compiling takes longer than what is compiled. The programs that tests
# start are optimized as a user's are.
jax.config.update('jax_disable_most_optimizations', True)

_CACHE = pytest.StashKey[str]()


def pytest_configure(config):
  """Gives all tests one cache folder: the corpus takes half a minute to make.

  The workers of pytest-xdist inherit it. One that is set already is kept, for
  whoever runs the tests again and again.
  """
  if 'GQA_T5X_CACHE_DIR' not in os.environ:
    config.stash[_CACHE] = tempfile.mkdtemp(prefix='gqa_t5x_tests_')
    os.environ['GQA_T5X_CACHE_DIR'] = config.stash[_CACHE]


def pytest_unconfigure(config):
  if _CACHE in config.stash:
    shutil.rmtree(config.stash[_CACHE], ignore_errors=True)
    del os.environ['GQA_T5X_CACHE_DIR']


def pytest_collection_modifyitems(items):
  """Skips tests marked `t5x` where t5x is not installed."""
  if importlib.util.find_spec('t5x') is not None:
    return
  skip = pytest.mark.skip(reason='t5x is not installed; see setup.py')
  for item in items:
    # Not `item.keywords`, which has the ids of parameters as well.
    if item.get_closest_marker('t5x'):
      item.add_marker(skip)


@pytest.fixture
def tokenizer_json(tmp_path):
  """The pieces that ship, as Hugging Face's library has them."""
  tokenizers = pytest.importorskip('tokenizers')
  from gqa_t5x import pretrained
  from gqa_t5x import vocabularies

  with open(pretrained.VOCABULARY_PATH, 'rb') as file:
    model = vocabularies.parse_model(file.read(), '')
  pieces = [(piece.piece, piece.score) for piece in model.pieces]
  pieces += [(f'<extra_id_{i}>', 0.0) for i in reversed(range(100))]
  tokenizer = tokenizers.Tokenizer(
      tokenizers.models.Unigram(pieces, unk_id=2, byte_fallback=False)
  )
  tokenizer.normalizer = tokenizers.normalizers.Precompiled(
      model.normalizer_spec.precompiled_charsmap
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  tokenizer.decoder = tokenizers.decoders.Metaspace()
  # As transformers has them: without the blank before.
  tokenizer.add_special_tokens([
      tokenizers.AddedToken(f'<extra_id_{i}>', lstrip=True, special=True)
      for i in range(100)
  ])
  path = tmp_path / 'tokenizer.json'
  tokenizer.save(str(path))
  return path
