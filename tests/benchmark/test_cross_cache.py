# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Both kinds of step say the same, and only one projects the inputs."""

import numpy as np

from gqa_t5x.benchmark import cross_cache
from gqa_t5x.benchmark import decode
from gqa_t5x.network import T5Config


def test_steps_agree():
  config = T5Config(
      vocab_size=31,
      emb_dim=12,
      num_heads=4,
      num_kv_heads=2,
      num_encoder_layers=1,
      num_decoder_layers=2,
      head_dim=3,
      mlp_dim=8,
      dropout_rate=0.0,
  )
  _, params = decode._prepare(config, None, None, 0)  # pylint: disable=protected-access
  tokens = np.random.default_rng(0).integers(2, 31, (5, 9)).astype(np.int32)
  functions = cross_cache.step_functions(config, params, tokens, 3)
  np.testing.assert_array_equal(
      functions['cached'](), functions['projected']()
  )
