# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5's training loss: cross-entropy with z-loss, in float32.

The definitions, and the names of their options, are those of t5x, but for
distillation, which t5x has not.

Letters of the shapes: B batch, T target length, V vocabulary.
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x.errors import UserError
from gqa_t5x.errors import check_fields
from gqa_t5x.errors import check_limits

Array = jax.Array

_NORMALIZERS = (
    'NUM_REAL_TARGET_TOKENS',
    'NUM_TOTAL_TARGET_TOKENS',
    'AVERAGE_PER_SEQUENCE',
)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What a step minimises, which the metric `loss` of training shows.

  But for the teacher's share, which is `distillation_loss`. `dev/loss` is the
  cross-entropy of the targets alone, without z-loss, label smoothing or
  teacher.

  Attributes:
    z_loss: weight of log(Z)^2, which keeps logits near log-probabilities.
    label_smoothing: probability spread over the wrong tokens.
    loss_normalizing_factor: the summed loss is divided by it: a number, None
      for 1, or the name of one computed from the batch,
      'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS' or
      'AVERAGE_PER_SEQUENCE'. Adafactor does not see the scale but for its
      epsilon; public T5 checkpoints want 2048 * 114 when fine-tuned.
    distillation_weight: share of the loss that asks for a teacher's
      distribution, from 0 to 1; the rest asks for the targets.
    temperature: both models' logits are divided by it for that share.
  """

  z_loss: float = 1e-4
  label_smoothing: float = 0.0
  loss_normalizing_factor: float | str | None = None
  distillation_weight: float = 0.0
  temperature: float = 2.0

  def __post_init__(self):
    check_fields(self)
    factor = self.loss_normalizing_factor
    if isinstance(factor, str) and factor not in _NORMALIZERS:
      raise UserError(
          f'loss_normalizing_factor={factor!r} is unknown; choose a number,'
          f' None or one of {", ".join(_NORMALIZERS)}'
      )
    if not isinstance(factor, str):
      check_limits(self, 'loss_normalizing_factor', above=0)
    check_limits(self, 'z_loss', least=0)
    check_limits(self, 'label_smoothing', least=0, below=1)
    check_limits(self, 'temperature', above=0)
    if not 0 <= self.distillation_weight <= 1:
      raise UserError(
          'expected distillation_weight from 0 to 1, got'
          f' {self.distillation_weight}'
      )


def token_losses(
    logits: Array, targets: Array, config: LossConfig
) -> tuple[Array, Array]:
  """Loss of each token.

  Args:
    logits: [B, T, V].
    targets: int [B, T].
    config: uses `z_loss` and `label_smoothing`.

  Returns:
    (loss with z-loss, z-loss), each float32 [B, T]. The loss is shifted so that
    a perfect prediction of smoothed labels has 0.
  """
  logits = logits.astype(jnp.float32)
  vocab_size = logits.shape[-1]
  log_z = jax.nn.logsumexp(logits, axis=-1)
  # A masked sum, since the gradient of a gather is a slow scatter.
  is_target = jnp.arange(vocab_size) == targets[..., None]
  at_target = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
  loss = log_z - at_target
  if config.label_smoothing:
    confidence = 1.0 - config.label_smoothing
    rest = config.label_smoothing / (vocab_size - 1)
    over_all = vocab_size * log_z - jnp.sum(logits, axis=-1)
    entropy = -(
        confidence * np.log(confidence)
        + (vocab_size - 1) * rest * np.log(rest + 1e-20)
    )
    loss = confidence * loss + rest * (over_all - loss) - entropy
  z_loss = config.z_loss * jnp.square(log_z)
  return loss + z_loss, z_loss


def distillation_losses(
    logits: Array, teacher_logits: Array, temperature: float
) -> Array:
  """Kullback-Leibler divergence of each token from the teacher's distribution.

  Both are softened by the temperature, and the divergence is multiplied by its
  square, so that gradients keep their size (Hinton et al. 2015, "Distilling the
  Knowledge in a Neural Network", section 2).

  Args:
    logits: [B, T, V].
    teacher_logits: [B, T, V].
    temperature: as named.

  Returns:
    float32 [B, T], 0 where the two are the same.
  """
  log_q = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
  log_p = jax.nn.log_softmax(teacher_logits.astype(jnp.float32) / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def normalizer_and_weights(
    batch: Mapping[str, Array], config: LossConfig
) -> tuple[Array, Array]:
  """What the loss of a batch is divided by, and the weight of each token.

  Args:
    batch: features as `data` makes them.
    config: uses `loss_normalizing_factor`.

  Returns:
    A float32 scalar and float32 [B, T].
  """
  targets = batch['decoder_target_tokens']
  weights = batch.get('decoder_loss_weights')
  if weights is None:
    weights = targets > 0
  weights = weights.astype(jnp.float32)
  factor = config.loss_normalizing_factor
  if factor == 'NUM_REAL_TARGET_TOKENS':
    return jnp.sum(weights), weights
  if factor == 'NUM_TOTAL_TARGET_TOKENS':
    return jnp.float32(targets.size), weights
  if factor == 'AVERAGE_PER_SEQUENCE':
    segments = batch.get('decoder_segment_ids')
    if segments is None:
      totals = jnp.sum(weights, axis=-1, keepdims=True)
    else:
      same = segments[:, :, None] == segments[:, None, :]
      totals = jnp.einsum('bts,bs->bt', same.astype(jnp.float32), weights)
    weights = jnp.where(totals > 0, weights / jnp.maximum(totals, 1e-30), 0.0)
    return jnp.sum(weights), weights
  return jnp.float32(1.0 if factor is None else factor), weights
