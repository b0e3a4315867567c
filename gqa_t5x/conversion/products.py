# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Products of matrices of two types.

Kernels are float32 or less, and what decides over them is worked out in
float64. NumPy would first copy all of the smaller type, 128 MiB for a kernel of
XXL.
"""

import contextlib
import functools

import numpy as np
import scipy.linalg

try:
  import threadpoolctl
except ImportError:  # A conversion takes longer then, and gives the same.
  threadpoolctl = None

_WIDE = 2048  # Where BLAS with several threads is faster than with one.
_ROWS = 512  # Enough for a fast product, 16 MiB of XXL in float64.


def threads_for(width: int) -> contextlib.AbstractContextManager[None]:
  """Returns a context in which BLAS has one thread, unless matrices are large.

  Of small ones a thread does its part sooner than the others have begun, and
  they spin where files are copied meanwhile (docs/performance.md).

  Args:
    width: of the largest square matrix.
  """
  if threadpoolctl is None or width >= _WIDE:
    return contextlib.nullcontext()
  return _blas().limit(limits=1, user_api='blas')


@functools.cache
def _blas():
  return threadpoolctl.ThreadpoolController()  # It looks for them in 8 ms.


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
