# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How long uptraining lasts, and how fast it learns; gin cannot multiply."""

import math
import re

from gqa_t5x.errors import UserError


def total_steps(pretrain_steps: int, fraction: float) -> int:
  """Returns the global step at which uptraining ends.

  Args:
    pretrain_steps: at which the checkpoint's pre-training ended; uptraining
      counts on from there.
    fraction: of those steps to add, alpha in section 2.1 of the paper; 0 to 1.

  Raises:
    UserError: if the fraction is out of its range.
  """
  if not (isinstance(fraction, (int, float)) and 0 <= fraction <= 1):
    raise UserError(
        'expected a share of the pre-training steps from 0 to 1 for uptraining,'
        f' got {fraction!r}; 5% is 0.05'
    )
  return pretrain_steps + round(pretrain_steps * fraction)


def learning_rate(pretrain: float, factor: float = 1.0) -> float:
  """Returns the base learning rate of uptraining.

  The paper's is that of pre-training. After a good conversion a lower one
  gives a lower loss (docs/conversion.md).

  Args:
    pretrain: base of the schedule of pre-training.
    factor: that it is multiplied by.

  Raises:
    UserError: if the factor is not above 0.
  """
  if not (isinstance(factor, (int, float)) and 0 < factor < math.inf):
    raise UserError(
        'expected LEARNING_RATE_FACTOR above 0, got'
        f" {factor!r}; 1.0 is pre-training's rate, 0.25 a quarter of it"
    )
  return pretrain * factor


def optimizer_start(checkpoint_path: str, start: int | None = None) -> int:
  """Returns the step that an optimizer without state counts from.

  Adafactor's decay of the second moments is a power of the steps since; of a
  negative number t5x makes NaN, and goes on.

  Args:
    checkpoint_path: of a folder checkpoint_STEP.
    start: the step; None is the checkpoint's.

  Raises:
    UserError: if it is not known, no number of steps, or above the step of the
      checkpoint.
  """
  found = re.search(r'checkpoint_(\d+)/*$', str(checkpoint_path))
  step = int(found[1]) if found else None
  if start is None:
    start = step
  is_known = isinstance(start, int) and start >= 0
  if not is_known or (step is not None and start > step):
    raise UserError(
        f'expected OPTIMIZER_START to be the step of {checkpoint_path}, got'
        f' {start}; leave it out where the folder is named checkpoint_STEP'
    )
  return start
