# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Appendix A and what the paper left open: models trained from scratch.

MHA, GQA and MQA are trained from scratch and fine-tuned; their training losses
are searched for spikes. GQA trained from scratch stands beside GQA uptrained
from an MHA model that was trained here too: both saw as many steps.
"""

from gqa_t5x.experiments import figures
from gqa_t5x.experiments import loss_curves
from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment
from gqa_t5x.experiments.model import Model
from gqa_t5x.experiments.model import SCRATCH

_POINTS = 60  # Of a curve: enough to see where it goes.


def blocks(results: dict) -> list:
  rows, curves = [], []
  for name, entry in results['models'].items():
    if entry['origin'] != SCRATCH:
      continue
    seeds = loss_curves.of_model(entry)
    cells = [tables.DASH] * 4
    if seeds and seeds[0][0]:
      cells = _counts([runs[:1] for runs in seeds])
      cells += _counts([runs[1:] for runs in seeds])
      points = _thinned(seeds[0][0])
      curves += [figures.Line(name, tables.kind(name), points)] * bool(points)
    average = results_lib.average_score(results, entry)
    rows.append((name, *cells, tables.loss(entry), tables.score(average)))
  if not rows:
    return []
  return [
      rendering.Heading('Trained from scratch'),
      rendering.Table(
          'Stability, and uptraining against training from scratch',
          (
              'Model', 'Spikes', 'Diverged', 'Spikes, tuning',
              'Diverged, tuning', 'Loss', 'Average',
          ),
          tuple(rows),
          note=f'{loss_curves.RULE} Loss: validation, nats a token.'
          ' Tuning: fine-tuning on all tasks. All models saw as many steps.',
      ),
      rendering.Figure(
          'Training loss from scratch, of the first seed.',
          figures.panels(
              figures.lines, (('This run', curves),), 'step', 'nats a token'
          ),
      ),
  ]


def _counts(seeds) -> list[str]:
  """Returns spikes of each seed, and how many runs diverged."""
  runs = [run for of_seed in seeds for run in of_seed]
  if not runs:
    return [tables.DASH] * 2
  spikes = (str(sum(map(loss_curves.spikes, of_seed))) for of_seed in seeds)
  diverged = sum(map(loss_curves.has_diverged, runs))
  return [', '.join(spikes), f'{diverged} of {len(runs)}']


def _thinned(losses) -> tuple[tuple[float, float], ...]:
  """Returns (step, mean loss) of as many parts, from the second on."""
  size = max(1, len(losses) // _POINTS)
  parts = [
      (
          min(start + size, len(losses)),
          [x for x in losses[start : start + size] if x is not None],
      )
      for start in range(0, len(losses), size)
  ]
  return tuple((step, sum(x) / len(x)) for step, x in parts[1:] if x)


EXPERIMENT = Experiment(
    name='stability',
    title='Appendix A, stability from scratch',
    scored=tuple(Model(k, None) for k in (8, 2, 1)),
    measured=(Model(2, origin=SCRATCH),),
    blocks=blocks,
)
