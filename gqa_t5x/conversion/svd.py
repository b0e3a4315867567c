# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The best shared key and value head of each group, the rest refitted to it.

A head's logits are x W_q W_k^T y^T for a query input x and a key input y, with
nothing between the projections: T5 has no rotary embedding, bias or norm there.
So of its kernels only the product M_h = W_q W_k^T matters, and with one W_k for
a group the best that its heads' W_q can do is a problem of linear algebra:

  minimise over W_k and all W_qh
    sum_h || A^(1/2) (M_h - W_qh W_k^T) C^(1/2) ||^2

with A the second moments of x and C the root of those of y, the identity where
no text is given. The moments of y themselves would give the least error of the
logits, and a worse model: the few directions that most of y has weigh too much
in them (docs/conversion_study.md).
The solution (Eckart and Young, 1936) projects on the top H eigenvectors of
C^(1/2) (sum_h W_kh B_h W_kh^T) C^(1/2) with B_h = W_qh^T A W_qh. The values are
the same with the product W_v W_o and B_h = W_o W_o^T.

The eigenvectors are found among the heads of the group, where the problem has
G * H dimensions rather than D, and no root or inverse of C is needed.
"""

import numpy as np
import scipy.linalg

from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import products
from gqa_t5x.conversion.heads import Heads

REFITS_QUERIES = True


def convert(heads: Heads, num_kv_heads: int, *, covariance=None, **_) -> Heads:
  """Returns `heads` with key and value [D, k, H], query and out refitted.

  Args:
    heads: of one attention.
    num_kv_heads: k.
    covariance: second moments of what the attention gets, see
      `calibration.Covariance`; None takes the identity.
  """
  inputs = None if covariance is None else covariance.key_root
  queries = None if covariance is None else covariance.query

  def share(projection, kernel, others):
    moments = queries if projection == 'key' else None
    grams = [products.gram(x.astype(np.float64), moments) for x in others]
    return shared_head(kernel, np.stack(grams), inputs)

  return heads_lib.refit(heads, num_kv_heads, share)


def shared_head(
    kernel: np.ndarray, grams: np.ndarray, covariance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns one head for a group, and what its other side absorbs.

  Args:
    kernel: key or value kernel of the group, [D, G, H].
    grams: B_h of each head, [G, H, H]: second moments of its other side.
    covariance: C [D, D], or None for the identity.

  Returns:
    shared: [D, H], of the root mean square that `kernel` has.
    maps: [G, H, H]; the other side's [D, H], W_q or W_o transposed, is
      multiplied by it from the right.
  """
  emb_dim, group, head_dim = kernel.shape
  size = group * head_dim
  roots = np.stack([products.root(gram) for gram in grams])
  energy, vectors = scipy.linalg.eigh(
      _energies(kernel, roots, covariance).T,  # Columns first: not copied.
      subset_by_index=(size - head_dim, size - 1),
      overwrite_a=True,
  )
  if len(energy) < head_dim:  # LAPACK misses some where many are alike.
    energy, vectors = np.linalg.eigh(_energies(kernel, roots, covariance))
    energy, vectors = energy[-head_dim:], vectors[:, -head_dim:]
  if not energy[-1] > 0:  # One side is zero: any head will do.
    mean = kernel.mean(axis=1, dtype=np.float64)
    return mean, np.broadcast_to(np.eye(head_dim), grams.shape)
  # Directions without energy would be divided by zero; they carry nothing.
  is_kept = energy > energy[-1] * 1e-12
  inverse = np.where(is_kept, 1 / np.sqrt(np.where(is_kept, energy, 1)), 0)
  mixture = roots @ vectors.reshape(group, head_dim, head_dim) * inverse
  flat = kernel.reshape(emb_dim, size)
  shared = products.matmul(flat, mixture.reshape(size, head_dim))
  maps = products.matmul(flat.T, products.weigh(shared, covariance))
  maps = maps.reshape(group, head_dim, head_dim)
  # Of the orthonormal basis only the space matters. Adafactor's steps are
  # relative to a kernel's size, so it gets the size that it had.
  squares = np.einsum('dgh,dgh->', kernel, kernel, dtype=np.float64)
  scale = np.sqrt(squares / kernel.size / np.mean(np.square(shared)))
  return shared * scale, maps / scale


def _energies(
    kernel: np.ndarray, roots: np.ndarray, covariance: np.ndarray | None
) -> np.ndarray:
  """Returns B^(1/2) K^T C K B^(1/2), [G * H, G * H].

  Args:
    kernel: K, [D, G, H].
    roots: the blocks of B^(1/2), one a head, [G, H, H].
    covariance: C, as for `shared_head`.
  """
  emb_dim, group, head_dim = kernel.shape
  flat = kernel.reshape(emb_dim, -1).T
  energies = np.empty((group, head_dim, group, head_dim))
  columns = energies.reshape(-1, group, head_dim)
  for g, root in enumerate(roots):
    head = kernel[:, g].astype(np.float64)
    columns[:, g] = products.matmul(
        flat, products.weigh(head @ root, covariance)
    )
  rows = energies.reshape(group, head_dim, -1)
  for g, root in enumerate(roots):
    rows[g] = root @ rows[g]
  return energies.reshape(group * head_dim, -1)
