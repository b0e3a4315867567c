# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What an experiment declares, and how results.json comes from its stages."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, TYPE_CHECKING

import numpy as np

from gqa_t5x import pretrained
from gqa_t5x.experiments.model import FINETUNED
from gqa_t5x.experiments.model import Model
from gqa_t5x.experiments.stages import Done, Stage

if TYPE_CHECKING:  # It brings JAX, which a report does without.
  from gqa_t5x.experiments.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A table or figure of the paper.

  Attributes:
    name: as given to `gqa-t5x reproduce --experiment`.
    title: what it is.
    scored: models that are fine-tuned and tested on all tasks; their loss is
      measured too, but of those that come from fine-tuned ones.
    measured: further models, whose pre-training loss is measured.
    is_timed: whether decoding is timed, for each K.
    blocks: makes its part of the report of results.json.
  """

  name: str
  title: str
  scored: tuple[Model, ...] = ()
  measured: tuple[Model, ...] = ()
  is_timed: bool = False
  blocks: Callable[[Mapping[str, Any]], list] = lambda results: []

  def stages(self, pipeline: 'Pipeline', seeds: Sequence[int]) -> list[Stage]:
    """Returns the stages that its results come from."""
    found = []
    for seed in seeds:
      for model in pipeline.made((*self.scored, *self.measured)):
        if model.origin != FINETUNED:
          found.append(pipeline.loss(model, seed))
      for model in pipeline.made(self.scored):
        for task in pipeline.tasks:
          found.append(pipeline.tested(model, seed, task))
    if self.scored:
      found.append(pipeline.baselines())
    if self.is_timed:
      found.append(pipeline.timing())
    return found


def collect(
    experiments: Sequence[Experiment],
    pipeline: 'Pipeline',
    seeds: Sequence[int],
    done: Mapping[str, Done],
) -> dict[str, Any]:
  """Returns the models, times, baselines, ... of results.json.

  Args:
    experiments: that were run.
    pipeline: that made their stages.
    seeds: of the run.
    done: what is kept of each stage.
  """

  def result(stage):
    return done[stage.name].result

  models, clusters, config = {}, {}, pipeline.base_config(done)
  timing = result(pipeline.timing()) if 'timing' in done else {}
  times = timing.get('times', {})
  for experiment in experiments:
    for model in pipeline.made((*experiment.scored, *experiment.measured)):
      entry = models.setdefault(model.name, {})
      entry |= _entry(model, pipeline, config, seeds, result)
      if model in experiment.scored:
        entry['tasks'] = {}
        for task in pipeline.tasks:
          tests = [result(pipeline.tested(model, s, task)) for s in seeds]
          entry['tasks'][task] = _over_seeds(tests)
          for known in filter(None, (t.get('clusters') for t in tests)):
            clusters[task] = known
        if model.method is None:
          for task, found in entry['tasks'].items():
            found['train_losses'] = [
                result(pipeline.finetuned(model, s, task)) for s in seeds
            ]
      if str(model.num_kv_heads) in times:
        entry['decode'] = times[str(model.num_kv_heads)]
  baselines = 'baselines' in done and result(pipeline.baselines())
  return {
      'model': config,
      'corpus': result(pipeline.data()),
      **({'clusters': clusters} if clusters else {}),
      'baselines': baselines or {},
      'models': models,
      'times': times,
      **({'timed_on': timing['environment']} if timing else {}),
  }


def _entry(model, pipeline, base_config, seeds, result) -> dict[str, Any]:
  from gqa_t5x import network
  from gqa_t5x import sizes

  config = network.T5Config(
      **base_config | {'num_kv_heads': model.num_kv_heads}
  )
  found = {
      'num_kv_heads': model.num_kv_heads,
      'method': model.method if model.is_converted else None,
      'alpha': None if model.method is None else model.alpha,
      'rate': None if model.method is None else model.rate,
      'origin': pipeline.origin(model),
      'cache_bytes_per_token': sizes.cache_bytes_per_token(config),
  }
  if model.origin == FINETUNED:  # One for each task.
    return found
  losses = [result(pipeline.loss(model, seed)) for seed in seeds]
  found |= {
      'num_params': losses[0]['num_params'],
      'step': losses[0]['step'],
      # One that is no number was stored as None.
      'loss': float(np.mean([np.float64(x['per_example']) for x in losses])),
      'loss_per_example': [x['per_example'] for x in losses],
  }
  if model.method is None:
    found['train_losses'] = [
        result(pipeline.trained(model, seed))['losses'] for seed in seeds
    ]
  return found


def _over_seeds(tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns a model's entry on a task: means, and all that each seed gave."""
  found = {
      'metrics': {
          name: float(np.mean([t['metrics'][name] for t in tests]))
          for name in tests[0]['metrics']
      },
      'num_examples': tests[0]['num_examples'],
      'best_steps': [t['best_step'] for t in tests],
      'samples': tests[0]['samples'],
  }
  for name in ('per_example', 'bleu_statistics'):
    if name in tests[0]:
      found[name] = [t[name] for t in tests]
  return found


def stage_lines(
    stages: Sequence[Stage], done: Mapping[str, Done], folder: pathlib.Path
) -> list[dict[str, Any]]:
  """Returns what results.json says of each stage, as it reads anywhere."""

  def anywhere(command):
    command = command.replace(str(folder), 'OUTPUT_DIR')
    return command.replace(pretrained.CHECKPOINT_PATH, 'SHIPPED_CHECKPOINT')

  return [
      {
          'name': stage.name,
          'command': anywhere(stage.command_line()),
          'seconds': done[stage.name].seconds,
          'commit': done[stage.name].commit,
      }
      for stage in stages
  ]
