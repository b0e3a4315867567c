# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes checkpoints; one module for each format."""

from typing import Any
import pathlib
import re

from gqa_t5x.checkpoints import orbax
from gqa_t5x.checkpoints import t5x
from gqa_t5x.checkpoints import t5x_orbax
from gqa_t5x.errors import UserError

PyTree = Any

# Each module has `is_checkpoint(path)`, `load(path)`,
# `load_param_states(path)`, `save(path, params, metadata, param_states)`.
_FORMATS = {'orbax': orbax, 't5x': t5x, 't5x-orbax': t5x_orbax}


def detect_format(path: str) -> str:
  """Returns the format of the checkpoint at `path`: a key of the formats.

  Raises:
    UserError: if there is no checkpoint at `path`, or none of a known format.
  """
  folder = _folder(path)
  if not folder.exists():
    raise UserError(
        f'expected a checkpoint folder, but {path} does not exist; check the'
        ' path'
    )
  for name, module in _FORMATS.items():
    if module.is_checkpoint(folder):
      return name
  raise UserError(
      f'{path} is not a checkpoint of a known format'
      f' ({", ".join(_FORMATS)}); pass the folder of one step, such as'
      " MODEL_DIR/checkpoints/1000, or t5x's MODEL_DIR/checkpoint_1000"
  )


def load_checkpoint(path: str) -> tuple[PyTree, dict[str, Any]]:
  """Loads parameters and what is known of them.

  Args:
    path: a checkpoint folder of any known format, which is detected.

  Returns:
    params: nested dict of numpy arrays, in the dtype stored.
    metadata: a dict with 'config' (the fields of `T5Config`), 'step',
      'conversion' (None for a checkpoint that was not converted) and whatever
      else its writer added. t5x writes no 'config': it is read off the shapes,
      see `t5x_metadata.derive_config`.

  Raises:
    UserError: if there is no checkpoint at `path`, none of a known format, or
      a damaged one.
  """
  return _FORMATS[detect_format(path)].load(_folder(path))


def load_param_states(path: str) -> PyTree | None:
  """Loads the optimizer state of a t5x checkpoint.

  Returns:
    The nested dict of numpy arrays that t5x calls `param_states`, or None
    where the checkpoint has none, as our own format never has.

  Raises:
    UserError: as `load_checkpoint`.
  """
  return _FORMATS[detect_format(path)].load_param_states(_folder(path))


def save_checkpoint(
    path: str,
    params: PyTree,
    *,
    format: str = 'orbax',  # pylint: disable=redefined-builtin
    metadata: dict[str, Any],
    param_states: PyTree | None = None,
) -> None:
  """Writes a checkpoint folder, all of it or nothing.

  Args:
    path: folder to write; must not exist. t5x takes up only folders named
      checkpoint_STEP, so in its formats this must be one.
    params: nested dict of arrays.
    format: 'orbax' (ours), 't5x' (its legacy format, as the public T5
      checkpoints) or 't5x-orbax' (what t5x.train writes).
    metadata: JSON values, at least 'config' (see `T5Config.to_dict`) and, for
      t5x's formats, 'step'.
    param_states: optimizer state as `load_param_states` returns it; not for
      'orbax'.

  Raises:
    UserError: if the format is unknown, the folder exists or, for t5x's
      formats, is not named for the step.
  """
  check_target(path, format)
  folder = _folder(path)
  if format == 'orbax':
    if param_states is not None:
      raise UserError(
          "format='orbax' holds no optimizer state of t5x; choose t5x or"
          ' t5x-orbax, or leave it out'
      )
  elif folder.name != (name := f'checkpoint_{metadata["step"]}'):
    raise UserError(
        f'{path} holds step {metadata["step"]}, which t5x looks for in a'
        f' folder named {name}; write to {folder.with_name(name)}'
    )
  folder.parent.mkdir(parents=True, exist_ok=True)
  _FORMATS[format].save(folder, params, metadata, param_states)


def check_target(path: str, format: str) -> None:  # pylint: disable=redefined-builtin
  """Raises UserError if a checkpoint cannot be written to `path`."""
  if format not in _FORMATS:
    raise UserError(
        f'format={format!r} is unknown; choose one of {", ".join(_FORMATS)}'
    )
  folder = _folder(path)
  if folder.exists():
    raise UserError(
        f'{path} exists already; remove it or choose another output folder'
    )
  if format != 'orbax' and not re.fullmatch(r'checkpoint_\d+', folder.name):
    raise UserError(
        f'{path} is not named checkpoint_STEP, as all that t5x takes up;'
        f' write to {folder / "checkpoint_STEP"}, with the number of the step'
    )


def _folder(path: str) -> pathlib.Path:
  return pathlib.Path(path).expanduser().absolute()
