# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times training steps: MHA, GQA and MQA, and t5x's own network beside them.

All run in the embedded engine's loop, with its optimizer, on the same batches
without padding. Utilisation is the share of what a large matrix product reaches
in the same run.
"""

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import network
from gqa_t5x.checkpoints import names
from gqa_t5x.engine import train

_T5X = 't5x'


def model_flops(
    config: network.T5Config,
    *,
    batch_size: int,
    input_length: int,
    target_length: int,
) -> float:
  """Returns the operations of a step's matrix products.

  Three times those of the forward pass: 2 a parameter and token, and 4 a head's
  width for each pair of positions of an attention, of which the decoder's own
  computes all.
  """
  sizes = {'encoder': 0, 'decoder': 0, 'cross': 0}
  for path, array in names.arrays(config).items():
    if path[-1] != 'kernel':
      continue
    is_cross = path[-3:-1] in (
        ('encoder_decoder_attention', 'key'),
        ('encoder_decoder_attention', 'value'),
    )
    sizes['cross' if is_cross else path[0]] += int(np.prod(array.shape))
  if config.logits_via_embedding:
    sizes['decoder'] += config.vocab_size * config.emb_dim
  pairs = config.num_encoder_layers * input_length**2
  pairs += config.num_decoder_layers * target_length * (
      target_length + input_length
  )
  forward = (
      2 * input_length * (sizes['encoder'] + sizes['cross'])
      + 2 * target_length * sizes['decoder']
      + 4 * config.num_heads * config.head_dim * pairs
  )
  return 3.0 * batch_size * forward


def measure_flops(size: int = 4096, num_repeats: int = 3) -> float:
  """Returns operations a second of a float32 product [size, size]^2."""
  matrix = jnp.ones((size, size), jnp.float32)
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(matrix, matrix))
  times = []
  for _ in range(num_repeats):
    start = time.perf_counter()
    jax.block_until_ready(product(matrix, matrix))
    times.append(time.perf_counter() - start)
  return 2 * size**3 / min(times)


def compare_train(
    configs: Mapping[str, network.T5Config],
    *,
    batch_size: int,
    input_length: int,
    target_length: int,
    num_repeats: int = 5,
    against_t5x: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Times steps of several models, in turn within each repeat.

  Args:
    configs: name -> configuration.
    batch_size: rows.
    input_length: tokens of a row, none of them padding.
    target_length: likewise.
    num_repeats: steps that count, after one that compiles and one more.
    against_t5x: whether t5x's own network is timed too, with the first
      configuration, as multi-head attention.
    seed: of batches and parameters.

  Returns:
    name -> dict with seconds_per_step, the median of seconds_per_step_repeats;
    tokens_per_second, inputs and targets; warm_up_seconds, with compilation;
    model_flops, see there; utilisation, of `measured_flops`; num_kv_heads,
    batch_size, input_length, target_length, dtype. All models are in memory.

  Raises:
    ImportError: if t5x is wanted and not installed.
  """
  shape = {
      'batch_size': batch_size,
      'input_length': input_length,
      'target_length': target_length,
  }
  models = {name: network.Transformer(c) for name, c in configs.items()}
  of = dict(configs)
  if against_t5x:
    from gqa_t5x import t5x_plugin

    first = next(iter(configs.values()))
    of[_T5X] = dataclasses.replace(first, num_kv_heads=first.num_heads)
    models[_T5X] = t5x_plugin.own_network(first)
  config = train.TrainConfig(model_dir='', total_steps=0, seed=seed)
  trainers = {
      name: train.trainer_for(model, config) for name, model in models.items()
  }
  states = {name: t.initial_state() for name, t in trainers.items()}
  rng = np.random.default_rng(seed)
  times, warm_up = {name: [] for name in models}, {}
  for repeat in range(num_repeats + 2):
    batch = _batch(rng, next(iter(configs.values())).vocab_size, **shape)
    for name, trainer in trainers.items():
      start = time.perf_counter()
      states[name], metrics = trainer.step(states[name], batch)
      jax.block_until_ready((states[name].params, metrics))
      seconds = time.perf_counter() - start
      if repeat == 0:
        warm_up[name] = seconds
      elif repeat > 1:
        times[name].append(seconds)
  peak = measure_flops()
  found = {}
  for name, seconds in times.items():
    median = float(np.median(seconds))
    flops = model_flops(of[name], **shape)
    found[name] = {
        'seconds_per_step': median,
        'seconds_per_step_repeats': seconds,
        'tokens_per_second': (
            batch_size * (input_length + target_length) / median
        ),
        'warm_up_seconds': warm_up[name],
        'model_flops': flops,
        'measured_flops': peak,
        'utilisation': flops / median / peak,
        'num_kv_heads': of[name].num_kv_heads,
        'dtype': jnp.dtype(of[name].dtype).name,
        **shape,
    }
  return found


def _batch(rng, vocab_size, batch_size, input_length, target_length):
  def tokens(length):
    size = batch_size, length
    return rng.integers(2, vocab_size, size, np.int32)

  targets = tokens(target_length)
  return {
      'encoder_input_tokens': tokens(input_length),
      'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
      'decoder_target_tokens': targets,
      'decoder_loss_weights': np.ones(targets.shape, np.float32),
  }
