# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that may be a checkpoint's, and those that cannot be."""

import hashlib
import json
import os

import pytest

from gqa_t5x import pretrained
from gqa_t5x import vocabularies
from gqa_t5x.errors import UserError

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
  pytest.importorskip('tokenizers')
  path = tmp_path / 'tokenizer.json'
  path.write_text('{"model": 3}')
  with pytest.raises(UserError, match='not a tokenizer of Hugging') as error:
    vocabularies.Vocabulary(str(path))
  assert '\n' not in str(error.value)


def test_ids_of_a_tokenizer_may_have_gaps(tmp_path):
  pytest.importorskip('tokenizers')
  added = {'single_word': False, 'lstrip': False, 'rstrip': False,
           'normalized': False, 'special': True}
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps({
      'version': '1.0',
      'added_tokens': [
          {'id': 0, 'content': '<pad>', **added},
          {'id': 1, 'content': '</s>', **added},
      ],
      'pre_tokenizer': {'type': 'Whitespace'},
      'model': {
          'type': 'WordLevel', 'unk_token': 'unknown',
          'vocab': {'<pad>': 0, '</s>': 1, 'unknown': 2, 'far': 90},
      },
  }))  # pyformat: disable
  ours = vocabularies.Vocabulary(str(path))
  assert ours.size == 91
  assert ours.decode(ours.encode('far far')) == 'far far'


def test_a_text_is_whole_whatever_a_tokenizer_was_last_used_for(tokenizer_json):
  """transformers saves the truncation and padding of its last call."""
  tokenizers = pytest.importorskip('tokenizers')
  expected = vocabularies.Vocabulary(str(tokenizer_json)).encode('a b c d e')
  saved = tokenizers.Tokenizer.from_file(str(tokenizer_json))
  for length in (3, 64):
    saved.enable_truncation(length)
    saved.enable_padding(length=length)
    assert len(saved.encode('a b c d e').ids) == length
    saved.save(str(tokenizer_json))
    ours = vocabularies.Vocabulary(str(tokenizer_json))
    assert ours.encode('a b c d e') == expected


def test_other_ids_for_padding_and_the_end_are_refused(
    tmp_path, tokenizer_json
):
  """SentencePiece's own defaults: 0 is <unk>, 1 is <s>, 2 is </s>."""
  sentencepiece = pytest.importorskip('sentencepiece')
  (tmp_path / 'text').write_text('some words of a text\n' * 9)
  sentencepiece.SentencePieceTrainer.train(
      input=str(tmp_path / 'text'), model_prefix=str(tmp_path / 'm'),
      model_type='char', vocab_size=20, minloglevel=2,
      hard_vocab_limit=False,
  )  # pyformat: disable
  with pytest.raises(UserError, match='got 2 for the end and 0 for unknown'):
    vocabularies.Vocabulary(str(tmp_path / 'm.model'))
  text = tokenizer_json.read_text()
  assert '"</s>"' in text
  tokenizer_json.write_text(text.replace('"<pad>"', '"<first>"').replace(
      '"<unk>"', '"<pad>"').replace('"<first>"', '"<unk>"'))
  with pytest.raises(UserError, match="got '<unk>' for 0"):
    vocabularies.Vocabulary(str(tokenizer_json))


@pytest.mark.parametrize('special, is_kept', [
    ([], False),  # As GPT-2's: 0 and 1 are characters.
    (['<s>', '<pad>', '</s>', '<unk>'], True),  # As BART's: no text gives them.
    (['<unk>', '<s>', '</s>'], False),
])
def test_tokenizers_may_keep_the_ids_for_others(tmp_path, special, is_kept):
  tokenizers = pytest.importorskip('tokenizers')
  path = str(tmp_path / 'tokenizer.json')
  made = tokenizers.ByteLevelBPETokenizer()
  made.train_from_iterator(
      ['some text'], vocab_size=270, special_tokens=special
  )
  made.save(path)
  if not is_kept:
    with pytest.raises(UserError, match='expected 0 to be padding and 1 the'):
      vocabularies.Vocabulary(path)
    return
  ours = vocabularies.Vocabulary(path)
  assert ours.decode(ours.encode('a "b"! c')) == 'a "b"! c'
