# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stages are run once, kept, and continued; another run is left alone."""

import json
import pathlib

import pytest

from gqa_t5x.errors import UserError
from gqa_t5x.experiments import runner
from gqa_t5x.experiments import table1


def _stages(log, fail_at=None):
  def run(name):
    if name == fail_at:
      raise KeyboardInterrupt
    log.append(name)
    return {'made': name}

  return [
      runner.Stage(name, name, f'make {name}', 1.0, lambda n=name: run(n))
      for name in ('one', 'two', 'three')
  ]


def test_an_interrupted_run_continues_at_the_stage_that_was_cut_off(tmp_path):
  log = []
  with pytest.raises(KeyboardInterrupt):
    runner.run_stages(_stages(log, fail_at='two'), tmp_path)
  assert log == ['one']
  results, seconds = runner.run_stages(_stages(log), tmp_path)
  assert log == ['one', 'two', 'three']
  assert results == {n: {'made': n} for n in log}
  assert set(seconds) == set(log)


def test_a_half_written_result_does_not_count(tmp_path):
  log = []
  (tmp_path / 'stages').mkdir()
  (tmp_path / 'stages' / 'one.json.tmp').write_text('{"result"')
  runner.run_stages(_stages(log), tmp_path)
  assert log == ['one', 'two', 'three']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(scale='huge'), "scale='huge' is unknown; choose laptop or smoke"),
        (dict(experiment='table9'), "experiment='table9' is unknown"),
    ],
)
def test_unknown_arguments_are_refused(tmp_path, arguments, message):
  with pytest.raises(UserError, match=message):
    runner.reproduce(output_dir=str(tmp_path / 'new'), **arguments)
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


def test_table1_fine_tunes_every_model_on_every_task_the_same_way():
  stages = table1.stages(table1.SCALES['laptop'], pathlib.Path('/out'))
  by_name = {stage.name: stage for stage in stages}
  assert len(by_name) == len(stages)
  assert {n for n in by_name if n.startswith('uptrain-')} == {
      'uptrain-MHA', 'uptrain-GQA-2', 'uptrain-MQA'
  }  # MHA is continued for as long: the control
  for task in table1.TASKS:
    commands = {
        by_name[f'finetune-{model}-{task}'].command.replace(
            f'NUM_KV_HEADS={k}', 'NUM_KV_HEADS=K'
        ).replace(f'/out/{model}/', '/out/MODEL/')
        for model, k in table1.MODELS.items()
    }
    assert len(commands) == 1, commands
  order = [stage.name for stage in stages]
  assert order.index('convert-MQA') < order.index('uptrain-MQA')
  assert 'convert-MHA' not in order
