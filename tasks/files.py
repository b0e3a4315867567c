# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tasks from a user's own files: JSON lines, TSV or text, named in gin.

    from __gin__ import dynamic_registration
    from gqa_t5x.tasks import files

    MIXTURE_OR_TASK_NAME = @files.file_task()
    files.file_task:
      name = 'my_summaries'
      kind = 'summarization'
      files = {'train': 'train.jsonl', 'validation': 'dev.jsonl'}
      fields = {'document': 'article', 'summary': 'abstract'}

All files are read and checked before anything else happens.
"""

from collections.abc import Iterator, Mapping
import contextlib
import gzip
import importlib.util
import json
import os
import pathlib
from typing import IO
import zlib

import gin

from gqa_t5x import errors
from gqa_t5x import storage
from gqa_t5x.tasks import common

# What each kind needs, last what the model is to write; the names in the file
# may be others.
FIELDS = {
    'summarization': ('document', 'summary'),
    'translation': ('source', 'target'),
    'question_answering': ('question', 'context', 'answers'),
    'span_corruption': ('text',),
}
_SPLITS = ('train', 'validation', 'test')
# Names given to tasks here, which may be given again with other arguments.
_registered = set()


@gin.configurable
def file_task(
    name: str,
    kind: str,
    files: Mapping[str, str],
    fields: Mapping[str, str] | None = None,
    source_language: str = 'English',
    target_language: str = 'German',
) -> str:
  """Registers a seqio task that reads the user's files; returns its name.

  Where seqio is not installed it only returns the name, by which what was
  cached of the task is found.

  Args:
    name: the task's name in seqio.
    kind: 'summarization', 'translation', 'question_answering', or
      'span_corruption', T5's pre-training, to pre-train or uptrain with.
    files: path of each split; 'train', 'validation' and 'test' are known. A
      file is JSON lines (.jsonl, .json: an object a line), TSV (.tsv: the
      first line names the columns) or, to span corruption, plain text (.txt:
      each line is its field "text"), in UTF-8, or one of these with .gz. What
      the model is to write may be missing from 'test', and is taken to be
      missing from all its lines if it is from the first: `infer` needs none.
    fields: names in the files of the kind's fields (`FIELDS`), where they
      differ. "answers" may be one text or, in JSON, a list of texts, of which
      the first is trained on and all count in evaluation.
    source_language: as the prompt of a translation names it.
    target_language: likewise.

  Raises:
    UserError: where an argument or a line of a file is wrong.
  """
  if kind not in FIELDS:
    raise errors.UserError(
        f'expected kind to be one of {", ".join(FIELDS)}, got {kind!r}'
    )
  if importlib.util.find_spec('seqio') is None:
    return name
  import seqio
  known = seqio.TaskRegistry.names() | seqio.MixtureRegistry.names()
  if name in known and name not in _registered:
    raise errors.UserError(
        f'expected a new task name, but {name!r} exists; choose another name'
    )
  names = _field_names(kind, fields or {})
  if not files or not set(files) <= set(_SPLITS):
    raise errors.UserError(
        f'expected files for some of the splits {", ".join(_SPLITS)}, got '
        f'{sorted(files)}; write files = {{"train": PATH, ...}}'
    )
  target = FIELDS[kind][-1]
  optional = {} if kind == 'span_corruption' else {'test': target}
  rows = {
      split: read_rows(path, names, optional=optional.get(split))
      for split, path in files.items()
  }
  unlabeled = [split for split in rows if target not in rows[split][0]]
  for split in unlabeled:
    for row in rows[split]:
      row[target] = [''] if target == 'answers' else ''
  if name in _registered:
    seqio.TaskRegistry.remove(name)
  _add_task(name, kind, rows, unlabeled, source_language, target_language)
  _registered.add(name)
  return name


def read_rows(
    path: str | os.PathLike,
    names: Mapping[str, str],
    *,
    allow_blank: bool = False,
    optional: str | None = None,
) -> list[dict]:
  """Reads the named fields of a JSON lines, TSV or text file.

  Args:
    path: the file; what ends with .gz is unpacked.
    names: {our field: its name in the file}.
    allow_blank: whether a text may be without a letter.
    optional: one of our fields; if the first line has it not, none is read.

  Returns:
    For each line {our field: text}; "answers" is a list of texts.

  Raises:
    UserError: with the line number, where the file is not as expected.
  """
  readers = {
      '.jsonl': _json_lines,
      '.json': _json_lines,
      '.tsv': _tsv_lines,
      '.txt': _text_lines,
  }
  path = str(path)
  kind = pathlib.Path(path.lower().removesuffix('.gz')).suffix
  if kind not in readers:
    raise errors.UserError(
        f'expected a .jsonl, .tsv or .txt file, got {path!r}; rename or convert'
        ' it'
    )
  rows = []
  with open_text(path) as lines:
    for number, record in readers[kind](path, lines):
      if not rows and optional and names[optional] not in record:
        names = {ours: name for ours, name in names.items() if ours != optional}
      rows.append(_pick(f'{path} line {number}', record, names, allow_blank))
  if not rows:
    raise errors.UserError(
        f'expected at least one example, got none: {path!r} is empty'
    )
  return rows


@contextlib.contextmanager
def open_text(path: str | os.PathLike) -> Iterator[IO[str]]:
  """Opens a text file in UTF-8, one of gzip if its name ends with .gz.

  Raises:
    UserError: if it cannot be read; inside, where what is read is damaged.
  """
  local = storage.local_path(path)
  opener = gzip.open if local.suffix.lower() == '.gz' else open
  try:
    with opener(local, 'rt', encoding='utf-8-sig', newline='\n') as lines:
      yield lines
  except FileNotFoundError:
    raise errors.UserError(
        f'expected a file to read, found no {str(path)!r}; check the path'
    ) from None
  except UnicodeDecodeError:
    with opener(local, 'rb') as lines:
      number = next(n for n, line in enumerate(lines, 1) if not _is_utf8(line))
    raise errors.UserError(
        f'expected UTF-8 text, got other bytes in line {number} of'
        f' {str(path)!r}; convert the file to UTF-8'
    ) from None
  except (OSError, EOFError, zlib.error) as error:
    what = getattr(error, 'strerror', None) or error
    raise errors.UserError(
        f'expected a readable file, got "{what}" for {str(path)!r}; check the'
        ' path and its permissions, or copy the file again'
    ) from None


def _is_utf8(line: bytes) -> bool:
  try:
    line.decode()
  except UnicodeDecodeError:
    return False
  return True


def _field_names(kind, fields) -> dict[str, str]:
  if unknown := sorted(set(fields) - set(FIELDS[kind])):
    raise errors.UserError(
        f'expected fields {", ".join(FIELDS[kind])} for {kind}, got '
        f'{", ".join(unknown)}; write fields = {{OURS: NAME IN THE FILE}}'
    )
  return {field: fields.get(field, field) for field in FIELDS[kind]}


def _json_lines(path, lines) -> Iterator[tuple[int, dict]]:
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except json.JSONDecodeError as error:
      raise errors.UserError(
          f'expected a JSON object on each line, got {error.msg.lower()} at '
          f'column {error.colno} of {path} line {number}; correct the line'
      ) from None
    if not isinstance(record, dict):
      raise errors.UserError(
          'expected a JSON object on each line, got a '
          f'{type(record).__name__} at {path} line {number}; write '
          '{"field": "text", ...}'
      )
    yield number, record


def _tsv_lines(path, lines) -> Iterator[tuple[int, dict]]:
  header = None
  for number, line in enumerate(lines, start=1):
    line = line.rstrip('\r\n')
    # Where there is one column it is a row, whose cell is empty.
    if not line and len(header or ()) != 1:
      continue
    cells = line.split('\t')
    for cell in cells:
      if cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1]:
        raise errors.UserError(
            f'expected cells as they are, got one quoted as in CSV, {cell[:40]}'
            f' at {path} line {number}; write it plain, or JSON lines'
        )
    if header is None:
      header = cells
    elif len(cells) != len(header):
      raise errors.UserError(
          f'expected {len(header)} columns as in the first line, got '
          f'{len(cells)} at {path} line {number}; correct the line'
      )
    else:
      yield number, dict(zip(header, cells))


def _text_lines(path, lines) -> Iterator[tuple[int, dict]]:
  del path
  for number, line in enumerate(lines, start=1):
    if line.strip():
      yield number, {'text': line.strip()}


def _pick(place, record, names, allow_blank) -> dict:
  """Takes the wanted fields of one record and checks that they are text."""
  row = {}
  for field, name in names.items():
    if name not in record:
      raise errors.UserError(
          f'expected the field {name!r}, got {", ".join(map(repr, record))} '
          f'at {place}; correct the line or set fields'
      )
    value = record[name]
    values = [value] if isinstance(value, str) else value
    allowed = isinstance(value, str) or field == 'answers'
    if not (
        allowed
        and isinstance(values, list)
        and values
        and all(isinstance(v, str) for v in values)
        and (allow_blank or all(v.strip() for v in values))
    ):
      raise errors.UserError(
          f'expected text in the field {name!r}, got '
          f'{json.dumps(value)[:40]} at {place}; correct the line'
      )
    try:
      ''.join(values).encode()
    except UnicodeEncodeError as error:
      raise errors.UserError(
          f'expected text in the field {name!r}, got half of a character, '
          f'{error.object[error.start]!a}, at {place}; correct the line'
      ) from None
    row[field] = values if field == 'answers' else value
  return row


def _add_task(
    name, kind, rows, unlabeled, source_language, target_language
) -> None:
  import seqio
  from gqa_t5x.tasks import pretraining
  from gqa_t5x.tasks import question_answering
  from gqa_t5x.tasks import summarization
  from gqa_t5x.tasks import translation
  source = common.rows_source(
      rows.__getitem__,
      FIELDS[kind],
      tuple(rows),
      made_by=(kind, source_language, target_language),
      unlabeled=unlabeled,
  )
  if kind == 'span_corruption':
    recipe = pretraining.recipe('text')
  elif kind == 'summarization':
    # Blank rows were refused, and those without a target are to be kept.
    recipe = summarization.recipe(
        summarization.text_preprocessor('document', 'summary'),
        drops_blank=False,
    )
  elif kind == 'translation':
    recipe = translation.recipe(
        translation.text_preprocessor(
            'source', 'target', source_language, target_language
        )
    )
  else:
    recipe = question_answering.recipe(
        question_answering.text_preprocessor('question', 'context', 'answers')
    )
  seqio.TaskRegistry.add(
      name,
      source=source,
      output_features=common.output_features(),
      **recipe,
  )
