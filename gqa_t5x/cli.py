# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `gqa-t5x`: reads arguments, calls the library, prints results.

Results go to standard output, everything else to standard error. Each command
imports what it needs when it runs, so that help appears at once.
"""

import argparse
import difflib
import errno
import json
import os
import sys
import traceback

from gqa_t5x import errors

_ENGINE_MODES = {
    'train': 'pre-train, uptrain or fine-tune, as gin files say',
    'eval': 'decode a split and measure the metrics of its tasks',
    'infer': 'write the outputs for a split as JSON lines',
    'cache': 'write tasks as token arrays, to train without TensorFlow',
}
# What to install where a module is missing. Another module of theirs counts
# as the extra `train`, which holds most of them.
_EXTRAS = {
    'safetensors': 'hf',
    'sentencepiece': 'data',
    'babel': 'data',
}
_MACHINE_ERRORS = {
    errno.ENOSPC: 'free some space and run the same command again',
    errno.EDQUOT: 'free some space and run the same command again',
    errno.EACCES: 'choose a folder that you may write to',
    errno.EROFS: 'choose a folder that you may write to',
}


class _Parser(argparse.ArgumentParser):
  """Says what is wrong with the arguments in one line."""

  def error(self, message):
    raise errors.UserError(f'{message}; see {self.prog} --help')


def main(argv=None) -> int:
  """Runs one command.

  Args:
    argv: the arguments, without the program's name; None takes the process's.

  Returns:
    0 done, 2 the user's input is wrong (one line on standard error), 130
    interrupted, 1 anything else.
  """
  # TensorFlow reads it when it is imported.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    _check_python(sys.version_info)
    _dispatch(list(sys.argv[1:] if argv is None else argv))
    sys.stdout.flush()
    return 0
  except SystemExit as stop:  # argparse, after --help
    return stop.code if isinstance(stop.code, int) else 1
  except KeyboardInterrupt:
    print('gqa-t5x: interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:  # The reader of a pipe has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except Exception as error:  # pylint: disable=broad-except
    line = _one_line(error)
    if line is None:
      traceback.print_exc()
      return 1
    print(f'gqa-t5x: {line}', file=sys.stderr)
    return 2


def _check_python(version) -> None:
  if tuple(version[:2]) < (3, 11):
    raise errors.UserError(
        'expected Python 3.11 or newer, got'
        f' {version[0]}.{version[1]}; make an environment with a newer one'
    )


def _one_line(error: BaseException):
  """Returns what the user can do about an error; None if it is our fault."""
  if isinstance(error, errors.UserError):
    return str(error).split('\n', maxsplit=1)[0]
  if isinstance(error, ModuleNotFoundError) and error.name:
    module = error.name.split('.')[0]
    if module == 'gqa_t5x':
      return None
    extra = _EXTRAS.get(module, 'train')
    return (
        f'expected the Python module {module}, which is not installed; install'
        f' gqa_t5x with its extra: pip install "gqa-t5x[{extra}] @ PATH OF THE'
        ' REPOSITORY"'
    )
  cause = error
  while cause is not None:
    if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRORS:
      where = f' for {cause.filename}' if cause.filename else ''
      return (
          f'{os.strerror(cause.errno)}{where}; {_MACHINE_ERRORS[cause.errno]}'
      )
    # TensorStore has no OSError.
    if os.strerror(errno.ENOSPC) in str(cause):
      return f'{os.strerror(errno.ENOSPC)}; {_MACHINE_ERRORS[errno.ENOSPC]}'
    cause = cause.__cause__ or cause.__context__
  return None


def _dispatch(argv) -> None:
  parser, commands = _parsers()
  command = next((a for a in argv if not a.startswith('-')), None)
  if command is None and not argv:
    parser.print_help()
    return
  if command is not None and command not in commands:
    near = difflib.get_close_matches(command, commands, 1)
    hint = f'did you mean {near[0]}?' if near else (
        f'choose one of {", ".join(commands)}'
    )
    raise errors.UserError(f'{command!r} is not a command; {hint}')
  if argv[0] in _ENGINE_MODES:  # It has a parser of its own.
    from gqa_t5x.engine import launch

    launch.main(argv[0], argv[1:])
    return
  args = parser.parse_args(argv)
  if args.run is None:
    parser.error('expected a command')
  args.run(args)


def _parsers():
  """Returns the parser and {command: its parser}."""
  import gqa_t5x

  parser = _Parser(
      prog='gqa-t5x',
      description='Grouped-query attention for T5: convert, uptrain, compare.',
      epilog='example: gqa-t5x reproduce --scale smoke',
  )
  parser.add_argument(
      '--version', action='version', version=gqa_t5x.__version__
  )
  parser.set_defaults(run=None)
  commands = parser.add_subparsers(metavar='COMMAND', parser_class=_Parser)

  def add(run, name, text, example):
    sub = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + '.',
        epilog=f'example: gqa-t5x {example}',
    )
    sub.set_defaults(run=run)
    return sub

  _add_reproduce(add)
  for name, text in _ENGINE_MODES.items():
    add(None, name, text, f'{name} --gin_file=FILE --gin.NAME=VALUE')
  _add_convert(add)
  _add_generate(add)
  _add_inspect(add)
  _add_benchmark(add)
  report = add(
      _report, 'report', 'write the report of a run again', 'report DIR'
  )
  report.add_argument('output_dir', metavar='DIR')
  return parser, commands.choices


def _add_reproduce(add) -> None:
  sub = add(
      _reproduce,
      'reproduce',
      'run an experiment of the paper and report it beside the paper',
      'reproduce --scale smoke --output_dir /tmp/smoke',
  )
  sub.add_argument(
      '--scale', default='laptop', help='smoke or laptop, the default'
  )
  sub.add_argument(
      '--experiment', default='table1', help='table1, the default, or all'
  )
  sub.add_argument(
      '--output_dir',
      metavar='DIR',
      help='a run in it is continued; default: ./reproduce_SCALE',
  )


def _reproduce(args) -> None:
  from gqa_t5x.experiments import runner

  runner.reproduce(args.scale, args.experiment, args.output_dir)


def _add_convert(add) -> None:
  sub = add(
      _convert,
      'convert',
      'turn a multi-head checkpoint into a grouped- or multi-query one',
      'convert --input mha --output gqa2 --num_kv_heads 2',
  )
  sub.add_argument('--input', required=True, metavar='CKPT')
  sub.add_argument('--output', required=True, metavar='CKPT')
  sub.add_argument('--num_kv_heads', required=True, type=int, metavar='K')
  sub.add_argument(
      '--method', default='mean', help='mean, the default, first or random'
  )
  sub.add_argument('--seed', type=int, help='of the method random')
  sub.add_argument('--format', default='orbax', help='of the output: orbax')


def _convert(args) -> None:
  from gqa_t5x import conversion

  metadata = conversion.convert_checkpoint(
      args.input,
      args.output,
      num_kv_heads=args.num_kv_heads,
      method=args.method,
      seed=args.seed,
      format=args.format,
  )
  print(json.dumps({
      'output': args.output,
      'step': metadata.get('step'),
      'conversion': metadata['conversion'],
  }))


def _add_generate(add) -> None:
  sub = add(
      _generate,
      'generate',
      'decode text: a line in, a line out',
      'generate --input lines.txt --max_decode_len 48',
  )
  sub.add_argument(
      '--checkpoint', metavar='CKPT', help='default: the one in the package'
  )
  sub.add_argument('--input', metavar='FILE', help='default: standard input')
  sub.add_argument(
      '--vocabulary',
      metavar='FILE',
      help='SentencePiece model; default: the one in the package',
  )
  sub.add_argument('--max_decode_len', type=int, default=64, metavar='TOKENS')
  sub.add_argument('--batch_size', type=int, default=8)
  sub.add_argument(
      '--num_beams', type=int, default=1, help='1, the default, is greedy'
  )


def _generate(args) -> None:
  from gqa_t5x import text

  generator = text.TextGenerator.load(args.checkpoint, args.vocabulary)
  for line in generator.lines(
      text.read_lines(args.input),
      max_decode_len=args.max_decode_len,
      batch_size=args.batch_size,
      num_beams=args.num_beams,
  ):
    print(line, flush=True)


def _add_inspect(add) -> None:
  sub = add(
      _inspect,
      'inspect',
      'say what a checkpoint holds',
      'inspect --json model_dir/checkpoints/1000',
  )
  sub.add_argument('checkpoint', metavar='CKPT')
  sub.add_argument('--json', action='store_true', help='for a program')


def _inspect(args) -> None:
  from gqa_t5x import inspection

  found = inspection.inspect_checkpoint(args.checkpoint)
  print(json.dumps(found) if args.json else inspection.format_text(found))


def _add_benchmark(add) -> None:
  sub = add(
      _benchmark,
      'benchmark',
      'time decoding for several numbers of key/value heads',
      'benchmark decode --model mini --num_kv_heads 8,2,1 --batch_size 8',
  )
  sub.add_argument('what', choices=['decode'])
  sub.add_argument(
      '--model',
      default='mini',
      metavar='SIZE',
      help='mini, the default, small, base, large, xl, xxl or a checkpoint',
  )
  sub.add_argument(
      '--num_kv_heads',
      type=_integers,
      metavar='K,K,...',
      help='default: as many as query heads, and 1',
  )
  sub.add_argument('--batch_size', type=int, default=8)
  sub.add_argument('--input_length', type=int, default=512, metavar='TOKENS')
  sub.add_argument('--output_length', type=int, default=32, metavar='TOKENS')
  sub.add_argument('--json', action='store_true', help='for a program')


def _integers(text):
  return [int(part) for part in text.split(',')]


def _benchmark(args) -> None:
  from gqa_t5x import inspection

  found = inspection.benchmark_decode(
      args.model,
      args.num_kv_heads,
      batch_size=args.batch_size,
      input_length=args.input_length,
      output_length=args.output_length,
  )
  print(json.dumps(found) if args.json else inspection.format_decode(found))


def _report(args) -> None:
  from gqa_t5x.experiments import report

  for path in report.write_report(args.output_dir):
    print(path)
