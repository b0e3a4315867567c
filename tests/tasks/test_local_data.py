# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""JSON lines in a folder: good files give their text, bad ones one line."""

import gzip
import json

import gin
import pytest

seqio = pytest.importorskip('seqio')

from gqa_t5x import errors
from gqa_t5x import pretrained
from gqa_t5x.tasks import local_data

ROWS = {
    'multi30k': {'en': 'A dog.', 'de': 'Ein Hund – groß.'},
    'aeslc': {'document': 'Hi Al,\n\nsee you at 5.\n', 'summary': 'Meeting'},
    'sumpubmed': {'id': 7, 'document': 'BACKGROUND x <dig>.', 'summary': 'x.'},
    'fairytaleqa': {
        'question': 'Who sang?', 'context': '"La," said\nthe fox.',
        'answers': ['The fox.', 'a fox'], 'story': 'fox',
    },
}  # pyformat: disable
TEXTS = {
    'multi30k': ('translate English to German: A dog.', 'Ein Hund – groß.'),
    'aeslc': ('summarize: Hi Al, see you at 5.', 'Meeting'),
    'sumpubmed': ('summarize: BACKGROUND x <dig>.', 'x.'),
    'fairytaleqa': (
        'question: Who sang? context: "La," said the fox.', 'The fox.'
    ),
}  # pyformat: disable


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path))
  yield
  gin.clear_config()


def _write(path, rows):
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  opener = gzip.open if path.suffix == '.gz' else open
  with opener(path, 'wt', encoding='utf-8') as f:
    f.write(text)


def _examples(name, split='train', lengths=None):
  task = seqio.get_mixture_or_task(f'gqa_{name}')
  dataset = task.get_dataset(lengths, split=split, shuffle=False)
  return task, list(dataset.as_numpy_iterator())


@pytest.mark.parametrize('name', list(ROWS))
@pytest.mark.parametrize('end', ['jsonl', 'jsonl.gz'])
def test_texts(tmp_path, name, end):
  _write(tmp_path / f'{name}.validation.{end}', [ROWS[name]])
  task, (example,) = _examples(name, 'validation')
  for feature, text in zip(('inputs', 'targets'), TEXTS[name]):
    tokens = example[feature].tolist()
    assert tokens[-1] == 1 and 1 not in tokens[:-1]
    assert task.output_features[feature].vocabulary.decode(tokens) == text
  _, (short,) = _examples(name, 'validation', {'inputs': 4, 'targets': 2})
  assert len(short['inputs']) == 4 and short['inputs'][-1] == 1


def test_metrics(tmp_path):
  found = {}
  for name in ROWS:
    task = seqio.get_mixture_or_task(f'gqa_{name}')
    found[name] = sorted(fn.__name__ for fn in task.metric_fns)
  assert found == {
      'multi30k': ['bleu'], 'aeslc': ['rouge'], 'sumpubmed': ['rouge'],
      'fairytaleqa': ['rouge_l', 'trivia_qa'],
  }  # pyformat: disable
  _write(tmp_path / 'fairytaleqa.test.jsonl', [ROWS['fairytaleqa']])
  task, (example,) = _examples('fairytaleqa', 'test')
  answers = task.postprocess_fn('x', example=example, is_target=True)
  assert answers == ['The fox.', 'a fox']
  scores = {}
  for metric in task.metric_fns:
    scores |= metric([answers], ['a red fox'])
  # Without articles "red fox" against "fox"; "a fox" is within "a red fox".
  assert scores == pytest.approx({'em': 0.0, 'f1': 200 / 3, 'rougeL': 80.0})


def test_rows_without_text_are_no_summaries(tmp_path):
  rows = [{'document': ' ', 'summary': 'a'}, {'document': 'b', 'summary': ''}]
  _write(tmp_path / 'aeslc.train.jsonl', rows + [ROWS['aeslc']])
  _, examples = _examples('aeslc')
  assert [e['targets_pretokenized'] for e in examples] == [b'Meeting']


def test_the_folder_is_looked_up_when_it_is_read(tmp_path, monkeypatch):
  for name in ('one', 'two'):
    (tmp_path / name).mkdir()
    row = {'en': name, 'de': name}
    _write(tmp_path / name / 'multi30k.train.jsonl', [row])
    monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path / name))
    _, (example,) = _examples('multi30k')
    assert example['targets_pretokenized'] == name.encode()


def test_gin_chooses_the_vocabulary():
  gin.parse_config(f"""
      from __gin__ import dynamic_registration
      from gqa_t5x.tasks import common
      from gqa_t5x.tasks import local_data
      common.default_vocabulary.path = '{pretrained.VOCABULARY_PATH}'
      common.default_vocabulary.extra_ids = 10
  """)
  features = seqio.get_mixture_or_task('gqa_aeslc').output_features
  assert features['inputs'].vocabulary.vocab_size == 4006


def test_what_is_scored_is_what_the_task_keeps(tmp_path):
  # A blank one, and one that only Python calls blank.
  rows = [{'document': 'x', 'summary': text} for text in (' ', '\xa0')]
  _write(tmp_path / 'aeslc.test.jsonl', [*rows, ROWS['aeslc']])
  _, examples = _examples('aeslc', 'test')
  kept = [e['targets_pretokenized'].decode() for e in examples]
  assert local_data.reference_targets('gqa_aeslc', 'test') == kept
  assert kept == ['\xa0', 'Meeting']
  made = local_data.trivial_predictions('gqa_aeslc', 'test')
  assert made == {'lead': ['x', 'Hi Al, see you at 5.']}


def test_questions_on_one_story_stand_together(tmp_path):
  rows = [ROWS['fairytaleqa'] | {'story': s, 'context': c}
          for s, c in ((0, 'a'), (1, 'b'), (0, 'c'))]
  _write(tmp_path / 'fairytaleqa.test.jsonl', rows)
  assert local_data.clusters('gqa_fairytaleqa', 'test') == ['0', '1', '0']
  del rows[1]['story']  # Then at least those on one page.
  _write(tmp_path / 'fairytaleqa.test.jsonl', rows)
  assert local_data.clusters('gqa_fairytaleqa', 'test') == [
      'page 1', 'page 2', 'page 3'
  ]
  assert local_data.clusters('gqa_multi30k', 'test') is None


def test_changed_files_are_noticed(tmp_path, monkeypatch):
  monkeypatch.setattr(
      local_data.corpus, 'corpus_fingerprint', lambda: {'sha256': 'a'}
  )
  for split in local_data.SPLITS:
    _write(tmp_path / f'aeslc.{split}.jsonl', [ROWS['aeslc']])
  fingerprint = local_data.corpus_fingerprint()
  (tmp_path / 'aeslc.train.jsonl').unlink()  # May have stayed elsewhere.
  assert not local_data.changed(fingerprint)
  _write(tmp_path / 'aeslc.test.jsonl', [ROWS['aeslc']] * 2)
  assert local_data.changed(fingerprint) == ['aeslc.test']
  assert local_data.corpus_fingerprint()['sha256'] != fingerprint['sha256']
  # Files may come later, but for this one, which validation had stood in for.
  _write(tmp_path / 'multi30k.test.jsonl', [ROWS['multi30k']])
  _write(tmp_path / 'sumpubmed.test.jsonl', [ROWS['sumpubmed']])
  assert local_data.changed(fingerprint) == ['aeslc.test', 'sumpubmed.test']
  # And neither may it go, where that would then stand in for it.
  fingerprint = local_data.corpus_fingerprint()
  (tmp_path / 'sumpubmed.test.jsonl').unlink()
  assert not local_data.changed(fingerprint)
  _write(tmp_path / 'sumpubmed.validation.jsonl', [ROWS['sumpubmed']])
  assert local_data.changed(fingerprint) == ['sumpubmed.test']
  _write(tmp_path / 'multi30k.train.jsonl.gz', [ROWS['multi30k']] * 9)
  whole = (tmp_path / 'multi30k.train.jsonl.gz').read_bytes()
  (tmp_path / 'multi30k.train.jsonl.gz').write_bytes(whole[:-12])
  with pytest.raises(errors.UserError, match='multi30k.* copy the file again'):
    local_data.changed(fingerprint)


def test_validation_of_sumpubmed_is_dealt_out(tmp_path):
  texts = ['a', 'b', 'c', 'd', 'e']
  rows = [{'document': text, 'summary': text} for text in texts]
  _write(tmp_path / 'sumpubmed.validation.jsonl', rows)
  found = {
      split: local_data.reference_targets('gqa_sumpubmed', split)
      for split in ('validation', 'test')
  }
  assert found == {'validation': ['a', 'c', 'e'], 'test': ['b', 'd']}
  _write(tmp_path / 'sumpubmed.test.jsonl', rows[:1])
  assert local_data.reference_targets('gqa_sumpubmed', 'test') == ['a']
  assert len(local_data.reference_targets('gqa_sumpubmed', 'validation')) == 5


def test_pretraining_reads_no_text_of_a_test_split(tmp_path, monkeypatch):
  monkeypatch.setattr(
      local_data.corpus, 'rows', lambda kind, split: [{'text': kind}]
  )
  for split in local_data.SPLITS:
    for name, row in (ROWS | {'novels': {'text': 'Call me.'}}).items():
      marked = {
          k: [f'{split} {v[0]}'] if isinstance(v, list) else f'{split} {v}'
          for k, v in row.items()
      }
      _write(tmp_path / f'{name}.{split}.jsonl', [marked])
  train, validation = map(local_data.texts, ('train', 'validation'))
  assert sorted(train) == sorted([
      'documents', 'train A dog.', 'train Ein Hund – groß.',
      'train Hi Al,\n\nsee you at 5.\n', 'train BACKGROUND x <dig>.',
      'train "La," said\nthe fox.', 'train Call me.',
  ])  # pyformat: disable
  assert validation == ['validation Call me.']
  lines = list(local_data.vocabulary_lines())
  assert 'train Who sang?' in lines
  assert not [x for x in lines if x.startswith(('test', 'validation'))]


def _message(name='aeslc', split='train'):
  with pytest.raises(errors.UserError) as caught:
    _examples(name, split)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_missing_data_says_where_and_how(tmp_path, monkeypatch):
  message = _message('multi30k', 'test')
  assert f'found neither {tmp_path}/multi30k.test.jsonl nor' in message
  assert 'multi30k.test.jsonl.gz' in message
  assert 'run: export GQA_T5X_DATA_DIR=FOLDER' in message
  monkeypatch.delenv('GQA_T5X_DATA_DIR')
  message = _message()
  assert 'aeslc.train.jsonl' in message
  assert 'run: export GQA_T5X_DATA_DIR=FOLDER' in message


@pytest.mark.parametrize(
    'name,text,expected',
    [
        ('aeslc', '\n', 'is empty'),
        ('aeslc', '{"document": "a"}', "'summary', got 'document' .* line 1"),
        ('aeslc', '\n[1]', 'got a list at .* line 2'),
        ('aeslc', '{"document": "a", "summary": 3}', "'summary', got 3 at"),
        ('aeslc', '{"document": "a",', 'got expecting .* at column .* line 1'),
        ('fairytaleqa', '{"question": "a", "context": "b", "answers": []}',
         r"text in the field 'answers', got \[\] at"),
        ('fairytaleqa', '{"question": "a", "context": "b", "answers": [3]}',
         r"text in the field 'answers', got \[3\] at"),
    ],
)  # pyformat: disable
def test_bad_lines(tmp_path, name, text, expected):
  path = tmp_path / f'{name}.train.jsonl'
  path.write_text(text)
  assert str(path) in _message(name)
  with pytest.raises(errors.UserError, match=expected):
    _examples(name)


def test_damaged_files(tmp_path):
  path = tmp_path / 'aeslc.train.jsonl.gz'
  _write(path, [ROWS['aeslc']] * 100)
  whole = path.read_bytes()
  for damaged in (whole[:-20], b'no gzip', b''):
    path.write_bytes(damaged)
    local_data._read.cache_clear()
    assert str(path) in _message()
  path.with_suffix('').write_bytes(b'\xff\xfe')
  assert 'UTF-8' in _message()
