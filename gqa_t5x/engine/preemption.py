# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run that is to stop, by SIGTERM or by Ctrl-C, first saves its step.

A machine that is to be taken away says so by SIGTERM.
"""

import logging
import signal
import threading

import jax

from gqa_t5x.errors import Preempted

_log = logging.getLogger(__name__)


class Watch:
  """While it is open, SIGTERM and a first Ctrl-C are noted, and stop nothing.

  A second Ctrl-C stops at once, as usual. Where several processes train
  together they have to stop after the same step. There JAX's own coordination
  notes SIGTERM, and tells all of them, and Ctrl-C is what it always is.
  """

  def __init__(self):
    self._noted = None
    self._before = {}

  def __enter__(self) -> 'Watch':
    is_main = threading.current_thread() is threading.main_thread()
    if jax.process_count() > 1 or not is_main:
      return self
    self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
    # Not where it is ignored, as by what a shell runs in the background.
    if callable(signal.getsignal(signal.SIGINT)):
      self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, frame) -> None:
    if number == signal.SIGINT:
      if self._noted == number:
        self._before[number](number, frame)
      _log.warning('will save after this step and stop; Ctrl-C again: at once')
    self._noted = number

  def is_noted(self, step: int) -> bool:
    """Returns whether to stop after this step, which is about to end."""
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils  # pylint: disable=g-import-not-at-top

      return multihost_utils.reached_preemption_sync_point(step)
    return self._noted is not None

  def stop(self, saved: str) -> None:
    """Raises what ends the program: KeyboardInterrupt or Preempted."""
    if self._noted == signal.SIGINT:
      raise KeyboardInterrupt(f'stopped by Ctrl-C, {saved}')
    raise Preempted(f'stopped by SIGTERM, {saved}')
