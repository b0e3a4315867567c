# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Summarization: "summarize: " and a document give its summary."""

from collections.abc import Callable
from typing import Any

import seqio
import tensorflow as tf

from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics


def recipe(*prompt: Callable, drops_blank: bool = True) -> dict[str, Any]:
  """Returns what such tasks are registered with, but their source.

  Args:
    *prompt: preprocessors of its rows; none where they have inputs and targets.
    drops_blank: whether `drop_blank` follows them.
  """
  filters = [drop_blank] if drops_blank else []
  return {
      'preprocessors': [*prompt, *filters, *common.token_preprocessors()],
      'metric_fns': [metrics.rouge],
  }


def text_preprocessor(document: str, summary: str):
  """Returns a preprocessor of rows with these two fields."""

  @seqio.map_over_dataset
  def prompt(row):
    return {
        'inputs': common.summarization_input('') + row[document],
        'targets': row[summary],
    }

  return prompt


def dialogue_preprocessor(speakers: str, utterances: str, summary: str):
  """Returns a preprocessor of rows that hold a conversation.

  "NAME: what they say" for each turn, in their order. A turn whose speaker is
  unknown has no name.

  Args:
    speakers: field of the names, a list.
    utterances: field of what they say, a list.
    summary: field of the summary.
  """

  @seqio.map_over_dataset
  def prompt(row):
    turns = tf.size(row[utterances])
    names = row[speakers][:turns]
    names = tf.pad(names, [[0, turns - tf.size(names)]], constant_values='')
    is_known = tf.strings.length(tf.strings.strip(names)) > 0
    names = tf.where(is_known, names + ': ', '')
    transcript = tf.strings.reduce_join(
        names + row[utterances], separator=' '
    )
    return {
        'inputs': common.summarization_input('') + transcript,
        'targets': row[summary],
    }

  return prompt


def drop_blank(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Drops examples with nothing to summarize, or no summary.

  Some papers of arXiv and PubMed have no abstract. They would teach a model to
  write nothing, and in evaluation ROUGE gives any summary of them 0.
  """
  prompt = common.summarization_input('').strip()
  return dataset.filter(
      lambda example: tf.logical_and(
          tf.strings.strip(example['inputs']) != prompt,
          tf.strings.length(tf.strings.strip(example['targets'])) > 0,
      )
  )
