# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Question answering: a question and a page give a short answer.

Training uses the first answer; evaluation takes the best score over all.

TriviaQA comes with the pages that its evidence is in. As in T5, a training
example is a question, one page, and an alias of the answer that occurs in the
page (compared without case, anywhere in the text); a page that is too long is
cut to a random window around the first place where the alias occurs. Unlike in
T5, whose window runs over the whole input,

  - the question is always kept, as evaluation has it too;
  - the place is found in the text. T5 looks for the tokens of the lower-case
    alias, and drops pages that have it in another case;
  - EOS has room, so that it never replaces the end of the answer.

T5 defines no evaluation. Here it is one example for each row, with all of its
pages one after the other, cut at the end. TFDS's dev split has the rows of four
files, web, Wikipedia and the verified parts of both, so that a question may be
there up to four times.
"""

from collections.abc import Callable
from typing import Any

import seqio
import tensorflow as tf

from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics


def recipe(*prompt: Callable) -> dict[str, Any]:
  """As `summarization.recipe`; rows keep their field `answers`."""
  return _recipe([*prompt, *common.token_preprocessors()])


def trivia_qa_recipe() -> dict[str, Any]:
  """As `recipe`, of TriviaQA, from rows as TFDS has them.

  Rows need one field more, `is_training`, a bool.
  """
  return _recipe([
      evidence_examples,
      tokenize_evidence,
      seqio.CacheDatasetPlaceholder(),
      answer_window,
      seqio.preprocessors.append_eos_after_trim,
  ])


def _recipe(preprocessors) -> dict[str, Any]:
  return {
      'preprocessors': preprocessors,
      'postprocess_fn': all_answers,
      'metric_fns': [metrics.trivia_qa],
  }


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


def evidence_examples(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Makes examples of TriviaQA's rows: many in training, else one.

  Returns:
    A dataset of texts: 'question' (its prompt), 'before', 'answer', 'after'
    (the page in three pieces; only the last one in evaluation), 'targets', and
    'answers' [answers].
  """

  def examples(row):
    pages = tf.concat(
        [
            row['entity_pages']['wiki_context'],
            row['search_results']['search_context'],
        ],
        axis=0,
    )
    pages = _not_blank(_spaced_punctuation(pages))
    answer = row['answer']
    texts = tf.cond(
        row['is_training'],
        lambda: _pages_with_alias(
            pages,
            _not_blank(_spaced_punctuation(answer['normalized_aliases'])),
        ),
        lambda: {
            'before': tf.constant(['']),
            'answer': tf.constant(['']),
            'after': tf.strings.reduce_join(pages, separator=' ')[None],
            'targets': _spaced_punctuation(answer['normalized_value'])[None],
        },
    )
    count = tf.size(texts['targets'])
    question = 'question: ' + _spaced_punctuation(row['question'])
    texts['question'] = tf.repeat(question + ' context:', count)
    answers = tf.concat([[answer['value']], answer['aliases']], axis=0)
    texts['answers'] = tf.tile(answers[None], [count, 1])
    return texts

  return dataset.map(examples, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def tokenize_evidence(
    dataset: tf.data.Dataset, output_features
) -> tf.data.Dataset:
  """Tokenizes what `evidence_examples` gives and notes where the answer is.

  Pieces of a page are tokenized one by one and end between words, where a
  SentencePiece model would end a token as well.
  """
  encode_inputs = output_features['inputs'].vocabulary.encode_tf
  encode_targets = output_features['targets'].vocabulary.encode_tf

  @seqio.map_over_dataset
  def tokenize(example):
    pieces = [
        example[name] for name in ('question', 'before', 'answer', 'after')
    ]
    tokens = [encode_inputs(tf.strings.strip(piece)) for piece in pieces]
    ends = tf.cumsum([tf.size(piece) for piece in tokens])
    text = tf.strings.join([pieces[0] + ' ', *pieces[1:]])
    return {
        'inputs': tf.concat(tokens, axis=0),
        'inputs_pretokenized': tf.strings.strip(text),
        'targets': encode_targets(example['targets']),
        'targets_pretokenized': example['targets'],
        'answers': example['answers'],
        'page_start': ends[0],
        'answer_start': ends[1],
        'answer_end': ends[2],
    }

  return tokenize(dataset)


def answer_window(
    dataset: tf.data.Dataset, sequence_length=None
) -> tf.data.Dataset:
  """Drops a random part of the front of pages that are too long.

  What then exceeds the length at the end is for `append_eos_after_trim`. An
  example without a place of its answer keeps the front; one whose answer does
  not fit beside its question is dropped.

  Args:
    dataset: as `tokenize_evidence` gives it.
    sequence_length: {'inputs': tokens with EOS, ...}; None: no limit.
  """
  if sequence_length is None:
    max_tokens = tf.int32.max
  else:
    max_tokens = sequence_length['inputs'] - 1  # for EOS

  def fits(example):
    answer = example['answer_end'] - example['answer_start']
    return answer == 0 or example['page_start'] + answer <= max_tokens

  @seqio.map_over_dataset(num_seeds=1)
  def cut(example, seed):
    example = dict(example)
    tokens = example['inputs']
    page_start = example.pop('page_start')
    answer_start = example.pop('answer_start')
    answer_end = example.pop('answer_end')
    room = max_tokens - page_start
    first = tf.maximum(page_start, answer_end - room)
    last = tf.minimum(answer_start, tf.size(tokens) - room)
    start = tf.random.stateless_uniform(
        [], seed, first, tf.maximum(first, last) + 1, tf.int32
    )
    is_cut = tf.logical_and(
        tf.size(tokens) > max_tokens, answer_end > answer_start
    )
    start = tf.where(is_cut, start, page_start)
    example['inputs'] = tf.concat([tokens[:page_start], tokens[start:]], axis=0)
    return example

  return cut(dataset.filter(fits))


def _pages_with_alias(pages, aliases) -> dict:
  """Finds the pairs of a page and an alias that occurs in it, page by page.

  Args:
    pages: string [pages], words with one space between them.
    aliases: string [aliases], likewise, lower case.

  Returns:
    'before', 'answer', 'after' and 'targets', string [pairs]: the page in three
    pieces, of which the second holds the alias, in whole words; and the alias.
  """
  # Lower case of ASCII alone, as in T5, keeps the lengths in bytes.
  lowered, sought = tf.strings.lower(pages), tf.strings.lower(aliases)
  count = tf.size(aliases)

  def place(pair):
    parts = tf.strings.split(
        lowered[pair // count], sep=sought[pair % count], maxsplit=1
    )
    return tf.where(tf.size(parts) == 2, tf.strings.length(parts[0]), -1)

  places = tf.map_fn(
      place, tf.range(tf.size(pages) * count), fn_output_signature=tf.int32
  )
  pairs = tf.cast(tf.where(places >= 0)[:, 0], tf.int32)
  pages = tf.gather(pages, pairs // count)
  aliases = tf.gather(aliases, pairs % count)
  start = tf.gather(places, pairs)
  end = start + tf.strings.length(aliases)
  size = tf.strings.length(pages)
  # "unknown" holds "know": the pieces end where the words do.
  before = tf.strings.substr(pages, tf.zeros_like(start), start)
  before = tf.strings.regex_replace(before, r'\S+$', '')
  after = tf.strings.substr(pages, end, size - end)
  after = tf.strings.regex_replace(after, r'^\S+', '')
  start, end = tf.strings.length(before), size - tf.strings.length(after)
  return {
      'before': before,
      'answer': tf.strings.substr(pages, start, end - start),
      'after': after,
      'targets': aliases,
  }


def _spaced_punctuation(text):
  """Puts a space on each side of punctuation marks, and one between words."""
  text = tf.strings.regex_replace(text, '([[:punct:]])', r' \1 ')
  return tf.strings.strip(tf.strings.regex_replace(text, r'\s+', ' '))


def _not_blank(texts):
  return tf.boolean_mask(texts, tf.strings.length(texts) > 0)
