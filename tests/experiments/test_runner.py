# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stages run once, are kept and shared; another run is left alone."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from gqa_t5x import gin_configs
from gqa_t5x import pretrained
from gqa_t5x.engine import checkpointing
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import catalog
from gqa_t5x.experiments import experiment
from gqa_t5x.experiments import pipeline
from gqa_t5x.experiments import pod
from gqa_t5x.experiments import runner
from gqa_t5x.experiments import scales
from gqa_t5x.experiments import stages
from gqa_t5x.experiments import suites
from gqa_t5x.experiments.model import FINETUNED
from gqa_t5x.experiments.model import Model


def _stages(tmp_path, log, fail_at=None, size=1):
  """A chain one > two > three, of which the first two leave a folder."""

  def stage(name, needs, folder=None, recipe=None):
    def run(target=None):
      if name == fail_at:
        raise KeyboardInterrupt
      if target:
        target.mkdir(parents=True)
      log.append(name)
      return {'made': name}

    return stages.Stage(
        name, name, 1.0, run, recipe or {}, f'make {name}', needs, folder
    )

  one = stage('one', (), tmp_path / 'models', {'size': size})
  two = stage('two', (one,), tmp_path / 'models')
  return stages.in_order([stage('three', (two,))])


def test_an_interrupted_run_continues_at_the_stage_that_was_cut_off(tmp_path):
  log = []
  with pytest.raises(KeyboardInterrupt):
    stages.run(_stages(tmp_path, log, fail_at='two'), tmp_path)
  assert log == ['one']
  done = stages.run(_stages(tmp_path, log), tmp_path)
  assert log == ['one', 'two', 'three']
  assert {name: d.result for name, d in done.items()} == {
      name: {'made': name} for name in log
  }


def test_other_settings_make_all_that_comes_after_again(tmp_path):
  log = []
  stages.run(_stages(tmp_path, log), tmp_path)
  stages.run(_stages(tmp_path, log, size=2), tmp_path)
  assert log == ['one', 'two', 'three'] * 2
  stages.run(_stages(tmp_path, log), tmp_path)  # The first are still there.
  assert len(log) == 6


def test_a_product_is_made_again_only_if_it_is_read(tmp_path):
  log = []
  found = _stages(tmp_path, log)
  stages.run(found, tmp_path)
  shutil.rmtree(tmp_path / 'models')
  assert not stages.to_do(found, tmp_path)
  (tmp_path / 'stages' / f'{found[2].key}.json').unlink()
  stages.run(found, tmp_path)
  assert log == ['one', 'two', 'three'] * 2


def test_a_half_written_result_does_not_count(tmp_path):
  log = []
  found = _stages(tmp_path, log)
  (tmp_path / 'stages').mkdir()
  (tmp_path / 'stages' / f'{found[0].key}.json.7.tmp').write_text('{"result"')
  stages.run(found, tmp_path)
  assert log == ['one', 'two', 'three']


def test_a_result_that_is_not_whole_is_named(tmp_path):
  found = _stages(tmp_path, [])
  stages.run(found, tmp_path)
  (path,) = (tmp_path / 'stages').glob('one-*.json')
  path.write_text('{"result": {}}')
  with pytest.raises(UserError, match=f'{path.name}, .* remove it'):
    stages.kept(found[0], tmp_path)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(output_dir=''), 'expected a path, got an empty one'),
        (
            dict(scale='huge'),
            "scale='huge' is unknown; choose laptop, smoke, gpu, benchmarks,"
            ' benchmarks_smoke or paper',
        ),
        (dict(scale='paper'), 'runs on TPU pods; add --dry_run'),
        (dict(seeds=[1, 1]), 'expected seeds that differ'),
        (dict(experiment='table1, table9'), "experiment='table9' is unknown"),
    ],
)
def test_unknown_arguments_are_refused(tmp_path, arguments, message):
  with pytest.raises(UserError, match=message):
    runner.reproduce(**{'output_dir': str(tmp_path / 'new')} | arguments)
  assert not (tmp_path / 'new').exists()


def test_missing_data_is_said_before_the_plan(tmp_path, monkeypatch, capsys):
  monkeypatch.delenv('GQA_T5X_DATA_DIR', raising=False)
  place = {'output_dir': str(tmp_path / 'new'), 'scale': 'benchmarks'}
  with pytest.raises(UserError, match='export GQA_T5X_DATA_DIR'):
    runner.reproduce(**place)
  assert capsys.readouterr().err == ''
  runner.reproduce(**place, dry_run=True)
  assert 'before it can run' in capsys.readouterr().err.splitlines()[-1]
  assert not (tmp_path / 'new').exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('precious')
  with pytest.raises(UserError, match='holds no run of this program'):
    runner.reproduce('smoke', output_dir=str(tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_folder_of_another_scale_is_left_alone(tmp_path):
  (tmp_path / 'run.json').write_text(
      json.dumps({'experiment': 'table1', 'scale': 'laptop'})
  )
  with pytest.raises(UserError, match="its scale is 'laptop', not 'smoke'"):
    runner.reproduce('smoke', output_dir=str(tmp_path))


def _plan(name, folder='/out', seeds=(1,)):
  made = pipeline.Pipeline(scales.SCALES['laptop'], pathlib.Path(folder))
  return stages.in_order(catalog.EXPERIMENTS[name].stages(made, seeds))


def test_table1_fine_tunes_every_model_on_every_task_the_same_way():
  by_name = {stage.name: stage for stage in _plan('table1')}
  assert {n for n in by_name if n.startswith('uptrain-')} == {
      'uptrain-K8-alpha0.05-seed1',  # MHA is continued for as long: the control
      'uptrain-K2-mean-alpha0.05-seed1',
      'uptrain-K1-mean-alpha0.05-seed1',
      'uptrain-K2-svd-alpha0.05-seed1',
      'uptrain-K1-svd-alpha0.05-seed1',
  }
  for column in suites.EMBEDDED.columns:
    task = column.task
    commands = set()
    for slug, k in (('K8', 8), ('K2-mean', 2), ('K1-svd', 1)):
      stage = by_name[f'finetune-{slug}-alpha0.05-{task}-seed1']
      line = stage.command_line().replace(f'NUM_KV_HEADS={k}', 'NUM_KV_HEADS=K')
      commands.add(re.sub(r'/out/models/\S+', '/out/models/MODEL', line))
    assert len(commands) == 1, commands
  order = list(by_name)
  assert order.index('convert-K1-mean-alpha0') < order.index(
      'uptrain-K1-mean-alpha0.05-seed1'
  )
  assert not any(name.startswith('convert-K8') for name in order)


def test_experiments_share_stages_and_seeds_do_not():
  def keys(*args, **options):
    return {stage.key for stage in _plan(*args, **options)}

  table1, figure5 = keys('table1'), keys('figure5')
  shared = {key.rsplit('-', 1)[0] for key in table1 & figure5}
  assert 'uptrain-K1-mean-alpha0.05-seed1' in shared
  assert 'test-K2-mean-alpha0.05-docs_summarize-seed1' in shared
  # Neither mean nor svd has a seed, so their conversions are one for all.
  other = keys('table1', seeds=(2,))
  assert {key.rsplit('-', 1)[0] for key in table1 & other} == {
      'data', 'baselines', 'timing', 'convert-K1-mean-alpha0',
      'convert-K2-mean-alpha0', 'loss-K8-alpha0', 'loss-K2-mean-alpha0',
      'loss-K1-mean-alpha0',
      'convert-K1-svd-alpha0', 'convert-K2-svd-alpha0',
      'loss-K1-svd-alpha0', 'loss-K2-svd-alpha0',
  }  # pyformat: disable


def test_a_seed_is_in_the_name_of_all_that_it_touches():
  names = [stage.name for stage in _plan('figure4', seeds=(3,))]
  touched = [name for name in names if name.endswith('-seed3')]
  # Heads drawn at random, and their loss without uptraining.
  assert {'convert-K1-random-alpha0-seed3', 'loss-K1-random-alpha0-seed3'} <= (
      set(touched)
  )
  assert all(
      name in touched
      for name in names
      if name.startswith(('uptrain', 'finetune', 'test'))
  )
  assert 'convert-K1-svd-alpha0' in names


def test_a_plan_does_not_depend_on_where_it_is_made():
  for name in catalog.EXPERIMENTS:
    assert [stage.key for stage in _plan(name, '/a')] == [
        stage.key for stage in _plan(name, '/b')
    ]


def test_stages_of_another_gin_file_are_others(tmp_path, monkeypatch):
  def keys():
    return {stage.name: stage.key for stage in _plan('table1')}

  before = keys()
  copy = tmp_path / 'gin_configs'
  shutil.copytree(gin_configs.__path__[0], copy)
  monkeypatch.setattr(gin_configs, '__path__', [str(copy)])
  file = copy / 'local' / 'finetune.gin'
  text = file.read_text()
  file.write_text('# A remark.\n' + text)
  assert keys() == before
  file.write_text(text + '\noptimizer.Schedule.base = 0.7\n')
  changed = {name for name, key in keys().items() if key != before[name]}
  assert changed == {
      name for name in before if name.startswith(('finetune', 'test'))
  }
  # What uptraining includes is its recipe as well.
  before = keys()
  file = copy / 'local' / 'pretrain.gin'
  file.write_text(file.read_text() + '\nlosses.LossConfig.z_loss = 0.1\n')
  changed = {name for name, key in keys().items() if key != before[name]}
  assert {x for x in before if x.startswith('uptrain')} <= changed


def test_equal_compute_from_scratch():
  by_name = {stage.name: stage for stage in _plan('stability')}
  settings = scales.SCALES['laptop']
  assert f'pretrain-K2-{round(1.05 * settings.scratch_steps)}-seed1' in by_name
  uptrain = by_name['uptrain-K2-scratch-mean-alpha0.05-seed1'].command_line()
  assert f'PRETRAIN_STEPS={settings.scratch_steps}' in uptrain
  assert 'UPTRAIN_FRACTION=0.05' in uptrain


def test_a_lower_rate_changes_uptraining_alone():
  by_name = {stage.name: stage for stage in _plan('learning_rate')}
  full, low = (
      by_name[f'uptrain-K1-svd-alpha0.05{rate}-seed1']
      for rate in ('', '-rate0.25')
  )
  assert 'LEARNING_RATE_FACTOR=0.25' in low.command_line()
  assert full.command_line().replace(
      'FACTOR=1.0', 'FACTOR=0.25'
  ).rsplit(' ', 2)[0] == low.command_line().rsplit(' ', 2)[0]
  # One conversion for both; mean is uptrained at the full rate alone.
  assert {n for n in by_name if n.startswith('convert-')} == {
      f'convert-K{k}-{method}-alpha0' for k in (1, 2)
      for method in ('mean', 'svd')
  }  # pyformat: disable
  tuned = {n.split('-docs')[0] for n in by_name if n.startswith('finetune-')}
  assert 'finetune-K8-alpha0.05-rate0.25' in tuned
  assert not any('mean-alpha0.05-rate' in name for name in by_name)


def test_a_fine_tuned_model_is_converted_for_each_task():
  by_name = {stage.name: stage for stage in _plan('finetuned')}
  task = 'docs_summarize'
  tuned = by_name[f'finetune-K8-alpha0-{task}-seed1']
  assert not tuned.needs[-1].name.startswith('uptrain')  # Whatever ships.
  for slug, k in (('K2-finetuned-mean', 2), ('K1-finetuned-svd', 1)):
    converted = by_name[f'convert-{slug}-alpha0-{task}-seed1']
    assert converted.needs[-1] is tuned
    as_it_is = by_name[f'test-{slug}-alpha0-asis-{task}-seed1']
    assert converted in as_it_is.needs
    again = by_name[f'finetune-{slug}-alpha0-{task}-seed1']
    line = again.command_line()
    # As the first time, but for the order of rows and where it starts.
    for old, new in (
        (f'NUM_KV_HEADS={k}', 'NUM_KV_HEADS=8'), ('SEED=1001', 'SEED=1'),
        (str(again.product), str(tuned.product)),
        (str(converted.product), pretrained.CHECKPOINT_PATH),
    ):  # pyformat: disable
      assert old in line
      line = line.replace(old, new)
    assert line == tuned.command_line()
  twice = by_name[f'finetune-K8-finetuned-alpha0-{task}-seed1']
  assert tuned in twice.needs
  # No loss of pre-training: there is a model for each task.
  assert not any('loss-' in n and 'finetuned' in n for n in by_name)


def test_what_was_fine_tuned_before_has_scores_and_no_loss():
  models = Model(8, alpha=0.0), Model(1, 'svd', 0.0, FINETUNED)
  tested = experiment.Experiment('a', 'A', scored=models)
  made = pipeline.Pipeline(scales.SCALES['laptop'], pathlib.Path('/out'))
  of_task = {
      'metrics': {'f1': 3.0}, 'per_example': [3.0], 'num_examples': 1,
      'best_step': 1, 'samples': [], 'clusters': ['json.decoder'],
  }  # pyformat: disable
  kept = {'loss': {'per_example': [2.0], 'num_params': 7, 'step': 1}}
  done = {
      stage.name: stages.Done(
          kept.get(stage.name.split('-')[0], of_task), 1.0
      )
      for stage in stages.in_order(tested.stages(made, [1, 2]))
  }
  collected = experiment.collect([tested], made, [1, 2], done)
  assert collected['clusters'] == {t: ['json.decoder'] for t in made.tasks}
  found = collected['models']
  assert list(found) == ['MHA, alpha 0', 'MQA, svd, tuned twice']
  first, second = found.values()
  assert first['loss'] == 2.0 and 'loss' not in second
  assert second['origin'] == 'finetuned'
  for entry in (first, second):
    assert entry['tasks']['docs_summarize']['per_example'] == [[3.0]] * 2


def test_what_is_converted_is_the_best_of_fine_tuning(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(
      checkpointing, 'best_or_latest',
      lambda folder, best: asked.append((best, folder)) or f'{folder}/1',
  )  # pyformat: disable
  by_name = {s.name: s for s in _plan('finetuned', tmp_path)}
  converted = 'convert-K1-finetuned-mean-alpha0-docs_summarize-seed1'
  line = by_name[converted].command_line()
  ((best, folder),) = asked
  assert best == 'loss' and 'finetune-K8-alpha0-docs_summarize' in folder
  assert f'--input {folder}/1 ' in line
  asked.clear()
  by_name['loss-K1-mean-alpha0.05-seed1'].needs[-1].command_line()
  assert not [b for b, _ in asked if b]  # Of uptraining it is the last.


def test_dry_run_leaves_nothing(tmp_path, capsys):
  runner.reproduce('smoke', 'all', str(tmp_path / 'new'), dry_run=True)
  assert not (tmp_path / 'new').exists()
  assert 'gqa-t5x convert --input' in capsys.readouterr().out


def test_the_plan_of_more_seeds_is_no_longer(tmp_path, capsys):
  def lines(seeds):
    runner.reproduce('smoke', 'all', str(tmp_path / 'a'), seeds, dry_run=True)
    return capsys.readouterr().err.splitlines()

  one, three = lines([1]), lines([1, 2, 3])
  assert not any('times)' in line for line in one)
  assert len(three) == len(one)
  assert any(line.endswith('docs_summarize (3 times)') for line in three)


@pytest.mark.parametrize('name', catalog.EXPERIMENTS)
def test_commands_for_a_pod_name_files_that_are_there(name, capsys):
  runner.reproduce('paper', name, dry_run=True)
  shown = capsys.readouterr().out
  files = re.findall(r'--gin_file=gqa_t5x/(\S+)', shown)
  assert files
  root = pathlib.Path(__file__).parents[2]
  assert not [f for f in files if not (root / f).is_file()]


def test_a_pod_uptrains_by_5_percent_once():
  first, again = (
      {
          c.line for c in pod.commands(name, '/b')
          if 'alpha_5' in c.line and 'UPTRAIN_FRACTION' not in c.line
      }
      for name in ('table1', 'figure5')
  )  # pyformat: disable
  assert first == again and len(first) == 2  # GQA-8 and MQA, one folder each.


@pytest.mark.parametrize('name', ['table1', 'learning_rate', 'finetuned'])
def test_a_pod_has_the_vocabulary_before_it_calibrates(name):
  lines = [c.line for c in pod.commands(name, '/b')]
  used = [i for i, x in enumerate(lines) if '--vocabulary sentenc' in x]
  copied = [i for i, x in enumerate(lines) if 'sentencepiece.model .' in x]
  assert used and min(copied) < min(used)


def test_commands_for_table_1_fine_tune_every_cell():
  lines = [c.line for c in pod.commands('table1', '/b')]
  # The paper's four rows, and svd with 8 and 1, before uptraining and after.
  assert sum('table1_' in line for line in lines) == (4 + 4) * 7
  ours = [x for x in lines if 'svd' in x]
  lines = [x for x in lines if 'svd' not in x]
  assert sum('gqa-t5x convert' in x for x in ours) == 2
  assert sum('xxl_svd_1/checkpoint_1000000' in x for x in ours) == 1 + 1 + 7
  assert sum('mqa_xxl_svd/checkpoint_1050000' in x for x in ours) == 7
  # A row is uptrained before it is fine-tuned, from what that made.
  uptrained = lines.index(next(x for x in lines if 'mqa_alpha_5' in x))
  tuned = [i for i, x in enumerate(lines) if 'table1_mqa_xxl' in x]
  assert min(tuned) > uptrained
  assert all('/b/mqa_xxl/checkpoint_1050000' in lines[i] for i in tuned)


def test_a_pod_trains_each_kind_from_scratch_with_seeds():
  lines = [c.line for c in pod.commands('stability', '/b')]
  for heads in ([], ['"8"'], ['"None"']):  # The gin files say 1.
    for kind, count in (('appendix_a_pretrain', 3), ('figure4_finetune', 12)):
      found = [
          line for line in lines
          if kind in line and '_large_scratch_' in line
          and re.findall(r'--gin.NUM_KV_HEADS=(\S+)', line) == heads
      ]  # pyformat: disable
      assert len(found) == count


def test_a_pod_uptrains_svd_and_mha_at_both_rates():
  lines = [c.line for c in pod.commands('learning_rate', '/b')]
  uptrained = [x for x in lines if 'runs/uptrain' in x]
  assert len(uptrained) == 3 * 2
  assert sum('LEARNING_RATE_FACTOR="0.25"' in x for x in uptrained) == 3
  # Those and the mean's; svd's also as it was before.
  assert sum('table1_' in x for x in lines) == (3 * 2 + 2 + 2) * 7
  assert sum('svd_alpha_0' in x for x in lines) == 2 * 7
  # At the full rate svd's and the mean's are Table 1's, so they are done once.
  shared = {c.line for c in pod.commands('table1', '/b')} & set(lines)
  assert len(shared) == 1 + 2 + 2 * 2 * (1 + 7) + 2 * 7


def test_a_pod_converts_every_fine_tuned_model():
  made = [c.line for c in pod.commands('finetuned', '/b')]
  # The paper's order and ours are Table 1's, and so is MHA fine-tuned once.
  shared = {c.line for c in pod.commands('table1', '/b')} & set(made)
  tuned = [x for x in shared if 'table1_mha' in x]
  assert len(tuned) == 7
  lines = [x for x in made if x not in shared]
  assert sum('gqa-t5x convert' in x for x in lines) == 7 * 2 * 2
  assert sum('t5x.eval' in x for x in lines) == 7 * 2 * 2
  again = [x for x in lines if 't5x.train' in x]
  assert len(again) == 7 * (1 + 2 * 2)
  for line in again:
    assert '/checkpoint_1050000' in line and 'TRAIN_STEPS="1100000"' in line
  # What is copied is what fine-tuning made, and what is converted is the copy.
  (copy,) = [x for x in lines if x.startswith('mkdir -p mha_arxiv ')]
  (source,) = re.findall(r'cp -r (\S+)/checkpoint_1050000 mha_arxiv/', copy)
  assert any(f'MODEL_DIR="\'{source}\'"' in x for x in tuned)
  assert sum('--input mha_arxiv/checkpoint_1050000' in x for x in lines) == 4


def test_a_pods_days_are_the_papers_and_what_follows_from_them():
  days = {c.line: c.chip_days for c in pod.commands('figure5', '/b')}
  uptrain = [d for line, d in days.items() if 'alpha_5.gin' in line]
  # 1, 2 and 5%; the paper has 600 for the last.
  assert sorted(uptrain) == [120, 120, 240, 240, 600, 600]
  of_arxiv = next(
      c for c in pod.commands('table1', '/b') if 'xxl' in c.line
      and 'arxiv' in c.line
  )  # pyformat: disable
  # 50,000 steps of 128 rows of 2,560 tokens for as many of 2,048 of 626.
  np.testing.assert_allclose(of_arxiv.chip_days, 600 * 2560 / 16 / 626)


@pytest.mark.parametrize('changes, message', [
    ({'seeds': [1, 2]}, 'no --seeds at the paper scale'),
    ({'tasks': ['docs_summarize']}, 'no --tasks at'),
    ({'output_dir': 'x'}, 'no --output_dir at'),
])
def test_the_paper_scale_takes_nothing_that_it_ignores(changes, message):
  with pytest.raises(UserError, match=message):
    runner.reproduce('paper', dry_run=True, **changes)
