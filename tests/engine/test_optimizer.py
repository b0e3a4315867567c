# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Schedules by hand; Adafactor against its paper's equations and t5x."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gqa_t5x.engine import optimizer
from gqa_t5x.errors import UserError


@pytest.mark.parametrize(
    ('step', 'rate'),
    [(0, 1e-2), (9_999, 1e-2), (40_000, 5e-3), (1_000_000, 1e-3)],
)
def test_rsqrt(step, rate):
  np.testing.assert_allclose(optimizer.Schedule()(step), rate, rtol=1e-6)


def test_constant_with_linear_warmup():
  schedule = optimizer.Schedule('constant', 1e-3, linear_warmup_steps=10)
  np.testing.assert_allclose(
      [schedule(step) for step in (0, 5, 10, 100)], [0, 5e-4, 1e-3, 1e-3]
  )
  later = schedule.of_run(90, 200)
  assert later.of_run(0, 100) == later
  np.testing.assert_allclose(
      [later(step) for step in (0, 90, 95, 100)], [0, 0, 5e-4, 1e-3], rtol=1e-6
  )


def test_linear_decay():
  schedule = optimizer.Schedule(
      'constant', 1e-2, linear_decay_steps=10, last_step=100
  )
  np.testing.assert_allclose(
      [schedule(step) for step in (0, 90, 95, 99, 100, 101)],
      [1e-2, 1e-2, 5e-3, 1e-3, 0, 0], rtol=1e-6,
  )  # pyformat: disable


def test_linear_decay_to_where_a_run_ends():
  schedule = optimizer.Schedule('constant', 1e-2, linear_decay_steps=10)
  with pytest.raises(UserError, match='set Schedule.last_step'):
    schedule(95)
  np.testing.assert_allclose(schedule.of_run(0, 100)(95), 5e-3, rtol=1e-6)
  named = optimizer.Schedule(linear_decay_steps=10, last_step=90)
  assert named.of_run(0, 100) == named
  # Others share a compiled step, wherever they begin and end.
  assert optimizer.Schedule().of_run(50, 100) == optimizer.Schedule()


def test_unknown_schedule():
  with pytest.raises(UserError, match="choose 'rsqrt' or 'constant'"):
    optimizer.Schedule('cosine')


def make_steps():
  """Parameters, one of them large enough to be factored, and gradients."""
  rng = np.random.default_rng(0)
  shapes = {'kernel': (128, 131), 'scale': (5,), 'small': (8, 32)}
  params = {k: rng.normal(0, 0.5, s) for k, s in shapes.items()}
  grads = [
      {k: rng.normal(0, 10.0 ** rng.uniform(-4, 1), s)
       for k, s in shapes.items()}
      for _ in range(4)
  ]
  return jax.tree.map(np.float32, (params, grads))


def run(params, grads, rate):
  made = optimizer.make_optimizer()
  state = made.init(params)
  for grad in grads:
    updates, state = made.update(grad, state, params)
    params = optax.apply_updates(
        params, jax.tree.map(lambda u: rate * u, updates)
    )
  return params


def by_hand(params, grads, rate):
  """Algorithms 4 and 5 of Shazeer and Stern (2018), in float64."""
  params = jax.tree.map(np.float64, params)
  rows, cols, full = {}, {}, {}
  for t, grad in enumerate(grads, 1):
    decay = 1 - t**-0.8
    for name, g in grad.items():
      square = np.float64(g) ** 2 + 1e-30
      if min(square.shape) >= 128:
        rows[name] = decay * rows.get(name, 0) + (1 - decay) * square.mean(1)
        cols[name] = decay * cols.get(name, 0) + (1 - decay) * square.mean(0)
        r, c = rows[name], cols[name]
        second = np.outer(r, c) / r.mean()
      else:
        full[name] = decay * full.get(name, 0) + (1 - decay) * square
        second = full[name]
      update = g / np.sqrt(second)
      update /= max(1.0, np.sqrt((update**2).mean()))
      scale = max(1e-3, np.sqrt((params[name] ** 2).mean()))
      params[name] = params[name] - rate * scale * update
  return params


def test_adafactor_by_hand():
  params, grads = make_steps()
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      run(params, grads, 0.05),
      by_hand(params, grads, 0.05),
  )


@pytest.mark.t5x
def test_adafactor_equals_t5x():
  adafactor = pytest.importorskip('t5x.adafactor')
  params, grads = make_steps()
  theirs = adafactor.Adafactor(
      learning_rate=0.05, decay_rate=0.8, step_offset=0
  )
  state, got = theirs.init_state(params), params
  for grad in grads:
    got, state = theirs.apply_gradient(
        theirs.hyper_params, got, state, jax.tree.map(jnp.asarray, grad)
    )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      run(params, grads, 0.05),
      dict(got),
  )


def test_gradients_are_clipped_by_their_global_norm():
  params, grads = {'x': jnp.ones(3)}, {'x': jnp.array([3.0, 4.0, 0.0])}
  clipped = optimizer.make_optimizer(clip_norm=1.0)
  state = clipped.init(params)
  _, state = clipped.update(grads, state, params)
  second = [s.v['x'] for s in jax.tree.leaves(
      state, is_leaf=lambda s: hasattr(s, 'v')) if hasattr(s, 'v')][0]
  np.testing.assert_allclose(second, [0.36, 0.64, 0.0], rtol=1e-5, atol=1e-9)
