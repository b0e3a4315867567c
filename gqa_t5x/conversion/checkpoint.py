# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts a checkpoint on disk."""

from typing import Any

from gqa_t5x import checkpoints
from gqa_t5x.conversion import optimizer_slots
from gqa_t5x.conversion import params as params_lib


def convert_checkpoint(
    source: str,
    target: str,
    *,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
    format: str | None = None,  # pylint: disable=redefined-builtin
    slots: str = 'pool',
) -> dict[str, Any]:
  """Converts a checkpoint on disk; the step is kept.

  Args:
    source: checkpoint to read, in any known format.
    target: folder to write; must not exist. See `checkpoints.save_checkpoint`
      on its name.
    num_kv_heads: as in `convert_params`, like the rest.
    method: as in `convert_params`.
    seed: as in `convert_params`.
    format: of the target, as `checkpoints.save_checkpoint` names them; None is
      the source's. Formats of t5x keep t5x's optimizer state, 'orbax' none.
    slots: as in `convert_optimizer_slots`.

  Returns:
    The metadata written.

  Raises:
    UserError: as `convert_params`, `convert_optimizer_slots` and
      `checkpoints.load_checkpoint`, and if the target exists.
  """
  optimizer_slots.check_slots(slots)
  format = format or checkpoints.detect_format(source)
  checkpoints.check_target(target, format)
  params, metadata = checkpoints.load_checkpoint(source)
  config = metadata['config']
  heads = {'num_heads': config['num_heads'], 'num_kv_heads': num_kv_heads}
  converted = params_lib.convert_params(
      params, **heads, method=method, seed=seed
  )
  param_states = None
  if format != 'orbax':
    param_states = checkpoints.load_param_states(source)
  if param_states is not None:
    param_states = optimizer_slots.convert_optimizer_slots(
        param_states, params, **heads, slots=slots
    )
  metadata = metadata | {
      'config': config | {'num_kv_heads': num_kv_heads},
      'conversion': {
          'method': method,
          'seed': seed,
          'from_num_kv_heads': config['num_kv_heads'],
          'slots': None if param_states is None else slots,
      },
  }
  checkpoints.save_checkpoint(
      target,
      converted,
      format=format,
      metadata=metadata,
      param_states=param_states,
  )
  return metadata
