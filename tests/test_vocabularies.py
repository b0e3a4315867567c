# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Vocabularies that may be a checkpoint's, and those that cannot be."""

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


def test_that_of_the_checkpoints_folder_is_found(tmp_path):
  found = vocabularies.path_for(str(tmp_path))
  assert found == pretrained.VOCABULARY_PATH
  (tmp_path / 'spiece.model').write_bytes(b'x')
  assert vocabularies.path_for(str(tmp_path)) == str(tmp_path / 'spiece.model')
