# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers the tasks made from what is installed on this machine.

Importing this module registers them; the corpus is made when one is first
read. See `corpus` for where the rows come from. Without seqio nothing is
registered, and what is cached can be trained on.
"""

import importlib.util

from gqa_t5x.tasks import common
from gqa_t5x.tasks import corpus
from gqa_t5x.tasks import documentation

# Shares of the examples of the pre-training mixture. As in T5's multi-task
# pre-training (Raffel et al. 2020, section 3.5.3) the supervised tasks are part
# of it: a model this small, trained this short, would not learn them from
# fine-tuning alone. By target tokens about half is span corruption.
PRETRAINING_RATES = {
    'docs_span_corruption': 0.15,
    'docs_summarize': 0.25,
    'cldr_translate_en_de': 0.2,
    'docs_question_answering': 0.4,
}

# The rows of each supervised task.
_KINDS = {
    'docs_summarize': 'summarize',
    'cldr_translate_en_de': 'translate',
    'docs_question_answering': 'question_answering',
}

# Re-exported: what evaluation stores with its results.
corpus_fingerprint = corpus.corpus_fingerprint


def changed(fingerprint: dict) -> list[str]:
  """Returns what is other than the fingerprint says: nothing, or all."""
  same = corpus_fingerprint()['sha256'] == fingerprint['sha256']
  return [] if same else ['the installed documentation']


def trivial_predictions(task: str, split: str) -> dict[str, list[str]]:
  """Answers of baselines that learn nothing, in the order of the split.

  Returns:
    {baseline: predictions}: 'lead' is the first sentence of the document or
    the first description of the page, 'name' the words of the documented
    name, 'copy' the English text.
  """
  if task == 'docs_summarize':
    made = corpus.rows('summarize', split)
    bodies = (row['inputs'].partition('. ')[2] for row in made)
    return {
        'lead': [documentation.sentences(body)[0] for body in bodies],
        'name': [row['name'] for row in made],
    }
  if task == 'cldr_translate_en_de':
    made = corpus.rows('translate', split)
    prompt = len(common.translation_input(''))
    return {'copy': [row['inputs'][prompt:] for row in made]}
  if task == 'docs_question_answering':
    made = corpus.rows('question_answering', split)
    pages = (row['inputs'].partition(' context: ')[2] for row in made)
    leads = (page.partition(': ')[2] for page in pages)
    return {'lead': [lead.partition('. ')[0] for lead in leads]}
  raise ValueError(f'expected a supervised embedded task, got {task!r}')


def reference_targets(task: str, split: str) -> list:
  """Returns the targets that a metric takes, in the order of the split.

  A text each; for question answering a list of answers each.
  """
  kind = _KINDS[task]
  field = 'answers' if kind == 'question_answering' else 'targets'
  return [row[field] for row in corpus.rows(kind, split)]


def clusters(task: str, split: str) -> list[str] | None:
  """Returns what makes rows alike, for each: the module of a documentation.

  None where each row stands alone.
  """
  kind = _KINDS[task]
  return None if kind == 'translate' else corpus.modules(kind, split)


def _source(kind: str, fields: tuple[str, ...]):
  return common.rows_source(
      lambda split: corpus.rows(kind, split), fields, corpus.SPLITS
  )


def _register() -> None:
  import seqio

  from gqa_t5x.tasks import pretraining
  from gqa_t5x.tasks import question_answering
  from gqa_t5x.tasks import summarization
  from gqa_t5x.tasks import translation

  common.add_task(
      'docs_span_corruption',
      common.default_vocabulary,
      source=_source('documents', ('text',)),
      **pretraining.recipe('text'),
  )
  common.add_task(
      'docs_summarize',
      common.default_vocabulary,
      source=_source('summarize', ('inputs', 'targets')),
      **summarization.recipe(),
  )
  common.add_task(
      'cldr_translate_en_de',
      common.default_vocabulary,
      source=_source('translate', ('inputs', 'targets')),
      **translation.recipe(),
  )
  common.add_task(
      'docs_question_answering',
      common.default_vocabulary,
      source=_source('question_answering', ('inputs', 'targets', 'answers')),
      **question_answering.recipe(),
  )
  seqio.MixtureRegistry.add('docs_pretrain', list(PRETRAINING_RATES.items()))


if importlib.util.find_spec('seqio'):
  _register()
