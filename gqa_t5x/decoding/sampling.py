# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding and sampling: each step gives each row its next token.

Letters of the shapes: B inputs, S input length, L decoded length,
V vocabulary.
"""

import functools
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


def greedy_search(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    *,
    max_decode_len: int,
    eos_id: int = EOS_ID,
) -> Array:
  """Takes the most probable token at each step; as `generate`."""
  input_tokens = checks.check_inputs(model, input_tokens, max_decode_len)
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
  input_tokens = checks.check_inputs(model, input_tokens, max_decode_len)
  check_sampling(model.config.vocab_size, temperature, top_k, top_p, seed)
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


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def check_sampling(
    vocab_size: int, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
  """Raises UserError for values that `temperature_sample` refuses."""
  checks.check_int('top_k', top_k, 0, vocab_size)
  checks.check_int('seed', seed, 0, 2**31 - 1)
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
