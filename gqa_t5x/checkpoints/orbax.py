# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: a folder with the items `params` and `metadata`.

The embedded engine's checkpoints have the same two items, beside the
optimizer's, so every step of a run is a checkpoint that loads.
"""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gqa_t5x.errors import UserError

PyTree = Any


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'params').is_dir() and (folder / 'metadata').is_dir()


def load(folder: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Loads as `checkpoints.load_checkpoint`."""
  try:
    metadata = ocp.JsonCheckpointHandler().restore(
        folder / 'metadata', args=ocp.args.JsonRestore()
    )
    # By the handler: a Checkpointer warns that an item is no whole checkpoint.
    handler = ocp.PyTreeCheckpointHandler()
    item = handler.metadata(folder / 'params')
    # As numpy: whatever devices wrote it need not be here.
    restore_args = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item.tree
    )
    params = handler.restore(
        folder / 'params',
        args=ocp.args.PyTreeRestore(restore_args=restore_args),
    )
    handler.close()
  except (ValueError, OSError, KeyError) as error:
    reason = str(error).strip().split('\n')[0]
    raise UserError(
        f'the checkpoint in {folder} cannot be read: {reason}; it is damaged'
        ' or incomplete, take another step or copy it again'
    ) from error
  return params, metadata


def save(folder: pathlib.Path, params: PyTree, metadata: dict[str, Any]):
  """Saves as `checkpoints.save_checkpoint`; Orbax writes beside and renames."""
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
    checkpointer.save(
        folder,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeSave(params),
            metadata=ocp.args.JsonSave(metadata),
        ),
    )
