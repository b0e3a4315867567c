# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap intervals: is one model's score really above another's?

An interval resamples evaluation examples (or timing repeats). It says nothing
about other seeds of training: with one seed, that variance is unknown.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with its bootstrap percentile interval."""

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
  """Corpus scores [R] of resamples; see `paired_difference` for `examples`.

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
  """Interval of (first - second), averaged over tasks with equal weight.

  In each resample both models are scored on the same drawn examples, task by
  task, so what makes an example hard for both cancels.

  Args:
    first: for each task, the first model's examples: scores [n], whose mean
      is the task's score, or BLEU statistics [n, 10].
    second: the same for the second model, on the same examples in the same
      order.
    seed: seed of the resampling.
    num_resamples: how many resamples.

  Returns:
    The difference of the averages with its 95% interval, in points.

  Raises:
    ValueError: the two models have not the same number of examples.
  """
  rng = np.random.default_rng(seed)
  estimate, resampled = 0.0, np.zeros(num_resamples)
  for a, b in zip(first, second, strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not len(a):
      raise ValueError(f'expected the same examples for both models, at least '
                       f'one; got shapes {a.shape} and {b.shape}')
    n = len(a)
    times_drawn = rng.multinomial(n, np.full(n, 1 / n), size=num_resamples)
    times_drawn = times_drawn.astype(np.float64)
    estimate += (corpus_score(a) - corpus_score(b)) / len(first)
    resampled += (_scores(a, times_drawn) - _scores(b, times_drawn)
                  ) / len(first)
  return _interval(estimate, resampled)


def median_ratio(first: Sequence[float], second: Sequence[float], *,
                 seed: int = 0,
                 num_resamples: int = NUM_RESAMPLES) -> Interval:
  """Interval of median(first) / median(second), repeats drawn independently.

  Made for timing repeats: with five a side it is coarse, and it does not see
  what drifts between one model's repeats and the other's.
  """
  rng = np.random.default_rng(seed)

  def medians(values):
    values = np.asarray(values, np.float64)
    drawn = rng.integers(len(values), size=(num_resamples, len(values)))
    return np.median(values[drawn], axis=1)

  estimate = np.median(first) / np.median(second)
  return _interval(estimate, medians(first) / medians(second))
