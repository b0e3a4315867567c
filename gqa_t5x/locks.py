# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps two programs from writing to one place.

A lock ends with its process, however that ends.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
from typing import IO

from gqa_t5x.errors import UserError

NAME = '.lock'


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
      where = path.parent if path.name == NAME else path
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
  with locked(folder / NAME) as file:
    file.truncate(0)
    file.write(f'{os.getpid()}\n'.encode())
    file.flush()
    yield
