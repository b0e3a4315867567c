# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes t5x_checkpoints.tar.xz: checkpoints of the real t5x, all small.

Needs t5x. From the repository's root:

  python -m tests.golden.make_t5x_checkpoints

  legacy/checkpoint_7    t5x's own format, with Adafactor's state
  bfloat16/checkpoint_7  the same in bfloat16, without optimizer state
  orbax/checkpoint_7     the format of t5x.train, without optimizer state, which
                         takes 100 KB even of the smallest model

The values are random and made again by the tests. Where t5x is importable,
the tests have it write larger ones anew.
"""

import pathlib
import tempfile

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.network import T5Config
from tests import golden
from tests import hf_reference
from tests.golden import make_network

PATH = pathlib.Path(__file__).with_name('t5x_checkpoints.tar.xz')
STEP = 7
CONFIG = T5Config(
    vocab_size=19,
    emb_dim=7,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=3,
    mlp_dim=5,
    mlp_activations=('gelu', 'linear'),
)


def random_params(config: T5Config):
  return hf_reference.random_params(config, seed=5)


def random_param_states(param_states):
  """Returns positive values in place of those that are in use.

  Args:
    param_states: as t5x initialises them; slots of shape [1] are not in use.
  """
  flat = traverse_util.flatten_dict(param_states)
  random = np.random.RandomState(3)
  return traverse_util.unflatten_dict({
      path: np.zeros(1, np.float32)
      if flat[path].shape == (1,)
      else random.uniform(0.5, 2.0, flat[path].shape).astype(np.float32)
      for path in sorted(flat)
  })


def train_state(module, params=None, with_optimizer=True):
  """Returns t5x's train state at STEP around a module's parameters.

  Args:
    module: of t5x's contract.
    params: nested dict; None is zeros.
    with_optimizer: whether it has Adafactor's state, of random values.
  """
  from flax.core import freeze
  from t5x import adafactor
  from t5x import train_state as train_state_lib

  tokens = jnp.ones((1, 1), jnp.int32)
  variables = jax.eval_shape(
      lambda: module.init(
          jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
      )
  )
  if params is None:
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables['params']
    )
  variables = freeze({
      'params': jax.tree.map(jnp.asarray, params),
      'params_axes': variables['params_axes'],
  })
  step = jnp.asarray(STEP, jnp.int32)
  if not with_optimizer:
    state = train_state_lib.InferenceState.create(variables)
    return state.replace_step(step)
  state = train_state_lib.FlaxOptimTrainState.create(
      adafactor.Adafactor(
          learning_rate=1.0,
          logical_factor_rules=adafactor.standard_logical_factor_rules(),
      ),
      variables,
  )
  state_dict = state.state_dict()
  state_dict['state'] = {
      'step': step,
      'param_states': jax.tree.map(
          jnp.asarray, random_param_states(state_dict['state']['param_states'])
      ),
  }
  return state.restore_state(state_dict)


def checkpointer(kind: str, folder: str, state, **kwargs):
  """Returns what t5x saves and restores with: 'legacy' or 'orbax'."""
  from t5x import checkpoints
  from t5x import partitioning

  cls = {
      'legacy': checkpoints.Checkpointer,
      'orbax': checkpoints.OrbaxCheckpointManagerInterface,
  }[kind]
  shapes = jax.eval_shape(lambda: state)
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  # Their second and third arguments are the other way round.
  return cls(
      train_state=shapes,
      partitioner=partitioner,
      **{'checkpoints_dir' if kind == 'legacy' else 'directory': folder},
      **kwargs,
  )


def write(kind: str, folder: pathlib.Path, state, dtype=jnp.float32):
  """Has t5x save a train state in a folder; returns the checkpoint's path."""
  folder.mkdir(parents=True)
  saver = checkpointer(kind, str(folder), state, save_dtype=dtype)
  saver.save(state)
  if kind == 'orbax':
    saver.wait_until_finished()
    saver.close()
  return folder / f'checkpoint_{STEP}'


def write_all(folder: pathlib.Path) -> None:
  """Writes the three checkpoints listed above."""
  module = make_network.t5x_model(CONFIG)
  params = random_params(CONFIG)
  write('legacy', folder / 'legacy', train_state(module, params))
  state = train_state(module, params, with_optimizer=False)
  write('legacy', folder / 'bfloat16', state, jnp.bfloat16)
  write('orbax', folder / 'orbax', state)


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as scratch:
    write_all(pathlib.Path(scratch))
    golden.pack(PATH, pathlib.Path(scratch), ('legacy', 'bfloat16', 'orbax'))
