# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`generate`: one call for all methods of decoding, and its options."""

import inspect
import numbers
from typing import Any, Mapping

from flax import errors as flax_errors
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.decoding import beams
from gqa_t5x.decoding import checks
from gqa_t5x.decoding import sampling
from gqa_t5x.decoding.steps import EOS_ID
from gqa_t5x.decoding.steps import NOT_FINITE
from gqa_t5x.errors import UserError

Array = jax.Array

_METHODS = {
    'greedy': sampling.greedy_search,
    'sample': sampling.temperature_sample,
    'beam': beams.beam_search,
}


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
  checks.check_int('max_decode_len', max_decode_len, 1)
  checks.check_int('eos_id', eos_id, -1, vocab_size - 1)
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
    sampling.check_sampling(vocab_size, **values)
  elif method == 'beam':
    beams.check_beams(vocab_size, max_decode_len, **values)


def _options_of(method: str) -> dict[str, inspect.Parameter]:
  """Returns the keywords of a method that stand in `generate`'s options."""
  parameters = inspect.signature(_METHODS[method]).parameters
  return {
      name: parameter
      for name, parameter in parameters.items()
      if parameter.kind is parameter.KEYWORD_ONLY
      and name not in ('max_decode_len', 'eos_id', 'example_ids')
  }
