# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""One step of training: loss, gradients, update; compiled for a mesh."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gqa_t5x import network
from gqa_t5x.engine import losses
from gqa_t5x.engine import optimizer as optimizers
from gqa_t5x.engine import partitioning
from gqa_t5x.errors import check_fields
from gqa_t5x.errors import check_limits

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]

# Features that `Transformer.__call__` takes.
_MODEL_FEATURES = (
    'encoder_input_tokens',
    'decoder_input_tokens',
    'decoder_target_tokens',
    'encoder_segment_ids',
    'decoder_segment_ids',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
  """What a compiled step depends on, besides the model.

  Attributes:
    schedule: learning rate as a function of the global step.
    loss: as named.
    clip_norm: largest global gradient norm, or None.
    num_microbatches: parts of a batch whose gradients are added up.
    max_loss: nats a token above which a step is bad, as one is whose loss or
      gradients are not finite; None is no limit.
    skip_bad_steps: whether a bad step changes nothing and training goes on;
      otherwise it stops.
    model_axis: devices that share one model.
  """

  schedule: optimizers.Schedule = optimizers.Schedule()
  loss: losses.LossConfig = losses.LossConfig()
  clip_norm: float | None = None
  num_microbatches: int = 1
  max_loss: float | None = None
  skip_bad_steps: bool = False
  model_axis: int = 1

  def __post_init__(self):
    check_fields(self)
    check_limits(self, 'num_microbatches', least=1)
    check_limits(self, 'clip_norm', 'max_loss', above=0)


@struct.dataclass
class TrainState:
  """What a step changes; `step` is the global step, an int32 scalar."""

  step: Array
  params: PyTree
  opt_state: PyTree


def teacher_of(model: network.Transformer) -> network.Transformer:
  """Returns the multi-head model that a model with fewer heads learns from."""
  heads = model.config.num_heads
  return network.Transformer(
      dataclasses.replace(model.config, num_kv_heads=heads)
  )


def loss_fn(
    params: PyTree,
    model: network.Transformer,
    batch: Batch,
    weights: Array,
    config: losses.LossConfig,
    dropout_key: Array | None,
    teacher: PyTree | None = None,
) -> tuple[Array, dict[str, Array]]:
  """Summed loss of a batch, and sums of metrics over its real tokens.

  Args:
    params: of the model.
    model: as named.
    batch: features as `data.train_batches` gives them.
    weights: float32 [B, T], multiplies the loss of each token.
    config: as named.
    dropout_key: None means no dropout.
    teacher: parameters of `teacher_of(model)`, where the loss distils.
  """
  features = {name: batch[name] for name in _MODEL_FEATURES if name in batch}
  logits = model.apply(
      {'params': params},
      **features,
      enable_dropout=dropout_key is not None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
  )
  targets = batch['decoder_target_tokens']
  per_token, z_losses = losses.token_losses(logits, targets, config)
  real = (weights > 0).astype(jnp.float32)
  is_correct = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
  metrics = {
      'loss': jnp.sum(per_token * real),
      'z_loss': jnp.sum(z_losses * real),
      'accuracy': jnp.sum(is_correct * real),
      'target_tokens': jnp.sum(real),
      'input_tokens': jnp.sum(
          (batch['encoder_input_tokens'] > 0).astype(jnp.float32)
      ),
  }
  if config.distillation_weight:
    teacher_logits = teacher_of(model).apply(
        {'params': teacher}, **features, enable_dropout=False
    )
    distilled = losses.distillation_losses(
        logits, teacher_logits, config.temperature
    )
    metrics['distillation_loss'] = jnp.sum(distilled * real)
    share = config.distillation_weight
    of_targets = per_token - z_losses
    per_token = (1 - share) * of_targets + share * distilled + z_losses
  return jnp.sum(per_token * weights), metrics


def make_train_step(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
) -> Callable[
    [TrainState, Batch, Array | None, PyTree | None],
    tuple[TrainState, dict[str, Array]],
]:
  """Returns the function of one step; it is pure, and not yet compiled.

  It maps a state, a batch, the run's key and the teacher's parameters to the
  next state and sums of metrics, with the gradient's norm, the learning rate,
  and whether the step is bad. What is skipped leaves sums of 0. The key is of
  dropout, and may be None where the model has none; it is an argument, so that
  runs that differ in their seed share what is compiled. The teacher is None
  where the loss does not distil.
  """
  gradient = jax.value_and_grad(loss_fn, has_aux=True)

  def gradients(params, batch, key, teacher):
    # Of the whole batch: microbatches must not change the loss.
    normalizer, weights = losses.normalizer_and_weights(batch, config.loss)

    def of_part(part, part_weights, part_key):
      (_, metrics), grads = gradient(
          params, model, part, part_weights, config.loss, part_key, teacher
      )
      return grads, metrics

    parts = config.num_microbatches
    if parts == 1:
      grads, metrics = of_part(batch, weights, key)
    else:
      # Rows are dealt out in turn, so that each device keeps its own.
      split = functools.partial(
          jax.tree.map,
          lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1),
      )
      keys = None if key is None else jax.random.split(key, parts)
      parts = split((dict(batch), weights)) + (keys,)

      def add(total, part):
        return jax.tree.map(jnp.add, total, of_part(*part)), None

      shapes = jax.eval_shape(of_part, *jax.tree.map(lambda x: x[0], parts))
      zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
      (grads, metrics), _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda g: g / normalizer, grads), metrics

  def train_step(state, batch, key, teacher=None):
    if model.config.dropout_rate > 0.0:
      key = jax.random.fold_in(key, state.step)
    else:
      key = None
    grads, metrics = gradients(state.params, batch, key, teacher)
    rate = config.schedule(state.step)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: rate * u, updates)
    params = optax.apply_updates(state.params, updates)
    metrics['grad_norm'] = optax.tree.norm(grads)
    is_bad = ~jnp.isfinite(metrics['loss'] + metrics['grad_norm'])
    if config.max_loss is not None:
      is_bad |= metrics['loss'] > config.max_loss * metrics['target_tokens']
    if config.skip_bad_steps:
      params, opt_state = jax.tree.map(
          functools.partial(jnp.where, is_bad),
          (state.params, state.opt_state),
          (params, opt_state),
      )
      metrics = jax.tree.map(lambda x: jnp.where(is_bad, 0.0, x), metrics)
    metrics |= {'learning_rate': rate, 'bad_steps': is_bad.astype(jnp.float32)}
    return TrainState(state.step + 1, params, opt_state), metrics

  return train_step


def trainer_for(model: network.Transformer, config: StepConfig) -> 'Trainer':
  """Returns a trainer, one made before where only the run differs.

  Tracing and compiling a step take longer than many laptop runs train, and
  runs on several tasks share their step.
  """
  of_the_step = (field.name for field in dataclasses.fields(StepConfig))
  return _trainer(
      model, StepConfig(**{name: getattr(config, name) for name in of_the_step})
  )


class Trainer:
  """The state of a run on its mesh, and the compiled step.

  Attributes:
    model: as given.
    config: as given.
    mesh: as given, or of all devices.
    shapes: of the state, with shardings; `shardings` has these alone.
    jitted_step: of a state of `shapes`, which is given up, a batch, the run's
      key and the teacher's parameters; see `make_train_step`.
  """

  def __init__(
      self,
      model: network.Transformer,
      config: StepConfig,
      mesh: jax.sharding.Mesh | None = None,
  ):
    self.model = model
    self.config = config
    self.mesh = mesh or partitioning.make_mesh(config.model_axis)
    self.optimizer = optimizers.make_optimizer(config.clip_norm)

    def fresh(params):
      return TrainState(jnp.int32(0), params, self.optimizer.init(params))

    params, param_shardings = self._params_of(model)
    shapes = jax.eval_shape(fresh, params)
    everywhere = jax.sharding.NamedSharding(
        self.mesh, jax.sharding.PartitionSpec()
    )
    self.shardings = TrainState(
        everywhere,
        param_shardings,
        partitioning.state_shardings(
            self.optimizer,
            shapes.opt_state,
            shapes.params,
            param_shardings,
            self.mesh,
        ),
    )
    self.shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        self.shardings,
    )
    self._init = jax.jit(
        lambda key: network.new_variables(model, key)['params'],
        out_shardings=param_shardings,
    )
    self._fresh = jax.jit(fresh, out_shardings=self.shardings)
    self.jitted_step = jax.jit(
        make_train_step(model, self.optimizer, config),
        donate_argnums=0,
        out_shardings=(self.shardings, None),
    )

  def _params_of(self, model) -> tuple[PyTree, PyTree]:
    """Returns shapes and shardings of a model's parameters."""
    variables = jax.eval_shape(
        functools.partial(network.new_variables, model), jax.random.key(0)
    )
    shapes = variables['params']
    return shapes, partitioning.param_shardings(
        shapes, variables['params_axes'], model.config, self.mesh
    )

  def initial_state(self, seed: int) -> TrainState:
    """Random parameters from this seed, not `config`'s, at step 0."""
    with self.use():
      return self._fresh(self._init(jax.random.key(seed)))

  def state_from(self, params: PyTree, step: int) -> TrainState:
    """Given parameters, with a fresh optimizer."""
    params = _place(params, self.shapes.params, self.shardings.params)
    with self.use():
      state = self._fresh(params)
    step = jax.device_put(np.int32(step), self.shardings.step)
    return state.replace(step=step)

  def place_teacher(self, params: PyTree) -> PyTree:
    """Given parameters of `teacher_of(model)`, as `step` takes them."""
    return _place(params, *self._params_of(teacher_of(self.model)))

  def step(
      self,
      state: TrainState,
      batch: Mapping[str, np.ndarray],
      key: Array | None = None,
      teacher: PyTree | None = None,
  ) -> tuple[TrainState, dict[str, Array]]:
    """One step; `state` is given up. Returns before it is computed."""
    with self.use():
      batch = partitioning.place_batch(batch, self.mesh)
      return self.jitted_step(state, batch, key, teacher)

  def use(self):
    return partitioning.use(self.mesh, self.model.config)


def _place(params, shapes, shardings):
  params = jax.tree.map(
      lambda x, shape: np.asarray(x, shape.dtype), params, shapes
  )
  return jax.device_put(params, shardings)


_trainer = functools.lru_cache(maxsize=4)(Trainer)
