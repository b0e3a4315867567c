# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Span corruption against T5's numbers and an example worked out by hand."""

import numpy as np
import pytest

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')

from gqa_t5x import span_corruption
from gqa_t5x import vocabularies
from gqa_t5x.tasks import common
from gqa_t5x.tasks import pretraining

RAW_INPUTS_TARGETS = [
    (141, 128, 29), (284, 256, 58), (568, 512, 114), (2274, 2048, 456),
]  # pyformat: disable


@pytest.mark.parametrize('raw,inputs,targets', RAW_INPUTS_TARGETS)
def test_lengths_are_those_of_t5(raw, inputs, targets):
  assert span_corruption.raw_length(inputs) == raw
  assert span_corruption.corrupted_lengths(raw) == (inputs, targets)


def test_example_by_hand():
  tokens = tf.constant([10, 11, 12, 13, 14, 15, 16])
  mask = tf.constant([False, True, True, False, False, True, False])
  inputs, targets = pretraining.corrupt(tokens, mask, 99)
  assert inputs.numpy().tolist() == [10, 99, 13, 14, 98, 16]
  # A sentinel for each visible run, the first and the last included.
  assert targets.numpy().tolist() == [99, 11, 12, 98, 15, 97]


@pytest.mark.parametrize('length', [2, 3, 7, 20, 141, 568])
def test_noise_mask(length):
  noise, spans = span_corruption.span_counts(length)
  masks = []
  for seed in range(5):
    seeds = tf.constant([[seed, 1], [seed, 2]])
    mask = pretraining.noise_mask(length, seeds).numpy()
    again = pretraining.noise_mask(length, seeds).numpy()
    assert (mask == again).all() and mask.shape == (length,)
    assert mask.sum() == noise
    assert not mask[0] and mask[-1]
    assert (np.diff(mask.astype(int)) == 1).sum() == spans
    masks.append(mask)
  if length > 20:
    assert any((m != masks[0]).any() for m in masks)


def _task(name, documents):
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  return seqio.TaskRegistry.add(
      name,
      source=common.rows_source(
          lambda split: [{'text': d} for d in documents], ('text',), ('train',)
      ),
      output_features=common.output_features(),
      **pretraining.recipe('text'),
  )


def _examples(task, seed):
  dataset = task.get_dataset(
      {'inputs': 32, 'targets': 9}, split='train', shuffle=False, seed=seed
  )
  return list(dataset.as_numpy_iterator())


def test_task_hides_and_keeps_every_token_once():
  documents = [f'The value of argument {i} is a tensor.' for i in range(200)]
  task = _task('test_spans', documents)
  vocabulary = task.output_features['inputs'].vocabulary
  first_sentinel = vocabulary.vocab_size - vocabularies.NUM_SENTINELS
  examples = _examples(task, seed=3)
  rebuilt = []
  for example in examples:
    inputs, targets = example['inputs'].tolist(), example['targets'].tolist()
    assert inputs[-1] == 1 and targets[-1] == 1
    assert len(inputs) <= 32 and len(targets) <= 9
    hidden = {}
    for token in targets[:-1]:
      if token >= first_sentinel:
        hidden[token] = span = []
      else:
        span.append(token)
    for token in inputs[:-1]:
      rebuilt += hidden[token] if token >= first_sentinel else [token]
  # 128 documents are joined at a time; a rest of one token is dropped.
  expected = [t for d in documents for t in vocabulary.encode(d)]
  assert 0 <= len(expected) - len(rebuilt) <= 2
  assert rebuilt[:500] == expected[:500]


def test_same_seed_same_examples_other_seed_others():
  task = _task('test_spans_seeds', ['one two three four five six'] * 40)
  first, again, other = (_examples(task, seed) for seed in (1, 1, 2))
  assert [e['inputs'].tolist() for e in first] == [
      e['inputs'].tolist() for e in again
  ]
  assert [e['inputs'].tolist() for e in first] != [
      e['inputs'].tolist() for e in other
  ]
