# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders that hold a checkpoint: complete or absent, read or refused."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import threading
from typing import Any

import numpy as np

from gqa_t5x import storage
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.errors import NO_SPACE
from gqa_t5x.errors import UserError

_THREADS = 4
# Of the threads, how many may hold blocks of values, and how many large ones;
# the others copy files.
_HOLDERS = threading.Semaphore(2)
_LARGE = threading.Lock()


class Writing:
  """A folder that is being written; all bytes are hashed on their way.

  Attributes:
    folder: where to write.
    about: what the manifest will say of the whole; may be added to.
  """

  def __init__(
      self,
      folder: pathlib.Path,
      about: Mapping[str, Any],
      source: pathlib.Path | None = None,
  ):
    """Starts with no files.

    Args:
      folder: as named.
      about: as named.
      source: of what is written, all of which has to be finite; where it is
        None nothing has to.
    """
    self.folder = folder
    self.about = dict(about)
    self._source = source
    self._entries: list[dict] = []
    self._lock = threading.Lock()
    self._tasks: list[tuple[lazy.LazyArray, Callable[[], None]]] = []

  def write(
      self, file: str, pieces: Iterable, *, array: str = '', begin: int = 0
  ) -> str:
    """Writes a range of a file; ranges may be written at the same time.

    Args:
      file: relative path.
      pieces: what to write, of the buffer protocol, one after another.
      array: the array that the bytes belong to.
      begin: offset of the first byte.

    Returns:
      The SHA-256 of the bytes, in hexadecimal.
    """
    path = self.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, at = hashlib.sha256(), begin
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
      for piece in pieces:
        rest = memoryview(piece).cast('B')
        digest.update(rest)
        while rest:
          count = os.pwrite(descriptor, rest, at)
          at, rest = at + count, rest[count:]
      # The disk starts on it, so that `finish` has little to wait for.
      if hasattr(os, 'posix_fadvise'):
        length = at - begin
        os.posix_fadvise(descriptor, begin, length, os.POSIX_FADV_DONTNEED)
    except OSError as error:
      error.filename = error.filename or str(path)
      raise
    finally:
      os.close(descriptor)
    entry = {
        'array': array,
        'file': file,
        'begin': begin,
        'end': at,
        'sha256': digest.hexdigest(),
    }
    with self._lock:
      self._entries.append(entry)
    return entry['sha256']

  def is_refused(self, array: np.ndarray) -> bool:
    """Whether values that are written have to be finite, and these are not."""
    return self._source is not None and not lazy.is_finite(array)

  def check(self, array: np.ndarray, name: str) -> np.ndarray:
    """Returns the array, some of the values of `name`.

    Raises:
      UserError: if it is refused.
    """
    if self.is_refused(array):
      raise not_finite(name, self._source)
    return array

  def write_json(self, file: str, value: Any) -> None:
    self.write(file, [(json.dumps(value, indent=2) + '\n').encode()])

  def later(self, leaf: lazy.LazyArray, task: Callable[[], None]) -> None:
    """Has `task`, which writes `leaf`, run by `run`."""
    self._tasks.append((leaf, task))

  @staticmethod
  @contextlib.contextmanager
  def holding(leaf: lazy.LazyArray) -> Iterator[None]:
    """Waits until there is memory for blocks of a leaf."""
    if leaf.is_ordered:  # Of these there is one at a time anyway.
      yield
      return
    with _HOLDERS, _LARGE if lazy.is_large(leaf) else contextlib.nullcontext():
      yield

  def run(self) -> None:
    """Does what is due: ordered leaves here, the others in threads beside.

    Raises:
      UserError: if there is no space for it.
    """
    tasks, self._tasks = self._tasks, []
    wanted = sum(leaf.nbytes for leaf, _ in tasks)
    _check_free(self.folder, wanted, storage.free_bytes(self.folder))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      futures = [pool.submit(task) for x, task in tasks if not x.is_ordered]
      try:
        for leaf, task in tasks:
          if leaf.is_ordered:
            task()
        for future in concurrent.futures.as_completed(futures):
          future.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise

  def finish(self) -> None:
    """Writes the manifest; everything is on the disk after that."""
    manifest.write(self.folder, self._entries, self.about)
    # Many at a time, since file systems then have one transaction for them.
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
      list(pool.map(_sync, [self.folder, *self.folder.rglob('*')]))


def finite(
    flat: Mapping[tuple[str, ...], Any], folder: pathlib.Path | str
) -> dict[tuple[str, ...], lazy.LazyArray]:
  """Returns the arrays by path, which raise `not_finite` as they are read."""

  def checked(path, leaf):
    def rows(start, stop):
      array = leaf.rows(start, stop)
      if not lazy.is_finite(array):
        raise not_finite('/'.join(path), folder)
      return array

    return lazy.LazyArray(leaf.shape, leaf.dtype, rows)

  return {
      path: checked(path, lazy.of(leaf))
      for path, leaf in lazy.arrays(flat).items()
  }


def not_finite(name: str, folder: pathlib.Path | str) -> UserError:
  """Returns what is raised where an array of a checkpoint has such values."""
  return UserError(
      f'expected finite values in {name} of {folder}, got NaN or infinity; take'
      ' another step, this one has diverged or is damaged'
  )


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def check_space(folder: pathlib.Path, wanted: int) -> None:
  """Raises UserError if the disk cannot take `wanted` bytes in a new folder.

  What an interrupted command has left beside it counts as free, since it goes
  before anything is written.
  """
  left = 0
  with contextlib.suppress(FileNotFoundError):  # Another may be writing there.
    left = sum(p.lstat().st_size for p in beside(folder).rglob('*'))
  _check_free(folder, wanted, left + storage.free_bytes(folder))


def _check_free(folder: pathlib.Path, wanted: int, free: int) -> None:
  if wanted > free:
    raise UserError(
        f'expected {wanted:,} bytes free in {folder.parent}, got {free:,}; free'
        ' some or write elsewhere'
    )


def beside(folder: pathlib.Path) -> pathlib.Path:
  """Returns where a folder is written before it has its name."""
  return folder.with_name(f'{folder.name}.gqa_t5x-incomplete')


@contextlib.contextmanager
def new_folder(
    folder: pathlib.Path,
    about: Mapping[str, Any],
    *,
    source: pathlib.Path | None = None,
    verify: bool = False,
) -> Iterator[Writing]:
  """Yields what to write to, which becomes `folder` if nothing is raised.

  It lies beside `folder`, so that renaming it moves no bytes. What a killed
  process left there is removed first; one that still writes is left alone.

  Args:
    folder: must not exist; its parent must.
    about: see `Writing`.
    source: see `Writing`.
    verify: whether all bytes are read back from the disk before the renaming.

  Raises:
    UserError: if another program writes there, or has done so by the end.
  """
  new = beside(folder)
  with storage.empty_folder(new):
    try:
      storage.check_absent(folder)  # Another may have had the lock before.
      writing = Writing(new, about, source)
      yield writing
      writing.finish()
      if verify:
        for path in new.rglob('*'):
          if path.is_file():
            manifest.drop_cache(path)
        manifest.Reading(new).check_all()
      storage.check_absent(folder)
      new.rename(folder)
      _sync(folder.parent)
    except BaseException:
      shutil.rmtree(new, ignore_errors=True)
      raise


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
  """Makes one UserError of whatever reading a damaged checkpoint raises."""
  try:
    yield
  except UserError:
    raise
  # Parsers of damaged bytes raise whatever they stumble over.
  except (
      ValueError,
      OSError,
      LookupError,
      TypeError,
      AttributeError,
  ) as error:
    # What is read may be written at once; that disk is not the checkpoint's.
    if getattr(error, 'errno', None) in NO_SPACE:
      raise
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    # TensorStore appends the specification of the array.
    reason = reason.split(' [tensorstore_spec=')[0]
    raise UserError(
        f'the checkpoint in {folder} cannot be read: {reason}; it is damaged'
        ' or incomplete, take another step or copy it again'
    ) from error
