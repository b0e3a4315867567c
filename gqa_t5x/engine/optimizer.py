# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Adafactor and learning rates as T5 has them, on optax."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from gqa_t5x.conversion import optimizer_slots
from gqa_t5x.errors import UserError
from gqa_t5x.errors import check_fields
from gqa_t5x.errors import check_limits


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Learning rate as a function of the global step.

  Attributes:
    kind: 'rsqrt' is base / sqrt(max(step, warmup_steps)), so the first
      `warmup_steps` steps are flat, as T5 was pre-trained; 'constant' is base.
    base: as above.
    warmup_steps: of 'rsqrt'.
    linear_warmup_steps: over so many the rate also grows from 0, while slots
      that begin empty fill; 0 is none.
    first_step: where it is 0, with linear warm-up; None is the first of a run.
    linear_decay_steps: over so many it also falls to 0; 0 is none.
    last_step: where it is 0, with linear decay; None is the last of a run.
  """

  kind: str = 'rsqrt'
  base: float = 1.0
  warmup_steps: int = 10_000
  linear_warmup_steps: int = 0
  first_step: int | None = None
  linear_decay_steps: int = 0
  last_step: int | None = None

  def __post_init__(self):
    check_fields(self)
    if self.kind not in ('rsqrt', 'constant'):
      raise UserError(
          f"schedule {self.kind!r} is unknown; choose 'rsqrt' or 'constant'"
      )
    check_limits(
        self, 'base', 'linear_warmup_steps', 'linear_decay_steps', least=0
    )
    if self.kind == 'rsqrt':
      check_limits(self, 'warmup_steps', least=1)

  @property
  def needs_last_step(self) -> bool:
    """Whether it falls to 0 where the run ends, wherever that is."""
    return self.linear_decay_steps > 0 and self.last_step is None

  def of_run(self, first: int, last: int) -> 'Schedule':
    """Returns it for a run from a step to another."""
    named = {}
    if self.linear_warmup_steps and self.first_step is None:
      named['first_step'] = first
    if self.needs_last_step:
      named['last_step'] = last
    return dataclasses.replace(self, **named)

  def __call__(self, step: jax.Array) -> jax.Array:
    """Returns the rate of the update that leads from `step` to the next.

    Args:
      step: global, a scalar.

    Raises:
      UserError: if it decays, and has no last step.
    """
    if self.needs_last_step:
      raise UserError(
          'expected the last_step of linear_decay_steps='
          f'{self.linear_decay_steps}, got none; set Schedule.last_step'
      )
    step = jnp.asarray(step, jnp.float32)
    rate = jnp.float32(self.base)
    if self.kind == 'rsqrt':
      rate /= jnp.sqrt(jnp.maximum(step, self.warmup_steps))
    if self.linear_warmup_steps:
      done = (step - (self.first_step or 0)) / self.linear_warmup_steps
      rate *= jnp.clip(done, 0.0, 1.0)
    if self.linear_decay_steps:
      left = (self.last_step - step) / self.linear_decay_steps
      rate *= jnp.clip(left, 0.0, 1.0)
    return rate


def make_optimizer(
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Returns T5's Adafactor for a learning rate of 1.

  The caller multiplies the updates by the learning rate at the *global* step.
  The decay of the second moments has a count of its own, which starts with the
  slots: a converted checkpoint at step 1,000,000 begins with empty slots, and
  at the decay of that step (1 - 1.6e-5) they would hardly ever fill.

  Args:
    clip_norm: largest global norm of the gradients; None does not clip.
  """
  adafactor = optax.adafactor(
      learning_rate=1.0,
      min_dim_size_to_factor=optimizer_slots.MIN_FACTORED_DIM,
      decay_rate=0.8,
      multiply_by_parameter_scale=True,
      clipping_threshold=1.0,
      momentum=None,
  )
  if clip_norm is None:
    return adafactor
  return optax.chain(optax.clip_by_global_norm(clip_norm), adafactor)
