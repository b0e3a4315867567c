# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run of the engine, of which an experiment shows the command."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import pathlib
import re
import shlex
from typing import Any


@dataclasses.dataclass(frozen=True)
class GinRun:
  """A run of the engine: as a command, and in this process."""

  mode: str
  gin_files: Sequence[str]
  bindings: Mapping[str, Any]

  def _pairs(self) -> list[str]:
    return [f'{name}={value!r}' for name, value in self.bindings.items()]

  def command(self) -> str:
    words = ['gqa-t5x', self.mode]
    words += [f'--gin_file={path}' for path in self.gin_files]
    words += [shlex.quote(f'--gin.{pair}') for pair in self._pairs()]
    return ' '.join(words)

  def recipe(self) -> dict[str, str]:
    """Returns its command, and a hash of what its gin files say."""
    said = [line for path in self.gin_files for line in _said(path)]
    digest = hashlib.sha256('\n'.join(said).encode()).hexdigest()
    return {'gin_run': self.command(), 'gin_files': digest[:8]}

  def run(self) -> Any:
    from gqa_t5x.engine import launch

    return launch.run(self.mode, self.gin_files, self._pairs())


def _said(path: str) -> list[str]:
  """Returns the lines of a gin file of ours, and of those that it includes."""
  from gqa_t5x import gin_configs

  folder = pathlib.Path(gin_configs.__path__[0])
  text = (folder / path.removeprefix('gqa_t5x/gin_configs/')).read_text('utf-8')
  said = []
  for line in text.splitlines():
    if included := re.match(r"include '(.+)'", line):
      said += _said(included[1])
    elif line.strip() and not line.startswith('#'):
      said.append(line)
  return said
