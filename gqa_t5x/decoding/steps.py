# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all methods of decoding share: the prefill, a step, and their caches.

Letters of the shapes: B inputs, S input length, L decoded length, R beams,
V vocabulary.
"""

import functools
from typing import Any, Mapping, NamedTuple

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

PAD_ID = 0  # also the start token, as in T5
EOS_ID = 1
NO_EOS = -1  # No token has this id, so that every row is decoded to its end.
NOT_FINITE = -1  # Stands where logits gave no token, and ends the row.


class Prefilled(NamedTuple):
  """What the steps need of the inputs; made by `prefill`.

  Attributes:
    input_tokens: int32 [B, S].
    cross_cache: the cross-attention's keys [B, K, H, S] and values
      [B, K, S, H], under their paths in the module's 'cache' collection.
    encoded: the encoder's output [B, S, D], for a cross_cache that is empty:
      each step then projects it anew, for `benchmark.cross_cache` to time.
  """

  input_tokens: Array
  cross_cache: Mapping[tuple[str, ...], Array]
  encoded: Array | None = None


class Decoded(NamedTuple):
  """What `decode_loop` and `beam_loop` return.

  Attributes:
    tokens: int32 [B, L], or [B, num_results, L] of a beam search, best first;
      0 after the end of sentence token. `NOT_FINITE` is where the largest
      logit was infinite or NaN.
    scores: float32 [B, num_results] of a beam search, else None.
    num_steps: int32 scalar, how often the decoder was called.
  """

  tokens: Array
  scores: Array | None
  num_steps: Array


def place_params(
    model: nn.Module, params: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns parameters on the device, put there once for all batches.

  Where the model computes in 16 bits they have them too, but for those of the
  logits, which are computed in float32: the outputs are the same, and a step
  reads half as much. Where it computes in float32, those of 16 bits become
  float32 on a CPU, in twice the memory: each step would convert them anew.

  Args:
    model: a `Transformer`.
    params: its parameters.
  """
  config = model.config
  is_narrow = config.dtype != jnp.float32
  is_tied = config.logits_via_embedding
  of_logits = 'token_embedder' if is_tied else 'logits_dense'

  def placed(path, array):
    dtype = None
    if is_narrow and of_logits not in path:
      dtype = config.dtype
    elif not is_narrow and jax.default_backend() == 'cpu':
      dtype = np.float32
    return jax.device_put(np.asarray(array, dtype))

  flat = traverse_util.flatten_dict(params)
  return _nest({path: placed(path, array) for path, array in flat.items()})


@functools.partial(jax.jit, static_argnames=('model',))
def encode(
    model: nn.Module, params: Mapping[str, Any], input_tokens: Array
) -> Array:
  """Encodes int32 [B, S] to [B, S, D]."""
  return model.apply(
      {'params': params}, input_tokens, enable_dropout=False, method='encode'
  )


@functools.partial(jax.jit, static_argnames=('model',))
def prefill(
    model: nn.Module,
    params: Mapping[str, Any],
    input_tokens: Array,
    encoded: Array | None = None,
) -> Prefilled:
  """Encodes int32 [B, S] and projects the cross-attention's keys and values.

  This happens once per input: beams share it and steps only read it.

  Args:
    model: a `Transformer`.
    params: its parameters.
    input_tokens: int [B, S].
    encoded: what `encode` made of them, where that is timed apart.
  """
  input_tokens = input_tokens.astype(jnp.int32)
  if encoded is None:
    encoded = encode(model, params, input_tokens)
  # No prompt, so the self-attention's cache stays empty and is not kept.
  prompt = jnp.zeros((input_tokens.shape[0], 0), jnp.int32)
  cache = _nest(empty_cache(model, params, prompt, 1))
  _, variables = model.apply(
      {'params': params, 'cache': cache},
      encoded,
      input_tokens,
      prompt,
      prompt,
      enable_dropout=False,
      prefill=True,
      method='decode',
      mutable=['cache'],
  )
  cross_cache, _ = split_cache(variables['cache'])
  return Prefilled(input_tokens, cross_cache)


def decode_step(
    model: nn.Module,
    params: Mapping[str, Any],
    prefilled: Prefilled,
    cache: Mapping[tuple[str, ...], Array],
    tokens: Array,
) -> tuple[Array, Mapping[tuple[str, ...], Array]]:
  """Feeds tokens [B * R]; returns logits [B * R, V] and the new cache.

  Args:
    model: a `Transformer`.
    params: its parameters.
    prefilled: from `prefill`.
    cache: the self-attention's, from `empty_cache` or an earlier step.
    tokens: int32 [B * R].
  """
  tokens = tokens[:, None]
  logits, variables = model.apply(
      {'params': params, 'cache': _nest({**cache, **prefilled.cross_cache})},
      prefilled.encoded,
      prefilled.input_tokens,
      tokens,
      tokens,
      enable_dropout=False,
      decode=True,
      method='decode',
      mutable=['cache'],
  )
  _, cache = split_cache(variables['cache'])
  return logits[:, 0], cache


def empty_cache(
    model: nn.Module, params: Mapping[str, Any], rows: Array, length: int
) -> Mapping[tuple[str, ...], Array]:
  """Makes the self-attention's cache of zeros: a row each, `length` long."""
  tokens = jax.ShapeDtypeStruct((rows.shape[0], length), jnp.int32)
  config = model.config
  encoded = jax.ShapeDtypeStruct(
      (rows.shape[0], 1, config.emb_dim), config.dtype
  )
  inputs = jax.ShapeDtypeStruct(encoded.shape[:2], jnp.int32)
  _, variables = jax.eval_shape(
      functools.partial(
          model.apply,
          enable_dropout=False,
          decode=True,
          method='decode',
          mutable=['cache'],
      ),
      {'params': params},
      encoded,
      inputs,
      tokens,
      tokens,
  )
  _, shapes = split_cache(variables['cache'])
  return {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes.items()}


def split_cache(
    cache: Mapping[str, Any],
) -> tuple[Mapping[tuple[str, ...], Any], Mapping[tuple[str, ...], Any]]:
  """Splits a module's cache by path: cross-attention's part, all else.

  Only the second changes from step to step, and has a row for each beam.
  """
  parts = {}, {}
  for path, value in traverse_util.flatten_dict(cache).items():
    parts['encoder_decoder_attention' not in path][path] = value
  return parts


_nest = traverse_util.unflatten_dict
