# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 1 and ours under it, as cells for any renderer."""

from gqa_t5x.experiments import paper
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments.model import FINETUNED, SCRATCH

DASH = '–'


def kind(model: str) -> str:
  """'mha', 'mqa' or 'gqa', from a name such as 'MHA-XXL' or 'GQA-2, svd'."""
  start = model[:3].lower()
  return start if start in ('mha', 'mqa') else 'gqa'


def is_of_paper(entry: dict) -> bool:
  """Whether a model is made as those of the paper's Table 1 are."""
  return (entry.get('method') in (None, 'mean')
          and entry.get('alpha') == paper.UPTRAIN_FRACTION
          and entry.get('rate', 1) == 1
          and is_of_suite(entry))


def shown(models: dict[str, dict]) -> dict[str, dict]:
  """Returns the paper's models, those of svd, and MHA trained as these are."""
  def recipe(entry):
    return entry.get('alpha'), entry.get('rate', 1)

  of_suite = {name: e for name, e in models.items() if is_of_suite(e)}
  recipes = {recipe(e) for e in of_suite.values() if e.get('method') == 'svd'}
  return {
      name: e for name, e in of_suite.items()
      if is_of_paper(e)
      or (e.get('method') in (None, 'svd') and recipe(e) in recipes)}


def is_of_suite(entry: dict) -> bool:
  """Whether a model comes from the checkpoint of all, and not from another."""
  return entry.get('origin') not in (SCRATCH, FINETUNED)


def scored(results: dict) -> dict[str, dict]:
  """Returns the models that were fine-tuned: the paper's, then others."""
  found = [(name, entry) for name, entry in results['models'].items()
           if entry.get('tasks')]
  return dict(sorted(found, key=lambda item: not is_of_paper(item[1])))


def score(value: float | None) -> str:
  return DASH if value is None else f'{value:.1f}'


def significant(value: float | None) -> str:
  """Three significant digits of a time, never in exponents."""
  if value is None:
    return DASH
  digits = 0
  while value and value < 10 ** (2 - digits) and digits < 9:
    digits += 1
  return f'{value:.{digits}f}'


def whole(value: float | None) -> str:
  return DASH if value is None else f'{value:,.0f}'


def loss(entry: dict) -> str:
  """Of a model; a dash where it was not measured or is no number."""
  value = entry.get('loss')
  return DASH if value is None else f'{value:.3f}'


def decode_value(entry: dict, key: str):
  return (entry.get('decode') or {}).get(key)


PAPER_HEADER = ('Model', 'K', 'T_infer (s)', 'Average') + tuple(
    f'{task.short_name} {task.metric}' for task in paper.TASKS)


def paper_rows() -> tuple[tuple[str, ...], ...]:
  """The paper's four rows, as printed."""
  return tuple(
      (row.model, str(row.num_kv_heads), f'{row.seconds_per_sample:.2f}',
       score(row.average), *map(score, row.scores)) for row in paper.TABLE_1)


def our_header(results: dict) -> tuple[str, ...]:
  return ('Model', 'K', 'T_infer (s)', 'Cache (B/token)', 'Average', *_titles(
      results))


def _titles(results: dict) -> list[str]:
  return [column.title for column in results_lib.columns(results)]


def best_trivial(results: dict, task: str) -> tuple[str, float] | None:
  """The best baseline that learns nothing: (name, score), None if unknown."""
  trivial = [(name, value)
             for name, value in results['baselines'].get(task, {}).items()
             if name != 'untrained' and value is not None]
  return max(trivial, key=lambda item: item[1]) if trivial else None


def _baseline_row(name, results, pick) -> tuple[str, ...]:
  cells, scores = [], []
  for column in results_lib.columns(results):
    picked = pick(column.task)
    scores.append(None if picked is None else picked[1])
    cells.append(DASH if picked is None else
                 f'{score(picked[1])}{picked[0] and f" ({picked[0]})"}')
  mean = None if None in scores else sum(scores) / len(scores)
  return (name, DASH, DASH, DASH, score(mean), *cells)


def our_rows(results: dict) -> tuple[tuple[str, ...], ...]:
  """One row a model of the run, then the untrained and trivial baselines."""
  rows = []
  for name, entry in scored(results).items():
    scores = [results_lib.main_score(entry, column)
              for column in results_lib.columns(results)]
    rows.append((
        name, str(entry['num_kv_heads']),
        significant(decode_value(entry, 'seconds_per_sample')),
        whole(entry.get('cache_bytes_per_token')),
        score(results_lib.average_score(results, entry)), *map(score, scores)))

  def untrained(task):
    value = results['baselines'].get(task, {}).get('untrained')
    return None if value is None else ('', value)
  rows.append(_baseline_row('Untrained', results, untrained))
  rows.append(_baseline_row('Trivial', results,
                            lambda task: best_trivial(results, task)))
  return tuple(rows)


def _aligned(header, rows) -> list[str]:
  widths = [max(len(row[i]) for row in (header, *rows))
            for i in range(len(header))]
  lines = []
  for row in (header, *rows):
    cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
             for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
    lines.append('  '.join(cells).rstrip())
  return [lines[0], '-' * max(map(len, lines)), *lines[1:]]


def format_table(results: dict) -> str:
  """Returns the paper's Table 1 with our rows under it, for a terminal.

  Within 80 columns for the embedded tasks.
  """
  short = ('Model', 'K', 'T(s)', 'Avg', 'CNN', 'arXiv', 'PubM', 'MSum',
           'MNews', 'WMT', 'TQA')
  ours = ('Model', 'K', 'T(s)', 'B/token', 'Avg', *_titles(results))
  return '\n'.join([
      'Paper, Table 1 (dev sets; R1, BLEU, F1; s per sample on TPU v4)',
      *_aligned(short, paper_rows()),
      '', (f'This run, scale {results["scale"]} (s per sample on '
           f'{results_lib.timed_on(results).get("backend", "this machine")})'),
      *_aligned(ours, our_rows(results))])


def format_headline(results: dict) -> str:
  """Returns our rows of the models that are `shown`."""
  models = dict(sorted(
      shown(results['models']).items(),
      key=lambda item: -item[1]['num_kv_heads']))
  header = ('Model', 'K', 'T(s)', 'B/token', 'Avg', *_titles(results))
  return '\n'.join(_aligned(header, our_rows({**results, 'models': models})))
