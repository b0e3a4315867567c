# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Suites at every scale: their stages, data without seqio, and scores."""

import dataclasses
import gzip
import hashlib
import json
import pathlib
import re

import pytest

pytest.importorskip('gin')
pytest.importorskip('seqio')

from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x import pretrained
from gqa_t5x import storage
from gqa_t5x import vocabularies
from gqa_t5x.engine import cache
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import launch
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import catalog
from gqa_t5x.experiments import model as model_lib
from gqa_t5x.experiments import pipeline
from gqa_t5x.experiments import runner
from gqa_t5x.experiments import scales
from gqa_t5x.experiments import scoring
from gqa_t5x.experiments import stages
from gqa_t5x.experiments import suites
from gqa_t5x.tasks import local_data

ROOT = pathlib.Path(__file__).parents[2]
LOCAL = 'gqa_t5x/gin_configs/local/'


def _plan(scale, folder='/out', experiments=('table1',)):
  made = pipeline.Pipeline(scales.SCALES[scale], pathlib.Path(folder))
  return stages.in_order([
      stage
      for name in experiments
      for stage in catalog.EXPERIMENTS[name].stages(made, (1,))
  ])


@pytest.mark.parametrize('scale', scales.SCALES)
def test_commands_name_files_that_are_there(scale):
  plan = _plan(scale, experiments=catalog.EXPERIMENTS)
  text = '\n'.join(stage.command_line() for stage in plan)
  files = set(re.findall(r'--gin_file=gqa_t5x/(\S+)', text))
  assert len(files) >= 5
  assert not [f for f in files if not (ROOT / f).is_file()]
  assert [s.key for s in plan] == [
      s.key for s in _plan(scale, '/elsewhere', catalog.EXPERIMENTS)
  ]
  # Nor of what this machine has where.
  recipes = json.dumps([s.recipe for s in plan])
  assert not re.search(r'["\'\s=]/\w', recipes)


def test_benchmarks_train_their_own_vocabulary_and_checkpoint():
  plan = _plan('gpu')
  by_name = {stage.name: stage for stage in plan}
  order = list(by_name)
  assert order[:3] == ['vocabulary', 'data', 'pretrain-K8-4000']
  path = f'{by_name["vocabulary"].product}/sentencepiece.model'
  base = str(by_name['pretrain-K8-4000'].product)
  for name in ('uptrain-K1-mean-alpha0.05-seed1', 'uptrain-K8-alpha0.05-seed1'):
    command = by_name[name].command_line()
    assert path in command and 'PRETRAIN_STEPS=4000' in command
  assert base in by_name['uptrain-K8-alpha0.05-seed1'].command_line()
  assert f'--input {base}' in by_name['convert-K1-mean-alpha0'].command_line()
  for stage in plan[2:]:  # Read it, though its own product may be gone.
    if pipeline.prepares(stage.name):
      continue
    assert {by_name['vocabulary'], by_name['data']} <= set(stage.needs)
  assert 'T5Config.vocab_size=8192' in by_name[order[2]].command_line()


def test_a_scale_says_how_long_a_task_is_and_which_heads_are_made():
  by_name = {stage.name: stage for stage in _plan('gpu')}
  tuned = by_name['finetune-K4-mean-alpha0.05-gqa_sumpubmed-seed1']
  assert "{'inputs': 2048, 'targets': 512}" in tuned.command_line().replace(
      '\'"\'"\'', "'"
  )
  assert not [s.name for s in _plan('laptop') if '-K4' in s.name]
  seconds = scales.SCALES['gpu'].of('gqa_sumpubmed').seconds
  assert seconds['finetune'] == 400 and seconds['data'] == 120


def test_the_learning_rate_falls_to_0_where_fine_tuning_ends():
  by_name = {stage.name: stage for stage in _plan('benchmarks')}
  for name in ('K8', 'K2-mean', 'K1-mean'):
    tuned = by_name[f'finetune-{name}-alpha0.05-gqa_multi30k-seed1']
    for words in ('linear_decay_steps=1000', 'TRAIN_STEPS_RELATIVE=2500'):
      assert words in tuned.command_line()
  assert 'decay' not in '\n'.join(s.command_line() for s in _plan('laptop'))


def test_other_tasks_change_nothing_of_what_comes_before_them(tmp_path):
  """So they may be added to a run."""
  scale = scales.SCALES['benchmarks']
  one = dataclasses.replace(scale, suite=scale.suite.only(['gqa_aeslc']))

  def keys(settings):
    made = pipeline.Pipeline(settings, tmp_path)
    plan = catalog.EXPERIMENTS['table1'].stages(made, (1,))
    return {stage.name: stage.key for stage in stages.in_order(plan)}

  of_one, of_all = keys(one), keys(scale)
  assert of_one.keys() < of_all.keys()
  assert {n for n in of_one if of_one[n] != of_all[n]} == {'baselines'}
  assert not [n for n in of_one if 'multi30k' in n]
  with pytest.raises(UserError, match='choose from gqa_multi30k, gqa_aeslc'):
    scale.suite.only(['docs_summarize'])


def test_prepare_shows_what_needs_seqio(tmp_path, capsys):
  runner.reproduce(
      'gpu', output_dir=str(tmp_path / 'new'), prepare=True, dry_run=True
  )
  shown = capsys.readouterr()
  assert '6 of 6 stages to do' in shown.err
  assert 'cache.gin' in shown.out and 'train' not in shown.out.split()


def test_texts_are_not_needed_where_their_tokens_are(tmp_path, monkeypatch):
  """As on the machine that trains, where docs/gpu.md brings tokens alone."""
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path / 'none'))
  made = pipeline.Pipeline(scales.SCALES['benchmarks'], tmp_path)
  with pytest.raises(UserError, match='expected the train split of'):
    made.check_data(tmp_path)
  done = {'result': {'files': {}}, 'seconds': 1.0, 'commit': None}
  storage.write_json(tmp_path / 'stages' / f'{made.data().key}.json', done)
  made.check_data(tmp_path)


def test_files_that_came_after_pretraining_are_watched(tmp_path, monkeypatch):
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path))
  monkeypatch.setattr(
      local_data.corpus, 'corpus_fingerprint', lambda: {'sha256': 'a'}
  )
  made = pipeline.Pipeline(scales.SCALES['benchmarks'], tmp_path)

  def keep(name, stage):
    (tmp_path / f'{name}.jsonl').write_text('{"en": "A", "de": "B"}\n')
    done = {'result': local_data.corpus_fingerprint(), 'seconds': 1.0}
    storage.write_json(tmp_path / 'stages' / f'{stage.key}.json', done)

  keep('multi30k.train', made.data())
  keep('aeslc.test', made.data('gqa_aeslc'))
  made.check_data(tmp_path)
  (tmp_path / 'aeslc.test.jsonl').write_text('{}\n')
  with pytest.raises(UserError, match='but aeslc.test changed since'):
    made.check_data(tmp_path)


@pytest.fixture
def captions(tmp_path, monkeypatch):
  """A folder of data with three captions; returns a vocabulary of them."""
  from gqa_t5x.tasks import train_vocabulary

  rows = [{'en': f'A dog {n}.', 'de': f'Ein Hund {n}.'} for n in range(3)]
  with gzip.open(tmp_path / 'multi30k.train.jsonl.gz', 'wt') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path))
  path = tmp_path / 'small.model'
  path.write_bytes(train_vocabulary.train(suites.__doc__.split('. '), 320))
  return path


def _cache(tmp_path, vocabulary):
  return launch.run(
      'cache',
      [LOCAL + 'cache.gin', LOCAL + 'benchmarks.gin'],
      [
          f'VOCABULARY_PATH = "{vocabulary}"',
          'MIXTURE_OR_TASK_NAME = "gqa_multi30k"',
          'TASK_FEATURE_LENGTHS = {"inputs": 32, "targets": 16}',
          'launch.Cache.splits = ("train",)',
          f'launch.Cache.cache_dir = "{tmp_path / "tokens"}"',
      ],
  )['train']


def test_the_vocabulary_of_gin_is_that_of_the_tokens(tmp_path, captions):
  (folder,) = _cache(tmp_path, captions)
  meta = cache.read_meta(pathlib.Path(folder))
  digest = hashlib.sha256(captions.read_bytes()).hexdigest()
  assert meta['vocabulary_sha256'] == digest
  assert meta['vocab_size'] == 320 + 100


def test_without_seqio_what_was_cached_is_found(
    tmp_path, captions, monkeypatch
):
  made = _cache(tmp_path, captions)
  find_spec = cache.importlib.util.find_spec
  monkeypatch.setattr(
      cache.importlib.util,
      'find_spec',
      lambda name, *args: None if name == 'seqio' else find_spec(name, *args),
  )
  # The folder may have come from another machine.
  (tmp_path / 'tokens').rename(tmp_path / 'moved')
  lengths = {'inputs': 32, 'targets': 16}
  found = cache.cache_mixture(
      'gqa_multi30k', 'train', lengths, str(tmp_path / 'moved')
  )
  assert found == {
      folder.replace('/tokens/', '/moved/'): rate
      for folder, rate in made.items()
  }
  with pytest.raises(UserError, match=r"feature_lengths=\{'inputs': 32"):
    cache.cache_mixture(
        'gqa_multi30k', 'train', {'inputs': 64, 'targets': 16},
        str(tmp_path / 'moved'),
    )  # pyformat: disable
  with pytest.raises(UserError, match='is not made here; copy'):
    cache.cache_mixture('gqa_aeslc', 'train', lengths, str(tmp_path / 'moved'))


def test_a_run_goes_on_from_what_was_cached(tmp_path, captions):
  def train(steps, only_cached):
    launch.run(
        'train',
        [
            'gqa_t5x/gin_configs/models/t5_1_1_mini.gin',
            LOCAL + 'pretrain.gin',
            LOCAL + 'benchmarks.gin',
        ],
        [
            f'VOCABULARY_PATH = "{captions}"',
            f'MODEL_DIR = "{tmp_path / "run"}"',
            f'TRAIN_STEPS = {steps}',
            f'launch.Cache.only_cached = {only_cached}',
            f'launch.Cache.cache_dir = "{tmp_path / "tokens"}"',
            'launch.Cache.splits = ("train",)',
            'MIXTURE_OR_TASK_NAME = "gqa_multi30k"',
            'TASK_FEATURE_LENGTHS = {"inputs": 32, "targets": 16}',
            'BATCH_SIZE = 2',
            'network.T5Config.vocab_size = 420',
            'network.T5Config.emb_dim = 16',
            'network.T5Config.mlp_dim = 16',
        ],
    )

  train(1, False)
  (tmp_path / 'multi30k.train.jsonl.gz').unlink()
  train(2, True)
  assert (tmp_path / 'run' / 'checkpoints' / '2').is_dir()


def test_a_run_keeps_its_tokens_when_the_data_change(tmp_path, monkeypatch):
  """Those of another run, on other data, are not taken for them."""
  task, lines = 'gqa_multi30k', suites.__doc__.split('. ')
  suite = dataclasses.replace(suites.benchmarks(task), vocab_size=320 + 100)
  scale = dataclasses.replace(scales.SCALES['benchmarks_smoke'], suite=suite)
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path))
  monkeypatch.setattr(suite.tasks(), 'vocabulary_lines', lambda: lines)
  monkeypatch.setattr(pipeline, '_load', lambda path: (None, None, {'step': 0}))
  monkeypatch.setattr(
      scoring, 'test', lambda network, params, folder, *rest: {'read': folder}
  )

  def begin(name, animal):
    row = json.dumps({'en': f'A {animal}.', 'de': 'Ein Tier.'}) + '\n'
    for split in ('train', 'validation', 'test'):
      (tmp_path / f'multi30k.{split}.jsonl').write_text(row)
    run = pipeline.Pipeline(scale, tmp_path / name)
    stages.run(stages.in_order([run.data(task)]), tmp_path / name)
    return run, run.tested(model_lib.Model(8, None), 1, task)

  (one, tested), _ = begin('one', 'dog'), begin('two', 'cat')
  vocabulary = one.vocabulary().product / 'sentencepiece.model'
  tokens = data.TokenDataset.open(tested.run()['read']).tokens('inputs', 0, 64)
  text = vocabularies.Vocabulary(str(vocabulary)).decode(tokens.tolist())
  assert 'dog' in text
  (tuned,) = (s for s in tested.needs if s.name.startswith('finetune'))
  assert str(one.data(task).product) in tuned.command_line()

  (tmp_path / 'cache').mkdir()
  one.data(task).product.rename(tmp_path / 'cache' / 'emptied')
  assert one.data(task) in stages.to_do(
      stages.in_order([tested]), tmp_path / 'one'
  )


_ROWS = {
    'multi30k': {'en': 'A dog.', 'de': 'Ein Hund.'},
    'aeslc': {'document': 'Hi Al, see you at 5.', 'summary': 'A meeting'},
    'sumpubmed': {'document': 'x <dig>.', 'summary': 'the number of it'},
    'fairytaleqa': {
        'question': 'Who?', 'context': 'The fox.', 'answers': ['fox', 'a'],
    },
}  # pyformat: disable


@pytest.mark.parametrize('suite, column', [
    (suite, column)
    for suite in (suites.EMBEDDED, suites.benchmarks())
    for column in suite.columns
])
def test_scores_are_those_of_seqio(suite, column, tmp_path, monkeypatch):
  suite.tasks()
  monkeypatch.setenv('GQA_T5X_DATA_DIR', str(tmp_path))
  for name, row in _ROWS.items():
    split = 'validation' if name == 'sumpubmed' else 'test'
    lines = [json.dumps(row | {list(row)[0]: f'{n} A dog.'}) for n in range(16)]
    if name == 'aeslc':
      lines[2] = json.dumps(row | {'summary': ' '})
    (tmp_path / f'{name}.{split}.jsonl').write_text('\n'.join(lines))
  params, metadata = checkpoints.load_checkpoint(pretrained.CHECKPOINT_PATH)
  model = network.Transformer(network.T5Config(**metadata['config']))
  lengths = {'inputs': 64, 'targets': 12}
  folders = cache.cache_mixture(
      column.task, 'test', lengths, str(tmp_path), max_examples=20
  )
  scale = dataclasses.replace(
      scales.SCALES['smoke'],
      inputs_length=64, targets_length=12, test_examples=6,
  )  # pyformat: disable
  (folder,) = folders
  found = scoring.test(
      model, params, folder, column, suite,
      vocabularies.Vocabulary(pretrained.VOCABULARY_PATH), scale,
  )  # pyformat: disable
  expected = evaluate.task_evaluator(
      model, column.task, lengths, batch_size=6, split='test', max_examples=6
  )(params)
  for name, value in expected.items():
    name = name.removeprefix(f'{column.task}/')
    assert found['metrics'][name] == pytest.approx(value), name
  kind = 'bleu_statistics' if column.metric == 'bleu' else 'per_example'
  assert len(found[kind]) == found['num_examples'] == 6
  alone = column.task not in (
      'docs_summarize', 'docs_question_answering', 'gqa_fairytaleqa'
  )
  assert (found['clusters'] is None) == alone
  assert alone or len(found['clusters']) == 6
