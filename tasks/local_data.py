# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers tasks on public datasets that lie in a folder as JSON lines.

The environment variable GQA_T5X_DATA_DIR names the folder. It holds, for each
dataset and split, `<name>.<split>.jsonl` or `<name>.<split>.jsonl.gz`, a JSON
object a line:

  multi30k     en, de: texts
  aeslc        document, summary: the body of an e-mail and its subject
  sumpubmed    document, summary: an article and its abstract
  fairytaleqa  question, context: texts; answers: a list of texts; and, where
               it is known, story: what the context is a part of
  novels       text: some pages; for pre-training

Other fields are not read. Where sumpubmed has no file of its test split, every
other row of its validation file is that. Pre-training, by span corruption,
reads the novels, what the tasks are trained on, and the installed
documentation. The vocabulary is the one that ships; `default_vocabulary.path`
in gin chooses another. Any other data of such kinds: see `files`.

Without seqio nothing is registered, and what is cached can be trained on.
"""

from collections.abc import Iterator, Sequence
import functools
import hashlib
import importlib.util
import json
import os
import pathlib

from gqa_t5x import errors
from gqa_t5x.tasks import common
from gqa_t5x.tasks import corpus
from gqa_t5x.tasks import files
from gqa_t5x.tasks import metrics

DATA_DIR = 'GQA_T5X_DATA_DIR'
SPLITS = ('train', 'validation', 'test')
# The only field whose value is a list of texts.
_LIST_FIELD = 'answers'
FIELDS = {
    'multi30k': ('en', 'de'),
    'aeslc': ('document', 'summary'),
    'sumpubmed': ('document', 'summary'),
    'fairytaleqa': ('question', 'context', _LIST_FIELD),
    'novels': ('text',),
}
# Of each dataset, the fields that pre-training reads.
_TEXTS = {
    'multi30k': ('en', 'de'),
    'aeslc': ('document',),
    'sumpubmed': ('document',),
    'fairytaleqa': ('context',),
    'novels': ('text',),
}
_SPACES = ' \t\n\v\f\r'  # What TensorFlow strips.
# Words of a baseline that learns nothing: the first of the document.
_LEAD_WORDS = {'gqa_aeslc': 10, 'gqa_sumpubmed': 220}


def rows(name: str, split: str) -> Sequence[dict]:
  """Returns the rows of a dataset's split, with the fields of `FIELDS`.

  Raises:
    UserError: where a file is missing, or is not as expected.
  """
  if name == 'sumpubmed' and split != 'train' and not _path(name, 'test'):
    found = _read(_find(name, 'validation'), FIELDS[name])
    return found[SPLITS.index(split) - 1 :: 2]
  return _read(_find(name, split), FIELDS[name])


def texts(split: str) -> list[str]:
  """Returns what pre-training reads, each once, in an order by hash.

  Validation is of novels alone: other books than those of training.
  """
  found = set()
  for name, fields in _TEXTS.items():
    if split == 'train' or name == 'novels':
      for row in rows(name, split):
        found.update(row[field] for field in fields)
  if split == 'train':
    found.update(row['text'] for row in corpus.rows('documents', split))
  return sorted(found, key=lambda x: hashlib.sha256(x.encode()).digest())


def vocabulary_lines() -> Iterator[str]:
  """Yields text to train a vocabulary on, prompts included."""
  from gqa_t5x.tasks import train_vocabulary

  for text in texts('train'):
    yield from train_vocabulary.lines_of(text)
  for name, prompt in (
      ('multi30k', common.translation_input('')),
      ('aeslc', common.summarization_input('')),
      ('fairytaleqa', common.question_input('', '')),
  ):
    yield from [prompt] * (len(rows(name, 'train')) // 10)
  for row in rows('fairytaleqa', 'train'):
    yield row['question']
    yield row[_LIST_FIELD][0]


def reference_targets(task: str, split: str) -> list:
  """Returns the targets that a metric takes, in the order of the split.

  A text each; for question answering a list of answers each.
  """
  name = task.removeprefix('gqa_')
  field = FIELDS[name][-1]
  return [row[field] for row in rows(name, split) if _is_kept(name, row)]


def trivial_predictions(task: str, split: str) -> dict[str, list[str]]:
  """Answers of baselines that learn nothing, in the order of the split.

  Returns:
    {baseline: predictions}: 'copy' is the source text, 'lead' the first words
    of the document, or the first sentence of the context.
  """
  name = task.removeprefix('gqa_')
  kept = [row for row in rows(name, split) if _is_kept(name, row)]
  if name == 'multi30k':
    return {'copy': [row['en'] for row in kept]}
  if name == 'fairytaleqa':
    return {'lead': [row['context'].partition('.')[0] for row in kept]}
  count = _LEAD_WORDS[task]
  return {'lead': [' '.join(row['document'].split()[:count]) for row in kept]}


def clusters(task: str, split: str) -> list[str] | None:
  """Returns what makes rows alike, for each: the story that is asked about.

  Where stories are not known, the context. None where each row stands alone.
  """
  if task != 'gqa_fairytaleqa':
    return None
  with files.open_text(_find('fairytaleqa', split)) as lines:
    stories = [json.loads(x).get('story') for x in lines if x.strip()]
  if None not in stories:
    return list(map(str, stories))
  pages = [row['context'] for row in rows('fairytaleqa', split)]
  numbers = {page: i for i, page in enumerate(dict.fromkeys(pages), 1)}
  return [f'page {numbers[page]}' for page in pages]


def check_present() -> None:
  """Raises UserError if there is nothing to pre-train on."""
  for name in _TEXTS:
    _find(name, 'train')


def corpus_fingerprint() -> dict:
  """Returns what identifies the data, to be stored with every result.

  Returns:
    {'sha256': of all that follows, 'files': {'NAME.SPLIT': SHA-256 of its
    lines}, 'documentation': that of `corpus.corpus_fingerprint`}.
  """
  made_of = {
      'files': _hashes(),
      'documentation': corpus.corpus_fingerprint()['sha256'],
  }
  text = json.dumps(made_of, sort_keys=True)
  return {'sha256': hashlib.sha256(text.encode()).hexdigest(), **made_of}


def changed(fingerprint: dict) -> list[str]:
  """Returns what is in the folder, and is other than the fingerprint's.

  Files that have come since are of other datasets, or of splits that were not
  read; but where sumpubmed's test split is no file, its rows are validation's.
  """
  known, now = fingerprint['files'], _hashes()
  compared = known.keys() & now.keys()
  if now.keys() & {'sumpubmed.test', 'sumpubmed.validation'}:
    compared |= {'sumpubmed.test'}
  return sorted(x for x in compared if known.get(x) != now.get(x))


def _hashes() -> dict[str, str]:
  """SHA-256 of the lines of each file that is there, by 'NAME.SPLIT'."""
  found = {}
  for name in FIELDS:
    for split in SPLITS:
      if path := _path(name, split):
        with files.open_text(path) as lines:
          text = lines.read()
        found[f'{name}.{split}'] = hashlib.sha256(text.encode()).hexdigest()
  return found


def _is_kept(name: str, row: dict) -> bool:
  """Whether the task keeps a row; `summarization.drop_blank` drops others."""
  if FIELDS[name][0] != 'document':
    return True
  return all(row[f].strip(_SPACES) for f in FIELDS[name])


def _source(name):
  return common.rows_source(
      lambda split: rows(name, split), FIELDS[name], SPLITS
  )


def _find(name: str, split: str) -> pathlib.Path:
  """Returns the path of a dataset's split.

  Raises:
    UserError: where there is no such file.
  """
  if path := _path(name, split):
    return path
  wanted = pathlib.Path(os.environ[DATA_DIR], f'{name}.{split}.jsonl')
  raise errors.UserError(
      f'expected the {split} split of {name}, found neither {wanted} nor '
      f'{wanted.name}.gz; put it there, or run: export {DATA_DIR}=FOLDER'
  )


def _path(name: str, split: str) -> pathlib.Path | None:
  """Returns the path of a dataset's split, None where it is not there."""
  wanted = f'{name}.{split}.jsonl'
  folder = os.environ.get(DATA_DIR)
  if not folder:
    raise errors.UserError(
        f'expected the folder of {wanted}[.gz] in {DATA_DIR}, which is not '
        f'set; run: export {DATA_DIR}=FOLDER'
    )
  paths = [pathlib.Path(folder, wanted + end) for end in ('', '.gz')]
  return next((path for path in paths if path.is_file()), None)


# The two calls for one split, for its hash and for its rows, follow each other.
@functools.lru_cache(maxsize=1)
def _read(path: pathlib.Path, fields: tuple[str, ...]) -> list[dict]:
  return files.read_rows(path, {f: f for f in fields}, allow_blank=True)


def _register() -> None:
  from gqa_t5x.tasks import pretraining
  from gqa_t5x.tasks import question_answering
  from gqa_t5x.tasks import summarization
  from gqa_t5x.tasks import translation

  common.add_task(
      'gqa_multi30k',
      common.default_vocabulary,
      source=_source('multi30k'),
      **translation.recipe(
          translation.text_preprocessor('en', 'de', 'English', 'German')
      ),
  )
  for name in ('aeslc', 'sumpubmed'):
    common.add_task(
        f'gqa_{name}',
        common.default_vocabulary,
        source=_source(name),
        **summarization.recipe(
            summarization.text_preprocessor('document', 'summary')
        ),
    )
  answering = question_answering.recipe(
      question_answering.text_preprocessor('question', 'context', _LIST_FIELD)
  )
  # Most answers are not spans of the page.
  answering['metric_fns'].append(metrics.rouge_l)
  common.add_task(
      'gqa_fairytaleqa',
      common.default_vocabulary,
      source=_source('fairytaleqa'),
      **answering,
  )
  common.add_task(
      'gqa_benchmarks_span_corruption',
      common.default_vocabulary,
      source=common.rows_source(
          lambda split: [{'text': text} for text in texts(split)],
          ('text',),
          SPLITS[:2],
      ),
      **pretraining.recipe('text'),
  )


if importlib.util.find_spec('seqio'):
  _register()
