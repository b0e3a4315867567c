# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Applies a method to a tree of parameters, one attention at a time."""

from collections.abc import Mapping
import types
from typing import Any

from flax import traverse_util
import numpy as np

from gqa_t5x import grouping
from gqa_t5x.conversion import aligned
from gqa_t5x.conversion import errors as errors_lib
from gqa_t5x.conversion import first
from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import mean
from gqa_t5x.conversion import products
from gqa_t5x.conversion import random
from gqa_t5x.conversion import scaled_mean
from gqa_t5x.conversion import similarity
from gqa_t5x.conversion import svd
from gqa_t5x.errors import UserError

PyTree = Any
Path = heads_lib.Path

# A module each, with `convert(heads, num_kv_heads, *, rng, covariance)` and
# whether it changes query and output kernels too.
METHODS: dict[str, types.ModuleType] = {
    'mean': mean,
    'first': first,
    'random': random,
    'scaled_mean': scaled_mean,
    'aligned': aligned,
    'svd': svd,
}
GROUP_BY = ('order', 'similarity')


class Conversion:
  """What becomes of each leaf, worked out when it is asked for.

  Leaves may be arrays that are read from disk only as numpy wants them: those
  of one attention are held at a time.

  Attributes:
    shapes: of the leaves that change, by path.
    orders: [K] of the attentions whose heads are put into another order before
      they are grouped, by path; see `similarity`.
    errors: of the attentions whose leaves were asked for, by path, where
      `measure` is set: what `errors.relative_errors` gives.
  """

  def __init__(
      self,
      flat: Mapping[Path, Any],
      *,
      num_heads: int,
      num_kv_heads: int,
      method: str = 'mean',
      seed: int | None = None,
      group_by: str = 'order',
      covariances: Mapping[Path, Any] | None = None,
      measure: bool = False,
  ):
    """Checks everything that shapes tell; arguments as for `convert_params`.

    Args:
      flat: parameters by path; leaves have a `shape` and go through
        `np.asarray`.
      num_heads: N.
      num_kv_heads: k.
      method: as named.
      seed: as named.
      group_by: as named.
      covariances: as named.
      measure: whether to work out errors; all kernels are read for it.
    """
    for name, value, known in (
        ('method', method, METHODS), ('group_by', group_by, GROUP_BY)
    ):  # pyformat: disable
      if value not in known:
        raise UserError(
            f'{name}={value!r} is unknown; choose one of {", ".join(known)}'
        )
    if seed is not None and seed < 0:
      raise UserError(f'expected a seed of 0 or more, got {seed}')
    grouping.group_size(num_heads, num_kv_heads)
    self._flat = flat
    self._num_heads = num_heads
    self._num_kv_heads = num_kv_heads
    self._method = METHODS[method]
    self._seed = seed or 0
    self._covariances = covariances or {}
    self._measure = measure
    self._attentions = heads_lib.attentions(flat)
    self._last: tuple[Path | None, dict[str, np.ndarray]] = None, {}
    self.orders: Mapping[Path, np.ndarray] = {}
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    self.shapes: dict[Path, tuple[int, ...]] = {}
    self.errors: dict[Path, dict[str, float]] = {}
    bias = shapes.get(heads_lib.BIAS, (num_heads,))
    if bias[0] != num_heads:
      raise UserError(
          f'num_heads={num_heads} does not fit {"/".join(heads_lib.BIAS)}'
          f" {bias}; pass the checkpoint's number of query heads, {bias[0]}"
      )
    for attention in self._attentions:
      kv_heads, head_dim = heads_lib.count(shapes, attention, num_heads)
      if kv_heads % num_kv_heads:
        raise UserError(
            f'{"/".join(attention)} has {kv_heads} key/value heads, which'
            f' cannot become num_kv_heads={num_kv_heads}; choose a divisor of'
            f' {kv_heads}'
        )
      if kv_heads == num_kv_heads:
        continue
      emb_dim = shapes[(*attention, 'key', 'kernel')][0]
      for name in ('key', 'value'):
        self.shapes[(*attention, name, 'kernel')] = (
            emb_dim, num_kv_heads * head_dim,
        )  # pyformat: disable
      if self._method.REFITS_QUERIES or group_by == 'similarity':
        for name in ('query', 'out'):
          path = (*attention, name, 'kernel')
          self.shapes[path] = shapes[path]
    if group_by == 'similarity' and self.shapes:
      self.shapes[heads_lib.BIAS] = shapes[heads_lib.BIAS]
      self.orders = similarity.orders(
          self._attentions, self._read, num_kv_heads, self._covariances,
          by_subspace=self._method.REFITS_QUERIES,
      )  # pyformat: disable

  def leaf(self, path: Path) -> np.ndarray:
    """Returns the new leaf of a path in `shapes`, in its old dtype."""
    if path == heads_lib.BIAS:
      order = heads_lib.bias_order(self.orders, self._num_heads)
      return np.asarray(self._flat[path])[order]
    attention = path[:-2]
    if self._last[0] != attention:
      self._last = None, {}  # Or both are held while the next is made.
      self._last = attention, heads_lib.join(self._convert(attention))
    return self._last[1][path[-2]]

  def _convert(self, attention: Path) -> heads_lib.Heads:
    old = self._read(attention)
    if attention in self.orders:
      old = heads_lib.permute(old, self.orders[attention])
    covariance = self._covariances.get(attention)
    emb_dim, _, head_dim = old.query.shape
    of_group = self._num_heads // self._num_kv_heads * head_dim
    width = of_group if covariance is None else max(of_group, emb_dim)
    with products.threads_for(width):
      new = self._method.convert(
          old,
          self._num_kv_heads,
          rng=np.random.default_rng(
              [self._seed, self._attentions.index(attention)]
          ),
          covariance=covariance,
      )
      if self._measure:
        self.errors[attention] = errors_lib.relative_errors(
            old, new, covariance
        )
    return new

  def _read(self, attention: Path) -> heads_lib.Heads:
    kernels = {}
    for name in heads_lib.PROJECTIONS:
      path = (*attention, name, 'kernel')
      leaf = self._flat[path]
      if path in self.shapes or self._measure:
        kernels[name] = np.asarray(leaf)
      else:  # It is not looked at, so it is not read.
        kernels[name] = np.broadcast_to(np.float32(0), leaf.shape)
    return heads_lib.split(kernels, self._num_heads)


def convert_params(
    params: PyTree,
    *,
    num_heads: int,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
    group_by: str = 'order',
    covariances: Mapping[Path, Any] | None = None,
) -> PyTree:
  """Reduces the decoder's key/value heads to `num_kv_heads`.

  Section 2.1 of the paper: the key and value kernels of the heads of a group
  become one head's. Only the decoder's self- and cross-attention change. The
  source may itself be grouped, with any multiple of `num_kv_heads`.

  Letters of the shapes: D model dim, N query heads, K key/value heads before
  and k after, H head dim.

  Args:
    params: the nested dict that t5x calls `target`; key and value kernels are
      [D, K * H], query kernels [D, N * H], output kernels [N * H, D].
    num_heads: N.
    num_kv_heads: k, the number of key/value heads wanted; divides K.
    method: 'mean', 'first' or 'random', the paper's; 'scaled_mean', 'aligned'
      or 'svd'. Each has a module here. The last two change query and output
      kernels too, and take `covariances`, with which 'svd' is better.
    seed: for 'random' only; None is 0.
    group_by: 'order', the paper's: heads that stand next to each other form a
      group; or 'similarity', see that module.
    covariances: what `calibration.covariances` measured on some text, by
      attention.

  Returns:
    A new tree in which the decoder's key and value kernels are [D, k * H].
    Leaves that do not change are the same objects: all but these kernels for
    the paper's methods, and everything with k = K.

  Raises:
    UserError: if an argument is unknown, the heads do not divide, or `params`
      is not a T5 encoder-decoder's tree.
  """
  flat = traverse_util.flatten_dict(params)
  conversion = Conversion(
      flat,
      num_heads=num_heads,
      num_kv_heads=num_kv_heads,
      method=method,
      seed=seed,
      group_by=group_by,
      covariances=covariances,
  )
  changed = {path: conversion.leaf(path) for path in conversion.shapes}
  return traverse_util.unflatten_dict(flat | changed)
