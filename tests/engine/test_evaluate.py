# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predictions in their order and on disk; dev loss over padded batches."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.errors import UserError
from gqa_t5x.engine import train_step
from gqa_t5x.experiments import scales
from gqa_t5x.experiments import scoring
from gqa_t5x.tasks import common
from tests.engine import conftest


def make_params(model):
  trainer = train_step.Trainer(model, train_step.StepConfig())
  return trainer.initial_state(0).params


def test_predictions_come_in_the_order_of_the_inputs():
  model = conftest.make_model()
  params = make_params(model)
  rng = np.random.default_rng(0)
  inputs = [
      np.append(rng.integers(2, 48, length), 1) for length in (9, 2, 5, 7, 1)
  ]
  done = []
  got = evaluate.predict(
      model, params, inputs, batch_size=2, max_decode_len=4,
      progress=done.append,
  )
  assert done == [2, 2, 1]
  for tokens, output in zip(inputs, got):
    alone = decoding.generate(
        model, params, np.pad(tokens, (0, 10 - len(tokens)))[None],
        max_decode_len=4,
    )
    np.testing.assert_array_equal(output, alone[0])
  assert evaluate.predict(
      model, params, [], batch_size=2, max_decode_len=4
  ) == []


def test_empty_inputs_have_empty_outputs():
  model = conftest.make_model()
  params = make_params(model)
  inputs = [np.zeros(0, np.int32), np.array([5, 1])]
  alone, together = (
      evaluate.predict(model, params, inputs, batch_size=n, max_decode_len=3)
      for n in (1, 2)
  )
  np.testing.assert_array_equal(alone, together)
  assert not alone[0].any()
  with pytest.raises(UserError, match='batch_size of 1 or more, got -1'):
    evaluate.predict(model, params, inputs, batch_size=-1, max_decode_len=3)


def test_few_lengths_are_compiled(monkeypatch):
  widths = set()

  def generate(unused_model, unused_params, tokens, *, max_decode_len, **_):
    widths.add(tokens.shape[1])
    return jnp.zeros((len(tokens), max_decode_len), jnp.int32)

  monkeypatch.setattr(decoding, 'generate', generate)
  for longest in (50, 90, 100, 101):
    lengths = np.arange(longest - 40, longest + 1)
    inputs = [np.ones(length, np.int32) for length in lengths]
    evaluate.predict(None, None, inputs, batch_size=8, max_decode_len=1)
  assert widths == {64, 128}


def test_samples_depend_on_examples_and_not_on_batches():
  model = conftest.make_model()
  params = make_params(model)
  examples = [(i, np.array([7, 1])) for i in range(40)]  # More than a chunk.

  def sample(batch_size, examples, **options):
    found = evaluate._predictions(
        model, params, examples, batch_size=batch_size, max_decode_len=8,
        method='sample', **options,
    )  # pyformat: disable
    return np.stack([output for _, output in found])

  outputs = sample(2, examples)
  assert len(np.unique(outputs, axis=0)) > 30
  np.testing.assert_array_equal(outputs, sample(8, examples))
  np.testing.assert_array_equal(
      outputs[5:], sample(2, examples[5:], first_example=5)
  )


def test_dev_loss_does_not_depend_on_the_batch_size(tmp_path):
  model = conftest.make_model()
  params = make_params(model)
  folder = conftest.write_arrays(tmp_path / 'a' / 'validation', 10)
  whole, parts = (
      evaluate.dev_loss(
          model, params, data.eval_batches(folder, data.BatchConfig(size, 8, 8))
      )
      for size in (10, 4)
  )
  np.testing.assert_allclose(whole['loss'], parts['loss'], rtol=1e-5)
  assert whole['accuracy'] == parts['accuracy']


def test_losses_of_examples_by_hand(tmp_path):
  """Each by itself, without padding; an experiment takes the first of them."""
  model = conftest.make_model()
  params = make_params(model)
  folder = conftest.write_arrays(tmp_path / 'a' / 'validation', 10)
  found = evaluate.example_losses(
      model, params, data.eval_batches(folder, data.BatchConfig(4, 8, 8))
  )
  arrays = data.TokenDataset.open(folder)
  apply = jax.jit(functools.partial(model.apply, enable_dropout=False))
  expected = []
  for i in range(10):
    inputs, targets = (
        arrays.tokens(name, i, 8)[None].astype(np.int32)
        for name in ('inputs', 'targets')
    )
    shifted = np.append([[0]], targets[:, :-1], 1)
    logits = apply({'params': params}, inputs, shifted, targets)
    chances = jax.nn.softmax(logits[0])[np.arange(targets.size), targets[0]]
    expected.append(-np.log(chances).mean())
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  scale = dataclasses.replace(
      scales.SCALES['smoke'], inputs_length=8, targets_length=8,
      decode_batch_size=4, loss_examples=6,
  )  # pyformat: disable
  of_some = scoring.losses(model, params, folder, scale)
  np.testing.assert_allclose(of_some, expected[:6], rtol=1e-5)


def add_task(name, dataset, **options):
  """Registers a seqio task on a function's data, read as bytes."""
  import seqio

  feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
  seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(dataset, splits=['test']),
      preprocessors=[
          seqio.preprocessors.tokenize,
          seqio.preprocessors.append_eos,
      ],
      output_features={'inputs': feature, 'targets': feature},
      **options,
  )


@pytest.fixture(scope='module', name='task')
def fixture_task():
  """A seqio task of 50 short texts, which is its own answer."""
  seqio = pytest.importorskip('seqio')
  tf = pytest.importorskip('tensorflow')

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    texts = [f'text {"x" * (i % 7)}{i}' for i in range(50)]
    return tf.data.Dataset.from_tensor_slices(
        {'inputs': texts, 'targets': texts}
    )

  add_task('toy_echo', dataset)
  yield 'toy_echo'
  seqio.TaskRegistry.remove('toy_echo')


def _interrupt_after(calls, monkeypatch):
  """Has `predict` interrupted as it is called once more."""
  predict, made = evaluate.predict, []

  def interrupted(*args, **options):
    if len(made) == calls:
      raise KeyboardInterrupt
    made.append(None)
    return predict(*args, **options)

  monkeypatch.setattr(evaluate, 'predict', interrupted)


def test_inference_that_was_interrupted_goes_on(task, tmp_path, monkeypatch):
  model = conftest.make_model(vocab_size=384)
  params = make_params(model)

  def infer(name, **changes):
    options = {'batch_size': 1, 'split': 'test', 'identity': 'p'} | changes
    lengths = {'inputs': 16, 'targets': 6}
    path = tmp_path / name
    count = evaluate.infer(model, params, task, lengths, str(path), **options)
    return count, path.read_bytes()

  count, whole = infer('whole')
  assert count == 50
  lines = [json.loads(line) for line in whole.splitlines()]
  assert [x['targets'] for x in lines[:2]] == ['text 0', 'text x1']
  assert all(x['inputs'] == x['targets'] for x in lines)

  predict, sizes = evaluate.predict, []
  _interrupt_after(2, monkeypatch)
  with pytest.raises(KeyboardInterrupt):
    infer('part')
  assert not (tmp_path / 'part').exists()
  (kept,) = tmp_path.glob('part.*')
  assert len(kept.read_bytes().splitlines()) == 32
  with kept.open('ab') as file:
    file.write(b'{"inputs": "cut o')
  monkeypatch.setattr(
      evaluate,
      'predict',
      lambda m, p, inputs, **options: sizes.append(len(inputs))
      or predict(m, p, inputs, **options),
  )
  assert infer('part') == (50, whole)
  assert sum(sizes) == 18  # And those alone.
  assert not list(tmp_path.glob('part.*'))


def test_inference_of_a_mixture_ends(task, tmp_path):
  """And takes the first of each task."""
  seqio = pytest.importorskip('seqio')
  tf = pytest.importorskip('tensorflow')
  model = conftest.make_model(vocab_size=384)

  def other(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(
        {'inputs': ['a', 'b', 'c'], 'targets': ['a', 'b', 'c']}
    )

  add_task('toy_other', other)
  seqio.MixtureRegistry.add('toy_mixture', [task, 'toy_other'], default_rate=1)

  def infer(name, max_examples):
    count = evaluate.infer(
        model, make_params(model), 'toy_mixture', {'inputs': 16, 'targets': 6},
        str(tmp_path / name), batch_size=50, max_examples=max_examples,
    )  # pyformat: disable
    lines = (tmp_path / name).read_text().splitlines()
    assert len(lines) == count
    return [json.loads(line)['targets'] for line in lines]

  try:
    assert len(infer('all', None)) == 53
    assert infer('two', 2) == ['text 0', 'text x1', 'a', 'b']
  finally:
    seqio.MixtureRegistry.remove('toy_mixture')
    seqio.TaskRegistry.remove('toy_other')


def test_metrics_of_seqios_types_are_numbers(tmp_path):
  seqio = pytest.importorskip('seqio')
  tf = pytest.importorskip('tensorflow')

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(
        {'inputs': ['a', 'b'], 'targets': ['a', 'b']}
    )

  def of_outputs(targets, predictions):
    return {
        'share': seqio.metrics.Scalar(0.5),
        'note': seqio.metrics.Text('two'),
        'count': len(predictions) + len(targets),
    }

  def of_scores(targets, scores):
    return {'sum': len(targets) + sum(scores)}

  model = conftest.make_model(vocab_size=384)
  lengths = {'inputs': 8, 'targets': 4}
  add_task('toy_typed', dataset, metric_fns=[of_outputs])
  add_task('toy_scored', dataset, metric_fns=[of_outputs, of_scores])
  try:
    measure = evaluate.task_evaluator(
        model, 'toy_typed', lengths, batch_size=2, split='test',
        output_dir=str(tmp_path),
    )  # pyformat: disable
    assert measure(make_params(model)) == {
        'toy_typed/share': 0.5, 'toy_typed/count': 4.0
    }  # pyformat: disable
    with pytest.raises(UserError, match='toy_scored, got one of SCORE'):
      evaluate.task_evaluator(
          model, 'toy_scored', lengths, batch_size=2, split='test'
      )
  finally:
    seqio.TaskRegistry.remove('toy_typed')
    seqio.TaskRegistry.remove('toy_scored')


def test_a_wrong_option_leaves_no_file(task, tmp_path):
  model = conftest.make_model(vocab_size=384)
  with pytest.raises(UserError, match='num_beams'):
    evaluate.infer(
        model, make_params(model), task, {'inputs': 16, 'targets': 6},
        str(tmp_path / 'out'), batch_size=50, method='beam', num_beams=0,
    )  # pyformat: disable
  assert not list(tmp_path.iterdir())


def test_a_split_that_cannot_be_read_leaves_no_file(
    task, tmp_path, monkeypatch
):
  def no_split(self, *unused, split, **options):
    raise ValueError(f'no {split}')

  seqio = pytest.importorskip('seqio')
  monkeypatch.setattr(seqio.Task, 'get_dataset', no_split)
  model = conftest.make_model(vocab_size=384)
  with pytest.raises(ValueError, match='no nowhere'):
    evaluate.infer(
        model, make_params(model), task, {'inputs': 16, 'targets': 6},
        str(tmp_path / 'out'), batch_size=50, split='nowhere',
    )  # pyformat: disable
  assert not list(tmp_path.iterdir())


def test_inference_of_other_rows_does_not_go_on(tmp_path, monkeypatch):
  seqio = pytest.importorskip('seqio')
  model = conftest.make_model(vocab_size=384)
  predict = evaluate.predict

  def infer(word):
    rows = [{'inputs': f'{word} {i}', 'targets': word} for i in range(40)]
    source = common.rows_source(lambda split: rows, list(rows[0]), ['test'])
    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    seqio.TaskRegistry.add(
        'toy_rows',
        source=source,
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={'inputs': feature, 'targets': feature},
    )
    try:
      evaluate.infer(
          model, make_params(model), 'toy_rows', {'inputs': 9, 'targets': 6},
          str(tmp_path / 'out'), batch_size=1, split='test',
      )  # pyformat: disable
    finally:
      seqio.TaskRegistry.remove('toy_rows')

  _interrupt_after(1, monkeypatch)
  with pytest.raises(KeyboardInterrupt):
    infer('old')
  (kept,) = tmp_path.glob('out.*')
  assert 'old' in kept.read_text()
  monkeypatch.setattr(evaluate, 'predict', predict)
  infer('new')
  text = (tmp_path / 'out').read_text()
  assert text.count('\n') == 40 and 'old' not in text


def test_inference_of_other_parameters_does_not_go_on(task, tmp_path):
  model = conftest.make_model(vocab_size=384)
  first, second = (
      jax.tree.map(lambda x, n=n: x * n, make_params(model)) for n in (1, 3)
  )
  lengths, path = {'inputs': 16, 'targets': 6}, str(tmp_path / 'out')
  options = {'batch_size': 8, 'max_examples': 3}
  assert evaluate.infer(
      model, first, task, lengths, path, identity='1', **options
  ) == 3
  before = (tmp_path / 'out').read_bytes()
  assert before.count(b'\n') == 3
  evaluate.infer(model, second, task, lengths, path, identity='3', **options)
  assert (tmp_path / 'out').read_bytes() != before
