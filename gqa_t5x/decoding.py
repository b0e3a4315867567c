# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a model's output token by token: greedy, sampling, beam search.

Decoding has two compiled parts, so that they can be timed apart: `prefill`
encodes the inputs and projects the cross-attention's keys and values, once per
input; `decode_loop` and `beam_loop` are the steps, one `lax.while_loop` that
stops when every row has ended. `generate` puts them together.

A row's tokens depend on nothing but that row: not on the other rows of the
batch, nor on how far its input is padded (in bfloat16 but for its rounding).

Letters of the shapes: B inputs, S input length, L decoded length, R beams,
V vocabulary.
"""

import functools
import inspect
import math
import numbers
from typing import Any, Mapping, NamedTuple

from flax import errors as flax_errors
from flax import linen as nn
from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.errors import UserError

Array = jax.Array

PAD_ID = 0  # also the start token, as in T5
EOS_ID = 1
NO_EOS = -1  # No token has this id, so that every row is decoded to its end.
NOT_FINITE = -1  # Stands where logits gave no token, and ends the row.


class Prefilled(NamedTuple):
  """What the steps need of the inputs; made by `prefill`.

  Attributes:
    input_tokens: int32 [B, S].
    cross_cache: the cross-attention's keys [B, K, H, S] and values
      [B, K, S, H], under their paths in the module's 'cache' collection.
    encoded: the encoder's output [B, S, D], for a cross_cache that is empty:
      each step then projects it anew, for `benchmark.cross_cache` to time.
  """

  input_tokens: Array
  cross_cache: Mapping[tuple[str, ...], Array]
  encoded: Array | None = None


class Decoded(NamedTuple):
  """What `decode_loop` and `beam_loop` return.

  Attributes:
    tokens: int32 [B, L], or [B, num_results, L] of a beam search, best first;
      0 after the end of sentence token. `NOT_FINITE` is where the largest
      logit was infinite or NaN.
    scores: float32 [B, num_results] of a beam search, else None.
    num_steps: int32 scalar, how often the decoder was called.
  """

  tokens: Array
  scores: Array | None
  num_steps: Array


class Sampling(NamedTuple):
  """The random choice of a token, in the types that `decode_loop` wants.

  Attributes:
    temperature: float32 scalar.
    top_p: float32 scalar, or None for no limit.
    row_keys: PRNG keys [B].
  """

  temperature: Array
  top_p: Array | None
  row_keys: Array


def place_params(
    model: nn.Module, params: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns parameters on the device, put there once for all batches.

  Where the model computes in 16 bits they have them too, but for those of the
  logits, which are computed in float32: the outputs are the same, and a step
  reads half as much. Where it computes in float32, those of 16 bits become
  float32 on a CPU, in twice the memory: each step would convert them anew.

  Args:
    model: a `Transformer`.
    params: its parameters.
  """
  config = model.config
  is_narrow = config.dtype != jnp.float32
  is_tied = config.logits_via_embedding
  of_logits = 'token_embedder' if is_tied else 'logits_dense'

  def placed(path, array):
    dtype = None
    if is_narrow and of_logits not in path:
      dtype = config.dtype
    elif not is_narrow and jax.default_backend() == 'cpu':
      dtype = np.float32
    return jax.device_put(np.asarray(array, dtype))

  flat = traverse_util.flatten_dict(params)
  return _nest({path: placed(path, array) for path, array in flat.items()})


def generate(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    *,
    max_decode_len: int,
    method: str = 'greedy',
    eos_id: int = EOS_ID,
    example_ids: Array | None = None,
    **options: Any,
) -> Array:
  """Decodes the outputs of a batch of inputs.

  Compiled once for each model, method and shape.

  Args:
    model: a `Transformer`.
    params: its parameters.
    input_tokens: int [B, S], 0 is padding. A row of padding alone gives a row
      of 0 and costs no steps, so that it can fill up a batch.
    max_decode_len: L.
    method: 'greedy', 'sample' or 'beam'.
    eos_id: token that ends a sequence; -1 lets every row run to L tokens, as
      timing wants it.
    example_ids: as in `temperature_sample`; nothing to the other methods.
    **options: keywords of `temperature_sample` or `beam_search`.

  Returns:
    int32 [B, L]: tokens up to and with `eos_id`, then 0.

  Raises:
    UserError: if an argument is out of its range, or logits are not finite
      (except where `generate` is traced: tokens are then -1).
  """
  check_options(
      model.config.vocab_size,
      max_decode_len,
      method=method,
      eos_id=eos_id,
      **options,
  )
  if method == 'sample':
    options['example_ids'] = example_ids
  try:
    out = _METHODS[method](
        model,
        params,
        input_tokens,
        max_decode_len=max_decode_len,
        eos_id=eos_id,
        **options,
    )
  except (
      flax_errors.ScopeParamShapeError,
      flax_errors.ScopeParamNotFoundError,
      flax_errors.ApplyScopeInvalidVariablesStructureError,
  ) as error:
    raise UserError(
        'expected the parameters of a model with num_kv_heads='
        f'{model.config.num_kv_heads} and the other sizes of its configuration;'
        ' pass those that it was made with (of what `init` returns, the item'
        f" 'params'): {str(error).splitlines()[0]}"
    ) from error
  tokens = out[0][:, 0] if method == 'beam' else out
  if not isinstance(tokens, jax.core.Tracer) and (tokens == NOT_FINITE).any():
    raise UserError(
        'the model computed logits that are not finite, in'
        f' {jnp.dtype(model.config.dtype)}; check its parameters, and if that'
        ' is float16, which overflows, choose bfloat16'
    )
  return tokens


def check_options(
    vocab_size: int,
    max_decode_len: int,
    /,
    method: str = 'greedy',
    eos_id: int = EOS_ID,
    **options: Any,
) -> None:
  """Checks what `generate` takes besides its inputs.

  Raises:
    UserError: if there is no such method, it has no such option, or one is out
      of its range.
  """
  _check_int('max_decode_len', max_decode_len, 1)
  _check_int('eos_id', eos_id, -1, vocab_size - 1)
  if method not in _METHODS:
    raise UserError(
        f'method={method!r} is not a decoding method; choose one of '
        + ', '.join(map(repr, _METHODS))
    )
  if method == 'beam' and options.get('num_results', 1) != 1:
    raise UserError(
        f'expected num_results=1, got {options["num_results"]}: generate'
        ' returns a row for each input; gqa_t5x.decoding.beam_search has more'
    )
  known = _options_of(method)
  for name, value in options.items():
    if name not in known:
      others = [other for other in _METHODS if name in _options_of(other)]
      raise UserError(
          f'decoding method {method!r} has no option {name!r}; '
          + (f'choose method {" or ".join(map(repr, others))}' if others else
             f'see gqa_t5x.decoding.{_METHODS[method].__name__}')
      )
    if known[name].annotation is float and not (
        isinstance(value, (numbers.Real, np.ndarray, jax.Array))
        and np.ndim(value) == 0
    ):
      raise UserError(f'expected {name} to be a number, got {value!r}')
  values = {name: option.default for name, option in known.items()} | options
  if method == 'sample':
    _check_sampling(vocab_size, **values)
  elif method == 'beam':
    _check_beams(vocab_size, max_decode_len, **values)


def _options_of(method: str) -> dict[str, inspect.Parameter]:
  """Returns the keywords of a method that stand in `generate`'s options."""
  parameters = inspect.signature(_METHODS[method]).parameters
  return {
      name: parameter
      for name, parameter in parameters.items()
      if parameter.kind is parameter.KEYWORD_ONLY
      and name not in ('max_decode_len', 'eos_id', 'example_ids')
  }


def greedy_search(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    *,
    max_decode_len: int,
    eos_id: int = EOS_ID,
) -> Array:
  """Takes the most probable token at each step; as `generate`."""
  input_tokens = _check_inputs(model, input_tokens, max_decode_len)
  return decode_loop(
      model,
      params,
      prefill(model, params, input_tokens),
      max_decode_len=max_decode_len,
      eos_id=eos_id,
  ).tokens


def temperature_sample(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    *,
    max_decode_len: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    example_ids: Array | None = None,
    eos_id: int = EOS_ID,
) -> Array:
  """Draws each token at random; as `generate`.

  Temperature comes first, then the limit to `top_k` tokens, then `top_p` of
  what is left, as in Hugging Face; t5x allows only one of the two limits.

  Args:
    model: a `Transformer`.
    params: its parameters.
    input_tokens: int [B, S].
    max_decode_len: L.
    temperature: logits are divided by it; above 0.
    top_k: only the k most probable tokens are drawn; 0 means no limit.
    top_p: only the smallest set of most probable tokens whose probabilities
      add up to top_p or more is drawn, in (0, 1]; 1 means no limit.
    seed: of the random numbers.
    example_ids: int [B], the number of each row's random stream, by default
      its place in the batch. Numbers that stand for the examples make samples
      independent of how examples are batched.
    eos_id: token that ends a sequence.

  Returns:
    int32 [B, L].

  Raises:
    UserError: if an argument is out of its range.
  """
  input_tokens = _check_inputs(model, input_tokens, max_decode_len)
  _check_sampling(model.config.vocab_size, temperature, top_k, top_p, seed)
  batch = input_tokens.shape[0]
  if example_ids is None:
    example_ids = np.arange(batch)
  if np.shape(example_ids) != (batch,):
    raise UserError(
        f'expected one of example_ids for each of {batch} rows, got shape '
        f'{np.shape(example_ids)}'
    )
  example_ids = np.asarray(example_ids)
  low, high = example_ids.min(), example_ids.max()
  if example_ids.dtype.kind not in 'iu' or low < 0 or high >= 2**32:
    raise UserError(
        f'expected integer example_ids from 0 to {2**32 - 1}, got'
        f' {high if low >= 0 else low}'
    )
  return decode_loop(
      model,
      params,
      prefill(model, params, input_tokens),
      max_decode_len=max_decode_len,
      eos_id=eos_id,
      top_k=top_k,
      sampling=Sampling(
          temperature=jnp.float32(temperature),
          top_p=None if top_p == 1.0 else jnp.float32(top_p),
          row_keys=_fold_in(
              jax.random.key(seed), jnp.asarray(example_ids, jnp.uint32)
          ),
      ),
  ).tokens


def beam_search(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    *,
    max_decode_len: int,
    num_beams: int = 4,
    length_penalty: float = 0.6,
    num_results: int = 1,
    eos_id: int = EOS_ID,
) -> tuple[Array, Array]:
  """Searches for the sequences of highest score.

  The score is log P / ((5 + length) / 6) ** length_penalty (Wu et al. 2016,
  arXiv 1609.08144, equation 14, as in T5 and t5x), where the length counts the
  end of sentence. Hugging Face divides by length ** length_penalty, so that
  only 0 means the same to both, with its early_stopping='never'; as there, only
  candidates among the best R may end, and what is cut at L competes with what
  has ended (in t5x candidates among the best 2R may end, and what is cut is
  returned only where nothing has ended).

  A row is done when no live beam can still beat its results.

  Args:
    model: a `Transformer`.
    params: its parameters.
    input_tokens: int [B, S].
    max_decode_len: L.
    num_beams: R.
    length_penalty: at least 0; the higher, the longer are the results.
    num_results: how many sequences to return for each input, at most R.
    eos_id: token that ends a sequence.

  Returns:
    Tokens, int32 [B, num_results, L], and scores, float32 [B, num_results],
    best first. Where fewer sequences exist, the score is -inf.

  Raises:
    UserError: if an argument is out of its range.
  """
  input_tokens = _check_inputs(model, input_tokens, max_decode_len)
  _check_beams(
      model.config.vocab_size, max_decode_len, num_beams, length_penalty,
      num_results,
  )  # pyformat: disable
  decoded = beam_loop(
      model,
      params,
      prefill(model, params, input_tokens),
      max_decode_len=max_decode_len,
      num_beams=num_beams,
      length_penalty=jnp.float32(length_penalty),
      num_results=num_results,
      eos_id=eos_id,
  )
  return decoded.tokens, decoded.scores


_METHODS = {
    'greedy': greedy_search,
    'sample': temperature_sample,
    'beam': beam_search,
}


@functools.partial(jax.jit, static_argnames=('model',))
def encode(
    model: nn.Module, params: Mapping[str, Any], input_tokens: Array
) -> Array:
  """Encodes int32 [B, S] to [B, S, D]."""
  return model.apply(
      {'params': params}, input_tokens, enable_dropout=False, method='encode'
  )


@functools.partial(jax.jit, static_argnames=('model',))
def prefill(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    encoded: Array | None = None,
) -> Prefilled:
  """Encodes int32 [B, S] and projects the cross-attention's keys and values.

  This happens once per input: beams share it and steps only read it.

  Args:
    model: a `Transformer`.
    params: its parameters.
    input_tokens: int [B, S].
    encoded: what `encode` made of them, where that is timed apart.
  """
  input_tokens = input_tokens.astype(jnp.int32)
  if encoded is None:
    encoded = encode(model, params, input_tokens)
  # No prompt, so the self-attention's cache stays empty and is not kept.
  prompt = jnp.zeros((input_tokens.shape[0], 0), jnp.int32)
  cache = _nest(empty_cache(model, params, prompt, 1))
  _, variables = model.apply(
      {'params': params, 'cache': cache},
      encoded,
      input_tokens,
      prompt,
      prompt,
      enable_dropout=False,
      prefill=True,
      method='decode',
      mutable=['cache'],
  )
  cross_cache, _ = split_cache(variables['cache'])
  return Prefilled(input_tokens, cross_cache)


@functools.partial(
    jax.jit, static_argnames=('model', 'max_decode_len', 'top_k')
)
def decode_loop(
    model: nn.Module,
    params: Mapping[str, Any],
    prefilled: Prefilled,
    *,
    max_decode_len: int,
    eos_id: int = EOS_ID,
    top_k: int = 0,
    sampling: Sampling | None = None,
) -> Decoded:
  """Runs the steps of greedy decoding, or of `sampling` if it is given.

  The self-attention's cache lives and dies inside the loop, which therefore
  updates it in place.

  Args:
    model: a `Transformer`.
    params: its parameters.
    prefilled: from `prefill`.
    max_decode_len: L.
    eos_id: token that ends a sequence; -1 lets every row run to L tokens.
    top_k: as for `temperature_sample`.
    sampling: None means greedy.

  Returns:
    `Decoded`, without scores.
  """
  inputs = prefilled.input_tokens
  batch = inputs.shape[0]

  def is_running(state):
    step, _, _, ended, _ = state
    return (step < max_decode_len) & ~jnp.all(ended)

  def body(state):
    step, tokens, current, ended, cache = state
    logits, cache = decode_step(model, params, prefilled, cache, current)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    if sampling is None:
      current = _most_probable(logits, largest)
    else:
      # The maximum becomes 0, so that no temperature can overflow it.
      current = _sample(logits - largest, sampling, top_k, step)
    is_finite = jnp.isfinite(largest[:, 0])
    current = jnp.where(is_finite, current, NOT_FINITE)
    current = jnp.where(ended, PAD_ID, current)
    tokens = lax.dynamic_update_index_in_dim(tokens, current, step, axis=1)
    ended |= (current == eos_id) | ~is_finite
    return step + 1, tokens, current, ended, cache

  start = jnp.full((batch,), PAD_ID, jnp.int32)
  num_steps, tokens, *_ = lax.while_loop(
      is_running,
      body,
      (
          jnp.int32(0),
          jnp.full((batch, max_decode_len), PAD_ID, jnp.int32),
          start,
          jnp.all(inputs == PAD_ID, axis=1),
          empty_cache(model, params, start, max_decode_len),
      ),
  )
  return Decoded(tokens, None, num_steps)


def _most_probable(logits: Array, largest: Array) -> Array:
  """Returns the place of the first of the largest logits [B, V], int32 [B].

  Two reductions that a CPU vectorises; as one, which `jnp.argmax` is, they take
  some six times as long there.

  Args:
    logits: [B, V].
    largest: the largest logit of each row, [B, 1].
  """
  vocab_size = logits.shape[-1]
  ids = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
  return jnp.min(jnp.where(logits < largest, vocab_size, ids), axis=-1)


def _sample(
    logits: Array, sampling: Sampling, top_k: int, step: Array
) -> Array:
  """Draws tokens [B] from logits [B, V], the largest of which is 0."""
  logits /= sampling.temperature
  is_limited = top_k > 0 or sampling.top_p is not None
  ids = None
  if is_limited:
    logits, ids = lax.top_k(logits, top_k or logits.shape[-1])
  if sampling.top_p is not None:
    probs = jax.nn.softmax(logits)
    # Sorted: a token stays if those before it do not yet reach top_p.
    before = jnp.cumsum(probs, axis=-1) - probs
    # The first one always stays; its `before` may be rounded.
    keep = (before < sampling.top_p).at[:, 0].set(True)
    logits = jnp.where(keep, logits, -jnp.inf)
  keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(
      sampling.row_keys, step
  )
  drawn = jax.vmap(jax.random.categorical)(keys, logits)
  if is_limited:
    drawn = jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]
  return drawn.astype(jnp.int32)


class _Beams(NamedTuple):
  """State of the search: live beams, the best that ended, the live's cache.

  Attributes:
    step: int32 scalar, the number of tokens in the live beams.
    live_tokens: int32 [B, R, L].
    live_log_probs: float32 [B, R], best first; -inf where there is no beam.
    ended_tokens: int32 [B, R, L].
    ended_scores: float32 [B, R], best first; -inf where there is none.
    cache: the self-attention's, B * R rows, beams of an input adjacent.
  """

  step: Array
  live_tokens: Array
  live_log_probs: Array
  ended_tokens: Array
  ended_scores: Array
  cache: Mapping[tuple[str, ...], Array]


@functools.partial(
    jax.jit,
    static_argnames=('model', 'max_decode_len', 'num_beams', 'num_results'),
)
def beam_loop(
    model: nn.Module,
    params: Mapping[str, Any],
    prefilled: Prefilled,
    *,
    max_decode_len: int,
    num_beams: int,
    length_penalty: Array,
    num_results: int = 1,
    eos_id: int = EOS_ID,
) -> Decoded:
  """Runs the steps of beam search; arguments as for `beam_search`."""
  inputs = prefilled.input_tokens
  batch = inputs.shape[0]
  is_empty = jnp.all(inputs == PAD_ID, axis=1)

  def penalty(length):
    return ((5.0 + length) / 6.0) ** length_penalty

  def is_running(state):
    # Log-probabilities only fall and the penalty only grows, so no live beam
    # can end with a better score than this.
    bound = state.live_log_probs[:, 0] / penalty(max_decode_len)
    is_done = state.ended_scores[:, num_results - 1] >= bound
    return (state.step < max_decode_len) & ~jnp.all(is_done | is_empty)

  def body(state):
    step = state.step
    last = state.live_tokens[:, :, jnp.maximum(step - 1, 0)]  # PAD_ID at first
    logits, cache = decode_step(
        model, params, prefilled, state.cache, last.reshape(-1)
    )
    log_probs, parents, tokens = _extend(state, logits)
    ends = (tokens[:, :, step] == eos_id) | (step + 1 == max_decode_len)
    ends |= log_probs == jnp.inf

    # Twice as many candidates as beams, so that R can live if R end.
    live = jnp.where(ends, -jnp.inf, log_probs)
    live, order = lax.top_k(live, num_beams)
    survivors = jnp.take_along_axis(parents, order, axis=1)
    rows = (jnp.arange(batch)[:, None] * num_beams + survivors).reshape(-1)

    # The second half of the candidates is there to live on, not to end.
    may_end = ends & (jnp.arange(2 * num_beams) < num_beams)
    scores = jnp.where(may_end, log_probs / penalty(step + 1), -jnp.inf)
    scores = jnp.concatenate([state.ended_scores, scores], axis=1)
    scores, best = lax.top_k(scores, num_beams)
    return _Beams(
        step=step + 1,
        live_tokens=_take_beams(tokens, order),
        live_log_probs=live,
        ended_tokens=_take_beams(
            jnp.concatenate([state.ended_tokens, tokens], axis=1), best
        ),
        ended_scores=scores,
        cache={k: v[rows] if v.ndim else v for k, v in cache.items()},
    )

  no_tokens = jnp.full((batch, num_beams, max_decode_len), PAD_ID, jnp.int32)
  no_scores = jnp.full((batch, num_beams), -jnp.inf)
  state = lax.while_loop(
      is_running,
      body,
      _Beams(
          step=jnp.int32(0),
          live_tokens=no_tokens,
          # All beams are the same at first: one of them is enough.
          live_log_probs=no_scores.at[:, 0].set(0.0),
          ended_tokens=no_tokens,
          ended_scores=no_scores,
          cache=empty_cache(
              model, params, no_tokens[:, :, 0].reshape(-1), max_decode_len
          ),
      ),
  )
  tokens = state.ended_tokens[:, :num_results]
  scores = state.ended_scores[:, :num_results]
  is_result = jnp.isfinite(scores) & ~is_empty[:, None]
  is_infinite = (scores == jnp.inf) & ~is_empty[:, None]
  no_token = jnp.where(is_infinite, NOT_FINITE, PAD_ID)
  return Decoded(
      jnp.where(is_result[:, :, None], tokens, no_token[:, :, None]),
      jnp.where(is_result, scores, -jnp.inf),
      state.step,
  )


def _extend(state: _Beams, logits: Array) -> tuple[Array, Array, Array]:
  """Finds the best 2R continuations of the live beams.

  Args:
    state: the search.
    logits: [B * R, V].

  Returns:
    Log-probabilities [B, 2R], best first; the beam [B, 2R] that each continues;
    its tokens [B, 2R, L].
  """
  batch, num_beams, _ = state.live_tokens.shape
  vocab_size = logits.shape[-1]
  log_probs = jax.nn.log_softmax(logits).reshape(batch, num_beams, vocab_size)
  # What is no number is found first, ends and is seen; NaN, which inf - inf
  # would be too, has no order that all devices share.
  log_probs = jnp.where(jnp.isnan(log_probs), jnp.inf, log_probs)
  live = state.live_log_probs[:, :, None]
  log_probs = jnp.where(live == -jnp.inf, live, log_probs + live)
  log_probs, chosen = lax.top_k(
      log_probs.reshape(batch, num_beams * vocab_size), 2 * num_beams
  )
  parents, new = chosen // vocab_size, chosen % vocab_size
  tokens = lax.dynamic_update_index_in_dim(
      _take_beams(state.live_tokens, parents),
      new.astype(jnp.int32),
      state.step,
      axis=2,
  )
  return log_probs, parents, tokens


def _take_beams(tokens: Array, index: Array) -> Array:
  """Maps [B, R, L] and beam numbers [B, Q] to [B, Q, L]."""
  return jnp.take_along_axis(tokens, index[:, :, None], axis=1)


def decode_step(
    model: nn.Module,
    params: Mapping[str, Any],
    prefilled: Prefilled,
    cache: Mapping[tuple[str, ...], Array],
    tokens: Array,
) -> tuple[Array, Mapping[tuple[str, ...], Array]]:
  """Feeds tokens [B * R]; returns logits [B * R, V] and the new cache.

  Args:
    model: a `Transformer`.
    params: its parameters.
    prefilled: from `prefill`.
    cache: the self-attention's, from `empty_cache` or an earlier step.
    tokens: int32 [B * R].
  """
  tokens = tokens[:, None]
  logits, variables = model.apply(
      {'params': params, 'cache': _nest({**cache, **prefilled.cross_cache})},
      prefilled.encoded,
      prefilled.input_tokens,
      tokens,
      tokens,
      enable_dropout=False,
      decode=True,
      method='decode',
      mutable=['cache'],
  )
  _, cache = split_cache(variables['cache'])
  return logits[:, 0], cache


def empty_cache(
    model: nn.Module, params: Mapping[str, Any], rows: Array, length: int
) -> Mapping[tuple[str, ...], Array]:
  """Makes the self-attention's cache of zeros: a row each, `length` long."""
  tokens = jax.ShapeDtypeStruct((rows.shape[0], length), jnp.int32)
  config = model.config
  encoded = jax.ShapeDtypeStruct(
      (rows.shape[0], 1, config.emb_dim), config.dtype
  )
  inputs = jax.ShapeDtypeStruct(encoded.shape[:2], jnp.int32)
  _, variables = jax.eval_shape(
      functools.partial(
          model.apply,
          enable_dropout=False,
          decode=True,
          method='decode',
          mutable=['cache'],
      ),
      {'params': params},
      encoded,
      inputs,
      tokens,
      tokens,
  )
  _, shapes = split_cache(variables['cache'])
  return {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes.items()}


def split_cache(
    cache: Mapping[str, Any],
) -> tuple[Mapping[tuple[str, ...], Any], Mapping[tuple[str, ...], Any]]:
  """Splits a module's cache by path: cross-attention's part, all else.

  Only the second changes from step to step, and has a row for each beam.
  """
  parts = {}, {}
  for path, value in traverse_util.flatten_dict(cache).items():
    parts['encoder_decoder_attention' not in path][path] = value
  return parts


_nest = traverse_util.unflatten_dict

_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def _check_int(name: str, value: Any, low: int, high: int | None = None):
  """Raises UserError unless value is an integer from low to high."""
  if (
      not isinstance(value, (int, np.integer))
      or isinstance(value, bool)
      or value < low
      or (high is not None and value > high)
  ):
    wanted = f'of {low} or more' if high is None else f'from {low} to {high}'
    raise UserError(f'expected an integer {name} {wanted}, got {value!r}')


def _check_sampling(
    vocab_size: int, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
  """Raises UserError for values that `temperature_sample` refuses."""
  _check_int('top_k', top_k, 0, vocab_size)
  _check_int('seed', seed, 0, 2**31 - 1)
  # Steps take it as float32, in which less is 0.
  if not np.finfo(np.float32).tiny <= temperature < float('inf'):
    raise UserError(
        f'expected a temperature above 0, got {temperature}; for the limit of '
        "0 use method='greedy'"
    )
  if not 0.0 < top_p <= 1.0:
    raise UserError(
        f'expected top_p above 0 and at most 1 (no limit), got {top_p}'
    )


def _check_beams(
    vocab_size: int,
    max_decode_len: int,
    num_beams: int,
    length_penalty: float,
    num_results: int,
) -> None:
  """Raises UserError for values that `beam_search` refuses."""
  # Continuations of all beams are ranked together, with indices of 32 bits.
  _check_int('num_beams', num_beams, 1, (2**31 - 1) // vocab_size)
  _check_int('num_results', num_results, 1, num_beams)
  if not 0.0 <= length_penalty < float('inf'):
    raise UserError(
        f'expected a length_penalty of 0 or more, got {length_penalty}'
    )
  # Steps compute in float32, in which more is infinite: no order is left.
  most = math.log(np.finfo(np.float32).max)
  if length_penalty * math.log((5 + max_decode_len) / 6) > most:
    raise UserError(
        f'expected a length_penalty that {max_decode_len} tokens may be raised'
        f' to, got {length_penalty}; choose a smaller one'
    )


def _check_inputs(
    model: nn.Module, input_tokens: Array, max_decode_len: int
) -> Array:
  """Returns the tokens as an array [B, S], or raises UserError."""
  _check_int('max_decode_len', max_decode_len, 1, 2**31 - 1)
  if not isinstance(input_tokens, jax.Array):
    try:
      input_tokens = np.asarray(input_tokens)
    except ValueError as e:
      raise UserError(
          'expected input_tokens [batch, length], got rows of different '
          'lengths; pad them with 0'
      ) from e
  shape, dtype = input_tokens.shape, input_tokens.dtype
  if len(shape) != 2 or 0 in shape or not np.issubdtype(dtype, np.integer):
    raise UserError(
        'expected integer input_tokens [batch, length], neither of them 0, got '
        f'{dtype} {list(shape)}'
    )
  # Only where looking at values costs no transfer from a device.
  on_cpu = jax.default_backend() == 'cpu'
  if isinstance(input_tokens, np.ndarray) or (
      on_cpu and not isinstance(input_tokens, jax.core.Tracer)
  ):
    low, high = input_tokens.min(), input_tokens.max()
    if low < 0 or high >= model.config.vocab_size:
      raise UserError(
          f'expected input_tokens from 0 to {model.config.vocab_size - 1}, got '
          f'{low if low < 0 else high}; use the vocabulary of the checkpoint'
      )
    input_tokens = input_tokens.astype(np.int32)
  return input_tokens
