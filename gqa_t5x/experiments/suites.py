# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What experiments run on: a multi-head checkpoint, and tasks to tune it on.

The embedded suite has the checkpoint that ships, and tasks on documentation
that is installed. The benchmarks are public datasets in a folder of the user's
(see `gqa_t5x.tasks.local_data`), for which a vocabulary and a multi-head model
are trained first.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib

from gqa_t5x import pretrained
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import results

SHIPPED, PRETRAINED = 'shipped', 'pretrained'


@dataclasses.dataclass(frozen=True)
class Suite:
  """Tasks, and the checkpoint that they are tuned from.

  Attributes:
    columns: the tasks that models are scored on.
    module: registers the tasks in seqio, and has `reference_targets`,
      `clusters`, `trivial_predictions`, `corpus_fingerprint` and `changed`;
      where there is no checkpoint `vocabulary_lines` and `check_present` too.
    dev_task: of pre-training; the loss of models is measured on it.
    gin_file: bindings on top of those of gin_configs/local, or None.
    checkpoint: the multi-head checkpoint, or None where one is pre-trained.
    vocab_size: ids, sentinels included, of the vocabulary that is trained where
      there is no checkpoint.
  """

  columns: tuple[results.TaskColumn, ...]
  module: str
  dev_task: str
  gin_file: str | None = None
  checkpoint: str | None = None
  vocab_size: int | None = None

  @property
  def origin(self) -> str:
    """What results.json says of the checkpoint."""
    return SHIPPED if self.checkpoint else PRETRAINED

  def only(self, tasks: Sequence[str]) -> 'Suite':
    """Returns the suite with these of its tasks.

    Raises:
      UserError: if it lacks one.
    """
    known = [column.task for column in self.columns]
    for task in tasks:
      if task not in known:
        raise UserError(
            f'expected tasks of the scale, got {task!r}; choose from'
            f' {", ".join(known)}'
        )
    return dataclasses.replace(
        self, columns=tuple(c for c in self.columns if c.task in tasks)
    )

  def tasks(self):
    """Imports and returns the module."""
    return importlib.import_module(self.module)


EMBEDDED = Suite(
    columns=results.EMBEDDED_COLUMNS,
    module='gqa_t5x.tasks.embedded',
    dev_task='docs_span_corruption',
    checkpoint=pretrained.CHECKPOINT_PATH,
)

_BENCHMARK_COLUMNS: Mapping[str, results.TaskColumn] = {
    column.task: column
    for column in (
        results.TaskColumn(
            'gqa_multi30k', 'bleu', 'Multi30k BLEU',
            'captions of pictures from English to German (BLEU)',
        ),
        results.TaskColumn(
            'gqa_aeslc', 'rouge1', 'AESLC R1',
            'from an e-mail to its subject (ROUGE-1)',
        ),
        results.TaskColumn(
            'gqa_fairytaleqa', 'f1', 'FairytaleQA F1',
            'questions on a section of a fairy tale (F1)',
        ),
        results.TaskColumn(
            'gqa_sumpubmed', 'rouge1', 'SumPubmed R1',
            'from a medical article to its abstract (ROUGE-1)',
        ),
    )
}  # pyformat: disable


def benchmarks(*tasks: str) -> Suite:
  """Returns the suite of the benchmarks, or of these of their tasks."""
  return Suite(
      columns=tuple(
          _BENCHMARK_COLUMNS[task] for task in tasks or _BENCHMARK_COLUMNS
      ),
      module='gqa_t5x.tasks.local_data',
      dev_task='gqa_benchmarks_span_corruption',
      gin_file='gqa_t5x/gin_configs/local/benchmarks.gin',
      vocab_size=8192,
  )
