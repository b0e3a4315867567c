# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which query head uses which key/value head: the one rule, in one place.

With N query heads and K key/value heads (the paper's G "groups"), each group
holds G = N / K query heads that stand next to each other: query head n uses
key/value head n // G. Attention, conversion and export all call this module.
"""

from gqa_t5x.errors import UserError


def group_size(num_heads: int, num_kv_heads: int) -> int:
  """Returns G, the number of query heads that share a key/value head.

  Args:
    num_heads: N, the number of query heads.
    num_kv_heads: K, the number of key/value heads; must divide N.

  Raises:
    UserError: if K does not divide N.
  """
  if num_kv_heads < 1 or num_heads % num_kv_heads:
    choices = [str(k) for k in reversed(num_kv_heads_choices(num_heads))]
    listed = ', '.join(choices[:-1]) + ' or ' + choices[-1]
    raise UserError(
        f'num_heads={num_heads} cannot be split over '
        f'num_kv_heads={num_kv_heads}; choose '
        f'{listed if len(choices) > 1 else choices[0]}'
    )
  return num_heads // num_kv_heads


def split_groups(x, num_kv_heads: int, axis: int):
  """Splits the query-head axis N of an array into (K, G).

  Args:
    x: array whose `axis` (counted from the front) has length N.
    num_kv_heads: K.
    axis: position of the head axis, at least 0.

  Returns:
    x with `axis` replaced by two axes of lengths K and G.
  """
  size = group_size(x.shape[axis], num_kv_heads)
  return x.reshape(x.shape[:axis] + (num_kv_heads, size) + x.shape[axis + 1 :])


def repeat_kv_heads(x, num_heads: int, axis: int):
  """Repeats each key/value head for its group: axis of K becomes N.

  The multi-head model made this way computes the same function as the
  grouped one; it saves no memory. Where K = N, x itself is returned.

  Args:
    x: array, of numpy or JAX, whose `axis` has length K.
    num_heads: N.
    axis: position of the head axis.
  """
  size = group_size(num_heads, x.shape[axis])
  return x if size == 1 else x.repeat(size, axis=axis)


def num_kv_heads_choices(num_heads: int) -> list[int]:
  """Returns the numbers of key/value heads that there may be, MHA's first."""
  return [k for k in range(num_heads, 0, -1) if num_heads % k == 0]
