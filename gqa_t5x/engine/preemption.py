# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A machine that is to be taken away says so by SIGTERM."""

import signal
import threading

import jax


class Watch:
  """While it is open, SIGTERM is noted, and stops nothing by itself.

  Where several processes train together they have to stop after the same step.
  There JAX's own coordination notes the signal, and tells all of them.
  """

  def __init__(self):
    self._is_noted = False
    self._before = None

  def __enter__(self) -> 'Watch':
    is_main = threading.current_thread() is threading.main_thread()
    if jax.process_count() == 1 and is_main:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_) -> None:
    self._is_noted = True

  def is_noted(self, step: int) -> bool:
    """Returns whether to stop after this step, which is about to end."""
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils  # pylint: disable=g-import-not-at-top

      return multihost_utils.reached_preemption_sync_point(step)
    return self._is_noted
