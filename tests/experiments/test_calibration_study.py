# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text for calibration is drawn without repeats, without padding."""

import numpy as np

from gqa_t5x.experiments import calibration_study


def _batches(*counts):
  """Returns batches of 4 sequences, so many of them text, the rest padding."""
  made, first = [], 1
  for count in counts:
    ids = np.zeros((4, 3), np.int32)
    ids[:count] = np.arange(first, first + count)[:, None]
    first += count
    made.append(
        {'encoder_input_tokens': ids, 'decoder_target_tokens': 10 * ids}
    )
  return made


def test_draws_are_distinct_sequences_of_the_text():
  drawn = calibration_study.drawn(_batches(4, 4, 1), 6, seed=1)
  assert [len(b['encoder_input_tokens']) for b in drawn] == [4, 2]
  inputs, targets = (
      np.concatenate([b[name] for b in drawn])
      for name in ('encoder_input_tokens', 'decoder_target_tokens')
  )
  np.testing.assert_array_equal(targets, 10 * inputs)
  ids = set(inputs[:, 0])
  assert len(ids) == 6 and ids < set(range(1, 10))
  again, other = (
      np.concatenate([
          b['encoder_input_tokens']
          for b in calibration_study.drawn(_batches(4, 4, 1), 6, seed)
      ])
      for seed in (1, 2)
  )
  np.testing.assert_array_equal(again, inputs)
  assert set(other[:, 0]) != ids


def test_nothing_is_drawn_from_text_that_is_used_whole():
  assert calibration_study.drawn(_batches(4, 4, 1), 9, seed=1) is None
