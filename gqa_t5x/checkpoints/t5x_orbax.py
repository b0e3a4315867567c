# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""t5x's checkpoints as it writes them by default: Orbax's item `state`.

Beside it lies `dataset`, the position in the training data, which depends on
the number of hosts and is left out.
"""

import pathlib
from typing import Any

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import orbax_tree
from gqa_t5x.checkpoints import t5x_metadata

_HANDLERS = {'state': 'pytree_checkpoint_handler.PyTreeCheckpointHandler'}


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / 'state').is_dir()


def open_params(source: manifest.Reading):
  """Opens as `checkpoints.open_checkpoint`; no optimizer state is opened."""
  params = orbax_tree.open_tree(source, 'state/', ('target',))
  (step,) = orbax_tree.open_tree(source, 'state/', ('state', 'step')).values()
  return params, t5x_metadata.read(source, params, step)


def open_param_states(source: manifest.Reading):
  """Opens as `checkpoints.open_param_states`."""
  prefix = ('state', 'param_states')
  return orbax_tree.open_tree(source, 'state/', prefix) or None


def write(
    writing: folders.Writing,
    params: dict[tuple[str, ...], Any],
    param_states: dict[tuple[str, ...], Any] | None,
    metadata: dict[str, Any],
) -> None:
  """Writes as `checkpoints.save_checkpoint`."""
  state = t5x_metadata.make_state(params, param_states, metadata)
  orbax_tree.write_tree(writing, 'state/', state)
  writing.run()
  t5x_metadata.write(writing, metadata)
  orbax_tree.write_checkpoint_files(writing, _HANDLERS)
