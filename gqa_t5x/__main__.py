# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m gqa_t5x` is the command `gqa-t5x`."""

import sys

from gqa_t5x import cli

if __name__ == '__main__':
  sys.exit(cli.main())
