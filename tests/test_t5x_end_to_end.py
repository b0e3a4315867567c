# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""t5x's own scripts from a stock T5 to the predictions of its GQA form.

Each step is a process as a user starts it, also as README and docs/tpu.md have
it. What they did is read off the checkpoints, metrics and predictions that t5x
wrote.
"""

import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from gqa_t5x import checkpoints
from tests import test_docs

pytestmark = [pytest.mark.t5x, pytest.mark.slow]

# t5x/examples/t5 itself, with the sizes of our tiny model, on text that is
# everywhere.
_STOCK = """
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x import utils
from t5x.examples.t5 import network
from gqa_t5x.gin_configs import runs
from gqa_t5x.tasks import embedded

include 't5x/examples/t5/t5_1_1/tiny.gin'
include 't5x/configs/runs/pretrain.gin'

MIXTURE_OR_TASK_NAME = 'docs_span_corruption'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 24}
TRAIN_STEPS = 20
DROPOUT_RATE = 0.0
BATCH_SIZE = 4
USE_CACHED_TASKS = False
LOSS_NORMALIZING_FACTOR = 96
USE_ORBAX = True
VOCABULARY = @runs.task_vocabulary()
runs.task_vocabulary.mixture_or_task_name = %MIXTURE_OR_TASK_NAME
network.T5Config:
  vocab_size = 4096
  dtype = 'float32'
  emb_dim = 32
  num_heads = 4
  head_dim = 8
  mlp_dim = 64
utils.create_learning_rate_scheduler.warmup_steps = 10
utils.SaveCheckpointConfig.period = 20
train_script.train:
  eval_period = 5
  eval_steps = 1
  use_orbax = %USE_ORBAX
"""
# What the paper-sized run files are cut down to.
_SMALL = {
    'network.T5Config.vocab_size': 4096,
    'network.T5Config.emb_dim': 32,
    'network.T5Config.num_heads': 4,
    'network.T5Config.head_dim': 8,
    'network.T5Config.mlp_dim': 64,
    'network.T5Config.num_encoder_layers': 2,
    'network.T5Config.num_decoder_layers': 2,
    'network.T5Config.dtype': 'float32',
    'NUM_KV_HEADS': 2,
    'BATCH_SIZE': 4,
    'TASK_FEATURE_LENGTHS': {'inputs': 64, 'targets': 24},
}
_UPTRAIN = {
    'MIXTURE_OR_TASK_NAME': 'docs_span_corruption',
    'PRETRAIN_STEPS': 20,
    'UPTRAIN_FRACTION': 0.5,
    'WARMUP_STEPS': 10,
    'LOSS_NORMALIZING_FACTOR': 96,
    'EVAL_PERIOD': 5,
    'EVAL_STEPS': 1,
    # Without, t5x takes the clock, and ten steps may be unlucky.
    'RANDOM_SEED': 7,
    'train/utils.DatasetConfig.seed': 7,
}


def run(script, gin_files, bindings):
  """Runs a script of t5x; fails with the end of its log."""
  words = [f'--gin_file={path}' for path in gin_files]
  words += [f'--gin.{name}={value!r}' for name, value in bindings.items()]
  done = subprocess.run(
      [sys.executable, '-m', f't5x.{script}', *words],
      capture_output=True,
      text=True,
      check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stderr


def ours(*names):
  """A tiny model, and parts of gqa_t5x/gin_configs."""
  names = ('models/t5_1_1_tiny', *names)
  return [f'gqa_t5x/gin_configs/{name}.gin' for name in names]


def convert(source, target, *options):
  subprocess.run(
      [
          sys.executable, '-m', 'gqa_t5x', 'convert', '--input', source,
          '--output', target, '--num_kv_heads', '2', *options,
      ],
      check=True,
  )  # pyformat: disable


def training_metrics(model_dir):
  """{tag: {step: value}} of what t5x logged for TensorBoard in training."""
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  events = event_accumulator.EventAccumulator(
      str(pathlib.Path(model_dir) / 'train'),
      size_guidance={event_accumulator.TENSORS: 0},
  )
  events.Reload()
  return {
      tag: {
          event.step: float(tensor_util.make_ndarray(event.tensor_proto))
          for event in events.Tensors(tag)
      }
      for tag in events.Tags()['tensors']
      if tag.startswith(('learning_rate', 'loss', 'cross_ent_loss'))
  }


@pytest.fixture(scope='module')
def stock(tmp_path_factory):
  """{format: path of the checkpoint of step 20} of t5x's own T5."""
  root = tmp_path_factory.mktemp('stock')
  config = root / 'stock.gin'
  config.write_text(_STOCK)
  paths = {}
  for kind, use_orbax in (('t5x', False), ('t5x-orbax', True)):
    model_dir = root / kind
    run(
        'train',
        [str(config)],
        {
            'MODEL_DIR': str(model_dir),
            'RANDOM_SEED': 7,
            'USE_ORBAX': use_orbax,
        },
    )
    paths[kind] = str(model_dir / 'checkpoint_20')
    assert checkpoints.detect_format(paths[kind]) == kind
  return paths


def check_uptrained(model_dir, source):
  """Steps 21 to 30 at the rates of rsqrt, from what `source` had learnt."""
  assert (model_dir / 'checkpoint_30').is_dir()
  params, metadata = checkpoints.load_checkpoint(model_dir / 'checkpoint_30')
  assert metadata['step'] == 30
  assert metadata['config']['num_kv_heads'] == 2
  kernel = params['decoder']['layers_0']['self_attention']['key']['kernel']
  assert kernel.shape == (32, 16)
  metrics = training_metrics(model_dir)
  rates = metrics['learning_rate']
  assert sorted(rates) == [25, 30]
  # The mean over the five steps before; each from step to step + 1.
  for step, rate in rates.items():
    mean = np.mean([s**-0.5 for s in range(step - 5, step)])
    np.testing.assert_allclose(rate, mean, rtol=0.03)
  # Two batches of 96 tokens differ by more than five steps teach; a model that
  # starts anew is at the loss of stock's first steps.
  losses = metrics['cross_ent_loss']
  before = training_metrics(pathlib.Path(source).parent)['cross_ent_loss']
  assert sorted(before) == [5, 10, 15, 20]
  assert max(losses.values()) < before[10], (losses, before)


@pytest.fixture(scope='module')
def uptrained(stock, tmp_path_factory):
  root = tmp_path_factory.mktemp('uptrained')
  for kind, source in stock.items():
    converted = root / f'{kind}-gqa2' / 'checkpoint_20'
    convert(source, str(converted))
    run(
        'train',
        ours('runs/uptrain'),
        {
            **_SMALL,
            **_UPTRAIN,
            'INITIAL_CHECKPOINT_PATH': str(converted),
            'MODEL_DIR': str(root / kind),
        },
    )
  return {kind: root / kind for kind in stock}


@pytest.mark.parametrize('kind', ['t5x', 't5x-orbax'])
def test_uptraining_goes_on_from_a_converted_checkpoint(
    stock, uptrained, kind
):
  check_uptrained(uptrained[kind], stock[kind])


@pytest.mark.parametrize('slots', ['pool', 'reset'])
def test_uptraining_after_svd_which_refits_queries(stock, tmp_path, slots):
  """The slots of queries and outputs are those of the kernels before."""
  converted = str(tmp_path / 'checkpoint_20')
  options = ('--method', 'svd', '--calibration_data', 'none', '--slots', slots)
  convert(stock['t5x'], converted, *options)
  bindings = _SMALL | _UPTRAIN | {'INITIAL_CHECKPOINT_PATH': converted}
  model_dir = tmp_path / 'run'
  run(
      'train', ours('runs/uptrain'), bindings | {'MODEL_DIR': str(model_dir)}
  )
  check_uptrained(model_dir, stock['t5x'])


def test_conversion_on_restore_and_a_second_start(stock, tmp_path):
  bindings = {
      **_SMALL,
      **_UPTRAIN,
      'INITIAL_CHECKPOINT_PATH': stock['t5x'],
      'MODEL_DIR': str(tmp_path / 'run'),
  }
  files = ours('runs/uptrain', 'runs/convert_on_restore')
  run('train', files, bindings | {'UPTRAIN_FRACTION': 0.25})
  first, _ = checkpoints.load_checkpoint(tmp_path / 'run' / 'checkpoint_25')
  assert not (tmp_path / 'run' / 'checkpoint_30').exists()
  run('train', files, bindings)  # Goes on; its own checkpoint is K = 2.
  check_uptrained(tmp_path / 'run', stock['t5x'])
  again, _ = checkpoints.load_checkpoint(tmp_path / 'run' / 'checkpoint_25')
  np.testing.assert_array_equal(
      again['decoder']['layers_1']['self_attention']['key']['kernel'],
      first['decoder']['layers_1']['self_attention']['key']['kernel'],
  )


def test_conversion_on_restore_with_a_new_optimizer(stock, tmp_path):
  run(
      'train',
      ours('runs/uptrain', 'runs/convert_on_restore', 'runs/new_optimizer'),
      {
          **_SMALL,
          **_UPTRAIN,
          'UPTRAIN_FRACTION': 0.25,
          'INITIAL_CHECKPOINT_PATH': stock['t5x'],
          'MODEL_DIR': str(tmp_path),
      },
  )
  # What was restored, which is saved before it is trained.
  restored, _ = checkpoints.load_checkpoint(tmp_path / 'checkpoint_20')
  convert(stock['t5x'], str(tmp_path / 'offline' / 'checkpoint_20'))
  offline, _ = checkpoints.load_checkpoint(
      tmp_path / 'offline' / 'checkpoint_20'
  )
  jax.tree.map(np.testing.assert_array_equal, restored, offline)


def test_finetuning_evaluation_and_inference(uptrained, tmp_path):
  from gqa_t5x.tasks import embedded

  task = {**_SMALL, 'MIXTURE_OR_TASK_NAME': 'docs_summarize'}
  model_dir = tmp_path / 'finetuned'
  run(
      'train',
      ours('runs/finetune'),
      {
          **task,
          'LOSS_NORMALIZING_FACTOR': 96,
          'INITIAL_CHECKPOINT_PATH': str(uptrained['t5x'] / 'checkpoint_30'),
          'MODEL_DIR': str(model_dir),
          'TRAIN_STEPS': 34,
          'EVAL_PERIOD': 2,
          'EVAL_STEPS': 1,
          'EVALUATOR_NUM_EXAMPLES': 4,
      },
  )
  rates = training_metrics(model_dir)['learning_rate']
  assert sorted(rates) == [32, 34]
  np.testing.assert_allclose(list(rates.values()), 0.001, rtol=1e-6)
  checkpoint = {'CHECKPOINT_PATH': str(model_dir / 'checkpoint_34')}
  run(
      'eval',
      ours('runs/eval'),
      {
          **task,
          **checkpoint,
          'EVAL_OUTPUT_DIR': str(tmp_path / 'eval'),
          'EVALUATOR_NUM_EXAMPLES': 4,
      },
  )
  (metrics,) = (tmp_path / 'eval').rglob('docs_summarize-metrics.jsonl')
  (line,) = metrics.read_text().splitlines()
  assert json.loads(line)['step'] == 34
  assert 0 <= json.loads(line)['rouge1'] <= 100
  run(
      'infer',
      ours('runs/infer'),
      {
          **task,
          **checkpoint,
          'INFER_OUTPUT_DIR': str(tmp_path / 'infer'),
          'BATCH_SIZE': 64,
      },
  )
  predictions = 'docs_summarize-predict.jsonl-00000-of-00001'
  lines = (tmp_path / 'infer' / predictions).read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert len(rows) == len(embedded.reference_targets('docs_summarize', 'test'))
  assert all(isinstance(row['prediction'], str) for row in rows)
  assert rows[0]['inputs']['targets_pretokenized']


def test_both_engines_take_up_each_others_runs(uptrained, tmp_path):
  """t5x at step 30, the embedded engine to 36, t5x again to 38."""
  model_dir = tmp_path / 'embedded'
  bindings = {
      **_SMALL,
      'MIXTURE_OR_TASK_NAME': 'docs_span_corruption',
      'MAX_CACHED_EXAMPLES': 200,
      'INITIAL_CHECKPOINT_PATH': str(
          uptrained['t5x-orbax'] / 'checkpoint_30'
      ),
      'MODEL_DIR': str(model_dir),
      'PRETRAIN_STEPS': 30,
      'UPTRAIN_FRACTION': 0.2,
      'WARMUP_STEPS': 10,
      'DEV_EXAMPLES': 8,
      'optimizer.Schedule.base': 1.0,
  }
  subprocess.run(
      [
          sys.executable, '-m', 'gqa_t5x', 'train',
          *(f'--gin_file={path}' for path in ours('local/uptrain')),
          *(f'--gin.{name}={value!r}' for name, value in bindings.items()),
      ],
      check=True,
  )  # pyformat: disable
  lines = (model_dir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  (rate,) = [row['learning_rate'] for row in rows if 'learning_rate' in row]
  assert 36**-0.5 < rate < 30**-0.5
  step = model_dir / 'checkpoints' / '36'
  for kind in ('t5x', 't5x-orbax'):
    as_t5x = tmp_path / kind / 'checkpoint_36'
    subprocess.run(
        [
            sys.executable, '-m', 'gqa_t5x', 'convert', '--input', str(step),
            '--output', str(as_t5x), '--num_kv_heads', '2', '--format', kind,
        ],
        check=True,
    )  # pyformat: disable
    model_dir = tmp_path / f'{kind}-run'
    run(
        'train',
        ours('runs/uptrain', 'runs/new_optimizer'),
        {
            **_SMALL,
            **_UPTRAIN,
            'PRETRAIN_STEPS': 36,
            'UPTRAIN_FRACTION': 0.06,
            'EVAL_PERIOD': 1,
            'OPTIMIZER_START': 36,
            'INITIAL_CHECKPOINT_PATH': str(as_t5x),
            'MODEL_DIR': str(model_dir),
        },
    )
    rates = training_metrics(model_dir)['learning_rate']
    np.testing.assert_allclose(
        [rates[37], rates[38]], [36**-0.5, 37**-0.5], rtol=1e-5
    )
    # What t5x restored, which it saves before it trains.
    restored, _ = checkpoints.load_checkpoint(model_dir / 'checkpoint_36')
    saved, _ = checkpoints.load_checkpoint(step)
    jax.tree.map(np.testing.assert_array_equal, restored, saved)


def test_two_hosts_infer_as_one_does(stock, tmp_path):
  bindings = {
      **_SMALL,
      'NUM_KV_HEADS': None,
      'BATCH_SIZE': 64,
      'MIXTURE_OR_TASK_NAME': 'docs_summarize',
      'CHECKPOINT_PATH': stock['t5x-orbax'],
      'utils.DatasetConfig.split': 'validation',
  }
  files = ours('runs/infer')
  run('infer', files, bindings | {'INFER_OUTPUT_DIR': str(tmp_path / 'one')})

  words = [f'--gin_file={path}' for path in files]
  bindings['INFER_OUTPUT_DIR'] = str(tmp_path / 'two')
  words += [f'--gin.{name}={value!r}' for name, value in bindings.items()]
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  processes = [
      subprocess.Popen(
          [sys.executable, '-m', 'gqa_t5x.multi_host', 't5x.infer', *words],
          env=os.environ | {
              'JAX_PLATFORMS': 'cpu', 'JAX_COORDINATOR_ADDRESS': address,
              'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': str(i),
          },
      )
      for i in range(2)
  ]  # pyformat: disable
  assert [process.wait(timeout=600) for process in processes] == [0, 0]
  one, two = (
      (tmp_path / name / 'docs_summarize-predict.jsonl-00000-of-00001')
      for name in ('one', 'two')
  )
  assert one.read_text() == two.read_text() != ''


@test_docs.in_a_checkout
def test_commands_of_documents_run(stock, tmp_path):
  """With the tiny model and a task that is everywhere."""
  text = {**_SMALL, **_UPTRAIN}
  task = {
      'MIXTURE_OR_TASK_NAME': 'docs_summarize',
      'TASK_FEATURE_LENGTHS': _SMALL['TASK_FEATURE_LENGTHS'],
      'NUM_PARTITIONS': 1,
  }
  tuning = {
      **_SMALL, **task, 'NUM_KV_HEADS': None, 'LOSS_NORMALIZING_FACTOR': 96,
      'TRAIN_STEPS': 22, 'EVAL_PERIOD': 2, 'EVAL_STEPS': 1,
      'EVALUATOR_NUM_EXAMPLES': 4,
  }  # pyformat: disable
  changes = {  # README's, then those of docs/tpu.md.
      'MHA_CHECKPOINT': stock['t5x'],
      '"DIR"': f'"{tmp_path}/readme"',
      'gs://BUCKET': str(tmp_path),
      'cnn_dailymail arxiv pubmed media_sum multi_news wmt14_en_de trivia_qa':
          'arxiv',
      '$EXPERIMENTS': 'gqa_t5x/gin_configs/experiments',
      '$PUBLIC/t5_1_1_large/checkpoint_1000000': stock['t5x'],
      '$PUBLIC/t5_1_1_xxl/checkpoint_1000000': stock['t5x'],
      # There is one host; `test_two_hosts_infer_as_one_does` has two.
      'gqa_t5x.multi_host t5x': 't5x',
      'checkpoint_1050000': 'checkpoint_30',
      'gqa8_xxl/arxiv/checkpoint_1100000': 'gqa8_xxl/checkpoint_30',
  }  # pyformat: disable
  smaller = [
      text,
      tuning,
      {**text, 'NUM_PARTITIONS': 1, 'trainer.Trainer.num_microbatches': 1},
      {**_SMALL, **task, 'EVALUATOR_NUM_EXAMPLES': 4},
      {
          **_SMALL, **task, 'BATCH_SIZE': 64,
          't5x_plugin.PjitPartitioner.model_parallel_submesh': None,
      },
  ]
  scripts = pathlib.Path(sys.executable).parent  # Where `python` is.
  blocks = [
      block
      for path in (test_docs.ROOT / 'README.md', test_docs.ROOT / 'docs/tpu.md')
      for block in test_docs.shell_blocks(path.read_text())
      if re.search(r'-m (gqa_t5x\.multi_host )?t5x\.', block)
  ]
  for block, bindings in zip(blocks, smaller, strict=True):
    for old, new in changes.items():
      block = block.replace(old, new)
    flags = ' '.join(
        shlex.quote(f'--gin.{name}={value!r}')
        for name, value in bindings.items()
    )
    script = re.sub(r'(python -m t5x\.[^\n]*)', rf'\1 {flags}', block)
    done = subprocess.run(
        ['bash', '-euc', script],
        capture_output=True, text=True, check=False,
        env=os.environ | {
            'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3',
            'PATH': f'{scripts}:{os.environ["PATH"]}',
        },
    )  # pyformat: disable
    assert done.returncode == 0, done.stderr[-3000:]
  check_uptrained(tmp_path / 'readme', stock['t5x'])
  check_uptrained(tmp_path / 'gqa8_xxl', stock['t5x'])
  assert (tmp_path / 'mha_large' / 'arxiv' / 'checkpoint_22').is_dir()
  evaluated = tmp_path / 'gqa8_xxl' / 'arxiv' / 'eval'
  assert list(evaluated.rglob('docs_summarize-metrics.jsonl'))
  assert list((tmp_path / 'figure6' / '8').glob('*-predict.jsonl-*'))
