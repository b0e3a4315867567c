# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the engine from gin files: train, eval, infer and cache.

Gin only fills in the four dataclasses here; what they run knows nothing of it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import functools
import importlib.util  # noqa: F401  Gin's package lookup needs it.
import inspect
import logging
import pathlib
import re
import tokenize
from typing import Any

import jax

from gqa_t5x import cache_folder
from gqa_t5x import checkpoints
from gqa_t5x import decoding
from gqa_t5x import extras
from gqa_t5x import network
from gqa_t5x import storage
from gqa_t5x.engine import cache
from gqa_t5x.engine import checkpointing
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import partitioning
from gqa_t5x.engine import train
from gqa_t5x.engine import train_step
from gqa_t5x.errors import UserError
from gqa_t5x.errors import check_fields
from gqa_t5x.errors import check_limits


# Of the fields of jobs, where they have them.
_LEAST = {
    'batch_size': 1, 'max_examples': 1, 'dev_examples': 1, 'metric_examples': 0,
    'num_epochs': 1, 'seed': 0, 'data_seed': 0,
}  # pyformat: disable


class _Job:
  """What gin fills in; raises UserError for values of another type."""

  def __post_init__(self):
    check_fields(self)
    for name, least in _LEAST.items():
      if hasattr(self, name):
        check_limits(self, name, least=least)
    if not hasattr(self, 'task_feature_lengths'):
      return
    lengths = self.task_feature_lengths
    found = [
        lengths.get(name) if isinstance(lengths, Mapping) else None
        for name in cache.FEATURES
    ]
    if not all(isinstance(n, int) and n > 0 for n in found):
      raise UserError(
          "expected task_feature_lengths like {'inputs': 256, 'targets': 72},"
          f' got {lengths!r}'
      )
    if not hasattr(self, 'decoding'):
      return
    if not isinstance(self.decoding, Mapping) or (
        'max_decode_len' in self.decoding
    ):
      raise UserError(
          "expected decoding like {'method': 'beam', 'num_beams': 4}, without"
          f' max_decode_len, got {self.decoding!r}; the longest output is'
          " task_feature_lengths['targets']"
      )
    decoding.check_options(
        self.model.config.vocab_size, lengths['targets'], **self.decoding
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache(_Job):
  """Writes a task, or those of a mixture, as token arrays.

  Attributes:
    mixture_or_task_name: a registered seqio name.
    task_feature_lengths: {'inputs': S, 'targets': T}, EOS counted.
    splits: as named.
    num_epochs: of the train split, each with noise of its own.
    seed: of that noise.
    max_examples: of each task, the first ones; None means all.
    cache_dir: None is a folder for these lengths under the user's cache.
    only_cached: whether what was cached last is taken, and no source looked at.
  """

  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  splits: Sequence[str] = ('train', 'validation')
  num_epochs: int = 1
  seed: int = 0
  max_examples: int | None = None
  cache_dir: str | None = None
  only_cached: bool = False

  def run(self) -> dict[str, dict[str, float]]:
    """Returns {split: {folder: rate}}; makes only what is missing."""
    lengths = dict(self.task_feature_lengths)
    name = '{inputs}x{targets}'.format(**lengths)
    name += f'_{self.num_epochs}_{self.seed}'
    if self.max_examples is not None:
      name += f'_{self.max_examples}'
    root = str(
        storage.local_path(self.cache_dir)
        if self.cache_dir
        else cache_folder.cache_folder() / 'token_arrays' / name
    )
    return {
        split: cache.cache_mixture(
            self.mixture_or_task_name,
            split,
            lengths,
            root,
            num_epochs=self.num_epochs if split == 'train' else 1,
            seed=self.seed,
            max_examples=self.max_examples,
            only_cached=self.only_cached,
        )
        for split in self.splits
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(_Job):
  """Trains; writes `train.TrainConfig.model_dir`.

  Attributes:
    model: as named.
    config: of the run.
    source: the token arrays to train on; made if they are missing.
    batch_size: rows over all processes.
    pack: whether short examples share rows.
    data_seed: of the order of the data.
    dev_examples: how many of each dev task the dev loss is measured on, in
      whole batches.
    metric_examples: how many of each dev task are decoded to measure the
      task's own metrics; 0 is none, None all.
  """

  model: network.Transformer
  config: train.TrainConfig
  source: Cache
  batch_size: int
  pack: bool = False
  data_seed: int = 0
  dev_examples: int = 512
  metric_examples: int | None = 0

  def run(self) -> None:
    mesh = partitioning.make_mesh(self.config.model_axis)
    self._check(mesh)
    lengths = dict(self.source.task_feature_lengths)
    folders = self.source.run()
    batches = data.BatchConfig(
        batch_size=self.batch_size,
        inputs_length=lengths['inputs'],
        targets_length=lengths['targets'],
        pack=self.pack,
        seed=self.data_seed,
    )
    metas = [cache.read_meta(pathlib.Path(f)) for f in folders['train']]
    self._check_ids(metas[0]['vocab_size'])
    hashes = {meta['vocabulary_sha256'] for meta in metas}
    if len(hashes) > 1:
      raise UserError(
          f'expected one vocabulary in {self.source.mixture_or_task_name}, got'
          f' {len(hashes)}; choose tasks that share one'
      )

    process_index, process_count = partitioning.batch_share(mesh)

    def from_batch(start):
      return data.train_batches(
          folders['train'],
          batches,
          start_step=start,
          process_index=process_index,
          process_count=process_count,
      )

    # Where the tokens come from may differ when a run is continued; what they
    # are may not.
    source = dataclasses.asdict(self.source)
    for name in ('only_cached', 'cache_dir', 'splits'):
      del source[name]
    train.train(
        self.model,
        dataclasses.replace(
            self.config,
            vocabulary_sha256=hashes.pop(),
            vocabulary_size=metas[0]['vocab_size'],
        ),
        from_batch,
        self._dev_metrics(folders.get('validation', {}), batches, lengths),
        {
            'source': source,
            'batches': dataclasses.asdict(batches),
            'tokens_sha256': {meta['task']: meta['sha256'] for meta in metas},
        },
    )

  def _check(self, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError for what can be told before anything is tokenized."""
    partitioning.check_rows(self.batch_size, mesh)
    partitioning.check_batch_size(
        self.batch_size, self.config.num_microbatches, 'num_microbatches'
    )
    best, known = self.config.best_metric, evaluate.DEV_METRICS
    if best and '/' not in best and best not in known:
      raise UserError(
          f'expected best_metric to be {" or ".join(known)}, or TASK/METRIC of'
          f' what is decoded, got {best!r}'
      )
    if best and '/' in best and self.metric_examples == 0:
      raise UserError(
          f'expected examples to be decoded for best_metric={best!r}, got none;'
          ' set --gin.launch.Train.metric_examples'
      )
    if 'train' not in self.source.splits:
      raise UserError(
          'expected a split to train on, got splits'
          f' {tuple(self.source.splits)}; add "train"'
      )
    if best and 'validation' not in self.source.splits:
      raise UserError(
          f'expected a validation split for best_metric={best!r}, got splits'
          f' {tuple(self.source.splits)}; add it, or set best_metric to None'
      )
    initial = self.config.initial_checkpoint
    if checkpointing.has_steps(self.config.model_dir):
      initial = None  # The run goes on from its own.
    teacher = self.config.teacher_checkpoint
    if cache.has_seqio() and not self.source.only_cached:
      name = self.source.mixture_or_task_name
      features = cache.provider_of(name).output_features
      self._check_ids(features['targets'].vocabulary.vocab_size)
      if initial:
        opened = _open(self.model, initial, name)
        train.check_step(opened.metadata, self.config)
      if teacher:
        _open(train_step.teacher_of(self.model), teacher, name)

  def _check_ids(self, ids: int) -> None:
    rows = self.model.config.vocab_size
    if ids > rows:
      raise UserError(
          f'expected a vocabulary of at most {rows} ids, as the model has'
          f' (vocab_size), got {ids} in {self.source.mixture_or_task_name};'
          ' choose another model, or --gin.network.T5Config.vocab_size'
      )

  def _dev_metrics(self, folders, batches, lengths):
    """Returns the function that `train.train` evaluates with."""
    batches = dataclasses.replace(batches, pack=False)
    count = -(-self.dev_examples // self.batch_size)
    decode = None
    if self.metric_examples != 0:
      decode = evaluate.task_evaluator(
          self.model,
          self.source.mixture_or_task_name,
          lengths,
          batch_size=self.batch_size,
          max_examples=self.metric_examples,
      )

    def dev_metrics(params, step):
      rows = (
          batch
          for folder in folders
          for _, batch in zip(range(count), data.eval_batches(folder, batches))
      )
      metrics = evaluate.dev_loss(self.model, params, rows) if folders else {}
      return metrics | (decode(params, step) if decode else {})

    return dev_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_Job):
  """Decodes a split and measures the tasks' metrics.

  Attributes:
    model: as named.
    checkpoint_path: of any known format.
    mixture_or_task_name: a registered seqio name.
    task_feature_lengths: longer inputs are cut, outputs end there.
    batch_size: inputs decoded together.
    split: as named.
    max_examples: of each task; None means all.
    output_dir: gets metrics.json, and outputs and metrics by seqio's logger.
    decoding: method and options of `gqa_t5x.generate`.
  """

  model: network.Transformer
  checkpoint_path: str
  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  batch_size: int
  output_dir: str
  split: str = 'validation'
  max_examples: int | None = None
  decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def run(self) -> dict[str, float]:
    """Returns {'task/metric': value}; refuses a folder that has metrics."""
    folder = storage.local_path(self.output_dir).absolute()
    storage.check_absent(folder / 'metrics.json')
    opened = _open(self.model, self.checkpoint_path, self.mixture_or_task_name)
    measure = evaluate.task_evaluator(
        self.model,
        self.mixture_or_task_name,
        dict(self.task_feature_lengths),
        batch_size=self.batch_size,
        split=self.split,
        max_examples=self.max_examples,
        output_dir=str(folder),
        **self.decoding,
    )
    folder.mkdir(parents=True, exist_ok=True)  # seqio's logger needs it.
    params = decoding.place_params(self.model, opened.read_params())
    metrics = measure(params, int(opened.metadata.get('step') or 0))
    storage.write_json(folder / 'metrics.json', metrics)
    return metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer(_Job):
  """Writes the outputs of a split as JSON lines; attributes as `Evaluate`."""

  model: network.Transformer
  checkpoint_path: str
  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  batch_size: int
  output_path: str
  split: str = 'test'
  max_examples: int | None = None
  decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def run(self) -> str:
    """Returns the file's path; refuses one that exists."""
    storage.check_absent(storage.output_file(self.output_path))
    opened = _open(self.model, self.checkpoint_path, self.mixture_or_task_name)
    evaluate.infer(
        self.model,
        decoding.place_params(self.model, opened.read_params()),
        self.mixture_or_task_name,
        dict(self.task_feature_lengths),
        self.output_path,
        batch_size=self.batch_size,
        split=self.split,
        max_examples=self.max_examples,
        identity=f'{_last_written(self.checkpoint_path)} {opened.metadata}',
        **self.decoding,
    )
    return self.output_path


def _last_written(checkpoint_path: str) -> str:
  """Returns a checkpoint's path and when it was last written to."""
  folder = storage.local_path(checkpoint_path).absolute()
  times = (path.stat().st_mtime_ns for path in folder.rglob('*'))
  return f'{folder} {max(times, default=0)}'


MODES = {'train': Train, 'eval': Evaluate, 'infer': Infer, 'cache': Cache}


def _open(
    model: network.Transformer, path: str, mixture_or_task_name: str
) -> checkpoints.Checkpoint:
  """Opens a checkpoint of this model and of the task's vocabulary."""
  features = cache.provider_of(mixture_or_task_name).output_features
  vocabulary = features['targets'].vocabulary
  return train.open_fitting(
      model, path, vocabulary.vocab_size, cache.vocabulary_hash(vocabulary)
  )


def run(
    mode: str, gin_files: Sequence[str], bindings: Sequence[str] = ()
) -> Any:
  """Runs one mode; arguments and errors as for `configure`.

  Returns:
    What the mode's `run` returns.
  """
  # Compiling a step takes longer than many laptop runs train.
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update(
        'jax_compilation_cache_dir', str(cache_folder.cache_folder() / 'xla')
    )
  partitioning.use_cpu_cores()
  try:
    # Some tasks ask gin for their vocabulary when they are read.
    return _configure(mode, gin_files, bindings).run()
  finally:
    _clear_gin()


def configure(
    mode: str, gin_files: Sequence[str], bindings: Sequence[str] = ()
) -> Cache | Train | Evaluate | Infer:
  """Returns the job of one mode, as gin files and bindings describe it.

  Gin's state is cleared before and after.

  Args:
    mode: 'train', 'eval', 'infer' or 'cache'.
    gin_files: a path each, or gqa_t5x/gin_configs/... of this package; later
      files override earlier ones.
    bindings: 'NAME = VALUE' each, in gin's syntax; they override the files.

  Raises:
    UserError: if the configuration is wrong, in one line.
  """
  try:
    return _configure(mode, gin_files, bindings)
  finally:
    _clear_gin()


def _clear_gin() -> None:
  import gin  # pylint: disable=g-import-not-at-top

  gin.clear_config(clear_constants=True)


def _configure(mode, gin_files, bindings):
  """As `configure`; leaves gin's state as it is then."""
  import gin  # pylint: disable=g-import-not-at-top

  _clear_gin()
  try:
    _parse(gin, gin_files, bindings)
    return gin.get_configurable(MODES[mode])()
  except Exception as error:
    # Gin's own exception has lost which module it was.
    found = re.search(r"No module named '([\w.]+)'", str(error))
    if found and extras.extra_of(found[1]):
      raise ImportError(found[0], name=found[1]) from error
    line = _one_line(error, gin)
    raise UserError(f'cannot configure {mode}: {line}') from error


def _parse(gin, gin_files, bindings) -> None:
  """Parses and finalises; see `configure`."""
  _add_search_path()
  if not gin_files:
    raise UserError(
        'no gin file was given; add --gin_file=gqa_t5x/gin_configs/local/...'
    )
  for path in gin_files:
    logging.disable(logging.ERROR)  # Gin logs where it looked, too.
    try:
      gin.parse_config_file(path)
    except OSError as error:
      what = f'{path} cannot be read; check the path'
      if pathlib.Path(path).exists():
        what = f'{path} includes a file that cannot be read; check its path'
      raise UserError(what) from error
    except tokenize.TokenError as error:
      raise UserError(
          f'{path} ends within a value; look for a bracket or a quote that is'
          ' not closed'
      ) from error
    finally:
      logging.disable(logging.NOTSET)
  macros = _macros(gin)
  # Gin would take a misspelt macro as a new one, and nothing would use it.
  used = _used_macros(gin)
  for name in macros:
    if name not in used and name not in _own_macros():
      hint = _nearest(name, sorted(used))
      raise UserError(f'a gin file sets {name}, which nothing uses; {hint}')
  for binding in bindings:
    name, separator, _ = (part.strip() for part in binding.partition('='))
    if not separator:
      raise UserError(f'expected NAME=VALUE, got {binding!r}')
    if '.' not in name and name not in macros:
      meant = name.rpartition('/')[2].upper()  # Macros have no scope.
      if meant == 'NUM_KV_HEADS' and meant not in macros:
        hint = 'a file of gqa_t5x/gin_configs/models has it; add its --gin_file'
      else:
        hint = _nearest(meant, macros)
      raise UserError(f'no gin file has a macro {name}; {hint}')
    try:
      gin.parse_config(binding)
    except SyntaxError as error:
      raise UserError(
          f'expected a value in gin\'s syntax, got {binding!r}; strings need'
          ' quotes'
      ) from error
  gin.finalize()


@functools.cache
def _add_search_path() -> None:
  import gin  # pylint: disable=g-import-not-at-top

  package = pathlib.Path(__file__).resolve().parents[1]
  gin.add_config_file_search_path(str(package.parent))


def _macros(gin) -> list[str]:
  """Returns the names of the macros of the parsed files."""
  # A macro without a value has no line in config_str.
  scopes = (scope for scope, name in gin.config._CONFIG if name == 'gin.macro')
  return sorted(scopes)


def _used_macros(gin) -> set[str]:
  """Returns the names of the macros that a parsed value refers to."""
  macro = gin.get_configurable('gin.macro')
  references = gin.config.iterate_references(gin.config._CONFIG, to=macro)
  return {reference.config_key[0] for reference in references}


@functools.cache
def _own_macros() -> set[str]:
  """Returns those of the gin files that ship: not all modes use them all."""
  from gqa_t5x import gin_configs  # pylint: disable=g-import-not-at-top

  return {
      name
      for path in pathlib.Path(gin_configs.__path__[0]).rglob('*.gin')
      for name in re.findall(r'^(\w+) *=', path.read_text('utf-8'), re.M)
  }


def _one_line(error: Exception, gin) -> str:
  """Returns what gin means, without the trace it adds."""
  text = str(error)
  if found := re.search(r"No configurable matching '([\w.]+)'", text):
    return f'no gin file has {found[1]}; {_nearest(found[1], _names(gin))}'
  if found := re.search(r"'([\w.]+)' doesn't have a parameter .*'(\w+)'", text):
    name, parameter = found.groups()
    wrapped = gin.config._REGISTRY.get_match(name).wrapped
    known = list(inspect.signature(wrapped).parameters)
    return f'{name} has no parameter {parameter}; {_nearest(parameter, known)}'
  if found := re.search(r"(\w+)/macro.value set to `%gin.REQUIRED`", text):
    return (
        f'{found[1]} must be set; add --gin.{found[1]}=VALUE, with quotes'
        " inside the shell's where it is text: '\"...\"'"
    )
  if found := re.search(r"No bindings specified for '(\w+)/gin.macro'", text):
    return f'{found[1]} has no value; add the gin file of a run, which sets it'
  if "required positional argument: 'config'" in text:
    return (
        'no model was given; add'
        ' --gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin or another'
    )
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return lines[0] if lines else type(error).__name__


def _names(gin) -> list[str]:
  """Returns what the parsed files let bind, as they write it."""
  names = (name for name, _ in gin.config._REGISTRY.items())
  return sorted(
      '.'.join(name.split('.')[-2:])
      for name in names
      if not name.startswith('gin.')
  )


def _nearest(name: str, known: Sequence[str]) -> str:
  near = difflib.get_close_matches(name, known, 1)
  return f'did you mean {near[0]}?' if near else f'there are {", ".join(known)}'
