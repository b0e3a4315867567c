# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The safetensors format: a JSON header, then each tensor's bytes.

Eight bytes for the header's length, the header {name: {dtype, shape,
data_offsets}} with offsets from its end, and the data. By hand, in few lines:
the library's writer wants all tensors in memory.
"""

from collections.abc import Mapping
import json
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import zarr
from gqa_t5x.errors import UserError

_DTYPES = {
    'F64': np.dtype(np.float64),
    'F32': np.dtype(np.float32),
    'F16': np.dtype(np.float16),
    'BF16': np.dtype(jnp.bfloat16),
}
_LARGEST_HEADER = 100_000_000  # As in the library.


def open_file(source: manifest.Reading, name: str) -> dict[str, Any]:
  """Returns the tensors of a file of a checkpoint, lazily, by name.

  Raises:
    ValueError: if the file is damaged.
  """
  path = source.folder / name
  size = path.stat().st_size
  with open(path, 'rb') as file:
    start = file.read(8)
    if start == b'version ':
      raise UserError(
          f'expected the safetensors of {path}, got a pointer of git-lfs; run'
          ' git lfs pull there'
      )
    length = struct.unpack('<Q', start)[0] if len(start) == 8 else size
    if length > min(size - 8, _LARGEST_HEADER):
      raise ValueError(f'{name} ends inside its header')
    source.check(name, 0, 8 + length)
    header = json.loads(file.read(length))
  header.pop('__metadata__', None)
  found, at = {}, 0
  for tensor, entry in sorted(
      header.items(), key=lambda item: item[1]['data_offsets']
  ):
    leaf = _open(source, name, tensor, entry, 8 + length)
    begin, end = entry['data_offsets']
    if (begin, end) != (at, at + leaf.nbytes):
      raise ValueError(
          f'{tensor} in {name} has bytes {begin} to {end}, expected {at} to'
          f' {at + leaf.nbytes}'
      )
    found[tensor], at = leaf, end
  if 8 + length + at != size:
    raise ValueError(
        f'{name} has {size} bytes, expected {8 + length + at} by its header'
    )
  return found


def _open(source, name, tensor, entry, offset) -> lazy.LazyArray:
  if entry['dtype'] not in _DTYPES:
    raise UserError(
        f'expected numbers of {", ".join(_DTYPES)} in {source.folder / name},'
        f' got {tensor} of {entry["dtype"]}; take the checkpoint from before it'
        ' was quantized'
    )
  dtype, shape = _DTYPES[entry['dtype']], tuple(entry['shape'])
  begin, end = (offset + at for at in entry['data_offsets'])
  row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

  def rows(start, stop):
    with folders.reading(source.folder):
      source.check(name, begin, end)
      out = np.empty((stop - start, *shape[1:]), dtype)
      rest = zarr.as_bytes(out)
      with open(source.folder / name, 'rb', buffering=0) as file:
        file.seek(begin + start * row_bytes)
        while rest:
          count = file.readinto(rest)
          if not count:
            raise ValueError(f'{name} ends inside {tensor}')
          rest = rest[count:]
      return out if shape else out.reshape(())

  return lazy.LazyArray(shape, dtype, rows)


def write_file(
    writing: folders.Writing, name: str, leaves: Mapping[str, lazy.LazyArray]
) -> None:
  """Has a file written, each tensor on its own."""
  names = {dtype: name for name, dtype in _DTYPES.items()}
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  at = 0
  for tensor, leaf in leaves.items():
    header[tensor] = {
        'dtype': names[leaf.dtype],
        'shape': list(leaf.shape),
        'data_offsets': [at, at + leaf.nbytes],
    }
    at += leaf.nbytes
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)
  writing.write(name, [struct.pack('<Q', len(text)) + text])
  at = 8 + len(text)
  for tensor, leaf in leaves.items():

    def task(tensor=tensor, leaf=leaf, at=at):
      with writing.holding(leaf):
        pieces = zarr.blocks_as_bytes(writing, tensor, leaf)
        writing.write(name, pieces, array=tensor, begin=at)

    writing.later(leaf, task)
    at += leaf.nbytes
