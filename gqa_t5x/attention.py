# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention and its key/value cache.

Section 2.2 of the paper. Multi-head attention is K = N and multi-query
attention is K = 1: one path serves all three.

Letters of the shapes: B batch, T query length, S key length, N query heads,
K key/value heads (the paper's number of groups), G = N / K query heads a
group, H head dim, D model dim.
"""

import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from gqa_t5x import grouping
from gqa_t5x import layers

Array = jax.Array

_MASKED = -1e10
# Of logits, in float32; elsewhere all queries attend together.
_BLOCK_BYTES = {'cpu': 2**24, 'cuda': 2**31, 'rocm': 2**31}

attention_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    bias: Array | None = None,
    mask: Array | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Array | None = None,
    float32_logits: bool = False,
) -> Array:
  """Attention in which groups of query heads share a key/value head.

  T5 does not scale the logits by 1/sqrt(H); its initialisation does.

  Args:
    query: [B, T, N, H].
    key: [B, K, H, S]. Heads stand before the length, the layout of the cache,
      in which each head's keys are contiguous; with the length last, a decode
      step on a CPU reads them nearly twice as fast.
    value: [B, K, S, H].
    bias: added to the logits, [1 or B, N, T, S].
    mask: bool [1 or B, 1, 1 or T, S]; False hides a key.
    dropout_rate: on the attention weights, one draw for all query positions.
    dropout_rng: None means no dropout.
    float32_logits: whether logits and softmax are computed in float32.

  Returns:
    [B, T, N, H], in the query's dtype.
  """
  batch, q_len, num_heads, head_dim = query.shape
  num_kv_heads, kv_len = value.shape[1:3]
  if (key.shape, value.shape) != (
      (batch, num_kv_heads, head_dim, kv_len),
      (batch, num_kv_heads, kv_len, head_dim),
  ):
    raise ValueError(
        f'key {key.shape} must be [B, K, H, S] and value {value.shape} [B, K,'
        f' S, H], with B={batch} and H={head_dim} of query {query.shape}'
    )
  attend = functools.partial(
      _attend,
      dropout_rate=dropout_rate,
      dropout_rng=dropout_rng,
      float32_logits=float32_logits,
  )
  arrays = query, key, value, bias, mask
  in_blocks = {}
  row_bytes = 4 * batch * num_heads * kv_len
  # Devices of a mesh that is set share a batch, each with a memory of its own;
  # those of a CPU have one.
  devices = max(1, jax.sharding.get_abstract_mesh().size)
  for platform, block_bytes in _BLOCK_BYTES.items():
    sharers = 1 if platform == 'cpu' else devices
    length = _block_length(q_len, row_bytes, sharers * block_bytes)
    if length < q_len:
      in_blocks[platform] = functools.partial(
          _attend_in_blocks, attend, length
      )
  if not in_blocks:
    return attend(*arrays)
  return lax.platform_dependent(*arrays, **in_blocks, default=attend)


def _block_length(q_len: int, row_bytes: int, block_bytes: int) -> int:
  """Returns how many queries attend together.

  Logits of a block stay in a CPU's caches. Of all queries together they go to
  memory and back with each operation: a layer of T5.1.1-small's encoder takes
  twice as long at batch 8, input 2048. On a GPU they would take much of the
  memory: T5.1.1-XXL's encoder 33 GiB at batch 32, input 2048.

  Args:
    q_len: T.
    row_bytes: of the logits of one query position.
    block_bytes: that the logits of a block may take. Where no length from half
      of what they allow divides T, the last block is padded.
  """
  most = max(block_bytes // row_bytes, 1)
  if q_len <= most:
    return q_len
  divisors = (n for n in range(most, most // 2, -1) if q_len % n == 0)
  return next(divisors, most)


def _attend_in_blocks(attend, length, query, key, value, bias, mask) -> Array:
  """`attend`, a block of queries after another."""
  batch, q_len, *heads = query.shape
  blocks = -(-q_len // length)

  def split(x, axis):
    """[.., T, ..] -> [blocks, .., length, ..]."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = 0, blocks * length - q_len
    shape = x.shape[:axis] + (blocks, length) + x.shape[axis + 1 :]
    return jnp.moveaxis(jnp.pad(x, padding).reshape(shape), axis, 0)

  parts = {'query': split(query, 1)}
  whole = {}
  for name, x in (('bias', bias), ('mask', mask)):
    if x is not None and x.shape[2] == q_len:
      parts[name] = split(x, 2)
    else:
      whole[name] = x
  out = lax.map(
      lambda part: attend(key=key, value=value, **whole, **part), parts
  )
  return jnp.moveaxis(out, 0, 1).reshape(batch, -1, *heads)[:, :q_len]


def _attend(
    query, key, value, bias, mask, *, dropout_rate, dropout_rng, float32_logits
) -> Array:
  """As `dot_product_attention`, whose shapes are checked."""
  batch, q_len, num_heads, head_dim = query.shape
  num_kv_heads, kv_len = value.shape[1:3]
  dtype = query.dtype
  # The query heads of a group are further query positions to their key/value
  # head: [B, T, N, H] -> [B, K, G * T, H].
  size = grouping.group_size(num_heads, num_kv_heads)
  query = query.transpose(0, 2, 1, 3)
  query = query.reshape(batch, num_kv_heads, size * q_len, head_dim)
  if float32_logits:
    query, key = query.astype(jnp.float32), key.astype(jnp.float32)
  logits = jnp.einsum('bkth,bkhs->bkts', query, key)
  logits = logits.reshape(batch, num_kv_heads, size, q_len, kv_len)
  if bias is not None:
    bias = grouping.split_groups(bias, num_kv_heads, 1)
    logits = _add_bias(logits, bias.astype(logits.dtype))
  if mask is not None:
    # In float16 that would be -inf, and a query that sees nothing NaN.
    masked = max(_MASKED, float(jnp.finfo(logits.dtype).min) / 2)
    logits += jnp.where(mask[:, :, None], 0.0, masked).astype(logits.dtype)
  weights = jax.nn.softmax(logits).astype(dtype)
  if dropout_rng is not None and dropout_rate > 0.0:
    keep = jax.random.bernoulli(
        dropout_rng, 1.0 - dropout_rate,
        (batch, num_kv_heads, size, 1, kv_len),
    )
    weights *= keep.astype(dtype) / jnp.asarray(1.0 - dropout_rate, dtype)
  weights = weights.reshape(batch, num_kv_heads, size * q_len, kv_len)
  attended = jnp.einsum('bkts,bksh->bkth', weights, value)
  attended = attended.reshape(batch, num_heads, q_len, head_dim)
  return attended.transpose(0, 2, 1, 3)


@jax.custom_vjp
def _add_bias(logits: Array, bias: Array) -> Array:
  """Adds a bias [1 or B, ...] to logits [B, ...]."""
  return logits + bias


def _add_bias_fwd(logits, bias):
  return logits + bias, bias.shape[0]


def _add_bias_bwd(bias_batch, grad):
  if bias_batch == grad.shape[0]:
    return grad, grad
  # The sum over the batch as a product with ones: a plain reduction over the
  # leading axis takes 40 times as long on a CPU.
  ones = jnp.ones(grad.shape[:1], grad.dtype)
  return grad, jnp.einsum('b,b...->...', ones, grad)[None]


_add_bias.defvjp(_add_bias_fwd, _add_bias_bwd)


class Attention(nn.Module):
  """Grouped-query attention between two sequences, without a cache.

  Attributes:
    emb_dim: D.
    num_heads: N.
    num_kv_heads: K; must divide N.
    head_dim: H.
    dtype: activation type, and that of the cache.
    dropout_rate: on the attention weights.
    float32_logits: whether logits and softmax are computed in float32.
  """

  emb_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  dtype: Any
  dropout_rate: float
  float32_logits: bool

  def setup(self):
    # T5 folds the 1/sqrt(H) of the logits into the initial query kernel.
    def query_init(*args):
      return attention_init(*args) / jnp.sqrt(self.head_dim)

    def projection(num_heads, kernel_init):
      return layers.Dense(
          (num_heads, self.head_dim),
          ('embed', 'joined_kv'),
          dtype=self.dtype,
          kernel_init=kernel_init,
      )

    self.query = projection(self.num_heads, query_init)
    self.key = projection(self.num_kv_heads, attention_init)
    self.value = projection(self.num_kv_heads, attention_init)
    self.out = layers.Dense(
        (self.emb_dim,),
        ('joined_kv', 'embed'),
        num_in_axes=2,
        dtype=self.dtype,
        kernel_init=attention_init,
    )

  def project_kv(self, inputs: Array) -> tuple[Array, Array]:
    """Maps [B, S, D] to keys [B, K, H, S] and values [B, K, S, H]."""
    # The encoder's heads, and those of MHA, are as many as the query's.
    heads = 'heads' if self.num_kv_heads == self.num_heads else 'kv_heads'

    key = self.key(inputs).transpose(0, 2, 3, 1)
    value = self.value(inputs).transpose(0, 2, 1, 3)
    constrain = layers.with_sharding_constraint
    return (
        constrain(key, ('batch', heads, 'kv', 'length')),
        constrain(value, ('batch', heads, 'length', 'kv')),
    )

  def attend(
      self,
      inputs: Array,
      key: Array,
      value: Array,
      *,
      bias: Array | None = None,
      mask: Array | None = None,
      deterministic: bool,
  ) -> Array:
    """Attends from [B * R, T, D] to [B, K, H, S] keys, [B, K, S, H] values.

    R is 1 but in beam search, where the R beams of an input stand next to each
    other and share its keys and values, as R * T query positions.

    Returns:
      [B * R, T, D].
    """
    query = self.query(inputs)
    query = layers.with_sharding_constraint(
        query, ('batch', 'length', 'heads', 'kv')
    )
    shape = query.shape
    query = query.reshape(key.shape[0], -1, *shape[2:])
    use_dropout = self.dropout_rate > 0.0 and not deterministic
    attended = dot_product_attention(
        query,
        key,
        value,
        bias=bias,
        mask=mask,
        dropout_rate=self.dropout_rate,
        dropout_rng=self.make_rng('dropout') if use_dropout else None,
        float32_logits=self.float32_logits,
    )
    return self.out(attended.reshape(shape))

  def __call__(self, inputs: Array, **kwargs) -> Array:
    """Self-attention over [B, T, D]; keywords as for `attend`."""
    return self.attend(inputs, *self.project_kv(inputs), **kwargs)


class CachedSelfAttention(Attention):
  """The decoder's self-attention; with `decode`, over a cache of L positions.

  The cache holds `cached_key` [B, K, H, L] and `cached_value` [B, K, L, H]: K
  heads, not N. This is what makes grouped-query decoding fast.
  """

  def __call__(
      self, inputs: Array, *, decode: bool, index: Array | None, **kwargs
  ) -> Array:
    """Attends from [B, T, D]; keywords as for `attend`.

    Args:
      inputs: [B, T, D].
      decode: whether inputs stand at positions `index` to `index + T - 1` of a
        sequence whose earlier keys and values are in the cache. The first such
        call makes an empty cache of length T.
      index: int scalar, or [B] where rows are at different positions.
      **kwargs: as for `attend`; bias and mask cover all L positions.
    """
    key, value = self.project_kv(inputs)
    if decode:
      key = self._update('cached_key', key, index, axis=3)
      value = self._update('cached_value', value, index, axis=2)
    return self.attend(inputs, key, value, **kwargs)

  def _update(self, name: str, new: Array, index: Array, axis: int) -> Array:
    """Writes T positions of `axis` at `index`; returns the cache."""
    if not self.has_variable('cache', name):
      self.put_variable('cache', name, jnp.zeros_like(new))
      return new
    cached = self.get_variable('cache', name)
    if jnp.ndim(index) == 0:
      cached = lax.dynamic_update_slice_in_dim(cached, new, index, axis)
    else:
      update = functools.partial(
          lax.dynamic_update_slice_in_dim, axis=axis - 1
      )
      cached = jax.vmap(update)(cached, new, index)
    self.put_variable('cache', name, cached)
    return cached


class CrossAttention(Attention):
  """The decoder's attention to the encoder's output.

  A prefill keeps `cached_key` [B, K, H, S] and `cached_value` [B, K, S, H], so
  that decoding projects the encoder's output once per input, not per step.
  """

  def __call__(
      self,
      inputs: Array,
      encoded: Array,
      *,
      decode: bool,
      prefill: bool,
      **kwargs,
  ) -> Array:
    """Attends from [B * R, T, D] to the encoder's output [B, S, D].

    Args:
      inputs: [B * R, T, D].
      encoded: [B, S, D]; unused where a prefilled cache is present.
      decode: whether a prefilled cache is used.
      prefill: whether keys and values are computed anew and kept.
      **kwargs: as for `attend`.
    """
    if decode and not prefill and self.has_variable('cache', 'cached_key'):
      key = self.get_variable('cache', 'cached_key')
      value = self.get_variable('cache', 'cached_value')
    else:
      key, value = self.project_kv(encoded)
    if prefill:
      self.put_variable('cache', 'cached_key', key)
      self.put_variable('cache', 'cached_value', value)
    return self.attend(inputs, key, value, **kwargs)
