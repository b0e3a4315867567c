# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss against numpy by hand, and against the real t5x."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gqa_t5x.engine import losses
from gqa_t5x.errors import UserError

B, T, V = 3, 5, 7

PACKED = {
    'decoder_target_tokens': np.array(
        [[4, 1, 5, 6, 1], [3, 3, 1, 0, 0], [0, 0, 0, 0, 0]]
    ),
    'decoder_loss_weights': np.array(
        [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], np.float32
    ),
    'decoder_segment_ids': np.array(
        [[1, 1, 2, 2, 2], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    ),
    # Which t5x alone looks at.
    'decoder_positions': np.array(
        [[0, 1, 0, 1, 2], [0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]
    ),
}


def make_logits():
  return np.random.default_rng(0).normal(0, 3, (B, T, V)).astype(np.float32)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_token_losses_by_hand(smoothing):
  config = losses.LossConfig(z_loss=0.01, label_smoothing=smoothing)
  logits, targets = make_logits(), PACKED['decoder_target_tokens']
  loss, z_loss = losses.token_losses(logits, targets, config)
  x = logits.astype(np.float64)
  log_z = np.log(np.exp(x).sum(-1))
  off = smoothing / (V - 1)
  labels = np.where(np.arange(V) == targets[..., None], 1 - smoothing, off)
  entropy = -np.where(labels > 0, labels * np.log(labels + 1e-30), 0).sum(-1)
  expected = -(labels * (x - log_z[..., None])).sum(-1) - entropy
  np.testing.assert_allclose(z_loss, 0.01 * log_z**2, rtol=1e-5)
  np.testing.assert_allclose(
      loss, expected + 0.01 * log_z**2, rtol=2e-5, atol=2e-5
  )


@pytest.mark.parametrize('temperature', [1.0, 2.5])
def test_distillation_losses_against_scipy(temperature):
  student, teacher = make_logits(), make_logits()[::-1] * 2
  found = losses.distillation_losses(student, teacher, temperature)
  q, p = (
      np.exp(x.astype(np.float64) / temperature) for x in (student, teacher)
  )
  expected = temperature**2 * stats.entropy(p, q, axis=-1)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'distillation_weight': 1.5}, 'distillation_weight from 0 to 1'),
        ({'temperature': 0.0}, 'temperature above 0'),
    ],
)
def test_distillation_that_cannot_be_is_refused(changes, message):
  with pytest.raises(UserError, match=message):
    losses.LossConfig(**changes)


@pytest.mark.parametrize(
    ('factor', 'normalizer', 'first_weight'),
    [
        (None, 1.0, 1.0),
        (233_472, 233_472.0, 1.0),
        ('NUM_REAL_TARGET_TOKENS', 8.0, 1.0),
        ('NUM_TOTAL_TARGET_TOKENS', 15.0, 1.0),
        # Three segments; the first has two tokens.
        ('AVERAGE_PER_SEQUENCE', 3.0, 0.5),
    ],
)
def test_normalizer_by_hand(factor, normalizer, first_weight):
  got, weights = losses.normalizer_and_weights(
      PACKED, losses.LossConfig(loss_normalizing_factor=factor)
  )
  np.testing.assert_allclose(got, normalizer, rtol=1e-6)
  np.testing.assert_allclose(weights[0, 0], first_weight)
  assert weights[1, 3] == 0.0


def test_unknown_normalizer():
  with pytest.raises(UserError, match='NUM_REAL_TARGET_TOKENS'):
    losses.LossConfig(loss_normalizing_factor='REAL')


@pytest.mark.t5x
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize(
    'factor',
    [None, 11.0, 'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS',
     'AVERAGE_PER_SEQUENCE'],
)
def test_loss_and_gradient_equal_t5x(smoothing, factor):
  theirs = pytest.importorskip('t5x.losses')
  config = losses.LossConfig(1e-2, smoothing, factor)
  batch = {name: jnp.asarray(x) for name, x in PACKED.items()}
  targets = batch['decoder_target_tokens']

  def ours(logits):
    normalizer, weights = losses.normalizer_and_weights(batch, config)
    loss, _ = losses.token_losses(logits, targets, config)
    return jnp.sum(loss * weights) / normalizer

  def of_t5x(logits):
    normalizer, weights = theirs.get_loss_normalizing_factor_and_weights(
        factor, batch
    )
    return theirs.compute_weighted_cross_entropy(
        logits, targets, weights, smoothing, 1e-2, normalizer
    )[0]

  got = jax.value_and_grad(ours)(make_logits())
  want = jax.value_and_grad(of_t5x)(make_logits())
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
      got,
      want,
  )
