# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Beam search; the beams of an input share its cross-attention's cache.

Letters of the shapes: B inputs, S input length, L decoded length, R beams,
Q candidates, V vocabulary.
"""

import functools
import math
from typing import Any, Mapping, NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.decoding import checks
from gqa_t5x.decoding.steps import Decoded
from gqa_t5x.decoding.steps import decode_step
from gqa_t5x.decoding.steps import empty_cache
from gqa_t5x.decoding.steps import EOS_ID
from gqa_t5x.decoding.steps import NOT_FINITE
from gqa_t5x.decoding.steps import PAD_ID
from gqa_t5x.decoding.steps import prefill
from gqa_t5x.decoding.steps import Prefilled
from gqa_t5x.errors import UserError

Array = jax.Array


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
  input_tokens = checks.check_inputs(model, input_tokens, max_decode_len)
  check_beams(
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


def check_beams(
    vocab_size: int,
    max_decode_len: int,
    num_beams: int,
    length_penalty: float,
    num_results: int,
) -> None:
  """Raises UserError for values that `beam_search` refuses."""
  # Continuations of all beams are ranked together, with indices of 32 bits.
  checks.check_int('num_beams', num_beams, 1, (2**31 - 1) // vocab_size)
  checks.check_int('num_results', num_results, 1, num_beams)
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
