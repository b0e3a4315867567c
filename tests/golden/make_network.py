# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes network.json and network.npz: what t5x and Hugging Face T5 compute.

Needs t5x, torch and transformers. From the repository's root:

  python -m tests.golden.make_network

Parameters and inputs are random and made again by the tests; the files hold
t5x's parameter tree (shapes, dtypes, logical axes) and logits only. Where t5x
or torch is importable, the tests ask it again.
"""

import json
import pathlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.network import T5Config
from tests import hf_reference

TREE_PATH = pathlib.Path(__file__).with_name('network.json')
LOGITS_PATH = pathlib.Path(__file__).with_name('network.npz')
SEED = 11


def configs():
  """Returns the multi-head models by name."""
  versions = {
      't5_1_1': dict(mlp_activations=('gelu', 'linear')),
      't5_1_0': dict(mlp_activations=('relu',), logits_via_embedding=True),
  }
  return {
      version: T5Config(
          vocab_size=41,
          emb_dim=13,
          num_heads=6,
          num_encoder_layers=3,
          num_decoder_layers=2,
          head_dim=5,
          mlp_dim=17,
          **fields,
      )
      for version, fields in versions.items()
  }


def random_params(config: T5Config):
  """Random parameters at the scale at which T5 starts its training.

  Larger ones make attention so sharp that float32 rounding alone moves the
  logits by more than the tests allow.
  """

  def scaled(path, leaf):
    if path[-1] == 'rel_embedding':
      return leaf / 4
    if path[-1] != 'kernel':
      return leaf
    is_query = path[-2] == 'query'
    return leaf / 1.5 / (np.sqrt(config.head_dim) if is_query else 1.0)

  params = hf_reference.random_params(config, SEED)
  return traverse_util.path_aware_map(scaled, params)


def batch(packed: bool):
  """Returns the arguments of `Transformer.__call__`.

  Lengths exceed 128, the largest distance with a bucket of its own. Packed
  rows hold two examples each.
  """
  random = np.random.RandomState(SEED)
  inputs = random.randint(1, 41, (3, 149)).astype(np.int32)
  targets = random.randint(1, 41, (3, 137)).astype(np.int32)
  inputs[1, 90:], targets[2, 71:] = 0, 0
  features = dict(
      encoder_input_tokens=inputs,
      decoder_input_tokens=np.pad(targets[:, :-1], ((0, 0), (1, 0))),
      decoder_target_tokens=targets,
  )
  if packed:
    features['encoder_segment_ids'] = 1 + (np.arange(149) >= 70) * (inputs > 0)
    features['decoder_segment_ids'] = 1 + (np.arange(137) >= 60) * (targets > 0)
    features['encoder_segment_ids'][inputs == 0] = 0
    features['decoder_segment_ids'][targets == 0] = 0
  return {name: jnp.asarray(value) for name, value in features.items()}


def t5x_model(config: T5Config):
  """Returns t5x's own module of the same multi-head configuration."""
  from t5x.examples.t5 import network as t5x_network

  fields = config.to_dict()
  del fields['num_kv_heads']
  return t5x_network.Transformer(t5x_network.T5Config(**fields))


def parameter_tree(module):
  """Returns {path: [shape, dtype, logical axes]} of a module."""
  tokens = jnp.ones((2, 3), jnp.int32)
  variables = jax.eval_shape(
      lambda: module.init(
          jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
      )
  )
  axes = traverse_util.flatten_dict(variables['params_axes'], sep='/')
  return {
      path: [
          list(leaf.shape),
          str(leaf.dtype),
          list(axes[f'{path}_axes'].names),
      ]
      for path, leaf in sorted(
          traverse_util.flatten_dict(variables['params'], sep='/').items()
      )
  }


def t5x_logits(config: T5Config, packed: bool):
  params = random_params(config)
  return t5x_model(config).apply(
      {'params': params}, **batch(packed), enable_dropout=False
  )


def hf_logits(config: T5Config):
  """Logits of Hugging Face for the rows that are not packed."""
  import torch

  params = random_params(config)
  features = {
      name: torch.from_numpy(np.array(value)).long()
      for name, value in batch(packed=False).items()
  }
  with torch.no_grad():
    return (
        hf_reference.params_to_hf(params, config)(
            input_ids=features['encoder_input_tokens'],
            attention_mask=(features['encoder_input_tokens'] > 0).long(),
            decoder_input_ids=features['decoder_input_tokens'],
        )
        .logits.numpy()
    )


def main():
  trees, logits = {}, {}
  for name, config in configs().items():
    trees[name] = parameter_tree(t5x_model(config))
    for packed in (False, True):
      logits[f't5x/{name}/{"packed" if packed else "plain"}'] = t5x_logits(
          config, packed
      )
    logits[f'hf/{name}'] = hf_logits(config)
  TREE_PATH.write_text(json.dumps(trees, indent=1) + '\n')
  # Every eighth position is enough, and keeps the file small.
  np.savez_compressed(
      LOGITS_PATH, **{k: np.asarray(v)[:, ::8] for k, v in logits.items()}
  )


if __name__ == '__main__':
  main()
