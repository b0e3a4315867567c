# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The one exception that means: what the user gave us is wrong."""


class UserError(ValueError):
  """Input that the user can correct.

  The message is one line: what was expected, what came, what to do. The
  command line prints it and exits with status 2; nothing has been written.
  """
