# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches: layout by hand, order, resume, mixing, packing."""

import itertools

import jax
import numpy as np
import pytest

from gqa_t5x import pretrained
from gqa_t5x.engine import cache
from gqa_t5x.engine import data
from gqa_t5x.engine import losses
from gqa_t5x.engine import train_step
from gqa_t5x.errors import UserError
from tests.engine import conftest


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def rates(tmp_path):
  return {
      conftest.write_arrays(tmp_path / 'a' / 'train', 50, 0): 3.0,
      conftest.write_arrays(tmp_path / 'b' / 'train', 20, 1): 1.0,
  }


def test_layout_by_hand():
  datasets = [
      data.TokenDataset(
          inputs=np.array([5, 6, 1, 7, 8, 9, 1]),
          inputs_offsets=np.array([0, 3, 7]),
          targets=np.array([4, 1, 3, 2, 1]),
          targets_offsets=np.array([0, 2, 5]),
      )
  ]
  packed = data.make_batch(
      datasets, [[(0, 0), (0, 1)], []], data.BatchConfig(2, 8, 6, pack=True)
  )
  first = {name: value[0].tolist() for name, value in packed.items()}
  assert first == {
      'encoder_input_tokens': [5, 6, 1, 7, 8, 9, 1, 0],
      'encoder_segment_ids': [1, 1, 1, 2, 2, 2, 2, 0],
      'decoder_input_tokens': [0, 4, 0, 3, 2, 0],
      'decoder_target_tokens': [4, 1, 3, 2, 1, 0],
      'decoder_loss_weights': [1, 1, 1, 1, 1, 0],
      'decoder_segment_ids': [1, 1, 2, 2, 2, 0],
  }
  assert not any(value[1].any() for value in packed.values())
  trimmed = data.make_batch(datasets, [[(0, 1)]], data.BatchConfig(1, 3, 2))
  assert trimmed['encoder_input_tokens'].tolist() == [[7, 8, 1]]
  assert trimmed['decoder_target_tokens'].tolist() == [[3, 1]]


@pytest.mark.parametrize('pack', [False, True])
def test_batch_n_does_not_depend_on_where_one_starts(rates, pack):
  config = data.BatchConfig(4, 12, 12, pack=pack, seed=7)
  whole = take(data.train_batches(rates, config), 12)
  for start in (1, 11):
    resumed = take(data.train_batches(rates, config, start_step=start), 1)
    same(whole[start], resumed[0])


def test_every_epoch_has_each_example_once_in_a_new_order(tmp_path):
  folder = conftest.write_arrays(tmp_path / 'a' / 'train', 16)
  batches = data.train_batches({folder: 1.0}, data.BatchConfig(16, 8, 8))
  first, second = (b['encoder_input_tokens'] for b in take(batches, 2))
  assert first.tolist() != second.tolist()
  assert sorted(first.tolist()) == sorted(second.tolist())


def test_processes_share_the_rows(rates):
  config = data.BatchConfig(6, 8, 8)
  whole = next(data.train_batches(rates, config))
  parts = [
      next(data.train_batches(rates, config, process_index=i, process_count=3))
      for i in range(3)
  ]
  same(whole, jax.tree.map(lambda *x: np.concatenate(x), *parts))
  with pytest.raises(UserError, match='choose a multiple'):
    next(data.train_batches(rates, config, process_count=4))


def test_missing_token_arrays(tmp_path):
  with pytest.raises(UserError, match='gqa-t5x cache'):
    next(data.train_batches({str(tmp_path): 1.0}, data.BatchConfig(1, 8, 8)))


def test_packing_does_not_change_the_loss(rates):
  folder = list(rates)[0]
  datasets = [data.TokenDataset.open(folder)]
  examples = [(0, i) for i in range(6)]
  packed = data.make_batch(
      datasets, [examples[:3], examples[3:]],
      data.BatchConfig(2, 24, 24, pack=True),
  )
  plain = data.make_batch(
      datasets, [[e] for e in examples], data.BatchConfig(6, 24, 24)
  )
  model = conftest.make_model()
  trainer = train_step.Trainer(model, train_step.StepConfig())
  params = trainer.initial_state(0).params
  config = losses.LossConfig()

  def loss(params, batch):
    _, weights = losses.normalizer_and_weights(batch, config)
    return train_step.loss_fn(params, model, batch, weights, config, None)

  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
      jax.jit(loss)(params, packed),
      jax.jit(loss)(params, plain),
  )


def _add_task(name, feature, rows):
  """Registers a seqio task of these rows, all of the features they have."""
  import seqio
  import tensorflow as tf

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(rows)

  seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(dataset, splits=['train']),
      preprocessors=[
          seqio.preprocessors.tokenize, seqio.preprocessors.append_eos
      ],
      output_features=dict.fromkeys(rows, feature),
  )  # pyformat: disable


def test_a_task_without_inputs_is_cached_with_an_end_alone(tmp_path, caplog):
  caplog.set_level('INFO')
  seqio = pytest.importorskip('seqio')
  feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
  _add_task('toy_targets', feature, {'targets': ['ab', 'c']})
  try:
    (folder,) = cache.cache_mixture(
        'toy_targets', 'train', {'inputs': 4, 'targets': 3}, str(tmp_path)
    )
  finally:
    seqio.TaskRegistry.remove('toy_targets')
  arrays = data.TokenDataset.open(folder)
  assert arrays.inputs.tolist() == [1, 1]
  assert arrays.inputs_offsets.tolist() == [0, 1, 2]
  # Bytes after three special tokens.
  assert arrays.targets.tolist() == [ord('a') + 3, ord('b') + 3, 1, 102, 1]
  assert 'inputs fill' not in caplog.text
  assert 'toy_targets, train: 1 of 2 targets fill 3 tokens' in caplog.text


def test_vocabularies_do_not_share_what_is_cached(tmp_path):
  """One may be forgotten first, and then be given."""
  seqio = pytest.importorskip('seqio')
  shipped = seqio.SentencePieceVocabulary(pretrained.VOCABULARY_PATH)
  lengths, found = {'inputs': 4, 'targets': 4}, []
  for vocabulary in (seqio.ByteVocabulary(), shipped):
    feature = seqio.Feature(vocabulary, add_eos=True)
    _add_task('toy', feature, {'inputs': ['ab'], 'targets': ['c']})
    try:
      found += cache.cache_mixture('toy', 'train', lengths, str(tmp_path))
    finally:
      seqio.TaskRegistry.remove('toy')
  tokens = [data.TokenDataset.open(folder).inputs.tolist() for folder in found]
  assert tokens[0] == [ord('a') + 3, ord('b') + 3, 1]
  assert tokens[1] == [*shipped.encode('ab'), 1][-len(tokens[1]):]
  assert tokens[0] != tokens[1]
