# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the rows of the embedded tasks, splits them and caches them.

The split follows a hash of the module that a text stands in, since docstrings
of one module repeat each other; for translation it follows a hash of the
German text. A text that two splits share is dropped from training; a near twin,
as jax.numpy's and NumPy's descriptions of a function are, is not.
"""

from collections.abc import Iterable
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import random
import sys

from gqa_t5x import cache_folder
from gqa_t5x import storage
from gqa_t5x.errors import UserError
from gqa_t5x.tasks import cldr
from gqa_t5x.tasks import common
from gqa_t5x.tasks import documentation

SPLITS = ('train', 'validation', 'test')
KINDS = ('documents', 'summarize', 'translate', 'question_answering')
# Kept of validation and of test, by hash: enough for a stable score.
MAX_EVALUATION_ROWS = 1000
# Counts up whenever the rows made from the same text change, or what is kept
# with them.
_FORMAT = 5

# Of a row: where its text stands. The corpus's hash and order leave it out.
_MODULE = 'module'

_BODY_WORDS = (20, 90)
_SUMMARY_WORDS = (3, 20)
_ANSWER_WORDS = (2, 16)
# Nearly every page fits into 256 tokens with its question.
_PAGE_CHARACTERS = 660


def corpus_folder() -> pathlib.Path:
  """Returns the folder of this machine's corpus, made at the first call.

  Takes about 15 s on two cores; later calls find it in the cache folder. It is
  written beside and renamed, so that it is whole or absent.
  """
  versions = _package_versions()
  key = hashlib.sha256(
      json.dumps([_FORMAT, versions], sort_keys=True).encode()
  ).hexdigest()[:12]
  folder = cache_folder.cache_folder() / f'corpus-{key}'
  with storage.made_once(folder) as beside:
    if beside is not None:
      print('Reading the installed documentation, once (about 15 s) ...',
            file=sys.stderr)  # pyformat: disable
      _write_corpus(beside, versions)
  return folder


def corpus_fingerprint() -> dict:
  """Returns what identifies the corpus, to be stored with every result.

  Returns:
    {'sha256': of all rows, 'counts': {kind: {split: rows}}, 'packages':
    {name: version}, 'python': version}.
  """
  return json.loads((corpus_folder() / 'meta.json').read_text())


@functools.cache
def rows(kind: str, split: str) -> tuple[dict, ...]:
  """Returns the rows of one kind and split, in their fixed shuffled order."""
  if split not in SPLITS:
    raise UserError(
        f'expected one of the splits {", ".join(SPLITS)} of {kind}, got'
        f' {split!r}; parts of splits cannot be named'
    )
  path = corpus_folder() / f'{kind}.{split}.jsonl'
  with path.open(encoding='utf-8') as lines:
    return tuple(json.loads(line) for line in lines)


def modules(kind: str, split: str) -> list[str]:
  """Returns the module that each row's text stands in, as `rows` has them."""
  return [row[_MODULE] for row in rows(kind, split)]


def stable_hash(text: str) -> int:
  """Returns 64 bits that depend on nothing but the text."""
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')


def split_of(source: str) -> str:
  """Returns the split of a source: 96 % train, 2 % each of the others."""
  point = stable_hash('split ' + source) % 100
  return SPLITS[1] if point < 2 else SPLITS[2] if point < 4 else SPLITS[0]


def normalized(text: str) -> str:
  """The form in which two texts count as the same."""
  return ' '.join(text.lower().split()).rstrip('.')


def make_rows(
    documented: Iterable[
        tuple[documentation.Docstring, documentation.ParsedDocstring]
    ],
) -> dict[str, dict[str, list[dict]]]:
  """Makes the rows of every documentation task, {kind: {split: rows}}.

  Evaluation splits are filled first: what repeats one of their texts is then
  dropped from training.
  """
  by_split = {split: [] for split in SPLITS}
  for docstring, parsed in documented:
    by_split[split_of(docstring.module)].append((docstring, parsed))
  seen = {'paragraph': set(), 'summary': set(), 'description': set()}
  made = {kind: {} for kind in KINDS if kind != 'translate'}
  for split in ('test', 'validation', 'train'):
    items = by_split[split]
    made['documents'][split] = _documents(items, seen['paragraph'])
    made['summarize'][split] = _summaries(items, seen['summary'])
    made['question_answering'][split] = _questions(
        items, seen['description'], vary_pages=split == 'train'
    )
  return made


def make_translations() -> dict[str, list[dict]]:
  """Makes {split: rows} of English-German pairs, split by the German text."""
  made = {split: [] for split in SPLITS}
  for kind, english, german in cldr.translation_pairs():
    split = split_of(german)
    if split == 'train' or kind not in cldr.TRAIN_ONLY:
      made[split].append({
          'inputs': common.translation_input(english),
          'targets': german,
      })
  return made


def _documents(items, seen) -> list[dict]:
  """Running text: the paragraphs of a docstring that did not occur before."""
  made = []
  for _, parsed in items:
    paragraphs = [parsed.summary, *parsed.prose]
    paragraphs += [f'{name}: {text}' for name, text in parsed.arguments]
    fresh = [p for p in paragraphs if p and _is_new(p, seen)]
    if sum(len(p.split()) for p in fresh) >= 8:
      made.append({'text': ' '.join(fresh)})
  return made


def _summaries(items, seen) -> list[dict]:
  """Docstring bodies of functions and their summary; neither occurs twice.

  Not those of classes and methods: for these no small model beats their name.
  """
  made = []
  for docstring, parsed in items:
    if docstring.kind != 'function':
      continue
    sentences = [s for p in parsed.prose for s in documentation.sentences(p)]
    sentences += [f'{name}: {text}' for name, text in parsed.arguments]
    body = _up_to_words(sentences, _BODY_WORDS[1])
    if not (
        _has_words(parsed.summary, _SUMMARY_WORDS)
        and _has_words(body, _BODY_WORDS)
        and documentation.word_fraction(parsed.summary) >= 0.7
    ):
      continue
    new_body, new_summary = _is_new(body, seen), _is_new(parsed.summary, seen)
    if new_body and new_summary:
      words = documentation.name_words(docstring.name)
      place = documentation.name_words(' '.join(
          part for part in docstring.module.split('.')
          if not part.startswith('_') and part not in ('src', 'python')
      ))  # pyformat: disable
      head = f'function {words} of {place}'
      if docstring.arguments:
        head += ' with ' + ', '.join(docstring.arguments[:8])
      made.append({
          'inputs': common.summarization_input(f'{head}. {body}'),
          'targets': parsed.summary,
          'name': words,
          _MODULE: docstring.module,
      })
  return made


def _questions(items, seen, vary_pages: bool) -> list[dict]:
  """Pages of argument descriptions of one module; each is asked for once.

  With `vary_pages` their lengths vary, from a single entry to the longest: a
  small model learns to copy an answer from short pages first, and to find it
  on long ones then.
  """
  modules = {}
  for docstring, parsed in items:
    function = documentation.name_words(docstring.name)
    if docstring.name.startswith('__') or not function:
      continue
    for name, text in parsed.arguments:
      first = documentation.sentences(text)[0].rstrip('.')
      if _has_words(first, _ANSWER_WORDS) and _is_new(
          f'{name} {first}', seen
      ):
        entries = modules.setdefault(docstring.module, {})
        entries.setdefault(f'{name} of {function}', first)
  made = []
  for module, entries in modules.items():
    entries = list(entries.items())
    if len(entries) < 4:
      continue
    for i, (key, answer) in enumerate(entries):
      rng = random.Random(stable_hash(f'{module} {i}'))
      size = rng.randrange(_PAGE_CHARACTERS) if vary_pages else _PAGE_CHARACTERS
      page = _page(entries, i, size, rng)
      made.append({
          'inputs': common.question_input(f'what is {key}?', page),
          'targets': answer,
          'answers': [answer],
          _MODULE: module,
      })
  return made


def _page(entries, asked, max_size, rng) -> str:
  """Fills a page with entry `asked` and others of its module, shuffled."""
  others = [e for i, e in enumerate(entries) if i != asked]
  rng.shuffle(others)
  lines, size = [], 0
  for key, text in [entries[asked], *others]:
    size += len(key) + len(text) + 4
    if lines and size > max_size:
      break
    lines.append(f'{key}: {text}.')
  rng.shuffle(lines)
  return ' '.join(lines)


def _is_new(text, seen) -> bool:
  text = normalized(text)
  if text in seen:
    return False
  seen.add(text)
  return True


def _has_words(text, limits) -> bool:
  return limits[0] <= len(text.split()) <= limits[1]


def _up_to_words(sentences, limit) -> str:
  """Joins sentences while they fit into `limit` words."""
  kept, count = [], 0
  for sentence in sentences:
    count += len(sentence.split())
    if count > limit:
      break
    kept.append(sentence)
  return ' '.join(kept)


@functools.cache
def _package_versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that are read."""
  distributions = importlib.metadata.packages_distributions()
  versions = {'python': '.'.join(map(str, sys.version_info[:3]))}
  for package in documentation.PACKAGES:
    for name in sorted(set(distributions.get(package, ()))):
      versions[name] = importlib.metadata.version(name)
  return versions


def _line(row: dict) -> str:
  return json.dumps(row, ensure_ascii=False, sort_keys=True) + '\n'


def _text(row: dict) -> str:
  """What a model sees of a row, or is scored on, as a line."""
  return _line({k: v for k, v in row.items() if k != _MODULE})


def _write_corpus(folder: pathlib.Path, versions) -> None:
  made = make_rows(documentation.read_all())
  made['translate'] = make_translations()
  digest = hashlib.sha256()
  counts = {kind: {} for kind in KINDS}
  for kind in KINDS:
    for split in SPLITS:
      # A shuffle that every machine repeats.
      ordered = sorted(made[kind][split], key=lambda r: stable_hash(_text(r)))
      if split != 'train':
        ordered = ordered[:MAX_EVALUATION_ROWS]
      digest.update(''.join(map(_text, ordered)).encode())
      counts[kind][split] = len(ordered)
      lines = ''.join(map(_line, ordered)).encode()
      (folder / f'{kind}.{split}.jsonl').write_bytes(lines)
  versions = dict(versions)
  meta = {
      'sha256': digest.hexdigest(),
      'counts': counts,
      'python': versions.pop('python'),
      'packages': versions,
  }
  (folder / 'meta.json').write_text(json.dumps(meta, indent=2))
