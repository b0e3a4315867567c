# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: a folder with the items `params` and `metadata`.

The embedded engine's checkpoints have the same two items, beside the
optimizer's, so every step of a run is a checkpoint that loads. Trees that
others wrote with Orbax are read too; they have no metadata.
"""

import json
import pathlib
from typing import Any

import numpy as np

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import orbax_tree
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.errors import UserError

_HANDLERS = {
    'params': 'pytree_checkpoint_handler.PyTreeCheckpointHandler',
    'metadata': 'json_checkpoint_handler.JsonCheckpointHandler',
}
# Where Orbax puts a tree that has no name: itself, its manager, its version 1.
_PLAIN = ('', 'default/', 'pytree/')


def is_checkpoint(folder: pathlib.Path) -> bool:
  if (folder / 'params').is_dir() and (folder / 'metadata').is_dir():
    return True
  return _plain(folder) is not None


def _plain(folder: pathlib.Path) -> str | None:
  for inside in _PLAIN:
    if orbax_tree.is_tree(folder / inside):
      return inside
  return None


def open_params(source: manifest.Reading):
  """Opens as `checkpoints.open_checkpoint`."""
  inside = _plain(source.folder)
  if inside is None:
    source.check('metadata/metadata')
    metadata = json.loads((source.folder / 'metadata/metadata').read_text())
    flat = orbax_tree.open_tree(source, 'params/')
    if 'config' not in metadata:  # Somebody else's, with items of these names.
      metadata |= {'config': t5x_metadata.derive_config(flat).to_dict()}
    return flat, metadata
  # Parameters alone, Flax's variables, or the state that t5x saves.
  tops = {path[0] for path in orbax_tree.paths(source, inside)}
  prefix = next(((p,) for p in ('params', 'target') if p in tops), ())
  flat = orbax_tree.open_tree(source, inside, prefix)
  if 'decoder' not in {path[0] for path in flat}:
    raise UserError(
        f'expected the parameters of a T5 in the Orbax tree in {source.folder},'
        f' got {", ".join(sorted(tops))} at its top; save the tree that t5x'
        ' calls `target`'
    )
  metadata = {'config': t5x_metadata.derive_config(flat).to_dict()}
  if prefix == ('target',) and 'state' in tops:
    state = orbax_tree.open_tree(source, inside, ('state',))
    if (step := state.get(('step',))) is not None:
      metadata['step'] = int(np.asarray(step))
  return flat, metadata


def open_param_states(source: manifest.Reading) -> None:
  """The embedded engine's optimizer state is not t5x's: there is none."""
  del source


def write(
    writing: folders.Writing,
    params: dict[tuple[str, ...], Any],
    param_states: None,
    metadata: dict[str, Any],
) -> None:
  """Writes as `checkpoints.save_checkpoint`."""
  del param_states
  orbax_tree.write_tree(writing, 'params/', params)
  writing.run()
  writing.write('metadata/metadata', [json.dumps(metadata).encode()])
  orbax_tree.write_done(writing, 'metadata/')
  orbax_tree.write_checkpoint_files(writing, _HANDLERS)
