# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stands in for the package editdistance where it cannot be installed.

It has no wheel for Python 3.13 and needs a C++ compiler there. seqio calls its
one function to suggest a name for a misspelt task, and nothing else does.
"""


def eval(first, second) -> int:  # pylint: disable=redefined-builtin
  """Returns the Levenshtein distance of two sequences."""
  row = list(range(len(second) + 1))
  for i, a in enumerate(first, 1):
    last, row[0] = row[0], i
    for j, b in enumerate(second, 1):
      last, row[j] = row[j], min(
          row[j] + 1, row[j - 1] + 1, last + (a != b)
      )
  return row[-1]
