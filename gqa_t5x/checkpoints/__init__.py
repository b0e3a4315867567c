# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes checkpoints; one module for each format."""

from typing import Any
import pathlib

from gqa_t5x.checkpoints import orbax
from gqa_t5x.errors import UserError

PyTree = Any

# Each module has `is_checkpoint(path)`, `load(path)`, `save(path, params,
# metadata)`.
_FORMATS = {'orbax': orbax}


def load_checkpoint(path: str) -> tuple[PyTree, dict[str, Any]]:
  """Loads parameters and what is known of them.

  Args:
    path: a checkpoint folder of any known format, which is detected.

  Returns:
    params: nested dict of numpy arrays, in the dtype stored.
    metadata: a dict with 'config' (the fields of `T5Config`), 'step',
      'conversion' (None for a checkpoint that was not converted) and whatever
      else its writer added.

  Raises:
    UserError: if there is no checkpoint at `path`, or none of a known format.
  """
  folder = pathlib.Path(path).expanduser().absolute()
  if not folder.exists():
    raise UserError(
        f'expected a checkpoint folder, but {path} does not exist; check the'
        ' path'
    )
  for module in _FORMATS.values():
    if module.is_checkpoint(folder):
      return module.load(folder)
  raise UserError(
      f'{path} is not a checkpoint of a known format'
      f' ({", ".join(_FORMATS)}); pass the folder of one step, such as'
      ' MODEL_DIR/checkpoints/1000'
  )


def save_checkpoint(
    path: str,
    params: PyTree,
    *,
    format: str = 'orbax',  # pylint: disable=redefined-builtin
    metadata: dict[str, Any],
) -> None:
  """Writes a checkpoint folder, all of it or nothing.

  Args:
    path: folder to write; must not exist.
    params: nested dict of arrays.
    format: 'orbax'.
    metadata: JSON values, at least 'config' (see `T5Config.to_dict`).

  Raises:
    UserError: if the format is unknown or the folder exists.
  """
  check_target(path, format)
  folder = pathlib.Path(path).expanduser().absolute()
  folder.parent.mkdir(parents=True, exist_ok=True)
  _FORMATS[format].save(folder, params, metadata)


def check_target(path: str, format: str) -> None:  # pylint: disable=redefined-builtin
  """Raises UserError if a checkpoint cannot be written to `path`."""
  if format not in _FORMATS:
    raise UserError(
        f'format={format!r} is unknown; choose one of {", ".join(_FORMATS)}'
    )
  if pathlib.Path(path).expanduser().exists():
    raise UserError(
        f'{path} exists already; remove it or choose another output folder'
    )
