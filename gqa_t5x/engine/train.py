# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step and the loop around it; needs no TensorFlow.

Pre-training, uptraining and fine-tuning are one loop with other settings.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import logging
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x import sizes
from gqa_t5x import vocabularies
from gqa_t5x.engine import checkpointing
from gqa_t5x.engine import losses
from gqa_t5x.engine import optimizer as optimizers
from gqa_t5x.engine import partitioning
from gqa_t5x.engine import preemption
from gqa_t5x.engine import run_folder
from gqa_t5x.errors import PeerLostError
from gqa_t5x.errors import UserError
from gqa_t5x.errors import check_fields
from gqa_t5x.errors import check_limits

_log = logging.getLogger(__name__)

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
    'encoder_positions',
    'decoder_positions',
)

# Fields of TrainConfig that the compiled step depends on; a loss that distils
# is not valid without a teacher.
_OF_THE_STEP = (
    'schedule', 'loss', 'teacher_checkpoint', 'clip_norm', 'num_microbatches',
    'model_axis', 'max_loss', 'skip_bad_steps',
)  # pyformat: disable


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A training run.

  Attributes:
    model_dir: folder of the run.
    total_steps: global step to stop at; like t5x's, it includes the steps of
      the initial checkpoint.
    relative_steps: steps to make after the initial checkpoint's; replaces
      `total_steps`.
    initial_checkpoint: folder of any known format, or None for random
      parameters. The optimizer's slots start anew.
    teacher_checkpoint: folder of a multi-head model of the same shapes, whose
      distribution `loss.distillation_weight` asks for.
    initial_step: what the initial checkpoint's step must be, or is where it
      tells none, as those of Hugging Face.
    reset_step: whether the step starts at 0, not at the checkpoint's.
    schedule: learning rate as a function of the global step.
    loss: as named.
    clip_norm: largest global gradient norm, or None.
    num_microbatches: parts of a batch whose gradients are added up.
    max_loss: nats a token above which a step is bad, as one is whose loss or
      gradients are not finite; None is no limit.
    skip_bad_steps: whether a bad step changes nothing and training goes on;
      otherwise it stops.
    seed: of parameters and dropout.
    model_axis: devices that share one model.
    log_every: steps between lines of metrics.
    eval_every: steps between evaluations.
    checkpoint_every: steps between checkpoints.
    keep: how many of the latest checkpoints are kept; None keeps all.
    best_metric: dev metric by which the best checkpoint is kept too.
    best_mode: 'min' or 'max'.
    vocabulary_sha256: of the data; must be that of the initial checkpoint.
    vocabulary_size: of the data; must fit the initial checkpoint.
    tensorboard: whether TensorBoard files are written beside metrics.jsonl.
  """

  model_dir: str
  total_steps: int | None = None
  relative_steps: int | None = None
  initial_checkpoint: str | None = None
  teacher_checkpoint: str | None = None
  initial_step: int | None = None
  reset_step: bool = False
  schedule: optimizers.Schedule = optimizers.Schedule()
  loss: losses.LossConfig = losses.LossConfig()
  clip_norm: float | None = None
  num_microbatches: int = 1
  max_loss: float | None = None
  skip_bad_steps: bool = False
  seed: int = 0
  model_axis: int = 1
  log_every: int = 50
  eval_every: int = 1000
  checkpoint_every: int = 1000
  keep: int | None = 2
  best_metric: str | None = None
  best_mode: str = 'min'
  vocabulary_sha256: str = ''
  vocabulary_size: int | None = None
  tensorboard: bool = False

  def __post_init__(self):
    check_fields(self)
    check_limits(
        self, 'num_microbatches', 'log_every', 'eval_every', 'checkpoint_every',
        'keep', least=1,
    )  # pyformat: disable
    check_limits(self, 'seed', least=0)
    check_limits(self, 'clip_norm', 'max_loss', above=0)
    if (self.total_steps is None) == (self.relative_steps is None):
      raise UserError(
          'expected either total_steps or relative_steps, got'
          f' {self.total_steps} and {self.relative_steps}; set one of them'
      )
    if bool(self.teacher_checkpoint) != (self.loss.distillation_weight > 0):
      raise UserError(
          'expected teacher_checkpoint and distillation_weight both or neither,'
          f' got {self.teacher_checkpoint!r} and'
          f' {self.loss.distillation_weight}; set both'
      )
    if self.best_mode not in ('min', 'max'):
      raise UserError(
          f"expected best_mode 'min' or 'max', got {self.best_mode!r}"
      )
    if self.best_metric and self.checkpoint_every % self.eval_every:
      raise UserError(
          f'checkpoint_every={self.checkpoint_every} must be a multiple of'
          f' eval_every={self.eval_every} for best_metric to choose from'
          ' checkpoints'
      )


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
    config: TrainConfig,
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


def trainer_for(model: network.Transformer, config: TrainConfig) -> 'Trainer':
  """Returns a trainer, one made before where only the run differs.

  Tracing and compiling a step take longer than many laptop runs train, and
  runs on several tasks share their step.
  """
  return _trainer(
      model,
      TrainConfig(
          model_dir='',
          total_steps=0,
          **{name: getattr(config, name) for name in _OF_THE_STEP},
      ),
  )


class Trainer:
  """The state of a run on its mesh, and the compiled step."""

  def __init__(self, model: network.Transformer, config: TrainConfig):
    self.model = model
    self.config = config
    self.mesh = partitioning.make_mesh(config.model_axis)
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
        lambda key: _init(model, key)['params'], out_shardings=param_shardings
    )
    self._fresh = jax.jit(fresh, out_shardings=self.shardings)
    self._step = jax.jit(
        make_train_step(model, self.optimizer, config),
        donate_argnums=0,
        out_shardings=(self.shardings, None),
    )

  def _params_of(self, model) -> tuple[PyTree, PyTree]:
    """Returns shapes and shardings of a model's parameters."""
    variables = jax.eval_shape(
        functools.partial(_init, model), jax.random.key(0)
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
      return self._step(state, batch, key, teacher)

  def use(self):
    return partitioning.use(self.mesh, self.model.config)


def _init(model, key):
  tokens = jnp.zeros((1, 1), jnp.int32)
  return model.init(key, tokens, tokens, tokens, enable_dropout=False)


def _place(params, shapes, shardings):
  params = jax.tree.map(
      lambda x, shape: np.asarray(x, shape.dtype), params, shapes
  )
  return jax.device_put(params, shardings)


_trainer = functools.lru_cache(maxsize=4)(Trainer)


def train(
    model: network.Transformer,
    config: TrainConfig,
    batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
    evaluate: Callable[[PyTree, int], dict[str, float]] | None = None,
    describe: Mapping[str, Any] | None = None,
) -> TrainState:
  """Trains until the last step; continues a run that was interrupted.

  A run in `config.model_dir` continues at its latest checkpoint, and gives the
  same losses, bit for bit, as if it had not stopped.

  Args:
    model: as named.
    config: as named.
    batches: `batches(n)` gives batch n of this run, n + 1, ...; see
      `data.train_batches`.
    evaluate: maps parameters and step to dev metrics.
    describe: more of the configuration to keep in config.json, e.g. that of
      the data; a run with another one is refused.

  Returns:
    The last state.

  Raises:
    UserError: if the folder holds another run, or one that another program is
      writing to; the initial checkpoint does not fit; all checkpoints of the
      run are damaged; or a step is bad and is not to be skipped.
    Preempted: if SIGTERM came; the last step is saved. After Ctrl-C too, and
      KeyboardInterrupt is raised.
    PeerLostError: if another process of the run has ended.
  """
  folder = run_folder.RunFolder(config.model_dir, config.tensorboard)
  folder.check(
      {'model': model.config.to_dict(), 'train': dataclasses.asdict(config)}
      | {'data': dict(describe or {})}
  )
  params, origin = _load_initial(model, config)
  teacher = None
  if config.teacher_checkpoint:
    teacher, _ = _load_fitting(
        teacher_of(model), config.teacher_checkpoint, config
    )
  folder.lock()
  saved = checkpointing.Checkpoints(
      config.model_dir, config.keep, config.best_metric, config.best_mode
  )
  trainer = trainer_for(model, config)
  if teacher is not None:
    teacher = trainer.place_teacher(teacher)
  try:
    latest = saved.latest_good_step()
    if latest is not None:
      metadata = saved.metadata(latest)
      restored = saved.restore(
          latest, trainer.shapes.params, trainer.shapes.opt_state
      )
      step = jax.device_put(np.int32(latest), trainer.shardings.step)
      state = TrainState(step, *restored)
    else:
      start = 0 if config.reset_step else int(origin.get('step') or 0)
      metadata = {
          'config': model.config.to_dict(),
          'start_step': start,
          'conversion': origin.get('conversion'),
          'vocabulary_sha256': config.vocabulary_sha256
          or origin.get('vocabulary_sha256', ''),
          'initial_checkpoint': config.initial_checkpoint,
      }
      state = (
          trainer.initial_state(config.seed)
          if params is None
          else trainer.state_from(params, start)
      )
    del params
    folder.open(latest)
    with preemption.Watch() as watch:
      return _loop(
          trainer, config, state, teacher, batches, evaluate, saved, metadata,
          folder, watch,
      )  # pyformat: disable
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    raise PeerLostError(
        'another process of this run has ended, or cannot be reached; start all'
        f' of them again, they go on from the last save ({str(error)[:200]})'
    ) from error
  finally:
    folder.close()
    saved.close()


def _loop(
    trainer, config, state, teacher, batches, evaluate, saved, metadata, folder,
    watch,
):  # pyformat: disable
  """Runs the steps that are left; see `train`."""
  step, start = int(state.step), metadata['start_step']
  last = config.total_steps
  if last is None:
    last = start + config.relative_steps
  if step >= last and saved.latest_step() is None:
    raise UserError(
        f'expected steps to make, got none: from step {step} to {last}; set'
        ' more (total_steps, relative_steps)'
    )
  _log.info('%s: from step %d to %d', config.model_dir, step, last)
  window, key = [], jax.random.key(config.seed)
  with folder.progress(step, last) as progress:
    for batch in batches(step - start) if step < last else ():
      state, metrics = trainer.step(state, batch, key, teacher)
      step += 1
      window.append(metrics)
      if len(window) > 2:
        # Keeps the host two steps ahead of the device, and no further.
        jax.block_until_ready(window[-3])
      is_stopping = watch.is_noted(step)
      is_saved = (
          step % config.checkpoint_every == 0 or step == last or is_stopping
      )
      is_evaluated = step % config.eval_every == 0 or step == last
      if step % config.log_every == 0 or is_saved or is_evaluated:
        summary = _summarize(window, step, config, saved.latest_step())
        progress.update(len(window), summary)
        folder.write(step, summary)
        window = []
      dev = None
      if evaluate and is_evaluated:
        with trainer.use():
          dev = evaluate(state.params, step)
        folder.write(step, {f'dev/{name}': x for name, x in dev.items()})
        progress.restart_clock()
      if is_saved:
        best = config.best_metric
        is_unknown = dev is not None and best and best not in dev
        saved.save(
            step, state.params, state.opt_state, metadata | {'step': step},
            None if is_unknown else dev,
        )  # pyformat: disable
        if is_unknown:
          raise UserError(
              f'expected best_metric to be one that is measured,'
              f' {" or ".join(sorted(dev)) or "and there is none"}, got'
              f' {best!r}; step {step} is saved'
          )
        progress.restart_clock()
      if step == last:
        break
      if is_stopping:
        watch.stop(
            f'step {step} of {last} is saved in {config.model_dir}; the same'
            ' command goes on from there'
        )
  best = saved.best_step() if config.best_metric else None
  _log.info(
      'done: %s/checkpoints/%d%s; losses are in metrics.jsonl',
      config.model_dir, step,
      '' if best is None else f', best by {config.best_metric}: {best}',
  )  # pyformat: disable
  return state


def _summarize(
    window: list[dict[str, Array]],
    step: int,
    config: TrainConfig,
    last_saved: int | None,
) -> dict[str, float]:
  """Means over the steps since the last line, which end at `step`."""
  window = jax.device_get(window)
  first = step - len(window) + 1
  bad = [first + n for n, metrics in enumerate(window) if metrics['bad_steps']]
  if bad and not config.skip_bad_steps:
    limit = '' if config.max_loss is None else f' up to {config.max_loss:g}'
    kept = 'none was saved' if last_saved is None else f'step {last_saved}'
    raise UserError(
        f'expected a finite loss{limit}, but that of step {bad[0]} is not; the'
        f' last good checkpoint: {kept}; go on from there with'
        ' --gin.train.TrainConfig.skip_bad_steps=True, or begin another run'
        ' with a lower learning rate or with clip_norm'
    )
  if len(bad) == len(window) > 1:
    raise UserError(
        f'every step from {first} to {step} was bad and skipped; begin another'
        ' run with a lower learning rate or with clip_norm'
    )
  sums = {name: float(sum(m[name] for m in window)) for name in window[0]}
  # No loss where every step was skipped.
  tokens = sums['target_tokens'] or math.nan
  skipped = {'skipped_steps': len(bad)} if config.skip_bad_steps else {}
  # The last is there where the loss distils.
  of_a_token = ('loss', 'z_loss', 'accuracy', 'distillation_loss')
  return skipped | {
      **{name: sums[name] / tokens for name in of_a_token if name in sums},
      'grad_norm': sums['grad_norm'] / max(1, len(window) - len(bad)),
      'learning_rate': float(window[-1]['learning_rate']),
      'tokens': sums['target_tokens'] + sums['input_tokens'],
  }


def _load_initial(
    model: network.Transformer, config: TrainConfig
) -> tuple[PyTree | None, dict[str, Any]]:
  """Loads the initial checkpoint and checks that it fits the model."""
  if not config.initial_checkpoint:
    return None, {}
  params, metadata = _load_fitting(model, config.initial_checkpoint, config)
  check_step(metadata, config)
  step = metadata.get('step')
  return params, metadata | {
      'step': config.initial_step if step is None else step
  }


def _load_fitting(
    model: network.Transformer, path: str, config: TrainConfig
) -> tuple[PyTree, dict[str, Any]]:
  """Loads a checkpoint of this model and of the data's vocabulary."""
  params, metadata = checkpoints.load_checkpoint(path)
  vocabularies.check(
      path,
      metadata,
      size=config.vocabulary_size,
      sha256=config.vocabulary_sha256,
      how=vocabularies.HOW_IN_GIN,
  )
  check_params(params, model.config, path)
  return params, metadata


def check_step(metadata: Mapping[str, Any], config: TrainConfig) -> None:
  """Raises UserError if the initial checkpoint's step is not the expected."""
  step, expected = metadata.get('step'), config.initial_step
  if None not in (step, expected) and step != expected:
    raise UserError(
        f'expected {config.initial_checkpoint} to be of step {expected}, it is'
        f' of step {step}; set --gin.PRETRAIN_STEPS={step}'
    )


def check_params(params: PyTree, config: network.T5Config, path: str) -> None:
  """Raises UserError if parameters from `path` do not fit a model."""
  got, want = (
      {jax.tree_util.keystr(k, simple=True, separator='/'): np.shape(x)
       for k, x in jax.tree_util.tree_leaves_with_path(tree)}
      for tree in (params, sizes.parameter_shapes(config))
  )
  # Nothing converts to more heads.
  other = (
      'a multi-head checkpoint of its sizes'
      if config.num_kv_heads == config.num_heads
      else 'convert it with gqa-t5x convert'
  )
  for name in sorted(got.keys() | want.keys()):
    if got.get(name) != want.get(name):
      raise UserError(
          f'{path} does not fit the model: {name} should be'
          f' {want.get(name, "absent")}, is {got.get(name, "absent")}; choose'
          f' the model that wrote it (NUM_KV_HEADS?) or {other}'
      )
