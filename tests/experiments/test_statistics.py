# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals against hand values, exact enumeration and sacrebleu."""

import itertools

import numpy as np
import pytest

from gqa_t5x.experiments import statistics

TARGETS = ['the cat sat on the mat .', 'am 3. Mai 2021', 'zwölf Meter lang',
           'ein Buch und eine Tasse auf dem Tisch', 'ja',
           'eins zwei drei vier']
PREDICTIONS = ['the cat sat on a mat .', 'am 3. Mai 2012', 'zwölf Kilometer',
               'ein Buch und eine Tasse auf dem Tisch da', 'nein',
               'eins zwei oder vier']  # No 3-gram of it matches.


def test_difference_of_constant_scores_has_no_width():
  interval = statistics.paired_difference(
      [np.full((1, 7), 3.0)], [np.full((1, 7), 1.0)])
  assert interval == statistics.Interval(2.0, 2.0, 2.0)


def test_difference_is_paired():
  # The examples differ wildly, the two models always by one point.
  hard = np.array([[0.0, 100.0, 3.0, 55.0, 20.0]])
  interval = statistics.paired_difference([hard + 1], [hard])
  assert interval.estimate == pytest.approx(1.0)
  assert interval.high - interval.low < 1e-9


def test_interval_matches_all_resamples_of_four_examples():
  a, b = np.array([1.0, 0.0, 5.0, 2.0]), np.array([0.0, 1.0, 1.0, 2.0])
  every = [np.mean(draw) for draw in itertools.product(a - b, repeat=4)]
  low, high = np.quantile(every, [0.025, 0.975])
  interval = statistics.paired_difference(
      [a[None]], [b[None]], num_resamples=20_000)
  assert interval.estimate == pytest.approx(1.0)
  assert interval.low == pytest.approx(low)
  assert interval.high == pytest.approx(high)


def test_tasks_weigh_the_same_whatever_their_size():
  interval = statistics.paired_difference(
      [np.full((1, 3), 9.0), np.full((1, 50), 1.0)],
      [np.full((1, 3), 5.0), np.full((1, 50), 1.0)])
  assert interval.estimate == pytest.approx(2.0)


def test_a_contrast_of_three_by_hand():
  a, b, c = (np.full((1, 4), value) for value in (50.0, 44.0, 53.0))
  interval = statistics.paired_contrast(
      [(1.0, [a, a]), (-1 / 3, [b, b]), (-2 / 3, [c, b])])
  # 50 - 44 / 3 - 2 (53 + 44) / 2 / 3
  assert interval.estimate == pytest.approx(3.0)
  assert interval.low == pytest.approx(3.0) == interval.high


def test_same_seed_same_interval():
  a, b = np.sqrt(np.arange(11.0))[None], np.zeros((1, 11))
  assert (statistics.paired_difference([a], [b], seed=3)
          == statistics.paired_difference([a], [b], seed=3))
  assert (statistics.paired_difference([a], [b], seed=3)
          != statistics.paired_difference([a], [b], seed=4))


def test_refuses_different_examples():
  with pytest.raises(ValueError, match='same examples'):
    statistics.paired_difference([np.zeros((1, 3))], [np.zeros((1, 4))])
  with pytest.raises(ValueError, match='same examples'):
    statistics.paired_difference([np.zeros((1, 3))], [np.zeros((2, 3))])


def test_interval_matches_all_resamples_of_seeds_and_examples():
  a = np.array([[1.0, 0.0, 5.0], [2.0, 2.0, 3.0]])
  b = np.array([[0.0, 1.0, 1.0], [2.0, 0.0, 3.0]])
  difference = a - b
  every = [
      np.mean([difference[s, list(examples)].mean() for s in seeds])
      for seeds in itertools.product(range(2), repeat=2)
      for examples in itertools.product(range(3), repeat=3)]
  low, high = np.quantile(every, [0.025, 0.975])
  interval = statistics.paired_difference([a], [b], num_resamples=20_000)
  assert interval.estimate == pytest.approx(np.mean(difference))
  assert interval.low == pytest.approx(low, abs=0.02)
  assert interval.high == pytest.approx(high, abs=0.02)


def test_interval_matches_all_resamples_of_clusters():
  a = np.array([1.0, 0.0, 5.0, 2.0, 7.0, 3.0])
  stories = ['fox', 'hen', 'fox', 'cat', 'cat', 'cat']
  of_story = {s: [x for x, of in zip(a, stories) if of == s] for s in stories}
  every = [
      np.mean([x for s in drawn for x in of_story[s]])
      for drawn in itertools.product(of_story, repeat=3)]
  # As often as they are sampled: a quantile then lies on one of the few.
  low, high = np.quantile(np.repeat(every, 1000), [0.025, 0.975])
  interval = statistics.paired_contrast(
      [(1.0, [a[None]])], clusters=[stories], num_resamples=20_000)
  assert interval.estimate == pytest.approx(3.0)
  assert interval.low == pytest.approx(low)
  assert interval.high == pytest.approx(high)


def test_clusters_of_one_task_leave_another_task_alone():
  # The first task's examples are all of one module: nothing to draw.
  a, zero = np.array([[4.0, 6.0, 8.0]]), np.zeros((1, 3))
  for tasks, is_wide in (([a, zero], False), ([zero, a], True)):
    interval = statistics.paired_contrast(
        [(1.0, tasks)], clusters=[['m', 'm', 'm'], None])
    assert interval.estimate == pytest.approx(3.0)
    assert (interval.high - interval.low > 0.5) == is_wide


def test_a_module_is_drawn_as_often_for_all_tasks():
  # What a module gives on one task, it takes on the other.
  good = np.array([[2.0, 0.0, 1.0]])
  modules = ['a', 'b', 'c']
  apart = statistics.paired_contrast([(1.0, [good, 2 - good])])
  assert apart.high - apart.low > 0.5
  interval = statistics.paired_contrast(
      [(1.0, [good, 2 - good])], clusters=[modules, modules])
  assert interval.low == pytest.approx(1.0) == interval.high
  # Where none of a task's is drawn, it counts as it is.
  alone = statistics.paired_contrast(
      [(1.0, [good[:, :1], 2 - good])], clusters=[['a'], modules])
  assert np.isfinite([alone.low, alone.high]).all()


def test_refuses_clusters_of_other_examples():
  with pytest.raises(ValueError, match='cluster of each of 3 examples'):
    statistics.paired_contrast(
        [(1.0, [np.zeros((1, 3))])], clusters=[['a', 'b']])


def test_a_seed_is_the_same_for_all_tasks():
  # What a seed gives on one task, the other loses: together nothing moves.
  good = np.array([[2.0, 2.0], [0.0, 0.0]])
  zero = np.zeros((2, 2))
  interval = statistics.paired_difference([good, 2 - good], [zero, zero])
  assert interval == statistics.Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize('chosen', [
    [0, 1, 2, 3, 4], [0, 0, 3], [1, 2], [4], [2, 4], [3], [5], [4, 5]])
def test_bleu_of_any_resample_is_sacrebleus(chosen):
  sacrebleu = pytest.importorskip('sacrebleu')
  rows = statistics.bleu_statistics(PREDICTIONS, TARGETS)
  expected = sacrebleu.corpus_bleu(
      [PREDICTIONS[i] for i in chosen], [[TARGETS[i] for i in chosen]],
      tokenize='intl', smooth_method='exp').score
  assert statistics.corpus_score(rows[chosen]) == pytest.approx(expected)
  times_drawn = np.bincount(chosen, minlength=len(rows))[None].astype(float)
  resampled = statistics._scores(rows.astype(float), times_drawn)
  assert resampled[0] == pytest.approx(expected)


def test_bleu_statistics_by_hand():
  pytest.importorskip('sacrebleu')
  rows = statistics.bleu_statistics(['a b c d e'], ['a b c x e f'])
  # Matches: a b c e; ab bc; abc; none. Predicted n-grams: 5 4 3 2.
  assert rows.tolist() == [[5, 6, 4, 2, 1, 0, 5, 4, 3, 2]]


def test_bleu_interval_holds_the_estimate():
  pytest.importorskip('sacrebleu')
  a = statistics.bleu_statistics(TARGETS[:4] * 5, TARGETS[:4] * 5)
  b = statistics.bleu_statistics(PREDICTIONS[:4] * 5, TARGETS[:4] * 5)
  interval = statistics.paired_difference(
      [a[None]], [b[None]], num_resamples=500)
  assert interval.estimate == pytest.approx(100 - statistics.corpus_score(b))
  assert 0 < interval.low < interval.estimate < interval.high


def test_median_ratio_by_hand():
  interval = statistics.median_ratio([4.0, 4.0, 4.0], [2.0, 2.0, 2.0])
  assert interval == statistics.Interval(2.0, 2.0, 2.0)
  interval = statistics.median_ratio([2.0, 4.0, 9.0], [2.0, 2.0, 2.0])
  assert (interval.low, interval.estimate, interval.high) == (1.0, 2.0, 4.5)


def test_step_difference_by_hand():
  interval = statistics.step_difference([[1.0], [3.0], [4.0], [10.0]])
  assert interval == statistics.Interval(4.0, 4.0, 4.0)  # 10 - 4 - (3 - 1).
