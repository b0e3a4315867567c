# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of what all methods of decoding are given."""

from typing import Any

from flax import linen as nn
import jax
import numpy as np

from gqa_t5x.errors import UserError

Array = jax.Array


def check_int(name: str, value: Any, low: int, high: int | None = None):
  """Raises UserError unless value is an integer from low to high."""
  if (
      not isinstance(value, (int, np.integer))
      or isinstance(value, bool)
      or value < low
      or (high is not None and value > high)
  ):
    wanted = f'of {low} or more' if high is None else f'from {low} to {high}'
    raise UserError(f'expected an integer {name} {wanted}, got {value!r}')


def check_inputs(
    model: nn.Module, input_tokens: Array, max_decode_len: int
) -> Array:
  """Returns the tokens as an array [B, S], or raises UserError."""
  check_int('max_decode_len', max_decode_len, 1, 2**31 - 1)
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
