# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far a converted attention is from the multi-head one, before training."""

from collections.abc import Iterator

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

  total, missed = np.zeros(2), np.zeros(2)
  for before, after in zip(_query_heads(old), _query_heads(new), strict=True):
    for i, (left, right, left_moments, right_moments) in enumerate((
        ('query', 'key', queries, inputs), ('value', 'out', inputs, None),
    )):  # pyformat: disable
      both = np.concatenate([before[left], after[left]], 1)
      other = np.concatenate([before[right], -after[right]], 1)
      grams = _gram(both, left_moments) * _gram(other, right_moments)
      half = grams.shape[0] // 2
      missed[i] += grams.sum()
      total[i] += grams[:half, :half].sum()
  logits, outputs = np.sqrt(np.maximum(missed, 0) / np.maximum(total, 1e-300))
  return {'logits': float(logits), 'outputs': float(outputs)}


def _query_heads(heads: Heads) -> Iterator[dict[str, np.ndarray]]:
  """Yields the kernels [D, H] of each query head, one in memory at a time."""
  num_heads = heads.query.shape[1]
  group = num_heads // heads.key.shape[1]
  for i in range(num_heads):
    yield {
        'query': heads.query[:, i].astype(np.float64),
        'key': heads.key[:, i // group].astype(np.float64),
        'value': heads.value[:, i // group].astype(np.float64),
        'out': heads.out[i].T.astype(np.float64),
    }


def _gram(kernel: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
  weighted = kernel if moments is None else moments @ kernel
  return kernel.T @ weighted
