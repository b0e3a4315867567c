# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of plain text to calibrate a conversion with.

The text is corrupted as in T5's pre-training, so that encoder and decoder get
what they were trained on. Where the user names none it is Python's own language
reference, which is on every machine.
"""

from collections.abc import Iterator, Mapping
import hashlib
import itertools
import pathlib
import re
from typing import Any

from flax import traverse_util
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import decoding
from gqa_t5x import network
from gqa_t5x import span_corruption
from gqa_t5x import storage
from gqa_t5x import vocabularies
from gqa_t5x.checkpoints import folders
from gqa_t5x.conversion import calibration
from gqa_t5x.errors import UserError

INPUTS_LENGTH = 256
NUM_SEQUENCES = 128
_BATCH_SIZE = 2  # What a layer makes of it has to fit into memory.
# Of a file with more bytes so many parts are read, which have as many in all;
# its tokens take some 20 times the memory of a text.
_MOST_BYTES = 2**23
_NUM_PARTS = 512
# The end of a character that began before, and the beginning of one, in UTF-8.
_HALVES = re.compile(rb'\A[\x80-\xbf]{1,3}|[\xc0-\xff][\x80-\xbf]{0,2}\Z')


def default_text() -> str:
  """Returns the topics of Python's `help()`, half a million characters."""
  from pydoc_data import topics

  return '\n'.join(text for _, text in sorted(topics.topics.items()))


def covariances(
    checkpoint: str,
    path: str | None,
    vocabulary: str | None,
    *,
    num_sequences: int = NUM_SEQUENCES,
) -> tuple[Mapping[tuple[str, ...], calibration.Covariance], dict[str, Any]]:
  """Runs a checkpoint over text; holds an attention or an MLP of it at most.

  Args:
    checkpoint: of any known format.
    path: UTF-8 text; None takes `default_text`.
    vocabulary: as of `vocabularies.Vocabulary`; None is that of
      `vocabularies.path_for`.
    num_sequences: as for `batches`.

  Returns:
    What `calibration.covariances` gives, and what it was measured on, for the
    metadata; the hash is of the text as it was read.

  Raises:
    UserError: as `read` and `batches`, if the vocabulary is not known, and if
      values are not finite.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  config = network.T5Config(**opened.metadata['config'])
  how = (
      'pass its SentencePiece model or tokenizer.json as --vocabulary, or'
      ' --calibration_data=none to convert without text'
  )
  pieces = vocabularies.Vocabulary(
      vocabulary
      or vocabularies.path_for(checkpoint, opened.metadata, how=how)
  )
  vocabularies.check(
      checkpoint,
      opened.metadata,
      size=pieces.size,
      sha256=pieces.sha256,
      how=how,
  )
  text, used = read(path), 0

  def counted():
    nonlocal used
    for batch in batches(
        text, pieces, vocab_size=config.vocab_size, num_sequences=num_sequences
    ):
      used += int(batch['decoder_target_tokens'].any(axis=1).sum())
      yield batch

  params = traverse_util.unflatten_dict(
      folders.finite(opened.params, checkpoint)
  )
  found = calibration.covariances(config, params, counted())
  return found, {
      'text': 'default' if path is None else pathlib.Path(path).name,
      'text_sha256': hashlib.sha256(text.encode()).hexdigest(),
      'sequences': used,
  }


def batches(
    text: str,
    vocabulary: vocabularies.Vocabulary,
    *,
    vocab_size: int,
    num_sequences: int = NUM_SEQUENCES,
    inputs_length: int = INPUTS_LENGTH,
    seed: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches for `calibration.covariances`.

  Args:
    text: of which pieces are drawn evenly from beginning to end.
    vocabulary: of the checkpoint.
    vocab_size: V of the checkpoint.
    num_sequences: most sequences that are used.
    inputs_length: S, EOS counted.
    seed: of the spans.

  Yields:
    int32 encoder_input_tokens [B, S], decoder_input_tokens and
    decoder_target_tokens [B, T].

  Raises:
    UserError: if there is too little text, or the vocabulary does not fit.
  """
  if vocabulary.size > vocab_size:
    raise UserError(
        f'the vocabulary has {vocabulary.size} ids, the checkpoint {vocab_size}'
        '; pass the one it was trained with as --vocabulary'
    )
  if vocabulary.first_sentinel is None:
    raise UserError(
        "expected a vocabulary with T5's sentinels, which calibration needs,"
        ' got one without <extra_id_0>; take --calibration_data=none'
    )
  raw = span_corruption.raw_length(inputs_length)
  tokens = np.asarray(vocabulary.encode(text), np.int32)
  if len(tokens) < 2:
    raise UserError(
        f'expected text to calibrate with, got {len(text)} letters; pass'
        ' another file'
    )
  starts = np.arange(0, max(len(tokens) - raw, 0) + 1, raw)
  chosen = np.linspace(0, len(starts) - 1, num_sequences).astype(int)
  starts = starts[np.unique(chosen)]
  rng = np.random.default_rng(seed)
  rows = (
      span_corruption.corrupt(
          tokens[start : start + raw],
          vocabulary.first_sentinel,
          decoding.EOS_ID,
          rng,
      )
      for start in starts
  )
  _, targets_length = span_corruption.corrupted_lengths(raw)
  while batch := list(itertools.islice(rows, _BATCH_SIZE)):
    # The last batch is filled up with padding.
    shape = {
        'encoder_input_tokens': inputs_length,
        'decoder_input_tokens': targets_length,
        'decoder_target_tokens': targets_length,
    }
    made = {
        name: np.zeros((_BATCH_SIZE, length), np.int32)
        for name, length in shape.items()
    }
    for row, (inputs, targets) in enumerate(batch):
      made['encoder_input_tokens'][row, : len(inputs)] = inputs
      made['decoder_target_tokens'][row, : len(targets)] = targets
      made['decoder_input_tokens'][row, 1 : len(targets)] = targets[:-1]
    yield made


def read(path: str | None) -> str:
  """Returns the text of a file in UTF-8, or `default_text` where it is None.

  Of a long one it is parts, evenly from beginning to end.

  Raises:
    UserError: if there is no such file, or it is of something else.
  """
  if path is None:
    return default_text()
  kind = pathlib.Path(path).suffix.lower()
  if kind in ('.json', '.jsonl', '.tsv', '.csv', '.gz'):
    raise UserError(
        f'expected plain text to calibrate with, got {path}; write its texts'
        ' alone into a .txt file, as `jq -r .FIELD` does of JSON lines'
    )
  try:
    local = storage.local_path(path)
    if local.is_file() and local.stat().st_size > _MOST_BYTES:
      return '\n'.join(_parts(local))
    return local.read_text(encoding='utf-8-sig')
  except (FileNotFoundError, IsADirectoryError) as error:
    raise UserError(
        f'expected a text file to calibrate with, but {path} is not one; check'
        ' --calibration_data'
    ) from error
  except UnicodeDecodeError as error:
    raise UserError(
        f'expected UTF-8 text in {path}, got other bytes about {error.start};'
        ' convert it first'
    ) from error


def _parts(path: pathlib.Path) -> Iterator[str]:
  """Yields parts of a file, from a white space to another where it has some."""
  size = _MOST_BYTES // _NUM_PARTS
  with path.open('rb') as file:
    for start in np.linspace(0, path.stat().st_size - size, _NUM_PARTS):
      file.seek(int(start))
      part = file.read(size)
      spaces = [space.start() for space in re.finditer(rb'\s', part)]
      if len(spaces) > 1:
        part = part[spaces[0] : spaces[-1]]
      else:
        part = _HALVES.sub(b'', part)
      try:
        yield part.decode('utf-8-sig').strip()
      except UnicodeDecodeError as error:
        error.start += file.tell() - size
        raise
