# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How far a converted attention is from the multi-head one, before training."""

from collections.abc import Iterator

import numpy as np

from gqa_t5x.conversion import products
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
    for i, (left, right, *moments) in enumerate((
        ('query', 'key', queries, inputs), ('value', 'out', inputs, None),
    )):  # pyformat: disable
      kernels = [(x[left], x[right]) for x in (before, after)]
      if getattr(old, right) is getattr(new, right):
        kernels, moments = [k[::-1] for k in kernels], moments[::-1]
        left, right = right, left
      is_shared = getattr(old, left) is getattr(new, left)
      squares = _squares_of_shared if is_shared else _squares
      found = squares(*kernels, *moments)
      total[i] += found[0]
      missed[i] += found[1]
  logits, outputs = np.sqrt(np.maximum(missed, 0) / np.maximum(total, 1e-300))
  return {'logits': float(logits), 'outputs': float(outputs)}


def _query_heads(heads: Heads) -> Iterator[dict[str, np.ndarray]]:
  """Yields the kernels [D, H] of each query head."""
  num_heads = heads.query.shape[1]
  group = num_heads // heads.key.shape[1]
  for i in range(num_heads):
    yield {
        'query': heads.query[:, i],
        'key': heads.key[:, i // group],
        'value': heads.value[:, i // group],
        'out': heads.out[i].T,
    }


def _squares(old, new, left_moments, right_moments):
  """Returns the mean squares of x L R^T y^T, and of its difference to the new.

  Args:
    old: L and R, [D, H] each.
    new: likewise.
    left_moments: [D, D], second moments of x; None is the identity.
    right_moments: of y.
  """
  (left, right), (new_left, new_right) = (
      [kernel.astype(np.float64) for kernel in pair] for pair in (old, new)
  )
  both = np.concatenate([left, new_left], 1)
  other = np.concatenate([right, -new_right], 1)
  grams = products.gram(both, left_moments)
  grams *= products.gram(other, right_moments)
  half = grams.shape[0] // 2
  return grams[:half, :half].sum(), grams.sum()


def _squares_of_shared(old, new, left_moments, right_moments):
  """`_squares` of one L, in a fifth of the time: nothing cancels out."""
  left, right, new_right = (
      np.asarray(x, np.result_type(x.dtype, np.float32))
      for x in (*old, new[1])
  )
  gram = products.gram(left, left_moments)
  rights = right, right - new_right
  total, missed = (gram * products.gram(x, right_moments) for x in rights)
  return total.sum(dtype=np.float64), missed.sum(dtype=np.float64)
