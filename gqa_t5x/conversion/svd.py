# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The best shared key and value head of each group, the rest refitted to it.

A head's logits are x W_q W_k^T y^T for a query input x and a key input y, with
nothing between the projections: T5 has no rotary embedding, bias or norm there.
So of its kernels only the product M_h = W_q W_k^T matters, and with one W_k for
a group the best that its heads' W_q can do is a problem of linear algebra:

  minimise over W_k and all W_qh
    sum_h || A^(1/2) (M_h - W_qh W_k^T) C^(1/2) ||^2

with A and C the second moments of x and y, the identity where no text is given.
The solution (Eckart and Young, 1936) projects on the top H eigenvectors of
C^(1/2) (sum_h W_kh B_h W_kh^T) C^(1/2) with B_h = W_qh^T A W_qh. The values are
the same with the product W_v W_o and B_h = W_o W_o^T.

The eigenvectors are found among the heads of the group, where the problem has
G * H dimensions rather than D, and no root or inverse of C is needed.
"""

import numpy as np

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
  groups = heads.per_query_head().in_groups(num_kv_heads)
  groups = Heads(*(kernel.astype(np.float64) for kernel in groups))
  inputs = None if covariance is None else covariance.key
  queries = None if covariance is None else covariance.query
  key, value, query, out = [], [], [], []
  for k in range(num_kv_heads):
    grams = _grams(groups.query[:, k], queries)
    shared, maps = shared_head(groups.key[:, k], grams, inputs)
    key.append(shared)
    query.append(np.einsum('dgh,ghi->dgi', groups.query[:, k], maps))
    grams = np.einsum('ghd,gid->ghi', groups.out[k], groups.out[k])
    shared, maps = shared_head(groups.value[:, k], grams, inputs)
    value.append(shared)
    out.append(np.einsum('ghi,ghd->gid', maps, groups.out[k]))
  return Heads(
      np.stack(query, 1).reshape(heads.query.shape).astype(heads.query.dtype),
      np.stack(key, 1).astype(heads.key.dtype),
      np.stack(value, 1).astype(heads.value.dtype),
      np.stack(out).reshape(heads.out.shape).astype(heads.out.dtype),
  )


def _grams(kernel: np.ndarray, covariance: np.ndarray | None) -> np.ndarray:
  """Maps [D, G, H] to W_h^T C W_h of each head, [G, H, H]."""
  weighted = kernel
  if covariance is not None:
    weighted = np.einsum('de,egh->dgh', covariance, kernel, optimize=True)
  return np.einsum('dgh,dgi->ghi', kernel, weighted, optimize=True)


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
    maps: [G, H, H]; the other side's [., H] is multiplied by it, W_q from the
      right and W_o, transposed, from the left.
  """
  emb_dim, group, head_dim = kernel.shape
  flat = kernel.reshape(emb_dim, group * head_dim)
  weighted = flat if covariance is None else covariance @ flat
  gram = flat.T @ weighted  # K^T C K, [G * H, G * H]
  roots = np.zeros_like(gram)  # B^(1/2), a block a head
  for g in range(group):
    block = slice(g * head_dim, (g + 1) * head_dim)
    roots[block, block] = _root(grams[g])
  energy, vectors = np.linalg.eigh(roots @ gram @ roots)
  energy, vectors = energy[::-1][:head_dim], vectors[:, ::-1][:, :head_dim]
  if not energy[0] > 0:  # The other side is zero: any head will do.
    return kernel.mean(axis=1), np.broadcast_to(np.eye(head_dim), grams.shape)
  # Directions without energy would be divided by zero; they carry nothing.
  is_kept = energy > energy[0] * 1e-12
  inverse = np.where(is_kept, 1 / np.sqrt(np.where(is_kept, energy, 1)), 0)
  mixture = (roots @ vectors) * inverse  # [G * H, H]: shared = K mixture
  shared = flat @ mixture
  maps = (gram @ mixture).reshape(group, head_dim, head_dim)
  # Of the orthonormal basis only the space matters. Adafactor's steps are
  # relative to a kernel's size, so it gets the size that it had.
  scale = np.sqrt(np.mean(np.square(flat)) / np.mean(np.square(shared)))
  return shared * scale, maps / scale


def _root(matrix: np.ndarray) -> np.ndarray:
  """Returns the root of a positive semi-definite matrix."""
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
