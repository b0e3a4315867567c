# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""New heads, drawn as at the start of pre-training (the paper, section 3.3)."""

import numpy as np

from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = False


def convert(
    heads: Heads, num_kv_heads: int, *, rng: np.random.Generator, **_
) -> Heads:
  """Returns `heads` with key and value [D, k, H], normal with variance 1/D."""
  emb_dim, _, head_dim = heads.key.shape

  def draw(dtype):
    drawn = rng.standard_normal((emb_dim, num_kv_heads, head_dim), np.float32)
    return (drawn / np.sqrt(emb_dim)).astype(dtype)

  return heads._replace(
      key=draw(heads.key.dtype), value=draw(heads.value.dtype)
  )
