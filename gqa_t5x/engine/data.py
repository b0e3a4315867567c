# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches from token arrays, in an order that the seed alone decides.

The n-th batch is a function of the data, the seed and n, so a run resumes
exactly by skipping n batches; skipping touches no tokens. Needs numpy only;
`cache.py` writes the arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
import pathlib

import numpy as np

from gqa_t5x.engine import cache
from gqa_t5x.errors import UserError

Batch = dict[str, np.ndarray]
# An example is (index of its dataset, index in it); a row holds one example,
# or several where rows are packed.
Example = tuple[int, int]

# Examples that are drawn, and packed into rows, together.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class TokenDataset:
  """A cached task's split; see `cache`. Arrays stay on disk until read."""

  inputs: np.ndarray
  inputs_offsets: np.ndarray
  targets: np.ndarray
  targets_offsets: np.ndarray

  @classmethod
  def open(cls, folder: str) -> 'TokenDataset':
    """Opens a cache folder.

    Raises:
      UserError: if it is none.
    """
    cache.read_meta(pathlib.Path(folder))
    return cls(*(
        np.load(pathlib.Path(folder) / f'{field.name}.npy', mmap_mode='r')
        for field in dataclasses.fields(cls)
    ))

  def __len__(self) -> int:
    return len(self.targets_offsets) - 1

  def tokens(self, feature: str, index: int, max_length: int) -> np.ndarray:
    """Returns a feature's tokens, trimmed with its EOS kept, [length]."""
    offsets = getattr(self, f'{feature}_offsets')
    start, end = offsets[index], offsets[index + 1]
    tokens = np.asarray(getattr(self, feature)[start:end], np.int32)
    if len(tokens) > max_length:
      tokens = np.append(tokens[: max_length - 1], tokens[-1])
    return tokens

  def lengths(
      self, feature: str, indices: np.ndarray, max_length: int
  ) -> np.ndarray:
    """Returns how many tokens each of some examples has, trimmed."""
    offsets = getattr(self, f'{feature}_offsets')
    return np.minimum(offsets[indices + 1] - offsets[indices], max_length)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """How examples become batches.

  Attributes:
    batch_size: rows of a batch, over all processes.
    inputs_length: tokens of an encoder row; longer inputs are trimmed.
    targets_length: likewise for the decoder.
    pack: whether a row holds as many examples as fit.
    seed: decides the order.
  """

  batch_size: int
  inputs_length: int
  targets_length: int
  pack: bool = False
  seed: int = 0

  def max_length(self, feature: str) -> int:
    return getattr(self, f'{feature}_length')


def train_batches(
    rates: Mapping[str, float],
    config: BatchConfig,
    *,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
  """Yields batches without end, each epoch of a task in another order.

  Args:
    rates: {cache folder: share of the examples}.
    config: sizes, packing, seed.
    start_step: how many batches to skip.
    process_index: this process gets this slice of each batch's rows.
    process_count: number of processes; divides the batch size.

  Yields:
    int32 arrays under t5x's names: encoder_input_tokens [B, S],
    decoder_input_tokens, decoder_target_tokens [B, T], and float32
    decoder_loss_weights [B, T]; packed rows also have *_segment_ids.
  """
  if config.batch_size % process_count:
    raise UserError(
        f'batch_size={config.batch_size} cannot be split over {process_count}'
        ' processes; choose a multiple'
    )
  datasets = [TokenDataset.open(folder) for folder in rates]
  share = np.array(list(rates.values())) / sum(rates.values())
  rows = _rows(datasets, share, config)
  local = config.batch_size // process_count
  rows = itertools.islice(rows, start_step * config.batch_size, None)
  while True:
    batch = list(itertools.islice(rows, config.batch_size))
    batch = batch[process_index * local : (process_index + 1) * local]
    yield make_batch(datasets, batch, config)


def eval_batches(folder: str, config: BatchConfig) -> Iterator[Batch]:
  """Yields one epoch in order; the last batch is filled up with empty rows."""
  dataset = TokenDataset.open(folder)
  for start in range(0, len(dataset), config.batch_size):
    rows = [
        [(0, index)]
        for index in range(start, min(start + config.batch_size, len(dataset)))
    ]
    rows += [[]] * (config.batch_size - len(rows))
    yield make_batch([dataset], rows, config)


def _rows(
    datasets: Sequence[TokenDataset], share: np.ndarray, config: BatchConfig
) -> Iterator[list[Example]]:
  """Yields the examples of each row, block after block."""
  position = np.zeros(len(datasets), np.int64)

  @functools.lru_cache(maxsize=2 * len(datasets))
  def order(which: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([config.seed, which, epoch])
    return rng.permutation(len(datasets[which]))

  for block in itertools.count():
    rng = np.random.default_rng([config.seed, len(datasets), block])
    examples = []
    for which in rng.choice(len(datasets), size=_BLOCK, p=share):
      epoch, index = divmod(int(position[which]), len(datasets[which]))
      examples.append((int(which), int(order(int(which), epoch)[index])))
      position[which] += 1
    if config.pack:
      rows = _pack(datasets, examples, config)
      yield from (rows[i] for i in rng.permutation(len(rows)))
    else:
      yield from ([example] for example in examples)


def _pack(
    datasets: Sequence[TokenDataset],
    examples: Sequence[Example],
    config: BatchConfig,
) -> list[list[Example]]:
  """Packs examples into rows: the longest first, each where it first fits."""
  which, indices = np.array(examples).T
  inputs, targets = lengths = np.empty((2, len(examples)), np.int64)
  for number, dataset in enumerate(datasets):
    of_it = which == number
    for feature, found in zip(cache.FEATURES, lengths):
      found[of_it] = dataset.lengths(
          feature, indices[of_it], config.max_length(feature)
      )
  inputs_room = np.full(len(examples), config.inputs_length)
  targets_room = np.full(len(examples), config.targets_length)
  rows: list[list[Example]] = []
  for i in np.argsort(-lengths.sum(axis=0), kind='stable'):
    open_rows = slice(len(rows) + 1)  # The last is a new one.
    row = int(np.argmax(
        (inputs_room[open_rows] >= inputs[i])
        & (targets_room[open_rows] >= targets[i])
    ))
    if row == len(rows):
      rows.append([])
    rows[row].append(examples[i])
    inputs_room[row] -= inputs[i]
    targets_room[row] -= targets[i]
  return rows


def make_batch(
    datasets: Sequence[TokenDataset],
    rows: Sequence[Sequence[Example]],
    config: BatchConfig,
) -> Batch:
  """Lays the examples of each row next to each other, padded with 0.

  The decoder's input is its target shifted right within each example, so that
  it begins with the start token 0.
  """
  num_rows = len(rows)
  shapes = {
      'encoder_input': (num_rows, config.inputs_length),
      'decoder_target': (num_rows, config.targets_length),
  }
  inputs, segments = [
      {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
      for _ in range(2)
  ]
  decoder_inputs = np.zeros(shapes['decoder_target'], np.int32)
  for i, row in enumerate(rows):
    start = {name: 0 for name in shapes}
    for segment, (which, index) in enumerate(row, 1):
      for name, feature in zip(shapes, cache.FEATURES):
        tokens = datasets[which].tokens(
            feature, index, config.max_length(feature)
        )
        where = slice(start[name], start[name] + len(tokens))
        inputs[name][i, where] = tokens
        segments[name][i, where] = segment
        if name == 'decoder_target':
          decoder_inputs[i, where] = np.append(0, tokens[:-1])
        start[name] += len(tokens)
  batch = {
      'encoder_input_tokens': inputs['encoder_input'],
      'decoder_input_tokens': decoder_inputs,
      'decoder_target_tokens': inputs['decoder_target'],
      'decoder_loss_weights': (inputs['decoder_target'] > 0).astype(np.float32),
  }
  if config.pack:
    batch |= {
        'encoder_segment_ids': segments['encoder_input'],
        'decoder_segment_ids': segments['decoder_target'],
    }
  return batch
