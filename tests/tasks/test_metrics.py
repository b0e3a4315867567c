# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics against values worked out by hand."""

import math

import pytest

from gqa_t5x.tasks import metrics


def test_rouge_of_a_shared_half():
  pytest.importorskip('rouge_score')
  # Unigrams: 2 shared of 4 and of 2, F = 2/3. Bigrams: 1 of 3 and of 1, 1/2.
  score = metrics.rouge(['the cat sat down'], ['the cat'])
  assert score == pytest.approx(
      {'rouge1': 200 / 3, 'rouge2': 50.0, 'rougeLsum': 200 / 3}
  )


def test_rouge_is_the_mean_and_does_not_stem():
  pytest.importorskip('rouge_score')
  score = metrics.rouge(['cats', 'dog'], ['cat', 'dog'])
  assert score['rouge1'] == pytest.approx(50.0)


def test_rouge_lsum_splits_at_spaced_full_stops():
  pytest.importorskip('rouge_score')
  # As one line the longest common subsequence is 2 of 5; by lines all match.
  score = metrics.rouge(['a b . c d'], ['c d . a b'])
  assert score['rougeLsum'] == pytest.approx(100.0)


def test_bleu():
  pytest.importorskip('sacrebleu')
  same = metrics.bleu(['der Hund läuft sehr schnell'],
                      ['der Hund läuft sehr schnell'])  # pyformat: disable
  assert same['bleu'] == pytest.approx(100.0)
  # n-gram precisions 4/5, 3/4, 2/3, 1/2, same length.
  score = metrics.bleu(['a b c d e'], ['a b c d x'])['bleu']
  precisions = (4 / 5) * (3 / 4) * (2 / 3) * (1 / 2)
  assert score == pytest.approx(100 * precisions**0.25)
  # Too short by one of five: brevity penalty exp(1 - 5/4).
  score = metrics.bleu(['a b c d e'], ['a b c d'])['bleu']
  assert score == pytest.approx(100 * math.exp(-0.25))


def test_bleu_smooths_exponentially():
  pytest.importorskip('sacrebleu')
  # Precisions 2/4, then 1/3; no trigram of 2, no 4-gram of 1: the first is
  # counted as 1/2, the next as 1/4.
  score = metrics.bleu(['a b c d'], ['a b x y'])['bleu']
  expected = (2 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** 0.25
  assert score == pytest.approx(100 * expected)


def test_bleu_takes_several_references():
  pytest.importorskip('sacrebleu')
  assert metrics.bleu([['x', 'a b c d']], ['a b c d'])[
      'bleu'
  ] == pytest.approx(100.0)


@pytest.mark.parametrize(
    'text,normalized',
    [
        ('The  Beatles!', 'beatles'),
        ('e.g. a-b', 'e g b'),
        ('\u2018Tis an owl_s', 'tis owl s'),
        ('Anthem', 'anthem'),
    ],
)
def test_normalisation(text, normalized):
  assert metrics.normalize_trivia_qa(text) == normalized


def test_best_answer_counts_and_f1_is_a_bag_of_words():
  # 'big red dog' against 'red dog cat': 2 shared of 3 and 3.
  score = metrics.trivia_qa(
      [['cow', 'the red dog cat'], ['Paris']], ['big red dog', 'paris.']
  )
  assert score == pytest.approx({'em': 50.0, 'f1': 100 * (2 / 3 + 1) / 2})
  assert metrics.trivia_qa([['x']], ['y']) == {'em': 0.0, 'f1': 0.0}
  # A repeated word is shared once only.
  assert metrics.token_f1('a b', 'b b') == pytest.approx(0.5)


def test_lengths_must_agree():
  with pytest.raises(ValueError):
    metrics.trivia_qa([['a'], ['b']], ['a'])
