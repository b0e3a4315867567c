# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Products of matrices of two types.

Kernels are float32 or less, and what decides over them is worked out in
float64. NumPy would first copy all of the smaller type, 128 MiB for a kernel of
XXL.
"""

import numpy as np
import scipy.linalg

_ROWS = 512  # Enough for a fast product, 16 MiB of XXL in float64.


def matmul(wide: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """Returns wide @ kernel, [m, n], copying some rows of `wide` at a time.

  Args:
    wide: [m, l].
    kernel: [l, n].
  """
  dtype = np.result_type(wide, kernel)
  if wide.dtype == dtype:
    return wide @ kernel
  out = np.empty((len(wide), kernel.shape[1]), dtype)
  for i in range(0, len(wide), _ROWS):
    out[i : i + _ROWS] = wide[i : i + _ROWS].astype(dtype) @ kernel
  return out


def weigh(kernel: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
  """Returns C W, [D, n], for a kernel W and second moments C.

  Args:
    kernel: [D, n].
    moments: [D, D], or None for the identity.
  """
  return kernel if moments is None else matmul(moments, kernel)


def gram(kernel: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
  """Returns W^T C W, [n, n]; arguments as for `weigh`."""
  return kernel.T @ weigh(kernel, moments)


def root(moments: np.ndarray, *, overwrite: bool = False) -> np.ndarray:
  """Returns the root of a positive semi-definite matrix, [n, n].

  Args:
    moments: [n, n].
    overwrite: whether its memory may be used; no other copy is made then.
  """
  # Its transpose is the same, with columns first, as LAPACK wants it.
  values, vectors = scipy.linalg.eigh(
      moments.T, overwrite_a=overwrite, driver='evd'
  )
  vectors *= np.maximum(values, 0) ** 0.25
  return vectors @ vectors.T
