# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""t5x's own ("legacy") checkpoints, such as the public ones of T5.

The file `checkpoint` is a tree in MessagePack, {'version', 'optimizer':
{'target', 'state': {'step', 'param_states'}}}. A leaf is an array, or the
TensorStore specification of one that lies in a folder beside the file.
"""

import pathlib
from typing import Any

from flax import serialization
from flax import traverse_util
import numpy as np
import tensorstore

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.errors import UserError

PyTree = Any

# Since version 3, bfloat16 is stored as such; before, as uint16.
_VERSION = 3
_CHUNK_BYTES = 64 * 2**20


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'checkpoint').is_file()


def load(folder: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Loads as `checkpoints.load_checkpoint`; no optimizer state is read."""
  with folders.reading(folder):
    index = _read_index(folder)
    params = _read_arrays(folder, index['target'])
    step = _read_arrays(folder, {'step': index['state']['step']})['step']
    return params, t5x_metadata.read(folder, params, step)


def load_param_states(folder: pathlib.Path) -> PyTree | None:
  """Loads as `checkpoints.load_param_states`."""
  with folders.reading(folder):
    state = _read_index(folder)['state']
    if 'param_states' not in state:
      return None
    return _read_arrays(folder, state['param_states'])


def save(
    folder: pathlib.Path,
    params: PyTree,
    metadata: dict[str, Any],
    param_states: PyTree | None,
):
  """Saves as `checkpoints.save_checkpoint`."""
  state = t5x_metadata.make_state(params, metadata, param_states)
  flat = traverse_util.flatten_dict(state, keep_empty_nodes=True)
  with folders.new_folder(folder) as beside:
    index, writes = {}, []
    for path, leaf in flat.items():
      # As t5x, which has the step and Adafactor's v_row and v_col inline.
      if path[0] == 'target' or (hasattr(leaf, 'ndim') and leaf.ndim > 1):
        index[path], write = _start_writing(beside, '.'.join(path), leaf)
        writes.append(write)
      else:
        index[path] = {} if leaf is traverse_util.empty_node else leaf
    for write in writes:
      write.result()
    (beside / 'checkpoint').write_bytes(
        serialization.msgpack_serialize({
            'version': _VERSION,
            'optimizer': traverse_util.unflatten_dict(index),
        })
    )
    t5x_metadata.write(beside, metadata)


def _read_index(folder: pathlib.Path) -> PyTree:
  """Returns what the index holds under 'optimizer'."""
  packed = (folder / 'checkpoint').read_bytes()
  if packed.startswith(b'model_checkpoint_path'):
    raise UserError(
        f'{folder} is a TensorFlow checkpoint; convert it with t5x first'
        ' (t5x.scripts.convert_tf_checkpoint)'
    )
  index = serialization.msgpack_restore(packed)
  if not isinstance(index, dict) or 'optimizer' not in index:
    raise ValueError('its index has no `optimizer`')
  return index['optimizer']


def _is_spec(path: tuple[str, ...], node: dict[str, Any]) -> bool:
  del path
  return {'driver', 'kvstore', 'metadata'} <= node.keys()


def _read_arrays(folder: pathlib.Path, tree: PyTree) -> PyTree:
  """Returns part of the index with its specifications read, all at once."""
  flat = traverse_util.flatten_dict(
      tree, keep_empty_nodes=True, is_leaf=_is_spec
  )
  reads = {
      path: _start_reading(folder, leaf)
      for path, leaf in flat.items()
      if isinstance(leaf, dict)
  }
  flat |= {path: read.result() for path, read in reads.items()}
  return traverse_util.unflatten_dict(flat)


def _start_reading(folder: pathlib.Path, spec: dict[str, Any]):
  """Returns a future of the numpy array."""
  # The public checkpoints were written to a bucket; paths are relative. Old
  # ones have the path at the top.
  path = spec['kvstore'].get('path') or spec['path']
  if spec.get('dtype') == 'uint16':
    raise UserError(
        f'{folder} has bfloat16 arrays in the form of t5x before June 2021;'
        ' load and save it with t5x of that time'
    )
  store = tensorstore.open({
      'driver': spec['driver'],
      'kvstore': {'driver': 'file', 'path': str(folder / path)},
      # A missing chunk would else read as zeros; t5x writes those of zeros.
      'fill_missing_data_reads': False,
  }).result()
  return store.read()


def _start_writing(folder: pathlib.Path, name: str, array: np.ndarray):
  """Returns the specification for the index, and a future to wait for."""
  row_bytes = array.nbytes // array.shape[0] if array.ndim else 1
  rows = max(1, _CHUNK_BYTES // max(1, row_bytes))
  chunks = [min(rows, array.shape[0]), *array.shape[1:]] if array.ndim else []
  spec = {
      'driver': 'zarr',
      'dtype': array.dtype.name,
      'kvstore': {'driver': 'file', 'path': f'{name}/'},
      'metadata': {
          'chunks': chunks,
          # Weights hardly shrink, and gzip is slower than the disk.
          'compressor': None,
          'shape': list(array.shape),
      },
  }
  store = tensorstore.open(
      spec | {'kvstore': {'driver': 'file', 'path': str(folder / name) + '/'}},
      create=True,
  ).result()
  return spec, store.write(array)
