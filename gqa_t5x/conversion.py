# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a multi-head checkpoint into a grouped- or multi-query one.

Section 2.1 of the paper: the key and value kernels of the heads of a group
become one head's. Only the decoder's self- and cross-attention change.

Letters of the shapes: D model dim, N query heads, K key/value heads before and
k after the conversion, H head dim.
"""

import collections
from typing import Any, Callable

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import grouping
from gqa_t5x.errors import UserError

Array = jax.Array
PyTree = Any

_CONVERTED = frozenset(
    (attention, projection, 'kernel')
    for attention in ('self_attention', 'encoder_decoder_attention')
    for projection in ('key', 'value')
)

SLOTS = ('pool', 'reset')
# Adafactor's min_dim_size_to_factor: it factors kernels no side of which is
# smaller.
_MIN_FACTORED_DIM = 128


def _mean(kernel: Array, rng: Array) -> Array:
  """The paper's choice: the mean of the group's heads."""
  del rng
  return kernel.astype(jnp.float32).mean(axis=2).astype(kernel.dtype)


def _first(kernel: Array, rng: Array) -> Array:
  """The first head of each group (the paper's section 3.3)."""
  del rng
  return kernel[:, :, 0]


def _random(kernel: Array, rng: Array) -> Array:
  """New heads, drawn as at the start of pre-training (section 3.3)."""
  emb_dim, num_kv_heads, _, head_dim = kernel.shape
  return jax.random.normal(
      rng, (emb_dim, num_kv_heads, head_dim), kernel.dtype
  ) / jnp.sqrt(emb_dim).astype(kernel.dtype)


# Each maps a kernel [D, k, K / k, H] and a random key to [D, k, H].
METHODS: dict[str, Callable[[Array, Array], Array]] = {
    'mean': _mean,
    'first': _first,
    'random': _random,
}


def convert_params(
    params: PyTree,
    *,
    num_heads: int,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
) -> PyTree:
  """Reduces the decoder's key/value heads to `num_kv_heads`.

  The source may itself be grouped, with any multiple of `num_kv_heads`.

  Args:
    params: the nested dict that t5x calls `target`; key and value kernels are
      [D, K * H], query kernels [D, N * H].
    num_heads: N.
    num_kv_heads: k, the number of key/value heads wanted; divides K.
    method: 'mean', 'first' or 'random'.
    seed: for 'random' only; None is 0.

  Returns:
    A new tree in which the decoder's key and value kernels are [D, k * H]; all
    other leaves are the same objects. With k = K, 'mean' and 'first' change no
    bit.

  Raises:
    UserError: if the method is unknown, the heads do not divide, or `params`
      is not a T5 encoder-decoder's tree.
  """
  if method not in METHODS:
    raise UserError(
        f'method={method!r} is unknown; choose one of {", ".join(METHODS)}'
    )
  grouping.group_size(num_heads, num_kv_heads)
  flat = traverse_util.flatten_dict(params)
  paths = sorted(path for path in flat if is_converted(path))
  if not paths:
    raise UserError(
        'expected T5 parameters with decoder/layers_0/self_attention/key/kernel'
        f', got a tree with {", ".join(sorted(params)) or "nothing"} at its'
        ' top; pass the tree that t5x calls `target`'
    )
  rngs = jax.random.split(jax.random.key(seed or 0), len(paths))
  for path, rng in zip(paths, rngs):
    kv_heads, head_dim = _heads(flat, path, num_heads, num_kv_heads)
    if kv_heads == num_kv_heads and method != 'random':
      continue
    kernel = jnp.asarray(flat[path])
    kernel = kernel.reshape(kernel.shape[0], kv_heads, head_dim)
    kernel = grouping.split_groups(kernel, num_kv_heads, axis=1)
    flat[path] = METHODS[method](kernel, rng).reshape(kernel.shape[0], -1)
  return traverse_util.unflatten_dict(flat)


def is_converted(path: tuple[str, ...]) -> bool:
  """Whether `path` leads to a kernel that a conversion changes."""
  return path[0] == 'decoder' and path[-3:] in _CONVERTED


def _heads(flat, path, num_heads, num_kv_heads) -> tuple[int, int]:
  """Returns K and H of the kernel at `path`; raises UserError if k is none."""
  kernel, query = flat[path], flat[path[:-2] + ('query', 'kernel')]
  head_dim, rest = divmod(query.shape[1], num_heads)
  if rest or kernel.shape[1] % head_dim:
    raise UserError(
        f'num_heads={num_heads} does not fit {"/".join(path)}: the query'
        f' kernel is {query.shape}, the key or value kernel {kernel.shape};'
        " pass the checkpoint's number of query heads"
    )
  kv_heads = kernel.shape[1] // head_dim
  if kv_heads % num_kv_heads:
    raise UserError(
        f'{"/".join(path)} has {kv_heads} key/value heads, which cannot'
        f' become num_kv_heads={num_kv_heads}; choose a divisor of {kv_heads}'
    )
  return kv_heads, head_dim


def convert_optimizer_slots(
    param_states: PyTree,
    params: PyTree,
    *,
    num_heads: int,
    num_kv_heads: int,
    slots: str = 'pool',
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

  Returns:
    A new tree in which the slots of the decoder's key and value kernels are
    others; all other leaves are the same objects.

  Raises:
    UserError: if `slots` is unknown, the heads do not divide, or the state is
      not Adafactor's.
  """
  check_slots(slots)
  shapes = traverse_util.flatten_dict(params)
  flat = traverse_util.flatten_dict(param_states, keep_empty_nodes=True)
  kernels = collections.defaultdict(dict)
  for path, slot in flat.items():
    kernels[path[:-1]][path[-1]] = slot
  for path in filter(is_converted, shapes):
    kv_heads, head_dim = _heads(shapes, path, num_heads, num_kv_heads)
    converted = convert_kernel_slots(
        kernels.get(path, {}),
        emb_dim=shapes[path].shape[0],
        head_dim=head_dim,
        from_num_kv_heads=kv_heads,
        num_kv_heads=num_kv_heads,
        slots=slots,
    )
    flat |= {path + (name,): slot for name, slot in converted.items()}
  return traverse_util.unflatten_dict(flat)


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
    the same objects if k = K.

  Raises:
    UserError: if these are not the slots of such a kernel.
  """
  if kernel_slots.keys() != {'v_row', 'v_col', 'v', 'm'}:
    raise UserError(
        "expected Adafactor's slots v_row, v_col, v and m for each key and"
        f' value kernel, got {", ".join(sorted(kernel_slots)) or "none"};'
        " convert to format 'orbax', which leaves the optimizer state out"
    )
  if num_kv_heads == from_num_kv_heads:
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
        f' min_dim_size_to_factor={_MIN_FACTORED_DIM} can be converted, or'
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
  if min(shape) < _MIN_FACTORED_DIM:
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


def convert_checkpoint(
    source: str,
    target: str,
    *,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
    format: str | None = None,  # pylint: disable=redefined-builtin
    slots: str = 'pool',
) -> dict[str, Any]:
  """Converts a checkpoint on disk; the step is kept.

  Args:
    source: checkpoint to read, in any known format.
    target: folder to write; must not exist. See `checkpoints.save_checkpoint`
      on its name.
    num_kv_heads: as in `convert_params`, like the rest.
    method: as in `convert_params`.
    seed: as in `convert_params`.
    format: of the target, as `checkpoints.save_checkpoint` names them; None is
      the source's. Formats of t5x keep t5x's optimizer state, 'orbax' none.
    slots: as in `convert_optimizer_slots`.

  Returns:
    The metadata written.

  Raises:
    UserError: as `convert_params`, `convert_optimizer_slots` and
      `checkpoints.load_checkpoint`, and if the target exists.
  """
  check_slots(slots)
  format = format or checkpoints.detect_format(source)
  checkpoints.check_target(target, format)
  params, metadata = checkpoints.load_checkpoint(source)
  config = metadata['config']
  heads = {'num_heads': config['num_heads'], 'num_kv_heads': num_kv_heads}
  converted = convert_params(params, **heads, method=method, seed=seed)
  param_states = None
  if format != 'orbax':
    param_states = checkpoints.load_param_states(source)
  if param_states is not None:
    param_states = convert_optimizer_slots(
        param_states, params, **heads, slots=slots
    )
  metadata = metadata | {
      'config': config | {'num_kv_heads': num_kv_heads},
      'conversion': {
          'method': method,
          'seed': seed,
          'from_num_kv_heads': config['num_kv_heads'],
          'slots': None if param_states is None else slots,
      },
  }
  checkpoints.save_checkpoint(
      target,
      converted,
      format=format,
      metadata=metadata,
      param_states=param_states,
  )
  return metadata
