# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers tasks on public datasets that lie in a folder as JSON lines.

The environment variable GQA_T5X_DATA_DIR names the folder. It holds, for each
dataset and split, `<name>.<split>.jsonl` or `<name>.<split>.jsonl.gz`, a JSON
object a line:

  multi30k     en, de: texts
  aeslc        document, summary: the body of an e-mail and its subject
  sumpubmed    document, summary: an article and its abstract
  fairytaleqa  question, context: texts; answers: a list of texts

Other fields are not read. The vocabulary is the one that ships;
`default_vocabulary.path` in gin chooses another. Any other data of such kinds:
see `files`.
"""

import functools
import gzip
import json
import os
import pathlib

from gqa_t5x import errors
from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics
from gqa_t5x.tasks import question_answering
from gqa_t5x.tasks import summarization
from gqa_t5x.tasks import translation

DATA_DIR = 'GQA_T5X_DATA_DIR'
# The only field whose value is a list of texts.
_LIST_FIELD = 'answers'


def _source(name, fields, splits=('train', 'validation', 'test')):
  return common.rows_source(
      lambda split: _read(_find(name, split), fields), fields, splits
  )


def _find(name: str, split: str) -> pathlib.Path:
  """Returns the path of a dataset's split.

  Raises:
    UserError: where there is no such file.
  """
  wanted = f'{name}.{split}.jsonl'
  folder = os.environ.get(DATA_DIR)
  if not folder:
    raise errors.UserError(
        f'expected the folder of {wanted}[.gz] in {DATA_DIR}, which is not '
        f'set; run: export {DATA_DIR}=FOLDER'
    )
  paths = [pathlib.Path(folder, wanted + end) for end in ('', '.gz')]
  for path in paths:
    if path.is_file():
      return path
  raise errors.UserError(
      f'expected the {split} split of {name}, found neither {paths[0]} nor '
      f'{paths[1].name}; put it there, or run: export {DATA_DIR}=FOLDER'
  )


# The two calls for one split, for its hash and for its rows, follow each other.
@functools.lru_cache(maxsize=1)
def _read(path: pathlib.Path, fields: tuple[str, ...]) -> list[dict]:
  """Reads these fields of all rows.

  Raises:
    UserError: with the line number, where the file is not as expected.
  """
  rows = []
  try:
    with _open(path) as lines:
      for number, line in enumerate(lines, start=1):
        if line.strip():
          rows.append(_row(f'{path} line {number}', line, fields))
  except (OSError, EOFError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f'expected JSON lines in UTF-8, got "{error}" in {path}; copy the file '
        'again'
    ) from None
  if not rows:
    raise errors.UserError(
        f'expected at least one row, got none: {path} is empty; copy it again'
    )
  return rows


def _open(path):
  if path.suffix == '.gz':
    return gzip.open(path, 'rt', encoding='utf-8')
  return open(path, encoding='utf-8')


def _row(place, line, fields) -> dict:
  """Takes the wanted fields of one line and checks their types."""
  try:
    record = json.loads(line)
  except json.JSONDecodeError as error:
    raise errors.UserError(
        f'expected a JSON object, got {error.msg.lower()} at column '
        f'{error.colno} of {place}; correct the line'
    ) from None
  row = {}
  for field in fields:
    value = record.get(field) if isinstance(record, dict) else None
    texts = value if field == _LIST_FIELD else [value]
    if not (
        isinstance(texts, list)
        and texts
        and all(isinstance(text, str) for text in texts)
    ):
      kind = 'a list of texts' if field == _LIST_FIELD else 'a text'
      raise errors.UserError(
          f'expected {kind} in the field {field!r}, got '
          f'{json.dumps(value)[:40]} at {place}; correct the line'
      )
    row[field] = value
  return row


def _register() -> None:
  common.add_task(
      'gqa_multi30k',
      common.default_vocabulary,
      source=_source('multi30k', ('en', 'de')),
      preprocessors=[
          translation.text_preprocessor('en', 'de', 'English', 'German'),
          *common.token_preprocessors(),
      ],
      metric_fns=translation.METRICS,
  )
  for name, splits in (
      ('aeslc', ('train', 'validation', 'test')),
      ('sumpubmed', ('train', 'validation')),
  ):
    common.add_task(
        f'gqa_{name}',
        common.default_vocabulary,
        source=_source(name, ('document', 'summary'), splits),
        preprocessors=[
            summarization.text_preprocessor('document', 'summary'),
            summarization.drop_blank,
            *common.token_preprocessors(),
        ],
        metric_fns=summarization.METRICS,
    )
  common.add_task(
      'gqa_fairytaleqa',
      common.default_vocabulary,
      source=_source('fairytaleqa', ('question', 'context', _LIST_FIELD)),
      preprocessors=[
          question_answering.text_preprocessor(
              'question', 'context', _LIST_FIELD
          ),
          *common.token_preprocessors(),
      ],
      postprocess_fn=question_answering.all_answers,
      # Most answers are not spans of the page, hence ROUGE-L as well.
      metric_fns=[*question_answering.METRICS, metrics.rouge_l],
  )


_register()
