# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs experiments of the paper and writes their report."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import sys
from typing import Any

from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import catalog
from gqa_t5x.experiments import experiment as experiment_lib
from gqa_t5x.experiments import model
from gqa_t5x.experiments import pipeline as pipeline_lib
from gqa_t5x.experiments import pod
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import scales
from gqa_t5x.experiments import stages as stages_lib

_RUN_FILE = 'run.json'


def reproduce(
    scale: str = 'laptop',
    experiment: str = 'table1',
    output_dir: str | None = None,
    seeds: Sequence[int] = (1,),
    tasks: Sequence[str] = (),
    dry_run: bool = False,
    prepare: bool = False,
) -> None:
  """Runs experiments of the paper and writes their report.

  Args:
    scale: one of `scales.SCALES`; 'paper' only shows the commands for a pod.
    experiment: name of one, several with commas, or 'all'.
    output_dir: where stages, results.json, report.md and report.html go; None
      is ./reproduce_SCALE. A run of the same scale that is there is continued;
      experiments and seeds are added to it by naming them beside the earlier
      ones, since results.json and the report have what is named.
    seeds: of the order of data, dropout, and parameters drawn at random.
    tasks: those of the scale to tune and test on; none are all of them.
    dry_run: only shows the stages, their commands and about how long each
      takes.
    prepare: only makes what needs TensorFlow and seqio: the vocabulary and the
      token arrays. The rest may then run on a machine that has neither, with a
      copy of the folder.

  Raises:
    UserError: if an argument is unknown, or the folder holds another run or is
      being written to.
  """
  known = catalog.EXPERIMENTS
  names = [name.strip() for name in experiment.split(',')]
  names = list(known) if names == ['all'] else names
  for name in names:
    if name not in known:
      raise UserError(
          f'experiment={name!r} is unknown; choose {", ".join(known)} or all'
      )
  if scale == 'paper':
    if not dry_run or prepare:
      raise UserError(
          'the paper scale runs on TPU pods; add --dry_run to see its commands,'
          ' and read docs/tpu.md'
      )
    _check_defaults(
        seeds=(tuple(seeds), (1,)),
        tasks=(tuple(tasks), ()),
        output_dir=(output_dir, None),
    )
    _show_pod(names)
    return
  if scale not in scales.SCALES:
    raise UserError(
        f'scale={scale!r} is unknown; choose {", ".join(scales.SCALES)} or'
        ' paper'
    )
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(f'expected seeds that differ, got {list(seeds)}')
  if output_dir is None:
    output_dir = f'reproduce_{scale}'
  folder = storage.local_path(output_dir).absolute()
  settings = scales.SCALES[scale]
  if tasks:
    settings = dataclasses.replace(settings, suite=settings.suite.only(tasks))
  _check_folder(folder, scale)
  experiments = [e for name, e in known.items() if name in names]
  pipeline = pipeline_lib.Pipeline(settings, folder)
  stages = stages_lib.in_order(
      [stage for e in experiments for stage in e.stages(pipeline, seeds)]
  )
  if prepare:
    if settings.suite.checkpoint:
      raise UserError(
          f'scale={scale!r} needs seqio to its end, for tasks that are made'
          ' from what is installed; choose benchmarks or gpu for --prepare'
      )
    stages = [s for s in stages if pipeline_lib.prepares(s.name)]
  missing = None
  try:
    pipeline.check_data(folder)
  except UserError as error:
    if not dry_run:
      raise
    missing = error
  titles = '; '.join(e.title for e in experiments)
  stages_lib.say(f'{titles}; {scale} scale, in {folder}')
  total = stages_lib.show(stages, folder, settings.machine)
  if dry_run:
    for stage in stages:
      print(f'# {stage.title}\n{stage.command_line()}')
    stages_lib.say(total)
    if missing:
      stages_lib.say(f'before it can run: {missing}')
    return
  with storage.locked_folder(folder):
    storage.write_json(folder / _RUN_FILE, {'scale': scale})
    flags = [os.environ.get('XLA_FLAGS', ''), settings.xla_flags]
    os.environ['XLA_FLAGS'] = ' '.join(filter(None, flags))
    done = stages_lib.run(stages, folder)
    if prepare:
      return
    found = experiment_lib.collect(experiments, pipeline, seeds, done)
    results = {
        'scale': scale,
        'experiment': ','.join(names),
        'command': _command(scale, names, seeds, tasks),
        **provenance.environment(),
        'seeds': list(seeds),
        'columns': [dataclasses.asdict(c) for c in settings.suite.columns],
        'pretrain_steps': settings.pretrain_steps,
        'uptrain_fraction': model.ALPHA * settings.alpha_unit,
        'stages': experiment_lib.stage_lines(stages, done, folder),
        **found,
    }
    results_lib.save_results(folder, results)
    _write_report(folder, results)


def _check_defaults(**flags: tuple[Any, Any]) -> None:
  """Refuses flags, {name: (value, default)}, that the paper scale has not."""
  for flag, (value, default) in flags.items():
    if value != default:
      raise UserError(
          f'expected no --{flag} at the paper scale, whose commands are those'
          f' of the paper, got {value}; leave it out and edit them'
      )


def _show_pod(names: Sequence[str]) -> None:
  all_days = {}
  for name in names:
    print(f'## {catalog.EXPERIMENTS[name].title}')
    for command in pod.commands(name):
      days = command.chip_days
      cost = '' if days is None else f' (some {days:,.0f} TPUv3 chip-days)'
      print(f'# {command.title}{cost}\n{command.line}')
      all_days[command.line] = days or 0
  print(
      f'# All, each once: some {sum(all_days.values()):,.0f} TPUv3 chip-days,'
      " from the paper's 600 for uptraining XXL by 5%, in proportion to"
      ' operations and tokens'
  )


def _command(scale, names, seeds, tasks) -> str:
  words = [f'gqa-t5x reproduce --scale {scale} --experiment {",".join(names)}']
  if tuple(seeds) != (1,):
    words.append('--seeds ' + ','.join(map(str, seeds)))
  if tasks:
    words.append('--tasks ' + ','.join(tasks))
  return ' '.join(words)


def _write_report(folder, results) -> None:
  from gqa_t5x.experiments import report
  from gqa_t5x.experiments import tables

  markdown, html = report.write_report(folder)
  print(tables.format_table(results))
  if results_lib.is_rehearsal(results):
    print(f'\n{report.REHEARSAL}')
  print(f'\nThe report: {html}\n            {markdown}', file=sys.stderr)


def _check_folder(folder: pathlib.Path, scale: str) -> None:
  """Raises UserError if the folder holds anything but a run of this scale."""
  path = folder / _RUN_FILE
  if path.exists():
    run = stages_lib.read_json(path, 'choose another --output_dir')
    other = run.get('scale')
    if other != scale:
      raise UserError(
          f'{folder} holds another run: its scale is {other!r}, not {scale!r};'
          ' choose another --output_dir or remove it'
      )
  elif folder.exists() and any(
      path.name != storage.LOCK for path in folder.iterdir()
  ):
    raise UserError(
        f'{folder} is not empty and holds no run of this program; choose'
        ' another --output_dir'
    )
