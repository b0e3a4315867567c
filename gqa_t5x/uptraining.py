# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How long uptraining lasts."""


def total_steps(pretrain_steps: int, fraction: float) -> int:
  """Returns the global step at which uptraining ends; gin cannot multiply.

  Args:
    pretrain_steps: at which the checkpoint's pre-training ended; uptraining
      counts on from there.
    fraction: of those steps to add, alpha in section 2.1 of the paper.
  """
  return pretrain_steps + round(pretrain_steps * fraction)
