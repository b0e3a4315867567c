# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The kernels of one attention of the decoder, with heads as an axis.

Letters of the shapes: D model dim, N query heads, K key/value heads, H head
dim.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gqa_t5x import grouping
from gqa_t5x.errors import UserError

Path = tuple[str, ...]

# A row for each query head of all self-attentions.
BIAS = ('decoder', 'relpos_bias', 'rel_embedding')
ATTENTIONS = ('self_attention', 'encoder_decoder_attention')
PROJECTIONS = ('query', 'key', 'value', 'out')


class Heads(NamedTuple):
  """One attention's kernels.

  Attributes:
    query: [D, N, H].
    key: [D, K, H].
    value: [D, K, H].
    out: [N, H, D].
  """

  query: np.ndarray
  key: np.ndarray
  value: np.ndarray
  out: np.ndarray

  def per_query_head(self) -> 'Heads':
    """Returns the heads with a key and value head for each query head."""
    num_heads = self.query.shape[1]
    return self._replace(
        key=grouping.repeat_kv_heads(self.key, num_heads, axis=1),
        value=grouping.repeat_kv_heads(self.value, num_heads, axis=1),
    )

  def in_groups(self, num_kv_heads: int) -> 'Heads':
    """Returns the heads of k groups, with an axis of groups.

    Returns:
      query [D, k, G, H], key and value [D, k, G', H], out [k, G, H, D] for
      G = N / k and G' = K / k.
    """

    def split(x, axis):
      return grouping.split_groups(x, num_kv_heads, axis)

    return Heads(
        split(self.query, 1),
        split(self.key, 1),
        split(self.value, 1),
        split(self.out, 0),
    )


def attentions(flat: Mapping[Path, Any]) -> list[Path]:
  """Returns the paths of the decoder's attentions, sorted.

  Args:
    flat: parameters by path.

  Raises:
    UserError: if there is none.
  """
  found = sorted(path[:-2] for path in flat if is_kernel(path, 'key'))
  if not found:
    tops = ', '.join(sorted({path[0] for path in flat}))
    raise UserError(
        'expected T5 parameters with decoder/layers_0/self_attention/key/kernel'
        f', got a tree with {tops or "nothing"} at its top; pass the tree that'
        ' t5x calls `target`'
    )
  return found


def is_kernel(path: Path, *projections: str) -> bool:
  """Whether `path` leads to such a kernel of a decoder's attention."""
  return (
      path[0] == 'decoder'
      and path[-1] == 'kernel'
      and path[-2] in projections
      and path[-3] in ATTENTIONS
  )


def count(
    shapes: Mapping[Path, tuple[int, ...]], attention: Path, num_heads: int
) -> tuple[int, int]:
  """Returns K and H of an attention.

  Args:
    shapes: of the kernels, by path.
    attention: path of the attention.
    num_heads: N.

  Raises:
    UserError: if N does not fit the kernels.
  """
  kernels = {p: shapes[(*attention, p, 'kernel')] for p in PROJECTIONS}
  head_dim, rest = divmod(kernels['query'][1], num_heads)
  rest = rest or kernels['key'][1] % head_dim
  for name, wanted in (
      ('key', (kernels['query'][0], kernels['key'][1])),
      ('value', kernels['key']),
      ('out', kernels['query'][::-1]),
  ):
    if rest or kernels[name] != wanted:
      raise UserError(
          f'num_heads={num_heads} does not fit {"/".join(attention)}: the query'
          f' kernel is {kernels["query"]}, the {name} kernel {kernels[name]};'
          " pass the checkpoint's number of query heads"
      )
  return kernels['key'][1] // head_dim, head_dim


def split(kernels: Mapping[str, np.ndarray], num_heads: int) -> Heads:
  """Returns the kernels [D, heads * H] and out [N * H, D] with a head axis."""
  head_dim = kernels['query'].shape[1] // num_heads

  def columns(name):
    kernel = kernels[name]
    return kernel.reshape(kernel.shape[0], -1, head_dim)

  out = kernels['out'].reshape(num_heads, head_dim, -1)
  return Heads(columns('query'), columns('key'), columns('value'), out)


def join(heads: Heads) -> dict[str, np.ndarray]:
  """Returns the kernels as parameters hold them; undoes `split`."""
  emb_dim = heads.out.shape[-1]
  kernels = {
      name: kernel.reshape(emb_dim, -1)
      for name, kernel in heads._asdict().items()
  }
  return kernels | {'out': heads.out.reshape(-1, emb_dim)}


def places(order: np.ndarray, group_size: int) -> np.ndarray:
  """Returns the places before of what follows heads into another order.

  Args:
    order: [K], places of the heads before.
    group_size: of what each has, query heads or columns, which stay together.

  Returns:
    [K * group_size].
  """
  within = np.arange(group_size)
  return (order[:, None] * group_size + within).reshape(-1)


def bias_order(orders: Mapping[Path, np.ndarray], num_heads: int) -> np.ndarray:
  """Returns the order [N] of `BIAS` where attentions have these orders [K]."""
  order = orders['decoder', 'layers_0', 'self_attention']
  return places(order, num_heads // len(order))


def permute(heads: Heads, order: np.ndarray) -> Heads:
  """Puts key/value heads, with their query heads, into another order.

  The attention computes the same; where it has a bias by query head, that has
  to be put into `places` too.

  Args:
    heads: of one attention.
    order: [K], a permutation.
  """
  queries = places(order, heads.query.shape[1] // len(order))
  return Heads(
      heads.query[:, queries],
      heads.key[:, order],
      heads.value[:, order],
      heads.out[queries],
  )


def refit(
    heads: Heads,
    num_kv_heads: int,
    share: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> Heads:
  """Gives each group one head, and its queries and outputs what that needs.

  A head at a time is held in float64, and what `share` holds.

  Args:
    heads: of one attention.
    num_kv_heads: k.
    share: maps 'key' or 'value', the kernel [D, G, H] of a group and the
      kernels [D, H] of each query or transposed output head of it to the shared
      head [D, H], and to [G, H, H] by which the latter are multiplied from the
      right.
  """
  groups = heads.per_query_head().in_groups(num_kv_heads)
  new = Heads(
      np.empty_like(groups.query),
      np.empty_like(groups.key[:, :, 0]),
      np.empty_like(groups.value[:, :, 0]),
      np.empty_like(groups.out),
  )
  out, new_out = (np.moveaxis(x.out, -1, 0) for x in (groups, new))
  for projection, other, new_other in (
      ('key', groups.query, new.query), ('value', out, new_out),
  ):  # pyformat: disable
    kernel, new_kernel = (getattr(x, projection) for x in (groups, new))
    for k in range(num_kv_heads):
      others = [other[:, k, g] for g in range(other.shape[2])]
      new_kernel[:, k], maps = share(projection, kernel[:, k], others)
      for g, head in enumerate(others):
        new_other[:, k, g] = head.astype(np.float64) @ maps[g]
  return new._replace(
      query=new.query.reshape(heads.query.shape),
      out=new.out.reshape(heads.out.shape),
  )
