# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Verdicts on invented results whose answer is plain."""

import numpy as np
import pytest

from gqa_t5x.experiments import claims


def _verdicts(results, claim):
  return [f.verdict for f in claims.findings(results) if f.claim == claim]


def _shift_f1(results, model, points, noise=0.0):
  """Moves a model's average by points / 3."""
  task = results['models'][model]['tasks']['docs_question_answering']
  scores = np.array(task['per_example']) + points
  scores += noise * np.cos(7.0 * np.arange(len(scores)))
  task['per_example'] = scores.tolist()


def test_quality_estimate_by_hand(results):
  # Docs R1 -0.2, BLEU the same, F1 -0.5: mean -0.7 / 3.
  interval = claims.quality_difference(results, 'GQA-2', 'MHA')
  assert interval.estimate == pytest.approx(-0.7 / 3)
  assert _verdicts(results, 'C1') == ['shown', 'shown']


def test_quality_contradicted_when_far_below(results):
  _shift_f1(results, 'GQA-2', -12)  # 4.2 points below MHA's average.
  assert _verdicts(results, 'C1') == ['contradicted', 'shown']
  assert claims.verdict('C1', claims.findings(results)) == 'contradicted'


def test_quality_not_shown_when_the_interval_is_wide(results):
  _shift_f1(results, 'GQA-2', 0, noise=60)
  assert _verdicts(results, 'C1')[0] == 'not shown'


def test_bleu_is_the_corpus_score_not_a_mean(results):
  for model in ('GQA-2', 'MHA'):
    results['models'][model]['tasks']['cldr_translate_en_de'][
        'per_example'] = None
  assert claims.quality_difference(results, 'GQA-2', 'MHA') is not None
  del results['models']['MHA']['tasks']['cldr_translate_en_de'][
      'bleu_statistics']
  assert claims.quality_difference(results, 'GQA-2', 'MHA') is None
  assert _verdicts(results, 'C1')[0] == 'not tested'


def test_speed(results):
  assert _verdicts(results, 'C2') == ['shown'] * 4
  interval = claims.time_ratio(results, 'MHA', 'GQA-2')
  assert interval.estimate == pytest.approx(0.0321 / 0.0120)


@pytest.mark.parametrize('factor, expected', [
    (0.55, 'not shown'),  # MHA 1.5 times as slow: faster, but not several.
    (0.30, 'contradicted'),  # GQA is slower than MHA.
])
def test_speed_that_is_not_several_times(results, factor, expected):
  decode = results['models']['MHA']['decode']
  decode['seconds_per_sample_repeats'] = [
      factor * s for s in decode['seconds_per_sample_repeats']]
  assert _verdicts(results, 'C2')[1] == expected


def test_proportion_contradicted(results):
  mqa, gqa = results['models']['MQA'], results['models']['GQA-2']
  for key in ('loss_converted', 'loss_converted_per_example'):
    mqa[key], gqa[key] = gqa[key], mqa[key]
  assert _verdicts(results, 'C4')[0] == 'contradicted'


def test_untested_claims(results):
  for name in ('C3', 'C5', 'C6'):
    assert claims.verdict(name, claims.findings(results)) == 'not tested'
  results['models'] = {}
  assert {f.verdict for f in claims.findings(results)} == {'not tested'}
