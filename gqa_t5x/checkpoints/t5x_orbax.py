# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""t5x's checkpoints as it writes them by default: Orbax's item `state`.

Beside it lies `dataset`, the position in the training data, which depends on
the number of hosts and is left out.
"""

import pathlib
from typing import Any

import orbax.checkpoint as ocp

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import orbax
from gqa_t5x.checkpoints import t5x_metadata

PyTree = Any


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'state').is_dir()


def load(folder: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Loads as `checkpoints.load_checkpoint`; no optimizer state is read."""
  with folders.reading(folder):
    tree = orbax.read_tree(
        folder / 'state',
        lambda tree: {
            'target': tree['target'],
            'state': {'step': tree['state']['step']},
        },
    )
    params = tree['target']
    return params, t5x_metadata.read(folder, params, tree['state']['step'])


def load_param_states(folder: pathlib.Path) -> PyTree | None:
  """Loads as `checkpoints.load_param_states`."""

  def select(tree):
    if 'param_states' not in tree['state']:
      return None
    return {'state': {'param_states': tree['state']['param_states']}}

  with folders.reading(folder):
    tree = orbax.read_tree(folder / 'state', select)
    return tree and tree['state']['param_states']


def save(
    folder: pathlib.Path,
    params: PyTree,
    metadata: dict[str, Any],
    param_states: PyTree | None,
):
  """Saves as `checkpoints.save_checkpoint`."""
  state = t5x_metadata.make_state(params, metadata, param_states)
  with folders.new_folder(folder) as beside:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
      checkpointer.save(
          beside,
          args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)),
          force=True,
      )
    t5x_metadata.write(beside, metadata)
