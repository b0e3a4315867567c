# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`reproduce`, `report`, `claims` and `figure`."""

import json
import sys

from gqa_t5x import number_flags
from gqa_t5x import storage
from gqa_t5x.commands import arguments
from gqa_t5x.errors import UserError


def add_commands(add) -> None:
  command = add(
      'reproduce',
      _reproduce,
      'run experiments of the paper, from checkpoint to report',
      'gqa-t5x reproduce --scale smoke --output_dir /tmp/gqa_smoke',
  )
  command.add_argument(
      '--scale',
      default='laptop',
      help='smoke, laptop (default), benchmarks, benchmarks_smoke or gpu; paper'
      ' with --dry_run shows commands for a pod',
  )
  command.add_argument(
      '--experiment',
      default='table1',
      metavar='E,E',
      help='table1 (default), figure4, figure5, figure6, stability,'
      ' learning_rate, finetuned or all',
  )
  command.add_argument(
      '--seeds',
      type=number_flags.integers,
      default=[1],
      metavar='N,N',
      help='of data order, dropout and random heads (default: 1)',
  )
  command.add_argument(
      '--tasks',
      type=arguments.names,
      default=(),
      metavar='T,T',
      help='of those of the scale (default: all)',
  )
  command.add_argument(
      '--dry_run',
      action='store_true',
      help='show the stages, their commands and how long each takes',
  )
  command.add_argument(
      '--prepare',
      action='store_true',
      help='only make vocabulary and token arrays, for a machine without'
      ' TensorFlow',
  )
  command.add_argument(
      '--output_dir',
      metavar='DIR',
      help='of stages and report; a run that is there is continued, and its'
      ' report is of what the command names (default: ./reproduce_SCALE)',
  )
  command = add(
      'report',
      _report,
      'write report.md and report.html again from results.json',
      'gqa-t5x report reproduce_laptop',
  )
  command.add_argument('dir', metavar='DIR', help="a run's output folder")
  command = add(
      'claims',
      _claims,
      "test the paper's claims on a run, or those of time on a benchmark",
      'gqa-t5x benchmark decode --json > decode.json\n'
      '  gqa-t5x claims decode.json',
  )
  command.add_argument(
      'results',
      metavar='DIR|FILE',
      help="a run's output folder, or what `gqa-t5x benchmark decode --json`"
      ' printed',
  )
  command = add(
      'figure',
      _figure,
      "draw a decoding benchmark as the paper's Figure 6",
      'gqa-t5x benchmark decode --json > decode.json\n'
      '  gqa-t5x figure decode.json --output figure6.svg',
  )
  command.add_argument(
      'benchmark',
      metavar='FILE',
      help='what `gqa-t5x benchmark decode --json` printed',
  )
  command.add_argument(
      '--output', metavar='SVG', help='(default: standard output)'
  )


def _reproduce(args) -> None:
  from gqa_t5x.experiments import runner

  runner.reproduce(
      scale=args.scale,
      experiment=args.experiment,
      output_dir=args.output_dir,
      seeds=args.seeds,
      tasks=args.tasks,
      dry_run=args.dry_run,
      prepare=args.prepare,
  )


def _report(args) -> None:
  from gqa_t5x.experiments import report

  for path in report.write_report(args.dir):
    print(path)


def _claims(args) -> None:
  from gqa_t5x.experiments import claims
  from gqa_t5x.experiments import report
  from gqa_t5x.experiments import results

  if storage.local_path(args.results).is_dir():
    found = claims.findings(results.load_results(args.results))
    print(report.claims_as_text(found))
    return
  by_shape = _of_benchmark(args.results, claims.of_benchmark)
  for shape, found in by_shape.items():
    print(shape)
    print(report.claims_as_text(found))


def _of_benchmark(name: str, make):
  """Returns what a function makes of the decoding benchmark in a file."""
  path = storage.local_path(name)
  try:
    return make(json.loads(path.read_text('utf-8')))
  except OSError as error:
    raise UserError(
        f'{name} cannot be read: {error.strerror}; check the path'
    ) from error
  except (
      ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
      RecursionError,
  ) as error:  # pyformat: disable
    raise UserError(
        f'expected in {name} what `gqa-t5x benchmark decode --json`'
        ' printed, got something else; make it again'
    ) from error


def _figure(args) -> None:
  from gqa_t5x.experiments import figures

  if args.output and not args.output.endswith('.svg'):
    raise UserError(
        f'expected a file named .svg to draw to, got {args.output}; change its'
        ' name'
    )
  svg = _of_benchmark(args.benchmark, figures.of_benchmark)
  if args.output:
    storage.write_text(args.output, svg)
    print(f'{args.output} is written', file=sys.stderr)
  else:
    print(svg, end='')
