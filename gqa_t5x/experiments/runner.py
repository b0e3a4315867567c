# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs an experiment stage by stage, keeps each result, and continues.

A stage is one command's worth of work. Its result is kept as JSON in
OUTPUT_DIR/stages, so a run that was interrupted goes on where it stopped.
Nothing heavy is imported before the plan is shown.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any

import gqa_t5x
from gqa_t5x.errors import UserError

_RUN_FILE = 'run.json'


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of an experiment.

  Attributes:
    name: of the file that keeps its result.
    title: what a person reads while it runs.
    command: the shell command that does the same by hand.
    seconds: how long it takes on 2 CPU cores, about.
    run: does it; returns its result as JSON values.
  """

  name: str
  title: str
  command: str
  seconds: float
  run: Callable[[], Any]


def reproduce(
    scale: str = 'laptop',
    experiment: str = 'table1',
    output_dir: str | None = None,
) -> None:
  """Runs an experiment of the paper and writes its report.

  Args:
    scale: 'smoke' or 'laptop'.
    experiment: 'table1', or 'all' for every one there is.
    output_dir: where stages, results.json, report.md and report.html go; None
      is ./reproduce_SCALE. A run that is there already is continued.

  Raises:
    UserError: if an argument is unknown, or the folder holds another run.
  """
  from gqa_t5x.experiments import table1

  if experiment not in ('table1', 'all'):
    raise UserError(
        f'experiment={experiment!r} is unknown; choose table1 or all'
    )
  if scale not in table1.SCALES:
    raise UserError(
        f'scale={scale!r} is unknown; choose {" or ".join(table1.SCALES)}'
    )
  folder = pathlib.Path(output_dir or f'reproduce_{scale}').absolute()
  settings = table1.SCALES[scale]
  _claim(
      folder,
      {
          'experiment': 'table1',
          'scale': scale,
          'settings': dataclasses.asdict(settings),
          'version': gqa_t5x.__version__,
      },
  )
  flags = [os.environ.get('XLA_FLAGS', ''), settings.xla_flags]
  os.environ['XLA_FLAGS'] = ' '.join(filter(None, flags))
  stages = table1.stages(settings, folder)
  _show_plan(stages, folder, scale)
  results, seconds = run_stages(stages, folder)
  table1.finish(
      scale=scale,
      settings=settings,
      folder=folder,
      stages=stages,
      results=results,
      seconds=seconds,
  )


def run_stages(
    stages: Sequence[Stage], folder: pathlib.Path
) -> tuple[dict[str, Any], dict[str, float]]:
  """Runs the stages that have no result yet.

  Returns:
    ({stage name: result}, {stage name: seconds it took when it ran}).
  """
  results, seconds = {}, {}
  left = sum(s.seconds for s in stages if not _path(folder, s).exists())
  for number, stage in enumerate(stages, 1):
    path = _path(folder, stage)
    if not path.exists():
      _say(
          f'[{number}/{len(stages)}] {stage.title}'
          f' (about {_duration(left)} left)'
      )
      start = time.perf_counter()
      result = stage.run()
      took = time.perf_counter() - start
      _write_json(path, {'seconds': took, 'result': result})
      left -= stage.seconds
    kept = json.loads(path.read_text(encoding='utf-8'))
    results[stage.name] = kept['result']
    seconds[stage.name] = kept['seconds']
  return results, seconds


def _claim(folder: pathlib.Path, run: Mapping[str, Any]) -> None:
  """Makes the folder this run's, or checks that it is."""
  path = folder / _RUN_FILE
  if path.exists():
    other = json.loads(path.read_text(encoding='utf-8'))
    for name, value in json.loads(json.dumps(run)).items():
      if other.get(name) != value:
        raise UserError(
            f'{folder} holds another run: its {name} is {other.get(name)!r},'
            f' not {value!r}; choose another --output_dir or remove it'
        )
    return
  if folder.exists() and any(folder.iterdir()):
    raise UserError(
        f'{folder} is not empty and holds no run of this program; choose'
        ' another --output_dir'
    )
  folder.mkdir(parents=True, exist_ok=True)
  _write_json(path, run)


def _show_plan(
    stages: Sequence[Stage], folder: pathlib.Path, scale: str
) -> None:
  """Says what will be done and how long it will take."""
  todo = [s for s in stages if not _path(folder, s).exists()]
  _say(f'Table 1 of the paper at {scale} scale, in {folder}')
  for stage in stages:
    mark = 'to do' if stage in todo else 'done'
    _say(f'  {mark:>5}  {stage.seconds:>4.0f} s  {stage.title}')
  _say(
      f'{len(todo)} of {len(stages)} stages to do, about'
      f' {_duration(sum(s.seconds for s in todo))} on 2 CPU cores.\n'
      'Each is kept: interrupt at any time, and run the same command to go on.'
  )


def _path(folder: pathlib.Path, stage: Stage) -> pathlib.Path:
  return folder / 'stages' / f'{stage.name}.json'


def _write_json(path: pathlib.Path, value: Any) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  beside = path.with_name(path.name + '.tmp')
  beside.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')
  beside.replace(path)


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{max(seconds, 0):.0f} s'
  return f'{seconds / 60:.0f} min'


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
