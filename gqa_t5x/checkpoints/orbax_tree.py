# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trees of arrays as Orbax stores them, read and written without it.

A folder with _METADATA, which lists the arrays, and these in zarr: all in one
OCDBT database, or each in a folder of its own. Orbax would hold a whole tree in
memory. The second form is written, since its arrays can be copied as files, and
Orbax reads both.
"""

import json
from typing import Any

from flax import traverse_util

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import zarr

Path = tuple[str, ...]

_DICT_KEY = 2  # Orbax's number for a key of a dict.
DONE = 'commit_success.txt'  # What it looks for in buckets.


def is_tree(folder) -> bool:
  return (folder / '_METADATA').is_file()


def paths(source: manifest.Reading, inside: str) -> dict[Path, bool]:
  """Returns the paths of a tree; whether each is an array or an empty dict."""
  source.check(f'{inside}_METADATA')
  tree = json.loads((source.folder / inside / '_METADATA').read_text())
  return {
      tuple(str(key['key']) for key in entry['key_metadata']): (
          entry['value_metadata']['value_type'] != 'Dict'
      )
      for entry in tree['tree_metadata'].values()
      if entry['value_metadata']['value_type'] != 'None'
  }


def open_tree(
    source: manifest.Reading, inside: str, prefix: Path = ()
) -> dict[Path, Any]:
  """Returns the arrays below `prefix`, lazily, and empty nodes, by path.

  Args:
    source: the checkpoint.
    inside: the tree's folder in it, with a slash at its end, or ''.
    prefix: is not part of the paths returned.
  """
  folder = source.folder / inside
  is_database = (folder / 'manifest.ocdbt').is_file()
  store = (zarr.Database if is_database else zarr.Files)(source, inside)
  metadata = json.loads((folder / '_METADATA').read_text())
  found = {}
  for path, is_array in paths(source, inside).items():
    if path[: len(prefix)] != prefix:
      continue
    name = '.'.join(path)
    if not is_array:
      leaf = traverse_util.empty_node
    elif metadata.get('use_zarr3'):
      leaf = zarr.open_other(store, name, 'zarr3')
    else:
      leaf = zarr.ZarrArray(store, name)
    found[path[len(prefix) :]] = leaf
  return found


def write_tree(
    writing: folders.Writing, inside: str, flat: dict[Path, Any]
) -> None:
  """Has a tree written, as item `inside` of a checkpoint.

  Args:
    writing: the checkpoint.
    inside: the item's folder, with a slash at its end.
    flat: arrays and empty nodes by path.
  """
  entries = {}
  for path, leaf in flat.items():
    is_empty = leaf is traverse_util.empty_node
    entries[str(path)] = {
        'key_metadata': [{'key': k, 'key_type': _DICT_KEY} for k in path],
        'value_metadata': {
            'value_type': 'Dict' if is_empty else 'np.ndarray',
            'skip_deserialize': is_empty,
        },
    }
    if not is_empty:
      zarr.write(writing, inside, '.'.join(path), lazy.of(leaf))
  writing.write_json(
      f'{inside}_METADATA',
      {
          'tree_metadata': entries,
          'use_ocdbt': False,
          'use_zarr3': False,
          'store_array_data_equal_to_fill_value': True,
          'custom_metadata': None,
      },
  )
  write_done(writing, inside)


def write_checkpoint_files(
    writing: folders.Writing, handlers: dict[str, str]
) -> None:
  """Writes what makes a checkpoint of items; `handlers` is Orbax's of each."""
  handlers_module = 'orbax.checkpoint._src.handlers'
  writing.write_json(
      '_CHECKPOINT_METADATA',
      {
          'item_handlers': {
              item: f'{handlers_module}.{name}'
              for item, name in handlers.items()
          },
          'metrics': {},
          'performance_metrics': {},
          # Times would make two conversions differ.
          'init_timestamp_nsecs': 0,
          'commit_timestamp_nsecs': 0,
          'custom_metadata': {},
      },
  )
  write_done(writing, '')


def write_done(writing: folders.Writing, inside: str) -> None:
  """Writes the file that says that a folder, 'NAME/', is whole."""
  writing.write(f'{inside}{DONE}', [b'Checkpoint commit was successful.\n'])
