# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Operations of a training step by XLA's own count, and what is timed."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import network
from gqa_t5x.benchmark import train
from gqa_t5x.engine import partitioning
from gqa_t5x.errors import UserError

CONFIG = network.T5Config(
    vocab_size=512, emb_dim=64, num_heads=4, num_encoder_layers=2,
    num_decoder_layers=3, head_dim=32, mlp_dim=96,
    mlp_activations=('gelu', 'linear'), dropout_rate=0.0, dtype=jnp.float32,
)  # pyformat: disable
SHAPE = {'batch_size': 2, 'input_length': 96, 'target_length': 40}


@pytest.mark.parametrize('num_kv_heads', [4, 1])
@pytest.mark.parametrize('tied', [False, True])
def test_model_flops_are_those_that_xla_counts(num_kv_heads, tied):
  config = dataclasses.replace(
      CONFIG, num_kv_heads=num_kv_heads, logits_via_embedding=tied
  )
  model = network.Transformer(config)
  inputs = jnp.ones((2, 96), jnp.int32)
  targets = jnp.ones((2, 40), jnp.int32)
  arguments = inputs, targets, targets
  params = model.init(jax.random.key(0), *arguments, enable_dropout=False)

  def forward(params):
    return model.apply(params, *arguments, enable_dropout=False)

  counted = jax.jit(forward).lower(params).compile().cost_analysis()['flops']
  # XLA counts softmax, norms and activations too.
  assert train.model_flops(config, **SHAPE) / 3 == pytest.approx(
      counted, rel=0.08
  )
  assert train.model_flops(config, **SHAPE) / 3 < counted


def test_rows(monkeypatch):
  monkeypatch.setattr(train, 'measure_flops', lambda dtype: 1e9)
  found = train.compare_train(
      {'K=4': CONFIG, 'K=1': dataclasses.replace(CONFIG, num_kv_heads=1)},
      **SHAPE,
      num_repeats=2,
  )
  assert list(found) == ['K=4', 'K=1']
  row = found['K=4']
  short, long = sorted(row['seconds_per_step_repeats'])
  np.testing.assert_allclose(
      row['spread'], (long - short) / ((long + short) / 2)
  )
  np.testing.assert_allclose(
      row['utilisation'],
      row['model_flops'] / row['seconds_per_step'] / 1e9,
  )
  assert found['K=1']['model_flops'] < row['model_flops']


@pytest.mark.parametrize(
    'name', ['hf', pytest.param('t5x', marks=pytest.mark.t5x)]
)
def test_a_peer_takes_the_same_first_step(name, monkeypatch):
  if name == 'hf':
    for package in ('torch', 'transformers'):
      pytest.importorskip(package)
  monkeypatch.setattr(train, 'measure_flops', lambda dtype: 1e9)
  # Raises unless the first losses are equal.
  found = train.compare_train(
      {'K=1': dataclasses.replace(CONFIG, num_kv_heads=1)},
      **SHAPE,
      num_repeats=1,
      against=[name],
  )
  # The peer is multi-head, so ours is timed as such too.
  assert list(found) == ['K=1', 'K=4', name]
  assert found[name]['num_kv_heads'] == 4
  assert found[name]['model_flops'] == found['K=4']['model_flops']


@pytest.mark.parametrize('loss', [3.0, np.nan])
def test_a_peer_of_another_loss_is_not_timed(monkeypatch, loss):
  monkeypatch.setitem(train._PEERS, 'hf', lambda *_: lambda batch: loss)
  with pytest.raises(RuntimeError, match='hf has a loss of .* where ours'):
    train.compare_train({'K=4': CONFIG}, **SHAPE, against=['hf'])


def test_a_batch_that_the_devices_cannot_share(monkeypatch):
  mesh = types.SimpleNamespace(shape={'data': 2, 'model': 1})
  monkeypatch.setattr(partitioning, 'make_mesh', lambda: mesh)
  with pytest.raises(UserError, match='share a batch divide, 2, got 3; choose'):
    train.compare_train({'K=4': CONFIG}, **SHAPE | {'batch_size': 3})
