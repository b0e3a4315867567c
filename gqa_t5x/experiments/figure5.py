# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figure 5: how much uptraining? Scores along alpha, MHA beside them."""

from gqa_t5x.experiments import figures
from gqa_t5x.experiments import paper
from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment
from gqa_t5x.experiments.model import Model

ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1)


def blocks(results: dict) -> list:
  scores, losses = {}, {}
  for entry in results['models'].values():
    if entry.get('method') not in (None, 'mean') or entry.get('alpha') is None:
      continue
    if not tables.is_of_suite(entry) or entry.get('rate', 1) != 1:
      continue
    name, alpha = Model(entry['num_kv_heads']).name, entry['alpha']
    average = results_lib.average_score(results, entry)
    if average is not None:
      scores.setdefault(name, {})[alpha] = average
    if entry.get('loss') is not None:
      losses.setdefault(name, {})[alpha] = entry['loss']
  if len(scores.get('MQA', {})) < 3:
    return []

  def lines(values):
    return [
        figures.Line(name, tables.kind(name), tuple(sorted(points.items())))
        for name, points in values.items()
    ]

  return [
      rendering.Heading('How much uptraining'),
      rendering.Figure(
          "Average score against alpha, as the paper's Figure 5.",
          figures.panels(
              figures.lines,
              (
                  ('Paper (digitised, ±0.03)', lines(paper.FIGURE_5)),
                  ('This run', lines(scores)),
              ),
              'alpha, share of pre-training',
              'average score',
          )
          + figures.panels(
              figures.lines,
              (('This run, loss', lines(losses)),),
              'alpha, share of pre-training',
              'loss, nats a token',
          ),
          note="XXL and three tasks there. The paper's MHA is not uptrained;"
          ' ours is, as the control.',
      ),
  ]


EXPERIMENT = Experiment(
    name='figure5',
    title='Figure 5, uptraining proportion',
    scored=(
        Model(8), *(Model(k, alpha=alpha) for k in (2, 1) for alpha in ALPHAS),
    ),
    measured=tuple(Model(8, alpha=alpha) for alpha in ALPHAS if alpha != 0.05),
    blocks=blocks,
)  # pyformat: disable
