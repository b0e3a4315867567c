# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json as the vocabulary of tasks."""

import hashlib

import pytest

seqio = pytest.importorskip('seqio')
tokenizers = pytest.importorskip('tokenizers')

import tensorflow as tf

from gqa_t5x.engine import cache
from gqa_t5x.errors import UserError
from gqa_t5x.tasks import common
from gqa_t5x.tasks import hf_vocabulary
from gqa_t5x.tasks import pretraining


def _add_token(path, token):
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  tokenizer.add_tokens([token])
  tokenizer.save(str(path))


def test_a_tokenizer_is_the_vocabulary_of_tasks(tokenizer_json):
  ours = common.default_vocabulary(str(tokenizer_json))
  pieces = common.default_vocabulary()
  assert ours.vocab_size == pieces.vocab_size
  assert (ours.pad_id, ours.eos_id) == (pieces.pad_id, pieces.eos_id)
  for text in ('translate English to German: 5 May', 'an \u00e9t\u00e9', ''):
    ids = pieces.encode(text)
    assert ours.encode(text) == ours.encode_tf(text).numpy().tolist() == ids
    assert ours.decode([*ids, 1, 5]) == pieces.decode([*ids, 1, 5])
    assert ours.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text
  assert ours == hf_vocabulary.HuggingFaceVocabulary(str(tokenizer_json))
  assert ours != pieces
  sha256 = hashlib.sha256(tokenizer_json.read_bytes()).hexdigest()
  assert cache.vocabulary_hash(ours) == sha256


def test_sentinels_stay_below_tokens_that_were_added(tokenizer_json):
  _add_token(tokenizer_json, '<table>')
  ours = hf_vocabulary.HuggingFaceVocabulary(str(tokenizer_json))
  size = common.default_vocabulary().vocab_size
  assert (ours.vocab_size, ours.encode('<table>')) == (size + 1, [size])
  feature = seqio.Feature(ours)
  dataset = tf.data.Dataset.from_tensors({'targets': tf.range(10, 20)})
  dataset = pretraining.span_corruption(
      dataset, {'inputs': feature, 'targets': feature}
  )
  (row,) = dataset.as_numpy_iterator()
  assert row['targets'][0] == size - 1 in row['inputs']


def test_a_tokenizer_without_sentinels_corrupts_no_spans(tmp_path):
  path = tmp_path / 'tokenizer.json'
  pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('a', -1.0)]
  model = tokenizers.models.Unigram(pieces, unk_id=2, byte_fallback=False)
  tokenizers.Tokenizer(model).save(str(path))
  feature = seqio.Feature(hf_vocabulary.HuggingFaceVocabulary(str(path)))
  with pytest.raises(UserError, match="T5's sentinels.*<extra_id_0>"):
    pretraining.span_corruption(
        tf.data.Dataset.range(1), {'inputs': feature, 'targets': feature}
    )
