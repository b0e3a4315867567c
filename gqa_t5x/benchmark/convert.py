# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How long converting a checkpoint takes, beside `cp -r` of the same files.

Each of both runs as a process of its own, in turn, after what earlier ones left
to be written is on the disk and the source is out of memory. `cp` is done when
the kernel has the bytes; a conversion, when the disk has them. So `cp` is timed
with a `sync` after it as well.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import pretrained
from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import names
from gqa_t5x.conversion import params
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config


def write_random(path: str, config: T5Config, format: str) -> None:  # pylint: disable=redefined-builtin
  """Writes a checkpoint of random float32 values, some at a time.

  Args:
    path: must not exist.
    config: of the model.
    format: as in `checkpoints.save_checkpoint`.
  """

  def random(number, shape):
    def rows(start, stop):
      rng = np.random.default_rng([number, start])
      return rng.standard_normal((stop - start, *shape[1:]), np.float32)

    return lazy.LazyArray(shape, np.float32, rows)

  shapes = {p: array.shape for p, array in names.arrays(config).items()}
  # Calibration reads text with it, although it is too small for most sizes.
  vocabulary = pathlib.Path(pretrained.VOCABULARY_PATH).read_bytes()
  checkpoints.write_checkpoint(
      path,
      {p: random(i, shape) for i, (p, shape) in enumerate(shapes.items())},
      format=format,
      metadata={
          'config': config.to_dict(),
          'step': 0,
          'conversion': None,
          'vocabulary_sha256': hashlib.sha256(vocabulary).hexdigest(),
      },
      param_states=None,
      about={},
  )


def benchmark_convert(
    config: T5Config,
    *,
    num_kv_heads: int,
    folder: str | None = None,
    format: str = 't5x',  # pylint: disable=redefined-builtin
    target_format: str | None = None,
    method: str = 'mean',
    calibration_sequences: int | None = None,
    num_repeats: int = 3,
    copy: bool = True,
) -> dict[str, Any]:
  """Times conversions of a random checkpoint.

  Args:
    config: of the model.
    num_kv_heads: of the converted checkpoint.
    folder: where to work; needs twice the checkpoint's size, which is 11 GB for
      xl and 45 GB for xxl. None is the system's temporary folder.
    format: of the source.
    target_format: of the target; None is the source's.
    method: of `conversion.convert_params`.
    calibration_sequences: of text that the method is given, read with the
      vocabulary that ships; None is no text.
    num_repeats: of both; medians count.
    copy: whether to time `cp -r` too.

  Returns:
    JSON values: `config` and the arguments; `source_bytes`, `target_bytes`; for
    each run `convert_seconds`, `convert_cpu_seconds`, `cp_seconds` and
    `cp_sync_seconds`; `peak_bytes_above_start`, the largest resident memory of
    a conversion less that before it, with everything imported;
    `throughput_of_cp`, cp's median time by the conversion's, and
    `throughput_of_cp_sync`; and what `provenance.environment` says.

  Raises:
    UserError: if the heads do not divide, nothing would change, the method or a
      format is unknown, or there is no such folder.
  """
  changing = params.Conversion(  # Checks them, before anything is written.
      names.arrays(config),
      num_heads=config.num_heads,
      num_kv_heads=num_kv_heads,
      method=method,
  ).shapes
  if not changing and target_format in (None, format):
    raise UserError(
        f'expected fewer than {num_kv_heads} key/value heads, which the model'
        ' has, or another target_format; nothing would change'
    )
  if folder is not None:
    folder = storage.local_path(folder)
  if not pathlib.Path(folder or '.').is_dir():
    raise UserError(f'expected a folder to write to, but {folder} is none')
  options = {
      'num_kv_heads': num_kv_heads, 'format': target_format, 'method': method,
      'measure': True,  # As the command does.
  }
  runs = {'convert': [], 'cp': [], 'cp_sync': []}
  details = []
  with _scratch(folder) as root:
    source = root / 'source' / 'checkpoint_0'
    target = root / 'target' / 'checkpoint_0'
    checkpoints.check_target(str(target), target_format or format, 0)
    write_random(str(source), config, format)
    for _ in range(num_repeats):
      if copy:
        _settle(source)
        start = time.perf_counter()
        target.parent.mkdir()
        subprocess.run(['cp', '-r', source, target], check=True)
        runs['cp'].append(time.perf_counter() - start)
        os.sync()
        runs['cp_sync'].append(time.perf_counter() - start)
        shutil.rmtree(target.parent)
      _settle(source)
      found = _convert(source, target, calibration_sequences, options)
      runs['convert'].append(found['seconds'])
      details.append(found)
      target_bytes = _size(target)
      shutil.rmtree(target.parent)
    source_bytes = _size(source)
  medians = {k: statistics.median(v) for k, v in runs.items() if v}
  return {
      'config': config.to_dict(),
      'num_kv_heads': num_kv_heads,
      'format': format,
      'target_format': target_format or format,
      'method': method,
      'calibration_sequences': calibration_sequences,
      'source_bytes': source_bytes,
      'target_bytes': target_bytes,
      **{f'{name}_seconds': v for name, v in runs.items()},
      'convert_cpu_seconds': [d['cpu_seconds'] for d in details],
      'peak_bytes_above_start': max(
          (d['peak'] for d in details if d['peak'] is not None),
          default=None,
      ),
      **{
          f'throughput_of_{name}': seconds / medians['convert']
          for name, seconds in medians.items()
          if name != 'convert'
      },
      **provenance.environment(),
  }


@contextlib.contextmanager
def _scratch(parent: pathlib.Path | None) -> Iterator[pathlib.Path]:
  """Gives a folder that is removed after, by SIGTERM too.

  Python would end at once, and leave the folder and a conversion that fills it.
  """

  def stop(number, frame):
    del frame
    raise SystemExit(128 + number)  # As shells have it.

  before = signal.signal(signal.SIGTERM, stop)
  root = pathlib.Path(tempfile.mkdtemp(prefix='gqa_t5x_convert_', dir=parent))
  try:
    yield root
  finally:
    shutil.rmtree(root, ignore_errors=True)
    signal.signal(signal.SIGTERM, before)


def _size(folder: pathlib.Path) -> int:
  return sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())


def _settle(source: pathlib.Path) -> None:
  """Writes out what is due, and has the source read from the disk again."""
  os.sync()
  for path in source.rglob('*'):
    if path.is_file():
      manifest.drop_cache(path)


def _convert(source, target, sequences, options) -> dict[str, Any]:
  """Converts in a process of its own; returns what that prints."""
  words = [json.dumps([str(source), str(target), sequences, options])]
  done = subprocess.run(
      [sys.executable, '-m', __name__, *words],
      capture_output=True, text=True, check=False,
  )  # pyformat: disable
  if done.returncode:
    last = done.stderr.strip().splitlines()[-1:]
    raise UserError(f'the conversion has failed: {"".join(last)}')
  return json.loads(done.stdout.splitlines()[-1])


def _peak_bytes() -> int | None:
  """The largest resident memory so far; None where it is not Linux.

  What `resource` says has the memory of the process that started this one.
  """
  try:
    text = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  except OSError:
    return None
  found = re.search(r'VmHWM:\s+(\d+) kB', text)
  return found and int(found[1]) * 1024


def _main(arguments: str) -> None:
  """Converts, and prints what it took as JSON."""
  from gqa_t5x import conversion

  source, target, sequences, options = json.loads(arguments)
  if sequences:
    from gqa_t5x.conversion import calibration_text

    options['calibrate'] = functools.partial(
        calibration_text.covariances,
        source,
        None,
        pretrained.VOCABULARY_PATH,
        num_sequences=sequences,
    )
  before, cpu = _peak_bytes(), time.process_time()
  start = time.perf_counter()
  conversion.convert_checkpoint(source, target, **options)
  seconds = time.perf_counter() - start
  after = _peak_bytes()
  print(
      json.dumps({
          'seconds': seconds,
          'cpu_seconds': time.process_time() - cpu,
          'peak': after and after - before,
      })
  )


def to_text(found: dict[str, Any]) -> str:
  """Returns `benchmark_convert`'s result as lines for a person."""
  peak = found['peak_bytes_above_start']
  memory = f'{peak / 2**30:.2f} GiB above the start' if peak else 'unknown'
  lines = [
      f'{found["source_bytes"] / 1e9:.2f} GB'
      f' {found["format"]} -> {found["target_bytes"] / 1e9:.2f} GB'
      f' {found["target_format"]}, K={found["num_kv_heads"]} by'
      f' {found["method"]}, peak memory {memory}'
  ]
  for name in ('convert', 'cp', 'cp_sync'):
    if times := found[f'{name}_seconds']:
      median = statistics.median(times)
      lines.append(
          f'{name:<8} {median:7.2f} s'
          f'  {found["source_bytes"] / median / 1e9:6.2f} GB/s'
          f'  ({min(times):.2f} to {max(times):.2f} s)'
      )
  return '\n'.join(lines)


if __name__ == '__main__':
  _main(sys.argv[1])
