# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop; needs no TensorFlow.

Pre-training, uptraining and fine-tuning are one loop with other settings.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import logging
import math
from typing import Any

from flax import traverse_util
import jax
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x import sizes
from gqa_t5x import vocabularies
from gqa_t5x.checkpoints import hf
from gqa_t5x.engine import checkpointing
from gqa_t5x.engine import preemption
from gqa_t5x.engine import run_folder
from gqa_t5x.engine import train_step
from gqa_t5x.errors import PeerLostError
from gqa_t5x.errors import UserError
from gqa_t5x.errors import check_limits

_log = logging.getLogger(__name__)

Array = jax.Array
PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(train_step.StepConfig):
  """A training run; attributes of its step stand there.

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
    seed: of parameters and dropout.
    log_every: steps between lines of metrics; these three are counted from the
      step that the run starts at.
    eval_every: steps between evaluations.
    checkpoint_every: steps between checkpoints.
    keep: how many of the latest checkpoints are kept; None keeps all.
    max_skipped_steps: bad steps in a row at which a run that skips them stops;
      None is no limit.
    best_metric: dev metric by which the best checkpoint is kept too.
    best_mode: 'min' or 'max'; None is 'min' for loss and 'max' for all else.
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
  seed: int = 0
  log_every: int = 50
  eval_every: int = 1000
  checkpoint_every: int = 1000
  keep: int | None = 2
  max_skipped_steps: int | None = 50
  best_metric: str | None = None
  best_mode: str | None = None
  vocabulary_sha256: str = ''
  vocabulary_size: int | None = None
  tensorboard: bool = False

  def __post_init__(self):
    super().__post_init__()
    check_limits(
        self, 'log_every', 'eval_every', 'checkpoint_every', 'keep',
        'max_skipped_steps', least=1,
    )  # pyformat: disable
    check_limits(self, 'seed', least=0)
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
    if self.best_mode is None:
      mode = 'min' if self.best_metric in (None, 'loss') else 'max'
      object.__setattr__(self, 'best_mode', mode)
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

  def described(self) -> dict[str, Any]:
    """Returns what config.json says of it; a run goes on only with the same."""
    found = dataclasses.asdict(self)
    if self.schedule.needs_last_step:  # Then the end changes what is computed.
      name = 'relative_steps' if self.total_steps is None else 'total_steps'
      found['schedule']['last_step'] = f'{name}={found[name]}'
    return found

  def starting_at(self, step: int) -> 'TrainConfig':
    """Returns it with `total_steps`, and a schedule that knows them."""
    last = self.total_steps
    if last is None:
      last = step + self.relative_steps
    return dataclasses.replace(
        self,
        total_steps=last,
        relative_steps=None,
        schedule=self.schedule.of_run(step, last),
    )


def train(
    model: network.Transformer,
    config: TrainConfig,
    batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
    evaluate: Callable[[PyTree, int], dict[str, float]] | None = None,
    describe: Mapping[str, Any] | None = None,
) -> train_step.TrainState:
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
      {'model': model.config.to_dict(), 'train': config.described()}
      | {'data': dict(describe or {})}
  )
  params, origin = None, {}
  if not checkpointing.has_steps(config.model_dir):
    params, origin = _load_initial(model, config)
  teacher = None
  if config.teacher_checkpoint:
    teacher = open_fitting(
        train_step.teacher_of(model),
        config.teacher_checkpoint,
        config.vocabulary_size,
        config.vocabulary_sha256,
    ).read_params()
  folder.lock()
  saved = checkpointing.Checkpoints(
      config.model_dir, config.keep, config.best_metric, config.best_mode
  )
  try:
    latest = saved.latest_good_step()
    if latest is not None:
      metadata = saved.metadata(latest)
    else:
      if params is None:  # What looked like a step is none.
        params, origin = _load_initial(model, config)
      metadata = {
          'config': model.config.to_dict(),
          'start_step': (
              0 if config.reset_step else int(origin.get('step') or 0)
          ),
          'conversion': origin.get('conversion'),
          'vocabulary_sha256': config.vocabulary_sha256
          or origin.get('vocabulary_sha256', ''),
          'initial_checkpoint': config.initial_checkpoint,
      }
      if hf.OTHER_KEYS in origin:
        metadata[hf.OTHER_KEYS] = origin[hf.OTHER_KEYS]
    start = metadata['start_step']
    config = config.starting_at(start)
    trainer = train_step.trainer_for(model, config)
    if teacher is not None:
      teacher = trainer.place_teacher(teacher)
    if latest is not None:
      restored = saved.restore(
          latest, trainer.shapes.params, trainer.shapes.opt_state
      )
      step = jax.device_put(np.int32(latest), trainer.shardings.step)
      state = train_step.TrainState(step, *restored)
    elif params is None:
      state = trainer.initial_state(config.seed)
    else:
      state = trainer.state_from(params, start)
    del params
    folder.open(latest)
    with preemption.Watch() as watch:
      return _loop(
          trainer, config, state, teacher, batches, evaluate, saved, metadata,
          folder, watch,
      )  # pyformat: disable
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1 or 'RESOURCE_EXHAUSTED' in str(error):
      raise  # No peer has to do with it.
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
  if step >= last and saved.latest_step() is None:
    raise UserError(
        f'expected steps to make, got none: from step {step} to {last}; set'
        ' more (total_steps, relative_steps)'
    )
  _log.info('%s: from step %d to %d', config.model_dir, step, last)
  window, key, skipped = [], jax.random.key(config.seed), 0
  with folder.progress(step, last) as progress:
    for batch in batches(step - start) if step < last else ():
      state, metrics = trainer.step(state, batch, key, teacher)
      step += 1
      window.append(metrics)
      if len(window) > 2:
        # Keeps the host two steps ahead of the device, and no further.
        jax.block_until_ready(window[-3])
      is_stopping = watch.is_noted(step)
      made = step - start
      is_saved = (
          made % config.checkpoint_every == 0 or step == last or is_stopping
      )
      is_evaluated = made % config.eval_every == 0 or step == last
      if made % config.log_every == 0 or is_saved or is_evaluated:
        window = jax.device_get(window)
        skipped = _check_bad_steps(
            window, step, config, saved.latest_step(), skipped
        )
        summary = _summarize(window, config)
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


def _check_bad_steps(
    window: list[dict[str, Array]],
    step: int,
    config: TrainConfig,
    last_saved: int | None,
    in_a_row: int,
) -> int:
  """Returns how many steps, up to `step`, were bad in a row.

  Args:
    window: metrics of the last steps, up to `step`.
    step: as named.
    config: of the run.
    last_saved: step of the last checkpoint.
    in_a_row: as returned for the steps before.

  Raises:
    UserError: if a step is bad and none is to be skipped, or too many are.
  """
  for n, metrics in enumerate(window, step - len(window) + 1):
    in_a_row = in_a_row + 1 if metrics['bad_steps'] else 0
    if in_a_row and not config.skip_bad_steps:
      limit = '' if config.max_loss is None else f' up to {config.max_loss:g}'
      kept = 'none was saved' if last_saved is None else f'step {last_saved}'
      raise UserError(
          f'expected a finite loss{limit}, but that of step {n} is not; the'
          f' last good checkpoint: {kept}; go on from there with'
          ' --gin.train.TrainConfig.skip_bad_steps=True, or begin another run'
          ' with a lower learning rate or with clip_norm'
      )
    if in_a_row == config.max_skipped_steps:
      raise UserError(
          f'every step from {n - in_a_row + 1} to {n} was bad and skipped;'
          ' begin another run with a lower learning rate or with clip_norm'
      )
  return in_a_row


def _summarize(
    window: list[dict[str, Array]], config: TrainConfig
) -> dict[str, float]:
  """Means over the steps since the last line."""
  bad = sum(bool(metrics['bad_steps']) for metrics in window)
  sums = {name: float(sum(m[name] for m in window)) for name in window[0]}
  # No loss where every step was skipped.
  tokens = sums['target_tokens'] or math.nan
  skipped = {'skipped_steps': bad} if config.skip_bad_steps else {}
  # The last is there where the loss distils.
  of_a_token = ('loss', 'z_loss', 'accuracy', 'distillation_loss')
  return skipped | {
      **{name: sums[name] / tokens for name in of_a_token if name in sums},
      'grad_norm': sums['grad_norm'] / max(1, len(window) - bad),
      'learning_rate': float(window[-1]['learning_rate']),
      'tokens': sums['target_tokens'] + sums['input_tokens'],
  }


def _load_initial(
    model: network.Transformer, config: TrainConfig
) -> tuple[PyTree | None, dict[str, Any]]:
  """Loads the initial checkpoint and checks that it fits the model."""
  if not config.initial_checkpoint:
    return None, {}
  opened = open_fitting(
      model,
      config.initial_checkpoint,
      config.vocabulary_size,
      config.vocabulary_sha256,
  )
  check_step(opened.metadata, config)
  step = opened.metadata.get('step')
  return opened.read_params(), opened.metadata | {
      'step': config.initial_step if step is None else step
  }


def open_fitting(
    model: network.Transformer,
    path: str,
    vocabulary_size: int | None,
    vocabulary_sha256: str,
) -> checkpoints.Checkpoint:
  """Opens a checkpoint of this model and vocabulary; reads no values.

  Raises:
    UserError: if it is of others.
  """
  opened = checkpoints.open_checkpoint(path)
  vocabularies.check(
      path,
      opened.metadata,
      size=vocabulary_size,
      sha256=vocabulary_sha256,
      how=vocabularies.HOW_IN_GIN,
  )
  params = traverse_util.unflatten_dict(opened.params)
  sizes.check_params(params, model.config, path)
  return opened


def check_step(metadata: Mapping[str, Any], config: TrainConfig) -> None:
  """Raises UserError if the initial checkpoint's step is not the expected."""
  step, expected = metadata.get('step'), config.initial_step
  if None not in (step, expected) and step != expected:
    raise UserError(
        f'expected {config.initial_checkpoint} to be of step {expected}, it is'
        f' of step {step}; set --gin.PRETRAIN_STEPS={step}'
    )
