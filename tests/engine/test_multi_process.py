# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two processes train and evaluate as one does, and wait for no dead one.

Run as a program this file is one of the processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import multi_host
from gqa_t5x.errors import PeerLostError
from tests.engine import conftest
from tests.engine.test_train import make_config
from tests.engine.test_train import read_metrics
from tests.engine.test_train import same


def _train(folder, cache_dir, index, count, port, steps, signals, model_axis):
  """Trains as process `index`; at step n of `signals` it gets signal s."""
  import jax

  from gqa_t5x.engine import data
  from gqa_t5x.engine import evaluate
  from gqa_t5x.engine import launch

  jax.config.update('jax_num_cpu_devices', 2 // count)
  jax.config.update('jax_disable_most_optimizations', True)
  if count > 1:
    os.environ |= {
        'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
        'JAX_NUM_PROCESSES': str(count),
        'JAX_PROCESS_ID': str(index),
    }
    multi_host.join_processes()
  train_batches = data.train_batches

  def with_signals(*args, start_step, **options):
    rows = train_batches(*args, start_step=start_step, **options)
    for n, batch in enumerate(rows, start_step):
      if str(n) in signals:
        os.kill(os.getpid(), signals[str(n)])
      yield batch

  data.train_batches = with_signals
  rows = data.TokenDataset.open(f'{cache_dir}/toy/validation')
  dev_loss = evaluate.dev_loss

  def with_outputs(model, params, batches):
    """Decodes too, as the metrics of a task do."""
    outputs = evaluate.predict(
        model,
        params,
        [rows.tokens('inputs', i, 11) for i in range(5)],
        batch_size=4,
        max_decode_len=7,
    )
    with open(f'{folder}/outputs{index}.json', 'w', encoding='utf-8') as file:
      json.dump(np.asarray(outputs).tolist(), file)
    return dev_loss(model, params, batches)

  evaluate.dev_loss = with_outputs
  launch.Train(
      model=conftest.make_model(dropout_rate=0.1),
      config=make_config(folder, total_steps=steps, model_axis=model_axis),
      source=launch.Cache(
          mixture_or_task_name='toy',
          task_feature_lengths={'inputs': 11, 'targets': 7},
          splits=('train', 'validation'),
          cache_dir=cache_dir,
          only_cached=True,
      ),
      batch_size=8,
      dev_examples=20,
      data_seed=5,
  ).run()


def _start(folder, arrays, count, steps=7, signals=None, model_axis=1):
  """Starts the processes; `signals` are those of the last one."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [
      subprocess.Popen(
          [
              sys.executable, '-m', __name__,
              json.dumps([
                  str(folder), arrays, index, count, port, steps,
                  signals or {} if index == count - 1 else {}, model_axis,
              ]),
          ],
          stderr=subprocess.PIPE,
          text=True,
          env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      )
      for index in range(count)
  ]  # pyformat: disable


def _end(processes, timeout=900):
  """Returns [(status, the end of standard error)]."""
  try:
    texts = [p.communicate(timeout=timeout)[1] for p in processes]
  finally:
    for p in processes:
      p.kill()
  return [(p.returncode, t[-2000:]) for p, t in zip(processes, texts)]


@pytest.fixture(scope='module', name='arrays')
def fixture_arrays(tmp_path_factory):
  folder = tmp_path_factory.mktemp('arrays')
  for seed, split in enumerate(('train', 'validation')):
    conftest.write_arrays(folder / 'toy' / split, seed=seed)
    (folder / f'toy.{split}.json').write_text(f'{{"toy/{split}": 1.0}}')
  return str(folder)


def _same_outputs(one, two):
  """Both processes have written what the one has."""
  expected = (one / 'outputs0.json').read_text()
  for index in range(2):
    assert (two / f'outputs{index}.json').read_text() == expected


def _params(run, step):
  path = str(run / 'checkpoints' / str(step))
  return checkpoints.load_checkpoint(path)[0]


@pytest.mark.slow
def test_two_processes_train_save_and_restore_as_one(arrays, tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  assert _end(_start(one, arrays, 1))[0][0] == 0
  for steps in (4, 7):  # The second time they restore.
    ended = _end(_start(two, arrays, 2, steps))
    assert [status for status, _ in ended] == [0, 0], ended
  assert [m for m in read_metrics(two) if m['step'] > 4] == [
      m for m in read_metrics(one) if m['step'] > 4
  ]
  assert any('dev/loss' in m for m in read_metrics(two))
  same(_params(one, 7), _params(two, 7))
  _same_outputs(one, two)


@pytest.mark.slow
def test_two_processes_share_a_model(arrays, tmp_path):
  """So both need the same rows of each batch."""
  one, two = tmp_path / 'one', tmp_path / 'two'
  for folder, count in ((one, 1), (two, 2)):
    ended = _end(_start(folder, arrays, count, 3, model_axis=2))
    assert [status for status, _ in ended] == [0] * count, ended
  assert read_metrics(two) == read_metrics(one)
  same(_params(one, 3), _params(two, 3))
  _same_outputs(one, two)


@pytest.mark.slow
def test_sigterm_of_one_stops_both_after_the_same_step(arrays, tmp_path):
  ended = _end(
      _start(tmp_path / 'run', arrays, 2, 400, {'3': signal.SIGTERM})
  )
  assert all('Preempted: stopped by SIGTERM' in text for _, text in ended)
  (last,) = (
      int(m['step']) for m in read_metrics(tmp_path / 'run')[-1:]
  )
  assert (tmp_path / 'run' / 'checkpoints' / str(last)).exists()
  assert 3 < last < 400
  _, metadata = checkpoints.load_checkpoint(
      str(tmp_path / 'run' / 'checkpoints' / str(last))
  )
  assert metadata['step'] == last


@pytest.mark.slow
def test_when_one_dies_the_other_ends_with_an_error(arrays, tmp_path):
  ended = _end(
      _start(tmp_path / 'run', arrays, 2, 400, {'5': signal.SIGKILL})
  )
  assert ended[1][0] == -signal.SIGKILL, ended
  status, text = ended[0]
  assert status != 0
  assert 'another process of this run has ended' in text, text


if __name__ == '__main__':
  try:
    _train(*json.loads(sys.argv[1]))
  except PeerLostError as lost:
    cli.leave(lost)  # As the command does.
