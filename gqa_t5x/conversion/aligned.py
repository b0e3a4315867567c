# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Heads are turned into the same orientation, then averaged.

T5's attention does not change when a head's keys and queries are turned by one
orthogonal map, nor when its values and the rows of its output kernel are: no
rotary embedding, bias or norm stands between. So each head of a group may be
turned to where it is closest to the others (the orthogonal Procrustes problem,
Schoenemann 1966; for grouped-query attention Jin et al. 2024, arXiv 2412.20677)
before the paper's mean is taken. Queries and output kernels absorb the maps.
"""

import numpy as np

from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import products
from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = True

_ROUNDS = 10


def convert(heads: Heads, num_kv_heads: int, *, covariance=None, **_) -> Heads:
  """Returns `heads` with key and value [D, k, H], query and out turned.

  Args:
    heads: of one attention.
    num_kv_heads: k.
    covariance: as for `svd.convert`; distances are then those of the keys and
      values of the calibration text.
  """
  inputs = None if covariance is None else covariance.key

  def share(projection, kernel, others):
    del projection, others
    return _align(kernel, inputs)

  return heads_lib.refit(heads, num_kv_heads, share)


def _align(
    kernel: np.ndarray, covariance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Turns the heads of a group to their common mean.

  Args:
    kernel: [D, G, H].
    covariance: [D, D] or None for the identity.

  Returns:
    The mean of the turned heads [D, H], and the maps [G, H, H], by which each
    head is multiplied from the right.
  """
  emb_dim, group, head_dim = kernel.shape
  flat = kernel.reshape(emb_dim, -1)
  # Each round turns all heads to the mean of the last, which brings them
  # closer; the first head is what the others are turned to at first.
  mean = kernel[:, 0].astype(np.float64)
  for _ in range(_ROUNDS):
    found = products.matmul(flat.T, products.weigh(mean, covariance))
    left, _, right = np.linalg.svd(found.reshape(group, head_dim, head_dim))
    maps = left @ right
    mean = products.matmul(flat, maps.reshape(-1, head_dim)) / group
  return mean, maps
