# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss curve on meshes of 8 simulated devices equals one device's.

The devices are simulated in a process of their own, this same file run as a
program, since their number is fixed when jax starts.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEPS = 4


def losses(model_axis: int, num_kv_heads: int) -> list[float]:
  import jax

  from gqa_t5x.engine import optimizer
  from gqa_t5x.engine import train_step
  from tests.engine import conftest

  config = train_step.StepConfig(
      model_axis=model_axis, schedule=optimizer.Schedule('constant', 0.05)
  )
  model = conftest.make_model(
      num_heads=8, num_kv_heads=num_kv_heads, dropout_rate=0.1
  )
  trainer = train_step.Trainer(model, config)
  state, curve = trainer.initial_state(0), []
  kernel = state.params['decoder']['layers_0']['self_attention']['key'][
      'kernel'
  ]
  is_split = num_kv_heads % model_axis == 0
  assert kernel.sharding.shard_shape(kernel.shape) == (
      24,
      num_kv_heads * 4 // (model_axis if is_split else 1),
  )
  rng = np.random.default_rng(0)
  for _ in range(STEPS):
    tokens = rng.integers(1, 48, (8, 7)).astype(np.int32)
    batch = {
        'encoder_input_tokens': tokens,
        'decoder_input_tokens': np.roll(tokens, 1, 1),
        'decoder_target_tokens': tokens,
    }
    state, metrics = trainer.step(state, batch, jax.random.key(0))
    curve.append(float(metrics['loss']))
  return curve


def run(devices: int, cases: list[tuple[int, int]]) -> list[list[float]]:
  env = os.environ | {
      # Compiling is nearly all of the time.
      'XLA_FLAGS': (
          f'--xla_force_host_platform_device_count={devices}'
          ' --xla_backend_optimization_level=0'
      ),
      'JAX_PLATFORMS': 'cpu',
  }
  done = subprocess.run(
      [sys.executable, '-m', __name__, json.dumps(cases)],
      env=env,
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_loss_curve_does_not_depend_on_the_mesh():
  # An axis of 4 or 8 does not divide K = 1 and 2, which are replicated there.
  cases = [(2, 2), (4, 1), (8, 2)]
  alone = dict(zip((1, 2), run(1, [(1, k) for k in (1, 2)])))
  for (model_axis, heads), curve in zip(cases, run(8, cases)):
    np.testing.assert_allclose(
        curve, alone[heads], rtol=2e-4, err_msg=f'{model_axis=} {heads=}'
    )


if __name__ == '__main__':
  print(json.dumps([losses(*case) for case in json.loads(sys.argv[1])]))
