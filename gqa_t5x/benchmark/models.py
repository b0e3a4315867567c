# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sizes of T5.1.1, as configurations."""

import jax.numpy as jnp

from gqa_t5x.errors import UserError
from gqa_t5x.experiments import paper
from gqa_t5x.network import T5Config

# The paper's, and the least that runs: `gin_configs/models/t5_1_1_tiny.gin`.
SIZES = (
    paper.ModelSize('tiny', 8, 16, 4, 2, head_dim=3),
    *paper.MODEL_SIZES,
)


def t5_1_1_config(model: str, num_kv_heads: int | None) -> T5Config:
  """Returns the configuration of a size, with bfloat16 activations.

  Raises:
    UserError: if there is no such size, or the heads do not divide.
  """
  sizes = {size.name: size for size in SIZES}
  if model not in sizes:
    raise UserError(
        f'expected a model of {", ".join(sizes)}, got {model!r}; choose one of'
        ' them'
    )
  size = sizes[model]
  return T5Config(
      vocab_size=paper.VOCAB_SIZE,
      dtype=jnp.bfloat16,
      emb_dim=size.emb_dim,
      num_heads=size.num_heads,
      num_kv_heads=num_kv_heads,
      num_encoder_layers=size.num_layers,
      num_decoder_layers=size.num_layers,
      head_dim=size.head_dim,
      mlp_dim=size.mlp_dim,
      mlp_activations=('gelu', 'linear'),
      dropout_rate=0.0,  # As pre-trained, and so as uptrained.
  )
