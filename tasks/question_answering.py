# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Question answering: a question and a page give a short answer.

Training uses the first answer; evaluation takes the best score over all.
"""

import seqio

from gqa_t5x.tasks import metrics

METRICS = [metrics.trivia_qa]


def text_preprocessor(question: str, context: str, answers: str):
  """Returns a preprocessor of rows with these fields, `answers` a list."""

  @seqio.map_over_dataset
  def prompt(row):
    return {
        'inputs': 'question: '
        + row[question]
        + ' context: '
        + row[context],
        'targets': row[answers][0],
        'answers': row[answers],
    }

  return prompt


def all_answers(prediction, example=None, is_target=False):
  """Keeps all the answers of an example as its target."""
  if not is_target:
    return prediction
  return [
      answer.decode() if isinstance(answer, bytes) else str(answer)
      for answer in example['answers']
  ]
