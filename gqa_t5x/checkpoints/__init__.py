# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes checkpoints; one module for each format."""

from collections.abc import Mapping
import concurrent.futures
import json
import pathlib
import re
from typing import Any, NamedTuple

from flax import traverse_util
import numpy as np

from gqa_t5x import storage
from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import hf
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest as manifest_lib
from gqa_t5x.checkpoints import names
from gqa_t5x.checkpoints import orbax
from gqa_t5x.checkpoints import t5x
from gqa_t5x.checkpoints import t5x_orbax
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

PyTree = Any
Path = tuple[str, ...]

# Each module has `is_checkpoint(folder)`; `open_params(source)` and
# `open_param_states(source)`, of leaves by path; and
# `write(writing, params, param_states, metadata)`.
_FORMATS = {'orbax': orbax, 't5x': t5x, 't5x-orbax': t5x_orbax, 'hf': hf}
OF_T5X = ('t5x', 't5x-orbax')
# In the metadata that we write, so that a manifest cannot go unnoticed.
_HAS_MANIFEST = 'has_manifest'


class Checkpoint(NamedTuple):
  """A checkpoint that is open; values are read when they are asked for.

  Attributes:
    params: leaves by path: `lazy.LazyArray` or numpy arrays.
    metadata: see `load_checkpoint`.
    format: a key of the formats.
    source: its files, and their manifest.
  """

  params: dict[Path, Any]
  metadata: dict[str, Any]
  format: str
  source: manifest_lib.Reading

  def read_params(self) -> PyTree:
    """Returns the nested dict of numpy arrays, all of it checked.

    Raises:
      UserError: if it is damaged.
    """
    params = _read(self.params)
    self.source.check_all()
    return params

  def open_param_states(self) -> dict[Path, Any] | None:
    """Returns t5x's optimizer state, by path, or None: see the function."""
    with folders.reading(self.source.folder):
      return _FORMATS[self.format].open_param_states(self.source)


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
        + hf.how_to_download(str(path))
    )
  for name, module in _FORMATS.items():
    if module.is_checkpoint(folder):
      return name
  of_run = [*folder.glob('checkpoints/*'), *folder.glob('checkpoint[_-]*')]
  if folder.name == 'checkpoints':
    of_run += folder.iterdir()
  steps = {
      int(n): p
      for p in of_run
      if (n := re.split('[_-]', p.name)[-1]).isdigit()
  }
  if steps:
    raise UserError(
        f'expected a checkpoint, got the folder of a run, {path}; pass one of'
        f' its steps, such as the last, {steps[max(steps)]}'
    )
  if found := sorted(folder.glob('snapshots/*/')):
    raise UserError(
        f'expected a checkpoint, got a folder of the cache of Hugging Face,'
        f' {path}; pass {found[-1]}'
    )
  hf.check_complete(folder, path)
  raise UserError(
      f'{path} is not a checkpoint of a known format'
      f' ({", ".join(_FORMATS)}); pass the folder of one step, such as'
      " MODEL_DIR/checkpoints/1000, or t5x's MODEL_DIR/checkpoint_1000"
  )


def open_checkpoint(path: str) -> Checkpoint:
  """Opens a checkpoint of any known format without reading its values.

  Where it has a manifest, which files there are and how long they are is
  checked here, and their bytes when they are read.

  Raises:
    UserError: as `load_checkpoint`.
  """
  format, folder = detect_format(path), _folder(path)  # pylint: disable=redefined-builtin
  with folders.reading(folder):
    of_format = {'is_part': hf.is_part} if format == 'hf' else {}
    source = manifest_lib.Reading(folder, **of_format)
    params, metadata = _FORMATS[format].open_params(source)
    metadata = {'step': None, 'conversion': None} | metadata
    names.check_arrays(params, T5Config(**metadata['config']), path)
  if metadata.pop(_HAS_MANIFEST, False) and source.digest is None:
    raise UserError(
        f'expected the file {manifest_lib.NAME} in {path}, which was written'
        ' with one; copy the checkpoint again'
    )
  return Checkpoint(params, metadata, format, source)


def has_manifest(path: str) -> bool:
  """Returns whether there is a manifest to check a checkpoint by."""
  return (_folder(path) / manifest_lib.NAME).is_file()


def load_checkpoint(path: str) -> tuple[PyTree, dict[str, Any]]:
  """Loads parameters and what is known of them.

  Args:
    path: a checkpoint folder of any known format, which is detected.

  Returns:
    params: nested dict of numpy arrays, in the dtype stored.
    metadata: a dict with 'config' (the fields of `T5Config`), 'step' (None
      where nothing tells), 'conversion' (None for a checkpoint that was not
      converted) and whatever else its writer added. What others wrote has no
      'config': it is read off the shapes, see `t5x_metadata.derive_config`.

  Raises:
    UserError: if there is no checkpoint at `path`, none of a known format, or
      a damaged one. Where it has a manifest, one wrong byte is damage.
  """
  opened = open_checkpoint(path)
  return opened.read_params(), opened.metadata


def load_param_states(path: str) -> PyTree | None:
  """Loads the optimizer state of a t5x checkpoint.

  Returns:
    The nested dict of numpy arrays that t5x calls `param_states`, or None
    where the checkpoint has none, as our own format never has.

  Raises:
    UserError: as `load_checkpoint`.
  """
  states = open_checkpoint(path).open_param_states()
  return None if states is None else _read(states)


def _read(flat: dict[Path, Any]) -> PyTree:
  """Returns the nested dict of what the leaves stand for."""

  def read(leaf):
    is_empty = leaf is traverse_util.empty_node
    return leaf if is_empty else lazy.concrete(leaf)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    arrays = dict(zip(flat, pool.map(read, flat.values())))
  return traverse_util.unflatten_dict(arrays)


def save_checkpoint(
    path: str,
    params: PyTree,
    *,
    format: str = 'orbax',  # pylint: disable=redefined-builtin
    metadata: dict[str, Any],
    param_states: PyTree | None = None,
) -> None:
  """Writes a checkpoint folder with a manifest, all of it or nothing.

  Args:
    path: folder to write; must not exist. t5x takes up only folders named
      checkpoint_STEP, so in its formats this must be one.
    params: nested dict of arrays.
    format: 'orbax' (ours), 't5x' (its legacy format, as the public T5
      checkpoints), 't5x-orbax' (what t5x.train writes) or 'hf' (Hugging Face's,
      in which key/value heads are repeated, so that it saves no memory).
    metadata: JSON values, at least 'config' (see `T5Config.to_dict`) and, for
      t5x's formats, 'step'.
    param_states: optimizer state as `load_param_states` returns it; for t5x's
      formats only.

  Raises:
    UserError: if the format is unknown, the folder exists, there is no space,
      the configuration is none or does not fit, or, for t5x's formats, the
      folder is not named for the step.
  """
  write_checkpoint(
      path,
      _flatten(params),
      format=format,
      metadata=metadata,
      param_states=None if param_states is None else _flatten(param_states),
      about={},
  )


def _flatten(tree: PyTree) -> dict[Path, Any]:
  flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True)
  return {
      path: leaf
      if leaf is traverse_util.empty_node or hasattr(leaf, 'shape')
      else np.asarray(leaf)
      for path, leaf in flat.items()
  }


def write_checkpoint(
    path: str,
    params: Mapping[Path, Any],
    *,
    format: str,  # pylint: disable=redefined-builtin
    metadata: dict[str, Any],
    param_states: Mapping[Path, Any] | None,
    about: dict[str, Any],
    source: manifest_lib.Reading | None = None,
    verify: bool = False,
) -> None:
  """Writes leaves that may be lazy: a few blocks of them are in memory.

  Args:
    path: as in `save_checkpoint`, like `format` and `metadata`.
    params: leaves by path.
    format: as named.
    metadata: as named.
    param_states: leaves by path, or None.
    about: JSON values for the manifest.
    source: where the leaves are read from; its hash goes into the manifest, and
      values that are not finite are refused.
    verify: whether everything is read back from the disk at the end.

  Raises:
    UserError: as `save_checkpoint`, and if `source` is damaged or has NaN or
      infinity.
  """
  check_target(path, format, metadata.get('step'))
  if format in OF_T5X and metadata.get('step') is None:
    raise UserError(
        f"expected a 'step' in the metadata, which format={format!r} holds, got"
        ' none; add it'
    )
  if param_states is not None and format not in OF_T5X:
    raise UserError(
        f'format={format!r} holds no optimizer state of t5x; choose t5x or'
        ' t5x-orbax, or leave it out'
    )
  try:
    config = T5Config(**metadata['config'])
    json.dumps(metadata)
  except (KeyError, TypeError) as error:
    raise UserError(
        "expected metadata of JSON values with a 'config' of T5Config.to_dict,"
        f' got {type(error).__name__}: {error}; mend it'
    ) from error
  names.check_arrays(
      params, config, 'the parameters', 'pass the one that they are of'
  )
  folder = _folder(path)
  folder.parent.mkdir(parents=True, exist_ok=True)
  from_folder = None if source is None else source.folder
  with folders.new_folder(
      folder, about, source=from_folder, verify=verify
  ) as writing:
    _FORMATS[format].write(
        writing, params, param_states, metadata | {_HAS_MANIFEST: True}
    )
    if source is not None and format == 'hf':
      hf.copy_tokenizer(writing, source)
    if source is not None:
      writing.about['source'] = {
          'path': str(source.folder),
          'sha256': source.source_hash(),
      }


def check_target(
    path: str,
    format: str,  # pylint: disable=redefined-builtin
    step: int | None,
) -> None:
  """Raises UserError if a checkpoint of a step cannot be written to `path`."""
  if format not in _FORMATS:
    raise UserError(
        f'format={format!r} is unknown; choose one of {", ".join(_FORMATS)}'
    )
  folder = _folder(path)
  storage.check_absent(path)
  number = r'\d+' if step is None else str(step)
  if format in OF_T5X and not re.fullmatch(f'checkpoint_{number}', folder.name):
    name = f'checkpoint_{"STEP" if step is None else step}'
    is_other = re.fullmatch(r'checkpoint_\d+', folder.name)
    better = folder.with_name(name) if is_other else folder / name
    if better.exists():
      better = folder / name
    of_step = ', with the number of its step' if step is None else ''
    raise UserError(
        f'expected a folder named {name}, as t5x looks for, got {path}; write'
        f' to {better}{of_step}'
    )
  if format in OF_T5X and int(folder.name.split('_')[1]) >= 2**31:
    raise UserError(
        f'expected a step below 2**31, as t5x holds it, got that of {path};'
        ' choose a lower one'
    )


def _folder(path: str) -> pathlib.Path:
  return storage.local_path(path).absolute()
