# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that may be a checkpoint's, and those that cannot be."""

import hashlib
import json
import os

import pytest
import seqio
import tensorflow as tf
import tokenizers

from gqa_t5x import pretrained
from gqa_t5x import vocabularies
from gqa_t5x.engine import cache
from gqa_t5x.errors import UserError
from gqa_t5x.tasks import common
from gqa_t5x.tasks import hf_vocabulary
from gqa_t5x.tasks import pretraining

T5 = {'config': {'vocab_size': 32128}}


# T5's 32,000 pieces with 100 sentinels, in an embedding padded to 32,128 rows.
@pytest.mark.parametrize('size', [32100, 32128, None])
def test_a_vocabulary_that_fits(size):
  vocabularies.check('ckpt', T5, size=size, sha256='a', how='')


@pytest.mark.parametrize('size', [4096, 32129])
def test_another_size_is_refused(size):
  with pytest.raises(UserError, match=rf'32128 ids.*ckpt.*{size}; do this'):
    vocabularies.check('ckpt', T5, size=size, sha256='a', how='do this')


def test_a_small_vocabulary_is_padded_to_more_than_a_tenth():
  tiny = {'config': {'vocab_size': 256}}
  vocabularies.check('ckpt', tiny, size=129, sha256='a', how='')
  with pytest.raises(UserError, match='256 ids.*one of 128'):
    vocabularies.check('ckpt', tiny, size=128, sha256='a', how='')


def test_the_file_that_it_was_trained_with_may_be_small():
  metadata = T5 | {'vocabulary_sha256': 'abc'}
  vocabularies.check('ckpt', metadata, size=8000, sha256='abc', how='')
  with pytest.raises(UserError, match='32128 ids'):
    vocabularies.check('ckpt', metadata, size=32129, sha256='abc', how='')


def test_another_file_is_refused():
  metadata = T5 | {'vocabulary_sha256': 'abc'}
  vocabularies.check('ckpt', metadata, size=32100, sha256='abc', how='')
  with pytest.raises(UserError, match=r'ckpt was trained with.*abc.*xyz'):
    vocabularies.check('ckpt', metadata, size=32100, sha256='xyz', how='')


def _path_for(folder, **metadata):
  found = vocabularies.path_for(str(folder), metadata, how='do this')
  return os.path.relpath(found, folder)


def test_that_of_the_checkpoints_folder_is_found(tmp_path):
  tokenizer = tmp_path / 'tokenizer.json'

  def adds(*tokens):
    added = [{'content': token} for token in tokens]
    tokenizer.write_text(json.dumps({'added_tokens': added}))

  adds('</s>', '<extra_id_99>')
  assert _path_for(tmp_path) == 'tokenizer.json'
  (tmp_path / 'spiece.model').write_bytes(b'x')
  assert _path_for(tmp_path) == 'spiece.model'
  adds('</s>', '<table>')  # Which spiece.model does not have.
  assert _path_for(tmp_path) == 'tokenizer.json'
  tokenizer.write_text('{')
  with pytest.raises(UserError, match='is not a tokenizer of Hugging Face'):
    _path_for(tmp_path)


def test_ours_is_taken_only_where_it_is_the_checkpoints(tmp_path):
  with open(pretrained.VOCABULARY_PATH, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  found = _path_for(tmp_path, vocabulary_sha256=digest)
  assert os.path.samefile(tmp_path / found, pretrained.VOCABULARY_PATH)
  for metadata in ({}, {'vocabulary_sha256': 'abc'}):
    with pytest.raises(UserError, match='vocabulary of .*got none; do this'):
      _path_for(tmp_path, **metadata)


@pytest.fixture
def tokenizer_json(tmp_path):
  """The pieces that ship, as Hugging Face's library has them."""
  with open(pretrained.VOCABULARY_PATH, 'rb') as file:
    model = vocabularies.parse_model(file.read(), '')
  pieces = [(piece.piece, piece.score) for piece in model.pieces]
  pieces += [(f'<extra_id_{i}>', 0.0) for i in reversed(range(100))]
  tokenizer = tokenizers.Tokenizer(
      tokenizers.models.Unigram(pieces, unk_id=2, byte_fallback=False)
  )
  tokenizer.normalizer = tokenizers.normalizers.Precompiled(
      model.normalizer_spec.precompiled_charsmap
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  tokenizer.decoder = tokenizers.decoders.Metaspace()
  # As transformers has them: without the blank before.
  tokenizer.add_special_tokens([
      tokenizers.AddedToken(f'<extra_id_{i}>', lstrip=True, special=True)
      for i in range(100)
  ])
  path = tmp_path / 'tokenizer.json'
  tokenizer.save(str(path))
  return path


def _add_token(path, token):
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  tokenizer.add_tokens([token])
  tokenizer.save(str(path))


def test_a_tokenizer_gives_the_ids_of_its_sentencepiece_model(tokenizer_json):
  ours = vocabularies.Vocabulary(str(tokenizer_json))
  pieces = vocabularies.Vocabulary(pretrained.VOCABULARY_PATH)
  assert (ours.size, ours.first_sentinel) == (pieces.size, pieces.size - 1)
  texts = (
      'translate English to German: 5 May 2021',
      'Returns <extra_id_0> the array <extra_id_99> .',
      'Returns<extra_id_0> the array',
      '',
  )
  assert [*map(ours.encode, texts)] == [*map(pieces.encode, texts)]
  assert ours.decode([*pieces.encode('a list of'), 1, 5]) == 'a list of'


def test_what_is_no_tokenizer_is_one_line(tmp_path):
  path = tmp_path / 'tokenizer.json'
  path.write_text('{"model": 3}')
  with pytest.raises(UserError, match='not a tokenizer of Hugging') as error:
    vocabularies.Vocabulary(str(path))
  assert '\n' not in str(error.value)


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
