# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `gqa-t5x`: parses arguments, runs one command, reports errors.

Results go to standard output, logs to standard error. Exit status: 0 done, 2
the user's input is wrong (one line, nothing half written), 75 stopped by
SIGTERM after saving (the same command goes on), 130 interrupted by Ctrl-C, 1
anything else.

This file has to parse on Pythons that are too old to run it, to say so.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import signal
import sys
import threading
import traceback

import gqa_t5x
from gqa_t5x import extras
from gqa_t5x import quiet_tensorflow
from gqa_t5x.errors import EXIT_PREEMPTED
from gqa_t5x.errors import NO_SPACE
from gqa_t5x.errors import PeerLostError
from gqa_t5x.errors import Preempted
from gqa_t5x.errors import UserError

_TOO_OLD = (
    'gqa-t5x needs Python 3.11 or newer, this is Python {}.{}; make an'
    ' environment with a newer one, such as: python3.12 -m venv .venv'
)

_GO_ON = ('train', 'cache', 'infer', 'reproduce')
_EXIT_INTERRUPTED = 130  # As shells have it: 128 and the signal's number.

_BAD_PATH = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def main(argv: list[str] | None = None) -> int:
  """Runs the command line.

  Args:
    argv: arguments without the program's name; None takes `sys.argv`.

  Returns:
    The exit status.
  """
  if sys.version_info < (3, 11):  # noqa: UP036  Run from a checkout.
    print(_TOO_OLD.format(*sys.version_info), file=sys.stderr)
    return 2
  if argv is None:
    _open_what_is_closed()
    if sys.argv[1:2] in (['train'], ['reproduce']):
      _use_huge_pages()
    keep_interrupts()
  quiet_tensorflow.install()
  try:
    # Its Python is too new for the check above.
    from gqa_t5x import commands

    args = _parse(commands, sys.argv[1:] if argv is None else argv)
    args.run(args)
    sys.stdout.flush()
    return 0
  except SystemExit as stop:  # argparse, after --help or an error.
    return stop.code if isinstance(stop.code, int) else 1
  except KeyboardInterrupt as stop:
    words = sys.argv[1:] if argv is None else argv
    how = ''
    if words and words[0] in _GO_ON:
      how = '; the same command goes on from what it has saved'
    print(f'gqa-t5x: {str(stop) or "interrupted" + how}', file=sys.stderr)
    return _EXIT_INTERRUPTED
  except Preempted as stop:
    print(f'gqa-t5x: {stop}', file=sys.stderr)
    return EXIT_PREEMPTED
  except PeerLostError as error:
    leave(error)
  except BrokenPipeError:  # `gqa-t5x ... | head`
    _close_stdout()
    return 1
  except Exception as error:  # pylint: disable=broad-except
    line = _user_message(error)
    if line is None:
      raise
    print(f'gqa-t5x: {line}', file=sys.stderr)
    _close_stdout()
    return 2


def leave(error: PeerLostError) -> None:
  """Ends the process with an error, and waits for no other.

  JAX would wait at the exit for the process that is lost.
  """
  print(f'gqa-t5x: {error}', file=sys.stderr, flush=True)
  os._exit(1)  # pylint: disable=protected-access


def _open_what_is_closed() -> None:
  """Gives standard streams that are closed, as by `>&-`, nothing to write to.

  A file that is opened later would take the number of one, and its output.
  """
  number = 0
  while number < 3:
    number = os.open(os.devnull, os.O_RDWR)
  os.close(number)
  for name in ('stdout', 'stderr'):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))


def keep_interrupts() -> None:
  """Has no Ctrl-C lost that comes while nothing may be raised.

  Python drops what is raised in a callback, as JAX has one in the garbage
  collection; here it is sent again a moment later.
  """
  usual = sys.unraisablehook

  def hook(unraisable):
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
      to = threading.main_thread().ident, signal.SIGINT
      again = threading.Timer(0.1, signal.pthread_kill, to)
      again.daemon = True
      again.start()
    else:
      usual(unraisable)

  sys.unraisablehook = hook


def _use_huge_pages() -> None:
  """Starts this program again with a memory allocator set for large arrays.

  glibc returns large blocks to the kernel and takes them anew, page by page,
  in every step; kept, and in huge pages, a training step on 2 CPU cores takes
  a quarter less. It reads these settings only as a process starts.
  """
  settings = {
      'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
      'MALLOC_MMAP_MAX_': '0',
      'MALLOC_TRIM_THRESHOLD_': str(1 << 40),
  }
  chosen_by_user = any(name in os.environ for name in settings)
  if chosen_by_user or not sys.platform.startswith('linux'):
    return
  os.environ.update(settings)
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _close_stdout() -> None:
  """Drops what cannot be written, or Python complains of it at its exit."""
  try:
    sys.stdout.flush()
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chain(error: BaseException) -> list[BaseException]:
  """Returns the error and what caused it."""
  chain = [error]
  while True:
    last = chain[-1]
    cause = last.__cause__
    if not (cause or last.__suppress_context__ or isinstance(last, UserError)):
      cause = last.__context__
    if cause is None or cause in chain:
      return chain
    chain.append(cause)


def _lacks_backend(error: BaseException) -> bool:
  """Says whether it is JAX's for platforms that are not there."""
  if isinstance(error, RuntimeError):
    return 'nable to initialize backend' in str(error)
  # Of plugins that are not installed it asserts that there is one.
  frames = traceback.extract_tb(error.__traceback__)
  return isinstance(error, AssertionError) and (
      frames[-1].filename.endswith('xla_bridge.py')
  )


def _user_message(error: BaseException) -> str | None:
  """Returns one line on what the user can mend, None for our own faults."""
  for link in _chain(error):
    code = getattr(link, 'errno', None)
    # TensorStore and TensorFlow have exceptions of their own for this.
    if code in NO_SPACE or 'No space left on device' in str(link):
      where = getattr(link, 'filename', None)
      return (
          'no space left on device'
          + (f' while writing {where}' if where else '')
          + '; free some or write elsewhere, then run the same command again'
      )
    module = (getattr(link, 'name', None) or '').split('.')[0]
    if isinstance(link, ImportError) and module in extras.T5X:
      return (
          f'this needs {module}, which is not on the package index; '
          + extras.install_t5x_command(module)
      )
    if isinstance(link, ImportError) and extras.extra_of(module):
      return (
          f'this needs the package {module}, which is not installed; '
          + extras.install_command(extras.extra_of(module))
      )
    platforms = os.environ.get('JAX_PLATFORMS')
    if platforms and _lacks_backend(link):
      return (
          f'JAX cannot start JAX_PLATFORMS={platforms}; unset it, or see'
          ' gqa-t5x doctor for what is installed'
      )
    # XLA's, of a host or of a device.
    if isinstance(link, MemoryError) or (
        isinstance(link, RuntimeError)
        and ('RESOURCE_EXHAUSTED' in str(link) or 'Out of memory' in str(link))
    ):
      return (
          'out of memory; make the batch, the inputs (memory grows with their'
          f' length squared) or the model smaller ({str(link)[:120]})'
      ).replace('\n', ' ').replace(' ()', '')
  if isinstance(error, UnicodeEncodeError):
    return (
        f'{error.object[error.start]!a} cannot be written as {error.encoding};'
        ' set PYTHONIOENCODING=utf-8'
    )
  if isinstance(error, UserError):
    return ' '.join(str(error).split())
  if isinstance(error, RuntimeError) and 'home directory' in str(error):
    what = str(error).rstrip('.')  # Of pathlib's expanduser.
    return f'{what}; check the ~ in the paths, or set HOME'
  if isinstance(error, OSError) and error.errno in _BAD_PATH:
    why = error.strerror
    if error.errno == errno.EEXIST:  # Where a folder was to be made.
      why = 'is a file, not a folder'
    return f'{error.filename or "a file"}: {why}; check the path'
  return None


class _Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line."""

  def __init__(self, *args, **kwargs):
    super().__init__(
        *args,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )

  def error(self, message):
    message = ' '.join(message.split())
    self.exit(2, f'{self.prog}: {message}; see {self.prog} --help\n')


def _parser(commands):
  """Returns the parser, and those of the commands by name."""
  parser = _Parser(
      prog='gqa-t5x',
      description='Grouped-query attention for T5: convert a multi-head'
      ' checkpoint,\nuptrain it, measure it, compare it with the paper.',
      epilog="start here:\n  gqa-t5x generate 'translate English to German:"
      ' Wednesday, May 5, 2021\'',
  )
  parser.add_argument(
      '--version', action='version', version=gqa_t5x.__version__
  )
  subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
  return parser, commands.add_commands(subparsers)


def _parse(commands, argv: list[str]) -> argparse.Namespace:
  parser, known = _parser(commands)
  if not argv:
    parser.print_help(sys.stderr)
    parser.exit(2)
  if argv[0] not in known and not argv[0].startswith('-'):
    parser.error(f'{argv[0]!r} is not a command' + _nearest(argv[0], known))
  argv = commands.join_gin_flags(argv)
  if argv[0] in known:
    _check_flags(*_innermost(known[argv[0]], argv[1:]))
  return parser.parse_args(
      argv, argparse.Namespace(words=argv, parser=parser)
  )


def _innermost(
    command: argparse.ArgumentParser, words: list[str]
) -> tuple[argparse.ArgumentParser, list[str]]:
  """Returns the command within a command that the words begin with, if any."""
  for action in command._actions:  # pylint: disable=protected-access
    if isinstance(action, argparse._SubParsersAction) and words:  # pylint: disable=protected-access
      if words[0] in action.choices:
        return _innermost(action.choices[words[0]], words[1:])
      if not words[0].startswith('-'):
        command.error(
            f'{words[0]!r} is not one of {", ".join(action.choices)}'
            + _nearest(words[0], action.choices)
        )
  return command, words


def _check_flags(command: argparse.ArgumentParser, words: list[str]) -> None:
  """Names the flag that was meant; argparse would miss a required one first."""
  flags = [f for action in command._actions for f in action.option_strings]  # pylint: disable=protected-access
  if '--' in words:
    words = words[: words.index('--')]
  for word in (word.split('=')[0] for word in words):
    if word.startswith('--gin.'):
      command.error(f'expected {word}=VALUE with an equals sign')
    if word.startswith('--') and word not in flags:
      how = _nearest(word, flags)
      if not how and '--gin_file' in flags:
        how = f'; what gin files set is --gin.{word[2:].upper()}=VALUE'
      command.error(f'{word} is not an argument{how}')


def _nearest(word: str, known) -> str:
  near = difflib.get_close_matches(word, known, 1)
  return f'; did you mean {near[0]}?' if near else ''
