# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses and scores of models on cached tasks; needs no TensorFlow.

Each function takes folders of token arrays, as `gqa-t5x cache` writes them.
"""

from collections.abc import Sequence
import functools
import itertools
from typing import Any

import jax

from gqa_t5x import network
from gqa_t5x import vocabularies
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import statistics
from gqa_t5x.experiments import suites
from gqa_t5x.experiments.scales import Scale

NUM_SAMPLES = 3  # Of each task and model, for the report.


def losses(
    model: network.Transformer, params: Any, folder: str, scale: Scale
) -> list[float]:
  """Returns the loss of each of the first examples, nats a target token."""
  config = data.BatchConfig(
      scale.decode_batch_size, scale.inputs_length, scale.targets_length
  )
  batches = itertools.islice(
      data.eval_batches(folder, config),
      -(-scale.loss_examples // scale.decode_batch_size),
  )
  found = evaluate.example_losses(model, params, batches)
  return found[: scale.loss_examples].tolist()


def test(
    model: network.Transformer,
    params: Any,
    folder: str,
    column: results_lib.TaskColumn,
    suite: suites.Suite,
    vocabulary: vocabularies.Vocabulary,
    scale: Scale,
) -> dict[str, Any]:
  """Decodes the head of a test split greedily and scores it.

  Args:
    model: as named.
    params: as named.
    folder: of the test split.
    column: of the task.
    suite: as named.
    vocabulary: of the token arrays.
    scale: of the task.

  Returns:
    A task's entry of results.json, of one seed, and the clusters of what was
    decoded, None where each stands alone.
  """
  arrays = data.TokenDataset.open(folder)
  count = min(len(arrays), scale.test_examples)
  inputs, targets = (
      [arrays.tokens(feature, i, length) for i in range(count)]
      for feature, length in (
          ('inputs', scale.inputs_length), ('targets', scale.targets_length)
      )
  )  # pyformat: disable
  outputs = evaluate.predict(
      model,
      params,
      inputs,
      batch_size=scale.decode_batch_size,
      max_decode_len=scale.targets_length,
  )
  predictions = [vocabulary.decode(x.tolist()) for x in outputs]
  clusters = suite.tasks().clusters(column.task, 'test')
  return score(column, suite, predictions) | {
      'clusters': clusters and clusters[:count],
      'samples': [
          {
              'input': vocabulary.decode(inputs[i].tolist()),
              'target': vocabulary.decode(targets[i].tolist()),
              'prediction': predictions[i],
          }
          for i in range(min(count, NUM_SAMPLES))
      ]
  }


def score(
    column: results_lib.TaskColumn,
    suite: suites.Suite,
    predictions: Sequence[str],
) -> dict[str, Any]:
  """Scores predictions for the head of a task's test split."""
  from gqa_t5x.tasks import metrics

  targets = suite.tasks().reference_targets(column.task, 'test')
  targets = targets[: len(predictions)]
  measures = {
      'bleu': [metrics.bleu],
      'rouge1': [metrics.rouge],
      'f1': [metrics.trivia_qa, metrics.rouge_l],
  }[column.metric]
  scored = {
      'metrics': {
          name: value
          for measure in measures
          for name, value in measure(targets, predictions).items()
      },
      'num_examples': len(targets),
  }
  if column.metric == 'bleu':  # Of a corpus, not a mean over examples.
    found = statistics.bleu_statistics(predictions, targets)
    scored['bleu_statistics'] = found.tolist()
  else:
    scored['per_example'] = [
        measures[0]([target], [prediction])[column.metric]
        for target, prediction in zip(targets, predictions, strict=True)
    ]
  return scored


def trivial(
    column: results_lib.TaskColumn, suite: suites.Suite, count: int
) -> dict[str, float]:
  """Scores what needs no model, on the first `count` test examples."""
  found = suite.tasks().trivial_predictions(column.task, 'test')
  return {
      name: score(column, suite, made[:count])['metrics'][column.metric]
      for name, made in found.items()
  }


def random_params(model: network.Transformer) -> Any:
  """Returns the parameters of a model that has learned nothing."""
  new = jax.jit(functools.partial(network.new_variables, model))
  return new(jax.random.key(0))['params']
