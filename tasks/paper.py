# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers the tasks of the paper, on TensorFlow Datasets.

Importing this module registers them and reads nothing. Data must be prepared
beforehand: a task whose data is not says how. The folder is TFDS's own, that of
`TFDS_DATA_DIR`, or under t5x that of `--tfds_data_dir`.

Where T5 has the task, prompts and preprocessing are T5's, but for TriviaQA's
windows and its evaluation (see `question_answering`). Datasets, lengths and
metrics: section 3.1 of the paper.
"""

import seqio

from gqa_t5x import errors
from gqa_t5x.tasks import common
from gqa_t5x.tasks import pretraining
from gqa_t5x.tasks import question_answering
from gqa_t5x.tasks import summarization
from gqa_t5x.tasks import translation

_SPLITS = {'train': 'train', 'validation': 'validation', 'test': 'test'}


class _PreparedTfds(seqio.TfdsDataSource):
  """A dataset that TFDS has prepared; it is never downloaded from here.

  On a pod every host would start to.
  """

  def __init__(self, name: str, splits=None, first: str = ''):
    """Takes the dataset's name, config and version.

    Args:
      name: 'dataset/config:version'.
      splits: {ours: TFDS's}; None for train, validation and test.
      first: what must be done before it can be prepared; it may name
        {folder}, TFDS's.
    """
    super().__init__(name, splits=splits or _SPLITS, read_only=True)
    self._first = first

  def get_dataset(self, *args, **kwargs):
    return self._checked(super().get_dataset, *args, **kwargs)

  def list_shards(self, split):
    return self._checked(super().list_shards, split)

  def num_input_examples(self, split):
    return self._checked(super().num_input_examples, split)

  def _checked(self, method, *args, **kwargs):
    # Asked for afterwards, so that datasets that TFDS itself mocks pass.
    try:
      return method(*args, **kwargs)
    except (AssertionError, KeyError) as error:
      builder = self.tfds_dataset.builder
      if builder.is_prepared():
        raise
      name, folder = self.tfds_dataset.name, str(builder.data_dir_root)
      raise errors.UserError(
          f'expected the dataset {name}, found nothing prepared in {folder}; '
          f'{self._first.format(folder=folder)}run: python -c "import '
          'tensorflow_datasets as tfds; '
          f"tfds.builder('{name}', data_dir='{folder}')"
          '.download_and_prepare()", or set TFDS_DATA_DIR to where it is'
      ) from error


class _SplitTagged:
  """A source whose rows say whether they are of the training split."""

  def __init__(self, source):
    self._source = source

  def __getattr__(self, name: str):
    return getattr(self._source, name)

  def get_dataset(self, split: str = 'train', **kwargs):
    dataset = self._source.get_dataset(split=split, **kwargs)
    return dataset.map(lambda row: {**row, 'is_training': split == 'train'})


class _SplitTask(common.task_class(common.t5_vocabulary)):
  """A task whose preprocessors make other examples of the training split.

  seqio does not tell them which split they are given.
  """

  @property
  def source(self):
    return _SplitTagged(super().source)


def _add(name, source, recipe, **kwargs) -> None:
  common.add_task(
      name, common.t5_vocabulary, source=source, **recipe, **kwargs
  )


def _register() -> None:
  _add(
      'gqa_cnn_dailymail',
      _PreparedTfds('cnn_dailymail:3.4.0'),
      summarization.recipe(
          summarization.text_preprocessor('article', 'highlights')
      ),
  )
  for name in ('arxiv', 'pubmed'):
    _add(
        f'gqa_{name}',
        _PreparedTfds(f'scientific_papers/{name}:1.1.1'),
        summarization.recipe(
            summarization.text_preprocessor('article', 'abstract')
        ),
    )
  _add(
      'gqa_media_sum',
      _PreparedTfds(
          'media_sum:1.0.0',
          {'train': 'train', 'validation': 'val', 'test': 'test'},
          'put news_dialogue.json and train_val_test_split.json from '
          'github.com/zcgzcgzcg1/MediaSum into {folder}/downloads/manual, '
          'pip install apache-beam and ',
      ),
      summarization.recipe(
          summarization.dialogue_preprocessor('speaker', 'utt', 'summary')
      ),
  )
  _add(
      'gqa_multi_news',
      _PreparedTfds('multi_news:2.1.0'),
      summarization.recipe(
          summarization.text_preprocessor('document', 'summary')
      ),
  )
  _add(
      'gqa_wmt14_en_de',
      _PreparedTfds('wmt14_translate/de-en:1.0.0'),
      translation.recipe(
          translation.text_preprocessor('en', 'de', 'English', 'German')
      ),
  )
  _add(
      'gqa_trivia_qa',
      _PreparedTfds('trivia_qa/rc:1.1.0'),
      question_answering.trivia_qa_recipe(),
      task_cls=_SplitTask,
  )
  _add(
      'gqa_c4_span_corruption',
      _PreparedTfds(
          'c4/en:3.1.0',
          {'train': 'train', 'validation': 'validation'},
          'pip install apache-beam and ',
      ),
      pretraining.recipe('text'),
  )


_register()
