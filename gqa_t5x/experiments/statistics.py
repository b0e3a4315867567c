# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap intervals: is one model's score really above another's?

An interval resamples evaluation examples and seeds of training (or timing
repeats). Examples that are alike, as those of one module of a documentation or
of one story, are drawn together: a cluster bootstrap (Davison and Hinkley 1997,
section 3.8). With one seed it says nothing about others; with few seeds or
clusters it is rather too narrow.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy.stats

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with its 95% interval, a bootstrap's unless said otherwise."""

  estimate: float
  low: float
  high: float


def bleu_statistics(predictions: Sequence[str],
                    targets: Sequence[str]) -> np.ndarray:
  """Returns what each sentence adds to corpus BLEU.

  Args:
    predictions: n strings.
    targets: n strings, one reference each.

  Returns:
    int64 [n, 10]: length of the prediction and of the target in tokens, the
    matched 1- to 4-grams, the predicted 1- to 4-grams; sacrebleu's `intl`
    tokens.
  """
  import sacrebleu  # Not needed to read results.
  # effective_order only silences a warning: counts do not depend on it.
  bleu = sacrebleu.BLEU(tokenize='intl', effective_order=True)
  scores = [bleu.sentence_score(prediction, [target])
            for prediction, target in zip(predictions, targets, strict=True)]
  rows = [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores]
  return np.array(rows, np.int64).reshape(-1, 10)


def _bleu(sums: np.ndarray) -> np.ndarray:
  """Corpus BLEU (0 to 100) of summed statistics [R, 10], as sacrebleu's.

  Smoothing `exp`: the k-th order without a match counts 1 / 2^k matches.
  """
  length, target_length = sums[:, 0], sums[:, 1]
  matched, predicted = sums[:, 2:6], sums[:, 6:10]
  smooth = 0.5 ** np.cumsum(matched == 0, axis=1)
  counted = np.where(matched == 0, smooth, matched)
  # A corpus without a 4-gram, or without any match, scores 0.
  scored = (predicted > 0).all(axis=1) & (matched > 0).any(axis=1)
  log_precision = np.log(counted / np.maximum(predicted, 1)).mean(axis=1)
  log_brevity = np.minimum(0.0, 1 - target_length / np.maximum(length, 1))
  return np.where(scored, 100 * np.exp(log_precision + log_brevity), 0.0)


def _scores(examples: np.ndarray, times_drawn: np.ndarray) -> np.ndarray:
  """Corpus scores [R] of resamples; see `paired_contrast` for `examples`.

  times_drawn [R, n] says how often each resample holds each example.
  """
  sums = times_drawn @ examples
  if examples.ndim == 1:
    return sums / times_drawn.sum(axis=1)
  return _bleu(sums)


def corpus_score(examples: np.ndarray) -> float:
  """The score of one model on one task: a mean, or corpus BLEU."""
  examples = np.asarray(examples, np.float64)
  return float(_scores(examples, np.ones((1, len(examples))))[0])


def _interval(estimate: float, resampled: np.ndarray) -> Interval:
  tail = (1 - CONFIDENCE) / 2
  low, high = np.quantile(resampled, [tail, 1 - tail])
  return Interval(float(estimate), float(low), float(high))


def paired_difference(first: Sequence[np.ndarray],
                      second: Sequence[np.ndarray], *,
                      seed: int = 0,
                      num_resamples: int = NUM_RESAMPLES) -> Interval:
  """Interval of (first - second); `paired_contrast` of two models."""
  return paired_contrast(
      [(1.0, first), (-1.0, second)], seed=seed, num_resamples=num_resamples)


def paired_contrast(models: Sequence[tuple[float, Sequence[np.ndarray]]], *,
                    clusters: Sequence[Sequence | None] | None = None,
                    seed: int = 0,
                    num_resamples: int = NUM_RESAMPLES) -> Interval:
  """Interval of a weighted sum of models' averages over tasks.

  In each resample all models are scored on the same drawn examples, task by
  task, and for the same drawn seeds, so what makes an example hard for all
  cancels, and what a seed's order of data does to all.

  Args:
    models: (weight, examples) of each; for each task, its examples: scores
      [seeds, n], whose mean is the task's score, or BLEU statistics [seeds, n,
      10], on the same examples and seeds in the same order for all models.
    clusters: for each task the name of each example's cluster, [n], which is
      drawn whole, and as often for one task as for another; None where examples
      are drawn one by one.
    seed: seed of the resampling.
    num_resamples: how many resamples.

  Returns:
    The sum with its 95% interval, in points; tasks have equal weight.

  Raises:
    ValueError: the models have not the same examples and seeds, or not each
      example has a cluster.
  """
  weights = [weight for weight, _ in models]
  estimate, resampled = 0.0, np.zeros(num_resamples)
  tasks = list(zip(*(examples for _, examples in models), strict=True))
  clusters = [None] * len(tasks) if clusters is None else clusters
  names = sorted({x for of in clusters if of is not None for x in of})
  for number, (task, cluster_of) in enumerate(
      zip(tasks, clusters, strict=True)):
    task = [np.asarray(examples, np.float64) for examples in task]
    shapes = {examples.shape for examples in task}
    shape = task[0].shape
    if len(shapes) > 1 or len(shape) < 2 or not task[0].size:
      raise ValueError('expected the same examples and seeds for all models, '
                       f'at least one; got shapes {shapes}')
    num_seeds, n = shape[:2]
    seeds_drawn = _times_drawn(num_seeds, num_resamples, seed, 'seeds')
    if cluster_of is None:
      times_drawn = _times_drawn(n, num_resamples, seed, f'task {number}')
    elif len(cluster_of) != n:
      raise ValueError(f'expected the cluster of each of {n} examples, got '
                       f'{len(cluster_of)}')
    else:
      drawn = _times_drawn(len(names), num_resamples, seed, 'clusters')
      times_drawn = drawn[:, np.searchsorted(names, cluster_of)]
      # Where a task is left with nothing: rare, unless it has few clusters.
      times_drawn[~times_drawn.any(axis=1)] = 1
    for i in range(num_seeds):
      for weight, examples in zip(weights, task, strict=True):
        share = weight / len(tasks) / num_seeds
        estimate += share * corpus_score(examples[i])
        resampled += share * seeds_drawn[:, i] * _scores(
            examples[i], times_drawn)
  return _interval(estimate, resampled)


# A report has many contrasts of the same examples: what takes the longest of
# each is to draw them.
@functools.lru_cache(maxsize=8)
def _times_drawn(n: int, num_resamples: int, seed: int, what: str
                 ) -> np.ndarray:
  """How often each of n is drawn in each resample, float64 [R, n]."""
  rng = np.random.default_rng([seed, *what.encode()])
  drawn = rng.multinomial(n, np.full(n, 1 / n), size=num_resamples)
  return drawn.astype(np.float64)


def median_ratio(first: Sequence[float], second: Sequence[float], *,
                 seed: int = 0) -> Interval:
  """Interval of median(first) / median(second), repeats drawn independently.

  Made for timing repeats: with five a side it is coarse, and it does not see
  what drifts between one model's repeats and the other's.
  """
  medians = _resampled_medians((first, second), seed)
  return _interval(np.median(first) / np.median(second),
                   medians[0] / medians[1])


def step_difference(times: Sequence[Sequence[float]], *, seed: int = 0
                    ) -> Interval:
  """Interval of what the last step costs more than the first.

  Args:
    times: repeats of each of four settings; the first step is from 0 to 1, the
      last from 2 to 3. Repeats are drawn as for `median_ratio`.
    seed: seed of the resampling.
  """
  def contrast(m):
    return (m[3] - m[2]) - (m[1] - m[0])

  return _interval(contrast([np.median(t) for t in times]),
                   contrast(_resampled_medians(times, seed)))


def exact_share(count: int, total: int) -> Interval:
  """Interval of the share of runs in which something happens.

  Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits": exact,
  so that 0 of 3 says something, of which a resample would be 0 too.
  """
  found = scipy.stats.binomtest(count, total).proportion_ci(CONFIDENCE)
  return Interval(count / total, float(found.low), float(found.high))


def _resampled_medians(samples, seed) -> list[np.ndarray]:
  rng = np.random.default_rng(seed)
  medians = []
  for values in samples:
    values = np.asarray(values, np.float64)
    drawn = rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))
    medians.append(np.median(values[drawn], axis=1))
  return medians
