# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which vocabulary is a checkpoint's, and whether one is."""

from collections.abc import Mapping
import hashlib
import json
import pathlib
import re
from typing import Any

from gqa_t5x import pretrained
from gqa_t5x import storage
from gqa_t5x.errors import UserError

# T5 pads its embedding to a multiple of 128 rows; others may to more.
_PADDED_TO = 128
_LEAST_SHARE = 0.9

# In a folder of Hugging Face: SentencePiece's model, and what replaces it.
_PIECES = 'spiece.model'
_TOKENIZER = 'tokenizer.json'
_ADDED_BY_T5 = re.compile(r'<pad>|</s>|<unk>|<extra_id_\d+>')

NUM_SENTINELS = 100
# In seqio the blank before a sentinel is part of it.
SENTINEL = '\u2581<extra_id_{}>'

HOW_IN_GIN = (
    'make the task from your own files (docs/your_data.md) and pass its'
    ' SentencePiece model as --gin.default_vocabulary.path'
)


def path_for(checkpoint: str, metadata: Mapping[str, Any], *, how: str) -> str:
  """Returns the path of a checkpoint's vocabulary, of its folder or ours.

  Args:
    checkpoint: its path. Of its folder's files spiece.model is taken, or
      tokenizer.json where that alone is there or has tokens that were added.
    metadata: of the checkpoint.
    how: what to do where there is none.

  Raises:
    UserError: if there is none, and ours is not known to be the checkpoint's.
  """
  folder = storage.local_path(checkpoint)
  pieces, tokenizer = folder / _PIECES, folder / _TOKENIZER
  if tokenizer.is_file() and (not pieces.is_file() or _has_added(tokenizer)):
    return str(tokenizer)
  if pieces.is_file():
    return str(pieces)
  ours = pathlib.Path(pretrained.VOCABULARY_PATH).read_bytes()
  if metadata.get('vocabulary_sha256') == hashlib.sha256(ours).hexdigest():
    return pretrained.VOCABULARY_PATH
  raise UserError(f'expected the vocabulary of {checkpoint}, got none; {how}')


def _has_added(tokenizer: pathlib.Path) -> bool:
  """Whether somebody has added tokens to those of T5."""
  try:
    added = json.loads(tokenizer.read_bytes())['added_tokens']
    return not all(_ADDED_BY_T5.fullmatch(token['content']) for token in added)
  except (ValueError, LookupError, TypeError) as error:
    raise UserError(
        f'{tokenizer} is not a tokenizer of Hugging Face ({error}); copy it'
        ' again, or remove it'
    ) from error


def parse_model(data: bytes, path: str) -> Any:
  """Returns the ModelProto of a SentencePiece model.

  Raises:
    UserError: if the bytes of `path` are none.
  """
  from google.protobuf import message
  import sentencepiece
  from sentencepiece import sentencepiece_model_pb2 as model_pb2

  try:
    # Bytes that are no model may still be a ModelProto.
    sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(data)
    return model_pb2.ModelProto.FromString(data)
  except (message.DecodeError, RuntimeError) as error:
    raise UserError(
        f'{path} is not a SentencePiece model; pass the .model file that the'
        ' checkpoint was trained with, spiece.model on the Hugging Face Hub'
    ) from error


def missing_sentinels(model: Any) -> int:
  """Returns how many of T5's sentinels a ModelProto lacks: all, or none.

  Those of the public t5x checkpoints of T5.1.1 and mT5 hold them.
  """
  first = SENTINEL.format(0)
  held = any(piece.piece in (first, first[1:]) for piece in model.pieces)
  return 0 if held else NUM_SENTINELS


def check(
    checkpoint: str,
    metadata: Mapping[str, Any],
    *,
    size: int | None,
    sha256: str,
    how: str,
) -> None:
  """Checks a vocabulary by its hash, and by its size where no hash is known.

  One of the known hash may be as small as it likes: who trained the model had
  it so.

  Args:
    checkpoint: its path, for the message.
    metadata: of the checkpoint.
    size: ids of the vocabulary, sentinels included; None is not looked at.
    sha256: of its file.
    how: what to do where it is another.

  Raises:
    UserError: if it cannot be the checkpoint's.
  """
  expected = metadata.get('vocabulary_sha256')
  if expected and sha256 and expected != sha256:
    raise UserError(
        f'expected the vocabulary that {checkpoint} was trained with (sha256'
        f' {expected[:8]}...), got another ({sha256[:8]}...); {how}'
    )
  ids = metadata['config']['vocab_size']
  least = min(_LEAST_SHARE * ids, ids - _PADDED_TO + 1)
  if expected and sha256:
    least = 0
  if size is not None and not least <= size <= ids:
    raise UserError(
        f'expected a vocabulary of {ids} ids or somewhat fewer, as {checkpoint}'
        f' has, got one of {size}; {how}'
    )
