# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A model's shapes, what decoding reads when, and bytes; allots nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from gqa_t5x.checkpoints import names
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer

Path = tuple[str, ...]


def cache_bytes_per_token(config: T5Config) -> int:
  """Returns the bytes of keys and values that one token takes in the cache.

  2 (key and value) * decoder layers * num_kv_heads * head_dim * bytes a
  number. Each input token takes it in the cross-attention's cache, and each
  output token in the self-attention's, for each sample.
  """
  return (2 * config.num_decoder_layers * config.num_kv_heads
          * config.head_dim * jnp.dtype(config.dtype).itemsize)


def cache_bytes(config: T5Config, *, batch_size: int, input_length: int,
                output_length: int) -> int:
  """Returns the bytes of the whole cache, cross- and self-attention."""
  return (batch_size * (input_length + output_length)
          * cache_bytes_per_token(config))


def allocated_cache_bytes(config: T5Config, *, batch_size: int,
                          input_length: int, output_length: int) -> int:
  """Returns what the arrays of the module's own cache take; traces only."""
  module = Transformer(config)

  def make_cache(rng, tokens, targets):
    variables = module.init(rng, tokens, targets[:, :1], targets[:, :1],
                            enable_dropout=False)
    encoded = jnp.zeros((*tokens.shape, config.emb_dim), config.dtype)

    def call(cache, targets, **stage):
      return module.apply(
          {'params': variables['params'], **cache}, encoded, tokens, targets,
          targets, enable_dropout=False, mutable=['cache'],
          method=module.decode, **stage)[1]
    return call(call({}, targets, decode=True), targets[:, :0], prefill=True)

  cache = jax.eval_shape(
      make_cache, jax.random.key(0),
      jax.ShapeDtypeStruct((batch_size, input_length), jnp.int32),
      jax.ShapeDtypeStruct((batch_size, output_length), jnp.int32))
  leaves = traverse_util.flatten_dict(cache)
  return sum(leaf.size * leaf.dtype.itemsize for path, leaf in leaves.items()
             if path[-1] in ('cached_key', 'cached_value'))


class Parts(NamedTuple):
  """Parameters by path, by when decoding reads them.

  Attributes:
    encoder: once for each input, like
    cross_kv: the cross-attention's key and value kernels.
    step: in each step. Of the embedding, whose rows are looked up, it is all
      where it makes the logits too, else nothing.
  """

  encoder: dict[Path, Any]
  cross_kv: dict[Path, Any]
  step: dict[Path, Any]


def parts(flat: Mapping[Path, Any]) -> Parts:
  """Returns a model's parameters, or what stands for them, in parts."""
  found = Parts({}, {}, {})
  for path, leaf in flat.items():
    if path[0] == 'encoder':
      found.encoder[path] = leaf
    elif path[-3:-1] in (('encoder_decoder_attention', 'key'),
                         ('encoder_decoder_attention', 'value')):
      found.cross_kv[path] = leaf
    elif path[0] == 'decoder' or (
        'decoder', 'logits_dense', 'kernel') not in flat:
      found.step[path] = leaf
  return found


def step_weight_bytes(params: Mapping[str, Any]) -> int:
  """Returns the bytes of the weights that each decode step reads."""
  return tree_bytes(parts(traverse_util.flatten_dict(params)).step)


def filled_length(input_length: int, output_length: int) -> float:
  """Returns the tokens in a sample's cache in a mean decode step.

  At step t the self-attention's cache holds t tokens, t = 1 ... L.
  """
  return input_length + (output_length + 1) / 2


def step_bytes(weight_bytes: int, config: T5Config, *, batch_size: int,
               input_length: int, output_length: int) -> float:
  """Returns the bytes of weights and cache that a mean decode step reads.

  Args:
    weight_bytes: as `step_weight_bytes` gives them.
    config: of the model.
    batch_size: samples decoded together.
    input_length: tokens of each.
    output_length: tokens decoded of each.
  """
  filled = filled_length(input_length, output_length)
  return weight_bytes + batch_size * filled * cache_bytes_per_token(config)


def parameter_shapes(config: T5Config):
  """Returns the parameters' tree with a ShapeDtypeStruct for each."""
  return traverse_util.unflatten_dict({
      path: jax.ShapeDtypeStruct(array.shape, jnp.float32)
      for path, array in names.arrays(config).items()
  })


def check_params(params: Any, config: T5Config, path: str) -> None:
  """Raises UserError if parameters from `path` do not fit a model."""
  got, want = (
      {jax.tree_util.keystr(k, simple=True, separator='/'): tuple(x.shape)
       for k, x in jax.tree_util.tree_leaves_with_path(tree)}
      for tree in (params, parameter_shapes(config))
  )
  # Nothing converts to more heads.
  other = (
      'a multi-head checkpoint of its sizes'
      if config.num_kv_heads == config.num_heads
      else 'convert it with gqa-t5x convert'
  )
  for name in sorted(got.keys() | want.keys()):
    if got.get(name) != want.get(name):
      raise UserError(
          f'{path} does not fit the model: {name} should be'
          f' {want.get(name, "absent")}, is {got.get(name, "absent")}; choose'
          f' the model that wrote it (NUM_KV_HEADS?) or {other}'
      )


def tree_bytes(tree: Any) -> int:
  """Returns the bytes of a tree's arrays, or of what has their shape."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
