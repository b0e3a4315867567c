# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The arrays of a T5: path and shape with us, name with Hugging Face.

Letters of the shapes: V vocabulary, D model dim, F MLP dim, N query heads, K
key/value heads, H head dim.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from gqa_t5x import layers
from gqa_t5x import network
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

Path = tuple[str, ...]

_PROJECTIONS = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}


class Array(NamedTuple):
  """One parameter.

  Attributes:
    shape: as this package has it.
    hf_name: as named.
    is_transposed: whether Hugging Face has the matrix the other way round.
  """

  shape: tuple[int, ...]
  hf_name: str
  is_transposed: bool


def arrays(config: T5Config) -> dict[Path, Array]:
  """Returns all parameters of a model by path."""
  found = {
      ('token_embedder', 'embedding'): Array(
          (config.vocab_size, config.emb_dim), 'shared.weight', False
      )
  }
  for stack, count in (
      ('encoder', config.num_encoder_layers),
      ('decoder', config.num_decoder_layers),
  ):
    for layer in range(count):
      found |= {
          (stack, f'layers_{layer}', *path): array._replace(
              hf_name=f'{stack}.block.{layer}.layer.{array.hf_name}'
          )
          for path, array in _layer(config, stack)
      }
    found[stack, 'relpos_bias', 'rel_embedding'] = Array(
        (config.num_heads, layers.NUM_BUCKETS),
        f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
        True,
    )
    found[stack, f'{stack}_norm', 'scale'] = Array(
        (config.emb_dim,), f'{stack}.final_layer_norm.weight', False
    )
  if not config.logits_via_embedding:
    found['decoder', 'logits_dense', 'kernel'] = Array(
        (config.emb_dim, config.vocab_size), 'lm_head.weight', True
    )
  return found


def _layer(config: T5Config, stack: str) -> Iterator[tuple[Path, Array]]:
  attentions = [('attention', 'SelfAttention')]
  if stack == 'decoder':
    attentions = [
        ('self_attention', 'SelfAttention'),
        ('encoder_decoder_attention', 'EncDecAttention'),
    ]
  width = config.emb_dim
  queries = config.num_heads * config.head_dim
  for i, (name, hf_name) in enumerate(attentions):
    kv = config.kv_heads_of(name) * config.head_dim
    yield (
        (network.NORMS[name], 'scale'),
        Array((width,), f'{i}.layer_norm.weight', False),
    )
    for projection, letter in _PROJECTIONS.items():
      columns = kv if projection in ('key', 'value') else queries
      shape = (width, columns) if projection != 'out' else (columns, width)
      yield (
          (name, projection, 'kernel'),
          Array(shape, f'{i}.{hf_name}.{letter}.weight', True),
      )
  i = len(attentions)
  yield (
      (network.NORMS['mlp'], 'scale'),
      Array((width,), f'{i}.layer_norm.weight', False),
  )
  is_gated = len(config.mlp_activations) > 1
  for name in ('wi_0', 'wi_1', 'wo') if is_gated else ('wi', 'wo'):
    shape = (width, config.mlp_dim)
    yield (
        ('mlp', name, 'kernel'),
        Array(
            shape[::-1] if name == 'wo' else shape,
            f'{i}.DenseReluDense.{name}.weight',
            True,
        ),
    )


def check_arrays(
    flat: Mapping[Path, Any],
    config: T5Config,
    where: Any,
    rest: str = 'the checkpoint is damaged or of another model',
) -> None:
  """Raises UserError for an array that is missing, misshapen or no floats.

  Further arrays are nobody's business here.

  Args:
    flat: parameters by path.
    config: of the model.
    where: the checkpoint's folder, for the message.
    rest: of the message.
  """
  for path, array in arrays(config).items():
    got = tuple(flat[path].shape) if path in flat else 'none'
    if got != array.shape:
      raise UserError(
          f'expected {"/".join(path)} of shape {array.shape} in {where}, as its'
          f' configuration says, got {got}; {rest}'
      )
    dtype = flat[path].dtype
    if not jnp.issubdtype(dtype, jnp.floating):
      raise UserError(
          f'expected {"/".join(path)} of floating point in {where}, got'
          f' {jnp.dtype(dtype).name}; {rest}'
      )
