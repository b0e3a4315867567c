# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run's checkpoints: MODEL_DIR/checkpoints/STEP, written by Orbax.

Each step has the items `params` and `metadata`, which make it a checkpoint
that `gqa_t5x.load_checkpoint` reads, and `optimizer`; and a manifest over all
files. A step that is damaged is set aside in MODEL_DIR/damaged.
"""

import errno
import logging
import math
import os
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import gqa_t5x
from gqa_t5x import storage
from gqa_t5x.checkpoints import manifest
from gqa_t5x.errors import UserError

PyTree = Any

_log = logging.getLogger(__name__)

_REMOVED = 'removed'


class Checkpoints:
  """Saves, finds and restores the steps of one run."""

  def __init__(
      self,
      model_dir: str,
      keep: int | None,
      best_metric: str | None = None,
      best_mode: str = 'min',
  ):
    """Opens the folder, which is made when the first step is saved.

    Args:
      model_dir: of the run.
      keep: how many of the latest steps are kept; None keeps all.
      best_metric: the step that is best by this metric is kept as well.
      best_mode: 'min' or 'max'.
    """

    def metric(metrics):
      return metrics[best_metric]

    policies = [checkpoint_managers.LatestN(keep)]
    if best_metric:
      policies.append(
          checkpoint_managers.BestN(
              get_metric_fn=metric,
              reverse=best_mode == 'min',
              n=1,
              keep_checkpoints_without_metrics=False,
          )
      )
    self._best_metric = best_metric
    self._folder = storage.local_path(model_dir).absolute()
    self._manager = ocp.CheckpointManager(
        self._folder / 'checkpoints',
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                policies
            ),
            best_fn=metric if best_metric else None,
            best_mode=best_mode,
            enable_async_checkpointing=False,
            # A step that is no longer kept is renamed, then removed: half of
            # one never bears the name of a step.
            todelete_subdir=_REMOVED,
        ),
        item_names=('params', 'optimizer', 'metadata'),
    )

  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def latest_good_step(self) -> int | None:
    """Returns the latest step whose files are those that were written.

    Damaged steps after it are set aside.

    Raises:
      UserError: if there are steps, and all of them are damaged.
    """
    step = -1
    if jax.process_index() == 0:
      step = self._set_damaged_aside()
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils  # pylint: disable=g-import-not-at-top

      step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    self._manager.reload()
    return None if step < 0 else step

  def _set_damaged_aside(self) -> int:
    """Returns the latest good step, -1 if there never was any."""
    damaged = {}
    good = -1
    for step in sorted(self._manager.all_steps(), reverse=True):
      folder = self._folder / 'checkpoints' / str(step)
      try:
        manifest.Reading(folder).check_all()
        good = step
        break
      except UserError as error:
        damaged[folder] = error
    if damaged and good < 0:
      raise UserError(
          f'no checkpoint of {self._folder} is whole: '
          + '; '.join(map(str, damaged.values()))
          + f'; or remove {self._folder} to begin anew'
      )
    for folder, error in damaged.items():
      aside = self._folder / 'damaged' / folder.name
      while aside.exists():
        aside = aside.with_name(f'{aside.name}-again')
      aside.parent.mkdir(exist_ok=True)
      folder.rename(aside)
      _log.warning('%s; set aside in %s, going on at %d', error, aside, good)
    return good

  def best_step(self) -> int | None:
    """Returns the best step by the metric, None if none was measured."""
    return self._manager.best_step()

  def save(
      self,
      step: int,
      params: PyTree,
      opt_state: PyTree,
      metadata: dict[str, Any],
      metrics: dict[str, float] | None,
  ) -> None:
    """Writes a step, all of it or nothing.

    Raises:
      OSError: if there is no space for it.
    """
    # Before it begins: when the disk fills, Orbax's and TensorStore's threads
    # print a stack each.
    wanted = sum(x.nbytes for x in jax.tree.leaves((params, opt_state)))
    if storage.free_bytes(self._folder) < wanted:
      raise OSError(
          errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)
      )
    best = (metrics or {}).get(self._best_metric)
    if best is not None and not math.isfinite(best):
      metrics = None  # Orbax takes NaN for the best, and drops what was.
    self._manager.save(
        step,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeSave(params),
            optimizer=ocp.args.StandardSave(opt_state),
            metadata=ocp.args.JsonSave(metadata),
        ),
        metrics=metrics,
        force=True,
    )
    if jax.process_index() == 0:
      manifest.write_for_files(
          self._folder / 'checkpoints' / str(step),
          {'gqa_t5x': gqa_t5x.__version__},
      )
      removed = self._folder / 'checkpoints' / _REMOVED
      shutil.rmtree(removed, ignore_errors=True)

  def metadata(self, step: int) -> dict[str, Any]:
    args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
    return self._manager.restore(step, args=args).metadata

  def restore(
      self, step: int, params: PyTree, opt_state: PyTree
  ) -> tuple[PyTree, PyTree]:
    """Restores a step.

    Args:
      step: as named.
      params: ShapeDtypeStructs with shardings, in the model's structure.
      opt_state: likewise.

    Returns:
      (params, opt_state), bit for bit as saved.
    """
    restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeRestore(
                params,
                restore_args=jax.tree.map(
                    lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding), params
                ),
            ),
            optimizer=ocp.args.StandardRestore(opt_state),
        ),
    )
    return restored.params, restored.optimizer

  def close(self) -> None:
    self._manager.close()


def has_steps(model_dir: str) -> bool:
  """Whether a run has saved a step.

  It asks the disk alone: Orbax's managers wait for each other on several hosts.
  """
  folder = storage.local_path(model_dir) / 'checkpoints'
  return any(path.name.isdigit() for path in folder.glob('[0-9]*'))


def best_or_latest(
    model_dir: str, best_metric: str | None = None, best_mode: str = 'min'
) -> str | None:
  """Returns the folder of a run's best step, or of its latest; None if none.

  Args:
    model_dir: of the run.
    best_metric: None means the latest step.
    best_mode: 'min' or 'max'.
  """
  folder = storage.local_path(model_dir).absolute() / 'checkpoints'
  if not folder.is_dir():
    return None
  steps = Checkpoints(model_dir, None, best_metric, best_mode)
  step = steps.best_step() if best_metric else None
  step = steps.latest_step() if step is None else step
  steps.close()
  return None if step is None else str(folder / str(step))
