# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of key/value heads, against values worked out by hand."""

import dataclasses

from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_network

CONFIG = T5Config(
    vocab_size=29,
    emb_dim=11,
    num_heads=8,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=3,
    mlp_dim=7,
    mlp_activations=('gelu', 'linear'),
)
KEY = ('decoder', 'layers_1', 'encoder_decoder_attention', 'key', 'kernel')


def _params():
  return hf_reference.random_params(CONFIG, seed=0)


def _flat(params):
  return traverse_util.flatten_dict(params)


def _convert(params, num_kv_heads, **kwargs):
  return conversion.convert_params(
      params, num_heads=8, num_kv_heads=num_kv_heads, **kwargs
  )


def test_mean_and_first_by_hand():
  params = _params()
  heads = np.asarray(_flat(params)[KEY]).reshape(11, 8, 3)
  mean = _flat(_convert(params, 2))[KEY]
  by_hand = np.concatenate(
      [heads[:, 0:4].mean(1), heads[:, 4:8].mean(1)], axis=1
  )
  np.testing.assert_allclose(mean, by_hand, atol=1e-6)
  first = _flat(_convert(params, 2, method='first'))[KEY]
  np.testing.assert_array_equal(
      first, np.concatenate([heads[:, 0], heads[:, 4]], axis=1)
  )


@pytest.mark.parametrize('method', ['mean', 'first', 'random'])
def test_only_decoder_keys_and_values_change(method):
  params = _params()
  before, after = _flat(params), _flat(_convert(params, 2, method=method))
  assert before.keys() == after.keys()
  changed = {p for p in before if before[p] is not after[p]}
  assert changed == {
      ('decoder', layer, attention, projection, 'kernel')
      for layer in ('layers_0', 'layers_1')
      for attention in ('self_attention', 'encoder_decoder_attention')
      for projection in ('key', 'value')
  }
  assert {after[p].shape for p in changed} == {(11, 6)}


@pytest.mark.parametrize('method', ['mean', 'first'])
def test_as_many_heads_as_before_is_bit_exact(method):
  before, after = _flat(_params()), _flat(_convert(_params(), 8, method=method))
  for path in before:
    np.testing.assert_array_equal(before[path], after[path])


@pytest.mark.parametrize('method', ['mean', 'first'])
def test_equal_heads_in_a_group_keep_the_logits(method):
  grouped = dataclasses.replace(CONFIG, num_kv_heads=2)
  params = make_network.random_params(grouped)
  multi_head = hf_reference.repeat_kv(params, grouped)
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(1, 29, (2, 5)))

  def logits(config, params):
    return Transformer(config).apply(
        {'params': params}, tokens, tokens, tokens, enable_dropout=False
    )

  np.testing.assert_allclose(
      logits(grouped, _convert(multi_head, 2, method=method)),
      logits(CONFIG, multi_head),
      atol=1e-5,
  )


def test_mean_in_two_steps_is_mean_in_one():
  params = _params()
  once = _flat(_convert(params, 1))
  twice = _flat(_convert(_convert(params, 4), 1))
  for path in once:
    np.testing.assert_allclose(once[path], twice[path], atol=1e-6)


def test_random_heads_have_the_initial_scale_and_follow_the_seed():
  config = dataclasses.replace(CONFIG, emb_dim=400, head_dim=40)
  params = hf_reference.random_params(config, seed=0)
  one, same, other = [
      _flat(_convert(params, 2, method='random', seed=seed))
      for seed in (1, 1, 2)
  ]
  np.testing.assert_array_equal(one[KEY], same[KEY])
  assert np.abs(one[KEY] - other[KEY]).min() < np.abs(one[KEY]).max()
  assert not np.array_equal(one[KEY], other[KEY])
  # Keys and values, and layers, get heads of their own.
  assert not np.array_equal(one[KEY], one[KEY[:3] + ('value', 'kernel')])
  np.testing.assert_allclose(np.std(one[KEY]), 1 / np.sqrt(400), rtol=0.02)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_kv_heads=3), 'choose 1, 2, 4 or 8'),
        (dict(num_kv_heads=2, method='median'), "method='median' is unknown"),
    ],
)
def test_refuses(kwargs, message):
  with pytest.raises(UserError, match=message):
    _convert(_params(), **kwargs)


def test_refuses_more_heads_than_there_are():
  with pytest.raises(UserError, match='has 2 key/value heads, which cannot'):
    _convert(_convert(_params(), 2), 4)


def test_refuses_a_wrong_number_of_query_heads():
  with pytest.raises(UserError, match='num_heads=7 does not fit'):
    conversion.convert_params(_params(), num_heads=7, num_kv_heads=1)


def test_refuses_what_is_no_t5():
  with pytest.raises(UserError, match='got a tree with params at its top'):
    _convert({'params': _params()}, 2)


def test_checkpoint_on_disk(tmp_path):
  source, target = str(tmp_path / 'mha'), str(tmp_path / 'gqa')
  checkpoints.save_checkpoint(
      source, _params(), metadata={'config': CONFIG.to_dict(), 'step': 7}
  )
  conversion.convert_checkpoint(source, target, num_kv_heads=4)
  params, metadata = checkpoints.load_checkpoint(target)
  expected = _flat(_convert(_params(), 4))
  for path, leaf in _flat(params).items():
    np.testing.assert_array_equal(leaf, expected[path])
  assert T5Config(**metadata['config']) == dataclasses.replace(
      CONFIG, num_kv_heads=4
  )
  assert metadata['step'] == 7
  assert metadata['conversion'] == {
      'method': 'mean',
      'seed': None,
      'from_num_kv_heads': 8,
  }


def test_nothing_is_written_where_the_conversion_is_refused(tmp_path):
  source, target = str(tmp_path / 'mha'), tmp_path / 'gqa'
  checkpoints.save_checkpoint(
      source, _params(), metadata={'config': CONFIG.to_dict(), 'step': 7}
  )
  with pytest.raises(UserError):
    conversion.convert_checkpoint(source, str(target), num_kv_heads=3)
  assert not target.exists()
