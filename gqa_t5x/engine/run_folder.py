# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run leaves for people: config.json, metrics.jsonl, a progress bar."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import logging
import pathlib
import sys
import time
from typing import Any

import jax

from gqa_t5x import storage
from gqa_t5x.errors import UserError

_log = logging.getLogger(__name__)

# May differ when a run is continued: they do not change what it computes.
_FREE = (
    'model_dir', 'total_steps', 'relative_steps', 'log_every', 'eval_every',
    'checkpoint_every', 'keep', 'model_axis', 'tensorboard', 'max_loss',
    'skip_bad_steps', 'max_skipped_steps', 'vocabulary_size', 'initial_step',
)


def _is_shown(name: str) -> bool:
  """Whether a value is for people who watch; metrics.jsonl has all."""
  return name.startswith('dev/') or name in ('loss', 'tokens_per_second')


def _difference(
    theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
  """Returns the name of a value that differs, and both, None if none does.

  Args:
    theirs: what is in the folder.
    ours: what is to run.
  """
  for name in sorted(theirs.keys() | ours.keys()):
    a, b = theirs.get(name), ours.get(name)
    # What an earlier version did not know does nothing where it is 0 or None.
    if name in _FREE or _is_same(a, b) or (name not in theirs and not b):
      continue
    if not isinstance(a, dict) or not isinstance(b, dict):
      return name, a, b
    if found := _difference(a, b):
      return f'{name}.{found[0]}', *found[1:]
  return None


def _is_same(a: Any, b: Any) -> bool:
  # A shell's completion ends the path of a folder with a slash.
  a, b = (x.rstrip('/') if isinstance(x, str) else x for x in (a, b))
  return a == b


class RunFolder:
  """The folder of one run; only the first process writes."""

  def __init__(self, model_dir: str, tensorboard: bool = False):
    self.path = storage.local_path(model_dir).absolute()
    self._is_writer = jax.process_index() == 0
    self._use_tensorboard = tensorboard
    self._config = None
    self._open = contextlib.ExitStack()
    self._metrics = None
    self._tensorboard = None

  def check(self, config: Mapping[str, Any]) -> None:
    """Raises UserError if the folder holds a run of another configuration."""
    self._config = json.loads(json.dumps(config, default=str))
    # To the others the folder is, or is about to be, that of this very run.
    if not self._is_writer:
      return
    other = self._read_config()
    if other is None:
      for pattern in ('config.json', 'metrics.jsonl', 'checkpoints/[0-9]*'):
        if any(self.path.glob(pattern)):
          raise UserError(
              f'{self.path} has {pattern.split("/")[0]} of another program;'
              ' choose another MODEL_DIR'
          )
      return
    # A run that ended before its first checkpoint leaves nothing to lose.
    if not any((self.path / 'checkpoints').glob('[0-9]*')):
      return
    if found := _difference(other, self._config):
      name, theirs, ours = found
      raise UserError(
          f'{self.path} holds another run: {name} was {theirs!r}, is now'
          f' {ours!r}; choose another MODEL_DIR or remove that run'
      )

  def _read_config(self) -> dict[str, Any] | None:
    """Returns the configuration of the folder's run, None if it has none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
      found = json.loads((self.path / 'config.json').read_text('utf-8'))
      if isinstance(found, dict) and found.keys() == self._config.keys():
        return found
    return None

  def lock(self) -> None:
    """Makes the folder; raises UserError if another program writes to it."""
    if self._is_writer:
      self._open.enter_context(storage.locked_folder(self.path))

  def open(self, step: int | None) -> None:
    """Starts writing; lines of metrics after `step` are made again."""
    if not self._is_writer:
      return
    if self._use_tensorboard:
      self._tensorboard = _summary_writer(self.path)
    storage.write_json(self.path / 'config.json', self._config)
    lines = []
    if step is not None and (self.path / 'metrics.jsonl').exists():
      for line in (self.path / 'metrics.jsonl').read_text().splitlines():
        with contextlib.suppress(ValueError):  # A line cut off by a kill.
          if json.loads(line)['step'] <= step:
            lines.append(line + '\n')
    storage.write_text(self.path / 'metrics.jsonl', ''.join(lines))
    self._metrics = (self.path / 'metrics.jsonl').open('a', encoding='utf-8')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a line to metrics.jsonl; what is no finite number is null there."""
    if self._metrics is None or not values:  # Nothing was measured.
      return
    line = storage.plain({'step': step} | dict(values))
    self._metrics.write(json.dumps(line) + '\n')
    self._metrics.flush()
    shown = [f'{k} {v:.4g}' for k, v in values.items() if _is_shown(k)]
    _log.info('step %d: %s', step, ', '.join(shown))
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, dict(values))

  @contextlib.contextmanager
  def progress(self, step: int, last: int) -> Iterator['Progress']:
    """Shows steps done, loss, tokens/s and time left, on a terminal."""
    bar = Progress(step, last, self._is_writer and sys.stderr.isatty())
    try:
      yield bar
    finally:
      bar.close()

  def close(self) -> None:
    if self._metrics is not None:
      self._metrics.close()
    if self._tensorboard is not None:
      self._tensorboard.close()
    self._open.close()


class Progress:
  """A bar on a terminal; adds the speed to a line of metrics."""

  def __init__(self, step: int, last: int, is_shown: bool):
    self._bar = None
    if is_shown:
      with contextlib.suppress(ImportError):
        import tqdm  # pylint: disable=g-import-not-at-top

        self._bar = tqdm.tqdm(total=last, initial=step, unit='step')
    self.restart_clock()

  def update(self, steps: int, summary: dict[str, float]) -> None:
    """Adds `seconds_per_step` and `tokens_per_second` to the summary."""
    elapsed = time.perf_counter() - self._since
    self.restart_clock()
    summary['seconds_per_step'] = elapsed / steps
    summary['tokens_per_second'] = summary.pop('tokens') / elapsed
    if self._bar is not None:
      self._bar.update(steps)
      self._bar.set_postfix_str(
          f'loss {summary["loss"]:.3f},'
          f' {summary["tokens_per_second"]:,.0f} tokens/s'
      )

  def restart_clock(self) -> None:
    self._since = time.perf_counter()

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def _summary_writer(path: pathlib.Path):
  """Returns CLU's TensorBoard writer."""
  from clu import metric_writers  # pylint: disable=g-import-not-at-top

  return metric_writers.SummaryWriter(str(path))
