# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The real t5x trains as the embedded engine does, on meshes of any shape.

Same parameters, same batches: same losses. t5x puts all CPU devices on the
model axis, so each number of simulated devices is a process of its own, this
same file run as a program.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = [pytest.mark.t5x, pytest.mark.slow]

STEPS = 5
# Adafactor's first step is the gradient's sign: where that is rounding noise,
# so is the step, and a large rate lets it grow from step to step.
BASE, WARMUP = 0.03, 900  # BASE / sqrt(step) is some 0.001.
START = 1000  # The step of the parameters, with which slots start anew.
BATCH = 8


def make_config(num_kv_heads: int):
  from gqa_t5x.network import T5Config

  return T5Config(
      vocab_size=256,  # Some kernels are factored by Adafactor, others not.
      emb_dim=128,
      num_heads=8,
      num_kv_heads=num_kv_heads,
      num_encoder_layers=1,
      num_decoder_layers=1,
      head_dim=16,
      mlp_dim=136,
      mlp_activations=('gelu', 'linear'),
      dropout_rate=0.0,
  )


def batches():
  rng = np.random.default_rng(0)
  for _ in range(STEPS):
    inputs = rng.integers(2, 256, (BATCH, 11)).astype(np.int32)
    targets = rng.integers(2, 256, (BATCH, 7)).astype(np.int32)
    inputs[1, 8:] = targets[2, 5:] = 0
    decoder_inputs = np.roll(targets, 1, 1)
    decoder_inputs[:, 0] = 0
    yield {
        'encoder_input_tokens': inputs,
        'decoder_input_tokens': decoder_inputs,
        'decoder_target_tokens': targets,
        'decoder_loss_weights': (targets > 0).astype(np.float32),
    }


def t5x_losses(num_kv_heads: int, model_axis: int) -> list[float]:
  """Loss a token before each step, by t5x's own trainer."""
  import logging

  import flax
  import jax
  import seqio
  from t5x import adafactor
  from t5x import trainer as trainer_lib
  from t5x import utils

  from gqa_t5x import t5x_plugin
  from gqa_t5x.network import Transformer
  from tests import hf_reference

  config = make_config(num_kv_heads)
  vocabulary = seqio.PassThroughVocabulary(256, eos_id=1)
  model = t5x_plugin.EncoderDecoderModel(
      module=Transformer(config),
      input_vocabulary=vocabulary,
      output_vocabulary=vocabulary,
      optimizer_def=adafactor.Adafactor(
          decay_rate=0.8,
          step_offset=START,
          logical_factor_rules=adafactor.standard_logical_factor_rules(),
      ),
      z_loss=1e-4,
      loss_normalizing_factor=None,
  )
  said = []
  handler = logging.Handler()
  handler.emit = lambda record: said.append(record.getMessage())
  logging.getLogger('gqa_t5x.t5x_plugin').addHandler(handler)
  logging.getLogger('gqa_t5x.t5x_plugin').setLevel(logging.INFO)
  partitioner = t5x_plugin.PjitPartitioner(config, num_partitions=1)
  assert partitioner.mesh.shape['model'] == model_axis
  is_split = num_kv_heads % model_axis == 0
  assert any('replicated' in line for line in said) == (not is_split), said
  features = next(batches())
  initializer = utils.TrainStateInitializer(
      optimizer_def=model.optimizer_def,
      init_fn=model.get_initial_variables,
      input_shapes={name: x.shape for name, x in features.items()},
      input_types={name: x.dtype for name, x in features.items()},
      partitioner=partitioner,
  )
  state = initializer.from_scratch(jax.random.key(0))
  params = hf_reference.random_params(config, seed=3)
  params = jax.tree.map(
      lambda new, old: jax.device_put(new, old.sharding),
      params,
      flax.core.unfreeze(state.params),
  )
  state = state.replace_params(flax.core.freeze(params))
  state = state.replace_step(
      jax.device_put(np.int32(START), state.step.sharding)
  )
  trainer = trainer_lib.Trainer(
      model=model,
      train_state=state,
      partitioner=partitioner,
      eval_names=[],
      summary_dir=None,
      train_state_axes=initializer.train_state_axes,
      rng=jax.random.PRNGKey(0),
      learning_rate_fn=utils.create_learning_rate_scheduler(
          factors='constant * rsqrt_decay',
          base_learning_rate=BASE,
          warmup_steps=WARMUP,
      ),
      num_microbatches=None,
  )
  curve = []
  for batch in batches():
    metrics = trainer.train(iter([batch]), num_steps=1).result()
    curve.append(float(metrics['loss_per_nonpadding_target_token'].value))
  return curve


def own_losses(num_kv_heads: int) -> list[float]:
  """The same by the embedded engine, on one device."""
  from gqa_t5x.engine import losses
  from gqa_t5x.engine import optimizer
  from gqa_t5x.engine import train_step
  from gqa_t5x.network import Transformer
  from tests import hf_reference

  config = make_config(num_kv_heads)
  trainer = train_step.Trainer(
      Transformer(config),
      train_step.StepConfig(
          schedule=optimizer.Schedule('rsqrt', BASE, WARMUP),
          loss=losses.LossConfig(z_loss=1e-4),
      ),
  )
  state = trainer.state_from(hf_reference.random_params(config, seed=3), START)
  curve = []
  for batch in batches():
    state, metrics = trainer.step(state, batch)
    curve.append(float(metrics['loss'] / metrics['target_tokens']))
  return curve


def run(model_axis: int, heads: list[int]) -> list[list[float]]:
  done = subprocess.run(
      [sys.executable, '-m', __name__, str(model_axis), json.dumps(heads)],
      env=os.environ | {
          'XLA_FLAGS': '--xla_force_host_platform_device_count='
          f'{model_axis} --xla_backend_optimization_level=0',
          'JAX_PLATFORMS': 'cpu',
      },
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def embedded():
  return {heads: own_losses(heads) for heads in (1, 2, 8)}


@pytest.mark.parametrize('model_axis', [1, 2, 4, 8])
def test_losses_are_those_of_the_embedded_engine(embedded, model_axis):
  for heads, curve in zip(embedded, run(model_axis, list(embedded))):
    np.testing.assert_allclose(
        curve, embedded[heads], rtol=1e-5, err_msg=f'{heads=}'
    )


if __name__ == '__main__':
  axis, kv_heads = int(sys.argv[1]), json.loads(sys.argv[2])
  print(json.dumps([t5x_losses(heads, axis) for heads in kv_heads]))
