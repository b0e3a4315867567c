# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The mean of a group's heads: the paper's method (section 2.1)."""

import numpy as np

from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = False


def convert(heads: Heads, num_kv_heads: int, **_) -> Heads:
  """Returns `heads` with key and value [D, k, H]."""
  groups = heads.in_groups(num_kv_heads)
  return heads._replace(
      key=_mean(groups.key), value=_mean(groups.value)
  )


def _mean(kernel: np.ndarray) -> np.ndarray:
  """Maps [D, k, G, H] to [D, k, H]."""
  return kernel.astype(np.float32).mean(axis=2).astype(kernel.dtype)
