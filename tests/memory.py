# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of evaluation and inference, over more and more examples.

The model is tiny and its parameters are random, so that what grows is what is
kept of the examples. Each measurement is a process of its own.

  python -m tests.memory --output results/memory.json
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile

from gqa_t5x import provenance
from gqa_t5x import storage

_LENGTHS = {'inputs': 16, 'targets': 8}
_BATCH_SIZE = 256


def _peak() -> float:
  """Returns the most memory that the process had, MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(what: str, num_examples: int) -> dict:
  """Returns the peak before and after, MiB, of 'evaluation' or 'inference'."""
  # In the measured process alone.
  # pylint: disable=g-import-not-at-top
  import tensorflow as tf

  from gqa_t5x.engine import evaluate
  from tests.engine import conftest
  from tests.engine import test_evaluate

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    text = tf.strings.as_string
    return tf.data.Dataset.range(num_examples).map(
        lambda i: {'inputs': 'text ' + text(i), 'targets': text(i)}
    )

  def count(targets, predictions):
    del predictions
    return {'examples': len(targets)}

  test_evaluate.add_task('memory', dataset, metric_fns=[count])
  model = conftest.make_model(vocab_size=384)
  params = test_evaluate.make_params(model)
  before = _peak()
  with tempfile.TemporaryDirectory() as folder:
    if what == 'inference':
      evaluate.infer(
          model, params, 'memory', _LENGTHS, f'{folder}/lines',
          batch_size=_BATCH_SIZE,
      )  # pyformat: disable
    else:
      evaluate.task_evaluator(
          model, 'memory', _LENGTHS, batch_size=_BATCH_SIZE, split='test'
      )(params)
  return {
      'of': what,
      'examples': num_examples,
      'mib_before': before,
      'mib_peak': _peak(),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', metavar='JSON')
  parser.add_argument('--one', nargs=2, metavar=('WHAT', 'EXAMPLES'))
  args = parser.parse_args()
  if args.one:
    print(json.dumps(measure(args.one[0], int(args.one[1]))))
    return
  found = []
  for what in ('inference', 'evaluation'):
    for count in (10_000, 100_000):
      words = [sys.executable, '-m', 'tests.memory', '--one', what, str(count)]
      out = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
      found.append(json.loads(out))
      print(found[-1], flush=True)
  report = {
      'command': 'python -m tests.memory --output memory.json',
      'runs': found,
  } | provenance.environment()
  storage.write_json(args.output, report)


if __name__ == '__main__':
  main()
