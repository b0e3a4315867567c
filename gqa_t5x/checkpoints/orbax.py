# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: a folder with the items `params` and `metadata`.

The embedded engine's checkpoints have the same two items, beside the
optimizer's, so every step of a run is a checkpoint that loads.
"""

import pathlib
from typing import Any, Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from gqa_t5x.checkpoints import folders

PyTree = Any


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'params').is_dir() and (folder / 'metadata').is_dir()


def load(folder: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Loads as `checkpoints.load_checkpoint`."""
  with folders.reading(folder):
    metadata = ocp.JsonCheckpointHandler().restore(
        folder / 'metadata', args=ocp.args.JsonRestore()
    )
    return read_tree(folder / 'params'), metadata


def load_param_states(folder: pathlib.Path) -> None:
  """The embedded engine's optimizer state is not t5x's: there is none."""
  del folder


def save(
    folder: pathlib.Path,
    params: PyTree,
    metadata: dict[str, Any],
    param_states: None,
):
  """Saves as `checkpoints.save_checkpoint`; Orbax writes beside and renames."""
  del param_states
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    checkpointer.save(
        folder,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeSave(params),
            metadata=ocp.args.JsonSave(metadata),
        ),
    )


def read_tree(
    item: pathlib.Path, select: Callable[[PyTree], PyTree] = lambda tree: tree
) -> PyTree:
  """Reads an item of Orbax's that is a tree of arrays.

  Args:
    item: its folder.
    select: takes from the nested dict of the arrays' metadata what to read;
      None is nothing.

  Returns:
    Nested dict of numpy arrays, or None: whatever devices wrote them need not
    be here.
  """
  # By the handler: a Checkpointer warns that an item is no whole checkpoint.
  handler = ocp.PyTreeCheckpointHandler()
  wanted = select(handler.metadata(item).tree)
  if wanted is None:
    return None
  restore_args = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
  )
  tree = handler.restore(
      item,
      args=ocp.args.PyTreeRestore(
          item=wanted, restore_args=restore_args, partial_restore=True
      ),
  )
  handler.close()
  return tree
