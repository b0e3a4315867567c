# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all, and by one program at a time.

A lock ends with its process, however that ends.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
from typing import IO

from gqa_t5x.errors import UserError

LOCK = '.lock'


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file in UTF-8, beside, and gives it its name when it is whole."""
  path = pathlib.Path(path)
  beside = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    beside.write_text(text, encoding='utf-8')
    os.replace(beside, path)
  finally:
    beside.unlink(missing_ok=True)


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
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
      where = path.parent if path.name == LOCK else path
      raise UserError(
          f'another program is writing to {where}; wait until it ends, or'
          ' choose another place'
      ) from error
    yield file


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
