# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stored references, and the scripts that made them."""

from collections.abc import Iterable
import pathlib
import tarfile


def pack(path: pathlib.Path, folder: pathlib.Path, names: Iterable[str]):
  """Writes folders to an archive, without who wrote the files, and when."""

  def nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ''
    return entry

  with tarfile.open(path, 'w:xz') as archive:
    for name in names:
      archive.add(folder / name, name, filter=nameless)
  print(f'{path}: {path.stat().st_size:,} bytes')


def unpack(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes an archive's folders into `folder`, and returns that."""
  with tarfile.open(path) as archive:
    archive.extractall(folder, filter='data')
  return folder
