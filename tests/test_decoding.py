# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of decoding against Hugging Face, full forward passes, enumeration."""

import functools
import importlib.util
import dataclasses
import itertools
import json

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x.decoding import beams as beams_lib
from gqa_t5x.decoding import sampling
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_decoding

HAS_HUGGINGFACE = all(
    importlib.util.find_spec(name) for name in ('torch', 'transformers')
)
CONFIGS = make_decoding.configs()
INPUTS = make_decoding.input_tokens()
MAX_LEN = make_decoding.MAX_DECODE_LEN
MULTI_HEAD, GROUPED, MULTI_QUERY = 't5_1_1_kv6', 't5_1_1_kv2', 't5_1_1_kv1'
each_grouping = pytest.mark.parametrize(
    'name', [MULTI_HEAD, GROUPED, MULTI_QUERY]
)
each_method = pytest.mark.parametrize(
    'options',
    [
        dict(method='greedy'),
        dict(method='sample', top_k=7, top_p=0.9, temperature=1.3),
        dict(method='beam', num_beams=3),
    ],
    ids=lambda options: options['method'],
)


@functools.cache
def model_and_params(name):
  config = CONFIGS[name]
  params = hf_reference.random_params(config, make_decoding.SEED)
  return Transformer(config), params


def decode(name, inputs=INPUTS, max_decode_len=MAX_LEN, **options):
  tokens = decoding.generate(
      *model_and_params(name), inputs, max_decode_len=max_decode_len, **options
  )
  assert tokens.dtype == jnp.int32
  assert tokens.shape == (len(inputs), max_decode_len)
  return np.asarray(tokens)


def teacher_forced_logits(name, inputs, targets):
  """Logits [B, T, V] of each target's place, without any cache."""
  model, params = model_and_params(name)
  targets = np.asarray(targets)
  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  return np.asarray(full_logits(model, params, inputs, shifted), np.float64)


@functools.partial(jax.jit, static_argnames='model')
def full_logits(model, params, inputs, shifted):
  return model.apply(
      {'params': params}, inputs, shifted, shifted, enable_dropout=False
  )


def log_softmax(logits):
  return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


@functools.cache
def goldens():
  return json.loads(make_decoding.PATH.read_text(encoding='utf-8'))


# --- Hugging Face


@pytest.mark.parametrize('name', CONFIGS)
def test_tokens_equal_hugging_face(name):
  expected = goldens()[name]
  np.testing.assert_array_equal(decode(name), expected['greedy'])
  for penalty in make_decoding.LENGTH_PENALTIES:
    tokens = decode(
        name,
        method='beam',
        num_beams=make_decoding.NUM_BEAMS,
        length_penalty=penalty,
    )
    np.testing.assert_array_equal(tokens, expected[f'beam {penalty}'])


@pytest.mark.skipif(not HAS_HUGGINGFACE, reason='needs torch and transformers')
@pytest.mark.parametrize('name', CONFIGS)
def test_goldens_are_what_hugging_face_decodes(name):
  assert make_decoding.hf_tokens(CONFIGS[name]) == goldens()[name], (
      'Hugging Face decodes other tokens than before: if its version explains '
      'that, run python -m tests.golden.make_decoding'
  )


def test_goldens_cover_rows_that_end_and_rows_that_do_not():
  for method in ('greedy', 'beam 0.0'):
    has_end = [1 in row for case in goldens().values() for row in case[method]]
    assert 3 <= sum(has_end) <= len(has_end) - 3
  # Beams are not greedy, and the length penalty matters.
  assert any(c['greedy'] != c['beam 0.0'] for c in goldens().values())
  assert any(c['beam 1.5'] != c['beam 0.0'] for c in goldens().values())


# --- Greedy


@each_grouping
def test_greedy_is_argmax_of_full_forward_passes(name):
  targets = np.zeros((len(INPUTS), MAX_LEN), np.int32)
  ended = np.zeros(len(INPUTS), bool)
  for step in range(MAX_LEN):
    logits = teacher_forced_logits(name, INPUTS, targets)[:, step]
    targets[:, step] = np.where(ended, 0, np.argmax(logits, axis=-1))
    ended |= targets[:, step] == decoding.EOS_ID
  np.testing.assert_array_equal(decode(name), targets)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_first_of_the_largest_logits_is_the_most_probable(dtype):
  inf = np.inf
  logits = [[-3, 7, 2, 7], [-inf, -inf, -2, -inf], [-inf, 1, 2, 3]]
  logits = jnp.asarray(logits, dtype)
  found = sampling._most_probable(logits, logits.max(-1, keepdims=True))
  assert found.dtype == jnp.int32
  assert found.tolist() == [1, 2, 3]


def test_bfloat16_decodes():
  config = T5Config(
      vocab_size=23, dtype=jnp.bfloat16, emb_dim=19, num_heads=6,
      num_kv_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=5,
      mlp_dim=29, mlp_activations=('gelu', 'linear'),
  )  # fmt: skip
  model, params = Transformer(config), hf_reference.random_params(config, 0)
  prefilled = decoding.prefill(model, params, INPUTS)
  assert {x.dtype for x in prefilled.cross_cache.values()} == {
      jnp.dtype(jnp.bfloat16)
  }
  tokens = decoding.generate(model, params, INPUTS, max_decode_len=3)
  assert tokens.shape == (len(INPUTS), 3)


@pytest.mark.parametrize('name', [GROUPED, 't5_1_0_kv2'])
def test_placed_parameters_of_16_bits_compute_the_same(name):
  model, params = model_and_params(name)
  config = dataclasses.replace(model.config, dtype=jnp.bfloat16)
  model = Transformer(config)
  placed = decoding.place_params(model, params)
  wide = {
      path
      for path, array in traverse_util.flatten_dict(placed).items()
      if array.dtype == jnp.float32
  }
  assert wide == {
      ('token_embedder', 'embedding')
      if config.logits_via_embedding
      else ('decoder', 'logits_dense', 'kernel')
  }
  shifted = np.pad(INPUTS, ((0, 0), (1, 0)))[:, :-1]
  np.testing.assert_array_equal(
      full_logits(model, placed, INPUTS, shifted),
      full_logits(model, params, INPUTS, shifted),
  )


# --- Rows stand for themselves


@each_grouping
@each_method
def test_ragged_batch_equals_each_row_alone(name, options):
  if options['method'] == 'sample' and name != GROUPED:
    pytest.skip('sampling begins where the logits are known')
  together = decode(name, **options)
  # Each length compiles anew, so one of them has to do for MHA and MQA.
  for i in (1, 2) if name == GROUPED else (1,):
    length = make_decoding.INPUT_LENGTHS[i]
    own = dict(options)
    if options['method'] == 'sample':
      own['example_ids'] = [i]
    alone = decode(name, INPUTS[i : i + 1, :length], **own)
    np.testing.assert_array_equal(together[i], alone[0], err_msg=f'row {i}')


def test_more_padding_changes_nothing():
  tokens = decode(GROUPED, np.pad(INPUTS, ((0, 3), (0, 5))))
  np.testing.assert_array_equal(tokens[:-3], decode(GROUPED))
  assert not tokens[-3:].any()


# --- Stopping


@each_method
def test_loop_stops_when_all_rows_have_ended(options):
  model, params = model_and_params(GROUPED)
  # What most rows write first becomes the end; the others are left empty.
  first = decode(GROUPED)[:, 0]
  eos_id = int(np.bincount(first).argmax())
  ends = (first == eos_id)[:, None]
  inputs = np.where(ends, INPUTS, 0)
  prefilled = decoding.prefill(model, params, inputs)
  if options['method'] == 'greedy':
    decoded = decoding.decode_loop(
        model, params, prefilled, max_decode_len=MAX_LEN, eos_id=eos_id
    )
    assert decoded.num_steps == 1
    np.testing.assert_array_equal(
        decoded.tokens, ends * ([eos_id] + [0] * (MAX_LEN - 1))
    )
  # Whatever the method, nothing follows the end.
  tokens = decode(GROUPED, INPUTS, eos_id=eos_id, **options)
  after_end = np.cumsum(tokens == eos_id, axis=1) - (tokens == eos_id) > 0
  assert after_end.any() and not tokens[after_end].any()


@each_grouping
def test_number_of_steps_is_the_longest_row(name):
  model, params = model_and_params(name)
  full = decode(name)
  has_end = (full == decoding.EOS_ID).any(axis=1)
  lengths = np.where(
      has_end, np.argmax(full == decoding.EOS_ID, axis=1) + 1, MAX_LEN
  )
  for rows in (has_end, ~has_end, np.ones_like(has_end)):
    inputs = np.where(rows[:, None], INPUTS, 0)
    decoded = decoding.decode_loop(
        model,
        params,
        decoding.prefill(model, params, inputs),
        max_decode_len=MAX_LEN,
    )
    assert decoded.num_steps == max(lengths[rows], default=0)
    np.testing.assert_array_equal(decoded.tokens, full * rows[:, None])


def test_rows_of_padding_cost_no_steps():
  model, params = model_and_params(GROUPED)
  prefilled = decoding.prefill(model, params, np.zeros_like(INPUTS))
  greedy = decoding.decode_loop(
      model, params, prefilled, max_decode_len=MAX_LEN
  )
  beams = decoding.beam_loop(
      model,
      params,
      prefilled,
      max_decode_len=MAX_LEN,
      num_beams=3,
      length_penalty=0.0,
  )
  assert greedy.num_steps == beams.num_steps == 0
  assert not greedy.tokens.any() and not beams.tokens.any()


def test_no_end_of_sentence_runs_to_the_end():
  model, params = model_and_params(MULTI_QUERY)
  prefilled = decoding.prefill(model, params, INPUTS)
  for loop, options in (
      (decoding.decode_loop, {}),
      (decoding.beam_loop, dict(num_beams=3, length_penalty=0.6)),
  ):
    decoded = loop(
        model, params, prefilled, max_decode_len=MAX_LEN, eos_id=-1, **options
    )
    assert decoded.num_steps == MAX_LEN


def test_beam_search_stops_as_soon_as_the_result_is_certain():
  model, params = model_and_params(GROUPED)
  prefilled = decoding.prefill(model, params, INPUTS)
  run = functools.partial(
      decoding.beam_loop,
      model,
      params,
      length_penalty=0.0,
      max_decode_len=MAX_LEN,
      num_beams=3,
  )
  together = run(prefilled)
  steps = []
  for i in range(len(INPUTS)):
    row = jax.tree.map(lambda x, i=i: x[i : i + 1], prefilled)
    alone = run(row)
    steps.append(int(alone.num_steps))
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[i])
  assert together.num_steps == max(steps) and min(steps) < MAX_LEN


def test_compiles_once_for_each_shape():
  def count():
    return decoding.prefill._cache_size(), decoding.decode_loop._cache_size()

  decode(GROUPED)
  before = count()
  # An equal model is the same model.
  model, params = Transformer(CONFIGS[GROUPED]), model_and_params(GROUPED)[1]
  decoding.generate(
      model, params, INPUTS[::-1], max_decode_len=MAX_LEN, eos_id=3
  )
  assert count() == before
  decode(GROUPED, max_decode_len=MAX_LEN + 1)
  assert count() == (before[0], before[1] + 1)


def test_cache_holds_key_value_heads_once_per_input():
  for name in (MULTI_HEAD, GROUPED, MULTI_QUERY):
    model, params = model_and_params(name)
    prefilled = decoding.prefill(model, params, INPUTS)
    shapes = {(p[-1], x.shape) for p, x in prefilled.cross_cache.items()}
    heads = (len(INPUTS), CONFIGS[name].num_kv_heads)
    assert shapes == {
        ('cached_key', (*heads, 5, 13)),
        ('cached_value', (*heads, 13, 5)),
    }
    assert len(prefilled.cross_cache) == 2 * CONFIGS[name].num_decoder_layers


def test_self_attention_cache_is_updated_in_place():
  # Heads this large make the cache large beside the attention logits.
  config = dataclasses.replace(CONFIGS[GROUPED], head_dim=67)
  model, params = Transformer(config), hf_reference.random_params(config, 1)
  batch, length = len(INPUTS), 2003
  compiled = decoding.decode_loop.lower(
      model,
      params,
      decoding.prefill(model, params, INPUTS),
      max_decode_len=length,
  ).compile()
  row = config.num_kv_heads * config.head_dim * length * 4
  cache_bytes = 2 * config.num_decoder_layers * batch * row
  used = compiled.memory_analysis().temp_size_in_bytes
  # One copy of the cache, and attention logits of one layer beside it.
  assert cache_bytes <= used < 1.5 * cache_bytes


# --- Beam search


@pytest.fixture(name='tiny', params=[6, 2, 1], scope='module')
def fixture_tiny(request):
  """A model of 5 tokens, two inputs, and all its sequences of up to 3 tokens.

  Returns:
    model, params, inputs [2, S], sequences [n, 3] padded with 0 after the end,
    log-probabilities [2, n], lengths [n].
  """
  config = T5Config(
      vocab_size=5, emb_dim=7, num_heads=6, num_kv_heads=request.param,
      num_encoder_layers=1, num_decoder_layers=2, head_dim=3, mlp_dim=11,
      mlp_activations=('gelu', 'linear'),
  )  # fmt: skip
  model, params = Transformer(config), hf_reference.random_params(config, 1)
  inputs = np.array([[2, 3, 4, 1, 2], [4, 2, 1, 0, 0]])
  sequences = [
      s
      for length in (1, 2, 3)
      for s in itertools.product(range(5), repeat=length)
      if 1 not in s[:-1] and (s[-1] == 1 or length == 3)
  ]
  lengths = np.array([len(s) for s in sequences])
  padded = np.array([s + (0,) * (3 - len(s)) for s in sequences])
  shifted = np.pad(padded, ((0, 0), (1, 0)))[:, :-1]
  log_probs = []
  for row in inputs:
    logits = full_logits(
        model, params, np.tile(row, (len(padded), 1)), shifted
    )
    each = np.take_along_axis(
        log_softmax(np.asarray(logits, np.float64)), padded[..., None], axis=2
    )[..., 0]
    log_probs.append(
        np.sum(each, axis=1, where=np.arange(3) < lengths[:, None])
    )
  return model, params, inputs, padded, np.array(log_probs), lengths


@pytest.mark.parametrize('length_penalty', [0.0, 0.6, 3.0])
def test_wide_beam_search_finds_the_best_of_all_sequences(tiny, length_penalty):
  model, params, inputs, sequences, log_probs, lengths = tiny
  tokens, scores = decoding.beam_search(
      model,
      params,
      inputs,
      max_decode_len=3,
      num_beams=25,
      num_results=4,
      length_penalty=length_penalty,
  )
  assert tokens.shape == (2, 4, 3) and scores.shape == (2, 4)
  expected = log_probs / ((5 + lengths) / 6) ** length_penalty
  for row in range(2):
    best = np.argsort(-expected[row])[:4]
    np.testing.assert_array_equal(tokens[row], sequences[best])
    np.testing.assert_allclose(scores[row], expected[row, best], rtol=1e-4)


def test_missing_beams_score_minus_infinity(tiny):
  model, params, inputs, *_ = tiny
  tokens, scores = decoding.beam_search(
      model, params, inputs, max_decode_len=1, num_beams=7, num_results=7
  )
  # One token can be written in five ways.
  assert np.isfinite(scores[:, :5]).all() and np.isinf(scores[:, 5:]).all()
  assert not tokens[:, 5:].any()
  assert all(len(set(row)) == 5 for row in np.asarray(tokens[:, :5, 0]))


@each_grouping
def test_one_beam_is_greedy(name):
  # As long as nothing ends: greedy takes the end where a beam looks beyond it.
  tokens = decode(name, method='beam', num_beams=1, eos_id=-1)
  np.testing.assert_array_equal(tokens, decode(name, eos_id=-1))


@each_grouping
def test_scores_are_those_of_a_full_forward_pass(name):
  model, params = model_and_params(name)
  tokens, scores = decoding.beam_search(
      model,
      params,
      INPUTS,
      max_decode_len=MAX_LEN,
      num_beams=5,
      num_results=2,
      length_penalty=0.8,
  )
  tokens = np.asarray(tokens)
  for i in range(2):
    log_probs = log_softmax(teacher_forced_logits(name, INPUTS, tokens[:, i]))
    each = np.take_along_axis(log_probs, tokens[:, i, :, None], 2)[..., 0]
    before = np.cumsum(tokens[:, i] == 1, axis=1) - (tokens[:, i] == 1)
    length = np.sum(before == 0, axis=1)
    total = np.sum(each, axis=1, where=before == 0)
    np.testing.assert_allclose(
        scores[:, i], total / ((5 + length) / 6) ** 0.8, rtol=1e-4
    )
  assert (scores[:, 0] >= scores[:, 1]).all()


# --- Sampling


def allowed_tokens(logits, temperature, top_k, top_p):
  """Which tokens [V] may be drawn, by definition."""
  probs = np.exp(log_softmax(logits / temperature))
  order = np.argsort(-probs)[: top_k or None]
  kept = probs[order] / probs[order].sum()
  smallest = int(np.searchsorted(np.cumsum(kept), top_p)) + 1
  return set(order[: smallest if top_p < 1 else None].tolist())


@pytest.mark.parametrize(
    'limits',
    [
        dict(top_k=3, temperature=3.0),
        dict(top_p=0.5),
        dict(top_p=0.9, temperature=2.0),
        dict(top_k=3, top_p=0.7, temperature=2.0),
    ],
    ids=str,
)
def test_samples_stay_within_their_limits(limits):
  inputs = np.tile(INPUTS[:1], (50, 1))
  tokens = decode(
      GROUPED, inputs, max_decode_len=3, method='sample', eos_id=-1, **limits
  )
  logits = teacher_forced_logits(GROUPED, inputs, tokens)
  limits = dict(temperature=1.0, top_k=0, top_p=1.0) | limits
  for row, row_logits in zip(tokens, logits):
    for token, token_logits in zip(row, row_logits):
      assert token in allowed_tokens(token_logits, **limits)
  # All that is allowed is drawn, where it is likely to be.
  expected = allowed_tokens(logits[0, 0], **limits)
  probs = np.exp(log_softmax(logits[0, 0] / limits['temperature']))
  likely = {t for t in expected if probs[t] > 0.15}
  assert likely <= set(tokens[:, 0].tolist()) <= expected


def test_samples_follow_the_distribution():
  count = 4000
  model, params = model_and_params(GROUPED)
  prefilled = decoding.prefill(model, params, INPUTS[:1])
  prefilled = jax.tree.map(
      lambda x: jnp.repeat(x, count, axis=0), prefilled
  )
  logits = teacher_forced_logits(GROUPED, INPUTS[:1], [[0]])[0, 0]
  # Without limits, and with all tokens within the limits.
  for top_k in (0, logits.size):
    decoded = decoding.decode_loop(
        model,
        params,
        prefilled,
        max_decode_len=1,
        top_k=top_k,
        sampling=decoding.Sampling(
            jnp.float32(2.0),
            None,
            jax.random.split(jax.random.key(0), count),
        ),
    )
    drawn = np.bincount(decoded.tokens[:, 0], minlength=logits.size) / count
    probs = np.exp(log_softmax(logits / 2.0))
    error = np.sqrt(probs * (1 - probs) / count)
    assert (np.abs(drawn - probs) < 4 * error + 1 / count).all()


def test_the_limit_of_sampling_is_greedy():
  expected = decode(GROUPED)
  for options in (dict(top_k=1), dict(top_p=1e-6), dict(temperature=1e-20)):
    tokens = decode(GROUPED, method='sample', seed=7, **options)
    np.testing.assert_array_equal(tokens, expected, err_msg=str(options))


def test_seed_and_example_decide_a_sample():
  sample = functools.partial(decode, GROUPED, method='sample', eos_id=-1)
  first = sample(seed=1)
  np.testing.assert_array_equal(sample(seed=1), first)
  assert (sample(seed=2) != first).any(axis=1).all()
  # Reversed, each example keeps its number and so its sample.
  ids = np.arange(len(INPUTS))[::-1]
  again = sample(inputs=INPUTS[::-1], seed=1, example_ids=ids)
  np.testing.assert_array_equal(again[::-1], first)
  # Equal inputs differ by their numbers.
  tokens = sample(inputs=np.tile(INPUTS[:1], (len(INPUTS), 1)), seed=1)
  assert len({tuple(row) for row in tokens.tolist()}) == len(INPUTS)


# --- Bad input


@pytest.mark.parametrize(
    'changed, message',
    [
        (dict(method='viterbi'), "='viterbi'.*'greedy', 'sample', 'beam'"),
        (dict(num_beams=3), "no option 'num_beams'; choose method 'beam'"),
        (dict(eos_id=-2), 'eos_id from -1 to 22, got -2'),
        (dict(eos_id=23), 'eos_id from -1 to 22, got 23'),
        (dict(max_decode_len=0), 'max_decode_len of 1 or more, got 0'),
        (dict(max_decode_len=2.5), 'max_decode_len of 1 or more, got 2.5'),
        (dict(input_tokens=[1, 2]), r'\[batch, length\].*got int64 \[2\]'),
        (dict(input_tokens=[[1], [2, 3]]), 'different lengths; pad them'),
        (dict(input_tokens=[[0.5]]), 'integer input_tokens.*float64'),
        (dict(input_tokens=np.zeros((0, 3), int)), r'neither of them 0'),
        (dict(input_tokens=[[3, 23]]), 'from 0 to 22, got 23; use the vocab'),
        (dict(input_tokens=[[-1, 3]]), 'from 0 to 22, got -1'),
        (dict(input_tokens=jnp.array([[3, 23]])), 'from 0 to 22, got 23'),
        (dict(method='sample', temperature=0.0), "above 0.*method='greedy'"),
        (dict(method='sample', temperature=1e-46), 'temperature above 0'),
        (dict(method='beam', length_penalty=1e3), 'choose a smaller one'),
        (dict(method='sample', temperature=float('nan')), 'temperature above'),
        (dict(method='sample', top_k=24), 'top_k from 0 to 23, got 24'),
        (dict(method='sample', seed=1.5), 'an integer seed from 0'),
        (dict(method='sample', seed=2**64), 'an integer seed from 0'),
        (dict(method='sample', top_p=0.0), 'top_p above 0 and at most 1'),
        (dict(method='sample', top_p=1.5), 'top_p above 0 and at most 1'),
        (dict(method='sample', example_ids=[1]), r'each of 7 rows.*\(1,\)'),
        (dict(method='sample', example_ids=[-1] * 7), 'from 0 to .*got -1'),
        (dict(method='sample', example_ids=[1.5] * 7), 'integer.*got 1.5'),
        (dict(max_decode_len=2**31), 'max_decode_len from 1 to 2147483647'),
        (dict(method='beam', num_beams=2**31 - 1), 'num_beams from 1 to'),
        (dict(method='beam', num_results=2), 'num_results=1, got 2.*beam_se'),
        (dict(method='beam', num_beams=0), 'num_beams from 1 to .*got 0'),
        (dict(method='beam', length_penalty=-1), 'length_penalty of 0 or more'),
    ],
)
def test_bad_arguments_give_one_line(changed, message):
  model, params = model_and_params(GROUPED)
  arguments = dict(input_tokens=INPUTS, max_decode_len=MAX_LEN) | changed
  with pytest.raises(UserError, match=message) as error:
    decoding.generate(model, params, **arguments)
  assert '\n' not in str(error.value)


def test_beams_that_are_none_stay_so_where_logits_are_no_numbers():
  """Devices differ in where they sort NaN, so there may be none."""
  state = beams_lib._Beams(
      jnp.int32(0), jnp.zeros((1, 2, 3), jnp.int32),
      jnp.array([[0.0, -jnp.inf]]), None, None, None,
  )  # pyformat: disable
  found, parents, _ = beams_lib._extend(state, jnp.full((2, 3), jnp.nan))
  assert found.tolist() == [[np.inf] * 3 + [-np.inf]]
  assert parents.tolist() == [[0, 0, 0, 1]]


@each_method
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(value, options):
  model, params = model_and_params(GROUPED)
  embedding = np.array(params['token_embedder']['embedding'])
  token = INPUTS[0, 0]
  embedding[token] = value
  params = params | {'token_embedder': {'embedding': embedding}}
  generate = functools.partial(
      decoding.generate, model, params, max_decode_len=MAX_LEN, **options
  )
  with pytest.raises(UserError, match='not finite, in float32; check its par'):
    generate(INPUTS)
  # Where nothing can be raised; the other rows stay what they are.
  tokens = np.asarray(jax.jit(generate)(INPUTS))
  is_read = (INPUTS == token).any(axis=1)
  assert (tokens[is_read, 0] == decoding.NOT_FINITE).all()
  expected = decode(GROUPED, **options)
  is_untouched = ~is_read & (expected[:, :-1] != token).all(axis=1)
  assert is_untouched.any()
  if options['method'] != 'beam':  # Any of its beams may read the token.
    np.testing.assert_array_equal(tokens[is_untouched], expected[is_untouched])


def test_more_results_than_beams_are_refused():
  model, params = model_and_params(GROUPED)
  with pytest.raises(UserError, match='num_results from 1 to 4, got 5'):
    decoding.beam_search(
        model, params, INPUTS, max_decode_len=MAX_LEN, num_results=5
    )


@pytest.mark.parametrize('wrong', ['heads', 'variables', 'missing'])
def test_parameters_of_another_model_are_one_line(wrong):
  config = CONFIGS['t5_1_1_kv6']
  params = hf_reference.random_params(config, make_decoding.SEED)
  if wrong == 'heads':
    config = dataclasses.replace(config, num_kv_heads=2)
  elif wrong == 'variables':
    params = {'params': params}
  else:
    params = {name: x for name, x in params.items() if name != 'encoder'}
  with pytest.raises(UserError, match=r'num_kv_heads=\d and the other sizes'):
    decoding.generate(
        Transformer(config), params, make_decoding.input_tokens(),
        max_decode_len=3,
    )  # pyformat: disable
