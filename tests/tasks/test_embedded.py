# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded tasks end to end, on rows written here."""

import json
import shutil
import subprocess
import sys

import gin
import pytest

seqio = pytest.importorskip('seqio')

from gqa_t5x import pretrained
from gqa_t5x.tasks import common
from gqa_t5x.tasks import corpus
from gqa_t5x.tasks import embedded

ROWS = {
    'documents': [{'text': 'A tensor of values. ' * 40}] * 3,
    'summarize': [{
        'inputs': 'summarize: function add of ops with x. Sums x. All of it.',
        'targets': 'Adds numbers.',
        'name': 'add',
    }],
    'translate': [{
        'inputs': 'translate English to German: 5 m² on May 3',
        'targets': '5 m² am 3. Mai',
    }],
    'question_answering': [{
        'inputs': 'question: what is x of f? context: y of f: No. x of f: Yes.',
        'targets': 'Yes',
        'answers': ['Yes', 'yes it is'],
    }],
}


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
  monkeypatch.setattr(corpus, 'rows', lambda kind, split: ROWS[kind])


def _first(name, lengths=None):
  task = seqio.get_mixture_or_task(name)
  dataset = task.get_dataset(lengths, split='validation', shuffle=False)
  return task, next(iter(dataset.as_numpy_iterator()))


@pytest.mark.parametrize(
    'name,kind',
    [
        ('docs_summarize', 'summarize'),
        ('cldr_translate_en_de', 'translate'),
        ('docs_question_answering', 'question_answering'),
    ],
)
def test_supervised_tasks_keep_their_text(name, kind):
  task, example = _first(name)
  vocabulary = task.output_features['targets'].vocabulary
  for field in ('inputs', 'targets'):
    tokens = example[field].tolist()
    assert tokens[-1] == 1 and 1 not in tokens[:-1]
    assert vocabulary.decode(tokens) == ROWS[kind][0][field]
  trimmed = _first(name, {'inputs': 5, 'targets': 3})[1]
  assert len(trimmed['inputs']) == 5 and trimmed['inputs'][-1] == 1


def test_all_answers_reach_the_metric():
  task, example = _first('docs_question_answering')
  target = task.postprocess_fn('Yes', example=example, is_target=True)
  assert target == ['Yes', 'yes it is']
  assert task.metric_fns[0]([target], ['Yes it is!'])['em'] == 100.0


def test_span_corruption_lengths():
  _, example = _first('docs_span_corruption', {'inputs': 128, 'targets': 29})
  assert example['inputs'].shape == (128,)
  assert example['targets'].shape == (29,)


def test_trivial_predictions():
  assert embedded.trivial_predictions('docs_summarize', 'test') == {
      'lead': ['Sums x.'], 'name': ['add']
  }  # pyformat: disable
  assert embedded.trivial_predictions('cldr_translate_en_de', 'test') == {
      'copy': ['5 m² on May 3']
  }
  assert embedded.trivial_predictions('docs_question_answering', 'test') == {
      'lead': ['No']
  }


def test_mixture_has_the_four_tasks():
  mixture = seqio.get_mixture_or_task('docs_pretrain')
  assert {t.name for t in mixture.tasks} == set(embedded.PRETRAINING_RATES)
  assert sum(embedded.PRETRAINING_RATES.values()) == pytest.approx(1)


def test_shipped_vocabulary():
  vocabulary = common.default_vocabulary()
  assert vocabulary.vocab_size == 4096
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
  for text in ('Donnerstag, 12. März', 'x = {λ} ☃', '1,234.50 m² – ½'):
    assert vocabulary.decode(vocabulary.encode(text)) == text
  assert len(vocabulary.encode('Mittwoch Dezember Stunde')) == 3
  assert vocabulary.encode('a\u202fb') == vocabulary.encode('a b')


def test_missing_vocabulary_is_the_users_mistake():
  from gqa_t5x import errors
  with pytest.raises(errors.UserError, match='found no file'):
    common.default_vocabulary('/nowhere/x.model')


def test_a_second_import_name_is_refused():
  code = 'import sys; sys.path[:0] = [ROOT]; import tasks'
  root = common.__file__.rpartition('/tasks/')[0]
  result = subprocess.run(
      [sys.executable, '-c', code.replace('ROOT', json.dumps(root))],
      capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert result.returncode == 1
  assert 'expected this package as "gqa_t5x.tasks"' in result.stderr


@pytest.mark.parametrize('name', ['docs_summarize', 'docs_pretrain'])
def test_the_vocabulary_is_the_one_that_gin_binds(name, tmp_path):
  path = shutil.copy(pretrained.VOCABULARY_PATH, tmp_path / 'mine.model')
  gin.bind_parameter('default_vocabulary.path', str(path))
  try:
    features = seqio.get_mixture_or_task(name).output_features
    found = features['targets'].vocabulary.sentencepiece_model_file
  finally:
    gin.clear_config()
  assert found == str(path)
