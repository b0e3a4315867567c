# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""When a training loss spikes or diverges: the rule of appendix A's tests."""

import numpy as np

# A loss spikes at a step where it is above the median of up to so many steps
# before, at least so many, by this many times their spread, as a standard
# deviation; steps of one spike stand together; no number is a spike. It
# diverges where its last steps, as many, or half of all if those are fewer,
# have one that is no number, or a mean a nat above the best so many in a row.
SPIKE_WINDOW, SPIKE_LEAST = 100, 20
SPIKE_DEVIATIONS = 6.0
DIVERGED_STEPS = 10
DIVERGED_NATS = 1.0
RULE = (
    'Spikes of the training loss, for each seed: above the median of the'
    f' {SPIKE_LEAST} to {SPIKE_WINDOW} steps before by more than'
    f' {SPIKE_DEVIATIONS:g} robust standard deviations. Diverged: its last'
    f' {SPIKE_WINDOW} steps, or half of all, are {DIVERGED_NATS:g} nat above'
    f' its best {DIVERGED_STEPS} in a row, or no number.'
)


def spikes(losses) -> int:
  """Counts spikes of a training loss by the rule at the head of this file.

  Args:
    losses: one a step.
  """
  losses = np.array([np.inf if x is None else x for x in losses], np.float64)
  count, in_spike = 0, False
  for step in range(SPIKE_LEAST, len(losses)):
    before = losses[max(0, step - SPIKE_WINDOW):step]
    middle = np.median(before)
    # 1.4826: from the median absolute deviation to a standard deviation.
    spread = 1.4826 * np.median(np.abs(before - middle))
    is_high = not losses[step] <= middle + SPIKE_DEVIATIONS * spread
    count += is_high and not in_spike
    in_spike = is_high
  return count


def has_diverged(losses) -> bool:
  """Whether a training loss diverged by the rule at the head of this file."""
  losses = np.array([np.nan if x is None else x for x in losses], np.float64)
  last = losses[-max(1, min(SPIKE_WINDOW, len(losses) // 2)):]
  if not np.isfinite(last).all():
    return True
  if len(losses) < 2 * DIVERGED_STEPS:
    return False
  in_a_row = np.lib.stride_tricks.sliding_window_view(losses, DIVERGED_STEPS)
  return bool(last.mean() > np.nanmin(in_a_row.mean(1)) + DIVERGED_NATS)


def of_model(entry: dict) -> list[list[list[float | None]]]:
  """Returns a model's losses of each step, for each seed and run of it.

  The first run is pre-training, the others are fine-tuning where that was kept.
  """
  runs = [task.get('train_losses') for task in entry.get('tasks', {}).values()]
  runs = [entry.get('train_losses'), *filter(None, runs)]
  return [] if not runs[0] else [list(x) for x in zip(*runs, strict=True)]
