# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""From a multi-head checkpoint to a model's scores, stage by stage.

The checkpoint of a suite is converted, uptrained, fine-tuned on the suite's
tasks, and evaluated on their test splits; or a model is trained from scratch
instead of the first two. Every training stage is a gin file of
gin_configs/local with a few bindings. Experiments say of which models they want
what; a stage that several want is one stage.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
import shlex
import shutil
from typing import Any

import gqa_t5x
from gqa_t5x import pretrained
from gqa_t5x import provenance
from gqa_t5x import vocabularies
from gqa_t5x.conversion import calibration_text
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import stages as stages_lib
from gqa_t5x.experiments.gin_run import GinRun
from gqa_t5x.experiments.model import ALPHA, FINETUNED, NUM_HEADS, SCRATCH
from gqa_t5x.experiments.model import Model
from gqa_t5x.experiments.scales import Scale
from gqa_t5x.experiments.stages import Done, Stage

_EVERY_LOSS = {'train.TrainConfig.log_every': 1}
# Whose stability is measured goes on after a step without a finite loss.
_STABILITY = _EVERY_LOSS | {
    'train.TrainConfig.skip_bad_steps': True,
    'train.TrainConfig.max_skipped_steps': None,
}
CALIBRATED = ('svd',)  # Methods that are given covariances of text.
# Stages of a suite without a checkpoint after which seqio and TensorFlow are no
# longer needed.
_PREPARATION = ('vocabulary', 'data')
_LOCAL = 'gqa_t5x/gin_configs/local/'
_SPLITS = ('train', 'validation', 'test')
_VOCABULARY, _VOCABULARY_PATH = 'sentencepiece.model', 'VOCABULARY_PATH'
_CACHE_DIR = 'launch.Cache.cache_dir'
_FINETUNE = 'finetune'  # Begins the names of its stages.
_AGAIN = 1000  # Added to the seed of what is fine-tuned a second time.
_GIN_RUN = 'gin_run'  # In the recipes of runs that gin files describe.
_OF_REPRODUCE = '(part of gqa-t5x reproduce)'


def prepares(name: str) -> bool:
  """Whether a stage of this name makes what needs seqio and TensorFlow."""
  return name.split('-')[0] in _PREPARATION


class Pipeline:
  """Makes the stages of a scale; what they make lies below a folder.

  Each method returns a stage, the same one for the same arguments.
  """

  def __init__(self, scale: Scale, folder: pathlib.Path):
    self._scale = scale
    self._suite = scale.suite
    self._folder = folder
    self._stages: dict[str, Stage] = {}

  @property
  def tasks(self) -> tuple[str, ...]:
    return tuple(column.task for column in self._suite.columns)

  def made(self, models: Sequence[Model]) -> list[Model]:
    """Returns those of the models that are made at this scale."""
    return [m for m in models if m.num_kv_heads in self._scale.num_kv_heads]

  def origin(self, model: Model) -> str:
    """What results.json says of where a model comes from."""
    if model.method is None:
      return SCRATCH
    return model.origin or self._suite.origin

  def vocabulary(self) -> Stage | None:
    """The SentencePiece model; None is the one that ships."""
    if self._suite.checkpoint:
      return None
    pieces = self._suite.vocab_size - vocabularies.NUM_SENTINELS

    def make(target):
      from gqa_t5x.tasks import train_vocabulary

      model = train_vocabulary.train(
          self._suite.tasks().vocabulary_lines(), pieces
      )
      target.mkdir(parents=True, exist_ok=True)
      (target / _VOCABULARY).write_bytes(model)

    return self._stage(
        'vocabulary',
        f'Train a vocabulary of {pieces:,} pieces',
        self._scale.seconds['vocabulary'],
        make,
        recipe={'pieces': pieces, 'version': gqa_t5x.__version__},
        has_product=True,
    )

  def data(self, task: str | None = None) -> Stage:
    """Token arrays of the pre-training task, or of another one.

    A suite with a checkpoint has one stage for all of them, and its arrays lie
    in the user's cache. The others' lie in the run's folder, since files that a
    user may change are what they are made from.
    """
    has_product = not self._suite.checkpoint
    if task == self._suite.dev_task or not has_product:
      task = None
    scale = self._scale.of(task) if task else self._scale
    run = self._cached_by(task)

    def of(target=None):
      folder = {_CACHE_DIR: str(target)} if target else {}
      return run(**self._vocabulary_path(), **folder)

    def make(target=None):
      of(target).run()
      return self._suite.tasks().corpus_fingerprint()

    return self._stage(
        f'data-{task}' if task else 'data',
        f'Tokenize {task}' if task else 'Read the texts and tokenize them',
        scale.seconds['data'],
        make,
        recipe=run().recipe() | {'version': gqa_t5x.__version__},
        command=lambda target: of(target).command(),
        needs=[self.vocabulary()],
        has_product=has_product,
    )

  def base(self) -> Stage | None:
    """The suite's multi-head checkpoint; None is the one that ships."""
    if self._suite.checkpoint:
      return None
    return self._pretrained(NUM_HEADS, None, self._scale.pretrain_steps)

  def base_checkpoint(self) -> str:
    return self._checkpoint(self.base())

  def base_config(self, done: Mapping[str, Done]) -> dict[str, Any]:
    """Returns the configuration of the checkpoint; its folder may be gone."""
    if base := self.base():
      return done[base.name].result['config']
    return _metadata(self.base_checkpoint())['config']

  def check_data(self, folder: pathlib.Path) -> None:
    """Raises UserError if there is no data, or other than a run's was."""
    suite = self._suite
    # A task's files may have come after what is pre-trained on was read.
    stages = dict.fromkeys([self.data(), *map(self.data, self.tasks)])
    kept = [stages_lib.kept(stage, folder) for stage in stages]
    results = [done.result for done in kept if done]
    if kept[0] is None:
      # Where tokens were brought along, the texts need not be.
      if not suite.checkpoint:
        suite.tasks().check_present()
      return
    for i, fingerprint in enumerate(results):
      if fingerprint in results[:i]:
        continue
      if changed := suite.tasks().changed(fingerprint):
        raise UserError(
            f'expected the data that {folder} was begun with, but'
            f' {", ".join(changed)} changed since; choose another --output_dir'
        )

  def converted(
      self, model: Model, seed: int, task: str | None = None
  ) -> Stage:
    """The checkpoint before uptraining, of a model that is converted.

    Args:
      model: as named.
      seed: as named.
      task: as for `trained`.
    """
    origin = self._origin(model, seed, task)
    options = {
        'num_kv_heads': model.num_kv_heads,
        'method': model.method,
        'seed': seed if model.method == 'random' else None,
    }
    sequences = self._scale.calibration_sequences
    calibrated = model.method in CALIBRATED

    def convert(target):
      from gqa_t5x import conversion

      shutil.rmtree(target, ignore_errors=True)
      target.parent.mkdir(parents=True, exist_ok=True)
      source, calibrate = self._checkpoint(origin), None
      if calibrated:
        calibrate = functools.partial(
            calibration_text.covariances,
            source,
            None,
            self._vocabulary_path().get(_VOCABULARY_PATH),
            num_sequences=sequences,
        )
      conversion.convert_checkpoint(
          source, str(target), **options, calibrate=calibrate
      )

    def command(target):
      words = ['gqa-t5x', 'convert', '--input', self._checkpoint(origin)]
      words += ['--output', str(target)]
      for name, value in options.items():
        if value is not None:
          words += [f'--{name}', str(value)]
      if calibrated:
        words += ['--calibration_sequences', str(sequences)]
        for path in self._vocabulary_path().values():
          words += ['--vocabulary', path]
      return shlex.join(words)

    recipe = options
    if calibrated:
      # The text is of the Python that runs.
      text = calibration_text.default_text().encode()
      recipe = options | {
          'sequences': sequences, 'weights': 'root',
          'text_sha256': hashlib.sha256(text).hexdigest(),
      }  # pyformat: disable
    what = {None: 'the multi-head checkpoint', SCRATCH: 'MHA from scratch'}
    what = what.get(model.origin, f'MHA fine-tuned on {task}')
    slug = dataclasses.replace(model, alpha=0, rate=1, is_tuned=True).slug
    return self._stage(
        '-'.join(['convert', slug, *([task] if task else [])]),
        f'Convert {what} to K={model.num_kv_heads} by {model.method}',
        self._scale.seconds['convert'],
        convert,
        recipe=recipe,
        command=command,
        needs=[origin],
        has_product=True,
        seed=options['seed'],
    )

  def trained(
      self, model: Model, seed: int, task: str | None = None
  ) -> Stage | None:
    """The checkpoint that fine-tuning starts from; None is the one shipped.

    Args:
      model: as named.
      seed: as named.
      task: that its multi-head model is fine-tuned on, where it is.
    """
    scale = self._scale
    origin_steps, fraction = self._lengths(model)
    steps = round(fraction * origin_steps)
    if model.method is None:
      return self._pretrained(model.num_kv_heads, seed, origin_steps + steps)
    start = self._origin(model, seed, task)
    if model.is_converted:
      start = self.converted(model, seed, task)
    if not steps:
      return start
    return self._training(
        f'uptrain-{model.slug}',
        f'Uptrain {model.name} for {steps} steps, {fraction:.2%} of'
        ' pre-training',
        steps * scale.seconds['step'] + 5,
        'uptrain.gin',
        {
            'NUM_KV_HEADS': model.num_kv_heads,
            'PRETRAIN_STEPS': origin_steps,
            'UPTRAIN_FRACTION': fraction,
            'LEARNING_RATE_FACTOR': model.rate,
            'DEV_EXAMPLES': scale.dev_examples,
            **scale.pretrain_bindings,
        },
        scale,
        seed=seed,
        start=start,
    )

  def _lengths(self, model: Model) -> tuple[int, float]:
    """Returns the steps of pre-training, and the share of uptraining."""
    if model.method is None:
      return self._scale.scratch_steps, ALPHA
    if model.origin:
      return self._scale.scratch_steps, model.alpha
    return self._scale.pretrain_steps, model.alpha * self._scale.alpha_unit

  def _origin(
      self, model: Model, seed: int, task: str | None = None
  ) -> Stage | None:
    """The multi-head checkpoint that it comes from; None is the one shipped."""
    if not model.origin:
      return self.base()
    if model.origin == FINETUNED:
      return self.finetuned(Model(NUM_HEADS, alpha=0.0), seed, task)
    return self._pretrained(NUM_HEADS, seed, self._scale.scratch_steps)

  def _pretrained(
      self, num_kv_heads: int, seed: int | None, steps: int
  ) -> Stage:
    def result(target):
      from gqa_t5x.engine import checkpointing

      checkpoint = checkpointing.best_or_latest(str(target), None)
      return {
          'losses': _losses(target),
          'config': _metadata(checkpoint)['config'],
      }

    return self._training(
        f'pretrain-K{num_kv_heads}-{steps}',
        f'Train {Model(num_kv_heads, None).name} for {steps} steps',
        steps * self._scale.seconds['step'] + 5,
        'pretrain.gin',
        {
            'NUM_KV_HEADS': num_kv_heads,
            'PRETRAIN_STEPS': steps,
            **(_EVERY_LOSS if seed is None else _STABILITY),
            **self._scale.pretrain_bindings,
        },
        self._scale,
        seed=seed,
        from_scratch=True,
        result=result,
    )

  def loss(self, model: Model, seed: int) -> Stage:
    """Pre-training loss on validation text, of each example."""
    trained = self.trained(model, seed)
    scale, task = self._scale, self._suite.dev_task

    def measure():
      import jax

      from gqa_t5x.experiments import scoring

      network, params, metadata = _load(self._checkpoint(trained))
      folder = self._arrays(task, 'validation', scale)
      return {
          'per_example': scoring.losses(network, params, folder, scale),
          'step': int(metadata['step']),
          'num_params': sum(x.size for x in jax.tree.leaves(params)),
      }

    return self._stage(
        f'loss-{model.slug}',
        f'Measure the loss of {model.name}',
        scale.seconds['loss'],
        measure,
        recipe={'examples': scale.loss_examples, 'lengths': scale.lengths},
        needs=[trained],
    )

  def finetuned(self, model: Model, seed: int, task: str) -> Stage:
    """The checkpoint that is tested; of one that is not tuned, as it came."""
    is_second = model.origin == FINETUNED
    start = self.trained(model, seed, task if is_second else None)
    if not model.is_tuned:
      return start
    scale = self._scale.of(task)
    decay = {}
    if scale.finetune_decay_steps:  # Up to where the run ends.
      steps = scale.finetune_decay_steps
      decay['optimizer.Schedule.linear_decay_steps'] = steps
    # The second time it does not see what it saw first.
    again = {'SEED': _AGAIN + seed} if is_second else {}
    return self._training(
        f'{_FINETUNE}-{model.slug}-{task}',
        f'Fine-tune {model.name} on {task}',
        scale.seconds['finetune'],
        'finetune.gin',
        {
            'NUM_KV_HEADS': model.num_kv_heads,
            'MIXTURE_OR_TASK_NAME': task,
            'TRAIN_STEPS_RELATIVE': scale.finetune_steps,
            'EVAL_EVERY': max(1, scale.finetune_steps // scale.finetune_evals),
            'DEV_EXAMPLES': scale.dev_examples,
            **decay,
            **again,
            **({} if model.method else _STABILITY),
            **scale.finetune_bindings,
        },
        scale,
        seed=seed,
        start=start,
        task=task,
    )

  def tested(self, model: Model, seed: int, task: str) -> Stage:
    finetuned = self.finetuned(model, seed, task)
    scale = self._scale.of(task)

    def test():
      network, params, metadata = _load(self._checkpoint(finetuned))
      found = self._test(network, params, task, scale)
      return found | {'best_step': metadata['step']}

    return self._stage(
        f'test-{model.slug}-{task}',
        f'Test {model.name} on {task}',
        scale.seconds['test'],
        test,
        recipe={'examples': scale.test_examples},
        command='(part of gqa-t5x reproduce; gqa-t5x eval decodes the same)',
        needs=[finetuned, self.data(task)],
    )

  def baselines(self) -> Stage:
    def measure():
      from gqa_t5x.experiments import scoring

      network, _, _ = _load(self.base_checkpoint())
      params = scoring.random_params(network)
      scores = {}
      for column in self._suite.columns:
        scale = self._scale.of(column.task)
        # It never ends a sentence, which makes it the slowest of all to decode.
        few = min(results_lib.UNTRAINED_EXAMPLES, scale.test_examples)
        untrained = self._test(
            network,
            params,
            column.task,
            dataclasses.replace(scale, test_examples=few),
        )
        scores[column.task] = {
            'untrained': untrained['metrics'][column.metric],
            **scoring.trivial(column, self._suite, scale.test_examples),
        }
      return scores

    return self._stage(
        'baselines',
        'Score an untrained model and trivial baselines',
        self._scale.seconds['baselines'],
        measure,
        recipe={'examples': self._scale.test_examples, 'tasks': self.tasks},
        needs=[self.base(), *map(self.data, self.tasks)],
    )

  def timing(self) -> Stage:
    """Decoding, for each K; the weights do not matter to it."""

    def measure():
      from gqa_t5x import conversion
      from gqa_t5x.benchmark import decode

      network, params, _ = _load(self.base_checkpoint())
      models = {}
      for k, config in decode.configs_by_kv_heads(network.config).items():
        models[str(k)] = config, conversion.convert_params(
            params, num_heads=NUM_HEADS, num_kv_heads=k
        )
      # A run may go on elsewhere, and its times stay those of this machine.
      return {
          'times': decode.compare_decode(models, **self._scale.timing),
          'environment': provenance.environment(),
      }

    words = ['gqa-t5x', 'benchmark', 'decode']
    words += [f'--{k}={v}' for k, v in self._scale.timing.items()]
    if self.base() is not None:
      words.append(f'--checkpoint={self.base_checkpoint()}')
    return self._stage(
        'timing',
        'Time decoding for each number of key/value heads',
        self._scale.seconds['timing'],
        measure,
        recipe={**self._scale.timing, 'result': ('times', 'environment')},
        command=shlex.join(words),
        needs=[self.base()],
    )

  def _training(
      self, name, title, seconds, gin_file, bindings, scale, *, seed,
      start=None, task=None, from_scratch=False, result=None,
  ) -> Stage:  # pyformat: disable
    """A run of a gin file.

    Args:
      name: as for `_stage`, like the next two.
      title: as named.
      seconds: as named.
      gin_file: of gin_configs/local.
      bindings: of this run; what all runs share is added.
      scale: of the task that it trains on.
      seed: None is that of the suite's own checkpoint, 0.
      start: whose checkpoint it starts from; None is the one that ships.
      task: that it trains on; None is that of pre-training.
      from_scratch: whether it starts from none.
      result: what is kept of the folder that the run wrote; None are `_losses`.
    """
    shared = {
        'SEED': seed or 0,
        **_cached(scale),
        'BATCH_SIZE': scale.batch_size,
        **bindings,
        **scale.model_bindings,
        **self._suite_bindings(),
    }
    files = [scale.model_gin, _LOCAL + gin_file, *self._suite_gin()]

    def of(target) -> GinRun:
      paths = {'MODEL_DIR': str(target), **self._data_paths(task)}
      if not from_scratch:
        paths['INITIAL_CHECKPOINT_PATH'] = self._checkpoint(start)
      return GinRun('train', files, shared | paths)

    def run(target):
      of(target).run()
      return (result or _losses)(target)

    return self._stage(
        name,
        title,
        seconds,
        run,
        recipe=GinRun('train', files, shared).recipe(),
        command=lambda target: of(target).command(),
        needs=[start, *([self.data(task)] if task else [])],
        has_product=True,
        seed=seed,
    )

  def _cached_by(self, task: str | None) -> Callable[..., GinRun]:
    """The run that makes the token arrays of a task; None is pre-training."""
    if self._suite.checkpoint:
      # Tasks are tokenized with what the checkpoint was pre-trained on, and
      # their test splits when they are needed.
      return self._cache(None, (), self._scale)
    if task:
      return self._cache(task, _SPLITS, self._scale.of(task))
    return self._cache(self._suite.dev_task, _SPLITS[:2], self._scale)

  def _cache(
      self, task: str | None, splits: Sequence[str], scale: Scale
  ) -> Callable[..., GinRun]:
    """Returns a function of paths to a run of cache.gin.

    Args:
      task: None is that of cache.gin.
      splits: likewise if there are none.
      scale: of the task.
    """
    bindings = _cached(scale)
    if task:
      bindings['MIXTURE_OR_TASK_NAME'] = task
    if splits:
      bindings['launch.Cache.splits'] = tuple(splits)
    files = [_LOCAL + 'cache.gin', *self._suite_gin()]
    return lambda **paths: GinRun('cache', files, bindings | paths)

  def _arrays(self, task: str, split: str, scale: Scale) -> str:
    """Returns the folder of a task's tokens; makes it where it is missing."""
    run = self._cache(task, (split,), scale)
    only_cached = {'launch.Cache.only_cached': not self._suite.checkpoint}
    (folder,) = run(**self._data_paths(task), **only_cached).run()[split]
    return folder

  def _test(self, network, params, task: str, scale: Scale) -> dict[str, Any]:
    from gqa_t5x.experiments import scoring

    path = self._vocabulary_path().get(_VOCABULARY_PATH)
    (column,) = (c for c in self._suite.columns if c.task == task)
    return scoring.test(
        network,
        params,
        self._arrays(task, 'test', scale),
        column,
        self._suite,
        vocabularies.Vocabulary(path or pretrained.VOCABULARY_PATH),
        scale,
    )

  def _suite_gin(self) -> list[str]:
    return [self._suite.gin_file] * bool(self._suite.gin_file)

  def _suite_bindings(self) -> dict[str, Any]:
    """Of training where a vocabulary and token arrays have been made."""
    if self._suite.checkpoint:
      return {}
    return {
        'network.T5Config.vocab_size': self._suite.vocab_size,
        'launch.Cache.only_cached': True,
    }

  def _vocabulary_path(self) -> dict[str, str]:
    """The binding of a vocabulary that does not ship."""
    vocabulary = self.vocabulary()
    if vocabulary is None:
      return {}
    return {_VOCABULARY_PATH: str(vocabulary.product / _VOCABULARY)}

  def _data_paths(self, task: str | None) -> dict[str, str]:
    """Bindings of where a task's vocabulary and tokens are; see `data`."""
    tokens = self.data(task).product
    folder = {_CACHE_DIR: str(tokens)} if tokens else {}
    return self._vocabulary_path() | folder

  def _checkpoint(self, stage: Stage | None) -> str:
    """Returns the checkpoint that a stage has made, or would make.

    What was converted is one; a training run has a folder of them, of which
    fine-tuning's is the one of the least dev loss, others' the last.
    """
    from gqa_t5x.engine import checkpointing

    if stage is None:
      return self._suite.checkpoint
    if _GIN_RUN not in stage.recipe:
      return str(stage.product)
    best = 'loss' if stage.name.startswith(_FINETUNE) else None
    path = checkpointing.best_or_latest(str(stage.product), best)
    return path or f'{stage.product}/checkpoints/STEP'

  def _stage(
      self, name, title, seconds, run, *, recipe, command=_OF_REPRODUCE,
      needs=(), has_product=False, seed=None,
  ) -> Stage:  # pyformat: disable
    """Makes a stage, unless it is there.

    Args:
      name: what it is, but for the seed, which is added if it has any part.
      title: as for `Stage`, like the next two.
      seconds: as named.
      run: as named; gets the product's folder, where there is one.
      recipe: as for `Stage`, like the next two.
      command: as named.
      needs: None among them is nothing.
      has_product: whether later stages read what it writes.
      seed: its own; None is that of what it needs.
    """
    needs = [stage for stage in needs if stage is not None]
    seeds = {stage.recipe.get('seed') for stage in needs} | {seed}
    seed = next((s for s in seeds if s is not None), None)
    if seed is not None:
      name, recipe = f'{name}-seed{seed}', recipe | {'seed': seed}
    if name not in self._stages:
      if not prepares(name):
        before = [self.vocabulary(), self.data()]
        needs = dict.fromkeys([*(stage for stage in before if stage), *needs])
      self._stages[name] = Stage(
          name=name,
          title=title,
          seconds=seconds,
          run=run,
          recipe=recipe,
          command=command,
          needs=tuple(needs),
          folder=self._folder / 'models' if has_product else None,
      )
    return self._stages[name]


def _cached(scale: Scale) -> dict[str, Any]:
  """Bindings of `launch.Cache`; the same in all stages, which share it."""
  return {
      'TASK_FEATURE_LENGTHS': scale.lengths,
      'MAX_CACHED_EXAMPLES': scale.max_cached_examples,
  }


def _losses(target: pathlib.Path) -> list[float | None]:
  """Returns the loss of each step of a run; None is no finite number."""
  metrics = (target / 'metrics.jsonl').read_text(encoding='utf-8')
  rows = [json.loads(line) for line in metrics.splitlines()]
  return [row['loss'] for row in rows if 'loss' in row]


def _metadata(path: str) -> dict[str, Any]:
  from gqa_t5x import checkpoints

  return checkpoints.open_checkpoint(path).metadata


def _load(path: str):
  """Returns (model, params, metadata) of a checkpoint."""
  from gqa_t5x import checkpoints
  from gqa_t5x import decoding
  from gqa_t5x import network

  params, metadata = checkpoints.load_checkpoint(path)
  model = network.Transformer(network.T5Config(**metadata['config']))
  return model, decoding.place_params(model, params), metadata
