# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: a hash of every byte of its folder.

A file beside the data that readers of the format pass over. Each range of each
other file has an entry, with the name of the array that the bytes belong to, so
that damage can be named. The file's text is determined by what it says, and one
of the things that it says is the hash of the rest.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import os
import pathlib
import threading
from typing import Any

from gqa_t5x import storage
from gqa_t5x.errors import UserError

NAME = 'gqa_t5x_manifest.json'
# What a Hugging Face folder may have besides weights, for its own programs.
TOKENIZER_FILES = (
    'spiece.model', 'tokenizer.json', 'tokenizer_config.json',
    'special_tokens_map.json', 'added_tokens.json', 'generation_config.json',
)  # pyformat: disable
# No reader of parameters opens these, so they may come later.
_MAY_BE_ADDED = {*TOKENIZER_FILES, 'README.md', 'LICENSE'}
_PIECE_BYTES = 2**20


def write(
    folder: pathlib.Path, entries: Sequence[Mapping], about: Mapping[str, Any]
) -> None:
  """Writes the manifest of a folder.

  Args:
    folder: as named.
    entries: {'array', 'file', 'begin', 'end', 'sha256'} each; 'array' is '' for
      bytes of none. Together they cover all files but the manifest.
    about: JSON values on where the checkpoint comes from.
  """
  entries = sorted(entries, key=lambda e: (e['file'], e['begin']))
  storage.write_text(
      folder / NAME, _text({'about': dict(about), 'entries': entries})
  )


def write_for_files(folder: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Writes the manifest of a folder that another program has written."""
  entries = [
      {
          'array': '',
          'file': file,
          'begin': 0,
          'end': path.stat().st_size,
          'sha256': hash_range(path),
      }
      for file, path in _files(folder).items()
      if path.name != NAME
  ]
  write(folder, entries, about)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the files of a checkpoint by relative path.

  What is hidden, or lies in a hidden folder, such as .git, is somebody else's;
  but for what Zarr says of an array.
  """
  paths = (path for path in folder.rglob('*') if path.is_file())
  found = {path.relative_to(folder): path for path in paths}
  return {
      file.as_posix(): path
      for file, path in sorted(found.items())
      if not any(
          part.startswith('.') and part not in ('.zarray', '.zattrs', '.zgroup')
          for part in file.parts
      )
  }


def _text(body: dict[str, Any]) -> str:
  digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
  return (
      json.dumps(body | {'sha256': digest}, indent=0, sort_keys=True) + '\n'
  )


class Reading:
  """The files of a checkpoint, checked as they are read.

  Without a manifest nothing is checked. With one, bytes are checked once, when
  they are first needed, so that they are then in memory for whoever reads them.

  Attributes:
    folder: as named.
    about: what the manifest says of the checkpoint; None without one.
    digest: the manifest's hash, which stands for all bytes; None likewise.
  """

  def __init__(
      self,
      folder: pathlib.Path,
      is_part: Callable[[str], bool] = lambda file: True,
  ):
    """Reads the manifest, and checks which files there are and their sizes.

    Args:
      folder: as named.
      is_part: whether a file, by relative path, belongs to a checkpoint of the
        format. Others are let be, unless the manifest lists them.
    """
    self.folder = folder
    self._is_part = is_part
    self.about, self.digest = None, None
    self._entries: dict[str, list[dict]] = {}
    self._lock = threading.Lock()
    self._checked: set[tuple[str, int]] = set()
    self.hashes: dict[str, str] = {}  # of whole files that were read
    if (folder / NAME).is_file():
      self._read()

  def _read(self) -> None:
    path = self.folder / NAME
    try:
      text = path.read_bytes().decode()
      parsed = json.loads(text)
      self.digest = parsed.pop('sha256')
      if _text(parsed) != text:
        raise ValueError('its text is not what its hash says')
      self.about = parsed['about']
      for entry in parsed['entries']:
        self._entries.setdefault(entry['file'], []).append(entry)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
      raise self._damage(NAME, 'the manifest has other bytes') from error
    found = _files(self.folder).keys() - {NAME}
    for file in sorted(self._entries.keys() | found):
      if file not in found:
        raise self._damage(self._what(file), f'{file} is missing')
      if file not in self._entries:
        if file in _MAY_BE_ADDED or not self._is_part(file):
          continue
        raise UserError(
            f'{self.folder} has a file {file} that its manifest does not list;'
            ' remove the file, or copy the checkpoint again'
        )
      size = (self.folder / file).stat().st_size
      wanted = self._entries[file][-1]['end']
      if size != wanted:
        raise self._damage(
            self._what(file), f'{file} has {size} bytes, expected {wanted}'
        )

  def _what(self, file: str) -> str:
    """Returns the array of a file that has just one, or the file."""
    names = {entry['array'] for entry in self._entries[file]}
    return names.pop() if len(names) == 1 and names != {''} else file

  def _damage(self, what: str, why: str) -> UserError:
    return UserError(
        f'the checkpoint in {self.folder} cannot be read: {what} is damaged'
        f' ({why}); copy it again from where it came (if another program'
        ' changed it, see docs/troubleshooting.md)'
    )

  def check(self, file: str, begin: int = 0, end: int | None = None) -> None:
    """Checks the entries of a file that overlap [begin, end)."""
    for entry in self._entries.get(file, ()):
      if entry['end'] <= begin or (end is not None and entry['begin'] >= end):
        continue
      key = (file, entry['begin'])
      if key not in self._checked:
        self._check(entry)
        self._checked.add(key)

  def _check(self, entry: dict) -> None:
    found = hash_range(
        self.folder / entry['file'], entry['begin'], entry['end']
    )
    if found != entry['sha256']:
      raise self._damage(
          entry['array'] or entry['file'],
          f'bytes {entry["begin"]} to {entry["end"]} of {entry["file"]}',
      )

  def check_copied(self, file: str, sha256: str) -> None:
    """Checks a whole file by a hash that was worked out while it was read."""
    with self._lock:
      self.hashes[file] = sha256
    entries = self._entries.get(file, ())
    if len(entries) == 1 and entries[0]['sha256'] != sha256:
      raise self._damage(self._what(file), f'bytes of {file}')
    self._checked.update((file, e['begin']) for e in entries[:1])

  def check_all(self, under: str = '') -> None:
    """Checks whatever was not checked yet of files whose path begins so."""
    for file in self._entries:
      if file.startswith(under):
        self.check(file)

  def source_hash(self) -> str:
    """Returns a hash of all files: the manifest's, or one worked out now."""
    if self.digest is not None:
      return self.digest
    total = hashlib.sha256()
    for file, path in _files(self.folder).items():
      if not self._is_part(file):
        continue
      digest = self.hashes.get(file) or hash_range(path)
      total.update(f'{digest}  {file}\n'.encode())
    return total.hexdigest()


def hash_range(
    path: pathlib.Path, begin: int = 0, end: int | None = None
) -> str:
  """Returns the SHA-256 of bytes of a file, in hexadecimal."""
  digest = hashlib.sha256()
  buffer = memoryview(bytearray(_PIECE_BYTES))
  left = path.stat().st_size - begin if end is None else end - begin
  with open(path, 'rb', buffering=0) as file:
    file.seek(begin)
    while left > 0:
      count = file.readinto(buffer[: min(left, _PIECE_BYTES)])
      if not count:
        break
      digest.update(buffer[:count])
      left -= count
  return digest.hexdigest()


def drop_cache(path: pathlib.Path) -> None:
  """Has the next reader of a file get its bytes from the disk."""
  if hasattr(os, 'posix_fadvise'):
    with open(path, 'rb') as file:
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
