# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text in, text out, a line at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import itertools
import sys

from flax import traverse_util
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import decoding
from gqa_t5x import pretrained
from gqa_t5x import sizes
from gqa_t5x import storage
from gqa_t5x import vocabularies
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer


def line_generator(
    checkpoint: str | None,
    vocabulary: str | None,
    *,
    max_decode_len: int,
    dtype: str | None = None,
    method: str = 'greedy',
    **options,
) -> Callable[[Iterable[str], int], Iterator[str]]:
  """Loads a model and returns the function that answers lines.

  Args:
    checkpoint: of any known format; None is the one that ships.
    vocabulary: as of `vocabularies.Vocabulary`; None is that of
      `vocabularies.path_for`.
    max_decode_len: longest output, in tokens.
    dtype: what the model computes in; None is that of the checkpoint.
    method: as in `decoding.generate`, like the options.
    **options: of the method.

  Returns:
    f(lines, batch_size) -> an iterator of as many output lines. An empty line
    gives an empty line.

  Raises:
    UserError: if the checkpoint or the vocabulary cannot be read, they do not
      belong together, or an option is out of its range.
  """
  if checkpoint is None:
    checkpoint = pretrained.CHECKPOINT_PATH
  # What can be refused is, before the values are read.
  opened = checkpoints.open_checkpoint(checkpoint)
  changes = {} if dtype is None else {'dtype': dtype}
  config = T5Config(**opened.metadata['config'] | changes)
  decoding.check_options(
      config.vocab_size, max_decode_len, method=method, **options
  )
  how = 'pass its SentencePiece model or tokenizer.json with --vocabulary'
  if vocabulary is None:
    vocabulary = vocabularies.path_for(checkpoint, opened.metadata, how=how)
  text = vocabularies.Vocabulary(vocabulary)
  sizes.check_params(
      traverse_util.unflatten_dict(opened.params), config, checkpoint
  )
  vocabularies.check(
      checkpoint,
      opened.metadata,
      size=text.size,
      sha256=text.sha256,
      how=how,
  )
  model = Transformer(config)
  params = decoding.place_params(model, opened.read_params())

  def answer(lines: Sequence[str], first: int) -> list[str]:
    tokens = _padded([text.encode(line) for line in lines])
    outputs = decoding.generate(
        model,
        params,
        tokens,
        max_decode_len=max_decode_len,
        method=method,
        example_ids=first + np.arange(len(lines)),
        **options,
    )
    return [text.decode(row) for row in np.asarray(outputs).tolist()]

  def answer_all(lines: Iterable[str], batch_size: int) -> Iterator[str]:
    lines = iter(lines)
    # Lines count on, so that a sample does not depend on the batches.
    for first in itertools.count(step=batch_size):
      batch = list(itertools.islice(lines, batch_size))
      if not batch:
        return
      # The last of several is filled up, so that it compiles nothing new.
      filling = [''] * (batch_size - len(batch)) if first else []
      yield from answer(batch + filling, first)[: len(batch)]

  return answer_all


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
  """Returns int32 [B, S] with EOS, S the next power of 2, from 16.

  Few lengths, because each compiles anew. A row without tokens stays padding.
  """
  longest = max(len(row) for row in rows) + 1
  tokens = np.zeros((len(rows), max(16, 1 << (longest - 1).bit_length())), int)
  for line, row in zip(tokens, rows):
    if row:
      line[: len(row) + 1] = [*row, decoding.EOS_ID]
  return tokens.astype(np.int32)


def read_lines(path: str | None) -> Iterator[str]:
  """Returns the lines of a UTF-8 file, of standard input if it is None.

  Raises:
    UserError: if the file is missing; when it is read, if a line is not UTF-8.
  """
  try:
    source = (
        contextlib.nullcontext(sys.stdin.buffer)
        if path is None
        else open(storage.local_path(path), 'rb')
    )
  except FileNotFoundError as error:
    raise UserError(
        f'expected a text file, but {path!r} does not exist; check --input'
    ) from error

  def decoded():
    with source as lines:
      for number, line in enumerate(lines, 1):
        try:
          # Some programs write a byte order mark before the first line.
          text = line.decode('utf-8-sig' if number == 1 else 'utf-8')
          yield text.rstrip('\r\n')
        except UnicodeDecodeError as error:
          raise UserError(
              f'{path or "standard input"}, line {number}: expected UTF-8, got'
              f' byte {error.object[error.start]:#04x}; convert the file'
          ) from error

  return decoded()
