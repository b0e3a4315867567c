# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The first head of each group (the paper's ablation, section 3.3)."""

from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = False


def convert(heads: Heads, num_kv_heads: int, **_) -> Heads:
  """Returns `heads` with key and value [D, k, H]."""
  groups = heads.in_groups(num_kv_heads)
  return heads._replace(key=groups.key[:, :, 0], value=groups.value[:, :, 0])
