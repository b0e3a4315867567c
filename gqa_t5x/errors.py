# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with what the user gave us, and what is no fault of ours."""

import errno

# `errno` of an OSError where a disk, or a user's share of it, is full.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class UserError(ValueError):
  """Input that the user can correct.

  The message is one line: what was expected, what came, what to do. The
  command line prints it and exits with status 2; nothing has been written.
  """


class Preempted(Exception):
  """The program was told to stop, and has saved what it had.

  The command line prints the message and exits with `EXIT_PREEMPTED`.
  """


class PeerLostError(RuntimeError):
  """Another process of a run has ended, and this one cannot go on."""


# Of sysexits.h: try again. The same command goes on where this one stopped.
EXIT_PREEMPTED = 75
