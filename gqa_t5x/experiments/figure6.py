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
          figures.panels(
              figures.bars,
              (('Paper (digitised, ±0.02 s)', theirs), ('This run', ours)),
              'key/value heads K',
              'seconds per sample',
          )
          + figures.panels(
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
      _timing_table(results),
  ]


def _timing_table(results: dict) -> rendering.Table:
  """Returns where the time of decoding goes, for each K."""
  rows = []
  for heads in sorted(results['times'], key=int, reverse=True):
    decode = results['times'][heads]
    rows.append((
        heads, tables.significant(decode.get('seconds_per_sample')),
        _percent(decode.get('spread')),
        tables.significant(decode.get('prefill_seconds')),
        tables.significant(decode.get('ms_per_step')),
        tables.significant(decode.get('limit_ms_per_step')),
        _percent(decode.get('bandwidth_share')),
        tables.whole(decode.get('cache_bytes_allocated'))))
  return rendering.Table(
      'Where the time goes', ('K', 's per sample', 'Spread',
                              'Prefill (s)', 'Step (ms)', 'Limit (ms)',
                              'Of limit', 'Cache (bytes)'),
      tuple(rows), note=(
          'Prefill (encoder and cross-attention keys and values) and step are '
          'for the whole batch; spread is (longest − shortest) / median of '
          'the repeats; the limit of a step is the time to read the '
          'decoder\'s weights and the filled cache once at '
          f'{_bandwidth(results)}.'))


def _bandwidth(results: dict) -> str:
  for decode in results['times'].values():
    measured = decode.get('bandwidth')
    if measured:
      return (f'{measured["best"] / 1e9:.1f} GB/s, the best bandwidth measured '
              'in the same run')
  return 'the best bandwidth measured in the same run'


def _percent(value) -> str:
  return tables.DASH if value is None else f'{100 * value:.0f}%'


EXPERIMENT = Experiment(
    name='figure6',
    title='Figure 6, time against key/value heads',
    is_timed=True,
    blocks=blocks,
)
