# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the paper left open: how fast should uptraining learn?

The paper goes on at pre-training's learning rate. Calibrated `svd` and the
multi-head model are uptrained at a quarter of it too; mean pooling has much to
make up for and wants the full one (docs/conversion_study.md).
"""

import dataclasses

from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment
from gqa_t5x.experiments.model import LOW_RATE
from gqa_t5x.experiments.model import Model

_GROUPED = (2, 1, 4)
_UPTRAINED = (Model(8), *(Model(k, 'svd') for k in _GROUPED))


def _slowly(model: Model) -> Model:
  return dataclasses.replace(model, rate=LOW_RATE)


def blocks(results: dict) -> list:
  models, rows = results['models'], []
  for model in _UPTRAINED:
    full, low = (models.get(m.name, {}) for m in (model, _slowly(model)))
    if full and low:
      rows.append((
          model.name,
          *map(tables.loss, (full, low)),
          *(
              tables.score(results_lib.average_score(results, entry))
              for entry in (full, low)
          ),
      ))
  if not rows:
    return []
  return [
      rendering.Heading('The learning rate of uptraining'),
      rendering.Table(
          f"Uptrained by 5% at pre-training's rate, and at {LOW_RATE:g} of it",
          ('Model', 'Loss', 'Loss, lower', 'Average', 'Average, lower'),
          tuple(rows),
          note='Loss: validation, nats a token.',
      ),
  ]


EXPERIMENT = Experiment(
    name='learning_rate',
    title="What the paper left open, uptraining's learning rate",
    scored=(
        *_UPTRAINED,
        *map(_slowly, _UPTRAINED),
        *(Model(k, 'svd', 0.0) for k in _GROUPED),
        *(Model(k) for k in _GROUPED),
    ),
    blocks=blocks,
)
