# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plans against hand-made numbers, the TPU compiler's, and the benchmark's."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import pytest

from gqa_t5x import network
from gqa_t5x.benchmark import decode
from gqa_t5x.benchmark import devices
from gqa_t5x.benchmark import models
from gqa_t5x.benchmark import plan
from gqa_t5x.errors import UserError

SLOW = devices.Device(1, 1e9, 1e15, 'invented')  # Bandwidth is all that counts.
COMPILED = pathlib.Path(__file__).parents[2] / 'results' / 'tpu_compile.json'


def _xxl(num_kv_heads, **options):
  return plan.plan(
      models.t5_1_1_config('xxl', num_kv_heads),
      input_length=2048,
      output_length=512,
      **{'batch_size': 32, 'device': SLOW, **options},
  )


def test_xxl_by_hand():
  found = _xxl(8)
  per_token = 2 * 24 * 8 * 64 * 2  # K and V, layers, heads, head dim, bytes.
  assert found.cache_bytes_per_token == per_token == 49_152
  assert found.cache_bytes == 32 * (2048 + 512) * per_token
  # Decoder: self-attention Q, K, V, O, cross-attention Q, O, the gated MLP,
  # three norms; then the last norm and the output projection.
  joined, kv = 64 * 64, 8 * 64
  layer = 4096 * (4 * joined + 2 * kv + 3 * 10240 + 3)
  weights = 2 * (24 * layer + 4096 + 4096 * 32128 + 64 * 32)
  step = weights + 32 * (2048 + 513 / 2) * per_token
  assert found.ms_per_step == pytest.approx(1e3 * step / 1e9, rel=1e-6)


def test_paper_stands_beside_its_own_shapes_only():
  assert _xxl(8).paper_seconds_per_sample == 0.52
  config = models.t5_1_1_config('xxl', 8)
  shape = {'batch_size': 1, 'input_length': 512, 'output_length': 512}
  found = plan.plan(config, **shape, device=SLOW)
  assert found.paper_seconds_per_sample is None


@pytest.mark.parametrize('num_kv_heads', [64, 8, 1])
def test_memory_is_what_the_tpu_compiler_counts(num_kv_heads):
  (run,) = (
      r
      for r in json.loads(COMPILED.read_text())['runs']
      if (r['model'], r['num_kv_heads'], r['what'], r['batch_size'])
      == ('xxl', num_kv_heads, 'decode', 32)
  )
  found = _xxl(num_kv_heads)
  # The program makes the self-attention's cache itself. With one head for four
  # devices, each has the whole cross-attention's cache.
  cross = 32 * 2048 * found.cache_bytes_per_token
  share = cross / min(4, num_kv_heads)
  expected = found.weight_bytes / 4 + share
  assert run['programs']['decode']['argument_bytes'] == pytest.approx(
      expected, rel=0.02
  )


@pytest.mark.parametrize('num_kv_heads', [4, 2, 1])
def test_the_limit_of_a_step_is_the_benchmarks(num_kv_heads):
  config = network.T5Config(
      vocab_size=97, emb_dim=16, num_heads=4, num_kv_heads=num_kv_heads,
      num_encoder_layers=1, num_decoder_layers=2, head_dim=8, mlp_dim=24,
      mlp_activations=('gelu', 'linear'), dropout_rate=0.0, dtype=jnp.float32,
  )  # pyformat: disable
  shape = {'batch_size': 2, 'input_length': 11, 'output_length': 5}
  measured = decode.compare_decode(
      {'': (config, None)}, **shape, num_repeats=1, bandwidth={'best': 1e9}
  )['']
  found = plan.plan(config, **shape, device=SLOW)
  assert found.ms_per_step == pytest.approx(measured['limit_ms_per_step'])
  assert found.cache_bytes == measured['cache_bytes_allocated']


def test_largest_batch_just_fits():
  device = dataclasses.replace(devices.DEVICES['h100'], memory_gib=40)
  batch = _xxl(8, device=device).largest_batch
  assert _xxl(8, device=device, batch_size=batch).fits
  assert not _xxl(8, device=device, batch_size=batch + 1).fits


def test_devices_share_the_work():
  one, four = _xxl(8), _xxl(8, num_devices=4)
  assert four.ms_per_step == pytest.approx(one.ms_per_step / 4)
  assert four.seconds_per_sample == pytest.approx(one.seconds_per_sample)


def test_bandwidth_is_enough():
  device = plan.device_of(None, bandwidth=1e9)
  found, named = _xxl(8, device=device), _xxl(8)
  assert found.ms_per_step == named.ms_per_step
  assert found.fits is None and found.largest_batch is None
  # The encoder, and the cross-attention's keys and values, read once.
  joined, kv = 64 * 64, 8 * 64
  layer = 4096 * (4 * joined + 3 * 10240 + 2)
  read = 2 * (24 * layer + 4096 + 64 * 32 + 24 * 2 * 4096 * kv)
  assert found.prefill_seconds == pytest.approx(read / 1e9, rel=1e-6)
  line = plan.to_text([found]).splitlines()[1]
  assert line.split()[4] == '-' and 'fit' not in line


def test_device_numbers():
  device = plan.device_of('tpu-v4', bandwidth=5.0)
  assert device.bandwidth == 5.0
  assert device.source.endswith('tpu/docs/v4; given: bandwidth')
  with pytest.raises(UserError, match='or --bandwidth, .* got neither'):
    plan.device_of(None, flops=1.0, memory_gib=1.0)
  with pytest.raises(UserError, match="got 'tpu-v9'"):
    plan.device_of('tpu-v9')
