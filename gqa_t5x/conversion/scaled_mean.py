# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The mean of a group's heads, scaled to the heads' own size.

The mean of heads that point in different directions is shorter than they are:
by sqrt(G) for G orthogonal ones. Their logits and outputs shrink with it.
"""

import numpy as np

from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = False


def convert(heads: Heads, num_kv_heads: int, **_) -> Heads:
  """Returns `heads` with key and value [D, k, H]."""
  groups = heads.in_groups(num_kv_heads)
  return heads._replace(
      key=scaled_mean(groups.key), value=scaled_mean(groups.value)
  )


def scaled_mean(kernel: np.ndarray) -> np.ndarray:
  """Maps [D, k, G, H] to [D, k, H] of the root mean square norm of the group.

  A mean that is zero stays zero.
  """
  wide = kernel.astype(np.float32)
  mean = wide.mean(axis=2)
  wanted = np.sqrt(np.square(wide).sum(axis=(0, 3)).mean(axis=1))
  norm = np.sqrt(np.square(mean).sum(axis=(0, 2)))
  scale = np.divide(wanted, norm, out=np.zeros_like(norm), where=norm > 0)
  return (mean * scale[:, None]).astype(kernel.dtype)
