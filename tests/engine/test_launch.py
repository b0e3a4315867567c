# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gin files parse, overrides win, and each mistake gives one line."""

import importlib.util
import os
import pathlib
import re
import shutil

import pytest

from gqa_t5x import multi_host
from gqa_t5x import pretrained
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import launch
from gqa_t5x.errors import UserError

pytest.importorskip('gin')
pytest.importorskip('seqio')
sentencepiece_model_pb2 = pytest.importorskip(
    'sentencepiece.sentencepiece_model_pb2'
)

MODEL = 'gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
LOCAL = 'gqa_t5x/gin_configs/local/'
SET = {
    'MODEL_DIR': '"m"',
    'INITIAL_CHECKPOINT_PATH': '"c"',
    'MIXTURE_OR_TASK_NAME': '"docs_summarize"',
    'TASK_FEATURE_LENGTHS': '{"inputs": 16, "targets": 8}',
    'CHECKPOINT_PATH': '"c"',
    'EVAL_OUTPUT_DIR': '"o"',
    'INFER_OUTPUT_PATH': '"o"',
}
NEEDS = {
    'pretrain': ('train', list(SET)[:1]),
    'uptrain': ('train', list(SET)[:2]),
    'finetune': ('train', list(SET)[:4]),
    'eval': ('eval', list(SET)[2:6]),
    'infer': ('infer', list(SET)[2:5] + ['INFER_OUTPUT_PATH']),
    'cache': ('cache', []),
}

TASK = """
from __gin__ import dynamic_registration
from gqa_t5x.tasks import files
files.file_task:
  name = 'early'
  kind = 'summarization'
  files = {{'train': '{path}', 'validation': '{path}'}}
MIXTURE_OR_TASK_NAME = @files.file_task()
TASK_FEATURE_LENGTHS = {{'inputs': 16, 'targets': 8}}
"""


@pytest.fixture
def jobs(monkeypatch):
  """Collects what would run."""
  made = []
  for cls in launch.MODES.values():
    monkeypatch.setattr(cls, 'run', lambda self: made.append(self))
  return made


@pytest.mark.parametrize('model_first', [True, False])
@pytest.mark.parametrize('name', list(NEEDS))
def test_every_run_file_keeps_the_models_heads(jobs, name, model_first):
  mode, names = NEEDS[name]
  files = [MODEL, f'{LOCAL}{name}.gin'] if mode != 'cache' else [
      f'{LOCAL}{name}.gin'
  ]
  bindings = [f'{n} = {SET[n]}' for n in names]
  if mode != 'cache':
    bindings.append('NUM_KV_HEADS = 2')
  launch.run(mode, files if model_first else files[::-1], bindings)
  if mode != 'cache':
    config = jobs[0].model.config
    assert config.num_kv_heads == 2
    assert config.dropout_rate == (0.1 if name == 'finetune' else 0.0)


def test_uptraining_ends_after_its_fraction(jobs):
  launch.run(
      'train',
      [MODEL, LOCAL + 'uptrain.gin'],
      ['MODEL_DIR = "m"', 'INITIAL_CHECKPOINT_PATH = "c"',
       'PRETRAIN_STEPS = 1000000'],
  )
  assert jobs[0].config.total_steps == 1_050_000
  assert jobs[0].config.schedule.kind == 'rsqrt'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("include 'none.gin'", 'a.gin includes a file that cannot be read'),
        ('SEED = (3\n', 'a.gin ends within a value'),
        ('train.TrainConfg.seed = 3', 'did you mean train.TrainConfig?'),
        (
            'BATCHSIZE = 4',
            'sets BATCHSIZE, which nothing uses; did you mean BATCH_SIZE?',
        ),
    ],
)
def test_mistakes_in_a_users_gin_file(tmp_path, text, message):
  path = tmp_path / 'a.gin'
  path.write_text(f"include '{LOCAL}pretrain.gin'\n{text}")
  with pytest.raises(UserError, match=re.escape(message)):
    launch.configure('train', [MODEL, str(path)], ['MODEL_DIR="m"'])


@pytest.mark.parametrize(
    ('files', 'bindings', 'message'),
    [
        ([], [], 'no gin file was given'),
        (['none.gin'], [], 'none.gin cannot be read'),
        ([MODEL, LOCAL + 'pretrain.gin'], [], 'MODEL_DIR must be set'),
        ([LOCAL + 'pretrain.gin'], ['MODEL_DIR="m"'], 'no model was given'),
        ([MODEL], [], 'has no value; add the gin file of a run'),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'BATCH_SIZ=3'],
            'did you mean BATCH_SIZE?',
        ),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'num_kv_heads=2'],
            'did you mean NUM_KV_HEADS?',
        ),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'train/SEED=2'],
            'no gin file has a macro train/SEED; did you mean SEED?',
        ),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'train.TrainConfig.lokg_every=3'],
            'train.TrainConfig has no parameter lokg_every; did you mean '
            'log_every?',
        ),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'losses.LossConfig.x=3'],
            'has no parameter x; there are z_loss, label_smoothing, ',
        ),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'train.TrainConfg.log_every=3'],
            'no gin file has train.TrainConfg; did you mean train.TrainConfig?',
        ),
        ([MODEL, LOCAL + 'pretrain.gin'], ['MODEL_DIR=/m'], 'need quotes'),
        ([MODEL, LOCAL + 'pretrain.gin'], ['MODEL_DIR'], 'NAME=VALUE'),
        (
            [MODEL, LOCAL + 'pretrain.gin'],
            ['MODEL_DIR="m"', 'NUM_KV_HEADS=3'],
            'choose 1, 2, 4 or 8',
        ),
    ],
)
def test_mistakes_give_one_line(jobs, files, bindings, message):
  with pytest.raises(UserError) as error:
    launch.run('train', files, bindings)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  assert not jobs


def test_macros_of_a_users_own_file_may_be_used_there(jobs, tmp_path):
  path = tmp_path / 'a.gin'
  path.write_text('MINE = 3\nBATCH_SIZE = %MINE\n')
  files = [MODEL, LOCAL + 'pretrain.gin', str(path)]
  launch.run('train', files, ['MODEL_DIR = "m"', 'MINE = 5'])
  assert jobs[0].batch_size == 5


def test_without_seqio_a_users_task_is_a_name(jobs, tmp_path, monkeypatch):
  """By which its tokens are found; what needs it is said to be missing."""
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
      importlib.util,
      'find_spec',
      lambda name, *args: None if name == 'seqio' else find_spec(name, *args),
  )
  task = tmp_path / 'task.gin'
  task.write_text(TASK.format(path='not_there.jsonl'))
  files = [MODEL, LOCAL + 'pretrain.gin', str(task)]
  launch.run('train', files, ['MODEL_DIR = "m"'])
  assert jobs[0].source.mixture_or_task_name == 'early'
  task.write_text('import seqio.not_there')
  with pytest.raises(ImportError) as error:
    launch.run('train', files, ['MODEL_DIR = "m"'])
  assert error.value.name == 'seqio.not_there'


@pytest.mark.parametrize(
    ('name', 'bindings', 'message'),
    [
        ('finetune', ['NUM_KV_HEADS = 2'], 'does not fit the model'),
        (
            'finetune',
            ['default_vocabulary.path = "{other}"'],
            'expected the vocabulary',
        ),
        ('uptrain', ['PRETRAIN_STEPS = 5000'], 'to be of step 5000'),
        (
            'uptrain',
            ['TEACHER_CHECKPOINT_PATH = "gone"', 'DISTILLATION_WEIGHT = 0.5'],
            'gone does not exist',
        ),
    ],
)
def test_what_does_not_fit_is_found_before_tokenizing(
    monkeypatch, tmp_path, name, bindings, message
):
  monkeypatch.setattr(launch.Cache, 'run', lambda self: pytest.fail('too late'))
  other = tmp_path / 'other.model'
  proto = sentencepiece_model_pb2.ModelProto.FromString(
      pathlib.Path(pretrained.VOCABULARY_PATH).read_bytes()
  )
  del proto.pieces[-1]
  other.write_bytes(proto.SerializeToString())
  lines = tmp_path / 'train.jsonl'
  lines.write_text('{"document": "a", "summary": "b"}\n')
  task = tmp_path / 'task.gin'
  task.write_text(TASK.format(path=lines))
  with pytest.raises(UserError, match=message):
    launch.run(
        'train',
        [MODEL, f'{LOCAL}{name}.gin', str(task)],
        [
            f'MODEL_DIR = "{tmp_path / "run"}"',
            f'INITIAL_CHECKPOINT_PATH = "{pretrained.CHECKPOINT_PATH}"',
            *(binding.format(other=other) for binding in bindings),
        ],
    )


def test_inference_knows_a_checkpoint_that_was_written_anew(
    monkeypatch, tmp_path
):
  checkpoint = tmp_path / 'c'
  shutil.copytree(pretrained.CHECKPOINT_PATH, checkpoint)
  seen = []
  monkeypatch.setattr(
      evaluate, 'infer', lambda *_, identity, **__: seen.append(identity)
  )

  def infer():
    launch.run(
        'infer',
        [MODEL, LOCAL + 'infer.gin'],
        [
            'MIXTURE_OR_TASK_NAME = "docs_summarize"',
            'TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 8}',
            f'CHECKPOINT_PATH = "{checkpoint}"',
            f'INFER_OUTPUT_PATH = "{tmp_path / "out.jsonl"}"',
        ],
    )

  infer()
  infer()
  files = [path for path in checkpoint.rglob('*') if path.is_file()]
  later = max(path.stat().st_mtime_ns for path in files) + 1
  os.utime(files[0], ns=(later, later))
  infer()
  assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    'given',
    [
        {'JAX_PROCESS_ID': '0'},
        {'JAX_NUM_PROCESSES': 'two', 'JAX_PROCESS_ID': '0'},
    ],
)
def test_processes_that_are_not_told_who_they_are(monkeypatch, given):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match='JAX_NUM_PROCESSES and JAX_PROCESS_ID'):
    multi_host.join_processes()
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost')
  with pytest.raises(UserError, match="HOST:PORT .* got 'localhost'; add"):
    multi_host.join_processes()
