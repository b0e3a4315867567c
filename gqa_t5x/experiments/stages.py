# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stages of experiments: each runs once, is kept, and is found again.

A stage is one command's worth of work. Its result is kept as JSON in
FOLDER/stages under a name that ends in a hash of what made it, its own recipe
and those of all stages before it. So a run that was interrupted goes on where
it stopped, experiments share what is the same, and nothing stale is taken for
what other settings would give.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
import time
from typing import Any

from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
  """One step of an experiment.

  Attributes:
    name: what it is, in a few words; unique in a run.
    title: what a person reads while it runs.
    seconds: how long it takes, about.
    run: does it and returns its result as JSON values; with `folder`, it gets
      the folder to write to.
    recipe: all that the result depends on, besides what `needs` made.
    command: the shell command that does the same by hand, or makes it of the
      folder to write to.
    needs: stages whose products it reads.
    folder: where the folder lies that later stages read; None if there is none.
  """

  name: str
  title: str
  seconds: float
  run: Callable[..., Any]
  recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  command: str | Callable[[pathlib.Path], str] = ''
  needs: tuple['Stage', ...] = ()
  folder: pathlib.Path | None = None

  @functools.cached_property
  def key(self) -> str:
    made_of = [self.name, self.recipe, [stage.key for stage in self.needs]]
    text = json.dumps(made_of, sort_keys=True)
    return f'{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'

  @property
  def product(self) -> pathlib.Path | None:
    """The folder that later stages read."""
    return None if self.folder is None else self.folder / self.key

  def command_line(self) -> str:
    if isinstance(self.command, str):
      return self.command
    return self.command(self.product)


@dataclasses.dataclass(frozen=True)
class Done:
  """What is kept of a stage: its result, the seconds it took, the commit."""

  result: Any
  seconds: float
  commit: str | None = None


def in_order(stages: Sequence[Stage]) -> list[Stage]:
  """Returns the stages and all that they need, each after what it needs."""
  found: dict[Stage, None] = {}

  def add(stage):
    if stage not in found:
      for need in stage.needs:
        add(need)
      found[stage] = None

  for stage in stages:
    add(stage)
  return list(found)


def to_do(stages: Sequence[Stage], folder: pathlib.Path) -> list[Stage]:
  """Returns what has to run, in order, for the stages to be done.

  A stage that is done runs again only if its product is gone and another that
  has to run reads it.

  Args:
    stages: as `in_order` gives them.
    folder: of the run.
  """
  wanted = set()
  for stage in reversed(stages):
    is_read = any(stage in other.needs for other in wanted)
    is_gone = stage.product is not None and not stage.product.exists()
    if not _path(stage, folder).exists() or (is_read and is_gone):
      wanted.add(stage)
  return [stage for stage in stages if stage in wanted]


def run(stages: Sequence[Stage], folder: pathlib.Path) -> dict[str, Done]:
  """Runs what has to; says how long it will take.

  Args:
    stages: as `in_order` gives them.
    folder: of the run.

  Returns:
    What is kept of each stage, by name.
  """
  pending = to_do(stages, folder)
  left = sum(stage.seconds for stage in pending)
  commit = provenance.commit()
  for number, stage in enumerate(pending, 1):
    say(
        f'[{number}/{len(pending)}] {stage.title}'
        f' (about {duration(left)} left)'
    )
    start = time.perf_counter()
    result = stage.run() if stage.product is None else stage.run(stage.product)
    took = time.perf_counter() - start
    found = {
        'seconds': took,
        'commit': commit,
        'recipe': stage.recipe,
        'result': result,
    }
    storage.write_json(_path(stage, folder), found)
    left -= stage.seconds
  return {stage.name: kept(stage, folder) for stage in stages}


def read_json(
    path: pathlib.Path, what_to_do: str, keys: Sequence[str] = ()
) -> dict[str, Any]:
  """Returns what `storage.write_json` wrote.

  Raises:
    UserError: if the file is damaged or lacks one of the keys; it ends with
      `what_to_do`.
  """
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except ValueError:
    found = None
  if not isinstance(found, dict) or not set(keys) <= found.keys():
    raise UserError(
        f'expected what this program wrote in {path}, got something else; copy'
        f' it again, or {what_to_do}'
    )
  return found


def kept(stage: Stage, folder: pathlib.Path) -> Done | None:
  """Returns what is kept of a stage, None if it is not done."""
  path = _path(stage, folder)
  if not path.exists():
    return None
  found = read_json(
      path, 'remove it to have it made again', ('result', 'seconds')
  )
  return Done(found['result'], found['seconds'], found.get('commit'))


def show(stages: Sequence[Stage], folder: pathlib.Path, machine: str) -> str:
  """Says what will be done and how long it will take; returns the last line."""
  pending = set(to_do(stages, folder))
  alike = {}  # Those of several seeds have one title.
  for stage in stages:
    mark = 'to do' if stage in pending else 'done'
    alike.setdefault((stage.title, mark), []).append(stage)
  for (title, mark), group in alike.items():
    seconds = sum(stage.seconds for stage in group)
    times = f' ({len(group)} times)' if len(group) > 1 else ''
    say(f'  {mark:>5}  {seconds:>5.0f} s  {title}{times}')
  total = (
      f'{len(pending)} of {len(stages)} stages to do, about'
      f' {duration(sum(stage.seconds for stage in pending))} on {machine}.\n'
      'Each is kept: interrupt at any time, and run the same command to go on.'
  )
  say(total)
  return total


def say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  if seconds < 90:
    return f'{max(seconds, 0):.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def _path(stage: Stage, folder: pathlib.Path) -> pathlib.Path:
  return folder / 'stages' / f'{stage.key}.json'
