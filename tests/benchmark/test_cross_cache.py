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
from gqa_t5x.network import Transformer
from tests.benchmark import TINY

CONFIG = dataclasses.replace(
    TINY, num_kv_heads=2, num_decoder_layers=3, dropout_rate=0.0
)


@pytest.fixture(scope='module')
def parts():
  """Model, parameters, tokens and the two sources."""
  model = Transformer(CONFIG)
  params = decode.random_params(CONFIG, jnp.float32, 0)
  tokens = decode.random_tokens(CONFIG, (2, 13), 0)
  return model, params, tokens, cross_cache.sources(model, params, tokens)


def _step(model, params, source):
  start = jnp.zeros(2, jnp.int32)
  return model, params, source, decoding.empty_cache(model, params, start, 8)


def test_both_kinds_decode_as_generate(parts):
  model, params, tokens, both = parts
  expected = decoding.generate(
      model, params, tokens, max_decode_len=8, eos_id=-1
  )
  for source in both.values():
    looped = decoding.decode_loop(
        model, params, source, max_decode_len=8, eos_id=-1
    )
    np.testing.assert_array_equal(looped.tokens, expected)
    *arguments, cache = _step(model, params, source)
    current, stepped = jnp.zeros(2, jnp.int32), []
    for _ in range(8):
      current, cache = cross_cache.one_step(*arguments, cache, current)
      stepped.append(np.asarray(current))
    np.testing.assert_array_equal(np.stack(stepped, 1), expected)


def test_projections_are_counted(parts):
  model, params, _, both = parts

  def of_step(source):
    start = jnp.zeros(2, jnp.int32)
    arguments = _step(model, params, source)
    return cross_cache.projections(
        cross_cache.one_step.lower(*arguments, start)
    )

  def of_loop(source):
    return cross_cache.projections(
        decoding.decode_loop.lower(
            model, params, source, max_decode_len=8, eos_id=-1
        )
    )

  # Keys and values of 3 layers.
  assert of_step(both['projected']) == {'in_loop': 0, 'outside': 6}
  for count in (of_step, of_loop):
    assert count(both['cached']) == {'in_loop': 0, 'outside': 0}
  assert sum(of_loop(both['projected']).values()) == 6


def test_what_depends_on_the_step_is_in_the_loop(parts):
  """No compiler can move it out."""
  model, params, tokens, both = parts
  start = jnp.zeros(2, jnp.int32)

  @jax.jit
  def changing(encoded, cache):
    def body(carry):
      encoded, current, cache = carry
      new = decoding.Prefilled(tokens, {}, encoded)
      current, cache = cross_cache.one_step(model, params, new, cache, current)
      return encoded * current.sum(), current, cache

    return jax.lax.while_loop(
        lambda carry: carry[1].sum() < 9, body, (encoded, start, cache)
    )

  cache = decoding.empty_cache(model, params, start, 8)
  found = cross_cache.projections(
      changing.lower(both['projected'].encoded, cache)
  )
  assert found == {'in_loop': 6, 'outside': 0}


def test_command(tmp_path, monkeypatch, capsys):
  from gqa_t5x.benchmark import models

  shallow = dataclasses.replace(CONFIG, num_decoder_layers=1)
  monkeypatch.setattr(models, 't5_1_1_config', lambda size, k: shallow)
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


@pytest.mark.parametrize('words, message', [
    (['--output_length', '3'], 'expected --output_length 4 or more'),
    (['--model', 'huge'], "got 'huge'; choose one"),
    (['--num_kv_heads', '6,4'], 'num_heads=6 cannot be split'),
    (['--num_kv_heads', '6,a'], "from 1 to 2147483647, got 'a'"),
    (['--batch_size', '0'], "from 1 to 2147483647, got '0'"),
    (['--output', '/'], 'expected the name of a file'),
])  # pyformat: disable
def test_what_cannot_be_measured_is_refused_at_once(
    words, message, tmp_path, capsys
):
  with pytest.raises(SystemExit):
    cross_cache.main(['--output', str(tmp_path / 'x'), *words])
  assert message in capsys.readouterr().err


@pytest.mark.t5x
def test_only_t5x_own_model_projects_again(parts):
  _, params, tokens, _ = parts
  programs = cross_cache._t5x_programs(CONFIG, params, tokens, (2, 8))
  cached, projected = (
      cross_cache.projections(programs[kind][1]())
      for kind in ('cached', 'projected')
  )
  assert cached == {'in_loop': 0, 'outside': 6}
  assert sum(projected.values()) == 6
