# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times training steps: MHA, GQA and MQA, and other programs beside them.

Ours and t5x's own network run in the embedded engine's loop, with its
optimizer; Hugging Face's in PyTorch, with PyTorch's Adafactor. All on the same
batches without padding. Utilisation is the share of what a large matrix product
of JAX reaches in the same run.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import network
from gqa_t5x import sizes
from gqa_t5x.benchmark import peers as peers_lib
from gqa_t5x.checkpoints import names
from gqa_t5x.engine import partitioning
from gqa_t5x.engine import train_step

_Step = Callable[[Mapping[str, np.ndarray]], float]


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
  matrices = {
      path: int(np.prod(array.shape))
      for path, array in names.arrays(config).items()
      if path[-1] in ('kernel', 'embedding')
  }
  encoder, cross_kv, decoder = (
      sum(part.values()) for part in sizes.parts(matrices)
  )
  pairs = config.num_encoder_layers * input_length**2
  pairs += config.num_decoder_layers * target_length * (
      target_length + input_length
  )
  forward = (
      2 * input_length * (encoder + cross_kv)
      + 2 * target_length * decoder
      + 4 * config.num_heads * config.head_dim * pairs
  )
  return 3.0 * batch_size * forward


def measure_flops(dtype: Any) -> float:
  """Returns operations a second of a product [4096, 4096]^2, best of three."""
  size = 4096
  matrix = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(matrix, matrix))
  times = []
  for _ in range(3):
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
    against: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """Times steps of several models, in turn within each repeat.

  A turn is two steps, of which the second counts: in training too a step
  follows one of the same model, and finds its memory as that left it.

  Args:
    configs: name -> configuration. Dropout is left out of all of them, since
      each program would draw its own.
    batch_size: rows.
    input_length: tokens of a row, none of them padding.
    target_length: likewise.
    num_repeats: steps of each that count, after two turns, of which the first
      compiles.
    against: peers to time too: 't5x', its own network, and 'hf', PyTorch. They
      have the multi-head model, which is then timed in any case, and its first
      step has to have the same loss.
    seed: of batches and parameters.

  Returns:
    name -> dict with seconds_per_step, the median of seconds_per_step_repeats,
    and their spread, (longest - shortest) / median; tokens_per_second, inputs
    and targets; warm_up_seconds, with compilation;
    model_flops, see there; utilisation, of `measured_flops`; num_kv_heads,
    batch_size, input_length, target_length, dtype. All models are in memory.

  Raises:
    UserError: if there is no such peer, it is not installed, or it cannot run
      the model.
    RuntimeError: if a peer's first loss is another.
  """
  partitioning.check_rows(batch_size, partitioning.make_mesh())
  peers_lib.check(_PEERS, against, next(iter(configs.values())))
  shape = {
      'batch_size': batch_size,
      'input_length': input_length,
      'target_length': target_length,
  }
  of = {
      name: dataclasses.replace(config, dropout_rate=0.0)
      for name, config in configs.items()
  }
  if against:
    first = next(iter(of.values()))
    multi_head = f'K={first.num_heads}'
    of.setdefault(
        multi_head, dataclasses.replace(first, num_kv_heads=first.num_heads)
    )
    of |= {name: of[multi_head] for name in against}
  steps = {
      name: _step(network.Transformer(config), seed)
      for name, config in of.items()
      if name not in against
  }
  if against:
    steps |= _peers(against, of[multi_head], seed)
  rng = np.random.default_rng(seed)
  times, warm_up = {name: [] for name in steps}, {}
  for repeat in range(num_repeats + 2):
    batch = _batch(rng, next(iter(configs.values())).vocab_size, **shape)
    losses = {}
    for name, step in steps.items():
      start = time.perf_counter()
      losses[name] = step(batch)
      middle = time.perf_counter()
      step(batch)
      if repeat == 0:
        warm_up[name] = middle - start
      elif repeat > 1:
        times[name].append(time.perf_counter() - middle)
    for name in against:
      ours, theirs = losses[multi_head], losses[name]
      if repeat == 0 and not abs(ours - theirs) <= 1e-4 * ours:
        raise RuntimeError(
            f'{name} has a loss of {theirs:.4f} where ours has {ours:.4f};'
            ' timing it would compare different work'
        )
  dtypes = {jnp.dtype(config.dtype).name for config in of.values()}
  peak = {dtype: measure_flops(dtype) for dtype in dtypes}
  found = {}
  for name, seconds in times.items():
    median = float(np.median(seconds))
    flops = model_flops(of[name], **shape)
    dtype = jnp.dtype(of[name].dtype).name
    found[name] = {
        'seconds_per_step': median,
        'seconds_per_step_repeats': seconds,
        'spread': float(np.ptp(seconds) / median),
        'tokens_per_second': (
            batch_size * (input_length + target_length) / median
        ),
        'warm_up_seconds': warm_up[name],
        'model_flops': flops,
        'measured_flops': peak[dtype],
        'utilisation': flops / median / peak[dtype],
        'num_kv_heads': of[name].num_kv_heads,
        'dtype': dtype,
        **shape,
    }
  return found


def _step(model: Any, seed: int, params: Any = None) -> _Step:
  """Returns what takes a step from a batch to its loss, nats a token."""
  trainer = train_step.trainer_for(model, train_step.StepConfig())
  if params is None:
    state = trainer.initial_state(seed)
  else:
    state = trainer.state_from(params, 0)

  key = jax.random.key(seed)

  def step(batch):
    nonlocal state
    state, metrics = trainer.step(state, batch, key)
    jax.block_until_ready((state.params, metrics))
    # What others report has no z-loss in it.
    loss = float(metrics['loss'] - metrics['z_loss'])
    return loss / batch['decoder_target_tokens'].size

  return step


def _peers(
    against: Sequence[str], config: network.T5Config, seed: int
) -> dict[str, _Step]:
  """Returns the peers' steps, from the parameters that ours starts with."""
  model = network.Transformer(config)
  trainer = train_step.trainer_for(model, train_step.StepConfig())
  params = jax.device_get(trainer.initial_state(seed).params)
  with tempfile.TemporaryDirectory() as folder:
    return peers_lib.load(_PEERS, against, config, params, folder)


def _t5x(config, params, folder) -> _Step:
  del folder
  from gqa_t5x import t5x_plugin

  return _step(t5x_plugin.own_network(config), 0, params)


def _hf(config, params, folder) -> _Step:
  """PyTorch's Adafactor has T5's defaults but for the rate, which it scales."""
  import torch

  model = peers_lib.hf_model(config, params, folder).train()
  optimizer = torch.optim.Adafactor(model.parameters(), lr=1e-2)

  def step(batch):
    inputs, decoder_inputs, targets = (
        torch.from_numpy(batch[name].astype(np.int64))
        for name in (
            'encoder_input_tokens',
            'decoder_input_tokens',
            'decoder_target_tokens',
        )
    )
    loss = model(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        decoder_input_ids=decoder_inputs,
        labels=targets,
    ).loss
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()

  return step


_PEERS = {'hf': _hf, 't5x': _t5x}


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
