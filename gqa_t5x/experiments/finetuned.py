# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the paper left open: a model that is already fine-tuned.

The paper converts a pre-trained model, uptrains it, and fine-tunes what that
gives. Whoever has a fine-tuned model may convert that instead: tested as it is,
or fine-tuned again as it was before. No pre-training data is needed then. MHA
fine-tuned twice is the control, and the paper's recipe stands beside.
"""

from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment
from gqa_t5x.experiments.model import FINETUNED
from gqa_t5x.experiments.model import Model

_GROUPED = (2, 1, 4)
_METHODS = ('mean', 'svd')
_BEFORE = Model(8, alpha=0.0)


def _of_finetuned(k: int, method: str = 'mean', is_tuned: bool = True) -> Model:
  return Model(k, method, 0.0, FINETUNED, is_tuned=is_tuned)


_CONVERTED = tuple(
    _of_finetuned(k, method, is_tuned)
    for k in _GROUPED
    for method in _METHODS
    for is_tuned in (False, True)
)
_ROWS = (
    _BEFORE,
    _of_finetuned(8),
    *(
        model
        for k in _GROUPED
        for model in (
            *(m for m in _CONVERTED if m.num_kv_heads == k),
            *(Model(k, method) for method in _METHODS),
        )
    ),
)


def blocks(results: dict) -> list:
  models = results['models']
  if not any(model.name in models for model in _CONVERTED):
    return []
  columns = results_lib.columns(results)
  rows = [
      (
          model.name,
          tables.score(results_lib.average_score(results, entry)),
          *(
              tables.score(results_lib.main_score(entry, column))
              for column in columns
          ),
      )
      for model in _ROWS
      if (entry := models.get(model.name, {})).get('tasks')
  ]
  return [
      rendering.Heading('A model that is already fine-tuned'),
      rendering.Table(
          'Converted after fine-tuning, and the paper\'s order',
          ('Model', 'Average', *(column.title for column in columns)),
          tuple(rows),
          note=f'{_BEFORE.name} is the model that was fine-tuned. Tuned before:'
          ' converted and tested as it is. Tuned twice: fine-tuned once more'
          ' after that, as it was before. The others: converted, uptrained by'
          ' 5%, fine-tuned.',
      ),
  ]


EXPERIMENT = Experiment(
    name='finetuned',
    title='What the paper left open, converting a fine-tuned model',
    scored=_ROWS,
    blocks=blocks,
)
