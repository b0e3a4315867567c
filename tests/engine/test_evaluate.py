# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predictions in their order; dev loss over padded last batches."""

import numpy as np

from gqa_t5x import decoding
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import train
from tests.engine import conftest


def make_params(model):
  config = train.TrainConfig('unused', total_steps=1)
  return train.Trainer(model, config).initial_state().params


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
