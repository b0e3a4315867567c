# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's vocabulary: which it is, and its ids of text.

SentencePiece gives the token ids that seqio's vocabulary gives, sentinels
included, without TensorFlow and the seconds that it takes to import.
"""

from collections.abc import Iterable, Mapping
import hashlib
import itertools
import json
import pathlib
import re
from typing import Any

from gqa_t5x import decoding
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
    ' SentencePiece model or tokenizer.json as --gin.default_vocabulary.path'
)


class Vocabulary:
  """A SentencePiece model, or a tokenizer.json of Hugging Face.

  Attributes:
    size: number of ids, sentinels included.
    first_sentinel: id of <extra_id_0>, from which those of the others go down;
      None where a tokenizer.json has none.
    sha256: of the file.
  """

  def __init__(self, path: str):
    """Reads a file; raises UserError if it is no such, or its ids are not T5's.

    Args:
      path: of one whose name ends with .json, for which `tokenizers` is needed,
        or of a SentencePiece model.
    """
    try:
      data = storage.local_path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
      raise UserError(
          f'expected a SentencePiece model, but {path} is not a file; check'
          ' --vocabulary'
      ) from error
    self.sha256 = hashlib.sha256(data).hexdigest()
    of_library = _Tokenizer if str(path).endswith('.json') else _Pieces
    self._library = of_library(data, path)
    self.size = self._library.size
    self.first_sentinel = self._library.first_sentinel

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without EOS."""
    return self._library.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of ids up to EOS or padding, on one line."""
    ids = itertools.takewhile(lambda i: i > decoding.EOS_ID, ids)
    # A model's vocabulary may be padded beyond the pieces.
    known = [i for i in ids if i < self.size]
    return ' '.join(self._library.decode(known).split())


class _Pieces:
  """SentencePiece's model, with T5's 100 sentinels: its own, or added here."""

  def __init__(self, data: bytes, path: str):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    model = parse_model(data, path)
    for i in reversed(range(missing_sentinels(model))):
      model.pieces.add(
          piece=SENTINEL.format(i),
          score=0.0,
          type=model_pb2.ModelProto.SentencePiece.USER_DEFINED,
      )
    self._pieces = sentencepiece.SentencePieceProcessor()
    self._pieces.LoadFromSerializedProto(model.SerializeToString())
    self.size = self._pieces.GetPieceSize()
    self.first_sentinel = self.size - 1

  def encode(self, text: str) -> list[int]:
    if self._pieces.IdToPiece(self.first_sentinel)[0] == '\u2581':
      # A sentinel without a blank before it would be letters.
      text = re.sub(r'(?<=\S)(<extra_id_\d+>)', r' \1', text)
    return self._pieces.EncodeAsIds(text)

  def decode(self, ids: list[int]) -> str:
    return self._pieces.DecodeIds(ids)


class _Tokenizer:
  """Hugging Face's, with whatever tokens were added to it."""

  def __init__(self, data: bytes, path: str):
    import tokenizers

    try:
      self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # pylint: disable=broad-except  It has no other.
      raise UserError(
          f'{path} is not a tokenizer of Hugging Face ({str(error)[:80]}); pass'
          ' its tokenizer.json, or a SentencePiece model'
      ) from error
    # What the last call of whoever saved it asked for; a text is whole here.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    self._check_ids(path)
    # Ids may have gaps.
    self.size = 1 + max(self._tokenizer.get_vocab().values())
    self.first_sentinel = self._tokenizer.token_to_id('<extra_id_0>')

  def _check_ids(self, path: str) -> None:
    """Raises UserError where text may give the ids of padding and the end."""
    added = self._tokenizer.get_added_tokens_decoder()
    for i, name in ((decoding.PAD_ID, '<pad>'), (decoding.EOS_ID, '</s>')):
      token = self._tokenizer.id_to_token(i)
      is_kept = i in added and added[i].special
      if token != name and not (is_kept and token != '<unk>'):
        raise UserError(
            f'expected 0 to be padding and {decoding.EOS_ID} the end of a text'
            f' in {path}, as in T5, got {token!r} for {i}; take a tokenizer'
            ' that keeps both for what is no text'
        )

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: list[int]) -> str:
    return self._tokenizer.decode(ids, skip_special_tokens=False)


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
    UserError: if the bytes of `path` are none, or its ids are not T5's.
  """
  from google.protobuf import message
  import sentencepiece
  from sentencepiece import sentencepiece_model_pb2 as model_pb2

  try:
    # Bytes that are no model may still be a ModelProto.
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(data)
    model = model_pb2.ModelProto.FromString(data)
  except (message.DecodeError, RuntimeError) as error:
    raise UserError(
        f'{path} is not a SentencePiece model; pass the .model file that the'
        ' checkpoint was trained with, spiece.model on the Hugging Face Hub'
    ) from error
  # seqio ends texts with the file's own.
  if pieces.eos_id() != decoding.EOS_ID or pieces.unk_id() == decoding.PAD_ID:
    raise UserError(
        f'expected 0 to be padding and {decoding.EOS_ID} the end of a text in'
        f' {path}, as in T5, got {pieces.eos_id()} for the end and'
        f' {pieces.unk_id()} for unknown pieces; train one with --pad_id=0'
        ' --eos_id=1 --unk_id=2 --bos_id=-1'
    )
  return model


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
