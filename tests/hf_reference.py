# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face T5 as a reference: the same parameters in both forms.

Written by hand for the tests, apart from the package's own importer, so that
the two check each other. torch and transformers are imported only where they
are needed; `random_params` and `repeat_kv` work without.
"""

import dataclasses

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.network import T5Config, Transformer

# Where a layer's parts stand in Hugging Face's list of sub-layers.
_SUBLAYERS = {
    'encoder': {
        'attention': (0, 'SelfAttention'),
        'mlp': (1, 'DenseReluDense'),
    },
    'decoder': {
        'self_attention': (0, 'SelfAttention'),
        'encoder_decoder_attention': (1, 'EncDecAttention'),
        'mlp': (2, 'DenseReluDense'),
    },
}
_NORMS = {
    'encoder': {'pre_attention_layer_norm': 0, 'pre_mlp_layer_norm': 1},
    'decoder': {
        'pre_self_attention_layer_norm': 0,
        'pre_cross_attention_layer_norm': 1,
        'pre_mlp_layer_norm': 2,
    },
}
_PROJECTIONS = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}


def hf_name(path):
  """Maps our path, such as ('decoder', 'layers_0', ...), to (name, transposed).

  Returns:
    The key in Hugging Face's state dict, and whether its matrix is transposed.
  """
  if path[0] == 'token_embedder':
    return 'shared.weight', False
  stack, part = path[:2]
  if part == 'logits_dense':
    return 'lm_head.weight', True
  if part == f'{stack}_norm':
    return f'{stack}.final_layer_norm.weight', False
  if part == 'relpos_bias':
    layer = f'{stack}.block.0.layer.0.SelfAttention'
    return f'{layer}.relative_attention_bias.weight', True
  block = f'{stack}.block.{part.removeprefix("layers_")}.layer'
  if path[2] in _NORMS[stack]:
    return f'{block}.{_NORMS[stack][path[2]]}.layer_norm.weight', False
  index, module = _SUBLAYERS[stack][path[2]]
  name = _PROJECTIONS.get(path[3], path[3])
  return f'{block}.{index}.{module}.{name}.weight', True


def param_shapes(config: T5Config):
  """Returns the flat dict of the model's parameter shapes, sorted by path."""
  tokens = jnp.ones((1, 1), jnp.int32)
  variables = jax.eval_shape(
      lambda key: Transformer(config).init(
          key, tokens, tokens, tokens, enable_dropout=False
      ),
      jax.random.key(0),
  )
  flat = traverse_util.flatten_dict(variables['params'])
  return {path: flat[path].shape for path in sorted(flat)}


def random_params(config: T5Config, seed: int):
  """Random parameters that depend on nothing but the arguments.

  `RandomState` never changes its stream, so stored goldens stay valid. All
  parameters are random, norms too, and large enough that outputs vary.
  """
  random = np.random.RandomState(seed)
  flat = {}
  for path, shape in param_shapes(config).items():
    if path[-1] == 'scale':
      value = 1.0 + 0.3 * random.standard_normal(shape)
    elif path[-1] == 'embedding':
      # Small, or a model with tied logits only repeats its last token.
      value = 0.3 * random.standard_normal(shape)
    elif path[-1] == 'rel_embedding':
      value = random.standard_normal(shape)
    else:
      value = 2.0 * random.standard_normal(shape) / np.sqrt(shape[0])
    flat[path] = jnp.asarray(value, jnp.float32)
  return traverse_util.unflatten_dict(flat)


def repeat_kv(params, config: T5Config):
  """Repeats the decoder's K/V heads: params of the multi-head model.

  Returns:
    Parameters for `dataclasses.replace(config, num_kv_heads=None)`, in which
    key/value head n is the n // G-th of `params`.
  """
  group = config.num_heads // config.num_kv_heads
  flat = traverse_util.flatten_dict(params)
  for path, kernel in flat.items():
    if path[0] == 'decoder' and path[-2] in ('key', 'value'):
      heads = np.split(np.asarray(kernel), config.num_kv_heads, axis=1)
      repeated = [head for head in heads for _ in range(group)]
      flat[path] = jnp.asarray(np.concatenate(repeated, axis=1))
  return traverse_util.unflatten_dict(flat)


def hf_to_params(hf_model):
  """Reads the parameters of a `T5ForConditionalGeneration`, K = N."""
  hf_config = hf_model.config
  is_gated = hf_config.is_gated_act
  config = T5Config(
      vocab_size=hf_config.vocab_size,
      emb_dim=hf_config.d_model,
      num_heads=hf_config.num_heads,
      num_encoder_layers=hf_config.num_layers,
      num_decoder_layers=hf_config.num_decoder_layers,
      head_dim=hf_config.d_kv,
      mlp_dim=hf_config.d_ff,
      mlp_activations=('gelu', 'linear') if is_gated else ('relu',),
      # What Hugging Face ties is scaled, and only that.
      logits_via_embedding=hf_config.scale_decoder_outputs,
  )
  state = hf_model.state_dict()
  flat = {}
  for path, shape in param_shapes(config).items():
    name, is_transposed = hf_name(path)
    value = state[name].detach().cpu().numpy()
    value = value.T if is_transposed else value
    assert value.shape == shape, (path, value.shape, shape)
    flat[path] = jnp.asarray(value)
  return traverse_util.unflatten_dict(flat)


def params_to_hf(params, config: T5Config):
  """Builds a float32 `T5ForConditionalGeneration` in eval mode.

  Fewer K/V heads than query heads are repeated, since Hugging Face has none.
  """
  import torch
  import transformers

  params = repeat_kv(params, config)
  config = dataclasses.replace(config, num_kv_heads=None)
  hf_model = transformers.T5ForConditionalGeneration(
      transformers.T5Config(
          vocab_size=config.vocab_size,
          d_model=config.emb_dim,
          d_kv=config.head_dim,
          d_ff=config.mlp_dim,
          num_layers=config.num_encoder_layers,
          num_decoder_layers=config.num_decoder_layers,
          num_heads=config.num_heads,
          feed_forward_proj=(
              'gated-gelu' if len(config.mlp_activations) == 2 else 'relu'
          ),
          tie_word_embeddings=config.logits_via_embedding,
          decoder_start_token_id=0,
      )
  )
  if not config.logits_via_embedding:
    # Transformers 5 ties the two whatever its config says.
    hf_model.lm_head.weight = torch.nn.Parameter(
        torch.empty(config.vocab_size, config.emb_dim)
    )
  state = hf_model.state_dict()
  unset = set(state) - {'encoder.embed_tokens.weight', 'lm_head.weight'}
  unset -= {'decoder.embed_tokens.weight'}
  for path, value in traverse_util.flatten_dict(params).items():
    name, is_transposed = hf_name(path)
    value = np.array(value.T if is_transposed else value)
    assert state[name].shape == value.shape, (path, name)
    state[name].copy_(torch.from_numpy(value))
    unset.discard(name)
  assert not unset, unset
  return hf_model.eval()
