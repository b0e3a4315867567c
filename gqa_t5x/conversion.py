# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a multi-head checkpoint into a grouped- or multi-query one.

Section 2.1 of the paper: the key and value kernels of the heads of a group
become one head's. Only the decoder's self- and cross-attention change.

Letters of the shapes: D model dim, N query heads, K key/value heads before and
k after the conversion, H head dim.
"""

from typing import Any, Callable

from flax import traverse_util
import jax
import jax.numpy as jnp

from gqa_t5x import checkpoints
from gqa_t5x import grouping
from gqa_t5x.errors import UserError

Array = jax.Array
PyTree = Any

_ATTENTIONS = ('self_attention', 'encoder_decoder_attention')


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
  paths = sorted(
      path
      for path in flat
      if path[0] == 'decoder'
      and path[-3] in _ATTENTIONS
      and path[-2:] in (('key', 'kernel'), ('value', 'kernel'))
  )
  if not paths:
    raise UserError(
        'expected T5 parameters with decoder/layers_0/self_attention/key/kernel'
        f', got a tree with {", ".join(sorted(params)) or "nothing"} at its'
        ' top; pass the tree that t5x calls `target`'
    )
  rngs = jax.random.split(jax.random.key(seed or 0), len(paths))
  for path, rng in zip(paths, rngs):
    kernel = jnp.asarray(flat[path])
    query = flat[path[:-2] + ('query', 'kernel')]
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
    if kv_heads == num_kv_heads and method != 'random':
      continue
    kernel = kernel.reshape(kernel.shape[0], kv_heads, head_dim)
    kernel = grouping.split_groups(kernel, num_kv_heads, axis=1)
    flat[path] = METHODS[method](kernel, rng).reshape(kernel.shape[0], -1)
  return traverse_util.unflatten_dict(flat)


def convert_checkpoint(
    source: str,
    target: str,
    *,
    num_kv_heads: int,
    method: str = 'mean',
    seed: int | None = None,
    format: str = 'orbax',  # pylint: disable=redefined-builtin
) -> dict[str, Any]:
  """Converts a checkpoint on disk; the step is kept, optimizer state dropped.

  Args:
    source: checkpoint to read, in any known format.
    target: folder to write; must not exist.
    num_kv_heads: as in `convert_params`, like the rest.
    method: as in `convert_params`.
    seed: as in `convert_params`.
    format: format of the target.

  Returns:
    The metadata written.

  Raises:
    UserError: as `convert_params` and `checkpoints.load_checkpoint`, and if
      the target exists.
  """
  checkpoints.check_target(target, format)
  params, metadata = checkpoints.load_checkpoint(source)
  config = metadata['config']
  params = convert_params(
      params,
      num_heads=config['num_heads'],
      num_kv_heads=num_kv_heads,
      method=method,
      seed=seed,
  )
  metadata = metadata | {
      'config': config | {'num_kv_heads': num_kv_heads},
      'conversion': {
          'method': method,
          'seed': seed,
          'from_num_kv_heads': config['num_kv_heads'],
      },
  }
  checkpoints.save_checkpoint(target, params, format=format, metadata=metadata)
  return metadata
