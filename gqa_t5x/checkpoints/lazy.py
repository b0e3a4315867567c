# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays that are read when they are asked for, some rows at a time.

The largest array of a T5 is its embedding, 0.5 GB of XXL and 4 GB of mT5-XXL:
more than a conversion may hold.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flax import traverse_util
import numpy as np

# Bytes that are read at a time. Each of some threads holds two or three such.
BLOCK_BYTES = 32 * 2**20


class LazyArray:
  """An array [rows, ...] or a scalar, as numpy sees them.

  Attributes:
    shape: as named.
    dtype: as named.
    is_ordered: whether one thread must ask for such leaves, in order.
    rows_at_once: how many rows cost as much to read as one, such as those of a
      compressed chunk.
    transposed: the leaf that this one is the transpose of, if any.
  """

  is_ordered = False
  rows_at_once = 1
  transposed: 'LazyArray | None' = None

  def __init__(
      self,
      shape: tuple[int, ...],
      dtype: Any,
      rows: Callable[[int, int], np.ndarray],
      is_ordered: bool = False,
  ):
    """Describes an array.

    Args:
      shape: as named.
      dtype: as named.
      rows: returns rows [start, stop); of a scalar, with (0, 1), the scalar.
      is_ordered: as named.
    """
    self.shape = tuple(shape)
    self.dtype = np.dtype(dtype)
    self.is_ordered = is_ordered
    self._rows = rows

  @property
  def size(self) -> int:
    return int(np.prod(self.shape, dtype=np.int64))

  @property
  def nbytes(self) -> int:
    return self.size * self.dtype.itemsize

  @property
  def num_rows(self) -> int:
    return self.shape[0] if self.shape else 1

  def rows(self, start: int, stop: int) -> np.ndarray:
    return self._rows(start, stop)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    array = self.rows(0, self.num_rows)
    return array if dtype is None else array.astype(dtype)


def of(leaf) -> LazyArray:
  """Returns the leaf, or what wraps an array in memory."""
  if isinstance(leaf, LazyArray):
    return leaf

  def rows(start, stop):
    array = np.asarray(leaf)
    return array[start:stop] if array.ndim else array

  return LazyArray(np.shape(leaf), leaf.dtype, rows)


def is_large(leaf: LazyArray) -> bool:
  """Whether more than some blocks are held to read any of a leaf."""
  row_bytes = leaf.nbytes // max(1, leaf.num_rows)
  return leaf.rows_at_once * row_bytes > 2 * BLOCK_BYTES


def blocks(leaf: LazyArray) -> Iterator[tuple[int, int]]:
  """Yields (start, stop) of blocks of rows that may be held at a time."""
  at_once = leaf.rows_at_once
  row_bytes = max(1, leaf.nbytes // max(1, leaf.num_rows))
  rows = max(1, BLOCK_BYTES // row_bytes)
  # A chunk that is a few blocks is rather held than read over and over.
  if at_once * row_bytes <= 8 * BLOCK_BYTES:
    rows = -(-rows // at_once) * at_once
  for start in range(0, leaf.num_rows, rows):
    yield start, min(start + rows, leaf.num_rows)


def transpose(leaf: LazyArray) -> LazyArray:
  """Returns the matrix [B, A] of a leaf [A, B], which is read in blocks."""
  if leaf.transposed is not None:
    return leaf.transposed
  height, width = leaf.shape

  def rows(start, stop):
    out = np.empty((stop - start, height), leaf.dtype)
    for a, b in blocks(leaf):
      out[:, a:b] = leaf.rows(a, b)[:, start:stop].T
    return out

  turned = LazyArray((width, height), leaf.dtype, rows, leaf.is_ordered)
  # To read some columns is to read all: rather a few blocks at a time.
  row_bytes = max(1, height * leaf.dtype.itemsize)
  turned.rows_at_once = max(1, min(width, 2 * BLOCK_BYTES // row_bytes))
  turned.transposed = leaf
  return turned


def is_finite(array: np.ndarray) -> bool:
  """Whether there is no NaN and no infinity among numbers of any kind."""
  if array.dtype.name == 'bfloat16':  # NumPy takes much longer.
    bits = array.view(np.uint16)
    # The largest bits are those of infinity and NaN: of negative ones among
    # all, of positive ones among those that a signed integer has as positive.
    largest = bits.max(initial=0), bits.view(np.int16).max(initial=0)
    return bool(largest[0] < 0xFF80 and largest[1] < 0x7F80)
  # Of numpy's own kinds and of those that JAX adds, such as float8.
  return array.dtype.kind not in 'fV' or bool(np.isfinite(array).all())


def concrete(leaf) -> np.ndarray:
  """Returns the array that a leaf stands for, contiguous and writable."""
  return np.require(np.asarray(leaf), requirements=['C', 'W'])


def arrays(flat: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
  """Returns the leaves by path that are arrays, not empty nodes."""
  return {
      path: leaf
      for path, leaf in flat.items()
      if leaf is not traverse_util.empty_node
  }
