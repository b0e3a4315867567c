# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5's span corruption in numbers, and in numpy.

Raffel et al., 2020, section 3.1.4: spans of a text are hidden; the inputs have
a sentinel for each hidden span, the targets one for each visible span. The
seqio tasks do the same on tf.data, see `tasks/pretraining.py`.
"""

import numpy as np

from gqa_t5x.errors import UserError

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0


def span_counts(length: int) -> tuple[int, int]:
  """Returns (noise tokens, noise spans) of a text of `length` tokens."""
  noise = min(max(round(length * NOISE_DENSITY), 1), length - 1)
  return noise, max(round(noise / MEAN_SPAN_LENGTH), 1)


def corrupted_lengths(length: int) -> tuple[int, int]:
  """Returns the lengths of inputs and targets of `length` raw tokens.

  EOS is counted in both.
  """
  noise, spans = span_counts(length)
  return length - noise + spans + 1, noise + spans + 1


def raw_length(inputs_length: int) -> int:
  """Returns the most raw tokens that fit into inputs of this length.

  128 gives 141, whose targets are 29 long; 512 gives 568 and 114. Raises
  UserError below 3, into which nothing fits.
  """
  if inputs_length < 3:
    raise UserError(
        f'expected inputs of 3 tokens or more, got {inputs_length}: one that is'
        ' seen, the sentinel of what is not, and the end'
    )
  length = 2
  while corrupted_lengths(length + 1)[0] <= inputs_length:
    length += 1
  return length


def corrupt(
    tokens: np.ndarray,
    first_sentinel: int,
    eos_id: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Hides random spans of a text.

  Args:
    tokens: int [length], two or more.
    first_sentinel: its id, from which those of the others go down.
    eos_id: appended to both.
    rng: draws the lengths of the runs, visible and hidden in turn.

  Returns:
    (inputs, targets), int32 [..].
  """
  noise, spans = span_counts(len(tokens))
  spans = min(spans, len(tokens) - noise)

  def division(total):
    cuts = 1 + np.sort(rng.permutation(total - 1)[: spans - 1])
    return np.diff(np.concatenate([[0], cuts, [total]]))

  runs = np.stack([division(len(tokens) - noise), division(noise)], 1)
  is_hidden = np.repeat(np.arange(2 * spans) % 2 == 1, runs.reshape(-1))

  def replaced(mask):
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    kept = np.where(starts, first_sentinel + 1 - np.cumsum(starts), tokens)
    kept = kept[starts | ~mask]
    return np.append(kept, eos_id).astype(np.int32)

  return replaced(is_hidden), replaced(~is_hidden)
