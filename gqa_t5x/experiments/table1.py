# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Table 1 of the paper: MHA, GQA and MQA of one checkpoint, quality and time.

The multi-head checkpoint that ships with the package is converted to K = 2 and
K = 1, each model is uptrained (MHA as well, as the control), fine-tuned on
three tasks, evaluated on their test splits, and timed. Every training stage is
a gin file of gin_configs/local with a few bindings.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import shlex
import shutil
import sys
from typing import Any

from gqa_t5x import pretrained
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments.runner import Stage

MODELS = {'MHA': 8, 'GQA-2': 2, 'MQA': 1}
TASKS = tuple(column.task for column in results_lib.TASK_COLUMNS)
PRETRAINING_TASK = 'docs_span_corruption'
NUM_SAMPLES = 5
_MODEL_GIN = 'gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
_LOCAL = 'gqa_t5x/gin_configs/local/'


@dataclasses.dataclass(frozen=True)
class Scale:
  """How much is done.

  Attributes:
    inputs_length: tokens of an input row.
    targets_length: tokens of a target row, and most tokens decoded.
    max_cached_examples: of each task and split, to be tokenized.
    batch_size: packed rows of a training batch.
    uptrain_fraction: the paper's alpha.
    finetune_steps: of each model on each task.
    dev_examples: of each task, on which the dev loss of a run is measured.
    test_examples: decoded of each task.
    loss_examples: of the pre-training objective.
    decode_batch_size: inputs decoded together, in evaluation.
    timing: batch_size, input_length, output_length and num_repeats of the
      decoding benchmark.
    seconds: of a stage of each kind, about, on 2 CPU cores.
    xla_flags: added to XLA_FLAGS before JAX starts.
    finetune_bindings: for gin, in fine-tuning.
  """

  inputs_length: int
  targets_length: int
  max_cached_examples: int
  batch_size: int
  uptrain_fraction: float
  finetune_steps: int
  dev_examples: int
  test_examples: int
  loss_examples: int
  decode_batch_size: int
  timing: Mapping[str, int]
  seconds: Mapping[str, float]
  xla_flags: str = ''
  finetune_bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


SCALES = {
    'laptop': Scale(
        inputs_length=256,
        targets_length=72,
        max_cached_examples=10_000,
        batch_size=8,
        uptrain_fraction=0.05,
        finetune_steps=80,
        dev_examples=64,
        test_examples=400,
        loss_examples=256,
        decode_batch_size=40,
        timing=dict(
            batch_size=16, input_length=512, output_length=128, num_repeats=5
        ),
        seconds=dict(
            data=45, convert=2, uptrain=120, loss=8, finetune=32, test=8,
            baselines=15, timing=30,
        ),
    ),
    'smoke': Scale(
        inputs_length=64,
        targets_length=16,
        max_cached_examples=200,
        batch_size=4,
        uptrain_fraction=0.0003,
        finetune_steps=2,
        dev_examples=4,
        test_examples=8,
        loss_examples=8,
        decode_batch_size=8,
        timing=dict(
            batch_size=2, input_length=64, output_length=8, num_repeats=2
        ),
        seconds=dict(
            data=25, convert=1, uptrain=7, loss=3, finetune=2, test=1,
            baselines=4, timing=8,
        ),
        # Nothing runs long enough to be worth optimising or sharing out, and
        # uptraining's compiled step serves fine-tuning too.
        xla_flags='--xla_backend_optimization_level=0'
        ' --xla_force_host_platform_device_count=1',
        finetune_bindings={
            'optimizer.Schedule.kind': 'rsqrt',
            'optimizer.Schedule.base': 0.5,
            'optimizer.Schedule.warmup_steps': 1000,
            'DROPOUT_RATE': 0.0,
            'SEED': 1,
        },
    ),
}


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


def stages(scale: Scale, folder: pathlib.Path) -> list[Stage]:
  """Returns the stages, in order; paths are below `folder`."""
  seconds = scale.seconds
  made = [_data_stage(scale)]
  for model, num_kv_heads in MODELS.items():
    if model != 'MHA':
      made.append(_convert_stage(model, num_kv_heads, folder, seconds))
    made.append(_uptrain_stage(model, scale, folder))
    made.append(
        Stage(
            f'loss-{model}',
            f'Measure the loss of {model} before and after uptraining',
            '(part of gqa-t5x reproduce)',
            seconds['loss'],
            lambda model=model: _losses(model, scale, folder),
        )
    )
  for model in MODELS:
    for task in TASKS:
      made.append(_finetune_stage(model, task, scale, folder))
      made.append(_test_stage(model, task, scale, folder))
  made.append(
      Stage(
          'baselines',
          'Score an untrained model and trivial baselines',
          '(part of gqa-t5x reproduce)',
          seconds['baselines'],
          lambda: _baselines(scale, folder),
      )
  )
  made.append(
      Stage(
          'timing',
          'Time decoding of the three models',
          'gqa-t5x benchmark decode',
          seconds['timing'],
          lambda: _timing(scale, folder),
      )
  )
  return made


def _lengths(scale: Scale) -> dict[str, int]:
  return {'inputs': scale.inputs_length, 'targets': scale.targets_length}


def _cached(scale: Scale) -> dict[str, Any]:
  """Bindings of `launch.Cache`; the same in all stages, which share it."""
  return {
      'TASK_FEATURE_LENGTHS': _lengths(scale),
      'MAX_CACHED_EXAMPLES': scale.max_cached_examples,
  }


def _data_stage(scale: Scale) -> Stage:
  run = _GinRun(
      'cache',
      [_LOCAL + 'cache.gin'],
      _cached(scale),
  )

  def make():
    from gqa_t5x.tasks import corpus

    run.run()
    return corpus.corpus_fingerprint()

  return Stage(
      'data',
      'Read the installed documentation and tokenize the tasks',
      run.command(),
      scale.seconds['data'],
      make,
  )


def _start(model: str, folder: pathlib.Path) -> str:
  """Returns the checkpoint that uptraining of a model starts from."""
  if model == 'MHA':
    return pretrained.CHECKPOINT_PATH
  return str(folder / model / 'converted')


def _convert_stage(model, num_kv_heads, folder, seconds) -> Stage:
  source, target = pretrained.CHECKPOINT_PATH, folder / model / 'converted'

  def convert():
    from gqa_t5x import conversion

    shutil.rmtree(target, ignore_errors=True)
    conversion.convert_checkpoint(
        source, str(target), num_kv_heads=num_kv_heads
    )

  return Stage(
      f'convert-{model}',
      f'Convert the multi-head checkpoint to {model}',
      f'gqa-t5x convert --input {shlex.quote(source)}'
      f' --output {shlex.quote(str(target))} --num_kv_heads {num_kv_heads}',
      seconds['convert'],
      convert,
  )


def _uptrain_stage(model: str, scale: Scale, folder: pathlib.Path) -> Stage:
  run = _GinRun(
      'train',
      [_MODEL_GIN, _LOCAL + 'uptrain.gin'],
      {
          'NUM_KV_HEADS': MODELS[model],
          'UPTRAIN_FRACTION': scale.uptrain_fraction,
          **_cached(scale),
          'BATCH_SIZE': scale.batch_size,
          'DEV_EXAMPLES': scale.dev_examples,
          'INITIAL_CHECKPOINT_PATH': _start(model, folder),
          'MODEL_DIR': str(folder / model / 'uptrained'),
      },
  )
  return Stage(
      f'uptrain-{model}',
      f'Uptrain {model} for {scale.uptrain_fraction:.1%} of pre-training',
      run.command(),
      scale.seconds['uptrain'],
      run.run,
  )


def _uptrained(model: str, folder: pathlib.Path) -> str:
  return _checkpoint(folder / model / 'uptrained')


def _checkpoint(model_dir: pathlib.Path, best_metric: str | None = None) -> str:
  from gqa_t5x.engine import checkpointing

  path = checkpointing.best_or_latest(str(model_dir), best_metric)
  assert path is not None, model_dir
  return path


def _load(path: str):
  """Returns (model, params, metadata) of a checkpoint."""
  from gqa_t5x import checkpoints
  from gqa_t5x import network

  params, metadata = checkpoints.load_checkpoint(path)
  config = network.T5Config(**metadata['config'])
  return network.Transformer(config), params, metadata


def _losses(model: str, scale: Scale, folder: pathlib.Path) -> dict[str, Any]:
  """Pre-training loss on validation text, of each example."""
  from gqa_t5x.engine import data
  from gqa_t5x.engine import evaluate
  from gqa_t5x.engine import launch

  source = launch.Cache(
      mixture_or_task_name=PRETRAINING_TASK,
      task_feature_lengths=_lengths(scale),
      max_examples=scale.max_cached_examples,
  )
  (arrays,) = source.run()['validation']
  config = data.BatchConfig(
      scale.decode_batch_size, scale.inputs_length, scale.targets_length
  )
  losses = {}
  for when, path in (
      ('converted', _start(model, folder)),
      ('uptrained', _uptrained(model, folder)),
  ):
    network, params, metadata = _load(path)
    per_example = evaluate.example_losses(
        network, params, data.eval_batches(arrays, config)
    )[: scale.loss_examples]
    losses[when] = per_example.tolist()
    losses[f'{when}_step'] = metadata['step']
  return losses


def _finetune_stage(
    model: str, task: str, scale: Scale, folder: pathlib.Path
) -> Stage:
  model_dir = folder / model / task

  def run(initial: str) -> _GinRun:
    return _GinRun(
        'train',
        [_MODEL_GIN, _LOCAL + 'finetune.gin'],
        {
            'NUM_KV_HEADS': MODELS[model],
            'MIXTURE_OR_TASK_NAME': task,
            **_cached(scale),
            'TRAIN_STEPS_RELATIVE': scale.finetune_steps,
            'EVAL_EVERY': max(1, scale.finetune_steps // 2),
            'DEV_EXAMPLES': scale.dev_examples,
            'BATCH_SIZE': scale.batch_size,
            'INITIAL_CHECKPOINT_PATH': initial,
            'MODEL_DIR': str(model_dir),
            **scale.finetune_bindings,
        },
    )

  latest = f'{folder / model / "uptrained" / "checkpoints"}/STEP'
  return Stage(
      f'finetune-{model}-{task}',
      f'Fine-tune {model} on {task}',
      run(latest).command(),
      scale.seconds['finetune'],
      lambda: run(_uptrained(model, folder)).run(),
  )


def _test_stage(
    model: str, task: str, scale: Scale, folder: pathlib.Path
) -> Stage:
  def test():
    path = _checkpoint(folder / model / task, 'loss')
    network, params, metadata = _load(path)
    return _test(network, params, task, scale, folder) | {
        'best_step': metadata['step']
    }

  return Stage(
      f'test-{model}-{task}',
      f'Test {model} on {task}',
      '(part of gqa-t5x reproduce; gqa-t5x eval gives the same metrics)',
      scale.seconds['test'],
      test,
  )


def _test(network, params, task, scale, folder) -> dict[str, Any]:
  """Decodes the test split greedily and scores it."""
  import json

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


def _timing(scale: Scale, folder: pathlib.Path) -> dict[str, Any]:
  from gqa_t5x.benchmark import decode

  models = {}
  for model in MODELS:
    network, params, _ = _load(_uptrained(model, folder))
    models[model] = (network.config, params)
  return decode.compare_decode(models, **scale.timing)


def finish(
    *,
    scale: str,
    settings: Scale,
    folder: pathlib.Path,
    stages: Sequence[Stage],  # pylint: disable=redefined-outer-name
    results: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
  """Writes results.json and the report, prints the table."""
  import jax
  import numpy as np

  from gqa_t5x.benchmark import decode
  from gqa_t5x.experiments import report

  models = {}
  for model, num_kv_heads in MODELS.items():
    network, params, metadata = _load(_uptrained(model, folder))
    losses = results[f'loss-{model}']
    models[model] = {
        'num_kv_heads': num_kv_heads,
        'num_params': sum(x.size for x in jax.tree.leaves(params)),
        'cache_bytes_per_token': decode.cache_bytes_per_token(network.config),
        'loss_converted': float(np.mean(losses['converted'])),
        'loss_uptrained': float(np.mean(losses['uptrained'])),
        'loss_converted_per_example': losses['converted'],
        'loss_uptrained_per_example': losses['uptrained'],
        'uptrained_step': metadata['step'],
        'tasks': {task: results[f'test-{model}-{task}'] for task in TASKS},
        'decode': results['timing'][model],
    }
  network, _, metadata = _load(pretrained.CHECKPOINT_PATH)

  def anywhere(command):
    """A command as it reads on any machine."""
    command = command.replace(str(folder), 'OUTPUT_DIR')
    return command.replace(pretrained.CHECKPOINT_PATH, 'SHIPPED_CHECKPOINT')

  everything = {
      'scale': scale,
      'experiment': 'table1',
      'command': f'gqa-t5x reproduce --scale {scale} --experiment table1',
      **results_lib.environment(),
      'seeds': [0],
      'corpus': results['data'],
      'model': network.config.to_dict(),
      'pretrain_steps': metadata['step'],
      'uptrain_fraction': settings.uptrain_fraction,
      'loss_original': models['MHA']['loss_converted'],
      'timings_s': dict(seconds),
      'stages': [
          {
              'name': stage.name,
              'command': anywhere(stage.command),
              'seconds': seconds[stage.name],
          }
          for stage in stages
      ],
      'baselines': results['baselines'],
      'models': models,
  }
  results_lib.save_results(folder, everything)
  markdown, html = report.write_report(folder)
  print(report.format_table(everything))
  print(f'\nThe report: {html}\n            {markdown}', file=sys.stderr)
