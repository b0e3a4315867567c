# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What TPUs would hold, against sums by hand; the table; the user's mistakes.

Compiling happens in a process of its own, this same file run as a program: it
changes which devices JAX sees.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip('optax')

from gqa_t5x.benchmark import models
from gqa_t5x.benchmark import tpu_compile
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import paper

ROOT = pathlib.Path(__file__).resolve().parents[2]

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed; see the extra "compile" in setup.py',
)

# D, F, N and layers of the encoder, and of the decoder.
ONE_LAYER = paper.ModelSize('one_layer', 256, 512, 8, 1)


def make_job(**changes):
  fields = {
      'model': 'one_layer', 'num_kv_heads': 8, 'what': 'decode',
      'topology': 'v4:2x2x1', 'model_axis': 2, 'batch_size': 8,
      'input_length': 256, 'output_length': 128,
  }
  return tpu_compile.Job(**fields | changes)


def _compile_all(jobs):
  """Compiles jobs in a new process; returns results, or lines of errors."""
  env = os.environ | {'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
      [sys.executable, '-m', __name__, json.dumps(jobs)],
      env=env, cwd=ROOT, capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def _main(jobs):
  models.SIZES += (ONE_LAYER,)
  results = []
  for job in jobs:
    try:
      results.append(tpu_compile.compile_for_tpu(make_job(**job)))
    except UserError as error:
      results.append(str(error))
  print(json.dumps(results))


@pytest.fixture(scope='module')
def compiled():
  jobs = {
      8: {},
      1: {'num_kv_heads': 1},
      'axis': {'model_axis': 3},
      'batch': {'batch_size': 7},
      'topology': {'topology': 'v4:3x3x1'},
      # 2 GiB of embedding and logits are no matter, 256 GiB of tokens are.
      'huge': {'batch_size': 2**25, 'input_length': 2**12},
  }
  return dict(zip(jobs, _compile_all(list(jobs.values()))))


def numbers_by_hand(kv_heads):
  """Parameters a device at a model axis of 2, but for position biases."""
  kv = kv_heads * 64 // (2 if kv_heads % 2 == 0 else 1)
  joined, mlp, vocab = 8 * 64 // 2, 512 // 2, 32_128 // 2
  encoder = 4 * 256 * joined + 3 * 256 * mlp + 3 * 256
  decoder = 2 * (2 * 256 * joined + 2 * 256 * kv) + 3 * 256 * mlp + 4 * 256
  return encoder + decoder + 2 * 256 * vocab


@needs_libtpu
@pytest.mark.parametrize('kv_heads', [8, 1])
def test_arguments_are_parameters_and_inputs(compiled, kv_heads):
  result = compiled[kv_heads]
  assert (result['num_devices'], result['data_axis']) == (4, 2)
  assert result['num_kv_heads'] == kv_heads and result['fits']
  # In bfloat16. A position bias [4, 32] takes a TPU's tile of [4, 128].
  params = 2 * numbers_by_hand(kv_heads) + 2 * 2 * 4 * 128
  tokens = 4 * (8 // 2) * 256
  prefill, decode = (result['programs'][n] for n in ('prefill', 'decode'))
  assert prefill['argument_bytes'] == params + tokens
  # Keys and values of 4 rows; one head is on both devices of a model.
  heads = max(1, kv_heads // 2)
  cache = 2 * 2 * 4 * heads * 256 * 64
  assert decode['argument_bytes'] == params + tokens + cache
  assert decode['total_bytes'] == sum(
      decode[f'{kind}_bytes'] for kind in ('argument', 'temp', 'output')
  )


@needs_libtpu
def test_fewer_heads_take_less(compiled):
  for program in ('prefill', 'decode'):
    for count in ('argument_bytes', 'total_bytes', 'flops', 'bytes_accessed'):
      one, eight = (compiled[k]['programs'][program][count] for k in (1, 8))
      assert 0 < one < eight, (program, count)


@needs_libtpu
def test_mistakes_that_only_the_compiler_knows(compiled):
  assert compiled['axis'].startswith('expected a model axis that divides 4')
  assert compiled['batch'].endswith('got 7; choose a multiple of 2')
  line = compiled['topology']
  assert line.startswith("'v4:3x3x1' is no topology that libtpu knows")
  assert line.endswith('choose one such as v4:2x2x1') and '\n' not in line


@needs_libtpu
def test_what_does_not_fit_is_refused(compiled):
  result = compiled['huge']
  assert not result['fits']
  prefill = result['programs']['prefill']
  assert prefill['argument_bytes'] > 2**24 * 2**12 * 4
  assert 'hbm' in prefill['refusal'].lower()
  assert 'total_bytes' not in prefill
  text = tpu_compile.to_text(result)
  assert prefill['refusal'] in text and 'does not fit' in text


@needs_libtpu
def test_training_step_holds_float32_parameters_once():
  (result,) = _compile_all([{'what': 'train', 'num_microbatches': 2}])
  step = result['programs']['train']
  assert result['param_dtype'] == 'float32' and result['fits']
  # Adafactor's statistics are vectors, and take a few percent.
  params = 4 * numbers_by_hand(8)
  assert params < step['argument_bytes'] < 1.1 * params
  # The new state takes the place of the old.
  assert step['output_bytes'] < 2**16


@pytest.mark.parametrize('changes, line', [
    ({'model': 'huge'},
     'expected a model of tiny, small, base, large, xl, xxl, got'),
    ({'model': 'base', 'num_kv_heads': 5},
     'num_heads=12 cannot be split over num_kv_heads=5'),
    ({'topology': 'v9:2x2'}, 'expected a topology such as v4:2x2x1, v5e:2x4'),
    ({'topology': 'v4'}, "got 'v4'"),
    ({'topology': 'v4:2x'}, "got 'v4:2x'"),
])
def test_mistakes_are_one_line_without_libtpu(changes, line, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError) as caught:
    tpu_compile.compile_for_tpu(make_job(**{'model': 'small',
                                            'num_kv_heads': 2} | changes))
  assert line in str(caught.value) and '\n' not in str(caught.value)


def test_missing_libtpu_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='needs the package libtpu'):
    tpu_compile.compile_for_tpu(make_job(model='small', num_kv_heads=2))


def test_table_by_hand():
  result = {
      'model': 'xxl', 'num_kv_heads': 8, 'topology': 'v4:2x2x2',
      'data_axis': 2, 'model_axis': 4, 'batch_size': 64,
      'num_microbatches': 1, 'usable_gib': 5.75,
      'programs': {
          'prefill': {'argument_bytes': 5 * 2**30, 'fits': False},
          'decode': {
              'argument_bytes': 5 * 2**30, 'temp_bytes': 2**29,
              'output_bytes': 2**10, 'total_bytes': 11 * 2**29 + 2**10,
              'fits': True, 'bytes_accessed': 19.12e9, 'flops': 1.5e12,
          },
      },
  }
  train = result | {
      'num_microbatches': 4, 'usable_gib': 5.25,
      'programs': {'train': result['programs']['decode']},
  }
  expected = '''\
model    K  topology  mesh      batch  program   args    temp     out   total\
  fits      GB   TFLOP
xxl      8  v4:2x2x2  2x4          64  prefill   5.00       -       -       -\
  no         -       -
xxl      8  v4:2x2x2  2x4          64  decode    5.00    0.50    0.00    5.50\
  yes    19.12    1.50
xxl      8  v4:2x2x2  2x4        64/4  train     5.00    0.50    0.00    5.50\
  edge   19.12    1.50'''
  assert tpu_compile.table([result, train]) == expected


if __name__ == '__main__':
  _main(json.loads(sys.argv[1]))
