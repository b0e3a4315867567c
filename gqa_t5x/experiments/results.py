# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The format of results.json.

A plain dict, so that any program can read it. Optional keys are in brackets;
a report shows a dash for what is missing. Scores run from 0 to 100.

    schema                 2
    scale, experiment      as given to `gqa-t5x reproduce`
    created                UTC, ISO 8601
    command                the command line that made the file
    device, versions, commit        see `provenance.environment`
    seeds                  [int]
    corpus                 {sha256, [anything else as name: value]}
    model                  T5Config fields, dtype as str
    pretrain_steps         steps of the original checkpoint
    uptrain_fraction       the paper's alpha, as far as this scale takes it
    stages                 [{name, command, seconds, [commit]}], in order
    [columns]              [TaskColumn fields], of the scored tasks; without it
                           those of the embedded suite
    [clusters]             {task: [name]}: what makes test examples alike, for
                           each; a task that is not there has none, or they are
                           not known
    baselines              {task: {'untrained': score, 'lead'|...: score}},
                           'untrained' on the first UNTRAINED_EXAMPLES
    [differences]          what was done otherwise than by `command`, in words
    times                  {K: what `benchmark.compare_decode` returns}
    [timed_on]             {device, versions, commit} of `times`; without it
                           those of the file
    models                 {'MHA' | 'GQA-<K>' | 'MQA' | 'MQA, svd' | ...: {
      num_kv_heads, cache_bytes_per_token, [num_params, step],
      method               of conversion; null is none
      alpha                of uptraining; null where trained from scratch
      [rate]               its learning rate, as a multiple of pre-training's;
                           without it 1
      origin               'shipped' or 'pretrained': the checkpoint of all;
                           'scratch': a model of its own; 'finetuned': that
                           of all after fine-tuning, of which there is no loss
      [loss]               validation, nats a target token
      [loss_per_example]   [seeds][float], the same examples for every model
      [train_losses]       [seeds][steps], of a model trained from scratch
      [tasks]              {task: {
        metrics            {'rouge1' | 'bleu' | 'f1' | ...: score}, means
        [per_example]      [seeds][score], the same examples for every model
        [bleu_statistics]  [seeds][[10 ints]]: `statistics.bleu_statistics`,
                           which stand for them where the metric is BLEU
        [train_losses]     [seeds][steps] of fine-tuning, of a model trained
                           from scratch
        num_examples, best_steps,
        samples            [{input, target, prediction}], of the first seed}}
      [decode]             its entry of `times`}}
"""

import dataclasses
import datetime
import json
import math
import pathlib
import re

from gqa_t5x import storage
from gqa_t5x.errors import UserError

SCHEMA = 2
UNTRAINED_EXAMPLES = 100
FILE_NAME = 'results.json'
_REQUIRED = ('scale', 'experiment', 'created', 'command', 'device', 'versions',
             'commit', 'seeds', 'corpus', 'model', 'pretrain_steps',
             'uptrain_fraction', 'stages', 'baselines', 'times', 'models')


@dataclasses.dataclass(frozen=True)
class TaskColumn:
  """A task as a column of our tables.

  Attributes:
    task: seqio name.
    metric: which of the task's metrics stands in the table: 'bleu', 'rouge1'
      or 'f1'.
    title: column heading.
    description: one line for a reader who has never seen the task.
  """

  task: str
  metric: str
  title: str
  description: str


EMBEDDED_COLUMNS = (
    TaskColumn('docs_summarize', 'rouge1', 'Docs R1',
               'from the body of a docstring to its summary line (ROUGE-1)'),
    TaskColumn('cldr_translate_en_de', 'bleu', 'CLDR BLEU',
               'dates, numbers, units, currencies, lists and names from '
               'English to German (BLEU)'),
    TaskColumn('docs_question_answering', 'f1', 'Docs QA F1',
               'what an argument means, answered from a page of function '
               'descriptions (F1)'),
)


def main_score(entry: dict, column: TaskColumn) -> float | None:
  """Returns a model entry's score on a task, None where it is missing."""
  task = entry.get('tasks', {}).get(column.task, {})
  return task.get('metrics', {}).get(column.metric)


def columns(results: dict) -> tuple[TaskColumn, ...]:
  """Returns the tasks that a run scored."""
  if 'columns' not in results:
    return EMBEDDED_COLUMNS
  return tuple(TaskColumn(**column) for column in results['columns'])


def average_score(results: dict, entry: dict) -> float | None:
  """Returns the plain mean over all task columns, None if one is missing."""
  scores = [main_score(entry, column) for column in columns(results)]
  return None if None in scores else sum(scores) / len(scores)


def timed_on(results: dict) -> dict:
  """Returns the device on which decoding was timed."""
  return results.get('timed_on', results)['device']


def is_rehearsal(results: dict) -> bool:
  """Returns whether the models of a run were hardly trained at all."""
  return results['scale'].endswith('smoke')


def gqa_heads(results: dict) -> int | None:
  """Returns K of the run's first grouped model, GQA-K, however made."""
  names = [re.match(r'GQA-(\d+)', name) for name in results['models']]
  return next((int(found[1]) for found in names if found), None)


def save_results(output_dir, results: dict) -> pathlib.Path:
  """Writes `results.json` into a folder, atomically.

  Args:
    output_dir: an existing folder.
    results: see the head of this file; `schema` and `created` are filled in.

  Returns:
    The path written.
  """
  now = datetime.datetime.now(datetime.UTC)
  results = {'schema': SCHEMA, 'created': now.isoformat(timespec='seconds'),
             **results}
  path = pathlib.Path(output_dir) / FILE_NAME
  storage.write_json(path, results)
  return path


def rows_by_shape(benchmark: dict) -> dict[str, dict[str, dict]]:
  """Returns the rows of a decoding benchmark, for each shape.

  Args:
    benchmark: what `gqa-t5x benchmark decode --json` printed.

  Returns:
    {'batch 8, input 512, output 64' | ...: {'K=8' | 'hf' | ...: row}}.

  Raises:
    KeyError: if it is something else.
    ValueError: if a time is none, or a name cannot be printed.
  """
  by_shape = {}
  for name, row in benchmark['rows'].items():
    seconds = row['seconds_per_sample']
    if not 0 <= seconds < math.inf:
      raise ValueError(f'{name} took {seconds} seconds')
    if not name.isprintable():
      raise ValueError(f'{name!r} cannot be written')
    shape = ', '.join(
        f'{part} {row[f"{part}_{unit}"]}' for part, unit in (
            ('batch', 'size'), ('input', 'length'), ('output', 'length')))
    # Where there are several shapes, names end in theirs.
    by_shape.setdefault(shape, {})[name.split(', ')[0]] = row
  if not by_shape:
    raise KeyError('rows')
  return by_shape


def load_results(output_dir) -> dict:
  """Reads `results.json` of a folder.

  Raises:
    UserError: it is missing, is not JSON, or is not such a file.
  """
  path = pathlib.Path(output_dir) / FILE_NAME
  try:
    results = json.loads(path.read_text(encoding='utf-8'))
  except OSError as error:
    raise UserError(
        f'expected {FILE_NAME} of a finished run in {output_dir}, got '
        f'{type(error).__name__}; run `gqa-t5x reproduce --output_dir '
        f'{output_dir}` first') from None
  except ValueError as error:
    raise UserError(f'expected JSON in {path}, got a file broken at: {error}; '
                    'run `gqa-t5x reproduce` again to write it') from None
  if not isinstance(results, dict) or results.get('schema') != SCHEMA:
    got = results.get('schema') if isinstance(results, dict) else 'no object'
    raise UserError(f'expected schema {SCHEMA} in {path}, got {got}; make the '
                    'file again with this version of gqa-t5x')
  missing = [key for key in _REQUIRED if key not in results]
  if missing:
    raise UserError(f'expected {missing[0]!r} in {path}, which lacks '
                    f'{len(missing)} of its keys; make the file again with '
                    '`gqa-t5x reproduce`')
  return results
