# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills the tables and figures of README and docs/ from results/.

Where a document has

  <!-- made: NAME FILE... -->
  <!-- end -->

what stands between becomes what NAME makes of the JSON files, whose paths are
relative to the repository. `make readme-figures` does it for all documents, so
that nothing between such marks is copied by hand.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
import re

import numpy as np

from gqa_t5x import storage
from gqa_t5x.benchmark import cross_cache
from gqa_t5x.benchmark import tpu_compile
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import claims
from gqa_t5x.experiments import conversion_methods
from gqa_t5x.experiments import figures
from gqa_t5x.experiments import finetuned
from gqa_t5x.experiments import report as report_lib
from gqa_t5x.experiments import tables

_BLOCK = re.compile(
    r'(<!-- made: (?P<name>\S+) (?P<files>[^>]+?) -->\n)'
    r'(?:(?!<!-- made:).)*?(<!-- end -->)',
    re.DOTALL,
)
_PEERS = {'ctranslate2': 'CTranslate2', 't5x': 't5x', 'hf': 'Hugging Face'}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _as_printed(text: str) -> str:
  return f'```\n{text}\n```'


def _table1(results: dict) -> str:
  """The paper's rows, those of svd, and the baselines."""
  return _as_printed(tables.format_headline(results))


def _decoding(*benchmarks: dict) -> str:
  """Milliseconds of a decode step; a row a benchmark, a column a model."""
  names = list(dict.fromkeys(n for b in benchmarks for n in b['rows']))
  ours = [n for n in names if n not in _PEERS]
  peers = [n for n in _PEERS if n in names]

  def cells(rows, columns, write):
    return [write(rows[n]) if n in rows else tables.DASH for n in columns]

  lines = []
  for rows in (b['rows'] for b in benchmarks):
    one = rows[ours[0]]
    lines.append([
        f'{one["batch_size"]}, {one["input_length"]}',
        *cells(rows, ours + peers, lambda r: f'{r["ms_per_step"]:.1f}'),
        f'{one["limit_ms_per_step"]:.1f}',
        *cells(
            rows,
            [ours[0], *peers],
            lambda r: f'{r["prefill_seconds"]:.2f}',
        ),
    ])
  return _table(
      [
          'batch, input',
          *ours,
          *(_PEERS[n] for n in peers),
          f'limit {ours[0]}',
          *(f'prefill s, {_PEERS.get(n, n)}' for n in [ours[0], *peers]),
      ],
      lines,
  )


def _limits(*benchmarks: dict) -> str:
  """Each number of heads, beside the limit that the bandwidth sets."""
  return _table(
      [
          'model', 'batch', 's/sample', 'encoder s', 'prefill s', 'ms/step',
          'limit ms/step', 'of the limit', 'cache GiB', 'peak GiB',
      ],
      [
          [
              name,
              f'{row["batch_size"]}',
              tables.significant(row['seconds_per_sample']),
              f'{row["encode_seconds"]:.2f}',
              f'{row["prefill_seconds"]:.2f}',
              f'{row["ms_per_step"]:.2f}',
              f'{row["limit_ms_per_step"]:.2f}',
              f'{row["bandwidth_share"]:.0%}',
              f'{row["cache_bytes_allocated"] / 2**30:.2f}',
              f'{row["peak_memory_bytes"] / 2**30:.1f}',
          ]
          for benchmark in benchmarks
          for name, row in benchmark['rows'].items()
          if name not in _PEERS
      ],
  )  # pyformat: disable


def _claims_of_time(benchmark: dict) -> str:
  """What the paper claims of time, tested on each shape of a benchmark."""
  return _table(
      ['claim', 'test', 'paper', 'here, 95% interval', 'verdict'],
      [
          [f.claim, f.test, f.paper, report_lib.estimate(f), f.verdict]
          for found in claims.of_benchmark(benchmark).values()
          for f in found
      ],
  )


def _largest_batch(*benchmarks: dict) -> str:
  """Each number of heads at the largest batch that fits."""
  lines = []
  for rows in (b['largest_batch'] for b in benchmarks):
    for name, row in rows.items():
      lines.append([
          name,
          f'{row["input_length"]:,}',
          f'{row["batch_size"]:,}',
          f'{row["peak_memory_bytes"] / 2**30:.2f}',
          f'{row["cache_bytes_allocated"] / 2**30:.2f}',
          tables.significant(row['seconds_per_sample']),
          f'{row["ms_per_step"] / row["batch_size"]:.2f}',
      ])
  header = [
      'model', 'input', 'batch', 'peak GiB', 'cache GiB', 's/sample',
      'ms/step and sample',
  ]  # pyformat: disable
  return _table(header, lines)


def _training(benchmark: dict) -> str:
  """Seconds of a training step, a row a model."""
  names = _PEERS | {'t5x': "t5x's own network"}
  names |= {'hf': 'Hugging Face, PyTorch'}
  return _table(
      ['network', 's/step', 'utilisation'],
      [
          [
              names.get(name, name),
              f'{row["seconds_per_step"]:.2f}',
              f'{row["utilisation"]:.0%}',
          ]
          for name, row in benchmark['rows'].items()
      ],
  )


def _conversion(report: dict) -> str:
  """Losses of conversion methods along alpha."""
  return _as_printed(conversion_methods.summary(report['cells']))


def _calibration_text(report: dict) -> str:
  """Loss of svd by the text that it was calibrated on, over draws of it."""
  cells = [c for c in report['cells'] if 'sequences' in c]
  sequences = sorted({c['sequences'] for c in cells})
  losses = {}
  for c in cells:
    key = c['text'], c['num_kv_heads'], c['sequences']
    losses.setdefault(key, []).append(c['loss'])
  columns = [(4, 128), (2, 128), (1, 128), (1, sequences[0])]
  columns.append((1, sequences[-1]))
  return _table(
      ['text'] + [
          f'K={k}' + (f', {n:,} sequences' if n != 128 else '')
          for k, n in columns
      ],
      [
          [text]
          + [
              conversion_methods.mean_and_interval(losses[text, *column])
              for column in columns
          ]
          for text in dict.fromkeys(c['text'] for c in cells)
      ],
  )  # pyformat: disable


def _attention_kinds(apart: dict, together: dict) -> str:
  """Losses with one kind of the decoder's attentions converted, and with both.

  Args:
    apart: cells of one kind alone.
    together: cells of both.
  """
  losses = {}
  for cell in (*apart['cells'], *together['cells']):
    for alpha, loss in cell['losses'].items():
      key = cell['method'], cell['num_kv_heads'], alpha
      losses.setdefault(key, []).append(loss)

  def text(*key):
    if key not in losses:
      return tables.DASH
    return conversion_methods.mean_and_interval(losses[key])

  rows = dict.fromkeys(
      (method.removesuffix('_self'), k)
      for method, k, _ in losses
      if method.endswith('_self')
  )
  ends = {'self': '_self', 'cross': '_cross', 'both': ''}
  alphas = [a for a in ('0.0', '0.05') if any(
      (f'{method}_self', k, a) in losses for method, k in rows
  )]  # pyformat: disable
  return _table(
      ['method', 'K', *(
          f'{kind}, {float(alpha):.0%}' for alpha in alphas for kind in ends
      )],
      [
          [method, str(k), *(
              text(method + end, k, alpha)
              for alpha in alphas for end in ends.values()
          )]
          for method, k in rows
      ],
  )  # pyformat: disable


def _intervals(results: dict) -> str:
  """What svd gains over mean pooling on tasks, for K=2 and 1."""
  models = 'GQA-2', 'MQA'

  def contrast(weights):
    cells = []
    for name in models:
      x = claims.quality_contrast(
          results, {x.format(name): weight for x, weight in weights.items()}
      )
      cells.append(f'{x.estimate:.1f} ({x.low:.1f} to {x.high:.1f})')
    return cells

  def shares():
    cells = []
    for name in models:
      ours, mean, best = (
          np.array(claims.averages_by_seed(results, x))
          for x in (f'{name}, svd', name, 'MHA')
      )
      gained, lost = ours - mean, best - mean
      share = gained.mean() / lost.mean()
      each = gained / lost
      cells.append(f'{share:.0%} ({each.min():.0%} to {each.max():.0%})')
    return cells

  rows = {
      '`svd` with **no uptraining at all**, above the mean with 5%':
          contrast({'{}, svd, alpha 0': 1, '{}': -1}),
      '`svd` with 5%, above the mean with 5%':
          contrast({'{}, svd': 1, '{}': -1}),
      'share of what the mean loses that it recovers, range of the seeds':
          shares(),
      'what it recovers, less two thirds of that loss':
          contrast({'{}, svd': 1, '{}': -1 / 3, 'MHA': -2 / 3}),
      '`svd` with 5%, above `svd` with no uptraining':
          contrast({'{}, svd': 1, '{}, svd, alpha 0': -1}),
      '`svd` with 5%, still below MHA': contrast({'MHA': 1, '{}, svd': -1}),
  }  # pyformat: disable
  return _table(['', *models], [[what, *cells] for what, cells in rows.items()])


def _finetuned(results: dict) -> str:
  """Scores of what was converted after fine-tuning."""
  table = finetuned.table(results)
  return _table(table.header, table.rows)


def _conversion_errors(report: dict) -> str:
  """Relative errors of each attention, with the fewest heads."""
  cells = [c for c in report['cells'] if 'errors' in c]
  fewest = min(c['num_kv_heads'] for c in cells)
  columns = {
      c['method'] + (', calibrated' if c['text'] else ''): c['errors']
      for c in cells if c['num_kv_heads'] == fewest
  }  # pyformat: disable
  parts = 'logits', 'outputs'
  return _table(
      [f'attention, K={fewest}']
      + [f'{method}, {part}' for method in columns for part in parts],
      [
          [name.removeprefix('decoder/')] + [
              f'{errors[name][part]:.2f}'
              for errors in columns.values() for part in parts
          ]
          for name in next(iter(columns.values()))
      ],
  )  # pyformat: disable


def _cross_cache(report: dict) -> str:
  """Decode steps with and without cached keys and values of the inputs."""
  return _as_printed(cross_cache.table(report['cases']))


def _tpu_compile(report: dict) -> str:
  """What programs take on TPUs."""
  return _as_printed(tpu_compile.table(report['runs']))


_TABLES: Mapping[str, Callable[..., str]] = {
    'table1': _table1,
    'intervals': _intervals,
    'decoding': _decoding,
    'limits': _limits,
    'claims': _claims_of_time,
    'largest-batch': _largest_batch,
    'training': _training,
    'conversion': _conversion,
    'calibration-text': _calibration_text,
    'attention-kinds': _attention_kinds,
    'conversion-errors': _conversion_errors,
    'finetuned': _finetuned,
    'cross-cache': _cross_cache,
    'tpu-compile': _tpu_compile,
}
# Drawn beside their JSON, and shown.
_FIGURES: Mapping[str, tuple[str, Callable[[dict], str]]] = {
    'figure6': (
        'time per sample against key/value heads', figures.of_benchmark
    ),
    'conversion-figure': (
        'loss along alpha',
        lambda report: conversion_methods.figure(report['cells']),
    ),
}  # pyformat: disable


def fill(text: str, folder: str, root: pathlib.Path) -> tuple[str, dict]:
  """Returns a document with its blocks filled, and the figures that it shows.

  Args:
    text: of the document.
    folder: that it lies in, relative to the repository.
    root: of the repository.

  Returns:
    The text, and {path of a figure in the repository: its SVG}.

  Raises:
    UserError: if a block has an unknown name, or a file cannot be read.
  """
  drawn = {}
  if len(_BLOCK.findall(text)) != text.count('<!-- made:'):
    raise UserError(
        'expected <!-- end --> after each <!-- made: NAME FILE -->, got one'
        ' without; add it'
    )

  def made(match):
    name, files = match['name'], match['files'].split()
    if name not in _TABLES | _FIGURES:
      known = ', '.join(_TABLES | _FIGURES)
      raise UserError(f'expected a block of {known}, got {name!r}')
    try:
      found = [json.loads((root / f).read_text('utf-8')) for f in files]
    except (OSError, ValueError) as error:
      raise UserError(f'the block {name} needs {files}: {error}') from error
    if name in _TABLES:
      inside = _TABLES[name](*found)
    else:
      title, draw = _FIGURES[name]
      svg = files[0].removesuffix('.json') + '.svg'
      drawn[svg] = draw(*found)
      inside = f'![{title}]({os.path.relpath(svg, folder or ".")})'
    return f'{match[1]}{inside}\n{match[4]}'

  return _BLOCK.sub(made, text), drawn


def documents(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns README and all of docs/."""
  return [root / 'README.md', *sorted((root / 'docs').glob('*.md'))]


def main() -> None:
  root = pathlib.Path.cwd()
  for path in documents(root):
    before = path.read_text('utf-8')
    folder = str(path.parent.relative_to(root))
    after, drawn = fill(before, folder, root)
    if after != before:
      storage.write_text(path, after)
      print(path.relative_to(root))
    for name, svg in drawn.items():
      storage.write_text(root / name, svg)
      print(name)


if __name__ == '__main__':
  main()
