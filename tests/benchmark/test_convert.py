# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the conversion benchmark counts; never how fast it is."""

import dataclasses
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x.benchmark import convert
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config
from tests.benchmark import TINY


def test_random_checkpoints_are_random_and_whole(tmp_path):
  convert.write_random(str(tmp_path / 'x'), TINY, 'orbax')
  params, metadata = checkpoints.load_checkpoint(str(tmp_path / 'x'))
  assert T5Config(**metadata['config']) == TINY
  embedding = params['token_embedder']['embedding']
  assert len(np.unique(embedding)) == embedding.size
  assert 0.9 < embedding.std() < 1.1


def test_counts_bytes_and_cleans_up(tmp_path):
  found = convert.benchmark_convert(
      TINY, num_kv_heads=2, folder=str(tmp_path), num_repeats=1
  )
  # Four attentions lose half of the 28 columns of two [10, 28] kernels.
  lost = 4 * 2 * 10 * 14 * 4
  assert found['source_bytes'] - found['target_bytes'] == pytest.approx(
      lost, abs=1000
  )
  for name in ('convert', 'convert_cpu', 'cp', 'cp_sync'):
    assert len(found[f'{name}_seconds']) == 1
  assert 0 < found['peak_bytes_above_start'] < 2**30
  assert found['versions']['numpy'] == np.__version__
  assert 'orbax' not in convert.to_text(found)
  assert not list(tmp_path.iterdir())


def test_sigterm_leaves_nothing(tmp_path):
  process = subprocess.Popen([
      sys.executable, '-m', 'gqa_t5x', 'benchmark', 'convert',
      '--num_layers', '1', '--folder', str(tmp_path), '--without_cp',
  ])  # pyformat: disable
  while not list(tmp_path.glob('*/source/checkpoint_0')):
    assert process.poll() is None
    time.sleep(0.1)
  process.terminate()
  assert process.wait() == 128 + signal.SIGTERM
  assert not list(tmp_path.iterdir())


def test_calibration_is_measured_too(tmp_path):
  found = convert.benchmark_convert(
      dataclasses.replace(TINY, vocab_size=4096), num_kv_heads=2,
      folder=str(tmp_path), method='svd', calibration_sequences=2,
      num_repeats=1, copy=False,
  )  # pyformat: disable
  # All that it imports, and compiles, to run the model counts.
  assert found['peak_bytes_above_start'] > 5e7  # Without: 1e7.
  assert 'K=2 by svd' in convert.to_text(found)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_kv_heads': 3}, 'choose 1, 2 or 4'),
        ({'num_kv_heads': 2, 'method': 'svdx'}, 'choose one of mean'),
        ({'num_kv_heads': 2, 'target_format': 'zip'}, 'choose one of orbax'),
        ({'num_kv_heads': 2, 'folder': '/nonexistent'}, 'is none'),
    ],
)
def test_arguments_are_checked_first(tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    convert.benchmark_convert(TINY, **{'folder': str(tmp_path)} | options)
  assert not list(tmp_path.iterdir())
