# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Figure 6: time per sample against the number of key/value heads."""

from gqa_t5x.experiments import figures
from gqa_t5x.experiments import paper
from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import tables
from gqa_t5x.experiments.experiment import Experiment


def blocks(results: dict) -> list:
  times = results.get('times', {})
  if not times:
    return []

  def bars(seconds, written=tables.significant):
    most = max(seconds)
    return [
        figures.Point(
            str(k),
            {1: 'mqa', most: 'mha'}.get(k, 'gqa'),
            k,
            value,
            written(value),
        )
        for k, value in sorted(seconds.items())
    ]

  ours = bars({int(k): t['seconds_per_sample'] for k, t in times.items()})
  steps = bars({int(k): t['ms_per_step'] for k, t in times.items()})
  theirs = bars(paper.FIGURE_6, '{:.2f}'.format)
  return [
      rendering.Heading('Time'),
      rendering.Figure(
          "Time and the number of key/value heads, as the paper's Figure 6.",
          tables.panels(
              figures.bars,
              (('Paper (digitised, ±0.02 s)', theirs), ('This run', ours)),
              'key/value heads K',
              'seconds per sample',
          )
          + tables.panels(
              figures.bars,
              (('This run, a decode step', steps),),
              'key/value heads K',
              'ms',
          ),
          note=paper.FIGURE_6_NOTE,
      ),
      rendering.Table(
          "The paper's Figure 6 as numbers (digitised)",
          ('K', *(p.label for p in theirs)),
          (('s per sample', *(p.value for p in theirs)),),
      ),
      tables.timing_table(results),
  ]


EXPERIMENT = Experiment(
    name='figure6',
    title='Figure 6, time against key/value heads',
    is_timed=True,
    blocks=blocks,
)
