# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Translation: "translate English to German: " and a text."""

from collections.abc import Callable
from typing import Any

import seqio

from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics


def recipe(*prompt: Callable) -> dict[str, Any]:
  """As `summarization.recipe`."""
  return {
      'preprocessors': [*prompt, *common.token_preprocessors()],
      'metric_fns': [metrics.bleu],
  }


def text_preprocessor(
    source_text: str, target_text: str, source: str, target: str
):
  """Returns a preprocessor of rows with these two fields.

  Args:
    source_text: field of the text to translate.
    target_text: field of its translation.
    source: name of its language as the prompt says it, 'English'.
    target: name of the other language, 'German'.
  """

  @seqio.map_over_dataset
  def prompt(row):
    return {
        'inputs': common.translation_input('', source, target)
        + row[source_text],
        'targets': row[target_text],
    }

  return prompt
