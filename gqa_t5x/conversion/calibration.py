# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the decoder's attentions get to see of some text.

`aligned` and `svd` weigh their errors by it: a direction that no input takes
may be lost, and one that all take has to be kept.

Letters of the shapes: B batch, S input length, T target length, D model dim.
"""

from collections.abc import Iterable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import network

PyTree = Any

_QUERY_NORMS = {
    'self_attention': 'pre_self_attention_layer_norm',
    'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
}


class Covariance(NamedTuple):
  """Second moments of an attention's inputs, a mean over tokens.

  Attributes:
    query: of what is projected to queries, float64 [D, D].
    key: of what is projected to keys and values, float64 [D, D]; the same for
      self-attention.
  """

  query: np.ndarray
  key: np.ndarray


def covariances(
    model: network.Transformer,
    params: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[tuple[str, ...], Covariance]:
  """Runs the model over text and measures what each attention gets.

  Args:
    model: the one to be converted.
    params: its parameters.
    batches: int32 encoder_input_tokens [B, S], decoder_input_tokens and
      decoder_target_tokens [B, T], 0 is padding; what else
      `engine.data.eval_batches` gives is passed on. A handful of batches is
      enough to fill [D, D] with more tokens than D.

  Returns:
    {path of the attention: its Covariance}.
  """
  totals, tokens = None, np.zeros(2)
  for batch in batches:
    sums, counts = jax.device_get(_sums(params, model, dict(batch)))
    sums = jax.tree.map(lambda x: x.astype(np.float64), sums)
    totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    tokens += counts
  if totals is None or not tokens.all():
    raise ValueError('expected calibration batches with tokens, got none')
  of_inputs = totals.pop('encoder') / tokens[0]
  found = {}
  for layer, by_kind in totals.items():
    for kind, total in by_kind.items():
      query = total / tokens[1]
      found['decoder', layer, kind] = Covariance(
          query, query if kind == 'self_attention' else of_inputs
      )
  return found


@functools.partial(jax.jit, static_argnums=1)
def _sums(params, model, batch):
  """Sums of outer products [D, D] over the tokens, and numbers of tokens."""
  features = {k: v for k, v in batch.items() if k != 'decoder_loss_weights'}

  def is_wanted(module, method):
    names = {'encoder', *_QUERY_NORMS.values()}
    return method == '__call__' and module.name in names

  _, variables = model.apply(
      {'params': params},
      **features,
      enable_dropout=False,
      capture_intermediates=is_wanted,
      mutable=['intermediates'],
  )
  seen = variables['intermediates']
  masks = [
      (features[name] > 0).astype(jnp.float32)
      for name in ('encoder_input_tokens', 'decoder_target_tokens')
  ]

  def outer(captured, mask):
    (x,) = captured['__call__']
    x = x.astype(jnp.float32) * mask[..., None]
    return jnp.einsum('btd,bte->de', x, x)

  sums = {
      layer: {
          kind: outer(norms[norm], masks[1])
          for kind, norm in _QUERY_NORMS.items()
      }
      for layer, norms in seen['decoder'].items()
  }
  sums['encoder'] = outer(seen['encoder'], masks[0])
  return sums, jnp.stack([mask.sum() for mask in masks])
