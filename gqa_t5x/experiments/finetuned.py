# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the paper left open: a model that is already fine-tuned.

The paper converts a pre-trained model, uptrains it, and fine-tunes what that
gives. Whoever has a fine-tuned model may convert that instead, last, and test
it as it is; or fine-tune it a second time, with other rows and the same recipe.
No data of pre-training are needed then; `svd` is calibrated on the default
text. MHA fine-tuned twice is the control; the paper's order stands beside.
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


def table(results: dict) -> rendering.Table:
  """Returns the scores of each of these models that a run has."""
  columns = results_lib.columns(results)
  found = [
      (model.name, results['models'].get(model.name, {})) for model in _ROWS
  ]
  return rendering.Table(
      "Converted after fine-tuning, and in the paper's order",
      ('Model', 'Average', *(column.title for column in columns)),
      tuple(
          (
              name,
              tables.score(results_lib.average_score(results, entry)),
              *(
                  tables.score(results_lib.main_score(entry, column))
                  for column in columns
              ),
          )
          for name, entry in found
          if entry.get('tasks')
      ),
      note=f'{_BEFORE.name}: fine-tuned once. Converted last: that model,'
      ' converted and tested. Tuned twice: that model, converted but for MHA,'
      ' and fine-tuned once more. The others, in the paper\'s order: converted,'
      ' uptrained by 5%, fine-tuned once.',
  )


def blocks(results: dict) -> list:
  if not any(model.name in results['models'] for model in _CONVERTED):
    return []
  return [
      rendering.Heading('A model that is already fine-tuned'), table(results)
  ]  # pyformat: disable


EXPERIMENT = Experiment(
    name='finetuned',
    title='What the paper left open, converting a fine-tuned model',
    scored=_ROWS,
    blocks=blocks,
)
