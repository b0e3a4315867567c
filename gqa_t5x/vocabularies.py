# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which vocabulary is a checkpoint's, and whether one is."""

from collections.abc import Mapping
from typing import Any

from gqa_t5x import pretrained
from gqa_t5x import storage
from gqa_t5x.errors import UserError

# T5 pads its embedding to a multiple of 128 rows; others may to more.
_PADDED_TO = 128
_LEAST_SHARE = 0.9

_OF_HUGGING_FACE = 'spiece.model'

NUM_SENTINELS = 100
# In seqio the blank before a sentinel is part of it.
SENTINEL = '\u2581<extra_id_{}>'

HOW_IN_GIN = (
    'make the task from your own files (docs/your_data.md) and pass its'
    ' SentencePiece model as --gin.default_vocabulary.path'
)


def path_for(checkpoint: str) -> str:
  """Returns the SentencePiece model in a checkpoint's folder, else ours."""
  beside = storage.local_path(checkpoint) / _OF_HUGGING_FACE
  return str(beside) if beside.is_file() else pretrained.VOCABULARY_PATH


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
        ' checkpoint was trained with'
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
