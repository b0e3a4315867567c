# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts a checkpoint on disk: one attention of it is in memory at a time."""

from collections.abc import Callable, Mapping
import math
import pathlib
from typing import Any

from flax import traverse_util
import jax
import numpy as np
import scipy

import gqa_t5x
from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x import storage
from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import hf
from gqa_t5x.checkpoints import lazy
from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import optimizer_slots
from gqa_t5x.conversion import params as params_lib
from gqa_t5x.errors import UserError

Path = tuple[str, ...]


def convert_checkpoint(
    source: str,
    target: str,
    *,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
    group_by: str = 'order',
    calibrate: Callable[[], tuple[Mapping[Path, Any], Mapping]] | None = None,
    measure: bool = False,
    format: str | None = None,  # pylint: disable=redefined-builtin
    slots: str | None = None,
    verify: bool = False,
) -> dict[str, Any]:
  """Converts a checkpoint on disk; the step is kept.

  Args:
    source: checkpoint to read, in any known format.
    target: folder to write; must not exist. See `checkpoints.save_checkpoint`
      on its name.
    num_kv_heads: as in `convert_params`, like the next four. As many as the
      source has change the format alone.
    method: as in `convert_params`.
    seed: as in `convert_params`.
    group_by: as in `convert_params`.
    calibrate: measures the covariances of `convert_params`, and returns them
      and what they were measured on, for the metadata. It runs the whole
      model, so it is called late, and not where only the format changes.
    measure: whether errors are worked out; they are in what is returned.
    format: of the target, as `checkpoints.save_checkpoint` names them; None is
      the source's. Formats of t5x keep t5x's optimizer state, others none.
    slots: as in `convert_optimizer_slots`; None is its default, and all that a
      format without optimizer state takes.
    verify: whether all of the source is checked first, where it has a manifest,
      and all of the target is read back from the disk.

  Returns:
    The metadata written; with `measure` also 'errors', by the attention's path:
    those of `errors.relative_errors`.

  Raises:
    UserError: as `convert_params`, `convert_optimizer_slots` and
      `checkpoints.load_checkpoint`; and if the target exists or lies in the
      source, a kernel has values that are not finite, or nothing would change.
  """
  if slots is not None:
    optimizer_slots.check_slots(slots)
  _check_apart(source, target)
  opened = checkpoints.open_checkpoint(source)
  format = format or opened.format
  metadata = opened.metadata
  checkpoints.check_target(target, format, metadata.get('step'))
  if slots is not None and format not in checkpoints.OF_T5X:
    raise UserError(
        f'expected no slots for an output of format {format}, which keeps none,'
        f' got {slots!r}; leave it out, or choose'
        f' {" or ".join(checkpoints.OF_T5X)}'
    )
  slots = slots or 'pool'
  config = metadata['config']
  if format == 'hf':
    hf.check_fits(opened.params, network.T5Config(**config))
  heads = {'num_heads': config['num_heads'], 'num_kv_heads': num_kv_heads}
  checked = folders.finite(opened.params, source)
  # What can be refused is, before the whole model runs over text. Grouping by
  # similarity would already read the kernels.
  by = 'order' if group_by == 'similarity' else group_by
  changing = params_lib.Conversion(
      checked, **heads, method=method, group_by=by
  ).shapes
  if not changing and format == opened.format:
    raise UserError(
        f'{source} has {num_kv_heads} key/value heads already, and nothing'
        f' would change with num_kv_heads={num_kv_heads}; choose fewer heads'
        ' or another format'
    )
  folders.check_space(
      storage.local_path(target).absolute(),
      _num_bytes(checked, changing, has_all_heads=format == 'hf'),
  )
  if verify:
    opened.source.check_all()
  param_states = None
  if format in checkpoints.OF_T5X:
    param_states = opened.open_param_states()
    if metadata.get('step') is None:
      # Nothing tells but the name that the user gives.
      _, _, step = pathlib.Path(target).name.rpartition('_')
      metadata = metadata | {'step': int(step)}
  old_states = param_states
  if old_states is not None and changing:
    param_states = _convert_slots(old_states, checked, **heads, slots=slots)
  covariances = calibration = None
  if calibrate is not None and changing:
    covariances, calibration = calibrate()
  conversion = params_lib.Conversion(
      checked,
      **heads,
      method=method,
      seed=seed,
      group_by=group_by,
      covariances=covariances,
      measure=measure,
  )
  if old_states is not None and conversion.orders:
    param_states = _convert_slots(
        old_states, checked, **heads, slots=slots, orders=conversion.orders
    )
  if changing:
    earlier = metadata['conversion']
    metadata = metadata | {
        'config': config | {'num_kv_heads': num_kv_heads},
        'conversion': {
            'method': method,
            'seed': seed,
            'group_by': group_by,
            'calibration': calibration and dict(calibration),
            'from_num_kv_heads': config['num_kv_heads'],
            'slots': None if param_states is None else slots,
            # Of a checkpoint that was converted before.
            **({'earlier': earlier} if earlier else {}),
        },
    }
  elif metadata['conversion'] and param_states is None:
    kept = metadata['conversion'] | {'slots': None}
    metadata = metadata | {'conversion': kept}
  checkpoints.write_checkpoint(
      target,
      opened.params | _converted(conversion, opened.params),
      format=format,
      metadata=metadata,
      param_states=param_states,
      about={
          'gqa_t5x': gqa_t5x.__version__,
          'jax': jax.__version__,
          'numpy': np.__version__,
          'scipy': scipy.__version__,
          'num_kv_heads': num_kv_heads,
          'conversion': metadata['conversion'],
      },
      source=opened.source,
      verify=verify,
  )
  if measure:
    errors = {'/'.join(p): found for p, found in conversion.errors.items()}
    return metadata | {'errors': errors}
  return metadata


def _check_apart(source: str, target: str) -> None:
  """Raises UserError if the target is the source or lies in it."""
  source_path, target_path = (
      storage.local_path(path).resolve() for path in (source, target)
  )
  beside = folders.beside(target_path)
  if beside in (source_path, *source_path.parents):
    raise UserError(
        f'the source {source} is what an interrupted command has left of the'
        f' target {target}, and would be removed; choose another target'
    )
  if target_path == source_path or source_path in target_path.parents:
    where = 'is' if target_path == source_path else 'lies in'
    raise UserError(
        f'the target {target} {where} the source; choose another folder, the'
        ' source is left as it is'
    )


def _num_bytes(
    leaves: Mapping[Path, lazy.LazyArray],
    changing: Mapping[Path, tuple[int, ...]],
    *,
    has_all_heads: bool,
) -> int:
  """Returns what parameters take, some in other shapes than now.

  Args:
    leaves: by path, as they are.
    changing: shapes of some of them.
    has_all_heads: whether key/value heads are repeated for each query head.
  """
  total = 0
  for path, leaf in leaves.items():
    shape = changing.get(path, leaf.shape)
    if has_all_heads and heads_lib.is_kernel(path, 'key', 'value'):
      shape = leaves[(*path[:-2], 'query', 'kernel')].shape
    total += math.prod(shape) * leaf.dtype.itemsize
  return total


def _converted(
    conversion: params_lib.Conversion, flat: Mapping[Path, Any]
) -> dict[Path, lazy.LazyArray]:
  """Returns the leaves that change; they are asked for in this order."""

  def leaf(path, shape):
    def rows(start, stop):
      return conversion.leaf(path)[start:stop]

    return lazy.LazyArray(shape, flat[path].dtype, rows, is_ordered=True)

  return {path: leaf(path, shape) for path, shape in conversion.shapes.items()}


def _convert_slots(
    param_states: dict[Path, Any],
    params: Mapping[Path, Any],
    **options: Any,
) -> dict[Path, Any]:
  """Returns optimizer state by path, as `convert_optimizer_slots`."""
  converted = optimizer_slots.convert_optimizer_slots(
      traverse_util.unflatten_dict(param_states),
      traverse_util.unflatten_dict(params),
      **options,
  )
  return traverse_util.flatten_dict(converted, keep_empty_nodes=True)
