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

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.checkpoints import zarr
from gqa_t5x.errors import UserError

PyTree = Any

# Since version 3, bfloat16 is stored as such; before, as uint16.
_VERSION = 3


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'checkpoint').is_file()


def open_params(source: manifest.Reading):
  """Opens as `checkpoints.open_checkpoint`; no optimizer state is opened."""
  index = _read_index(source)
  params = _open_arrays(source, index['target'])
  step = _open_arrays(source, {'step': index['state']['step']})['step',]
  return params, t5x_metadata.read(source, params, step)


def open_param_states(source: manifest.Reading):
  """Opens as `checkpoints.open_param_states`."""
  state = _read_index(source)['state']
  if 'param_states' not in state:
    return None
  return _open_arrays(source, state['param_states'])


def write(
    writing: folders.Writing,
    params: dict[tuple[str, ...], Any],
    param_states: dict[tuple[str, ...], Any] | None,
    metadata: dict[str, Any],
) -> None:
  """Writes as `checkpoints.save_checkpoint`."""
  index = {}
  state = t5x_metadata.make_state(params, param_states, metadata)
  for path, leaf in state.items():
    # As t5x, which has the step and Adafactor's v_row and v_col inline.
    if leaf is traverse_util.empty_node:
      index[path] = {}
    elif path[0] == 'target' or len(leaf.shape) > 1:
      name = '.'.join(path)
      index[path] = _spec(name, zarr.write(writing, '', name, leaf))
    else:
      index[path] = lazy.concrete(leaf)
  writing.run()
  packed = serialization.msgpack_serialize({
      'version': _VERSION,
      'optimizer': traverse_util.unflatten_dict(index),
  })
  writing.write('checkpoint', [packed])
  t5x_metadata.write(writing, metadata)


def _spec(name: str, description: dict[str, Any]) -> dict[str, Any]:
  """Returns TensorStore's specification of an array, for the index."""
  kept = ('chunks', 'compressor', 'shape')
  if description.get('dimension_separator', '.') != '.':
    kept += ('dimension_separator',)
  dtype = description['dtype']
  return {
      'driver': 'zarr',
      'dtype': dtype if dtype == 'bfloat16' else np.dtype(dtype).name,
      'kvstore': {'driver': 'file', 'path': f'{name}/'},
      'metadata': {key: description[key] for key in kept},
  }


def _read_index(source: manifest.Reading) -> PyTree:
  """Returns what the index holds under 'optimizer'."""
  folder = source.folder
  source.check('checkpoint')
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


def _open_arrays(source: manifest.Reading, tree: PyTree):
  """Returns part of the index by path, with its specifications opened."""
  flat = traverse_util.flatten_dict(
      tree, keep_empty_nodes=True, is_leaf=_is_spec
  )
  return {
      path: _open_array(source, leaf) if isinstance(leaf, dict) else leaf
      for path, leaf in flat.items()
  }


def _open_array(source: manifest.Reading, spec: dict[str, Any]):
  # The public checkpoints were written to a bucket; paths are relative. Old
  # ones have the path at the top.
  path = spec['kvstore'].get('path') or spec['path']
  if spec.get('dtype') == 'uint16':
    raise UserError(
        f'{source.folder} has bfloat16 arrays in the form of t5x before June'
        ' 2021; load and save it with t5x of that time'
    )
  name, store = path.rstrip('/'), zarr.Files(source)
  if spec['driver'] != 'zarr':
    return zarr.open_other(store, name, spec['driver'])
  array = zarr.ZarrArray(store, name)
  expected = tuple(spec['metadata'].get('shape', array.shape))
  if array.shape != expected:
    raise ValueError(
        f'expected {name} of shape {expected}, as the index says, got'
        f' {array.shape}'
    )
  return array
