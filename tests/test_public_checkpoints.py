# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as the public ones of t5x: of no manifest, often compressed."""

import gzip
import json

import pytest

from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import conversion
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.errors import UserError
from tests import hf_reference
from tests.golden import make_t5x_checkpoints as golden


def _save(path):
  checkpoints.save_checkpoint(
      str(path),
      hf_reference.random_params(golden.CONFIG, 0),
      format='t5x',
      metadata={'config': golden.CONFIG.to_dict(), 'step': 3},
  )
  (path / manifest.NAME).unlink()
  (path / t5x_metadata.FILE).unlink()


def _cut(chunk: bytes) -> bytes:
  return chunk[: len(chunk) // 2]


@pytest.mark.parametrize('target_format', ['orbax', 't5x', 't5x-orbax', 'hf'])
@pytest.mark.parametrize('is_compressed', [False, True])
@pytest.mark.parametrize(
    'damage',
    [_cut, lambda chunk: b'', lambda chunk: b'hello', lambda chunk: None],
)
def test_a_damaged_chunk_of_what_stays_is_not_copied(
    tmp_path, damage, is_compressed, target_format
):
  source, target = tmp_path / 'checkpoint_3', tmp_path / 'new' / 'checkpoint_3'
  _save(source)
  array = source / 'target.encoder.layers_0.mlp.wo.kernel'
  chunk = (array / '0.0').read_bytes()
  if is_compressed:
    description = json.loads((array / '.zarray').read_text())
    description['compressor'] = {'id': 'gzip', 'level': 1}
    (array / '.zarray').write_text(json.dumps(description))
    chunk = gzip.compress(chunk)
    (array / '0.0').write_bytes(chunk)
    conversion.convert_checkpoint(
        str(source), str(tmp_path / 'good' / 'checkpoint_3'), num_kv_heads=2
    )
  if (damaged := damage(chunk)) is None:
    (array / '0.0').unlink()
  else:
    (array / '0.0').write_bytes(damaged)
  with pytest.raises(UserError, match='encoder.layers_0.mlp.wo') as error:
    conversion.convert_checkpoint(
        str(source), str(target), num_kv_heads=2, format=target_format
    )
  assert '\n' not in str(error.value)
  assert not target.exists()


@pytest.mark.parametrize('name', ['mlp.wo', 'attention.key'])
def test_a_chunk_that_is_too_long_is_damaged(tmp_path, name):
  """TensorStore would refuse it, so it is neither read nor copied."""
  source = tmp_path / 'checkpoint_3'
  _save(source)
  path = source / f'target.encoder.layers_0.{name}.kernel/0.0'
  path.write_bytes(path.read_bytes() + bytes(100))
  with pytest.raises(UserError, match=f'{name}.kernel/0.0" has .* expected'):
    conversion.convert_checkpoint(
        str(source), str(tmp_path / 'new' / 'checkpoint_3'), num_kv_heads=2
    )
  with pytest.raises(UserError, match=f'{name}.kernel/0.0" has .* expected'):
    checkpoints.load_checkpoint(str(source))


@pytest.mark.parametrize('dtype', ['<i4', '<u4', '|b1', '<c8'])
def test_arrays_of_no_floats_are_named(tmp_path, dtype):
  source = tmp_path / 'checkpoint_3'
  _save(source)
  path = source / 'target.encoder.layers_0.mlp.wo.kernel/.zarray'
  path.write_text(path.read_text().replace('<f4', dtype))
  with pytest.raises(
      UserError, match='expected encoder/layers_0/mlp/wo/kernel of floating'
  ):
    conversion.convert_checkpoint(
        str(source), str(tmp_path / 'new'), num_kv_heads=2, format='orbax'
    )


def test_that_there_is_no_manifest_is_said(tmp_path, capsys):
  source, once, twice = (tmp_path / x / 'checkpoint_3' for x in 'abc')
  _save(source)
  for input, output, heads in ((source, once, '2'), (once, twice, '1')):
    assert cli.main([
        'convert', '--input', str(input), '--output', str(output),
        '--num_kv_heads', heads, '--verify',
    ]) == 0  # pyformat: disable
    is_said = 'the input has no manifest to' in capsys.readouterr().out
    assert is_said == (input == source)
