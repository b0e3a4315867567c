# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What calibrated conversion depends on, without any uptraining.

Which text the covariances are measured on, how much of it and which part; and
how far each attention is from what it was. Loss as in `conversion_methods`.

  python -m gqa_t5x.experiments.calibration_study --output OUT.json
"""

import argparse
from collections.abc import Iterator, Mapping
import itertools
import pathlib
import re
import shlex
import sys
import tempfile
from typing import Any

from flax import traverse_util
import numpy as np

from gqa_t5x import number_flags
from gqa_t5x import pretrained
from gqa_t5x import provenance
from gqa_t5x import storage
from gqa_t5x import vocabularies
from gqa_t5x.conversion import calibration
from gqa_t5x.conversion import calibration_text
from gqa_t5x.conversion import errors
from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.engine import data
from gqa_t5x.engine import evaluate
from gqa_t5x.engine import partitioning
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import conversion_methods

SEQUENCES = (8, 32, 128, 512, 1024)
NUM_KV_HEADS = (4, 2, 1)


class Study(conversion_methods.Comparison):
  """Losses of conversions of one checkpoint."""

  def loss(self, params: Any, num_kv_heads: int) -> float:
    model = self.model(num_kv_heads)
    return evaluate.dev_loss(model, params, self.dev)['loss']

  def measured_on(self, batches: Iterator[Mapping[str, Any]]):
    return calibration.covariances(self.config, self.params, batches)

  def errors(self, converted: Any) -> dict[str, dict[str, float]]:
    """Returns `errors.relative_errors` of each attention, on `covariances`."""
    trees = [traverse_util.flatten_dict(x) for x in (self.params, converted)]
    found = {}
    for attention in heads_lib.attentions(trees[0]):
      old, new = (
          heads_lib.split(
              {
                  name: np.asarray(flat[(*attention, name, 'kernel')])
                  for name in heads_lib.PROJECTIONS
              },
              self.config.num_heads,
          )
          for flat in trees
      )
      found['/'.join(attention)] = errors.relative_errors(
          old, new, self.covariances[attention]
      )
    return found

  def text_batches(self, path: str | None, num_sequences: int):
    return calibration_text.batches(
        calibration_text.read(path),
        vocabularies.Vocabulary(pretrained.VOCABULARY_PATH),
        vocab_size=self.config.vocab_size,
        num_sequences=num_sequences,
    )

  def random_batches(self, num_sequences: int):
    """Tokens drawn evenly: text that no model has seen."""
    rng = np.random.default_rng(0)
    for batch in self.text_batches(None, num_sequences):
      for name, tokens in batch.items():
        drawn = rng.integers(2, self.config.vocab_size, tokens.shape, np.int32)
        batch[name] = np.where(tokens > 1, drawn, tokens)
      yield batch


def drawn(
    batches: list[data.Batch], num_sequences: int, seed: int
) -> list[data.Batch] | None:
  """Returns batches of sequences drawn at random, without putting any back.

  Args:
    batches: of which sequences are drawn, padding not among them.
    num_sequences: how many.
    seed: another one draws others.

  Returns:
    Batches of the size of the first of `batches`, the last perhaps smaller;
    None where there are not more than `num_sequences` to draw from.
  """
  whole = {
      name: np.concatenate([batch[name] for batch in batches])
      for name in batches[0]
  }
  (texts,) = np.nonzero(whole['decoder_target_tokens'].any(axis=1))
  if len(texts) <= num_sequences:
    return None
  rows = np.random.default_rng(seed).choice(texts, num_sequences, replace=False)
  size = len(batches[0]['decoder_target_tokens'])
  return [
      {name: x[rows[start : start + size]] for name, x in whole.items()}
      for start in range(0, num_sequences, size)
  ]


def translation_text() -> str:
  """Returns dates, numbers and names in two languages: far from prose."""
  from gqa_t5x.tasks import cldr

  rows = itertools.islice(cldr.translation_pairs(), 20_000)
  return '\n'.join(f'{row[-2]} {row[-1]}' for row in rows)


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument('--checkpoint', default=pretrained.CHECKPOINT_PATH)
  parser.add_argument(
      '--text',
      type=_named_file,
      action='append',
      default=[],
      metavar='NAME=FILE',
      help='more text to calibrate with',
  )
  for name, default in (
      ('sequences', SEQUENCES), ('num_kv_heads', NUM_KV_HEADS),
  ):  # pyformat: disable
    parser.add_argument(
        f'--{name}',
        type=number_flags.integers,
        default=default,
        metavar='N,N',
    )
  parser.add_argument(
      '--draws',
      type=number_flags.positive,
      default=1,
      metavar='N',
      help=(
          'times that each number of sequences is taken: first as gqa-t5x'
          f' convert takes them, then drawn from {SEQUENCES[-1]:,} of the text'
      ),
  )
  args = parser.parse_args(argv)
  try:
    _run(args, sys.argv[1:] if argv is None else argv)
  except (UserError, OSError) as error:
    parser.error(str(error))


def _named_file(text: str) -> str:
  name, _, path = text.partition('=')
  if not (name and path):
    raise argparse.ArgumentTypeError(f'expected NAME=FILE, got {text!r}')
  return text


def _run(args, words: list[str]) -> None:
  output = storage.output_file(args.output)  # Before anything is measured.
  partitioning.use_cpu_cores()
  study = Study(args.checkpoint, 128)
  original = study.loss(study.params, study.config.num_heads)
  cells = []

  def add(label, num_kv_heads, loss, **facts):
    cells.append(
        {'method': label, 'num_kv_heads': num_kv_heads, 'loss': loss} | facts
    )
    told = ', '.join(str(x) for x in facts.values() if not isinstance(x, dict))
    print(label, num_kv_heads, told, f'{loss:.4f}', flush=True)

  with tempfile.TemporaryDirectory() as folder:
    far = pathlib.Path(folder) / 'translation.txt'
    far.write_text(translation_text(), encoding='utf-8')
    texts = {
        'pre-training': lambda n: study.calibration_batches(n),
        'default': lambda n: study.text_batches(None, n),
        'translation': lambda n: study.text_batches(str(far), n),
        'random tokens': study.random_batches,
    }
    for pair in args.text:
      name, _, path = pair.partition('=')
      texts[name] = lambda n, path=path: study.text_batches(path, n)
    for (name, batches), sequences, draw in itertools.product(
        texts.items(), args.sequences, range(args.draws)
    ):
      if draw:
        made = drawn(list(batches(SEQUENCES[-1])), sequences, draw)
      else:
        made = list(batches(sequences))
      if made is None:
        continue
      facts = {'text': name, 'sequences': sequences, 'used_sequences': sum(
          int(x['decoder_target_tokens'].any(axis=1).sum()) for x in made
      ), 'draw': draw}  # pyformat: disable
      moments = study.measured_on(made)
      for k in args.num_kv_heads:
        params = study.convert(k, method='svd', covariances=moments)
        add('svd', k, study.loss(params, k), **facts)
  for method, moments in (
      ('mean', None), ('svd', None), ('svd', study.covariances),
  ):  # pyformat: disable
    for k in args.num_kv_heads:
      params = study.convert(k, method=method, covariances=moments)
      add(
          method,
          k,
          study.loss(params, k),
          text=moments and 'pre-training',
          errors=study.errors(params),
      )
  # Where somebody's texts lie is of no use to others.
  words = [
      re.sub(r'(?s)((--text=)?[^=]*)=.*', r'\1=FILE', word)
      if word.removeprefix('--text=') in args.text else word
      for word in words
  ]  # pyformat: disable
  report = {
      'command': 'python -m gqa_t5x.experiments.calibration_study '
      + shlex.join(words),
      **study.made_from,
      'original_loss': original,
      'cells': cells,
  } | provenance.environment()
  storage.write_json(output, report)


if __name__ == '__main__':
  main()
