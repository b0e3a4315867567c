# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Adafactor's state of the kernels that a conversion changes.

Letters of the shapes: D model dim, K key/value heads before and k after the
conversion, H head dim.
"""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from flax import traverse_util
import numpy as np

from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.errors import UserError

PyTree = Any
Path = heads_lib.Path

SLOTS = ('pool', 'reset')
# Adafactor's min_dim_size_to_factor: it factors kernels no side of which is
# smaller.
MIN_FACTORED_DIM = 128


def convert_optimizer_slots(
    param_states: PyTree,
    params: PyTree,
    *,
    num_heads: int,
    num_kv_heads: int,
    slots: str = 'pool',
    orders: Mapping[Path, np.ndarray] | None = None,
) -> PyTree:
  """Makes t5x's Adafactor state fit parameters that `convert_params` reduces.

  'pool' goes on with what was learned of the gradients' size. The gradient of
  a shared head is the sum of those of the heads that it replaces, so its mean
  square is taken to be the sum of theirs, which it is where they do not
  correlate. 'reset' forgets it, as fits heads that are new (method='random').
  It costs: Adafactor averages over the last step^0.8 steps, at step 1,000,000
  some 63,000, so that slots that start from zero are too small all through the
  uptraining, and each update of these kernels is as large as clipping allows.

  Args:
    param_states: the nested dict of t5x's train state: a parameter's path leads
      to its slots 'v_row', 'v_col', 'v' and 'm', see `convert_kernel_slots`.
    params: the parameters before the conversion; only their shapes are used.
    num_heads: as in `convert_params`, like the next.
    num_kv_heads: k.
    slots: 'pool' or 'reset'.
    orders: into which heads were put before they were grouped, as
      `Conversion.orders`; the slots of all that has heads follow.

  Returns:
    A new tree in which the slots of the decoder's key and value kernels are
    others; all other leaves, but for those that follow an order, are the same
    objects.

  Raises:
    UserError: if `slots` is unknown, the heads do not divide, or the state is
      not Adafactor's.
  """
  check_slots(slots)
  shapes = {
      path: tuple(leaf.shape)
      for path, leaf in traverse_util.flatten_dict(params).items()
  }
  flat = traverse_util.flatten_dict(param_states, keep_empty_nodes=True)
  kernels = collections.defaultdict(dict)
  for path, slot in flat.items():
    kernels[path[:-1]][path[-1]] = slot
  for path, axis, places in _moved(orders or {}, shapes, num_heads):
    kernels[path] = _permuted(kernels[path], shapes[path], axis, places)
    flat |= {path + (name,): slot for name, slot in kernels[path].items()}
  for path in filter(is_converted, shapes):
    kv_heads, head_dim = heads_lib.count(shapes, path[:-2], num_heads)
    converted = convert_kernel_slots(
        kernels.get(path, {}),
        emb_dim=shapes[path][0],
        head_dim=head_dim,
        from_num_kv_heads=kv_heads,
        num_kv_heads=num_kv_heads,
        slots=slots,
    )
    flat |= {path + (name,): slot for name, slot in converted.items()}
  return traverse_util.unflatten_dict(flat)


def _moved(
    orders: Mapping[Path, np.ndarray],
    shapes: Mapping[Path, tuple[int, ...]],
    num_heads: int,
) -> Iterator[tuple[Path, int, np.ndarray]]:
  """Yields (path, axis, places on it) of parameters whose heads were moved."""
  for attention, order in orders.items():
    kv_heads, head_dim = heads_lib.count(shapes, attention, num_heads)
    queries = heads_lib.places(order, num_heads // kv_heads)
    for name in heads_lib.PROJECTIONS:
      heads = order if name in ('key', 'value') else queries
      places = heads_lib.places(heads, head_dim)
      yield (*attention, name, 'kernel'), int(name != 'out'), places
  if orders:
    yield heads_lib.BIAS, 0, heads_lib.bias_order(orders, num_heads)


def _permuted(
    slots: dict[str, Any], shape: tuple[int, int], axis: int, places: np.ndarray
) -> dict[str, Any]:
  """Returns the slots of a parameter of this shape, an axis in this order."""
  row = _row_axis(shape)
  spanned = {} if row is None else {'v_row': row, 'v_col': 1 - row}
  new = dict(slots)
  for name, slot in slots.items():
    slot = np.asarray(slot)
    if slot.shape == shape:
      new[name] = np.take(slot, places, axis)
    elif spanned.get(name) == axis and slot.shape == places.shape:
      new[name] = slot[places]
  return new


def is_converted(path: tuple[str, ...]) -> bool:
  """Whether `path` leads to a kernel whose shape a conversion changes."""
  return heads_lib.is_kernel(path, 'key', 'value')


def check_slots(slots: str) -> None:
  """Raises UserError if there is no such way to convert slots."""
  if slots not in SLOTS:
    raise UserError(
        f'slots={slots!r} is unknown; choose one of {", ".join(SLOTS)}'
    )


def convert_kernel_slots(
    kernel_slots: dict[str, Any],
    *,
    emb_dim: int,
    head_dim: int,
    from_num_kv_heads: int,
    num_kv_heads: int,
    slots: str,
) -> dict[str, Any]:
  """Converts the Adafactor slots of one key or value kernel.

  Adafactor keeps the mean square of the gradient of a kernel [D, K * H]: whole
  as 'v' where a side is below 128, else as its means over the longer side,
  'v_row', and over the shorter one, 'v_col'; slots not in use have the shape
  [1]. So a slot's meaning may change with K: of XXL's kernels (4096 x 4096)
  'v_row' spans D, but 'v_col' does once they are 4096 x 512, and with one head
  of 64 there is 'v' alone. This is why all slots of a kernel are needed at a
  time. Sums over groups are linear, so factored slots lose nothing by them.

  Args:
    kernel_slots: 'v_row', 'v_col', 'v' and the momentum 'm' (averaged over the
      group, as the kernel is); anything that numpy takes for an array.
    emb_dim: D.
    head_dim: H.
    from_num_kv_heads: K.
    num_kv_heads: k.
    slots: as in `convert_optimizer_slots`.

  Returns:
    The slots of the kernel [D, k * H], in float32, 'm' in its own dtype;
    the same objects if k = K and they are pooled.

  Raises:
    UserError: if these are not the slots of such a kernel.
  """
  if kernel_slots.keys() != {'v_row', 'v_col', 'v', 'm'}:
    raise UserError(
        "expected Adafactor's slots v_row, v_col, v and m for each key and"
        f' value kernel, got {", ".join(sorted(kernel_slots)) or "none"};'
        " convert to format 'orbax', which leaves the optimizer state out"
    )
  if num_kv_heads == from_num_kv_heads and slots == 'pool':
    return dict(kernel_slots)
  old = {name: np.asarray(slot) for name, slot in kernel_slots.items()}
  before = (emb_dim, from_num_kv_heads * head_dim)
  group = from_num_kv_heads // num_kv_heads

  def sum_groups(slot):
    """Sums [..., K * H] over the heads of each group: [..., k * H]."""
    shape = (*slot.shape[:-1], num_kv_heads, group, head_dim)
    return slot.reshape(shape).sum(-2).reshape(*slot.shape[:-1], -1)

  if old['v'].shape == before:
    new = {'v': sum_groups(old['v'])}
  elif (means := _means_by_axis(old, before)) is not None:
    new = _factored_slots(means[0] * group, sum_groups(means[1]))
  else:
    raise UserError(
        f'expected Adafactor slots of a kernel {before}, got'
        f' {", ".join(f"{k} {v.shape}" for k, v in sorted(old.items()))}; only'
        f' min_dim_size_to_factor={MIN_FACTORED_DIM} can be converted, or'
        " convert to format 'orbax', which leaves the optimizer state out"
    )
  new['m'] = old['m']
  if old['m'].shape == before:
    new['m'] = (sum_groups(old['m']) / group).astype(old['m'].dtype)
  unused = np.zeros(1, np.float32)
  new = {name: new.get(name, unused) for name in kernel_slots}
  if slots == 'reset':
    new = {name: np.zeros_like(slot) for name, slot in new.items()}
  return new


def _row_axis(shape: tuple[int, int]) -> int | None:
  """Returns the axis of a kernel that v_row spans; None: it is not factored."""
  if min(shape) < MIN_FACTORED_DIM:
    return None
  return 0 if shape[0] <= shape[1] else 1


def _means_by_axis(slots, shape: tuple[int, int]):
  """Returns what spans D and what spans K * H, or None if they do not fit."""
  row = _row_axis(shape)
  if row is None:
    return None
  means = (slots['v_row'], slots['v_col'])[:: 1 if row == 0 else -1]
  return means if all(m.shape == (n,) for m, n in zip(means, shape)) else None


def _factored_slots(over_emb: np.ndarray, over_heads: np.ndarray):
  """Returns the slots of a kernel with these means, [D] and [k * H]."""
  row = _row_axis((over_emb.size, over_heads.size))
  if row is None:
    # What Adafactor takes the factors for; 0 / 0 before the first step.
    mean = max(over_emb.mean(), np.finfo(np.float32).tiny)
    return {'v': np.outer(over_emb / mean, over_heads)}
  both = (over_emb, over_heads)
  return {'v_row': both[row], 'v_col': both[1 - row]}
