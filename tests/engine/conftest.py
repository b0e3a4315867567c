# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A small model and a toy data set, in numpy."""

import json

import jax
import numpy as np
import pytest

from gqa_t5x.engine import data
from gqa_t5x.network import T5Config
from gqa_t5x.network import Transformer

SIZES = dict(
    vocab_size=48,
    emb_dim=24,
    num_heads=4,
    num_kv_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
)


def make_model(**changes) -> Transformer:
  return Transformer(T5Config(**(SIZES | changes)))


def write_arrays(folder, count: int = 50, seed: int = 0) -> str:
  """Writes a cached task: each target is its input's tokens in reverse."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  rows = [rng.integers(2, 40, rng.integers(2, 6)) for _ in range(count)]
  for name, examples in (
      ('inputs', [np.append(row, 1) for row in rows]),
      ('targets', [np.append(row[::-1], 1) for row in rows]),
  ):
    np.save(folder / f'{name}.npy', np.concatenate(examples).astype(np.uint16))
    offsets = np.cumsum([0, *map(len, examples)])
    np.save(folder / f'{name}_offsets.npy', offsets.astype(np.int64))
  meta = {
      'task': 'toy', 'split': 'train', 'num_examples': count,
      'feature_lengths': {'inputs': 11, 'targets': 7}, 'num_epochs': 1,
      'seed': 0, 'max_examples': None, 'sha256': '',
      'vocab_size': 40, 'vocabulary_sha256': '',
  }  # pyformat: disable
  (folder / 'meta.json').write_text(json.dumps(meta))
  return str(folder)


@pytest.fixture
def batches(tmp_path):
  """Returns batches(n): batch n, n + 1, ... of 8 rows of the toy task."""
  folder = write_arrays(tmp_path / 'toy' / 'train')
  config = data.BatchConfig(8, 11, 7, seed=5)
  return lambda start: data.train_batches(
      {folder: 1.0}, config, start_step=start
  )


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
  """Tests that run the same program compile it once."""
  folder = str(tmp_path_factory.mktemp('compiled'))
  jax.config.update('jax_compilation_cache_dir', folder)
  yield
  jax.config.update('jax_compilation_cache_dir', None)
