# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a run when its machine, its disk or its loss fails."""

import dataclasses
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import storage
from gqa_t5x.checkpoints import manifest
from gqa_t5x.engine import checkpointing
from gqa_t5x.engine import optimizer
from gqa_t5x.engine import train
from gqa_t5x.errors import Preempted
from gqa_t5x.errors import UserError
from tests.engine import conftest
from tests.engine.test_train import make_config
from tests.engine.test_train import read_metrics
from tests.engine.test_train import same


def flip(path: pathlib.Path, at: int | None = None) -> None:
  """Changes one bit of a file; in its middle, if nothing else is said."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if at is None else at] ^= 1
  path.write_bytes(content)


def largest_file(folder: pathlib.Path) -> pathlib.Path:
  files = (p for p in folder.rglob('*') if p.is_file())
  return max(files, key=lambda p: (p.stat().st_size, p))


@pytest.fixture
def ctrl_c():
  """Ctrl-C as usual; what a shell runs in the background ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ('number', 'count', 'error'),
    [
        # The second comes before the first was acted upon.
        (signal.SIGTERM, 2, Preempted),
        (signal.SIGINT, 1, KeyboardInterrupt),
    ],
)
@pytest.mark.usefixtures('ctrl_c')
def test_a_signal_saves_and_the_same_call_goes_on(
    tmp_path, batches, number, count, error
):
  model = conftest.make_model(dropout_rate=0.2)
  whole = train.train(model, make_config(tmp_path / 'whole'), batches)

  def stopped(start):
    for n, batch in enumerate(batches(start)):
      if n == 4:
        for _ in range(count):
          os.kill(os.getpid(), number)
      yield batch

  config = make_config(tmp_path / 'stopped', best_metric='x')
  before = signal.getsignal(number)
  with pytest.raises(error, match='step 5 of 7 is saved'):
    train.train(model, config, stopped, lambda *_: {'x': 1.0})
  assert signal.getsignal(number) is before
  assert (tmp_path / 'stopped' / 'checkpoints' / '5').exists()
  resumed = train.train(model, config, batches, lambda *_: {'x': 1.0})
  same(whole.params, resumed.params)
  same(whole.opt_state, resumed.opt_state)
  losses = [
      [m['loss'] for m in read_metrics(tmp_path / run) if 'loss' in m]
      for run in ('whole', 'stopped')
  ]
  assert losses[0] == losses[1]


@pytest.mark.usefixtures('ctrl_c')
def test_a_second_ctrl_c_stops_at_once(tmp_path, batches):
  def stopped(start):
    del start
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGINT)
    yield next(batches(0))

  with pytest.raises(KeyboardInterrupt, match='^$'):
    train.train(conftest.make_model(), make_config(tmp_path), stopped)
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  assert not (tmp_path / 'checkpoints' / '1').exists()


def test_goes_on_from_the_step_before_a_damaged_one(tmp_path, batches, caplog):
  model = conftest.make_model()
  whole = train.train(
      model, make_config(tmp_path / 'whole', total_steps=9), batches
  )
  run = tmp_path / 'run'
  train.train(model, make_config(run, total_steps=6), batches)
  flip(largest_file(run / 'checkpoints' / '6'))
  resumed = train.train(model, make_config(run, total_steps=9), batches)
  assert 'set aside in' in caplog.text and 'going on at 3' in caplog.text
  same(whole.params, resumed.params)
  assert os.listdir(run / 'damaged') == ['6']  # Nothing is lost.
  assert read_metrics(run) == read_metrics(tmp_path / 'whole')


def test_a_run_without_a_whole_step_is_left_alone(tmp_path, batches):
  model, config = conftest.make_model(), make_config(tmp_path, total_steps=6)
  train.train(model, config, batches)
  for step in ('3', '6'):
    flip(largest_file(tmp_path / 'checkpoints' / step))
  files = sorted(tmp_path.rglob('*'))
  with pytest.raises(UserError, match='no checkpoint of .* is whole'):
    train.train(model, config, batches)
  assert sorted(tmp_path.rglob('*')) == files


def test_a_changed_bit_in_any_file_of_a_step_is_found(tmp_path, batches):
  model = conftest.make_model()
  train.train(model, make_config(tmp_path, total_steps=1), batches)
  folder = tmp_path / 'checkpoints' / '1'
  files = [p for p in folder.rglob('*') if p.is_file() and p.stat().st_size]
  assert len(files) > 5
  for path in files:
    for at in (0, None, -1):
      flip(path, at)
      with pytest.raises(UserError, match='damaged'):
        manifest.Reading(folder).check_all()
      flip(path, at)
  manifest.Reading(folder).check_all()
  # Whoever reads the step as a checkpoint is told as well.
  flip(largest_file(folder / 'params'))
  with pytest.raises(UserError, match='damaged'):
    checkpoints.load_checkpoint(str(folder))


def test_a_step_from_before_there_were_manifests_is_taken(tmp_path, batches):
  model = conftest.make_model()
  train.train(model, make_config(tmp_path, total_steps=3), batches)
  (tmp_path / 'checkpoints' / '3' / manifest.NAME).unlink()
  state = train.train(model, make_config(tmp_path, total_steps=4), batches)
  assert int(state.step) == 4


def test_only_an_empty_folder_of_checkpoints_is_a_run_just_begun(
    tmp_path, batches
):
  model = conftest.make_model()
  (tmp_path / 'begun' / 'checkpoints').mkdir(parents=True)  # Killed there.
  train.train(model, make_config(tmp_path / 'begun', total_steps=1), batches)
  (tmp_path / 'other' / 'checkpoints' / '7').mkdir(parents=True)
  with pytest.raises(UserError, match='checkpoints of another program'):
    train.train(model, make_config(tmp_path / 'other'), batches)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('config.json', '{"model_type": "t5"}'),  # Of Hugging Face.
        ('config.json', '{"mod'),
        ('metrics.jsonl', '{"step": 3}\n'),
    ],
)
def test_files_of_another_program_are_not_written_over(
    tmp_path, batches, name, text
):
  run = tmp_path / 'run'
  run.mkdir()
  (run / name).write_text(text)
  with pytest.raises(UserError, match=f'has {name} of another program'):
    train.train(conftest.make_model(), make_config(run), batches)
  assert (run / name).read_text() == text
  assert [path.name for path in run.iterdir()] == [name]


def test_a_second_program_in_the_folder_is_refused(tmp_path, batches):
  code = (
      'import pathlib, sys; from gqa_t5x import storage\n'
      'with storage.locked_folder(pathlib.Path(sys.argv[1])):\n'
      '  print("held", flush=True); sys.stdin.read()'
  )
  with subprocess.Popen(
      [sys.executable, '-c', code, str(tmp_path)],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  ) as other:  # pyformat: disable
    assert other.stdout.readline() == 'held\n'
    files = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match='another program is writing'):
      train.train(conftest.make_model(), make_config(tmp_path), batches)
    assert sorted(tmp_path.rglob('*')) == files
    other.kill()
  # However it ended, the folder is free again.
  with storage.locked_folder(tmp_path):
    pass
  train.train(
      conftest.make_model(), make_config(tmp_path, total_steps=1), batches
  )


def _poisoned(batches, bad):
  """Batches of which number `bad` has a loss that is not finite."""

  def from_step(start):
    for n, batch in enumerate(batches(start), start):
      if n == bad:
        weights = np.full_like(batch['decoder_loss_weights'], np.inf)
        batch = batch | {'decoder_loss_weights': weights}
      yield batch

  return from_step


def _without(batches, left_out):
  def from_step(start):
    del start
    return (b for n, b in enumerate(batches(0)) if n != left_out)

  return from_step


def test_a_bad_step_is_skipped_where_that_is_asked(tmp_path, batches):
  model = conftest.make_model()
  config = make_config(tmp_path / 'skip', skip_bad_steps=True, log_every=2)
  skipped = train.train(model, config, _poisoned(batches, 3))
  assert int(skipped.step) == 7
  clean = train.train(
      model,
      # Of the same program, or rounding differs.
      make_config(tmp_path / 'clean', total_steps=6, skip_bad_steps=True),
      _without(batches, 3),
  )
  same(clean.params, skipped.params)
  same(clean.opt_state, skipped.opt_state)
  lines = read_metrics(tmp_path / 'skip')
  assert {m['step']: m['skipped_steps'] for m in lines} == {
      2: 0, 3: 0, 4: 1, 6: 0, 7: 0,
  }  # pyformat: disable
  # Step 4 is a line of its own, and has no loss.
  assert [m['step'] for m in lines if m['loss'] is None] == [4]


def test_a_bad_step_stops_and_the_same_run_may_skip_it(tmp_path, batches):
  model, poisoned = conftest.make_model(), _poisoned(batches, 4)
  with pytest.raises(UserError, match='that of step 5 .* checkpoint: step 3'):
    train.train(model, make_config(tmp_path), poisoned)
  assert os.listdir(tmp_path / 'checkpoints') == ['3']
  config = make_config(tmp_path, skip_bad_steps=True)
  state = train.train(model, config, poisoned)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_a_loss_above_the_limit_is_bad(tmp_path, batches):
  config = make_config(tmp_path, max_loss=0.5)
  with pytest.raises(UserError, match='loss up to 0.5, but that of step 1'):
    train.train(conftest.make_model(), config, batches)


@pytest.mark.parametrize('log_every', [1, 3])
def test_steps_that_are_all_bad_stop_the_run(tmp_path, batches, log_every):
  config = make_config(
      tmp_path, skip_bad_steps=True, max_skipped_steps=4, log_every=log_every,
      schedule=optimizer.Schedule('constant', float('inf')),
  )  # pyformat: disable
  # Its first step is finite, and takes the parameters away.
  with pytest.raises(UserError, match='every step from 2 to 5 was bad'):
    train.train(conftest.make_model(), config, batches)


def test_a_step_that_is_cut_off_is_not_taken_for_one(tmp_path, batches):
  model = conftest.make_model()
  whole = train.train(model, make_config(tmp_path / 'whole'), batches)
  run = tmp_path / 'run'
  train.train(model, make_config(run, total_steps=3), batches)
  saved = checkpointing.Checkpoints(str(run), 2)
  # What a kill leaves, by Orbax's own naming.
  (run / 'checkpoints' / '6.orbax-checkpoint-tmp').mkdir()
  (run / 'checkpoints' / '6.orbax-checkpoint-tmp' / 'params').write_bytes(b'x')
  assert saved.latest_good_step() == 3
  saved.close()
  resumed = train.train(model, make_config(run), batches)
  same(whole.params, resumed.params)


def test_a_step_is_removed_under_another_name(tmp_path, batches, monkeypatch):
  """A kill while it is removed leaves nothing that looks like a step."""
  removed = []
  remove = shutil.rmtree

  def killed(path, *args, **kwargs):
    if pathlib.Path(path).parent.name == 'checkpoints':
      removed.append(pathlib.Path(path).name)
      raise KeyboardInterrupt
    remove(path, *args, **kwargs)

  model = conftest.make_model()
  whole = train.train(model, make_config(tmp_path / 'whole'), batches)
  config = make_config(tmp_path / 'run', keep=1)
  monkeypatch.setattr(shutil, 'rmtree', killed)
  with pytest.raises(KeyboardInterrupt):
    train.train(model, dataclasses.replace(config, total_steps=6), batches)
  monkeypatch.undo()
  assert not any(name.isdigit() for name in removed)
  for path in (tmp_path / 'run' / 'checkpoints').iterdir():
    if path.name.isdigit():
      checkpoints.load_checkpoint(str(path))
  same(whole.params, train.train(model, config, batches).params)
  assert os.listdir(tmp_path / 'run' / 'checkpoints') == ['7']


def test_a_clock_that_goes_backwards_changes_nothing(
    tmp_path, batches, monkeypatch
):
  model = conftest.make_model(dropout_rate=0.2)
  whole = train.train(model, make_config(tmp_path / 'whole'), batches)
  run = tmp_path / 'run'
  clock = itertools.count(2e9, -3600)
  monkeypatch.setattr(time, 'time', lambda: next(clock))
  monkeypatch.setattr(time, 'time_ns', lambda: int(next(clock) * 1e9))
  train.train(model, make_config(run, total_steps=3), batches)
  train.train(model, make_config(run, total_steps=6), batches)
  # The newest by its number is the oldest by its files.
  for path in (run / 'checkpoints' / '6').rglob('*'):
    os.utime(path, (0, 0))
  resumed = train.train(model, make_config(run), batches)
  same(whole.params, resumed.params)
  same(whole.opt_state, resumed.opt_state)
  assert next(clock) < 2e9  # It was looked at.
