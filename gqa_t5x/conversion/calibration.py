# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the decoder's attentions get to see of some text.

`aligned` and `svd` weigh their errors by it: a direction that no input takes
may be lost, and one that all take has to be kept.

A model is run a layer at a time over all of the text, so that no more than one
layer of a checkpoint on disk is in memory. Hidden states and what was measured
wait on the disk too, in Python's folder for temporary files.

Letters of the shapes: B batch, S input length, T target length, N heads,
D model dim, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import functools
import tempfile
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import layers
from gqa_t5x import network
from gqa_t5x.checkpoints import lazy
from gqa_t5x.errors import UserError

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


class _Arrays:
  """Float32 arrays of one shape, in a file that goes with them."""

  def __init__(self, shape: tuple[int, ...]):
    self._shape = shape
    self._size = int(np.prod(shape))
    self._file = tempfile.TemporaryFile()
    self._count = 0

  def __del__(self):
    self._file.close()

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> np.ndarray:
    self._seek(i)
    array = np.empty(self._shape, np.float32)
    self._file.readinto(array)
    return array

  def __setitem__(self, i: int, array: Any) -> None:
    self._seek(i)
    # Unlike ndarray.tofile, this says why it fails.
    self._file.write(np.ascontiguousarray(array, np.float32))
    self._file.flush()

  def append(self, array: Any) -> int:
    """Returns the number it gets."""
    self._count += 1
    self[self._count - 1] = array
    return self._count - 1

  def _seek(self, i: int) -> None:
    self._file.seek(i * self._size * np.dtype(np.float32).itemsize)


class _Covariances(Mapping[tuple[str, ...], Covariance]):
  """Those of an XL model take 1 GB: each is read when it is asked for."""

  def __init__(self, emb_dim: int):
    self._matrices = _Arrays((emb_dim, emb_dim))
    self._numbers: dict[tuple[str, ...], tuple[int, int]] = {}

  def add(self, matrix: np.ndarray) -> int:
    """Takes [D, D] and returns its number."""
    return self._matrices.append(matrix)

  def name(self, path: tuple[str, ...], query: int, key: int) -> None:
    """Says which matrices are those of an attention."""
    self._numbers[path] = query, key

  def __getitem__(self, path: tuple[str, ...]) -> Covariance:
    query, key = self._numbers[path]
    of_query = self._matrices[query]
    return Covariance(
        of_query, of_query if key == query else self._matrices[key]
    )

  def __iter__(self) -> Iterator[tuple[str, ...]]:
    return iter(self._numbers)

  def __len__(self) -> int:
    return len(self._numbers)


def covariances(
    config: network.T5Config,
    params: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> Mapping[tuple[str, ...], Covariance]:
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
  # What is measured should not be rounded.
  config = dataclasses.replace(config, dtype=jnp.float32)
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
  encoded = _embed(config, table, inputs)
  layer = network.EncoderLayer(config)
  for i in range(config.num_encoder_layers):
    weights = _read(encoder[f'layers_{i}'])
    for j, mask in enumerate(masks):
      encoded[j], _ = _apply(
          layer, weights, encoded[j], bias, mask, deterministic=True
      )
    del weights  # Or two layers are held while the next one is read.
  norm, scale = layers.RMSNorm(config.dtype), _read(encoder['encoder_norm'])
  of_inputs = _Mean()
  for j, of_batch in enumerate(inputs):
    encoded[j] = x = norm.apply({'params': scale}, encoded[j])
    of_inputs.add(x, of_batch)

  length = tokens[0].shape[1]
  bias = _relative_bias(config, decoder, length, bidirectional=False)
  causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
  hidden = _embed(config, table, tokens)
  layer = network.DecoderLayer(config)
  found = _Covariances(config.emb_dim)
  key_of_cross = found.add(of_inputs.value())
  for i in range(config.num_decoder_layers):
    weights = _read(decoder[f'layers_{i}'])
    sums = {kind: _Mean() for kind in _QUERY_NORMS}
    for j, mask in enumerate(masks):
      hidden[j], seen = _apply(
          layer, weights, hidden[j], encoded[j], bias, causal, mask,
          deterministic=True, decode=False, prefill=False, index=None,
      )  # pyformat: disable
      for kind, norm in _QUERY_NORMS.items():
        sums[kind].add(seen[norm], targets[j])
    del weights
    for kind, of_kind in sums.items():
      query = found.add(of_kind.value())
      key = query if kind == 'self_attention' else key_of_cross
      found.name(('decoder', f'layers_{i}', kind), query, key)
  return found


def _read(leaves: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), leaves)


def _embed(
    config: network.T5Config, table: Any, tokens: list[Array]
) -> _Arrays:
  """Maps tokens, each [B, T], to embeddings [B, T, D]; `table` is [V, D]."""
  wanted = np.unique(np.concatenate(tokens))
  table = lazy.of(table)
  rows = np.empty((len(wanted), config.emb_dim), table.dtype)
  for start, stop in lazy.blocks(table):
    here = (wanted >= start) & (wanted < stop)
    rows[here] = table.rows(start, stop)[wanted[here] - start]
  hidden = _Arrays((*tokens[0].shape, config.emb_dim))
  for x in tokens:
    hidden.append(rows[np.searchsorted(wanted, x)])
  return hidden


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


class _Mean:
  """The mean of xxᵀ [D, D] over the tokens of all batches."""

  def __init__(self):
    self._total, self._count = 0.0, 0.0

  def add(self, x: Array, tokens: Array) -> None:
    summed, counted = _outer(x, tokens)
    self._total = np.add(self._total, summed, dtype=np.float64)
    self._count += float(counted)

  def value(self) -> np.ndarray:
    mean = (self._total / self._count).astype(np.float32)
    if not np.isfinite(mean).all():
      raise UserError(
          'expected finite activations on the calibration text, got NaN or'
          ' infinity; take another step, this one has diverged or is damaged'
      )
    return mean
