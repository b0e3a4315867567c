# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a SentencePiece vocabulary; as a program, the one that ships.

    python -m gqa_t5x.tasks.train_vocabulary FILE

The program reads the training split of the embedded corpus only. The same
corpus gives the same file; another installation has another corpus.
"""

import argparse
import collections
from collections.abc import Iterable, Iterator
import io
import os
import re
import tempfile

from gqa_t5x.tasks import common
from gqa_t5x.tasks import corpus

NUM_PIECES = 3996  # and 100 sentinels: 4,096 ids
# The German of the corpus is short, so it counts this many times: names of
# months, units and countries are then whole pieces.
TRANSLATION_WEIGHT = 2
# Digits are single pieces and always split off. In the text to train on they
# would make the lone space before a number so probable that the model prefers
# it, and a piece without a space, to whole words.
_NUMBER = re.compile(r'\S*[0-9]\S*')
# All white space is a space, in hexadecimal. Nothing else is folded: "m²" must
# come back as it was.
_SPACES = ('9', 'A', 'D', 'A0', '2009', '202F')


def _prepared(lines: Iterable[str]) -> Iterator[str]:
  """Yields lines without numbers, and frequent words.

  The trainer's candidates are the strings that occur in two different words,
  so a word that is always alone, as "oder", would never be whole. Therefore
  each frequent word comes twice more, with a mark after it.
  """
  counts = collections.Counter()
  for line in lines:
    line = _NUMBER.sub('', line)
    counts.update(line.split())
    yield line
  for word, count in counts.items():
    if count >= 20 and word.isalpha():
      yield f'{word}, {word}.'


def lines_of(text: str) -> Iterator[str]:
  """Yields a text in parts; SentencePiece skips lines above 4,192 bytes."""
  words = text.split()
  for start in range(0, len(words), 200):
    yield ' '.join(words[start : start + 200])[:4000]


def _embedded_lines() -> Iterator[str]:
  """Yields the text of all training rows, prompts included."""
  for row in corpus.rows('documents', 'train'):
    yield from lines_of(row['text'])
  for row in corpus.rows('translate', 'train'):
    for _ in range(TRANSLATION_WEIGHT):
      yield row['inputs']
      yield row['targets']
  for row in corpus.rows('summarize', 'train'):
    yield row['inputs'].partition('. ')[0]
  for row in corpus.rows('question_answering', 'train'):
    yield row['inputs'].partition('?')[0] + common.question_input('?', '')


def train(lines: Iterable[str], num_pieces: int) -> bytes:
  """Returns a unigram model: pad 0, EOS 1, unknown 2, no BOS, as T5's.

  Args:
    lines: text to train on, prompts included.
    num_pieces: how many the model has, without sentinels.
  """
  import sentencepiece
  from sentencepiece import sentencepiece_model_pb2
  model = io.BytesIO()
  with tempfile.NamedTemporaryFile('w', suffix='.tsv') as rules:
    rules.write(''.join(f'{space}\t20\n' for space in _SPACES))
    rules.flush()
    _train(sentencepiece, _prepared(lines), num_pieces, model, rules.name)
  proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
  # The name of a temporary file, which would differ on every run.
  proto.normalizer_spec.ClearField('normalization_rule_tsv')
  return proto.SerializeToString(deterministic=True)


def _train(sentencepiece, lines, num_pieces, model, rules) -> None:
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=lines,
      model_writer=model,
      model_type='unigram',
      vocab_size=num_pieces,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      byte_fallback=True,
      required_chars='0123456789',
      split_digits=True,  # a number is copied digit by digit
      normalization_rule_tsv=rules,
      character_coverage=0.9999,
      num_threads=1,
      minloglevel=2,
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('output', metavar='FILE', help='the model to write')
  output = parser.parse_args().output
  model = train(_embedded_lines(), NUM_PIECES)
  with open(output + '.part', 'wb') as file:
    file.write(model)
  os.replace(output + '.part', output)


if __name__ == '__main__':
  main()
