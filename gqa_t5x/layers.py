# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5's building blocks: dense, MLP, embedding, RMS norm, relative positions.

Parameter names, shapes and logical axes are those of t5x/examples/t5, so that
its checkpoints load. Parameters are float32; `dtype` is that of activations.
"""

import functools
import operator
from typing import Any, Callable, Sequence

from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.errors import UserError

# Of every T5: buckets of relative positions, the distance from which on all
# share one, and what keeps a norm from dividing by zero.
NUM_BUCKETS, MAX_DISTANCE, EPSILON = 32, 128, 1e-6

Array = jax.Array
with_sharding_constraint = partitioning.with_sharding_constraint

dense_init = nn.initializers.variance_scaling(
    1.0, 'fan_in', 'truncated_normal'
)


class Dense(nn.Module):
  """Linear map without bias over the last `num_in_axes` axes of its input.

  The kernel is stored with input axes joined and output axes joined, as a
  matrix: [in, out].

  Attributes:
    features: output axes.
    kernel_axes: logical names of the kernel's two axes.
    num_in_axes: how many trailing axes of the input are contracted.
    dtype: activation type.
    kernel_init: initializer of the [in, out] kernel.
  """

  features: Sequence[int]
  kernel_axes: tuple[str, str]
  num_in_axes: int = 1
  dtype: Any = jnp.float32
  kernel_init: Callable[..., Array] = dense_init

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """Maps [..., *in_axes] to [..., *features]."""
    in_shape = inputs.shape[-self.num_in_axes :]
    batch_shape = inputs.shape[: -self.num_in_axes]
    kernel = partitioning.param_with_axes(
        'kernel',
        self.kernel_init,
        (int(np.prod(in_shape)), int(np.prod(self.features))),
        jnp.float32,
        axes=self.kernel_axes,
    )
    outputs = inputs.astype(self.dtype).reshape(-1, kernel.shape[0])
    outputs @= kernel.astype(self.dtype)
    return outputs.reshape(*batch_shape, *self.features)


# Functions of flax.linen, and none.
_ACTIVATIONS = ('linear', 'relu', 'gelu', 'silu', 'swish', 'sigmoid', 'tanh')


def check_activations(names: Sequence[str]) -> None:
  """Raises UserError unless there are one or two, all of them known."""
  if (
      isinstance(names, str)
      or len(names) not in (1, 2)
      or not all(name in _ACTIVATIONS for name in names)
  ):
    raise UserError(
        "expected mlp_activations such as ('relu',) or ('gelu', 'linear'), one"
        f' or two of {", ".join(_ACTIVATIONS)}, got {names!r}'
    )


class Mlp(nn.Module):
  """Feed-forward block; with two activations their product (gated) is taken.

  Attributes:
    mlp_dim: F, width of the hidden layer.
    activations: names from `flax.linen`, or 'linear': ('relu',) is T5 1.0,
      ('gelu', 'linear') is T5.1.1.
    dropout_rate: on the hidden layer, broadcast along the length.
    dtype: activation type.
  """

  mlp_dim: int
  activations: Sequence[str]
  dropout_rate: float
  dtype: Any

  @nn.compact
  def __call__(self, inputs: Array, deterministic: bool) -> Array:
    """Maps [B, T, D] to [B, T, D]."""
    # Rows of one matrix: on a CPU the gradient takes a third longer where batch
    # and length are axes of their own.
    rows = inputs.reshape(-1, inputs.shape[-1])
    hidden = []
    for i, activation in enumerate(self.activations):
      x = Dense(
          (self.mlp_dim,),
          ('embed', 'mlp'),
          dtype=self.dtype,
          name='wi' if len(self.activations) == 1 else f'wi_{i}',
      )(rows)
      hidden.append(x if activation == 'linear' else getattr(nn, activation)(x))
    x = functools.reduce(operator.mul, hidden)
    x = x.reshape(*inputs.shape[:-1], self.mlp_dim)
    x = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
        x, deterministic=deterministic
    )
    x = with_sharding_constraint(x, ('batch', 'length', 'mlp'))
    return Dense(
        (inputs.shape[-1],), ('mlp', 'embed'), dtype=self.dtype, name='wo'
    )(x)


class Embed(nn.Module):
  """Token embedding, which can also serve as the output projection.

  Attributes:
    num_embeddings: V.
    features: D.
    dtype: activation type.
  """

  num_embeddings: int
  features: int
  dtype: Any

  def setup(self):
    self.embedding = partitioning.param_with_axes(
        'embedding',
        nn.initializers.normal(stddev=1.0),
        (self.num_embeddings, self.features),
        jnp.float32,
        axes=('vocab', 'embed'),
    )

  def __call__(self, tokens: Array) -> Array:
    """Maps int tokens [B, T] to [B, T, D]."""
    embedded = self.embedding.astype(self.dtype)[tokens]
    return with_sharding_constraint(embedded, ('batch', 'length', 'embed'))

  def attend(self, x: Array) -> Array:
    """Maps [B, T, D] to logits [B, T, V], in float32 for stability."""
    return x.astype(jnp.float32) @ self.embedding.T


class RMSNorm(nn.Module):
  """T5's layer norm: no mean subtraction, no bias; computed in float32."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises the last axis of [..., D]."""
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
    x = (x * lax.rsqrt(mean_square + EPSILON)).astype(self.dtype)
    scale = partitioning.param_with_axes(
        'scale', nn.initializers.ones, (x.shape[-1],), jnp.float32,
        axes=('embed',),
    )
    return x * scale.astype(self.dtype)


# Pairs of a query and a key, those of 2,048 and 2,048, whose one-hot rows take
# half a GiB; of more at a time they would take most of a model's memory.
_MOST_ONE_HOT = 2**22


@jax.custom_vjp
def _look_up(table: Array, buckets: Array) -> Array:
  """Maps [N, number of buckets] and int [..., T, S] to [..., N, T, S].

  On a CPU by a gather, which is several times as fast there as the product;
  its gradient is a product everywhere, where a gather's is a slow scatter.
  """
  if buckets.shape[-2] * buckets.shape[-1] > _MOST_ONE_HOT:
    return _gather(table, buckets)
  return lax.platform_dependent(
      table, buckets, cpu=_gather, default=_one_hot_product
  )


def _gather(table, buckets):
  return jnp.moveaxis(jnp.take(table, buckets, axis=1), 0, -3)


def _one_hot_product(table, buckets):
  one_hot = jax.nn.one_hot(buckets, table.shape[1], dtype=table.dtype)
  return jnp.einsum('nb,...tsb->...nts', table, one_hot)


def _look_up_backward(saved, gradient):
  table, buckets = saved
  queries, keys = buckets.shape[-2:]
  # A block of query rows after the other.
  rows = next(
      n for n in range(queries, 0, -1)
      if queries % n == 0 and (n * keys <= _MOST_ONE_HOT or n == 1)
  )  # pyformat: disable

  def add_block(i, total):
    some_buckets, some = (
        lax.dynamic_slice_in_dim(x, i * rows, rows, axis=-2)
        for x in (buckets, gradient)
    )
    _, pull_back = jax.vjp(lambda x: _one_hot_product(x, some_buckets), table)
    return total + pull_back(some)[0]

  if rows == queries:
    return add_block(0, 0), None
  zero = jnp.zeros_like(table)
  return lax.fori_loop(0, queries // rows, add_block, zero), None


_look_up.defvjp(lambda *args: (_look_up(*args), args), _look_up_backward)


def relative_position_buckets(
    bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
  """Bucket of each relative position (key minus query), as a lookup table.

  Raffel et al. 2020, section 2.1: half of the buckets hold one distance each,
  the rest grow logarithmically up to `max_distance`; beyond it all share the
  last one. Bidirectional attention gives each direction half of the buckets.

  Returns:
    int32 [2 * max_distance + 1]; entry `r + max_distance` is the bucket of the
    relative position r, to be clipped to [-max_distance, max_distance].
  """
  relative = np.arange(-max_distance, max_distance + 1)
  side = num_buckets // 2 if bidirectional else num_buckets
  offset = np.where(relative > 0, side, 0) if bidirectional else 0
  distance = np.abs(relative) if bidirectional else np.maximum(-relative, 0)
  num_exact = side // 2
  # In float32, as in T5: the boundaries depend on its rounding.
  log_ratio = np.log(
      distance.astype(np.float32) / num_exact + np.finfo(np.float32).eps
  ) / np.log(max_distance / num_exact)
  large = num_exact + (log_ratio * (side - num_exact)).astype(np.int32)
  bucket = np.where(distance < num_exact, distance, np.minimum(large, side - 1))
  return (offset + bucket).astype(np.int32)


class RelativePositionBias(nn.Module):
  """T5's learnt bias per query head and bucket of relative positions.

  Attributes:
    num_heads: N; the bias belongs to query heads, not to key/value heads.
    dtype: activation type.
    bidirectional: whether keys after the query have buckets of their own.
  """

  num_heads: int
  dtype: Any
  bidirectional: bool

  @nn.compact
  def __call__(self, query_positions: Array, key_positions: Array) -> Array:
    """Maps int positions [..., T] and [S] to biases [..., N, T, S]."""
    table = partitioning.param_with_axes(
        'rel_embedding',
        nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
        (self.num_heads, NUM_BUCKETS),
        jnp.float32,
        axes=('heads', 'relpos_buckets'),
    )
    relative = key_positions - query_positions[..., :, None]  # [..., T, S]
    relative = jnp.clip(relative, -MAX_DISTANCE, MAX_DISTANCE)
    buckets = jnp.asarray(
        relative_position_buckets(self.bidirectional, NUM_BUCKETS, MAX_DISTANCE)
    )[relative + MAX_DISTANCE]
    return _look_up(table.astype(self.dtype), buckets)
