# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far a converted attention is from the multi-head one, before training."""

import numpy as np

from gqa_t5x.conversion.heads import Heads


def relative_errors(
    old: Heads, new: Heads, covariance=None
) -> dict[str, float]:
  """Compares an attention before and after its conversion.

  Args:
    old: N query heads, K key/value heads.
    new: N query heads in the same order, k key/value heads.
    covariance: see `calibration.Covariance`; None takes inputs whose features
      are independent and of one size.

  Returns:
    Root mean square errors relative to what the multi-head attention gives,
    over the heads and over independent inputs: 'logits', of x W_q W_k^T y^T;
    'outputs', of y W_v W_o, what each head makes of a position.
  """
  queries = None if covariance is None else covariance.query
  inputs = None if covariance is None else covariance.key

  def heads_first(heads):
    """[N, D, H] each."""
    query, key, value, out = (
        kernel.astype(np.float64) for kernel in heads.per_query_head()
    )
    return Heads(
        *(kernel.transpose(1, 0, 2) for kernel in (query, key, value)),
        out.transpose(0, 2, 1),
    )

  def error(left, right, left_moments, right_moments):
    """Of products left_h right_h^T; each is (old, new), [N, D, H]."""
    total, missed = 0.0, 0.0
    for old_left, new_left, old_right, new_right in zip(*left, *right):
      both = np.concatenate([old_left, new_left], 1)
      other = np.concatenate([old_right, -new_right], 1)
      grams = _gram(both, left_moments) * _gram(other, right_moments)
      half = grams.shape[0] // 2
      missed += grams.sum()
      total += grams[:half, :half].sum()
    return float(np.sqrt(max(missed, 0) / max(total, 1e-300)))

  both = heads_first(old), heads_first(new)
  logits = [[getattr(x, name) for x in both] for name in ('query', 'key')]
  outputs = [[getattr(x, name) for x in both] for name in ('value', 'out')]
  return {
      'logits': error(*logits, queries, inputs),
      'outputs': error(*outputs, inputs, None),
  }


def _gram(kernel: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
  weighted = kernel if moments is None else moments @ kernel
  return kernel.T @ weighted
