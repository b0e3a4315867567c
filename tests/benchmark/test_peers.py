# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Peers decode our tokens on our weights, or are not timed."""

import dataclasses
import functools
import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x import network
from gqa_t5x.benchmark import decode
from gqa_t5x.benchmark import hf_decode
from gqa_t5x.benchmark import peers
from gqa_t5x.errors import UserError

CONFIG = network.T5Config(
    vocab_size=211, emb_dim=32, num_heads=4, num_encoder_layers=2,
    num_decoder_layers=2, head_dim=8, mlp_dim=48,
    mlp_activations=('gelu', 'linear'), dropout_rate=0.0, dtype=jnp.float32,
)  # pyformat: disable
STEPS = 9


@pytest.fixture(scope='module', name='params')
def fixture_params():
  params = decode.random_params(CONFIG, CONFIG.dtype, 0)
  return peers.without_pad_and_eos(params)


def _tokens(params, inputs):
  model = network.Transformer(CONFIG)
  prefilled = decoding.prefill(model, params, inputs)
  return decoding.decode_loop(
      model, params, prefilled, max_decode_len=STEPS, eos_id=-1
  ).tokens


@pytest.mark.parametrize(
    'name',
    ['hf', 'ctranslate2', pytest.param('t5x', marks=pytest.mark.t5x)],
)
def test_a_peer_decodes_our_tokens(params, name, tmp_path):
  if name != 't5x':
    for package in ('torch', 'transformers', 'ctranslate2'):
      pytest.importorskip(package)
  peer = peers.load(peers.DECODE, [name], CONFIG, params, str(tmp_path))[name]
  inputs = decode.random_tokens(CONFIG, (3, 17), 0)
  ours = np.asarray(_tokens(params, inputs))
  assert (ours > 1).all()
  np.testing.assert_array_equal(peer(np.asarray(inputs), STEPS), ours)


def test_hugging_face_is_timed_with_weights_of_its_own(monkeypatch, capsys):
  for package in ('torch', 'transformers'):
    pytest.importorskip(package)
  clock = itertools.count()  # A call takes 1 s, and a step of the decoder 2.
  fake = types.SimpleNamespace(perf_counter=lambda: next(clock))
  monkeypatch.setattr(hf_decode, 'time', fake)
  from transformers.models.t5 import modeling_t5

  forward = modeling_t5.T5ForConditionalGeneration.forward

  @functools.wraps(forward)
  def slow(*args, **kwargs):
    next(clock), next(clock)
    return forward(*args, **kwargs)

  monkeypatch.setattr(
      modeling_t5.T5ForConditionalGeneration, 'forward', slow
  )
  hf_decode.main([
      '--model', 'small', '--batch_size', '2', '--input_length', '17',
      '--output_length', '6', '--num_repeats', '3',
  ])  # pyformat: disable
  found = json.loads(capsys.readouterr().out)
  assert found['ms_per_step_repeats'] == [2000.0] * 3
  assert found['ms_per_step'] == 2000.0
  assert (found['num_kv_heads'], found['batch_size']) == (6, 2)
  with pytest.raises(SystemExit, match='2'):
    hf_decode.main(['--model', 'small', '--output_length', '2'])
  assert 'expected --output_length 3' in capsys.readouterr().err


def _compare(params, peer):
  return decode.compare_decode(
      {'K=4': (CONFIG, params),
       'K=1': (dataclasses.replace(CONFIG, num_kv_heads=1), None)},
      batch_size=3, input_length=17, output_length=STEPS, num_repeats=2,
      bandwidth={'best': 1e9}, peers={'peer': peer}, same_as='K=4',
  )  # pyformat: disable


def test_a_peer_gets_the_inputs_of_ours_and_two_lengths(params):
  calls = []

  def peer(tokens, steps):
    calls.append((tokens.tobytes(), steps))
    return np.asarray(_tokens(params, jnp.asarray(tokens)))[:, :steps]

  row = _compare(params, peer)['peer']
  # The first pair warms up. In a repeat a run of one step goes twice, and the
  # second counts; it has inputs of its own, the same for both lengths.
  assert [steps for _, steps in calls] == [STEPS, 1] + 2 * [1, 1, STEPS]
  tokens = [tokens for tokens, _ in calls]
  assert tokens == [tokens[0]] * 2 + [tokens[2]] * 3 + [tokens[5]] * 3
  assert len(set(tokens)) == 3
  assert row['num_kv_heads'] == 4
  np.testing.assert_allclose(
      row['bandwidth_share'], row['limit_ms_per_step'] / row['ms_per_step']
  )


def test_times_of_a_peer_by_hand(params, monkeypatch):
  now = 0.0  # A call of the peer takes 3 s, and each step of it 2.

  def peer(tokens, steps):
    nonlocal now
    now += 3 + 2 * steps
    return np.asarray(_tokens(params, jnp.asarray(tokens)))[:, :steps]

  fake = types.SimpleNamespace(perf_counter=lambda: now)
  monkeypatch.setattr(decode, 'time', fake)
  times = decode._time_peer(peer, np.full((3, 17), 2), STEPS)
  assert (times.prefill, times.steps) == (3, 2 * STEPS)
  shape = {'batch_size': 3, 'output_length': STEPS}
  row = decode._times([times, times], shape)
  assert row['ms_per_step'] == 2000
  assert row['seconds_per_sample'] == pytest.approx((3 + 2 * STEPS) / 3)
  assert row['tokens_per_second'] == pytest.approx(3 / 2)


def test_a_peer_of_other_weights_is_not_timed(params):
  with pytest.raises(RuntimeError, match='peer decodes other tokens than ours'):
    _compare(params, lambda tokens, steps: np.full((3, steps), 7))


@pytest.mark.parametrize('name', ['hf', 'ctranslate2'])
def test_peers_on_a_cpu_are_not_timed_beside_a_gpu(params, name, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with pytest.raises(UserError, match=f'time {name} beside.*got gpu; set JAX'):
    peers.load(peers.DECODE, [name], CONFIG, params, '/nowhere')


def test_unknown_peers_are_refused(params):
  with pytest.raises(UserError, match="got 'vllm'; choose one"):
    peers.load(peers.DECODE, ['vllm'], CONFIG, params, '/nowhere')
