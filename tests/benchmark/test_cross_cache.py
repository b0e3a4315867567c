# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the pair computes and where it projects; never how fast it is."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x.benchmark import cross_cache
from gqa_t5x.benchmark import decode
from gqa_t5x.network import T5Config, Transformer

TINY = T5Config(
    vocab_size=61,
    emb_dim=10,
    num_heads=4,
    num_kv_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=3,
    head_dim=7,
    mlp_dim=11,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
)
SHAPE = cross_cache.Shape(batch_size=2, input_length=13, output_length=8)


@pytest.fixture(scope='module')
def sources():
  """Model, parameters, tokens and the two sources, of a real encoding."""
  model = Transformer(TINY)
  params = decode.random_params(TINY, jnp.float32, 0)
  tokens = np.random.default_rng(0).integers(2, 61, (2, 13)).astype(np.int32)
  encoded = model.apply(
      {'params': params}, tokens, enable_dropout=False, method='encode'
  )
  cached = cross_cache.project(model, params, tokens, encoded)
  projected = cross_cache.Source(jnp.asarray(tokens), encoded, {})
  return model, params, tokens, encoded, [cached, projected]


def test_both_kinds_decode_as_generate(sources):
  model, params, tokens, encoded, both = sources
  expected = decoding.generate(
      model, params, tokens, max_decode_len=8, eos_id=-1
  )
  for source in both:
    state = cross_cache.start(model, params, tokens, encoded, 8)
    stepped = []
    for _ in range(8):
      state = cross_cache.one_step(model, params, source, state)
      stepped.append(np.asarray(state.token))
    np.testing.assert_array_equal(np.stack(stepped, 1), expected)
    for num_steps in (3, 8):
      state = cross_cache.start(model, params, tokens, encoded, 8)
      state = cross_cache.loop(
          model, params, source, state, jnp.int32(num_steps)
      )
      np.testing.assert_array_equal(state.token, expected[:, num_steps - 1])


def test_projections_are_counted(sources):
  model, params, tokens, encoded, both = sources
  state = cross_cache.start(model, params, tokens, encoded, 8)

  def lowered(function, source, *more):
    return function.lower(model, params, source, state, *more)

  # Keys and values of 3 layers.
  cached, projected = both
  step = cross_cache.projections(lowered(cross_cache.one_step, projected))
  assert step == {'in_loop': 0, 'outside': 6}
  for program in (
      lowered(cross_cache.one_step, cached),
      lowered(cross_cache.loop, cached, jnp.int32(8)),
  ):
    assert cross_cache.projections(program) == {'in_loop': 0, 'outside': 0}
  looped = lowered(cross_cache.loop, projected, jnp.int32(8))
  assert sum(cross_cache.projections(looped).values()) == 6


def test_what_depends_on_the_step_is_in_the_loop(sources):
  """No compiler can move it out."""
  model, params, tokens, encoded, (_, source) = sources
  state = cross_cache.start(model, params, tokens, encoded, 8)

  @jax.jit
  def changing(encoded, state):
    def body(carry):
      encoded, state = carry
      new = cross_cache.Source(source.tokens, encoded, {})
      state = cross_cache.greedy_step(model, params, new, state)
      return encoded * state.token.sum(), state

    return jax.lax.while_loop(
        lambda carry: carry[1].token.sum() < 9, body, (encoded, state)
    )

  found = cross_cache.projections(changing.lower(encoded, state))
  assert found == {'in_loop': 6, 'outside': 0}


def test_command(tmp_path, monkeypatch, capsys):
  from gqa_t5x.benchmark import tpu_compile

  shallow = dataclasses.replace(TINY, num_decoder_layers=1)
  monkeypatch.setattr(tpu_compile, 't5_1_1_config', lambda size, k: shallow)
  path = tmp_path / 'new' / 'cross_cache.json'
  cross_cache.main([
      '--output', str(path), '--num_kv_heads', '2', '--input_length', '5',
      '--output_length', '4', '--batch_size', '3', '--num_repeats', '2',
  ])  # pyformat: disable
  report = json.loads(path.read_text())
  assert {'command', 'device', 'versions', 'commit'} <= report.keys()
  (case,) = report['cases']
  assert case['input_length'] == 5
  assert (case['t5x'] is None) == (importlib.util.find_spec('t5x') is None)
  for kind in ('cached', 'projected'):
    assert len(case['step'][kind]['ms_per_step_repeats']) == 2
    assert case['step'][kind]['ms_per_step'] > 0
  assert '   3     5   2  step ' in capsys.readouterr().out


@pytest.mark.t5x
def test_only_t5x_own_model_projects_again():
  programs = cross_cache._t5x_programs(TINY, SHAPE, 0)
  cached, projected = (
      cross_cache.projections(programs[kind][1]())
      for kind in ('cached', 'projected')
  )
  assert cached == {'in_loop': 0, 'outside': 6}
  assert sum(projected.values()) == 6
