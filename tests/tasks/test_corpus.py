# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows and splits, on docstrings written here and on babel's CLDR."""

import collections
import hashlib
import itertools
import json

import pytest

from gqa_t5x.tasks import corpus
from gqa_t5x.tasks import documentation

TEMPLATE = '''Computes thing {i} of the {module} package.

This running text explains how thing {i} is computed in {module} from others.

A sentence which every module repeats word for word.

Args:
  first: The first input of thing {i} in {module}.
  second: The second input of thing {i} in {module}.
  name: A name for the operation (optional).
'''


def _docstrings(modules=300, things=4):
  for m, i in itertools.product(range(modules), range(things)):
    module = f'pkg.module{m}'
    docstring = documentation.Docstring(
        module, 'function', f'thing_{i}', ('first', 'second', 'name'),
        TEMPLATE.format(i=i, module=module),
    )  # pyformat: disable
    yield docstring, documentation.take_apart(docstring.text)


@pytest.fixture(scope='module', name='made')
def _made():
  return corpus.make_rows(_docstrings())


def test_split_does_not_depend_on_the_run():
  # Worked out once with sha256: a change would leak validation into training.
  names = ['numpy.linalg._linalg', 'jax._src.nn.functions', 'json.decoder']
  assert [corpus.stable_hash(n) % 100 for n in names] == [49, 85, 41]
  shares = collections.Counter(corpus.split_of(f's{i}') for i in range(5000))
  assert 4700 < shares['train'] < 4900
  assert 60 < shares['validation'] < 140 and 60 < shares['test'] < 140


def test_no_module_and_no_text_in_two_splits(made):
  for kind, fields in (
      ('documents', ['text']),
      ('summarize', ['inputs', 'targets']),
      ('question_answering', ['inputs']),
  ):
    for field in fields:
      seen = collections.Counter()
      for rows in made[kind].values():
        assert rows
        seen.update({corpus.normalized(row[field]) for row in rows})
      assert max(seen.values()) == 1
  texts = [
      {p for row in made['documents'][split] for p in row['text'].split('. ')}
      for split in corpus.SPLITS
  ]
  assert not texts[0] & texts[1] and not texts[0] & texts[2]


def test_summarize_row(made):
  rows = [row for rows in made['summarize'].values() for row in rows]
  (row,) = [r for r in rows if 'thing 2 of the pkg.module7 ' in r['targets']]
  assert row['inputs'] == (
      'summarize: function thing 2 of pkg module 7 with first, second, name. '
      'This running text explains how thing 2 is computed in pkg.module7 from '
      'others. A sentence which every module repeats word for word. '
      'first: The first input of thing 2 in pkg.module7. '
      'second: The second input of thing 2 in pkg.module7. '
      'name: A name for the operation (optional).'
  )
  assert row['targets'] == 'Computes thing 2 of the pkg.module7 package.'
  assert row['name'] == 'thing 2'


def test_question_has_its_answer_in_the_page_once(made):
  for split, rows in made['question_answering'].items():
    for row in rows:
      question, _, page = row['inputs'].partition(' context: ')
      key = question.removeprefix('question: what is ').rstrip('?')
      assert page.count(f'{key}: {row["targets"]}. ') + page.endswith(
          f'{key}: {row["targets"]}.'
      ) == 1
      assert row['answers'] == [row['targets']]
      assert len(page) <= 660
      # Only pages to train on are of all lengths.
      assert page.count(' of thing ') >= (1 if split == 'train' else 4)


def test_rows_know_their_module(made):
  for kind in ('summarize', 'question_answering'):
    for row in made[kind]['train']:
      assert row['module'].removeprefix('pkg.module') in row['inputs']
  modules = {row['module'] for row in made['summarize']['test']}
  assert {corpus.split_of(module) for module in modules} == {'test'}


def test_hash_and_order_are_of_what_a_model_sees(tmp_path, monkeypatch, made):
  monkeypatch.setattr(corpus, 'make_rows', lambda _: dict(made))
  monkeypatch.setattr(corpus, 'make_translations', lambda: {
      split: [] for split in corpus.SPLITS})
  corpus._write_corpus(tmp_path, {'python': '3'})
  digest = hashlib.sha256()
  for kind in corpus.KINDS:
    for split in corpus.SPLITS:
      lines = []
      for line in (tmp_path / f'{kind}.{split}.jsonl').open(encoding='utf-8'):
        row = json.loads(line)
        assert bool(row.pop('module', '')) == (
            kind in ('summarize', 'question_answering'))
        text = json.dumps(row, ensure_ascii=False, sort_keys=True) + '\n'
        lines.append(text.encode())
      hashes = [hashlib.sha256(line).digest()[:8] for line in lines]
      assert hashes == sorted(hashes)
      digest.update(b''.join(lines))
  meta = json.loads((tmp_path / 'meta.json').read_text())
  assert meta['sha256'] == digest.hexdigest()


def test_rows_are_the_same_on_every_run(made):
  assert made == corpus.make_rows(_docstrings())


def test_translations(monkeypatch):
  pytest.importorskip('babel')
  from gqa_t5x.tasks import cldr
  monkeypatch.setattr(
      cldr, 'PAIRS_PER_KIND', {kind: 150 for kind in cldr.PAIRS_PER_KIND}
  )
  rows = corpus.make_translations()
  targets = {s: {row['targets'] for row in rows[s]} for s in corpus.SPLITS}
  assert not targets['train'] & targets['validation']
  assert not targets['train'] & targets['test']
  assert not targets['validation'] & targets['test']
  inputs = [row['inputs'] for split in rows.values() for row in split]
  assert len(inputs) == len(set(inputs)) > 1500
  assert rows == corpus.make_translations()
  kinds = collections.Counter(kind for kind, _, _ in cldr.translation_pairs())
  assert set(kinds) == set(cldr.PAIRS_PER_KIND)


def test_a_pair_of_each_language():
  pytest.importorskip('babel')
  from babel import dates, units
  import datetime
  from gqa_t5x.tasks import cldr
  day = datetime.date(1990, 3, 5)
  assert cldr._both(dates.format_date, day, format='full') == (
      'Monday, March 5, 1990', 'Montag, 5. März 1990'
  )  # pyformat: disable
  assert cldr._both(units.format_unit, 1234.5, 'length-meter') == (
      '1,234.5 meters', '1.234,5 Meter'
  )  # pyformat: disable


def test_cache_is_whole_or_absent(tmp_path, monkeypatch):
  monkeypatch.setenv('GQA_T5X_CACHE_DIR', str(tmp_path))

  def broken(folder, versions):
    (folder / 'documents.train.jsonl').write_text('half')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(corpus, '_write_corpus', broken)
  with pytest.raises(OSError, match='No space'):
    corpus.corpus_folder()
  (lock,) = tmp_path.iterdir()
  assert lock.name.endswith('.lock')

  # What a kill leaves, which no handler clears away, is no part of the next.
  beside = tmp_path / lock.name.replace('.lock', '.part')
  beside.mkdir()
  (beside / 'documents.train.jsonl').write_text('half')
  monkeypatch.setattr(
      corpus, '_write_corpus',
      lambda folder, versions: (folder / 'meta.json').write_text('{}'),
  )  # pyformat: disable
  made = corpus.corpus_folder()
  assert [path.name for path in made.iterdir()] == ['meta.json']
  assert sorted(tmp_path.iterdir()) == sorted([lock, made])
