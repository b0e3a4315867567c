# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cache sizes by hand, and what the timing counts; never how fast it is."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x import sizes
from gqa_t5x.benchmark import bandwidth as bandwidth_lib
from gqa_t5x.benchmark import decode
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer

TINY = T5Config(vocab_size=61, emb_dim=10, num_heads=4, num_kv_heads=2,
                num_encoder_layers=1, num_decoder_layers=3, head_dim=7,
                mlp_dim=11, mlp_activations=('gelu', 'linear'),
                dropout_rate=0.0)
SHAPE = {'batch_size': 2, 'input_length': 13, 'output_length': 5}
BANDWIDTH = {'copy': 1e9, 'read': 2e9, 'best': 2e9}


def _xxl(num_kv_heads):
  return T5Config(vocab_size=32128, dtype=jnp.bfloat16, emb_dim=4096,
                  num_heads=64, num_kv_heads=num_kv_heads,
                  num_encoder_layers=24, num_decoder_layers=24, head_dim=64,
                  mlp_dim=10240, mlp_activations=('gelu', 'linear'))


def test_cache_bytes_of_xxl_by_hand():
  # 2 * 24 layers * 64 heads * 64 * 2 bytes = 393,216 bytes a token.
  assert sizes.cache_bytes_per_token(_xxl(64)) == 393_216
  assert sizes.cache_bytes_per_token(_xxl(8)) == 49_152
  assert sizes.cache_bytes_per_token(_xxl(1)) == 6_144
  # Batch 32 of the paper's Figure 6: 32 * (2048 + 512) * 393,216 = 32.2 GB.
  shape = {'batch_size': 32, 'input_length': 2048, 'output_length': 512}
  assert sizes.cache_bytes(_xxl(64), **shape) == 32_212_254_720
  assert (sizes.cache_bytes(_xxl(64), **shape)
          == 8 * sizes.cache_bytes(_xxl(8), **shape))


def test_xxl_allocates_what_was_computed():
  # Traced, not allocated: this needs no memory.
  config = dataclasses.replace(_xxl(8), num_decoder_layers=2,
                               num_encoder_layers=1)
  assert (sizes.allocated_cache_bytes(config, **SHAPE)
          == sizes.cache_bytes(config, **SHAPE)
          == 2 * 18 * 2 * 2 * 8 * 64 * 2)


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_allocated_cache_is_the_computed_one(num_kv_heads):
  config = dataclasses.replace(TINY, num_kv_heads=num_kv_heads)
  # 2 rows * (13 + 5) tokens * 2 * 3 layers * K * 7 * 4 bytes.
  expected = 2 * 18 * 2 * 3 * num_kv_heads * 7 * 4
  assert sizes.cache_bytes(config, **SHAPE) == expected
  assert sizes.allocated_cache_bytes(config, **SHAPE) == expected


def test_step_weight_bytes_by_hand():
  params = sizes.parameter_shapes(TINY)
  # A layer: self-attention q and out 10*28 each, k and v 10*14 each; cross
  # q and out; MLP 3 * 10*11; 3 norms of 10. Then the norm, the position bias
  # 32*4 and the logits 10*61. Cross-attention's k and v do not count.
  layer = 2 * 280 + 2 * 140 + 2 * 280 + 330 + 30
  expected = 4 * (3 * layer + 10 + 32 * 4 + 610)
  assert sizes.step_weight_bytes(params) == expected
  tied = dataclasses.replace(TINY, logits_via_embedding=True)
  params = sizes.parameter_shapes(tied)
  assert sizes.step_weight_bytes(params) == expected  # 61*10 the other way.


def test_benchmark_of_several_models(monkeypatch):
  seen, run = [], decode._Program.run

  def watched(program, params, tokens):
    kernel = params['decoder']['layers_0']['self_attention']['key']['kernel']
    seen.append((kernel.shape[1] // TINY.head_dim, np.asarray(tokens)))
    times, decoded = run(program, params, tokens)
    module = Transformer(dataclasses.replace(TINY, num_kv_heads=seen[-1][0]))
    # It is the decoder that users get, and never stops.
    np.testing.assert_array_equal(decoded, decoding.generate(
        module, params, tokens, max_decode_len=5, eos_id=-1))
    return times, decoded
  monkeypatch.setattr(decode._Program, 'run', watched)
  models = {'GQA-2': (TINY, None),
            'MQA': (dataclasses.replace(TINY, num_kv_heads=1), None)}
  results = decode.compare_decode(models, **SHAPE, num_repeats=3,
                                  bandwidth=BANDWIDTH)

  assert [heads for heads, _ in seen] == [2, 1] + 3 * [2, 1]  # In turn.
  tokens = [t for _, t in seen]
  assert all(t.shape == (2, 13) and t.min() >= 2 and t.max() < 61
             for t in tokens)
  for i in (2, 4, 6):  # The same inputs for both, fresh ones each repeat.
    np.testing.assert_array_equal(tokens[i], tokens[i + 1])
    assert (tokens[i] != tokens[i - 2]).any()
  gqa = results['GQA-2']
  repeats = gqa['seconds_per_sample_repeats']
  assert len(repeats) == 3
  assert gqa['seconds_per_sample'] == sorted(repeats)[1]
  assert gqa['spread'] == pytest.approx(
      (max(repeats) - min(repeats)) / sorted(repeats)[1])
  assert 0 < gqa['encode_seconds'] < gqa['prefill_seconds']
  # Weights, and a full cache of both attentions, are the least it can be.
  assert gqa['peak_memory_bytes'] > (
      gqa['step_weight_bytes'] + gqa['cache_bytes_allocated'])
  assert gqa['cache_bytes_allocated'] == 2 * results['MQA'][
      'cache_bytes_allocated']
  # A mean step reads 13 + (1 + ... + 5) / 5 = 16 tokens of cache a row.
  assert gqa['step_bytes'] == (gqa['step_weight_bytes']
                               + 2 * 16 * gqa['cache_bytes_per_token'])
  assert gqa['limit_ms_per_step'] == pytest.approx(
      1e3 * gqa['step_bytes'] / 2e9)
  assert gqa['bandwidth_share'] == pytest.approx(
      gqa['limit_ms_per_step'] / gqa['ms_per_step'])
  assert gqa['tokens_per_second'] == pytest.approx(
      2e3 / gqa['ms_per_step'])
  assert (gqa['dtype'], gqa['weights_dtype']) == ('float32', 'float32')
  assert len(gqa['ms_per_step_repeats']) == 3
  assert gqa['ms_per_step'] == pytest.approx(
      sorted(gqa['ms_per_step_repeats'])[1])


def test_models_of_other_heads_share_weights_and_encode_once(monkeypatch):
  calls, run = [], decode._Encoder.run
  made = []

  def watched(encoder, params, tokens):
    seconds, encoded = run(encoder, params, tokens)
    calls.append((id(encoder), np.asarray(tokens).tobytes(), seconds))
    made.append(params)
    np.testing.assert_array_equal(
        encoded, decoding.encode(Transformer(TINY), params, tokens))
    return seconds, encoded
  monkeypatch.setattr(decode._Encoder, 'run', watched)
  found = decode.compare_kv_heads(
      TINY, [4, 1], **SHAPE, num_repeats=2, bandwidth=BANDWIDTH)

  assert list(found) == ['K=4', 'K=1']
  assert len({encoder for encoder, _, _ in calls}) == 1
  # The warm-up and two repeats, and a second model that takes what is there.
  assert len({tokens for _, tokens, _ in calls}) == 3
  assert calls[::2] == calls[1::2]
  mha, mqa = made[0]['decoder']['layers_0'], made[1]['decoder']['layers_0']
  assert mha['mlp']['wo']['kernel'] is mqa['mlp']['wo']['kernel']
  assert mha['self_attention']['key']['kernel'].shape == (10, 28)
  assert mqa['self_attention']['key']['kernel'].shape == (10, 7)


def _time_one(config, **options):
  return decode.compare_decode(
      {'': (config, None)}, num_repeats=1, bandwidth=BANDWIDTH, **options)['']


def test_the_largest_batch_fits_and_few_more_do_not():
  # Inputs so long that the cache decides.
  config = dataclasses.replace(TINY, num_kv_heads=4, num_encoder_layers=1)
  shape = {'input_length': 64, 'output_length': 32}
  memory = 2**20
  size = decode.largest_batch(config, memory, **shape)

  def peak(batch_size):
    return _time_one(
        config, batch_size=batch_size, **shape)['peak_memory_bytes']
  assert size > 1
  assert peak(size) <= memory < peak(size + max(1, size // 16))


def test_memory_for_no_sample_is_refused():
  message = 'expected memory for one sample, 4.4.*got 9.5'
  with pytest.raises(UserError, match=message):
    decode.largest_batch(TINY, 1024, input_length=13, output_length=5)


def test_dtype_holds_for_cache_and_weights():
  result = _time_one(TINY, **SHAPE, dtype=jnp.bfloat16)
  assert (result['dtype'], result['weights_dtype']) == ('bfloat16',) * 2
  assert result['cache_bytes_allocated'] == sizes.cache_bytes(
      TINY, **SHAPE) // 2


def test_bandwidth_is_positive_and_best_is_the_higher():
  measured = bandwidth_lib.measure_bandwidth(num_bytes=2**20, num_repeats=1)
  assert measured['copy'] > 0 and measured['read'] > 0
  assert measured['best'] == max(measured['copy'], measured['read'])
