# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""ROUGE, BLEU, exact match and F1, computed as T5 computes them.

Each takes `(targets, predictions)` and returns {name: value from 0 to 100},
seqio's form of a metric. Pure Python: no TensorFlow.
"""

from collections.abc import Sequence
import collections
import re
import string

_ARTICLES = re.compile(r'\b(a|an|the)\b')
# Typographic quotes too.
_TRIVIA_MARKS = re.compile(
    '[' + re.escape(string.punctuation + '\u2018\u2019\u00b4`_') + ']'
)


def rouge(
    targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-Lsum, without stemming.

  T5 reports the middle of a bootstrap, which is random; this is the mean.
  """
  from rouge_score import rouge_scorer
  kinds = ('rouge1', 'rouge2', 'rougeLsum')
  scorer = rouge_scorer.RougeScorer(kinds)
  sums = dict.fromkeys(kinds, 0.0)
  for target, prediction in zip(targets, predictions, strict=True):
    scores = scorer.score(_sentence_lines(target), _sentence_lines(prediction))
    for kind in kinds:
      sums[kind] += scores[kind].fmeasure
  return {kind: 100 * sums[kind] / max(1, len(targets)) for kind in kinds}


def rouge_l(
    targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Mean F-measure of ROUGE-L, best over the answers of each question."""
  from rouge_score import rouge_scorer
  scorer = rouge_scorer.RougeScorer(['rougeL'])
  total = 0.0
  for answers, prediction in zip(targets, predictions, strict=True):
    total += max(
        scorer.score(answer, prediction)['rougeL'].fmeasure
        for answer in answers
    )
  return {'rougeL': 100 * total / max(1, len(targets))}


def bleu(
    targets: Sequence[str | Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Corpus BLEU by sacrebleu, tokenized 'intl', smoothed 'exp'.

  Args:
    targets: for each example one reference or several, as many for each.
    predictions: for each example its translation.
  """
  import sacrebleu
  if not targets:
    return {'bleu': 0.0}
  references = [[t] if isinstance(t, str) else list(t) for t in targets]
  score = sacrebleu.corpus_bleu(
      list(predictions),
      [list(column) for column in zip(*references, strict=True)],
      smooth_method='exp',
      tokenize='intl',
  )
  return {'bleu': score.score}


def trivia_qa(
    targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Exact match and F1 with TriviaQA's normalisation, best over answers."""
  exact, f1 = 0.0, 0.0
  for answers, prediction in zip(targets, predictions, strict=True):
    prediction = normalize_trivia_qa(prediction)
    answers = [normalize_trivia_qa(answer) for answer in answers]
    exact += max(float(answer == prediction) for answer in answers)
    f1 += max(token_f1(answer, prediction) for answer in answers)
  count = max(1, len(targets))
  return {'em': 100 * exact / count, 'f1': 100 * f1 / count}


def normalize_trivia_qa(text: str) -> str:
  """Lower case, marks to spaces, articles dropped, white space collapsed."""
  words = _ARTICLES.sub(' ', _TRIVIA_MARKS.sub(' ', text.lower()))
  return ' '.join(words.split())


def token_f1(target: str, prediction: str) -> float:
  """F1 of two normalised answers as bags of words; 0 if none is shared."""
  target_words, words = target.split(), prediction.split()
  common = collections.Counter(target_words) & collections.Counter(words)
  shared = sum(common.values())
  if shared == 0:
    return 0.0
  precision, recall = shared / len(words), shared / len(target_words)
  return 2 * precision * recall / (precision + recall)


def _sentence_lines(text: str) -> str:
  # ROUGE-Lsum compares line by line.
  return text.replace(' . ', ' .\n')
