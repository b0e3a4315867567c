# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion methods compared by loss, from no uptraining to some.

What Figure 4 of the paper asks (which conversion is best?) with more methods,
with seeds, and along alpha, the share of pre-training that uptraining takes. A
cell is a method, a number of key/value heads and a seed, which decides the
order of the uptraining data and the heads of 'random'; 'none' is the multi-head
model, uptrained as well. Every cell is kept as it ends, and a run that is
started again goes on with those that are missing.

  python -m gqa_t5x.experiments.conversion_methods --output OUT.json

Recipe, data and batches are those of gin_configs/local/uptrain.gin. Loss is the
cross-entropy of span corruption on validation text, nats a token.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import functools
import itertools
import pathlib
import shlex
import sys
import time
from typing import Any

from flax import traverse_util
import jax
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x import grouping
from gqa_t5x import network
from gqa_t5x import number_flags
from gqa_t5x import pretrained
from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x import vocabularies
from gqa_t5x.conversion import calibration
from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.engine import cache
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import launch
from gqa_t5x.engine import partitioning
from gqa_t5x.engine import train_step
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import figures
from gqa_t5x.experiments import stages
from gqa_t5x.tasks import corpus

_DEV_TASK = 'docs_span_corruption'
LOSS = f'{_DEV_TASK} validation, nats a token'
_EVAL_BATCH_SIZE = 16
_EVAL_BATCHES = 16

# A label for each: the method, how heads are grouped, on what it is calibrated,
# which kind of attention alone is converted, whether uptraining learns from the
# multi-head model, by what its learning rate is multiplied and over how many
# steps it grows from 0, by what the shared heads are multiplied, while their
# other sides are divided by it, and the power of the covariance that weighs
# errors, of which `svd` takes the root.
METHODS = {
    'none': {},
    'mean': {'method': 'mean'},
    'first': {'method': 'first'},
    'random': {'method': 'random'},
    'scaled_mean': {'method': 'scaled_mean'},
    'aligned': {'method': 'aligned'},
    'svd': {'method': 'svd'},
    'mean_similarity': {'method': 'mean', 'group_by': 'similarity'},
    'aligned_similarity': {'method': 'aligned', 'group_by': 'similarity'},
    'aligned_calibrated': {'method': 'aligned', 'calibrated': True},
    'svd_calibrated': {'method': 'svd', 'calibrated': True},
    'svd_calibrated_similarity': {
        'method': 'svd', 'group_by': 'similarity', 'calibrated': True,
    },
}  # pyformat: disable
_CONVERSIONS = list(METHODS)  # What follows asks more of some of them.
_OF_EACH_KIND = (
    'mean', 'first', 'random', 'scaled_mean', 'aligned', 'svd', 'svd_calibrated'
)  # pyformat: disable
METHODS |= {
    f'{method}_{more}': METHODS[method] | options
    for methods, more, options in (
        (_OF_EACH_KIND, 'self', {'only': 'self_attention'}),
        (_OF_EACH_KIND, 'cross', {'only': 'encoder_decoder_attention'}),
        (('none', 'svd', 'svd_calibrated'), 'rate_quarter', {'rate': 0.25}),
        (('none', 'mean', 'svd_calibrated'), 'warmup', {'warmup': 100}),
        (('none', 'svd_calibrated'), 'rate_quarter_warmup',
         {'rate': 0.25, 'warmup': 100}),
        (('none', 'mean', 'svd'), 'rate_half', {'rate': 0.5}),
        (('none', 'mean', 'svd'), 'rate_double', {'rate': 2.0}),
        (('svd_calibrated',), 'power_1', {'power': 1.0}),
        (('svd_calibrated',), 'power_1_rate_half', {'power': 1.0, 'rate': 0.5}),
        (('svd_calibrated',), 'power_1_rate_quarter',
         {'power': 1.0, 'rate': 0.25}),
        (('svd_calibrated',), 'power_quarter', {'power': 0.25}),
        (('svd',), 'scale_half', {'scale': 0.5}),
        (('svd',), 'scale_double', {'scale': 2.0}),
        (('none', 'mean', 'svd'), 'distilled', {'distilled': True}),
    )
    for method in methods
}  # pyformat: disable


def _uptraining(checkpoint: str) -> launch.Train:
  """Returns what gin_configs/local/uptrain.gin describes; its model is unused.

  Its recipe, data and batches are those of every cell.
  """
  return launch.configure(
      'train',
      [
          'gqa_t5x/gin_configs/models/t5_1_1_mini.gin',
          'gqa_t5x/gin_configs/local/uptrain.gin',
      ],
      [f'INITIAL_CHECKPOINT_PATH = {checkpoint!r}', 'MODEL_DIR = ""'],
  )


@dataclasses.dataclass(frozen=True)
class OneKindConfig(network.T5Config):
  """A model that has fewer key/value heads in one kind of attention alone.

  Attributes:
    grouped: a name of `heads_lib.ATTENTIONS`; the others have N heads.
  """

  grouped: str = ''

  def kv_heads_of(self, attention: str) -> int:
    return self.num_kv_heads if attention == self.grouped else self.num_heads


class Comparison:
  """What all cells share: the checkpoint, its data, its covariances."""

  def __init__(self, checkpoint: str, calibration_sequences: int):
    self.checkpoint = checkpoint
    opened = checkpoints.open_checkpoint(checkpoint)
    self.params, metadata = opened.read_params(), opened.metadata
    self.config = network.T5Config(**metadata['config'])
    self.config = dataclasses.replace(self.config, dropout_rate=0.0)
    if metadata['step'] is None:
      raise UserError(
          f'expected a checkpoint that tells its step, of which alpha is a'
          f' share, got {checkpoint}; choose one of gqa-t5x train or t5x'
      )
    self.step = int(metadata['step'])
    self.calibration_sequences = calibration_sequences
    self.made_from = {
        'checkpoint': pathlib.Path(checkpoint).name,
        'checkpoint_sha256': opened.source.source_hash(),
        'calibration_sequences': calibration_sequences,
        'loss': LOSS,
        'corpus_sha256': corpus.corpus_fingerprint()['sha256'],
    }
    self.uptraining = _uptraining(checkpoint)
    (folder,) = self._dev_source().run()['validation']
    meta = cache.read_meta(pathlib.Path(folder))
    vocabularies.check(
        checkpoint,
        metadata,
        size=meta['vocab_size'],
        sha256=meta['vocabulary_sha256'],
        how='choose a checkpoint of the vocabulary that ships',
    )
    self.dev = self._eval_batches('validation', _EVAL_BATCHES)

  def _batch_config(self, batch_size, **options) -> data.BatchConfig:
    lengths = self.uptraining.source.task_feature_lengths
    return data.BatchConfig(
        batch_size, lengths['inputs'], lengths['targets'], **options
    )

  def _dev_source(self) -> launch.Cache:
    return dataclasses.replace(
        self.uptraining.source, mixture_or_task_name=_DEV_TASK
    )

  def _eval_batches(self, split: str, count: int) -> list[data.Batch]:
    (folder,) = self._dev_source().run()[split]
    batches = data.eval_batches(folder, self._batch_config(_EVAL_BATCH_SIZE))
    return list(itertools.islice(batches, count))

  @functools.cached_property
  def covariances(self):
    return calibration.covariances(
        self.config,
        self.params,
        self.calibration_batches(self.calibration_sequences),
    )

  def calibration_batches(self, num_sequences: int) -> list[data.Batch]:
    """Returns text of pre-training; none of it is validation text."""
    count = -(-num_sequences // _EVAL_BATCH_SIZE)
    batches = self._eval_batches('train', count)
    for x in batches[-1].values():  # Padding, so that all have one shape.
      x[num_sequences - (len(batches) - 1) * _EVAL_BATCH_SIZE :] = 0
    return batches

  def model(
      self, num_kv_heads: int, only: str | None = None
  ) -> network.Transformer:
    """Returns a network, with fewer heads in one kind of attention or both."""
    config = dataclasses.replace(self.config, num_kv_heads=num_kv_heads)
    if only:
      config = OneKindConfig(**vars(config), grouped=only)
    return network.Transformer(config)

  def convert(
      self,
      num_kv_heads: int,
      *,
      only: str | None = None,
      scale: float = 1.0,
      **options,
  ) -> Any:
    """Returns the parameters of `model(num_kv_heads, only)`.

    Args:
      num_kv_heads: k.
      only: a name of `heads_lib.ATTENTIONS`; None is both.
      scale: multiplies keys and values of the decoder's attentions, and divides
        queries and outputs, so that nothing computed changes.
      **options: of `conversion.convert_params`.
    """
    converted = conversion.convert_params(
        self.params,
        num_heads=self.config.num_heads,
        num_kv_heads=num_kv_heads,
        **options,
    )
    flat = traverse_util.flatten_dict(self.params)
    new = traverse_util.flatten_dict(converted)
    for path in flat:
      if only and only not in path:
        new[path] = flat[path]
      if heads_lib.is_kernel(path, 'key', 'value'):
        new[path] = new[path] * scale
      elif heads_lib.is_kernel(path, 'query', 'out'):
        new[path] = new[path] / scale
    return traverse_util.unflatten_dict(new)

  def losses(
      self, label: str, num_kv_heads: int, seed: int, alphas: list[float]
  ) -> Iterator[tuple[float, float]]:
    """Yields (alpha, loss) as uptraining goes on; alphas must ascend."""
    options = dict(METHODS[label])
    model = self.model(num_kv_heads, options.get('only'))
    recipe, teacher = self.uptraining.config, None
    schedule = dataclasses.replace(
        recipe.schedule,
        base=options.pop('rate', 1.0) * recipe.schedule.base,
        linear_warmup_steps=options.pop('warmup', 0),
        first_step=self.step,
    )
    recipe = dataclasses.replace(recipe, schedule=schedule)
    if options.pop('distilled', False):
      recipe = dataclasses.replace(
          recipe,
          teacher_checkpoint=self.checkpoint,
          loss=dataclasses.replace(recipe.loss, distillation_weight=0.5),
      )
    trainer = train_step.trainer_for(model, recipe)
    if recipe.teacher_checkpoint:
      teacher = trainer.place_teacher(self.params)
    if options.pop('calibrated', False):
      options['covariances'] = self.covariances
    if power := options.pop('power', None):
      options['covariances'] = {
          path: _weighed_by(moments, power)
          for path, moments in self.covariances.items()
      }
    params = self.params
    if options:
      params = self.convert(num_kv_heads, seed=seed, **options)
    state = trainer.state_from(params, self.step)
    batches = data.train_batches(
        self.uptraining.source.run()['train'],
        self._batch_config(
            self.uptraining.batch_size, pack=self.uptraining.pack, seed=seed
        ),
    )
    made, pending = 0, []
    for alpha in alphas:
      while made < round(alpha * self.step):
        state, metrics = trainer.step(state, next(batches), teacher=teacher)
        made += 1
        pending = [*pending[-1:], metrics]
        jax.block_until_ready(pending[0])  # No further ahead than that.
      with trainer.use():
        loss = evaluate.dev_loss(model, state.params, self.dev)['loss']
      yield alpha, loss


def _weighed_by(moments, power: float) -> calibration.Covariance:
  """Returns a covariance whose root is a power of the key's of another."""
  values, vectors = np.linalg.eigh(moments.key.astype(np.float64))
  key = (vectors * np.maximum(values, 0) ** (2 * power)) @ vectors.T
  return calibration.Covariance(moments.query, key)


def summary(cells: list[dict]) -> str:
  """Returns a table: mean and 95% confidence interval over seeds (Student's t).

  Args:
    cells: of the report; a method and a number of heads are one row. Where an
      alpha has fewer seeds than the row, their number stands behind it.
  """
  rows, alphas = {}, []
  for cell in cells:
    rows.setdefault((cell['num_kv_heads'], cell['method']), []).append(cell)
    alphas += [a for a in cell['losses'] if a not in alphas]
  alphas.sort(key=float)
  width = max([26, *(len(method) for _, method in rows)])
  lines = [f'{"K":>2} {"method":<{width}} seeds  ' + '  '.join(
      f'alpha {a:<8}' for a in alphas
  )]  # pyformat: disable
  for (heads, method), group in sorted(rows.items(), reverse=True):
    line = f'{heads:>2} {method:<{width}} {len(group):>5}'
    for alpha in alphas:
      values = [c['losses'][alpha] for c in group if alpha in c['losses']]
      text = mean_and_interval(values) if values else '-'
      if values and len(values) < len(group):
        text += f' ({len(values)})'
      line += f'  {text:<14}'
    lines.append(line.rstrip())
  return '\n'.join(lines)


def mean_and_interval(values: list[float]) -> str:
  """Returns the mean, with half of the 95% interval (Student's t) behind it.

  Only where it shows: without uptraining a seed changes random heads alone.
  """
  from scipy import stats

  text = f'{np.mean(values):.3f}'
  if len(values) > 1:
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    text += f' ±{half:.3f}' if half >= 0.0005 else ''
  return text


def figure(cells: list[dict]) -> str:
  """Returns an SVG of mean losses along alpha; a drawing a K, a curve a method.

  Each has the multi-head model too.
  """
  means = {}
  for cell in cells:
    curve = means.setdefault((cell['num_kv_heads'], cell['method']), {})
    for alpha, loss in cell['losses'].items():
      curve.setdefault(float(alpha), []).append(loss)
  kinds = dict(zip(
      sorted({m for _, m in means if 'method' in METHODS[m]}),
      itertools.cycle(figures.SERIES),
  ))  # pyformat: disable
  curves = {}
  for (k, method), curve in sorted(means.items()):
    points = tuple((a, float(np.mean(x))) for a, x in sorted(curve.items()))
    label = method
    if method not in kinds:
      k, label = None, 'MHA' + method.removeprefix('none').replace('_', ', ')
    line = figures.Line(label, kinds.get(method, 'mha'), points)
    curves.setdefault(k, []).append(line)
  multi_head = curves.pop(None, [])
  return figures.standalone([
      figures.lines(
          [*multi_head, *of_k],
          title=f'Loss along alpha of each conversion to K={k}',
          x_label=f'alpha, share of pre-training; K={k}',
          y_label='loss, nats a token',
      )
      for k, of_k in sorted(curves.items(), reverse=True)
  ])


def _alphas(text: str) -> list[float]:
  return [float(part) for part in text.split(',')]


def _methods(text: str) -> list[str]:
  labels = text.split(',')
  for label in labels:
    if label not in METHODS:
      raise argparse.ArgumentTypeError(
          f'expected methods of {", ".join(METHODS)}, got {label!r}'
      )
  return labels


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument('--checkpoint', default=pretrained.CHECKPOINT_PATH)
  parser.add_argument(
      '--methods', type=_methods, default=_CONVERSIONS, metavar='M,M'
  )
  parser.add_argument(
      '--num_kv_heads', type=number_flags.integers, default=[4, 2, 1],
      metavar='K,K',
  )
  parser.add_argument(
      '--seeds', type=number_flags.integers, default=[1, 2, 3, 4, 5],
      metavar='N,N',
  )
  parser.add_argument(
      '--alphas', type=_alphas, default=[0.0, 0.01, 0.02, 0.05, 0.1],
      metavar='A,A',
  )  # pyformat: disable
  parser.add_argument(
      '--calibration_sequences', type=number_flags.positive, default=128
  )
  parser.add_argument(
      '--figure', metavar='SVG', help='draw what OUTPUT holds, run nothing'
  )
  args = parser.parse_args(argv)
  try:
    if args.figure:
      report = _read_report(storage.local_path(args.output))
      storage.write_text(args.figure, figure(report['cells']))
    else:
      path = storage.output_file(args.output)  # Before anything is measured.
      path.parent.mkdir(parents=True, exist_ok=True)
      with storage.locked(path.with_name(f'.{path.name}.lock')):
        _run(path, args, sys.argv[1:] if argv is None else argv)
  except (UserError, OSError) as error:
    parser.error(str(error))


def _read_report(path: pathlib.Path) -> dict[str, Any]:
  report = stages.read_json(path, 'choose another file', ('cells',))
  for cell in report['cells']:
    if 'losses' not in cell or cell.get('method') not in METHODS:
      raise UserError(
          f'expected cells of this program in {path}, got one of'
          f' {", ".join(cell)}; choose another file'
      )
  return report


def _run(path: pathlib.Path, args, words: list[str]) -> None:
  """Adds the cells that are missing to a report."""
  partitioning.use_cpu_cores()
  comparison = Comparison(args.checkpoint, args.calibration_sequences)
  for k in args.num_kv_heads:
    grouping.group_size(comparison.config.num_heads, k)
  report = comparison.made_from | {'cells': []}
  if path.exists():
    report = _read_report(path)
    for name, value in comparison.made_from.items():
      if (found := report.get(name)) != value:
        raise UserError(
            f'{path} has cells of {name} {found!r}, not {value!r}; choose'
            ' another file'
        )
  if 'command' in report:
    report['earlier_commands'] = [
        *report.get('earlier_commands', []), report['command']
    ]  # pyformat: disable
  report |= {
      'command': 'python -m gqa_t5x.experiments.conversion_methods '
      + shlex.join(words),
  } | provenance.environment()
  alphas = sorted(set(args.alphas))
  for seed in args.seeds:
    for method in args.methods:
      heads = args.num_kv_heads
      if 'method' not in METHODS[method]:
        heads = [comparison.config.num_heads]
      for k in heads:
        cells = [
            c for c in report['cells']
            if (c['method'], c['num_kv_heads'], c['seed']) == (method, k, seed)
        ]
        before = cells[0] if cells else {}
        losses_by_alpha = dict(before.get('losses', {}))
        commits = dict(before.get('commits', {}))
        if losses_by_alpha.keys() >= {str(a) for a in alphas}:
          continue
        start = time.monotonic()
        for alpha, loss in comparison.losses(method, k, seed, alphas):
          losses_by_alpha[str(alpha)] = loss
          commits[str(alpha)] = report['commit']
          print(method, k, seed, alpha, f'{loss:.4f}', flush=True)
        report['cells'] = [c for c in report['cells'] if c not in cells]
        report['cells'].append({
            'method': method,
            'num_kv_heads': k,
            'seed': seed,
            'losses': dict(
                sorted(losses_by_alpha.items(), key=lambda x: float(x[0]))
            ),
            'seconds': before.get('seconds', 0.0) + time.monotonic() - start,
            'commits': commits,
        })
        storage.write_json(path, report)
  print(summary(report['cells']))


if __name__ == '__main__':
  main()
