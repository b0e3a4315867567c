# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Summarization: "summarize: " and a document give its summary."""

import seqio

from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics

METRICS = [metrics.rouge]


def text_preprocessor(document: str, summary: str):
  """Returns a preprocessor of rows with these two fields."""

  @seqio.map_over_dataset
  def prompt(row):
    return {
        'inputs': common.summarization_input('') + row[document],
        'targets': row[summary],
    }

  return prompt
