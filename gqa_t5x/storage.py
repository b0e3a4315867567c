# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all, and by one program at a time.

A lock ends with its process, however that ends.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import math
import os
import pathlib
import re
import shutil
import sys
import uuid
from typing import IO, Any

from gqa_t5x.errors import UserError

LOCK = '.lock'


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns where a path of a user's is, whose ~ is the home folder.

  Raises:
    UserError: if it is empty, not UTF-8, or a URL, as of a bucket.
  """
  if not str(path):
    raise UserError(
        'expected a path, got an empty one; look for a variable of the shell'
        ' that is not set'
    )
  try:
    str(path).encode()
  except UnicodeEncodeError as error:
    raise UserError(
        f'expected a path in UTF-8, got {str(path)!a}; rename what it names'
    ) from error
  if re.match(r'[A-Za-z][\w+.-]+:/', str(path)):
    raise UserError(
        f'expected a path of this machine, got {path}; copy what is there, with'
        ' `gcloud storage cp -r` for a gs:// one, or mount it'
    )
  return pathlib.Path(path).expanduser()


def output_file(path: str | os.PathLike) -> pathlib.Path:
  """Returns where a file is to be written; nothing is made.

  Raises:
    UserError: as `local_path`, and if it is a folder or a device.
  """
  # What a link leads to is written. `resolve` raises for a loop of links.
  found = pathlib.Path(os.path.realpath(local_path(path)))
  if found.is_dir():
    raise UserError(
        f'expected the name of a file to write, got the folder {path}; add a'
        ' name'
    )
  if found.exists() and not found.is_file():
    raise UserError(
        f'expected the name of a file to write, got {path}, a device or a pipe;'
        ' choose a name'
    )
  return found


def check_absent(path: str | os.PathLike) -> None:
  """Raises UserError if there is something where an output is to go."""
  if os.path.lexists(local_path(path)):
    raise UserError(
        f'{path} exists already; remove it or choose another output'
    )


def free_bytes(path: pathlib.Path) -> int:
  """Returns what is free on the disk of a path, which may not be there yet."""
  while not path.exists():
    path = path.parent
  usage = shutil.disk_usage(path)
  return usage.free if usage.total else sys.maxsize  # None is told of /proc.


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file in UTF-8, beside, and gives it its name when it is whole.

  Its folder is made if there is none; a file that is replaced leaves its
  permissions.
  """
  path = output_file(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Processes of containers may have the same number.
  beside = path.with_name(f'.{uuid.uuid4().hex}.tmp')
  try:
    with open(beside, 'w', encoding='utf-8') as file:
      file.write(text)
      # The name must not reach the disk before the text.
      file.flush()
      os.fsync(file.fileno())
    if path.exists():
      shutil.copymode(path, beside)
    os.replace(beside, path)
  finally:
    beside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a file of JSON, as `write_text` does; values as in `plain`."""
  text = json.dumps(
      plain(value), indent=1, ensure_ascii=False, allow_nan=False
  )
  write_text(path, text + '\n')


def plain(value: Any) -> Any:
  """Returns JSON's values: lists for arrays, None for NaN and infinity."""
  if isinstance(value, dict):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  if hasattr(value, 'tolist'):  # NumPy and JAX arrays and scalars.
    return plain(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  return value


@contextlib.contextmanager
def locked(path: pathlib.Path, *, wait: bool = False) -> Iterator[IO[bytes]]:
  """Opens a file to read and to append, which is made if there is none.

  Args:
    path: of a file in a folder that exists.
    wait: whether to wait for another program that has it open so.

  Raises:
    UserError: if another program has it open so, and is not waited for.
  """
  with open(path, 'a+b') as file:
    _lock(file.fileno(), path.parent if path.name == LOCK else path, wait)
    yield file


def _lock(descriptor: int, where: pathlib.Path, wait: bool = False) -> None:
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError as error:
    raise UserError(
        f'another program is writing to {where}; wait until it ends, or'
        ' choose another place'
    ) from error


@contextlib.contextmanager
def locked_folder(folder: pathlib.Path) -> Iterator[None]:
  """Has a folder for oneself, which is made if there is none; as `locked`.

  A file `.lock` with the number of the process stays behind.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with locked(folder / LOCK) as file:
    file.truncate(0)
    file.write(f'{os.getpid()}\n'.encode())
    file.flush()
    yield


@contextlib.contextmanager
def made_once(folder: pathlib.Path) -> Iterator[pathlib.Path | None]:
  """Gives a folder to fill, which takes its name where nothing is raised.

  Of several programs one makes it, and the others wait until it has. A file
  `.NAME.lock` stays beside it.

  Args:
    folder: what is wanted.

  Yields:
    An empty folder beside it, or None if it is there already.
  """
  if not folder.exists():  # Else nothing is written, as in a read-only cache.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f'.{folder.name}.lock'), wait=True):
      if not folder.exists():
        beside = folder.with_name(f'.{folder.name}.part')
        shutil.rmtree(beside, ignore_errors=True)  # What a kill left.
        beside.mkdir()
        try:
          yield beside
          beside.rename(folder)
        except BaseException:
          shutil.rmtree(beside, ignore_errors=True)
          raise
        return
  yield None


@contextlib.contextmanager
def empty_folder(folder: pathlib.Path) -> Iterator[None]:
  """Has a folder for oneself, emptied, which may be renamed meanwhile.

  Args:
    folder: made if there is none; its parent must exist.

  Raises:
    UserError: if another program has it so.
  """
  folder.mkdir(exist_ok=True)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    _lock(descriptor, folder)
    # Whoever had it may have renamed it after it was opened here.
    if os.fstat(descriptor).st_ino != folder.stat().st_ino:
      raise UserError(f'another program is writing to {folder}; try again')
    for path in folder.iterdir():
      if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
      else:
        path.unlink()
    yield
  finally:
    os.close(descriptor)
