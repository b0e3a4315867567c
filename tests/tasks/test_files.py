# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A user's own files: good ones give the expected text, bad ones one line."""

import gzip
import json
import re

import pytest

seqio = pytest.importorskip('seqio')

from gqa_t5x import errors
from gqa_t5x.engine import cache
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import train_step
from gqa_t5x.tasks import files
from tests.engine import conftest


def _write(folder, name, text):
  path = folder / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def _examples(name, split='train'):
  task = seqio.get_mixture_or_task(name)
  dataset = task.get_dataset(None, split=split, shuffle=False)
  return task, list(dataset.as_numpy_iterator())


def test_summarization_from_json_lines(tmp_path):
  path = _write(
      tmp_path, 'a.jsonl',
      '{"article": "A long text.", "abstract": "Short."}\n\n'
      '{"article": "Another.", "abstract": "Für dich.", "x": 3}\n',
  )  # pyformat: disable
  name = files.file_task(
      'files_test_sum', 'summarization', {'train': path},
      {'document': 'article', 'summary': 'abstract'},
  )  # pyformat: disable
  task, examples = _examples(name)
  vocabulary = task.output_features['inputs'].vocabulary
  texts = [
      (vocabulary.decode(e['inputs'].tolist()),
       vocabulary.decode(e['targets'].tolist()))
      for e in examples
  ]  # pyformat: disable
  assert texts == [
      ('summarize: A long text.', 'Short.'),
      ('summarize: Another.', 'Für dich.'),
  ]
  assert all(e['inputs'][-1] == 1 and e['targets'][-1] == 1 for e in examples)


def test_translation_from_tsv_names_its_languages(tmp_path):
  path = _write(tmp_path, 'a.tsv', 'source\ttarget\nHallo\tBonjour\r\n')
  name = files.file_task(
      'files_test_tr', 'translation', {'validation': path},
      source_language='German', target_language='French',
  )  # pyformat: disable
  _, (example,) = _examples(name, 'validation')
  assert (
      example['inputs_pretokenized'] == b'translate German to French: Hallo'
  )
  assert example['targets_pretokenized'] == b'Bonjour'


def test_a_split_without_a_file_is_named(tmp_path):
  path = _write(tmp_path, 'a.jsonl', '{"document": "a", "summary": "b"}\n')
  name = files.file_task('files_test_split', 'summarization', {'train': path})
  with pytest.raises(errors.UserError, match="splits train, got 'test'"):
    _examples(name, 'test')


@pytest.mark.parametrize(
    'kind, row, expected',
    [
        ('summarization', {'document': 'a', 'id': 3}, b'summarize: a'),
        (
            'translation',
            {'source': 'a'},
            b'translate English to German: a',
        ),
        (
            'question_answering',
            {'question': 'q', 'context': 'c'},
            b'question: q context: c',
        ),
    ],
)
def test_a_test_split_may_have_no_targets(tmp_path, kind, row, expected):
  path = _write(tmp_path, 'a.jsonl', (json.dumps(row) + '\n') * 2)
  name = files.file_task(f'files_test_none_{kind}', kind, {'test': path})
  task, examples = _examples(name, 'test')
  assert [e['inputs_pretokenized'] for e in examples] == [expected] * 2
  for read in (
      lambda: cache.cache_mixture(
          name, 'test', {'inputs': 8, 'targets': 8}, str(tmp_path / 'cache')
      ),
      lambda: evaluate.task_evaluator(
          None, name, {'inputs': 8, 'targets': 8}, batch_size=1, split='test'
      ),
  ):
    with pytest.raises(errors.UserError, match=f'test split of {task.name}'):
      read()

  model = conftest.make_model(vocab_size=4096)
  state = train_step.Trainer(model, train_step.StepConfig()).initial_state(0)
  evaluate.infer(
      model, state.params, name, {'inputs': 64, 'targets': 2},
      str(tmp_path / 'out'), batch_size=2,
  )  # pyformat: disable
  lines = (tmp_path / 'out').read_text().splitlines()
  assert [list(json.loads(x)) for x in lines] == [['inputs', 'prediction']] * 2
  assert json.loads(lines[1])['inputs'] == expected.decode()

  # Others need them, and so do lines after one that has them.
  with pytest.raises(errors.UserError, match=r"field '\w+', got .*line 1"):
    files.file_task('files_test_x', kind, {'train': path})
  target = files.FIELDS[kind][-1]
  rows = [row | {target: 't'}, row]
  path = _write(tmp_path, 'b.jsonl', '\n'.join(map(json.dumps, rows)))
  with pytest.raises(errors.UserError, match=f"'{target}', got .* line 2"):
    files.file_task('files_test_x', kind, {'test': path})


def test_an_empty_row_of_one_column_is_not_passed_over(tmp_path):
  """Outputs would not stand beside their inputs."""
  path = _write(tmp_path, 'a.tsv', 'document\na\n\nb\n')
  with pytest.raises(errors.UserError, match="'document', got .*line 3"):
    files.file_task('files_test_x', 'summarization', {'test': path})


def test_plain_text_to_pretrain_with(tmp_path):
  """Each token is in the inputs or in the targets, in order."""
  text = 'one two three four five six seven eight nine ten ' * 40
  path = _write(tmp_path, 'a.txt', f'{text}\n\n{text}')
  name = files.file_task('files_test_text', 'span_corruption', {'train': path})
  task = seqio.get_mixture_or_task(name)
  vocabulary = task.output_features['inputs'].vocabulary
  lengths = {'inputs': 64, 'targets': 24}
  dataset = task.get_dataset(lengths, split='train', shuffle=False)

  def is_sentinel(i):
    return i >= vocabulary.vocab_size - 100

  found = []
  for example in dataset.as_numpy_iterator():
    inputs, targets = (
        [i for i in example[f].tolist() if i > 1] for f in ('inputs', 'targets')
    )
    spans = {}
    for i in targets:
      if is_sentinel(i):
        key = i
        spans[key] = []
      else:
        spans.setdefault(key, []).append(i)
    # Targets begin with the sentinel of the visible run before the first span.
    hidden = list(spans.values())
    for i in inputs:
      if is_sentinel(i):
        found += hidden.pop(0)
      else:
        found.append(i)
  expected = 2 * vocabulary.encode(text)
  assert found == expected


def test_question_answering_keeps_all_answers(tmp_path):
  rows = [
      {'question': 'Who?', 'context': 'Ada and Al.', 'answers': ['Ada', 'Al']},
      {'question': 'What?', 'context': 'A cat.', 'answers': 'cat'},
  ]
  path = _write(tmp_path, 'q.jsonl', '\n'.join(map(json.dumps, rows)))
  name = files.file_task(
      'files_test_qa', 'question_answering', {'test': path}
  )
  task, examples = _examples(name, 'test')
  assert (
      examples[0]['inputs_pretokenized']
      == b'question: Who? context: Ada and Al.'
  )
  assert examples[0]['targets_pretokenized'] == b'Ada'
  answers = [
      task.postprocess_fn('ignored', example=e, is_target=True)
      for e in examples
  ]
  assert answers == [['Ada', 'Al'], ['cat']]
  (metric,) = task.metric_fns
  assert metric(answers, ['Al', 'dog']) == {'em': 50.0, 'f1': 50.0}


def test_tokens_of_another_prompt_are_not_taken_from_the_cache(tmp_path):
  path = _write(tmp_path, 'a.jsonl', '{"source": "a", "target": "b"}\n')
  lengths = {'inputs': 16, 'targets': 8}
  found = []
  for language in ('German', 'French', 'German'):
    name = files.file_task(
        'files_test_prompt', 'translation', {'train': path},
        target_language=language,
    )  # pyformat: disable
    ((folder, _),) = cache.cache_mixture(
        name, 'train', lengths, str(tmp_path / 'cache')
    ).items()
    (batch,) = data.eval_batches(folder, data.BatchConfig(1, 16, 8))
    found.append(batch['encoder_input_tokens'].tolist())
  assert found[0] == found[2] != found[1]


def test_a_task_may_be_given_again_but_not_over_another(tmp_path):
  one = _write(tmp_path, '1.jsonl', '{"document": "a", "summary": "b"}')
  two = _write(tmp_path, '2.jsonl', '{"document": "c", "summary": "d"}')
  for path in (one, two):
    files.file_task('files_test_again', 'summarization', {'train': path})
  _, (example,) = _examples('files_test_again')
  assert example['targets_pretokenized'] == b'd'
  from gqa_t5x.tasks import embedded  # registers docs_summarize
  del embedded
  with pytest.raises(errors.UserError, match="'docs_summarize' exists"):
    files.file_task('docs_summarize', 'summarization', {'train': one})


NAMES = {'document': 'document', 'summary': 'summary'}
GOOD = '{"document": "a", "summary": "b"}\n'


@pytest.mark.parametrize(
    'name,text,expected',
    [
        ('a.jsonl', '', r'a\.jsonl.* is empty'),
        ('a.jsonl', '\n \n', 'is empty'),
        ('a.tsv', 'document\tsummary\n', 'is empty'),
        ('a.jsonl', GOOD + '{"document": "a"', r'a\.jsonl line 2'),
        ('a.jsonl', GOOD + '\n[1]\n', r'got a list at .*line 3'),
        ('a.jsonl', GOOD + '{"document": "a"}', "'summary'.*line 2"),
        ('a.jsonl', '{"document": 3, "summary": "b"}', 'got 3 at .*line 1'),
        ('a.jsonl', '{"document": " ", "summary": "b"}', 'line 1'),
        ('a.jsonl', '{"document": ["a"], "summary": "b"}', 'line 1'),
        ('a.tsv', 'document\tsummary\na\tb\tc\n', '2 columns.*3.*line 2'),
        ('a.tsv', 'document\tsummary\n\na\tb\n\t\n', "'document'.* line 4"),
        ('a.tsv', 'document\tabstract\na\tb\n', "'summary'.*'abstract'"),
        ('a.jsonl', GOOD.encode() + b'\xff\xfe\n', 'UTF-8.* line 2 of'),
        (
            'a.jsonl', '{"document": "a \\ud83d b", "summary": "b"}\n',
            r"half of a character, '\\ud83d', at .* line 1",
        ),
        (
            'a.tsv', 'document\tsummary\n"a ""b"" c"\td\n',
            'quoted as in CSV.* line 2',
        ),
        ('a.csv', GOOD, r'expected a \.jsonl, \.tsv or \.txt file'),
    ],
)
def test_bad_files_give_one_line(tmp_path, name, text, expected):
  path = _write(tmp_path, name, text)
  with pytest.raises(errors.UserError) as caught:
    files.read_rows(path, NAMES)
  message = str(caught.value)
  assert re.search(expected, message) and '\n' not in message


def test_what_is_packed_is_unpacked(tmp_path):
  path = tmp_path / 'a.jsonl.gz'
  path.write_bytes(gzip.compress(GOOD.encode()))
  assert files.read_rows(path, NAMES) == [{'document': 'a', 'summary': 'b'}]
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(errors.UserError, match=r'a\.jsonl\.gz.*copy the file'):
    files.read_rows(path, NAMES)


def test_missing_file_and_folder(tmp_path):
  with pytest.raises(errors.UserError, match='found no'):
    files.read_rows(str(tmp_path / 'none.jsonl'), NAMES)
  folder = tmp_path / 'folder.jsonl'
  folder.mkdir()
  with pytest.raises(errors.UserError, match='directory'):
    files.read_rows(str(folder), NAMES)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  _write(tmp_path, 'a.jsonl', GOOD)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert files.read_rows('~/a.jsonl', NAMES)


def test_wrong_arguments(tmp_path):
  path = _write(tmp_path, 'a.jsonl', GOOD)
  with pytest.raises(errors.UserError, match='one of summarization'):
    files.file_task('files_test_x', 'summary', {'train': path})
  with pytest.raises(errors.UserError, match='some of the splits'):
    files.file_task('files_test_x', 'summarization', {'dev': path})
  with pytest.raises(errors.UserError, match='got text'):
    files.file_task(
        'files_test_x', 'summarization', {'train': path}, {'text': 'document'}
    )
  assert 'files_test_x' not in seqio.TaskRegistry.names()
