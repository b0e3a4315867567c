# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Groups heads that are alike, not those that happen to be neighbours.

The paper groups heads by their order, which pre-training left to chance. Heads
may be put into any order beforehand, since an attention sums over them; query
heads and the output kernel's rows go along. T5's decoder has one table of
relative position biases, a row for each query head of all its self-attentions.
So these have one order in common, and the table follows it; each
cross-attention, without a bias, has an order of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import products

Path = heads_lib.Path


def orders(
    attentions: Sequence[Path],
    read: Callable[[Path], heads_lib.Heads],
    num_kv_heads: int,
    covariances: Mapping[Path, Any],
    *,
    by_subspace: bool,
) -> dict[Path, np.ndarray]:
  """Returns the order [K] of each attention's heads, for groups of K / k.

  Args:
    attentions: paths.
    read: gives an attention's heads.
    num_kv_heads: k.
    covariances: see `calibration.Covariance`; may lack attentions.
    by_subspace: see `similarities`.
  """
  found, of_self = {}, 0.0
  for attention in attentions:
    heads, covariance = read(attention), covariances.get(attention)
    emb_dim, _, head_dim = heads.key.shape
    with products.threads_for(head_dim if covariance is None else emb_dim):
      alike = similarities(heads, covariance, by_subspace=by_subspace)
    if attention[-1] == 'self_attention':
      of_self = of_self + alike
    else:
      found[attention] = groups(alike, num_kv_heads)
  shared = groups(of_self, num_kv_heads)
  return {a: found.get(a, shared) for a in attentions}


def similarities(
    heads: heads_lib.Heads, covariance, *, by_subspace: bool
) -> np.ndarray:
  """Returns how alike each two key/value heads are, [K, K], at most 2.

  The sum of two cosines, of keys and of values. For methods that average, they
  are those between kernels. For methods that refit queries and outputs
  (`by_subspace`) they are those between the products M = W_q W_k^T, taken as
  W_k B W_k^T with B = W_q^T W_q, which no change of a head's basis alters.
  """
  inputs = None if covariance is None else covariance.key
  size = heads.query.shape[1] // heads.key.shape[1]
  total = np.zeros(2 * heads.key.shape[1:2])
  for kernel, other in (
      (heads.key, heads.query),
      (heads.value, heads.out.transpose(2, 0, 1)),
  ):
    weights = None
    if by_subspace:
      weights = np.zeros((len(total), *2 * kernel.shape[2:]))
      for n in range(other.shape[1]):
        head = other[:, n].astype(np.float64)
        weights[n // size] += products.gram(head, None)
    inner = _inner_products(kernel, weights, inputs)
    norms = np.sqrt(np.maximum(np.diag(inner), 1e-30))
    total += inner / norms[:, None] / norms
  return total


def _inner_products(
    kernel: np.ndarray, weights: np.ndarray | None, inputs: np.ndarray | None
) -> np.ndarray:
  """Returns the inner product of each two heads, [K, K].

  Args:
    kernel: [D, K, H].
    weights: B of each head, [K, H, H], for products between W B W^T; None for
      those between W.
    inputs: second moments [D, D] of what is projected; None is the identity.
  """
  emb_dim, count, head_dim = kernel.shape
  flat = kernel.reshape(emb_dim, -1).T
  inner = np.empty((count, count))
  for k in range(count):
    weighted = products.weigh(kernel[:, k].astype(np.float64), inputs)
    grams = products.matmul(flat, weighted).reshape(count, head_dim, head_dim)
    if weights is None:
      inner[:, k] = np.trace(grams, axis1=1, axis2=2)
    else:
      inner[:, k] = np.sum((weights @ grams) * (grams @ weights[k]), (1, 2))
  return inner


def groups(alike: np.ndarray, num_kv_heads: int) -> np.ndarray:
  """Returns an order [K] whose k runs of K / k heads are alike.

  The sum of similarities within groups is raised by swapping the two heads
  that gain most, from the stored order on, until no swap gains.

  Args:
    alike: symmetric [K, K].
    num_kv_heads: k.
  """
  count = len(alike)
  member = np.repeat(np.arange(num_kv_heads), count // num_kv_heads)
  alike = alike - np.diag(np.diag(alike))
  while True:
    is_member = member[:, None] == np.arange(num_kv_heads)
    to_group = alike @ is_member  # [K, k]: of a head to all of a group
    own = to_group[np.arange(count), member]
    gain = to_group[:, member] - own[:, None]
    gain = gain + gain.T - 2 * alike
    gain[member[:, None] == member] = 0
    a, b = np.unravel_index(np.argmax(gain), gain.shape)
    if not gain[a, b] > 1e-9:  # Nor for ever where a kernel has NaN.
      break
    member[a], member[b] = member[b], member[a]
  # By each group's first head, so that nothing moves where nothing gains.
  firsts = {g: int(np.argmax(member == g)) for g in range(num_kv_heads)}
  return np.array(
      sorted(range(count), key=lambda n: (firsts[int(member[n])], n))
  )
