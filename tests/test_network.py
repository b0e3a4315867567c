# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The network against t5x's and Hugging Face's, and against itself decoding."""

import dataclasses
import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import layers
from gqa_t5x import network
from gqa_t5x import sizes
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_network as golden

VERSIONS = ('t5_1_1', 't5_1_0')
HAS_TORCH = all(
    importlib.util.find_spec(name) for name in ('torch', 'transformers')
)


@functools.partial(
    jax.jit,
    static_argnames=(
        'module', 'method', 'mutable', 'enable_dropout', 'decode', 'prefill'
    ),
)
def _apply(module, variables, *args, enable_dropout=False, **kwargs):
  """As `module.apply`, with what its methods take; compiled as one."""
  return module.apply(
      variables, *args, enable_dropout=enable_dropout, **kwargs
  )


def _logits(config, params, packed=False):
  """One operation after another, rounded as the references are."""
  return Transformer(config).apply(
      {'params': params}, **golden.batch(packed), enable_dropout=False
  )


def _assert_close(actual, expected, packed, atol):
  """Compares at the positions that carry a loss."""
  stride = 1 if expected.shape == actual.shape else 8
  targets = golden.batch(packed)['decoder_target_tokens'][:, ::stride]
  where = np.asarray(targets > 0)
  np.testing.assert_allclose(
      np.asarray(actual)[:, ::stride][where],
      np.asarray(expected)[where],
      atol=atol,
      rtol=0,
  )


@pytest.mark.parametrize('version', VERSIONS)
def test_parameter_tree_is_that_of_t5x(version):
  expected = json.loads(golden.TREE_PATH.read_text())[version]
  module = Transformer(golden.configs()[version])
  assert golden.parameter_tree(module) == expected


@pytest.mark.parametrize('num_kv_heads', [None, 1])
@pytest.mark.parametrize('version', VERSIONS)
def test_shapes_are_told_without_tracing(version, num_kv_heads):
  config = dataclasses.replace(
      golden.configs()[version], num_kv_heads=num_kv_heads
  )
  traced = jax.eval_shape(
      functools.partial(network.new_variables, Transformer(config)),
      jax.random.key(0),
  )
  assert sizes.parameter_shapes(config) == traced['params']


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('version', VERSIONS)
def test_logits_are_those_of_t5x(version, packed):
  config = golden.configs()[version]
  actual = _logits(config, golden.random_params(config), packed)
  name = f't5x/{version}/{"packed" if packed else "plain"}'
  _assert_close(actual, np.load(golden.LOGITS_PATH)[name], packed, 1e-5)


@pytest.mark.parametrize('version', VERSIONS)
def test_logits_are_those_of_hugging_face(version):
  config = golden.configs()[version]
  actual = _logits(config, golden.random_params(config))
  expected = np.load(golden.LOGITS_PATH)[f'hf/{version}']
  _assert_close(actual, expected, False, 1e-4)


@pytest.mark.t5x
@pytest.mark.parametrize('version', VERSIONS)
def test_goldens_are_what_t5x_gives_now(version):
  config = golden.configs()[version]
  assert golden.parameter_tree(golden.t5x_model(config)) == json.loads(
      golden.TREE_PATH.read_text()
  )[version]
  params = golden.random_params(config)
  for packed in (False, True):
    _assert_close(
        _logits(config, params, packed),
        golden.t5x_logits(config, packed),
        packed,
        1e-5,
    )


@pytest.mark.t5x
def test_initial_parameters_are_those_of_t5x():
  config = golden.configs()['t5_1_1']
  tokens = jnp.ones((1, 2), jnp.int32)
  ours, theirs = [
      module.init(
          jax.random.key(5), tokens, tokens, tokens, enable_dropout=False
      )['params']
      for module in (Transformer(config), golden.t5x_model(config))
  ]
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.skipif(not HAS_TORCH, reason='torch or transformers is missing')
@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('num_kv_heads', [6, 2, 1])
def test_grouped_logits_are_hugging_face_with_repeated_heads(
    version, num_kv_heads
):
  config = dataclasses.replace(
      golden.configs()[version], num_kv_heads=num_kv_heads
  )
  params = golden.random_params(config)
  _assert_close(
      _logits(config, params), golden.hf_logits(config), False, 1e-4
  )


@pytest.mark.parametrize('num_kv_heads', [3, 2, 1])
def test_grouped_logits_are_multi_head_with_repeated_heads(num_kv_heads):
  # Logits reach 4, and the sums over heads are taken in another order.
  config = dataclasses.replace(
      golden.configs()['t5_1_1'], num_kv_heads=num_kv_heads
  )
  params = golden.random_params(config)
  multi_head = dataclasses.replace(config, num_kv_heads=None)
  _assert_close(
      _logits(config, params, packed=True),
      _logits(multi_head, hf_reference.repeat_kv(params, config), packed=True),
      True,
      5e-5,
  )


def _decode(module, variables, encoded, inputs, tokens, **kwargs):
  logits, state = _apply(
      module,
      variables,
      encoded,
      inputs,
      tokens,
      tokens,
      mutable='cache',
      method='decode',
      **kwargs,
  )
  return logits, state['cache']


def _empty_cache(module, variables, inputs, length):
  tokens = jnp.ones((inputs.shape[0], length), jnp.int32)
  return _apply(
      module,
      variables,
      jnp.ones_like(inputs),
      tokens,
      tokens,
      decode=True,
      mutable='cache',
  )[1]['cache']


@pytest.mark.parametrize('has_cross_cache', [False, True])
@pytest.mark.parametrize('num_kv_heads', [6, 3, 1])
def test_steps_over_the_cache_equal_teacher_forcing(
    num_kv_heads, has_cross_cache
):
  config = dataclasses.replace(
      golden.configs()['t5_1_1'], num_kv_heads=num_kv_heads
  )
  module = Transformer(config)
  variables = {'params': golden.random_params(config)}
  features = golden.batch(packed=False)
  inputs = features['encoder_input_tokens'][:, :23].at[1, 17:].set(0)
  tokens = features['decoder_input_tokens'][:2, :7]
  inputs = inputs[:2]
  expected = _apply(module, variables, inputs, tokens, tokens)

  encoded = _apply(module, variables, inputs, method='encode')
  cache = _empty_cache(module, variables, inputs, 11)
  shapes = {leaf.shape for leaf in jax.tree.leaves(cache)}
  heads = (2, num_kv_heads)  # K heads, not N.
  assert shapes == {(), (*heads, 5, 11), (*heads, 11, 5)}
  if has_cross_cache:
    _, cache = _decode(
        module,
        variables | {'cache': cache},
        encoded,
        inputs,
        tokens[:, :0],
        prefill=True,
    )
    encoded = jnp.full_like(encoded, jnp.nan)  # no longer read
  for i in range(7):
    logits, cache = _decode(
        module,
        variables | {'cache': cache},
        encoded,
        inputs,
        tokens[:, i : i + 1],
        decode=True,
    )
    np.testing.assert_allclose(logits[:, 0], expected[:, i], atol=2e-5)


def test_prefilled_prompts_of_different_lengths_continue_each_at_its_place():
  config = dataclasses.replace(golden.configs()['t5_1_1'], num_kv_heads=2)
  module = Transformer(config)
  variables = {'params': golden.random_params(config)}
  features = golden.batch(packed=False)
  inputs = features['encoder_input_tokens'][:2, :23]
  tokens = features['decoder_input_tokens'][:2, :7]
  expected = _apply(module, variables, inputs, tokens, tokens)
  encoded = _apply(module, variables, inputs, method='encode')
  lengths = jnp.array([2, 5])
  _, cache = _decode(
      module,
      variables | {'cache': _empty_cache(module, variables, inputs, 9)},
      encoded,
      inputs,
      tokens,
      prefill=True,
      prefill_lengths=lengths,
  )
  for step in range(2):
    position = lengths + step
    logits, cache = _decode(
        module,
        variables | {'cache': cache},
        encoded,
        inputs,
        tokens[jnp.arange(2), position][:, None],
        decode=True,
    )
    np.testing.assert_allclose(
        logits[:, 0], expected[jnp.arange(2), position], atol=2e-5
    )


def test_beams_share_the_cross_attention_cache_of_their_input():
  config = dataclasses.replace(golden.configs()['t5_1_1'], num_kv_heads=2)
  module = Transformer(config)
  variables = {'params': golden.random_params(config)}
  inputs = golden.batch(packed=False)['encoder_input_tokens'][:2, :23]
  tokens = jnp.arange(3, 9).reshape(6, 1)  # 3 beams for each of 2 inputs
  repeated = jnp.repeat(inputs, 3, axis=0)
  expected = _apply(module, variables, repeated, tokens, tokens)
  encoded = _apply(module, variables, inputs, method='encode')
  cross = _decode(
      module,
      variables | {'cache': _empty_cache(module, variables, inputs, 4)},
      encoded,
      inputs,
      tokens[:2, :0],
      prefill=True,
  )[1]
  cache = _empty_cache(module, variables, repeated, 4)
  for name in ('layers_0', 'layers_1'):
    attention = 'encoder_decoder_attention'
    cache['decoder'][name][attention] = cross['decoder'][name][attention]
  logits, _ = _decode(
      module, variables | {'cache': cache}, None, inputs, tokens, decode=True
  )
  np.testing.assert_allclose(logits, expected, atol=5e-5)


def test_bfloat16_activations_keep_float32_parameters_and_logits():
  config = dataclasses.replace(
      golden.configs()['t5_1_1'], dtype='bfloat16', num_kv_heads=2
  )
  module = Transformer(config)
  tokens = jnp.ones((1, 2), jnp.int32)
  params = jax.jit(module.init)(
      jax.random.key(0, impl='rbg'), tokens, tokens, tokens
  )['params']
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  logits = _apply(module, {'params': params}, **golden.batch(False))
  assert logits.dtype == jnp.float32
  exact = _apply(
      Transformer(dataclasses.replace(config, dtype='float32')),
      {'params': params},
      **golden.batch(False),
  )
  assert 0 < np.abs(logits - exact).max() < 0.1 * np.abs(exact).max()
  cache = _empty_cache(
      module, {'params': params}, jnp.ones((1, 3), jnp.int32), 4
  )
  assert {x.dtype.name for x in jax.tree.leaves(cache)} == {'bfloat16', 'int32'}


def test_dropout_needs_its_rng_and_changes_the_logits():
  config = golden.configs()['t5_1_1']
  params = golden.random_params(config)
  first, again, other = [
      _apply(
          Transformer(config),
          {'params': params},
          **golden.batch(False),
          enable_dropout=True,
          rngs={'dropout': jax.random.key(seed, impl='rbg')},
      )
      for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.1


@pytest.mark.parametrize('bidirectional', [True, False])
def test_biases_of_long_inputs_are_those_of_short_ones(bidirectional):
  """And take no memory for each bucket."""
  bias = layers.RelativePositionBias(2, jnp.float32, bidirectional)
  positions = np.arange(2300)
  variables = bias.init(jax.random.key(0), positions[:2], positions)
  apply = jax.jit(bias.apply)
  compiled = apply.lower(variables, positions, positions).compile()
  found = compiled(variables, positions, positions)
  assert found.shape == (2, 2300, 2300)
  assert compiled.memory_analysis().temp_size_in_bytes < 30 * 2300**2
  for some in (slice(8), slice(1100, 1400), slice(-8, None)):
    np.testing.assert_array_equal(
        found[:, some], bias.apply(variables, positions[some], positions)
    )
  rows = np.stack([positions, positions + 7])
  of_rows = apply(variables, rows, positions)
  np.testing.assert_array_equal(of_rows[0], found)
  np.testing.assert_array_equal(
      of_rows[1, :, :9], bias.apply(variables, rows[1, :9], positions)
  )


@pytest.mark.parametrize('most', [2**22, 600, 7])
def test_gradient_of_biases_is_the_sum_over_each_bucket(most, monkeypatch):
  """Also where it is summed over blocks of three query rows, or of one."""
  monkeypatch.setattr(layers, '_MOST_ONE_HOT', most)
  bias = layers.RelativePositionBias(3, jnp.float32, bidirectional=True)
  queries, keys = np.arange(9), np.arange(200)
  variables = bias.init(jax.random.key(0), queries, keys)
  weights = np.random.default_rng(0).normal(size=(3, 9, 200))
  found = jax.grad(
      lambda x: jnp.sum(bias.apply(x, queries, keys) * weights)
  )(variables)['params']['rel_embedding']
  buckets = layers.relative_position_buckets(True, 32, 128)
  expected = np.zeros((32, 3))
  for query, key in np.ndindex(9, 200):
    bucket = buckets[min(key - query, 128) + 128]
    expected[bucket] += weights[:, query, key]
  np.testing.assert_allclose(found, expected.T, rtol=1e-5, atol=1e-5)


def test_gradient_of_long_inputs_takes_no_memory_for_each_bucket():
  bias = layers.RelativePositionBias(2, jnp.float32, bidirectional=True)
  positions = np.arange(4096)
  variables = bias.init(jax.random.key(0), positions[:2], positions)

  def loss(variables):
    return jnp.sum(bias.apply(variables, positions, positions) ** 2)

  compiled = jax.jit(jax.grad(loss)).lower(variables).compile()
  # One-hot rows of all pairs would take 128 bytes each.
  assert compiled.memory_analysis().temp_size_in_bytes < 100 * 4096**2


def test_packed_rows_cannot_be_decoded():
  config = golden.configs()['t5_1_1']
  with pytest.raises(ValueError, match='packed rows; decode without segment'):
    jax.eval_shape(
        functools.partial(Transformer(config).init, decode=True),
        jax.random.key(0),
        **golden.batch(True),
    )


def test_config_is_normalised_and_checked():
  config = T5Config(vocab_size=8, num_heads=4, mlp_activations=['relu'])
  assert config.num_kv_heads == 4
  assert config == T5Config(**config.to_dict())
  assert len({config, T5Config(**config.to_dict())}) == 1
  with pytest.raises(UserError, match='choose 1, 2 or 4'):
    T5Config(vocab_size=8, num_heads=4, num_kv_heads=3)
