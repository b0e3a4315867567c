# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5's span corruption, written against its published facts, on tf.data.

Documents are joined, cut to one length, and spans of them hidden: the inputs
have a sentinel for each hidden span, the targets a sentinel for each visible
one (Raffel et al., 2020, section 3.1.4). All randomness comes from seqio's
seeds, so a task gives the same examples on every run.
"""

import functools
from typing import Any

import seqio
import tensorflow as tf

from gqa_t5x import errors
from gqa_t5x import span_corruption as spans_lib

DOCUMENTS_JOINED = 128


def join_and_split(
    dataset: tf.data.Dataset, sequence_length
) -> tf.data.Dataset:
  """Joins documents, 128 at a time, and cuts them to the raw length.

  Args:
    dataset: of {'targets': int32 [tokens]}, no EOS.
    sequence_length: {'inputs': tokens with EOS, ...}.

  Returns:
    A dataset of {'targets': int32 [at most raw_length(inputs)]}.
  """
  size = spans_lib.raw_length(sequence_length['inputs'])
  dataset = dataset.map(lambda row: row['targets'])
  dataset = dataset.ragged_batch(DOCUMENTS_JOINED)
  dataset = dataset.flat_map(
      lambda batch: tf.data.Dataset.from_tensor_slices(batch.values).batch(
          size
      )
  )
  dataset = dataset.filter(lambda tokens: tf.size(tokens) >= 2)
  return dataset.map(lambda tokens: {'targets': tokens})


def span_corruption(dataset: tf.data.Dataset, output_features):
  """Hides random spans of each example; see `corrupt`.

  Raises:
    UserError: if the vocabulary has no sentinels.
  """
  vocabulary = output_features['targets'].vocabulary
  # The last id, but where tokens were added to a tokenizer of Hugging Face.
  last = vocabulary.vocab_size - 1
  first_sentinel = getattr(vocabulary, 'first_sentinel', last)
  if first_sentinel is None:
    raise errors.UserError(
        "expected a vocabulary with T5's sentinels, which span corruption"
        ' needs, got one without <extra_id_0>; take the one of a T5'
    )

  @seqio.map_over_dataset(num_seeds=2)
  def corrupt_example(example, seeds):
    tokens = example['targets']
    mask = noise_mask(tf.size(tokens), seeds)
    inputs, targets = corrupt(tokens, mask, first_sentinel)
    return {'inputs': inputs, 'targets': targets}

  return corrupt_example(dataset)


def noise_mask(length, seeds) -> tf.Tensor:
  """Draws which tokens are hidden, bool [length].

  Visible and hidden runs alternate, visible first; the lengths of each kind
  are a uniformly random division of its tokens.

  Args:
    length: int32 scalar, at least 2.
    seeds: int32 [2, 2], two stateless seeds.
  """
  noise = tf.round(tf.cast(length, tf.float32) * spans_lib.NOISE_DENSITY)
  noise = tf.clip_by_value(tf.cast(noise, tf.int32), 1, length - 1)
  spans = tf.round(tf.cast(noise, tf.float32) / spans_lib.MEAN_SPAN_LENGTH)
  # A visible run needs a token as well: matters in texts of a few tokens.
  spans = tf.clip_by_value(tf.cast(spans, tf.int32), 1, length - noise)
  hidden = _random_division(noise, spans, seeds[0])
  visible = _random_division(length - noise, spans, seeds[1])
  runs = tf.reshape(tf.stack([visible, hidden], axis=1), [-1])
  is_hidden = tf.range(2 * spans) % 2 == 1
  return tf.repeat(is_hidden, runs)


def corrupt(tokens, mask, first_sentinel: int):
  """Replaces the hidden runs in inputs and the visible ones in targets.

  Each run becomes one sentinel: `first_sentinel`, then those below it.

  Args:
    tokens: int32 [length].
    mask: bool [length], True where hidden.
    first_sentinel: id of <extra_id_0>.

  Returns:
    (inputs, targets), int32 [..]. No sentinel closes the targets.
  """
  return (
      _replace_runs(tokens, mask, first_sentinel),
      _replace_runs(tokens, tf.logical_not(mask), first_sentinel),
  )


def _replace_runs(tokens, mask, first_sentinel) -> tf.Tensor:
  before = tf.pad(mask[:-1], [[1, 0]])
  starts = tf.logical_and(mask, tf.logical_not(before))
  sentinels = first_sentinel + 1 - tf.cumsum(tf.cast(starts, tokens.dtype))
  tokens = tf.where(starts, sentinels, tokens)
  return tf.boolean_mask(tokens, tf.logical_or(starts, tf.logical_not(mask)))


def _random_division(total, parts, seed) -> tf.Tensor:
  """Divides `total` into `parts` lengths of 1 or more, int32 [parts]."""
  order = tf.argsort(tf.random.stateless_uniform([total - 1], seed))
  cuts = tf.sort(order[: parts - 1]) + 1
  edges = tf.concat([[0], cuts, [total]], axis=0)
  return edges[1:] - edges[:-1]


def recipe(source_field: str) -> dict[str, Any]:
  """Returns what span corruption tasks are registered with, but their source.

  Args:
    source_field: the feature of the source that holds the text, e.g. 'text'.
  """
  return {
      'preprocessors': [
          functools.partial(
              seqio.preprocessors.rekey, key_map={'targets': source_field}
          ),
          seqio.preprocessors.tokenize,
          seqio.CacheDatasetPlaceholder(),
          join_and_split,
          span_corruption,
          seqio.preprocessors.append_eos_after_trim,
      ],
      'metric_fns': [],
  }
