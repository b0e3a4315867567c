# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json of Hugging Face as the vocabulary of seqio's tasks.

What transformers 5 saves has no SentencePiece model beside it, and tokens that
somebody has added are in tokenizer.json alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from gqa_t5x import decoding
from gqa_t5x import vocabularies


class HuggingFaceVocabulary(seqio.Vocabulary):
  """Gives the ids that Hugging Face's own library gives; needs `tokenizers`.

  Attributes:
    first_sentinel: id of <extra_id_0>, None where it has none; with tokens that
      were added it is not the last id, as it is in SentencePiece's vocabulary.
    sha256: of the file.
  """

  def __init__(self, path: str):
    """Reads a file; raises UserError if `path` is no such."""
    super().__init__()
    self._vocabulary = vocabularies.Vocabulary(path)
    self.first_sentinel = self._vocabulary.first_sentinel
    self.sha256 = self._vocabulary.sha256

  @property
  def eos_id(self) -> int:
    return decoding.EOS_ID

  @property
  def unk_id(self) -> None:
    """None: ids beyond the vocabulary are left out, not decoded as unknown."""

  @property
  def _base_vocab_size(self) -> int:
    return self._vocabulary.size

  def _encode(self, s: str) -> Sequence[int]:
    return self._vocabulary.encode(s)

  def _decode(self, ids: Iterable[int]) -> str:
    return self._vocabulary.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    """Maps a string [] to int32 [tokens]."""

    def encode(text):
      # Bytes in a graph, an array of a string outside one.
      text = tf.compat.as_text(np.asarray(text, object).item())
      return np.asarray(self._vocabulary.encode(text), np.int32)

    return tf.ensure_shape(
        tf.numpy_function(encode, [s], tf.int32, stateful=False), [None]
    )

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    """Maps int32 [tokens] to a string []."""

    def decode(ids):
      return self._vocabulary.decode(ids.tolist())

    return tf.ensure_shape(
        tf.numpy_function(decode, [ids], tf.string, stateful=False), []
    )

  def __eq__(self, other) -> bool:
    return (
        isinstance(other, HuggingFaceVocabulary) and self.sha256 == other.sha256
    )

  def __hash__(self) -> int:
    return hash(self.sha256)
