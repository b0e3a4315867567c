# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Commands whose disk is full or read-only; a real one, in memory.

It is mounted in a namespace of its own, which most systems let any user make.
"""

import functools
import os
import pathlib
import shutil
import subprocess

import pytest

from gqa_t5x import pretrained
from gqa_t5x import storage
from gqa_t5x.errors import UserError
from tests import torture

# The command is run, has more space, and is run again.
_FULL = """
mount -t tmpfs -o size=$SIZE none "$DISK" || exit 77
"$@" 2> "$COPIES/errors"
echo $? > "$COPIES/status"
cp -r "$DISK" "$COPIES/full"
mount -o remount,size=1g "$DISK"
"$@" && cp -r "$DISK" "$COPIES/after"
"""
_READ_ONLY = """
mount -t tmpfs none "$DISK" && mount -o remount,ro "$DISK" || exit 77
exec "$@"
"""


def test_files_are_written_where_links_lead_and_over_nothing_else(tmp_path):
  (tmp_path / 'there').write_text('old')
  (tmp_path / 'link').symlink_to('there')
  storage.write_text(tmp_path / 'link', 'new')
  assert (tmp_path / 'link').is_symlink()
  assert (tmp_path / 'there').read_text() == 'new'
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(UserError, match='a device or a pipe; choose a name'):
    storage.write_text(tmp_path / 'pipe', 'new')
  assert (tmp_path / 'pipe').is_fifo()


@functools.cache
def _may_mount() -> bool:
  if not shutil.which('unshare'):
    return False
  command = ['unshare', '-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt']
  done = subprocess.run(command, capture_output=True, check=False)
  return done.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not _may_mount(), reason='no file system may be mounted here'
    ),
]


def _run(script, command, **environment):
  return subprocess.run(
      ['unshare', '-rm', 'sh', '-c', script, 'sh', *map(str, command)],
      env=os.environ | {k: str(v) for k, v in environment.items()},
      capture_output=True,
      text=True,
      check=False,
  )


def _size(folder: pathlib.Path) -> int:
  return sum(
      -(-p.stat().st_size // 4096) * 4096 for p in folder.rglob('*')
      if p.is_file()
  )  # pyformat: disable


JOBS = {
    'train': lambda: torture.train(12),
    'convert': lambda: torture.conversion(pretrained.CHECKPOINT_PATH, 2),
    'cache': torture.cache,
    'reproduce': torture.reproduce,
}


TAKE_MINUTES = ('cache', 'reproduce')


@pytest.mark.parametrize('name', JOBS)
def test_a_full_disk_loses_nothing(tmp_path, name):
  if name in TAKE_MINUTES and 'TORTURE' not in os.environ:
    pytest.skip('`make torture` runs it')
  job = JOBS[name]()
  whole = tmp_path / 'whole' / 'out'
  whole.parent.mkdir()
  subprocess.run(
      job.command(whole), check=True, env=os.environ | job.environment(whole)
  )
  disk, copies = tmp_path / 'disk', tmp_path / 'copies'
  disk.mkdir()
  copies.mkdir()
  place = disk / 'out'
  done = _run(
      _FULL, job.command(place), DISK=disk, COPIES=copies,
      SIZE=int(0.6 * _size(whole)), **job.environment(place),
  )  # pyformat: disable
  errors = (copies / 'errors').read_text()
  assert (copies / 'status').read_text() == '2\n', errors
  assert 'free some' in errors.splitlines()[-1]
  assert 'Traceback' not in errors
  job.check(copies / 'full' / 'out')
  assert done.returncode == 0, done.stderr
  assert job.product(copies / 'after' / 'out') == job.product(whole)


@pytest.mark.parametrize('name', JOBS)
def test_a_read_only_disk_is_one_line(tmp_path, name):
  job = JOBS[name]()
  disk = tmp_path / 'disk'
  disk.mkdir()
  place = disk / 'out'
  done = _run(
      _READ_ONLY, job.command(place), DISK=disk, **job.environment(place)
  )
  assert done.returncode == 2, done.stderr
  assert 'Read-only file system' in done.stderr.splitlines()[-1]
  assert 'Traceback' not in done.stderr
