# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds back what TensorFlow says of itself as it starts.

It only reads data here, and that it finds no GPU is of no use to anyone. Some
of its lines come before its logs are set up, so that no setting stops them.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile

_INFORMATION = re.compile(
    rb'(I\d{4} .*|WARNING: All log messages before absl::InitializeLog.*)\n'
)


def install() -> None:
  """From now on TensorFlow writes warnings and errors only."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):

  def find_spec(self, fullname, path, target=None):
    if fullname != 'tensorflow':
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec is not None and spec.loader is not None:
      spec.loader = _Loader(spec.loader)
    return spec


class _Loader(importlib.abc.Loader):

  def __init__(self, loader):
    self._loader = loader

  def create_module(self, spec):
    return self._loader.create_module(spec)

  def exec_module(self, module):
    module.__loader__ = module.__spec__.loader = self._loader
    with _without_information():
      self._loader.exec_module(module)


@contextlib.contextmanager
def _without_information():
  """Holds back standard error to the end, and drops information from it."""
  if sys.stderr is None:  # Closed by the shell.
    yield
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(stderr, 2)
      os.close(stderr)
      held.seek(0)
      for line in held:
        if not _INFORMATION.fullmatch(line):
          os.write(2, line)
