# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays in zarr, as t5x and Orbax store them.

An array NAME is the file NAME/.zarray, which describes it, and a file a chunk,
NAME/0.0, NAME/1.0, ... The "files" are such, or entries of a TensorStore OCDBT
database. All of it moves from one checkpoint to another as it is.
"""

from collections.abc import Iterator
import itertools
import json
import math
import threading
from typing import Any
import urllib.parse

import jax.numpy as jnp
import numpy as np
import tensorstore

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest

CHUNK_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_DESCRIPTION = '/.zarray'


class Files:
  """Keys are files of a folder inside a checkpoint."""

  def __init__(self, source: manifest.Reading, inside: str = ''):
    self.source = source
    self._folder = source.folder / inside

  def spec(self, name: str) -> dict[str, Any]:
    return {'driver': 'file', 'path': f'{self._folder / name}/'}

  def _file(self, key: str) -> str:
    path = self._folder / key
    return path.relative_to(self.source.folder).as_posix()

  def check(self, key: str) -> None:
    if not (self._folder / key).is_file():
      raise ValueError(f'"{key}" is missing')
    self.source.check(self._file(key))

  def read_into(
      self, key: str, begin: int, buffer: memoryview, length: int
  ) -> None:
    """Fills the buffer from `begin` on; the value has to be of a length."""
    self.check(key)
    _check_length(key, (self._folder / key).stat().st_size, length)
    with open(self._folder / key, 'rb', buffering=0) as file:
      file.seek(begin)
      while buffer:
        count = file.readinto(buffer)
        if not count:
          raise ValueError(f'"{key}" is shorter than it was')
        buffer = buffer[count:]

  def pieces(self, key: str) -> Iterator[memoryview]:
    """Yields the bytes; each piece is good until the next."""
    if not (self._folder / key).is_file():
      raise ValueError(f'"{key}" is missing')
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with open(self._folder / key, 'rb', buffering=0) as file:
      while count := file.readinto(buffer):
        yield buffer[:count]

  def copied(self, key: str, sha256: str) -> None:
    """Is told the hash of `pieces` when they were read to the end."""
    self.source.check_copied(self._file(key), sha256)

  def check_array(self, name: str) -> None:
    """Checks whatever an array is made of."""
    self.source.check_all(f'{self._file(name)}/')


class Database:
  """Keys are those of an OCDBT database.

  Which of its bytes a value is made of is not known, so all are checked before
  the first value is read. Descriptions of arrays are read before that.
  """

  def __init__(self, source: manifest.Reading, inside: str):
    """Opens the database of a folder, with a slash at its end, or ''."""
    self.source = source
    self._inside = inside
    self._lock = threading.Lock()
    # Of a URL, where % and # would mean something else.
    folder = urllib.parse.quote(str(source.folder / inside))
    self._base = f'file://{folder}/'
    self._store = tensorstore.KvStore.open(self.spec()).result()

  def spec(self, name: str = '') -> dict[str, Any]:
    spec = {'driver': 'ocdbt', 'base': self._base}
    return spec | ({'path': f'{name}/'} if name else {})

  def _read(self, key: str, begin: int, end: int | None):
    found = self._store.read(key, byte_range=slice(begin, end)).result()
    if found.state != 'value':
      raise ValueError(f'"{key}" is missing')
    return found.value

  def check(self, key: str) -> None:
    if not key.endswith(_DESCRIPTION):
      with self._lock:
        self.source.check_all(self._inside)

  check_array = check

  def read_into(
      self, key: str, begin: int, buffer: memoryview, length: int
  ) -> None:
    """As `Files.read_into`, but that values may be longer."""
    del length
    self.check(key)
    for at in range(0, len(buffer), _PIECE_BYTES):
      end = min(at + _PIECE_BYTES, len(buffer))
      buffer[at:end] = self._read(key, begin + at, begin + end)

  def pieces(self, key: str) -> Iterator[bytes]:
    """As `Files.pieces`."""
    self.check(key)
    for begin in itertools.count(0, _PIECE_BYTES):
      try:
        yield self._read(key, begin, begin + _PIECE_BYTES)
      except ValueError as error:
        if 'OUT_OF_RANGE' not in str(error):
          raise
        # The last piece is shorter, and the length is not to be had.
        yield self._read(key, begin, None)
        return

  def copied(self, key: str, sha256: str) -> None:
    del key, sha256


class ZarrArray(lazy.LazyArray):
  """An array in zarr, version 2.

  Attributes:
    name: as stored.
    description: what .zarray says.
  """

  def __init__(self, store: Files | Database, name: str):
    self.name = name
    self._store = store
    with self._reading():
      key = f'{name}{_DESCRIPTION}'
      store.check(key)
      self.description = json.loads(b''.join(map(bytes, store.pieces(key))))
      stored = self.description['dtype']
      dtype = jnp.bfloat16 if stored == 'bfloat16' else np.dtype(stored)
      shape = tuple(self.description['shape'])
      super().__init__(shape, np.dtype(dtype).newbyteorder('='), None)
      self._chunks = tuple(self.description['chunks'])
      if len(self._chunks) != len(shape) or not all(
          isinstance(n, int) and n > 0 for n in self._chunks
      ):
        raise ValueError(f'{name} has chunks {self._chunks} of {shape}')
      self._is_plain = (
          self.description['compressor'] is None
          and not self.description.get('filters')
          and self.description['order'] == 'C'
          and np.dtype(dtype).isnative
          and self._chunks[1:] == shape[1:]
      )
    if shape and not self._is_plain:
      self.rows_at_once = min(self._chunks[0], shape[0])

  def _reading(self):
    return folders.reading(self._store.source.folder)

  def keys(self, rows: range | None = None) -> Iterator[str]:
    """Yields the keys of the chunks, of some rows of them or all."""
    separator = self.description.get('dimension_separator') or '.'
    grid = [range(math.ceil(n / c)) for n, c in zip(self.shape, self._chunks)]
    if grid and rows is not None:
      grid[0] = rows
    for index in itertools.product(*grid):
      chunk = separator.join(map(str, index)) if index else '0'
      yield f'{self.name}/{chunk}'

  def rows(self, start: int, stop: int) -> np.ndarray:
    with self._reading():
      if self._is_plain:
        return self._read_plain(start, stop)
      if self.shape:
        first, last = start // self._chunks[0], -(-stop // self._chunks[0])
        for key in self.keys(range(first, last)):
          self._store.check(key)
      else:
        self._store.check(f'{self.name}/0')
      store = tensorstore.open({
          'driver': 'zarr',
          'kvstore': self._store.spec(self.name),
          # A missing chunk would else read as zeros; writers write those.
          'fill_missing_data_reads': False,
      }).result()
      return (store[start:stop] if self.shape else store).read().result()

  def _read_plain(self, start: int, stop: int) -> np.ndarray:
    out = np.empty((stop - start, *self.shape[1:]), self.dtype)
    # As bytes: the buffer protocol does not know bfloat16.
    flat = memoryview(out.reshape(-1).view(np.uint8))
    row_bytes = out.nbytes // max(1, stop - start)
    size = self._chunks[0] if self.shape else 1
    length = self._chunk_bytes()
    at = start
    while at < stop:
      chunk, inside = divmod(at, size)
      end = min(stop, (chunk + 1) * size)
      (key,) = self.keys(range(chunk, chunk + 1))
      self._store.read_into(
          key,
          inside * row_bytes,
          flat[(at - start) * row_bytes : (end - start) * row_bytes],
          length,
      )
      at = end
    return out if self.shape else out.reshape(())

  def _chunk_bytes(self) -> int:
    """Returns the length of each chunk of a plain array; none is shorter."""
    return math.prod(self._chunks) * self.dtype.itemsize

  def copy(self, writing: folders.Writing, inside: str, name: str) -> None:
    """Writes the bytes of the array as `name` in a folder of a new checkpoint.

    Its values are looked at on the way; where they are compressed, or chunks
    are no rows, they are read for it.
    """

    def check_values():
      for start, stop in lazy.blocks(self):
        writing.check(self.rows(start, stop), name)

    def chunk(key):
      length = 0
      for piece in self._store.pieces(key):
        length += len(piece)
        if self._is_plain:
          whole = len(piece) // self.dtype.itemsize * self.dtype.itemsize
          values = np.frombuffer(piece[:whole], np.uint8).view(self.dtype)
          # Beyond the last row a chunk may hold anything.
          if writing.is_refused(values):
            check_values()
        yield piece
      if self._is_plain:
        _check_length(key, length, self._chunk_bytes())

    description = f'{self.name}{_DESCRIPTION}'
    with self._reading():
      if not self._is_plain:
        with writing.holding(self):
          check_values()
      for key in (description, *self.keys()):
        file = f'{inside}{name}/{key.removeprefix(f"{self.name}/")}'
        read = self._store.pieces if key == description else chunk
        digest = writing.write(file, read(key), array=name)
        self._store.copied(key, digest)


def _check_length(key: str, got: int, length: int) -> None:
  if got != length:
    raise ValueError(f'"{key}" has {got:,} bytes, expected {length:,}')


def open_other(
    store: Files | Database, name: str, driver: str
) -> lazy.LazyArray:
  """Returns an array of another driver of TensorStore's, such as zarr3."""

  def opened():
    return tensorstore.open({
        'driver': driver,
        'kvstore': store.spec(name),
        'fill_missing_data_reads': False,
    }).result()

  def rows(start, stop):
    with folders.reading(store.source.folder):
      store.check_array(name)
      array = opened()
      return (array[start:stop] if array.rank else array).read().result()

  with folders.reading(store.source.folder):
    array = opened()
    leaf = lazy.LazyArray(array.shape, array.dtype.numpy_dtype, rows)
    if array.rank:
      leaf.rows_at_once = array.chunk_layout.read_chunk.shape[0]
    return leaf


def write(
    writing: folders.Writing, inside: str, name: str, leaf
) -> dict[str, Any]:
  """Has an array written as `inside` + `name`; returns its description."""
  leaf = lazy.of(leaf)
  if isinstance(leaf, ZarrArray):
    writing.later(leaf, lambda: leaf.copy(writing, inside, name))
    return leaf.description
  row_bytes = max(1, leaf.nbytes // max(1, leaf.num_rows))
  count = math.ceil(leaf.num_rows / max(1, CHUNK_BYTES // row_bytes)) or 1
  # The last chunk is stored as long as the others: let it be full.
  rows = math.ceil(leaf.num_rows / count) or 1
  description = {
      'chunks': [rows, *(n or 1 for n in leaf.shape[1:])] if leaf.shape else [],
      # Weights hardly shrink, and compressing is slower than the disk.
      'compressor': None,
      'dimension_separator': '.',
      'dtype': 'bfloat16' if leaf.dtype == jnp.bfloat16 else leaf.dtype.str,
      'fill_value': None,
      'filters': None,
      'order': 'C',
      'shape': list(leaf.shape),
      'zarr_format': 2,
  }

  def task():
    text = json.dumps(description, sort_keys=True, indent=2).encode()
    writing.write(f'{inside}{name}/.zarray', [text], array=name)
    with writing.holding(leaf):
      _write_chunks(writing, f'{inside}{name}', name, leaf, rows)

  writing.later(leaf, task)
  return description


def _write_chunks(writing, folder, name, leaf, rows) -> None:
  """Writes chunks of `rows` rows, each of the blocks that are read."""
  zeros = '.0' * (len(leaf.shape) - 1)
  blocks = blocks_as_bytes(writing, name, leaf)
  block, row_bytes = b'', max(1, leaf.nbytes // max(1, leaf.num_rows))
  for chunk in range(math.ceil(leaf.num_rows / rows)):

    def pieces():
      nonlocal block
      left = rows * row_bytes
      while left:
        if not block:
          block = next(blocks, None)
          if block is None:
            yield bytes(left)
            return
        yield block[:left]
        taken = min(left, len(block))
        block, left = block[taken:], left - taken

    writing.write(f'{folder}/{chunk}{zeros}', pieces(), array=name)


def blocks_as_bytes(
    writing: folders.Writing, name: str, leaf: lazy.LazyArray
) -> Iterator[memoryview]:
  """Yields the bytes of an array that is written as `name`, in order."""
  for start, stop in lazy.blocks(leaf):
    yield as_bytes(writing.check(leaf.rows(start, stop), name))


def as_bytes(array: np.ndarray) -> memoryview:
  """Returns the bytes of an array; bfloat16 has no buffer of its own."""
  return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
