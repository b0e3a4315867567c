# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the decoder's attentions get to see of some text.

`aligned` and `svd` weigh their errors by it: a direction that no input takes
may be lost, and one that all take has to be kept.

A model is run over all of the text by parts of a layer, an attention or an
MLP, so that little more than one of them is in memory. Hidden states and what
was measured wait on the disk, in Python's folder for temporary files.

Letters of the shapes: B batch, S input length, T target length, N heads,
D model dim, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
import gc
import tempfile
from typing import Any, NamedTuple
import weakref

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import layers
from gqa_t5x import network
from gqa_t5x.checkpoints import lazy
from gqa_t5x.conversion import products
from gqa_t5x.errors import UserError

Array = jax.Array
PyTree = Any

_ALIGNMENT = 64  # Bytes; XLA copies what is not so.


class Covariance(NamedTuple):
  """Second moments of an attention's inputs, a mean over tokens.

  Attributes:
    query: of what is projected to queries, float32 [D, D].
    key: of what is projected to keys and values, float32 [D, D]; the same for
      self-attention.
  """

  query: np.ndarray
  key: np.ndarray

  @property
  def key_root(self) -> np.ndarray:
    """The root of `key`, float32 [D, D]."""
    return products.root(self.key)


class _Arrays:
  """Float32 arrays of one shape, in a file that goes with them."""

  def __init__(self, shape: tuple[int, ...]):
    self._shape = shape
    self._size = int(np.prod(shape))
    self._file = tempfile.TemporaryFile()
    weakref.finalize(self, self._file.close)
    self._count = 0

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


@dataclasses.dataclass(frozen=True)
class _OnDisk:
  """A `Covariance` that reads its matrices when they are asked for.

  Attributes:
    matrices: that they are among.
    numbers: of `query`, `key` and `key_root`.
  """

  matrices: _Arrays
  numbers: tuple[int, int, int]

  query = property(lambda self: self.matrices[self.numbers[0]])
  key = property(lambda self: self.matrices[self.numbers[1]])
  key_root = property(lambda self: self.matrices[self.numbers[2]])


class _Covariances(Mapping[tuple[str, ...], _OnDisk]):
  """Those of an XL model take 1 GB, and so do their roots."""

  def __init__(self, emb_dim: int):
    self._matrices = _Arrays((emb_dim, emb_dim))
    self._numbers: dict[tuple[str, ...], tuple[int, int]] = {}
    self._roots: dict[int, int] = {}

  def add(self, matrix: np.ndarray) -> int:
    """Takes [D, D] and returns its number."""
    return self._matrices.append(matrix)

  def name(self, path: tuple[str, ...], query: int, key: int) -> None:
    """Says which matrices are those of an attention."""
    self._numbers[path] = query, key

  def add_roots(self) -> None:
    """Takes the roots, while there is room for what that needs."""
    for number in dict.fromkeys(key for _, key in self._numbers.values()):
      root = products.root(self._matrices[number], overwrite=True)
      self._roots[number] = self.add(root)

  def __getitem__(self, path: tuple[str, ...]) -> _OnDisk:
    query, key = self._numbers[path]
    return _OnDisk(self._matrices, (query, key, self._roots[key]))

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
      when their part of a layer has its turn.
    batches: int32 encoder_input_tokens [B, S], decoder_input_tokens and
      decoder_target_tokens [B, T], an example a row, 0 is padding. A handful of
      batches is enough to fill [D, D] with more tokens than D.

  Returns:
    {path of the attention: its Covariance}.

  Raises:
    ValueError: if there are no tokens, the model has not as many, or batches
      have several shapes.
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
  if len(shapes := {(x.shape, y.shape) for x, y in zip(inputs, tokens)}) > 1:
    raise ValueError(
        f'expected calibration batches of one shape, got {sorted(shapes)}'
    )
  table = params['token_embedder']['embedding']
  largest = max(int(x.max()) for x in (*inputs, *tokens))
  if largest >= table.shape[0]:
    raise ValueError(
        f'expected tokens below {table.shape[0]}, got {largest}'
    )
  encoder, decoder = params['encoder'], params['decoder']
  masks = [network.key_mask(x) for x in inputs]
  run = functools.partial(_run, config)
  bias = _relative_bias(config, encoder, inputs[0].shape[1], bidirectional=True)
  encoded = _embed(config, table, inputs)
  for i in range(config.num_encoder_layers):
    layer = encoder[f'layers_{i}']
    run(layer, 'attention', encoded, lambda j: {'bias': bias, 'mask': masks[j]})
    run(layer, 'mlp', encoded)
  norm, scale = layers.RMSNorm(config.dtype), _read(encoder['encoder_norm'])
  of_inputs = _Mean()
  for j, of_batch in enumerate(inputs):
    encoded[j] = x = norm.apply({'params': scale}, encoded[j])
    of_inputs.add(x, of_batch)
  found = _Covariances(config.emb_dim)
  key_of_cross = found.add(of_inputs.value())
  del of_inputs  # [D, D] in float64.

  length = tokens[0].shape[1]
  bias = _relative_bias(config, decoder, length, bidirectional=False)
  causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
  hidden = _embed(config, table, tokens)

  def of_self(_):
    return {'decode': False, 'index': None, 'bias': bias, 'mask': causal}

  def of_cross(j):
    return {
        'decode': False, 'prefill': False, 'encoded': encoded[j],
        'mask': masks[j],
    }  # pyformat: disable

  for i in range(config.num_decoder_layers):
    layer, path = decoder[f'layers_{i}'], ('decoder', f'layers_{i}')
    for kind, options, key in (
        ('self_attention', of_self, None),
        ('encoder_decoder_attention', of_cross, key_of_cross),
    ):
      query = found.add(run(layer, kind, hidden, options, targets))
      found.name((*path, kind), query, query if key is None else key)
    run(layer, 'mlp', hidden)
  gc.collect()  # Weights that are done with; see `_array`.
  found.add_roots()
  return found


def _run(
    config: network.T5Config,
    layer: PyTree,
    name: str,
    hidden: _Arrays,
    options: Callable[[int], dict[str, Any]] = lambda j: {},
    tokens: list[Array] | None = None,
) -> np.ndarray | None:
  """Runs a part of a layer over all batches, in place.

  Args:
    config: of the model.
    layer: its parameters.
    name: of the part, one of `network.NORMS`.
    hidden: [B, T, D] of each batch.
    options: gives keywords of the part, for the number of a batch.
    tokens: [B, T] of each batch; None measures nothing.

  Returns:
    Second moments [D, D] of what the part's norm gives at `tokens` that are not
    padding.
  """
  part = network.layer_part(config, name)
  weights, norm = _read(layer[name]), _read(layer[network.NORMS[name]])
  mean = _Mean()
  for j in range(len(hidden)):
    hidden[j], normed = _apply(
        part, weights, norm, hidden[j], deterministic=True, **options(j)
    )
    if tokens is not None:
      mean.add(normed, tokens[j])
  return None if tokens is None else mean.value()


def _read(leaves: PyTree) -> PyTree:
  return jax.tree.map(_array, leaves)


def _array(leaf: Any) -> Array:
  """Reads a leaf into memory that XLA on a CPU takes as it is, not a copy."""
  if not isinstance(leaf, lazy.LazyArray):
    return jnp.asarray(leaf)
  # JAX drops arrays that it has taken, and is done with, when Python collects
  # garbage; it may be done a moment later, so each leaf tries.
  gc.collect(0)
  memory = np.empty(leaf.nbytes + _ALIGNMENT, np.uint8)
  first = -memory.ctypes.data % _ALIGNMENT
  array = memory[first : first + leaf.nbytes].view(leaf.dtype)
  array = array.reshape(leaf.shape)
  # A block of what is turned would cost all of its source.
  turned = leaf.transposed is not None
  source, filled = (leaf.transposed, array.T) if turned else (leaf, array)
  for start, stop in lazy.blocks(source):
    filled[start:stop] = source.rows(start, stop)
  return jax.device_put(array)


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
    part: nn.Module, weights: PyTree, norm: PyTree, x: Array, **options
) -> tuple[Array, Array]:
  """Returns x [B, T, D] after a part of a layer, and what its norm gave it."""
  normed = layers.RMSNorm(part.dtype).apply({'params': norm}, x)
  return x + part.apply({'params': weights}, normed, **options), normed


@jax.jit
def _outer(x: Array, tokens: Array) -> tuple[Array, Array]:
  """Sums xxᵀ [D, D] over the tokens that are none of padding, and counts."""
  mask = (tokens > 0).astype(jnp.float32)
  x = x.astype(jnp.float32) * mask[..., None]
  return jnp.einsum('btd,bte->de', x, x), mask.sum()


class _Mean:
  """The mean of xxᵀ [D, D] over the tokens of all batches."""

  def __init__(self):
    self._total: np.ndarray | None = None  # Made when it is needed.
    self._count = 0.0

  def add(self, x: Array, tokens: Array) -> None:
    summed, counted = _outer(x, tokens)
    if self._total is None:
      self._total = np.zeros(summed.shape)
    np.add(self._total, summed, out=self._total)
    self._count += float(counted)

  def value(self) -> np.ndarray:
    mean = (self._total / self._count).astype(np.float32)
    if not np.isfinite(mean).all():
      raise UserError(
          'expected finite activations on the calibration text, got NaN or'
          ' infinity; take another step, this one has diverged or is damaged'
      )
    return mean
