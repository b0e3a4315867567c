# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the decoder's attentions get to see of some text.

`aligned` and `svd` weigh their errors by it: a direction that no input takes
may be lost, and one that all take has to be kept.

A model is run a layer at a time over all of the text, so that no more than one
layer of a checkpoint on disk is in memory.

Letters of the shapes: B batch, S input length, T target length, N heads,
D model dim, V vocabulary.
"""

from collections.abc import Iterable, Mapping
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import layers
from gqa_t5x import network
from gqa_t5x.checkpoints import lazy

Array = jax.Array
PyTree = Any

_QUERY_NORMS = {
    'self_attention': 'pre_self_attention_layer_norm',
    'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
}


class Covariance(NamedTuple):
  """Second moments of an attention's inputs, a mean over tokens.

  Attributes:
    query: of what is projected to queries, float32 [D, D].
    key: of what is projected to keys and values, float32 [D, D]; the same for
      self-attention.
  """

  query: np.ndarray
  key: np.ndarray


def covariances(
    config: network.T5Config,
    params: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[tuple[str, ...], Covariance]:
  """Runs a model over text and measures what each attention gets.

  Args:
    config: of the model to be converted.
    params: its parameters; leaves of a checkpoint (`checkpoints.lazy`) are read
      when their layer has its turn.
    batches: int32 encoder_input_tokens [B, S], decoder_input_tokens and
      decoder_target_tokens [B, T], an example a row, 0 is padding. A handful of
      batches is enough to fill [D, D] with more tokens than D.

  Returns:
    {path of the attention: its Covariance}.

  Raises:
    ValueError: if there are no tokens.
  """
  batches = [dict(batch) for batch in batches]
  inputs, tokens, targets = (
      [jnp.asarray(batch[name]) for batch in batches]
      for name in (
          'encoder_input_tokens', 'decoder_input_tokens',
          'decoder_target_tokens',
      )
  )  # pyformat: disable
  if not any(map(jnp.any, inputs)) or not any(map(jnp.any, targets)):
    raise ValueError('expected calibration batches with tokens, got none')

  table = params['token_embedder']['embedding']
  encoder, decoder = params['encoder'], params['decoder']
  masks = [network.key_mask(x) for x in inputs]
  bias = _relative_bias(config, encoder, inputs[0].shape[1], bidirectional=True)
  hidden = _embed(config, table, inputs)
  layer = network.EncoderLayer(config)
  for i in range(config.num_encoder_layers):
    weights = _read(encoder[f'layers_{i}'])
    hidden = [
        _apply(layer, weights, x, bias, mask, deterministic=True)[0]
        for x, mask in zip(hidden, masks)
    ]
  norm, scale = layers.RMSNorm(config.dtype), _read(encoder['encoder_norm'])
  encoded = [norm.apply({'params': scale}, x) for x in hidden]
  of_inputs = _mean_of(map(_outer, encoded, inputs))

  length = tokens[0].shape[1]
  bias = _relative_bias(config, decoder, length, bidirectional=False)
  causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
  hidden = _embed(config, table, tokens)
  layer = network.DecoderLayer(config)
  found = {}
  for i in range(config.num_decoder_layers):
    weights = _read(decoder[f'layers_{i}'])
    sums = []
    for j, mask in enumerate(masks):
      hidden[j], seen = _apply(
          layer, weights, hidden[j], encoded[j], bias, causal, mask,
          deterministic=True, decode=False, prefill=False, index=None,
      )  # pyformat: disable
      sums.append([_outer(seen[x], targets[j]) for x in _QUERY_NORMS.values()])
    for kind, of_kind in zip(_QUERY_NORMS, zip(*sums)):
      query = _mean_of(of_kind)
      found['decoder', f'layers_{i}', kind] = Covariance(
          query, query if kind == 'self_attention' else of_inputs
      )
  return found


def _read(leaves: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), leaves)


def _embed(
    config: network.T5Config, table: Any, tokens: list[Array]
) -> list[Array]:
  """Maps tokens, each [B, T], to embeddings [B, T, D]; `table` is [V, D]."""
  wanted = np.unique(np.concatenate(tokens))
  table = lazy.of(table)
  rows = np.empty((len(wanted), config.emb_dim), table.dtype)
  for start, stop in lazy.blocks(table):
    here = (wanted >= start) & (wanted < stop)
    rows[here] = table.rows(start, stop)[wanted[here] - start]
  rows = jnp.asarray(rows, config.dtype)
  return [rows[np.searchsorted(wanted, x)] for x in tokens]


def _relative_bias(
    config: network.T5Config, stack: PyTree, length: int, *, bidirectional: bool
) -> Array:
  """Returns the bias [1, N, T, T] of the encoder's or decoder's layers."""
  module = layers.RelativePositionBias(
      config.num_heads, config.dtype, bidirectional=bidirectional
  )
  positions = jnp.arange(length)
  weights = {'params': _read(stack['relpos_bias'])}
  return module.apply(weights, positions, positions)[None]


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=('deterministic', 'decode', 'prefill'),
)
def _apply(
    layer: nn.Module, weights: PyTree, *args, **options
) -> tuple[Array, dict[str, Array]]:
  """Returns a layer's output and what its attentions' norms gave, by name."""
  out, variables = layer.apply(
      {'params': weights},
      *args,
      **options,
      capture_intermediates=lambda module, _: isinstance(
          module, layers.RMSNorm
      ),
      mutable=['intermediates'],
  )
  seen = variables['intermediates']
  return out, {name: x['__call__'][0] for name, x in seen.items()}


@jax.jit
def _outer(x: Array, tokens: Array) -> tuple[Array, Array]:
  """Sums xxᵀ [D, D] over the tokens that are none of padding, and counts."""
  mask = (tokens > 0).astype(jnp.float32)
  x = x.astype(jnp.float32) * mask[..., None]
  return jnp.einsum('btd,bte->de', x, x), mask.sum()


def _mean_of(sums: Iterable[tuple[Array, Array]]) -> np.ndarray:
  """Returns the mean over all batches' tokens, float32 [D, D]."""
  total, count = 0.0, 0.0
  for summed, counted in sums:
    total = total + np.asarray(summed, np.float64)
    count += float(counted)
  return (total / count).astype(np.float32)
