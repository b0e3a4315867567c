# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How long uptraining lasts."""

from gqa_t5x.errors import UserError


def total_steps(pretrain_steps: int, fraction: float) -> int:
  """Returns the global step at which uptraining ends; gin cannot multiply.

  Args:
    pretrain_steps: at which the checkpoint's pre-training ended; uptraining
      counts on from there.
    fraction: of those steps to add, alpha in section 2.1 of the paper; 0 to 1.

  Raises:
    UserError: if the fraction is out of its range.
  """
  if not 0 <= fraction <= 1:
    raise UserError(
        'expected a share of the pre-training steps from 0 to 1 for uptraining,'
        f' got {fraction}; 5% is 0.05'
    )
  return pretrain_steps + round(pretrain_steps * fraction)
