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
  groups = heads.per_query_head().in_groups(num_kv_heads)
  inputs = None if covariance is None else covariance.key
  query, out = groups.query.copy(), groups.out.copy()
  key, value = [], []
  for k in range(num_kv_heads):
    mean, maps = _align(groups.key[:, k], inputs)
    key.append(mean)
    query[:, k] = np.einsum('dgh,ghi->dgi', groups.query[:, k], maps)
    mean, maps = _align(groups.value[:, k], inputs)
    value.append(mean)
    out[k] = np.einsum('ghi,ghd->gid', maps, groups.out[k])
  return Heads(
      query.reshape(heads.query.shape),
      np.stack(key, 1).astype(heads.key.dtype),
      np.stack(value, 1).astype(heads.value.dtype),
      out.reshape(heads.out.shape),
  )


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
  wide = kernel.astype(np.float64)
  emb_dim, group, head_dim = wide.shape
  flat = wide.reshape(emb_dim, -1)
  weighted = heads_lib.weigh(flat, covariance).reshape(wide.shape)
  maps = np.broadcast_to(np.eye(head_dim), (group, head_dim, head_dim))
  # Each round turns all heads to the mean of the last, which brings them
  # closer; the first head is what the others are turned to at first.
  mean = wide[:, 0]
  for _ in range(_ROUNDS):
    products = np.einsum('dgh,di->ghi', weighted, mean)
    left, _, right = np.linalg.svd(products)
    maps = left @ right
    mean = np.einsum('dgh,ghi->di', wide, maps) / group
  return mean, maps
