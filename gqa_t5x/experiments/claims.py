# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's claims as tests on a run's results.

The thresholds stand here, before any result: a claim is `shown` when the
whole 95% interval lies where the claim says, `contradicted` when the whole
interval lies where the claim is false, and otherwise `not shown`.
"""

import dataclasses

import numpy as np

from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import statistics

SHOWN = 'shown'
NOT_SHOWN = 'not shown'
CONTRADICTED = 'contradicted'
SHOWN_IN_PART = 'shown in part'  # Of a claim: a part was not tested.
NOT_TESTED = 'not tested'

CLOSE_POINTS = 1.0  # "Close" in quality: within one point of the average.
NEARLY_RATIO = 1.25  # "Nearly as fast": at most a quarter slower.
SEVERAL_RATIO = 2.0  # "Several times": at least twice.


@dataclasses.dataclass(frozen=True)
class Finding:
  """One tested part of a claim.

  Attributes:
    claim: 'C1' to 'C6'.
    test: what was compared, and the rule for `shown`.
    paper: the same comparison from the paper's numbers, as text.
    unit: of the interval: 'points', 'times' or 'nats'.
    interval: estimate with its interval; None where not tested, or where
      only the estimate exists.
    estimate: the number itself, None where not tested.
    verdict: shown, not shown, contradicted or not tested.
    comment: what the verdict rests on, where that is not plain.
  """

  claim: str
  test: str
  paper: str
  unit: str = ''
  interval: statistics.Interval | None = None
  estimate: float | None = None
  verdict: str = NOT_TESTED
  comment: str = ''


def _judge(interval, *, shown_above=None, false_below=None,
           shown_below=None, false_above=None) -> str:
  """Applies the rule at the head of this file; bounds come in pairs."""
  if shown_above is not None:
    if interval.low >= shown_above:
      return SHOWN
    return CONTRADICTED if interval.high < false_below else NOT_SHOWN
  if interval.high <= shown_below:
    return SHOWN
  return CONTRADICTED if interval.low > false_above else NOT_SHOWN


def _examples(entry: dict) -> list[np.ndarray] | None:
  """One array a task as `statistics.paired_difference` takes it."""
  arrays = []
  for column in results_lib.TASK_COLUMNS:
    task = entry.get('tasks', {}).get(column.task, {})
    key = 'bleu_statistics' if column.metric == 'bleu' else 'per_example'
    if not task.get(key) or None in task[key]:
      return None
    arrays.append(np.asarray(task[key], np.float64))
  return arrays


def quality_difference(results: dict, first: str, second: str
                       ) -> statistics.Interval | None:
  """Interval of the difference of two models' averages, in points."""
  models = results['models']
  if first not in models or second not in models:
    return None
  a, b = _examples(models[first]), _examples(models[second])
  if a is None or b is None or [len(x) for x in a] != [len(x) for x in b]:
    return None
  return statistics.paired_difference(a, b, seed=0)


def time_ratio(results: dict, first: str, second: str,
               key: str = 'seconds_per_sample') -> statistics.Interval | None:
  """Interval of two models' ratio of times; key: or 'ms_per_step'."""
  times = []
  for name in (first, second):
    decode = results['models'].get(name, {}).get('decode') or {}
    times.append(decode.get(f'{key}_repeats'))
  return None if not all(times) else statistics.median_ratio(*times, seed=0)


def _finding(claim, test, paper, unit, interval, **bounds) -> Finding:
  if interval is None:
    return Finding(claim, test, paper)
  return Finding(claim, test, paper, unit, interval, interval.estimate,
                 _judge(interval, **bounds))


def _quality(results, gqa) -> list[Finding]:
  return [
      _finding('C1', f'{gqa} is close to MHA: average minus MHA\'s above '
               f'−{CLOSE_POINTS:g} point', '−0.1 (47.1 − 47.2)', 'points',
               quality_difference(results, gqa, 'MHA'),
               shown_above=-CLOSE_POINTS, false_below=-CLOSE_POINTS),
      _finding('C1', f'{gqa} is above MQA: average minus MQA\'s above 0',
               '+0.5 (47.1 − 46.6), or +0.4 by the row means', 'points',
               quality_difference(results, gqa, 'MQA'),
               shown_above=0.0, false_below=0.0),
  ]


def _speed(results, gqa) -> list[Finding]:
  return [
      _finding('C2', f'{gqa} is nearly as fast as MQA: at most '
               f'{NEARLY_RATIO:g} times its time per sample',
               '1.17 times (0.28 / 0.24 s)', 'times',
               time_ratio(results, gqa, 'MQA'),
               shown_below=NEARLY_RATIO, false_above=NEARLY_RATIO),
      _finding('C2', f'MHA takes at least {SEVERAL_RATIO:g} times as long as '
               f'{gqa}; contradicted if {gqa} is no faster at all',
               '5.4 times (1.51 / 0.28 s)', 'times',
               time_ratio(results, 'MHA', gqa),
               shown_above=SEVERAL_RATIO, false_below=1.0),
      # A small model's encoder, the same for all, can hide its decoder.
      _finding('C2', f'a decode step of {gqa} takes at most '
               f'{NEARLY_RATIO:g} times as long as MQA\'s', 'not given',
               'times', time_ratio(results, gqa, 'MQA', 'ms_per_step'),
               shown_below=NEARLY_RATIO, false_above=NEARLY_RATIO),
      _finding('C2', 'a decode step of MHA takes at least '
               f'{SEVERAL_RATIO:g} times as long as {gqa}\'s; contradicted if '
               f'{gqa}\'s is no faster at all', 'not given', 'times',
               time_ratio(results, 'MHA', gqa, 'ms_per_step'),
               shown_above=SEVERAL_RATIO, false_below=1.0),
  ]


def _loss_finding(results, test, paper, first, second) -> Finding:
  """C4 on losses: first - second > 0; each is (model, 'converted'|...)."""
  values, examples = [], []
  for name, when in (first, second):
    entry = results['models'].get(name, {})
    values.append(entry.get(f'loss_{when}'))
    examples.append(entry.get(f'loss_{when}_per_example'))
  if None in values:
    return Finding('C4', test, paper)
  if all(examples) and len(examples[0]) == len(examples[1]):
    interval = statistics.paired_difference(
        [np.asarray(examples[0])], [np.asarray(examples[1])], seed=0)
    return _finding('C4', test, paper, 'nats', interval,
                    shown_above=0.0, false_below=0.0)
  return Finding('C4', test, paper, 'nats', None, values[0] - values[1],
                 NOT_SHOWN, 'no interval was measured')


def _proportion(results, gqa) -> list[Finding]:
  return [
      _loss_finding(
          results, 'without uptraining MQA\'s validation loss is above '
          f'{gqa}\'s', 'scores 56.72 against 53.92 (digitised)',
          ('MQA', 'converted'), (gqa, 'converted')),
      _loss_finding(
          results, f'uptraining lowers {gqa}\'s validation loss',
          'score 56.72 to 57.41 (digitised)',
          (gqa, 'converted'), (gqa, 'uptrained')),
      _loss_finding(
          results, 'uptraining lowers MQA\'s validation loss',
          'score 53.92 to 56.91 (digitised)',
          ('MQA', 'converted'), ('MQA', 'uptrained')),
      Finding('C4', 'task scores without uptraining, and from 5% to 10%',
              'little gain: 57.41 to 57.57, 56.91 to 57.15 (digitised)'),
  ]


def findings(results: dict) -> list[Finding]:
  """Tests every claim that a run's results allow, in the claims' order."""
  gqa = results_lib.gqa_name(results) or 'GQA'
  return [
      *_quality(results, gqa),
      *_speed(results, gqa),
      Finding('C3', 'mean against first against random',
              '55.55, 55.45, 55.23 (digitised)'),
      *_proportion(results, gqa),
      Finding('C5', 'time per sample over many numbers of key/value heads',
              '0.50 s at 1, 0.52 s at 8, 2.52 s at 64 (digitised)'),
      Finding('C6', 'loss spikes of models trained from scratch',
              'told in words, appendix A'),
  ]


def verdict(claim: str, all_findings: list[Finding]) -> str:
  """A claim's verdict: that of its worst part."""
  verdicts = {f.verdict for f in all_findings if f.claim == claim}
  for word in (CONTRADICTED, NOT_SHOWN):
    if word in verdicts:
      return word
  if SHOWN in verdicts:
    return SHOWN_IN_PART if NOT_TESTED in verdicts else SHOWN
  return NOT_TESTED
