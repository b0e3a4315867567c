# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Orbax itself reads what we write by hand, and we what it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x.checkpoints import zarr
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config
from tests import hf_reference
from tests.golden import make_t5x_checkpoints as golden
from tests.test_t5x_checkpoints import assert_same

CONFIG = golden.CONFIG
METADATA = {'config': CONFIG.to_dict(), 'step': 3, 'conversion': None}


def _params(dtype=jnp.float32):
  params = hf_reference.random_params(CONFIG, 0)
  return jax.tree.map(lambda x: x.astype(dtype), params)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_orbax_reads_what_we_write(tmp_path, monkeypatch, dtype):
  monkeypatch.setattr(zarr, 'CHUNK_BYTES', 100)
  params = _params(dtype)
  checkpoints.save_checkpoint(
      str(tmp_path / 'run' / '3'), params, metadata=METADATA
  )
  with ocp.CheckpointManager(
      tmp_path / 'run', item_names=('params', 'metadata')
  ) as manager:
    assert manager.latest_step() == 3
    restored = manager.restore(
        3,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeRestore(params),
            metadata=ocp.args.JsonRestore(),
        ),
    )
  assert_same(restored.params, params)
  assert restored.metadata['config'] == METADATA['config']
  # Without being told the structure, too.
  handler = ocp.PyTreeCheckpointHandler()
  assert_same(handler.restore(tmp_path / 'run' / '3' / 'params'), params)


def _standard(path, params):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, params)


def _variables(path, params):
  ocp.PyTreeCheckpointer().save(path, {'params': params, 'other': {'x': 1}})


def _zarr3(path, params):
  handler = ocp.PyTreeCheckpointHandler(use_zarr3=True)
  ocp.Checkpointer(handler).save(path, params)


def _a_folder_an_array(path, params):
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
  ocp.Checkpointer(handler).save(path, {'target': params})


def _manager(path, params):
  with ocp.CheckpointManager(path.parent) as manager:
    manager.save(int(path.name), args=ocp.args.StandardSave(params))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    'write', [_standard, _variables, _zarr3, _a_folder_an_array, _manager]
)
def test_reads_and_converts_trees_of_orbax(tmp_path, write, dtype):
  params = _params(dtype)
  path = tmp_path / 'run' / '7'
  write(path, params)
  assert checkpoints.detect_format(str(path)) == 'orbax'
  got, metadata = checkpoints.load_checkpoint(str(path))
  assert_same(got, params)
  assert T5Config(**metadata['config']) == CONFIG
  target = tmp_path / 'checkpoint_9'
  conversion.convert_checkpoint(
      str(path), str(target), num_kv_heads=2, format='t5x'
  )
  got, metadata = checkpoints.load_checkpoint(str(target))
  expected = conversion.convert_params(params, num_heads=4, num_kv_heads=2)
  assert_same(got, expected)
  assert metadata['step'] == 9  # As its name says; nothing else does.


def test_the_step_of_a_state_is_kept(tmp_path):
  path = tmp_path / 'x'
  state = {'target': _params(), 'state': {'step': 5, 'param_states': {}}}
  ocp.PyTreeCheckpointer().save(path, state)
  assert checkpoints.load_checkpoint(str(path))[1]['step'] == 5
  with pytest.raises(UserError, match='folder named checkpoint_5'):
    conversion.convert_checkpoint(
        str(path), str(tmp_path / 'checkpoint_9'), num_kv_heads=2, format='t5x'
    )


@pytest.mark.parametrize('piece', [1, 64, 2**20])
def test_values_of_a_database_in_pieces(tmp_path, monkeypatch, piece):
  """Whose lengths no one tells: shorter, longer and as long as a piece."""
  monkeypatch.setattr(zarr, '_PIECE_BYTES', piece)
  params = {'decoder': {'a': np.arange(777, dtype=np.int32)}}
  _standard(tmp_path / 'x', params)
  opened = checkpoints.manifest_lib.Reading(tmp_path / 'x')
  store = zarr.Database(opened, '')
  got = b''.join(map(bytes, store.pieces('decoder.a/0')))
  whole = zarr.tensorstore.KvStore.open(store.spec()).result()
  assert got == whole['decoder.a/0']
  with pytest.raises(ValueError, match='"decoder.a/1" is missing'):
    list(store.pieces('decoder.a/1'))


def test_a_database_cut_short_is_one_line(tmp_path):
  _standard(tmp_path / 'x', _params())
  files = [p for p in (tmp_path / 'x').rglob('*') if p.is_file()]
  path = max(files, key=lambda p: p.stat().st_size)
  path.write_bytes(path.read_bytes()[:-200])
  for format in ('orbax', 'hf'):  # Copied as it is; decoded.
    with pytest.raises(UserError, match='cannot be read') as error:
      conversion.convert_checkpoint(
          str(tmp_path / 'x'),
          str(tmp_path / 'y'),
          num_kv_heads=2,
          format=format,
      )
    assert '\n' not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ['x']


def test_a_tree_that_is_no_t5(tmp_path):
  _standard(tmp_path / 'x', {'layers': {'kernel': np.ones((2, 3))}})
  with pytest.raises(UserError, match='got layers at its top'):
    checkpoints.load_checkpoint(str(tmp_path / 'x'))
