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

import gin

import gqa_t5x
from gqa_t5x import errors
from gqa_t5x import pretrained
from gqa_t5x import vocabularies

# What the public T5.1.1 checkpoints were trained with. The file holds its 100
# sentinels among its 32,100 pieces; 100 more would lie beyond the embedding.
T5_VOCABULARY_PATH = (
    'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
)


@gin.configurable
def default_vocabulary(path: str | None = None, extra_ids: int | None = None):
  """Returns the vocabulary of the tasks, a seqio.Vocabulary.

  Args:
    path: a SentencePiece model, or a tokenizer.json of Hugging Face, for which
      `tokenizers` is needed; `None` for the one that ships (4,096 ids with the
      sentinels). Under gin, bind `default_vocabulary.path`.
    extra_ids: sentinels after the pieces of a SentencePiece model. `None`: none
      where it holds them itself, as those of T5.1.1 and mT5 do, 100 otherwise.

  Raises:
    UserError: where the file is missing, is neither, or has other ids for
      padding and the end than T5.
  """
  path = path or pretrained.VOCABULARY_PATH
  return _load_vocabulary(path, extra_ids, 'default_vocabulary')


@gin.configurable
def t5_vocabulary(path: str | None = None, extra_ids: int | None = None):
  """Returns the vocabulary of the paper's tasks, T5's unless gin says another.

  A remote file is read when the vocabulary is used, not here.

  Args:
    path: as for `default_vocabulary`, but `None` for T5's. Under gin, bind
      `t5_vocabulary.path`.
    extra_ids: as for `default_vocabulary`.

  Raises:
    UserError: as `default_vocabulary`, of a file of this machine.
  """
  path = path or T5_VOCABULARY_PATH
  return _load_vocabulary(path, extra_ids, 't5_vocabulary')


@functools.cache
def _load_vocabulary(path, extra_ids, function):
  import seqio
  if '://' not in path:
    path = os.path.expanduser(path)
  if '://' not in path and not os.path.exists(path):
    raise errors.UserError(
        f'expected a SentencePiece model, found no file {path!r}; give the '
        f'path of a .model file, or of a tokenizer.json, in {function}.path'
    )
  if path.endswith('.json'):
    from gqa_t5x.tasks import hf_vocabulary

    return hf_vocabulary.HuggingFaceVocabulary(path)
  missing = _missing_sentinels(path)
  extra_ids = missing if extra_ids is None else extra_ids
  return seqio.SentencePieceVocabulary(path, extra_ids=extra_ids)


def _missing_sentinels(path: str) -> int:
  if '://' in path:  # Not read before it is used; the public ones say it.
    return 0 if '100extra' in path else vocabularies.NUM_SENTINELS
  with open(path, 'rb') as file:
    model = vocabularies.parse_model(file.read(), path)
  return vocabularies.missing_sentinels(model)


def output_features(vocabulary=None) -> dict:
  """Returns T5's two features, each ending with EOS; inputs may be absent."""
  import seqio
  vocabulary = vocabulary or default_vocabulary()
  return {
      'inputs': seqio.Feature(vocabulary, add_eos=True, required=False),
      'targets': seqio.Feature(vocabulary, add_eos=True),
  }


@functools.cache
def task_class(vocabulary: Callable) -> type:
  """Returns a seqio.Task whose vocabulary is chosen when the task is used.

  Tasks are registered when a gin file imports their module, before gin reads
  the bindings; a vocabulary taken then would never be the one bound.

  Args:
    vocabulary: `default_vocabulary` or `t5_vocabulary`.
  """
  import seqio

  class Task(seqio.Task):

    @property
    def output_features(self):
      return output_features(vocabulary())

  return Task


def add_task(
    name: str, vocabulary: Callable, task_cls: type | None = None, **kwargs
) -> None:
  """Registers a task whose vocabulary is chosen when it is used.

  Args:
    name: of the task, in seqio.
    vocabulary: as for `task_class`.
    task_cls: a subclass of `task_class(vocabulary)` to use in its place.
    **kwargs: of seqio.Task: source, preprocessors, metric_fns, ...
  """
  import seqio
  seqio.TaskRegistry.add(
      name,
      task_cls=task_cls or task_class(vocabulary),
      # Only names and types count: the class gives the vocabulary. The one
      # that ships is on this disk, so nothing is fetched.
      output_features=output_features(
          _load_vocabulary(pretrained.VOCABULARY_PATH, None, '')
      ),
      **kwargs,
  )


def summarization_input(document: str) -> str:
  return f'summarize: {document}'


def translation_input(
    text: str, source: str = 'English', target: str = 'German'
) -> str:
  return f'translate {source} to {target}: {text}'


def question_input(question: str, context: str) -> str:
  return f'question: {question} context: {context}'


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
    made_by: Sequence[str] = (),
    unlabeled: Sequence[str] = (),
):
  """Returns a seqio source of rows in memory, in their order.

  Its `fingerprint(split)` is a hash of the rows: what is cached of them is
  found again only while they, and what is made of them, are the same.

  Args:
    read_rows: gives the rows of a split, when they are first needed.
    fields: of a row, to keep; a value is a text or a list of texts.
    splits: names of the splits.
    made_by: what else of the task decides what is made of a row.
    unlabeled: splits whose targets are blank for want of any; kept as an
      attribute, for what needs targets to refuse them.
  """
  import seqio

  def rows_of(split):
    if split not in splits:
      raise errors.UserError(
          f'expected one of the splits {", ".join(splits)}, got {split!r};'
          ' choose another, or give its file as well'
      )
    return read_rows(split)

  def dataset(split, shuffle_files=False, seed=None):
    import tensorflow as tf
    del shuffle_files, seed  # one shard: nothing to shuffle
    rows = rows_of(split)
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
    values = [[row[field] for field in fields] for row in rows_of(split)]
    what = [gqa_t5x.__version__, *made_by, values]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()

  source = seqio.FunctionDataSource(dataset, splits=tuple(splits))
  source.fingerprint = fingerprint
  source.unlabeled = tuple(unlabeled)
  return source
