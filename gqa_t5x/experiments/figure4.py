# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figure 4: which conversion is best? The paper's three, and ours.

`aligned` is the best of ours that average heads. `svd` is calibrated with the
default text of `gqa-t5x convert --method svd`, and is shown without any
uptraining too.
"""

from gqa_t5x.experiments import figures
from gqa_t5x.experiments import paper
from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment
from gqa_t5x.experiments.model import Model

_MQA = tuple(Model(1, method) for method in (*paper.FIGURE_4, 'aligned', 'svd'))
_NOT_UPTRAINED = Model(1, 'svd', 0.0)
_OURS = (
    Model(2), Model(2, 'svd'), Model(2, 'svd', 0.0),
    Model(4), Model(4, 'svd'), Model(4, 'svd', 0.0),
)  # pyformat: disable


def blocks(results: dict) -> list:
  ours = []
  for model in (*_MQA, _NOT_UPTRAINED):
    entry = results['models'].get(model.name, {})
    average = results_lib.average_score(results, entry)
    if average is not None:
      label = model.method + ', 0%' * (model == _NOT_UPTRAINED)
      ours.append(
          figures.Point(label, 'mqa', 0, average, tables.score(average))
      )
  if len(ours) < 2:
    return []
  theirs = [
      figures.Point(method, 'mqa', 0, value, f'{value:.2f}')
      for method, value in paper.FIGURE_4.items()
  ]
  return [
      rendering.Heading('Conversion methods'),
      rendering.Figure(
          "MQA after 5% of uptraining by conversion, as the paper's Figure 4.",
          figures.panels(
              figures.bars,
              (('Paper (digitised, ±0.03)', theirs), ('This run', ours)),
              'conversion',
              'average score',
          ),
          note='T5-Large and three tasks there; all of ours here. 0%: not'
          ' uptrained.',
      ),
  ]


EXPERIMENT = Experiment(
    name='figure4',
    title='Figure 4, conversion methods',
    # MHA without uptraining is what svd without it has to be held against.
    scored=(Model(8), Model(8, alpha=0.0), *_MQA, _NOT_UPTRAINED, *_OURS),
    measured=(Model(1, 'first', 0.0), Model(1, 'random', 0.0)),
    blocks=blocks,
)
