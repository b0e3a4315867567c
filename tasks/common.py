# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: the vocabulary, the features and T5's prompts.

Imports neither TensorFlow nor seqio before they are needed.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import json
import os
import re

import gin

from gqa_t5x import errors
from gqa_t5x import pretrained

EXTRA_IDS = 100
# Every mark that Python's string.punctuation has gets a space on each side in
# T5's TriviaQA, which is done to the paper's task, not to the embedded one.
_PUNCTUATION = re.compile(r'([!-/:-@[-`{-~])')


@gin.configurable
def default_vocabulary(path: str | None = None, extra_ids: int = EXTRA_IDS):
  """Returns the vocabulary of the tasks, a seqio.SentencePieceVocabulary.

  Args:
    path: a SentencePiece model, `None` for the one that ships (4,096 ids with
      the sentinels). Under gin, bind `default_vocabulary.path`.
    extra_ids: sentinels after the pieces; T5 uses 100.

  Raises:
    UserError: where the file is missing.
  """
  return _load_vocabulary(path or pretrained.VOCABULARY_PATH, extra_ids)


@functools.cache
def _load_vocabulary(path, extra_ids):
  import seqio
  if '://' not in path and not os.path.exists(path):
    raise errors.UserError(
        f'expected a SentencePiece model, found no file {path!r}; give the '
        'path of a .model file in default_vocabulary.path'
    )
  return seqio.SentencePieceVocabulary(path, extra_ids=extra_ids)


def output_features(vocabulary=None) -> dict:
  """Returns T5's two features, each ending with EOS; inputs may be absent."""
  import seqio
  vocabulary = vocabulary or default_vocabulary()
  return {
      'inputs': seqio.Feature(vocabulary, add_eos=True, required=False),
      'targets': seqio.Feature(vocabulary, add_eos=True),
  }


def summarization_input(document: str) -> str:
  return f'summarize: {document}'


def translation_input(
    text: str, source: str = 'English', target: str = 'German'
) -> str:
  return f'translate {source} to {target}: {text}'


def question_input(question: str, context: str) -> str:
  return f'question: {question} context: {context}'


def spaced_punctuation(text: str) -> str:
  """Puts a space on each side of punctuation, as T5's TriviaQA does."""
  return ' '.join(_PUNCTUATION.sub(r' \1 ', text).split())


def token_preprocessors() -> list:
  """Returns what follows the prompt: tokenize, trim, append EOS."""
  import seqio
  return [
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
  ]


def rows_source(
    read_rows: Callable[[str], Sequence[dict]],
    fields: Sequence[str],
    splits: Sequence[str],
):
  """Returns a seqio source of rows in memory, in their order.

  Its `fingerprint(split)` is a hash of the rows: what is cached of them is
  found again only while they are the same.

  Args:
    read_rows: gives the rows of a split, when they are first needed.
    fields: of a row, to keep; a value is a text or a list of texts.
    splits: names of the splits.
  """
  import seqio

  def dataset(split, shuffle_files=False, seed=None):
    import tensorflow as tf
    del shuffle_files, seed  # one shard: nothing to shuffle
    rows = read_rows(split)
    columns = {}
    for field in fields:
      values = [row[field] for row in rows]
      if isinstance(values[0], list):
        columns[field] = tf.ragged.constant(values, dtype=tf.string)
      else:
        columns[field] = tf.constant(values, dtype=tf.string)
    return tf.data.Dataset.from_tensor_slices(columns)

  @functools.cache
  def fingerprint(split):
    values = [[row[field] for field in fields] for row in read_rows(split)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()

  source = seqio.FunctionDataSource(dataset, splits=tuple(splits))
  source.fingerprint = fingerprint
  return source
