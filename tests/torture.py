# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Kills commands at random moments, and sees that nothing is lost or wrong.

After each SIGKILL the same command is started again in the same place. What is
there at any time has to be whole or absent, and what the command has made in
the end has to be what an uninterrupted one makes, bit for bit.

  python -m tests.torture --kills 50 --output results/torture.json
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x.benchmark import convert
from gqa_t5x.benchmark import models
from gqa_t5x.experiments import results

_GQA_T5X = (sys.executable, '-m', 'gqa_t5x')
_CLOCK = ('seconds_per_step', 'tokens_per_second')


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that is killed.

  Attributes:
    command: makes the command line of the folder that it is to write to, which
      does not exist at first.
    product: makes comparable values of what it has written.
    check: looks at what a kill has left; raises if it is half of something,
      and returns whether all was there already, so that nothing is left to do.
    latest: seconds after which a command that was started again is killed at
      the latest; None is half as long again as an uninterrupted one takes.
    environment: makes variables for it of the folder.
  """

  command: Callable[[pathlib.Path], Sequence[str]]
  product: Callable[[pathlib.Path], Any]
  check: Callable[[pathlib.Path], bool] = lambda folder: False
  latest: float | None = None
  environment: Callable[[pathlib.Path], dict[str, str]] = lambda folder: {}


def torture(
    job: Job, kills: int, folder: pathlib.Path, seed: int = 0
) -> dict[str, Any]:
  """Kills a job so many times, and compares each time that it gets through.

  Args:
    job: as named.
    kills: as named.
    folder: for all that is written; must exist.
    seed: of the moments.

  Returns:
    What was done, as JSON values.

  Raises:
    AssertionError: if something is lost, half written or different.
  """
  start = time.monotonic()
  assert _run(job, folder / 'whole', None), 'the job fails when left alone'
  took = time.monotonic() - start
  expected = job.product(folder / 'whole')
  rng = random.Random(seed)
  done, killed, starts = 0, 0, 0
  while not done or killed < kills:
    place = folder / str(done)
    while True:
      left = kills - killed
      moment = rng.uniform(0, job.latest or 1.5 * took) if left else None
      starts += 1
      if _run(job, place, moment):
        break
      killed += 1
      if job.check(place):
        break
    assert job.product(place) == expected, f'{place} differs'
    done += 1
  return {
      'kills': killed,
      'starts': starts,
      'finished_and_equal': done,
      'seconds_uninterrupted': took,
      'seed': seed,
  }


def _run(job: Job, place: pathlib.Path, kill_after: float | None) -> bool:
  """Returns whether the job came to its end; raises if it failed by itself."""
  with tempfile.TemporaryFile() as log:
    process = subprocess.Popen(
        job.command(place),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | job.environment(place),
    )
    try:
      status = process.wait(kill_after)
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      return False
    log.seek(0)
    assert status == 0, log.read().decode(errors='replace')[-2000:]
    return True


def _arrays(tree: Any) -> list[str]:
  """Returns a hash of each array."""
  import jax

  return [
      hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
      for leaf in jax.tree.leaves(tree)
  ]


def _metrics(run: pathlib.Path) -> list[dict]:
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  return [
      {k: v for k, v in json.loads(line).items() if k not in _CLOCK}
      for line in lines
  ]


def train(steps: int) -> Job:
  """Pre-training of a small model; a save every third step."""

  def command(folder):
    bindings = {
        'MODEL_DIR': f'"{folder}"',
        'PRETRAIN_STEPS': steps,
        'BATCH_SIZE': 2,
        'TASK_FEATURE_LENGTHS': '{"inputs": 64, "targets": 16}',
        'MAX_CACHED_EXAMPLES': 200,
        'launch.Train.dev_examples': 8,
        'train.TrainConfig.checkpoint_every': 3,
        'train.TrainConfig.eval_every': 6,
        'train.TrainConfig.log_every': 1,
        'network.T5Config.emb_dim': 32,
        'network.T5Config.mlp_dim': 32,
    }
    return [
        *_GQA_T5X, 'train',
        '--gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin',
        '--gin_file=gqa_t5x/gin_configs/local/pretrain.gin',
        *(f'--gin.{name}={value}' for name, value in bindings.items()),
    ]  # pyformat: disable

  def product(folder):
    saved = folder / 'checkpoints' / str(steps)
    params, _ = checkpoints.load_checkpoint(str(saved))
    return _arrays(params), _metrics(folder)

  def check(folder):
    for step in (folder / 'checkpoints').glob('*'):
      if step.name.isdigit():  # Whole, as every step has to be.
        checkpoints.load_checkpoint(str(step))
    return False

  # The first makes the corpus too; after it some ten seconds are enough.
  return Job(command, product, check, latest=12.0)


def conversion(source: pathlib.Path, num_kv_heads: int) -> Job:
  """Conversion of a checkpoint on disk."""

  def command(folder):
    return [
        *_GQA_T5X, 'convert', f'--input={source}', f'--output={folder}',
        f'--num_kv_heads={num_kv_heads}',
    ]  # pyformat: disable

  def product(folder):
    params, metadata = checkpoints.load_checkpoint(str(folder))
    beside = [p.name for p in folder.parent.glob(f'*{folder.name}.*')]
    return _arrays(params), metadata, beside

  def check(folder):
    if not folder.exists():
      return False
    checkpoints.open_checkpoint(str(folder)).source.check_all()
    return True

  return Job(command, product, check)


def cache() -> Job:
  """Tokenizing, without a corpus to begin with."""

  def command(folder):
    del folder
    return [
        *_GQA_T5X, 'cache', '--gin_file=gqa_t5x/gin_configs/local/cache.gin',
        '--gin.MAX_CACHED_EXAMPLES=200',
    ]  # pyformat: disable

  def product(folder):
    files = sorted((folder / 'token_arrays').rglob('*.*'))
    assert not [f for f in files if '.part' in f.name]
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if f.is_file() and not f.name.endswith('.lock')
    }

  return Job(
      command,
      product,
      environment=lambda folder: {'GQA_T5X_CACHE_DIR': str(folder)},
  )


def reproduce() -> Job:
  """Table 1 at scale smoke."""

  def command(folder):
    return [
        *_GQA_T5X, 'reproduce', '--scale=smoke', f'--output_dir={folder}'
    ]  # pyformat: disable

  def product(folder):
    found = results.load_results(folder)
    return [
        (name, model['loss'], model.get('tasks'))
        for name, model in sorted(found['models'].items())
    ] + [found['baselines']]

  def check(folder):
    for path in folder.glob('stages/*.json'):
      json.loads(path.read_text())
    return False

  return Job(command, product, check, latest=25.0)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--kills', type=int, default=50, metavar='N')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
      '--commands',
      type=lambda text: text.split(','),
      default=['convert', 'train', 'cache', 'reproduce'],
      metavar='C,C',
  )
  parser.add_argument('--output', required=True, metavar='JSON')
  args = parser.parse_args()
  found = {}
  words = [w for w in sys.argv[1:] if w != args.output]
  report = {
      'command': 'python -m tests.torture '
      + shlex.join([*words, 'torture.json']),
      'commands': found,
  } | provenance.environment()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    source = folder / 'source'
    convert.write_random(
        str(source), models.t5_1_1_config('small', None), 'orbax'
    )
    jobs = {
        'convert': conversion(source, 2),
        'train': train(60),
        'cache': cache(),
        'reproduce': reproduce(),
    }
    for name in args.commands:
      place = folder / name
      place.mkdir()
      found[name] = torture(jobs[name], args.kills, place, args.seed)
      print(name, found[name], flush=True)
      # After each: the next takes minutes.
      storage.write_json(args.output, report)


if __name__ == '__main__':
  main()
