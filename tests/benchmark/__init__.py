# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0

from gqa_t5x.network import T5Config

TINY = T5Config(
    vocab_size=61,
    emb_dim=10,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=7,
    mlp_dim=11,
    mlp_activations=('gelu', 'linear'),
)
