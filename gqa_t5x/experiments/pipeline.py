# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""From the checkpoint that ships to a model's scores, stage by stage.

The multi-head checkpoint is converted, uptrained, fine-tuned on three tasks,
and evaluated on their test splits; or a model is trained from scratch instead
of the first two. Every training stage is a gin file of gin_configs/local with a
few bindings. Experiments say of which models they want what; a stage that
several want is one stage.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
import shlex
import shutil
from typing import Any

import gqa_t5x
from gqa_t5x import pretrained
from gqa_t5x.experiments import paper
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments.scales import Scale
from gqa_t5x.experiments.stages import Stage

NUM_HEADS = 8  # Of the checkpoint that ships.
PRETRAIN_STEPS = 7000  # Likewise.
ALPHA = paper.UPTRAIN_FRACTION
TASKS = tuple(column.task for column in results_lib.TASK_COLUMNS)
PRETRAINING_TASK = 'docs_span_corruption'
NUM_SAMPLES = 5
SHIPPED, SCRATCH = 'shipped', 'scratch'
CALIBRATED = ('svd',)  # Methods that are given covariances of text.
_MODEL_GIN = 'gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
_LOCAL = 'gqa_t5x/gin_configs/local/'
_GIN_RUN = 'gin_run'  # In the recipes of training runs.
_OF_REPRODUCE = '(part of gqa-t5x reproduce)'


@dataclasses.dataclass(frozen=True, order=True)
class Model:
  """How a model is made; a row of our tables.

  Attributes:
    num_kv_heads: K; all of the checkpoint's heads mean MHA, not converted.
    method: of conversion, or None for a model trained from scratch with K, for
      as many steps as pre-training and uptraining of the others.
    alpha: share of the original pre-training that uptraining takes.
    origin: 'shipped', the checkpoint that is converted, or 'scratch', an MHA
      model trained here.
  """

  num_kv_heads: int
  method: str | None = 'mean'
  alpha: float = ALPHA
  origin: str = SHIPPED

  @property
  def name(self) -> str:
    """The paper's name, and what differs from its recipe."""
    heads = {NUM_HEADS: 'MHA', 1: 'MQA'}
    parts = [heads.get(self.num_kv_heads, f'GQA-{self.num_kv_heads}')]
    if self.method is None:
      return f'{parts[0]} from scratch'
    if self.method != 'mean':
      parts.append(self.method)
    if self.alpha != ALPHA:
      parts.append(f'alpha {self.alpha:g}')
    if self.origin != SHIPPED:
      parts.append('of a model from scratch')
    return ', '.join(parts)

  @property
  def is_converted(self) -> bool:
    return self.num_kv_heads != NUM_HEADS and self.method is not None


@dataclasses.dataclass(frozen=True)
class _GinRun:
  """A run of the engine: as a command, and in this process."""

  mode: str
  gin_files: Sequence[str]
  bindings: Mapping[str, Any]

  def _pairs(self) -> list[str]:
    return [f'{name}={value!r}' for name, value in self.bindings.items()]

  def command(self) -> str:
    words = ['gqa-t5x', self.mode]
    words += [f'--gin_file={path}' for path in self.gin_files]
    words += [shlex.quote(f'--gin.{pair}') for pair in self._pairs()]
    return ' '.join(words)

  def run(self) -> Any:
    from gqa_t5x.engine import launch

    return launch.run(self.mode, self.gin_files, self._pairs())


class Pipeline:
  """Makes the stages of a scale; what they make lies below a folder.

  Each method returns a stage, the same one for the same arguments.
  """

  def __init__(self, scale: Scale, folder: pathlib.Path):
    self._scale = scale
    self._folder = folder
    self._stages: dict[str, Stage] = {}

  def data(self) -> Stage:
    run = _GinRun('cache', [_LOCAL + 'cache.gin'], self._cached())

    def make():
      from gqa_t5x.tasks import corpus

      run.run()
      return corpus.corpus_fingerprint()

    return self._stage(
        'data',
        'Read the installed documentation and tokenize the tasks',
        self._scale.seconds['data'],
        make,
        recipe={'run': run.command(), 'version': gqa_t5x.__version__},
        command=run.command(),
    )

  def converted(self, model: Model, seed: int) -> Stage:
    """The checkpoint before uptraining, of a model that is converted."""
    origin = self._origin(model, seed)
    options = {
        'num_kv_heads': model.num_kv_heads,
        'method': model.method,
        'seed': seed if model.method == 'random' else None,
    }
    sequences = self._scale.calibration_sequences
    calibrated = model.method in CALIBRATED

    def convert(target):
      from gqa_t5x import conversion
      from gqa_t5x.conversion import calibration_text

      shutil.rmtree(target, ignore_errors=True)
      target.parent.mkdir(parents=True, exist_ok=True)
      source, calibrate = _checkpoint(origin), None
      if calibrated:
        calibrate = functools.partial(
            calibration_text.covariances,
            source,
            None,
            None,
            num_sequences=sequences,
        )
      conversion.convert_checkpoint(
          source, str(target), **options, calibrate=calibrate
      )

    def command(target):
      words = ['gqa-t5x', 'convert', '--input', _checkpoint(origin)]
      words += ['--output', str(target)]
      for name, value in options.items():
        if value is not None:
          words += [f'--{name}', str(value)]
      if calibrated:
        words += ['--calibration_sequences', str(sequences)]
      return shlex.join(words)

    return self._stage(
        f'convert-{_slug(dataclasses.replace(model, alpha=0))}',
        f'Convert the multi-head checkpoint to K={model.num_kv_heads} by'
        f' {model.method}',
        self._scale.seconds['convert'],
        convert,
        recipe=options | ({'sequences': sequences} if calibrated else {}),
        command=command,
        needs=[origin],
        has_product=True,
        seed=options['seed'],
    )

  def trained(self, model: Model, seed: int) -> Stage | None:
    """The checkpoint that fine-tuning starts from; None is the one shipped."""
    if model.method is None:
      steps = round(self._scale.scratch_steps * (1 + ALPHA))
      return self._pretrained(model.num_kv_heads, seed, steps)
    origin = self._origin(model, seed)
    start = self.converted(model, seed) if model.is_converted else origin
    origin_steps = self._scale.scratch_steps if origin else PRETRAIN_STEPS
    fraction = model.alpha * (1 if origin else self._scale.alpha_unit)
    steps = round(fraction * origin_steps)
    if not steps:
      return start
    return self._training(
        f'uptrain-{_slug(model)}',
        f'Uptrain {model.name} for {steps} steps, {fraction:.2%} of'
        ' pre-training',
        steps * self._scale.seconds['step'] + 5,
        'uptrain.gin',
        {
            'NUM_KV_HEADS': model.num_kv_heads,
            'PRETRAIN_STEPS': origin_steps,
            'UPTRAIN_FRACTION': fraction,
            'DEV_EXAMPLES': self._scale.dev_examples,
        },
        seed=seed,
        start=start,
    )

  def _origin(self, model: Model, seed: int) -> Stage | None:
    """The multi-head checkpoint that it comes from; None is the one shipped."""
    if model.origin == SHIPPED:
      return None
    return self._pretrained(NUM_HEADS, seed, self._scale.scratch_steps)

  def _pretrained(self, num_kv_heads: int, seed: int, steps: int) -> Stage:
    def losses(target):
      metrics = (target / 'metrics.jsonl').read_text(encoding='utf-8')
      rows = [json.loads(line) for line in metrics.splitlines()]
      return {'losses': [row['loss'] for row in rows if 'loss' in row]}

    return self._training(
        f'pretrain-K{num_kv_heads}-{steps}',
        f'Train {Model(num_kv_heads, None).name} for {steps} steps',
        steps * self._scale.seconds['step'] + 5,
        'pretrain.gin',
        {
            'NUM_KV_HEADS': num_kv_heads,
            'PRETRAIN_STEPS': steps,
            'train.TrainConfig.log_every': 1,
        },
        seed=seed,
        from_scratch=True,
        result=losses,
    )

  def loss(self, model: Model, seed: int) -> Stage:
    """Pre-training loss on validation text, of each example."""
    trained = self.trained(model, seed)

    def measure():
      return _losses(self._scale, _load(_checkpoint(trained)))

    return self._stage(
        f'loss-{_slug(model)}',
        f'Measure the loss of {model.name}',
        self._scale.seconds['loss'],
        measure,
        recipe={
            'examples': self._scale.loss_examples,
            'lengths': self._lengths(),
        },
        needs=[trained],
    )

  def finetuned(self, model: Model, seed: int, task: str) -> Stage:
    scale = self._scale
    return self._training(
        f'finetune-{_slug(model)}-{task}',
        f'Fine-tune {model.name} on {task}',
        scale.seconds['finetune'],
        'finetune.gin',
        {
            'NUM_KV_HEADS': model.num_kv_heads,
            'MIXTURE_OR_TASK_NAME': task,
            'TRAIN_STEPS_RELATIVE': scale.finetune_steps,
            'EVAL_EVERY': max(1, scale.finetune_steps // 2),
            'DEV_EXAMPLES': scale.dev_examples,
            **scale.finetune_bindings,
        },
        seed=seed,
        start=self.trained(model, seed),
    )

  def tested(self, model: Model, seed: int, task: str) -> Stage:
    finetuned = self.finetuned(model, seed, task)

    def test():
      network, params, metadata = _load(_checkpoint(finetuned, 'loss'))
      found = _test(network, params, task, self._scale, self._folder)
      return found | {'best_step': metadata['step']}

    return self._stage(
        f'test-{_slug(model)}-{task}',
        f'Test {model.name} on {task}',
        self._scale.seconds['test'],
        test,
        recipe={'examples': self._scale.test_examples},
        command='(part of gqa-t5x reproduce; gqa-t5x eval gives the same)',
        needs=[finetuned],
    )

  def baselines(self) -> Stage:
    return self._stage(
        'baselines',
        'Score an untrained model and trivial baselines',
        self._scale.seconds['baselines'],
        lambda: _baselines(self._scale, self._folder),
        recipe={'examples': self._scale.test_examples},
    )

  def timing(self) -> Stage:
    """Decoding, for each K; the weights do not matter to it."""

    def measure():
      from gqa_t5x import conversion
      from gqa_t5x.benchmark import decode

      network, params, _ = _load(pretrained.CHECKPOINT_PATH)
      models = {}
      for k, config in decode.configs_by_kv_heads(network.config).items():
        models[str(k)] = config, conversion.convert_params(
            params, num_heads=NUM_HEADS, num_kv_heads=k
        )
      return decode.compare_decode(models, **self._scale.timing)

    return self._stage(
        'timing',
        'Time decoding for each number of key/value heads',
        self._scale.seconds['timing'],
        measure,
        recipe=dict(self._scale.timing),
        command='gqa-t5x benchmark decode',
    )

  def _training(
      self, name, title, seconds, gin_file, bindings, *, seed, start=None,
      from_scratch=False, result=lambda target: None,
  ) -> Stage:  # pyformat: disable
    """A run of a gin file.

    Args:
      name: as for `_stage`, like the next two.
      title: as named.
      seconds: as named.
      gin_file: of gin_configs/local.
      bindings: of this run; what all runs share is added.
      seed: as named.
      start: whose checkpoint it starts from; None is the one that ships.
      from_scratch: whether it starts from none.
      result: what is kept of the folder that the run wrote.
    """
    shared = {
        'SEED': seed,
        **self._cached(),
        'BATCH_SIZE': self._scale.batch_size,
        **bindings,
    }

    def gin_run(**paths) -> _GinRun:
      return _GinRun('train', [_MODEL_GIN, _LOCAL + gin_file], shared | paths)

    def of(target) -> _GinRun:
      paths = {'MODEL_DIR': str(target)}
      if not from_scratch:
        paths['INITIAL_CHECKPOINT_PATH'] = _checkpoint(start)
      return gin_run(**paths)

    def run(target):
      of(target).run()
      return result(target)

    return self._stage(
        name,
        title,
        seconds,
        run,
        recipe={_GIN_RUN: gin_run().command()},
        command=lambda target: of(target).command(),
        needs=[start],
        has_product=True,
        seed=seed,
    )

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
      if name != 'data':
        needs = [self.data(), *needs]
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

  def _lengths(self) -> dict[str, int]:
    return _lengths(self._scale)

  def _cached(self) -> dict[str, Any]:
    """Bindings of `launch.Cache`; the same in all stages, which share it."""
    return {
        'TASK_FEATURE_LENGTHS': self._lengths(),
        'MAX_CACHED_EXAMPLES': self._scale.max_cached_examples,
    }


def _slug(model: Model) -> str:
  parts = [f'K{model.num_kv_heads}']
  origin = SCRATCH if model.method is None else model.origin
  parts += [origin] * (origin != SHIPPED)
  parts += [model.method] * model.is_converted
  parts += [f'alpha{model.alpha:g}'] * (model.method is not None)
  return '-'.join(parts)


def _checkpoint(stage: Stage | None, best_metric: str | None = None) -> str:
  """Returns the checkpoint that a stage has made, or would make.

  What was converted is one; a training run has a folder of them.
  """
  from gqa_t5x.engine import checkpointing

  if stage is None:
    return pretrained.CHECKPOINT_PATH
  if _GIN_RUN not in stage.recipe:
    return str(stage.product)
  path = checkpointing.best_or_latest(str(stage.product), best_metric)
  return path or f'{stage.product}/checkpoints/STEP'


def _lengths(scale: Scale) -> dict[str, int]:
  return {'inputs': scale.inputs_length, 'targets': scale.targets_length}


def _load(path: str):
  """Returns (model, params, metadata) of a checkpoint."""
  from gqa_t5x import checkpoints
  from gqa_t5x import network

  params, metadata = checkpoints.load_checkpoint(path)
  config = network.T5Config(**metadata['config'])
  return network.Transformer(config), params, metadata


def _losses(scale: Scale, loaded) -> dict[str, Any]:
  import jax

  from gqa_t5x.engine import data
  from gqa_t5x.engine import evaluate
  from gqa_t5x.engine import launch
  from gqa_t5x.tasks import embedded  # noqa: F401  Registers the tasks.

  source = launch.Cache(
      mixture_or_task_name=PRETRAINING_TASK,
      task_feature_lengths=_lengths(scale),
      max_examples=scale.max_cached_examples,
  )
  (arrays,) = source.run()['validation']
  config = data.BatchConfig(
      scale.decode_batch_size, scale.inputs_length, scale.targets_length
  )
  network, params, metadata = loaded
  losses = evaluate.example_losses(
      network, params, data.eval_batches(arrays, config)
  )[: scale.loss_examples]
  return {
      'per_example': losses.tolist(),
      'step': int(metadata['step']),
      'num_params': sum(x.size for x in jax.tree.leaves(params)),
  }


def _test(network, params, task, scale, folder) -> dict[str, Any]:
  """Decodes the test split greedily and scores it."""
  from gqa_t5x.engine import evaluate
  from gqa_t5x.tasks import embedded  # noqa: F401  Registers the tasks.

  path = folder / 'predictions.jsonl'
  evaluate.infer(
      network,
      params,
      task,
      _lengths(scale),
      str(path),
      batch_size=scale.decode_batch_size,
      split='test',
      max_examples=scale.test_examples,
  )
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  path.unlink()
  predictions = [row['prediction'] for row in rows]
  return _score(task, predictions, scale) | {
      'samples': [
          {
              'input': row['inputs'],
              'target': row['targets'],
              'prediction': row['prediction'],
          }
          for row in rows[:NUM_SAMPLES]
      ]
  }


def _score(
    task: str, predictions: Sequence[str], scale: Scale
) -> dict[str, Any]:
  """Scores predictions for the head of a task's test split."""
  from gqa_t5x.experiments import statistics
  from gqa_t5x.tasks import embedded
  from gqa_t5x.tasks import metrics

  targets = embedded.reference_targets(task, 'test')[: scale.test_examples]
  predictions = list(predictions)[: len(targets)]
  if task == 'cldr_translate_en_de':
    statistic = statistics.bleu_statistics(predictions, targets)
    measured = metrics.bleu(targets, predictions)
    per_example = [
        metrics.bleu([t], [p])['bleu'] for t, p in zip(targets, predictions)
    ]
  else:
    statistic = None
    measure, main = {
        'docs_summarize': (metrics.rouge, 'rouge1'),
        'docs_question_answering': (metrics.trivia_qa, 'f1'),
    }[task]
    measured = measure(targets, predictions)
    per_example = [
        measure([t], [p])[main] for t, p in zip(targets, predictions)
    ]
  scored = {
      'metrics': measured,
      'per_example': per_example,
      'num_examples': len(targets),
  }
  if statistic is not None:
    scored['bleu_statistics'] = statistic.tolist()
  return scored


def _baselines(scale: Scale, folder: pathlib.Path) -> dict[str, Any]:
  """Scores a model with random parameters, and what needs no model."""
  import jax
  import jax.numpy as jnp

  from gqa_t5x.tasks import embedded

  network, _, _ = _load(pretrained.CHECKPOINT_PATH)
  tokens = jnp.zeros((1, 1), jnp.int32)
  init = functools.partial(network.init, enable_dropout=False)
  params = jax.jit(init)(jax.random.key(0), tokens, tokens, tokens)['params']
  # It never ends a sentence, which makes it the slowest of all to decode.
  few = dataclasses.replace(
      scale,
      test_examples=min(results_lib.UNTRAINED_EXAMPLES, scale.test_examples),
  )
  scores = {}
  for column in results_lib.TASK_COLUMNS:
    task = column.task
    untrained = _test(network, params, task, few, folder)
    scores[task] = {'untrained': untrained['metrics'][column.metric]}
    for name, made in embedded.trivial_predictions(task, 'test').items():
      scored = _score(task, made, scale)
      scores[task][name] = scored['metrics'][column.metric]
  return scores
