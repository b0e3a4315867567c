# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""t5x's checkpoints: what it wrote is read, what we write it takes up.

The first half reads stored checkpoints of the real t5x and needs no t5x; the
second asks the real one.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

from flax import serialization
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_network
from tests.golden import make_t5x_checkpoints as golden
from tests.golden import unpack

STEP = golden.STEP
FORMATS = {'legacy': 't5x', 'orbax': 't5x-orbax'}
# Adafactor factors its key kernels [144, 256] by v_row [144], [144, 128] by
# v_row [128], and those of one head, [144, 64], not at all.
WIDE = T5Config(
    vocab_size=19,
    emb_dim=144,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=64,
    mlp_dim=5,
    mlp_activations=('gelu', 'linear'),
)


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  """The folder of the golden checkpoints; not to be written to."""
  return unpack(golden.PATH, tmp_path_factory.mktemp('golden'))


@pytest.fixture
def legacy(stored, tmp_path):
  """A copy of a legacy checkpoint, to damage."""
  return unpack(golden.PATH, tmp_path) / 'legacy' / f'checkpoint_{STEP}'


def assert_same(got, expected):
  """The same names, dtypes and bits."""
  got, expected = (
      {
          '/'.join(path): np.asarray(leaf)
          for path, leaf in traverse_util.flatten_dict(tree).items()
      }
      for tree in (got, expected)
  )
  assert got.keys() == expected.keys()
  for name, leaf in expected.items():
    assert got[name].dtype == leaf.dtype, name
    assert got[name].shape == leaf.shape, name
    assert got[name].tobytes() == leaf.tobytes(), name


def flatten(tree):
  return traverse_util.flatten_dict(tree)


def full_slots(params):
  """Slots as Adafactor has them where no kernel is factored, of any value."""
  states = {
      path + (name,): leaf if name == 'v' else np.zeros(1, np.float32)
      for path, leaf in traverse_util.flatten_dict(params).items()
      for name in ('v_row', 'v_col', 'v', 'm')
  }
  return golden.random_param_states(traverse_util.unflatten_dict(states))


@pytest.mark.parametrize(
    'name, format, dtype',
    [
        ('legacy', 't5x', jnp.float32),
        ('bfloat16', 't5x', jnp.bfloat16),
        ('orbax', 't5x-orbax', jnp.float32),
    ],
)
def test_reads_what_t5x_wrote(stored, name, format, dtype):
  path = str(stored / name / f'checkpoint_{STEP}')
  assert checkpoints.detect_format(path) == format
  params, metadata = checkpoints.load_checkpoint(path)
  expected = golden.random_params(golden.CONFIG)
  assert_same(params, jax.tree.map(lambda x: x.astype(dtype), expected))
  assert all(
      type(leaf) is np.ndarray for leaf in jax.tree_util.tree_leaves(params)
  )
  # The dropout is not stored: it is T5Config's default, as the golden's.
  assert metadata == {
      'config': golden.CONFIG.to_dict(),
      'step': STEP,
      'conversion': None,
  }
  states = checkpoints.load_param_states(path)
  if name == 'legacy':
    assert_same(states, full_slots(expected))
  else:
    assert states is None


@pytest.mark.parametrize('format', FORMATS.values())
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('with_optimizer', [True, False])
def test_round_trip(tmp_path, format, dtype, with_optimizer):
  path = str(tmp_path / 'new' / 'checkpoint_3')
  params = jax.tree.map(
      lambda x: x.astype(dtype), golden.random_params(golden.CONFIG)
  )
  states = full_slots(params) if with_optimizer else None
  metadata = {
      'config': golden.CONFIG.to_dict() | {'dropout_rate': 0.25},
      'step': 3,
      'conversion': {'method': 'mean'},
      'note': 'ours',
  }
  checkpoints.save_checkpoint(
      path, params, format=format, metadata=metadata, param_states=states
  )
  assert checkpoints.detect_format(path) == format
  got, got_metadata = checkpoints.load_checkpoint(path)
  assert_same(got, params)
  assert got_metadata == metadata
  got_states = checkpoints.load_param_states(path)
  if with_optimizer:
    assert_same(got_states, states)
  else:
    assert got_states is None
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['checkpoint_3']


def test_large_arrays_lie_in_several_chunks(tmp_path, monkeypatch):
  from gqa_t5x.checkpoints import zarr

  monkeypatch.setattr(zarr, 'CHUNK_BYTES', 100)
  params = golden.random_params(golden.CONFIG)
  path = tmp_path / 'checkpoint_0'
  checkpoints.save_checkpoint(
      str(path),
      params,
      format='t5x',
      metadata={'config': golden.CONFIG.to_dict(), 'step': 0},
  )
  # 19 rows of 7 float32: 3 rows a chunk.
  chunks = sorted((path / 'target.token_embedder.embedding').glob('[0-9]*'))
  assert [c.name for c in chunks] == [f'{i}.0' for i in range(7)]
  assert_same(checkpoints.load_checkpoint(str(path))[0], params)


def test_index_of_the_public_checkpoints(legacy):
  """They name a bucket; the oldest have the path beside the kvstore."""
  index = serialization.msgpack_restore((legacy / 'checkpoint').read_bytes())
  flat = traverse_util.flatten_dict(
      index, is_leaf=lambda _, node: 'kvstore' in node
  )
  specs = [leaf for leaf in flat.values() if isinstance(leaf, dict)]
  assert len(specs) > 9
  for i, spec in enumerate(specs):
    path = spec['kvstore']['path']
    spec['kvstore'] = {'driver': 'gcs', 'bucket': 't5x-dummy-bucket'}
    (spec if i % 2 else spec['kvstore'])['path'] = path
  (legacy / 'checkpoint').write_bytes(serialization.msgpack_serialize(index))
  params, _ = checkpoints.load_checkpoint(str(legacy))
  assert_same(params, golden.random_params(golden.CONFIG))


def test_reading_imports_neither_t5x_nor_tensorflow(stored):
  code = f"""
import sys
for name in ('tensorflow', 't5x', 'seqio', 'gin'):
  sys.modules[name] = None
from gqa_t5x import checkpoints
for name in ('legacy', 'orbax'):
  path = f'{stored}/{{name}}/checkpoint_{STEP}'
  print(checkpoints.load_checkpoint(path)[1]['step'])
"""
  result = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert result.stdout.split() == [str(STEP)] * 2


@pytest.mark.parametrize('name', ['t5_1_1', 't5_1_0'])
@pytest.mark.parametrize('num_kv_heads', [6, 2, 1])
def test_config_from_shapes(name, num_kv_heads):
  config = dataclasses.replace(
      make_network.configs()[name], num_kv_heads=num_kv_heads
  )
  params = hf_reference.random_params(config, seed=0)
  assert t5x_metadata.derive_config(flatten(params)) == config


def test_config_of_another_model_is_refused():
  params = golden.random_params(golden.CONFIG)
  del params['decoder']['relpos_bias']
  with pytest.raises(UserError, match="'decoder/relpos_bias/rel_embedding' is"):
    t5x_metadata.derive_config(flatten(params))


@pytest.mark.parametrize(
    'path, shape, message',
    [
        (
            ('token_embedder', 'embedding'),
            (5,),
            r'token_embedder/embedding has the shape \(5,\), expected two',
        ),
        (
            ('decoder', 'relpos_bias', 'rel_embedding'),
            (7, 32),
            'query/kernel has a width of 12, expected a multiple of 7, the'
            ' heads of decoder/relpos_bias/rel_embedding',
        ),
        (
            ('decoder', 'layers_0', 'self_attention', 'key', 'kernel'),
            (8, 4),
            'key/kernel has a width of 4, expected a multiple of 3, the width',
        ),
    ],
)
def test_shapes_of_no_t5_are_named(path, shape, message):
  flat = flatten(golden.random_params(golden.CONFIG))
  with pytest.raises(UserError, match=message):
    t5x_metadata.derive_config(flat | {path: np.zeros(shape)})


def _truncate(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda f: _truncate(f / 'checkpoint'), 'cannot be read'),
        (lambda f: (f / 'checkpoint').write_bytes(b''), 'cannot be read'),
        (lambda f: (f / 'checkpoint').write_bytes(b'\x01'), 'no `optimizer`'),
        (
            lambda f: (f / 'checkpoint').write_text('model_checkpoint_path: 1'),
            'is a TensorFlow checkpoint',
        ),
        (
            lambda f: (f / 'target.token_embedder.embedding/0.0').unlink(),
            'token_embedder.embedding/0.0" is missing',
        ),
        (
            lambda f: (f / 'target.token_embedder.embedding/.zarray').unlink(),
            'token_embedder.embedding/.zarray" is missing',
        ),
        (
            lambda f: _truncate(f / 'target.token_embedder.embedding/0.0'),
            'token_embedder.embedding/0.0"',
        ),
    ],
)
def test_damage_is_one_line(legacy, damage, message):
  damage(legacy)
  with pytest.raises(UserError, match=message) as error:
    checkpoints.load_checkpoint(str(legacy))
  assert '\n' not in str(error.value)


def test_damaged_orbax_is_one_line(tmp_path):
  path = unpack(golden.PATH, tmp_path) / 'orbax' / f'checkpoint_{STEP}'
  (path / 'state' / 'manifest.ocdbt').write_bytes(b'')
  with pytest.raises(UserError, match='cannot be read') as error:
    checkpoints.load_checkpoint(str(path))
  assert '\n' not in str(error.value)


def test_a_failed_write_leaves_nothing_and_the_next_one_cleans_up(
    tmp_path, monkeypatch
):
  path = tmp_path / 'checkpoint_1'
  (tmp_path / 'checkpoint_1.gqa_t5x-incomplete').mkdir()
  params = golden.random_params(golden.CONFIG)

  def fail(_):
    assert len(list(tmp_path.rglob('*'))) > 2
    raise OSError('At the end.')

  monkeypatch.setattr(checkpoints.folders.Writing, 'finish', fail)
  metadata = {'step': 1, 'config': golden.CONFIG.to_dict()}
  for format in FORMATS.values():
    with pytest.raises(OSError, match='At the end.'):
      checkpoints.save_checkpoint(
          str(path), params, format=format, metadata=metadata
      )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('format', FORMATS.values())
@pytest.mark.parametrize(
    'name, message',
    [
        ('gqa', r'write to .*gqa/checkpoint_7'),
        ('checkpoint_8', r'folder named checkpoint_7, .* to .*/checkpoint_7'),
    ],
)
def test_folders_that_t5x_would_not_find(tmp_path, name, format, message):
  with pytest.raises(UserError, match=message):
    checkpoints.save_checkpoint(
        str(tmp_path / name),
        golden.random_params(golden.CONFIG),
        format=format,
        metadata={'step': 7},
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('format', FORMATS.values())
def test_a_step_that_t5x_cannot_hold(tmp_path, format):
  folder = f'{tmp_path}/checkpoint_'
  checkpoints.check_target(f'{folder}{2**31 - 1}', format, None)
  with pytest.raises(UserError, match=r'a step below 2\*\*31'):
    checkpoints.check_target(f'{folder}{2**31}', format, None)


@pytest.mark.parametrize('format', FORMATS.values())
def test_formats_of_t5x_need_a_step(tmp_path, format):
  with pytest.raises(UserError, match="expected a 'step' in the metadata"):
    checkpoints.save_checkpoint(
        str(tmp_path / 'checkpoint_7'),
        golden.random_params(golden.CONFIG),
        format=format,
        metadata={'config': golden.CONFIG.to_dict(), 'step': None},
    )
  assert not list(tmp_path.iterdir())


def test_our_format_refuses_optimizer_state(tmp_path):
  with pytest.raises(UserError, match='holds no optimizer state of t5x'):
    checkpoints.save_checkpoint(
        str(tmp_path / 'x'), {}, metadata={'step': 7}, param_states={}
    )


def test_convert_command(stored, tmp_path, capsys):
  from gqa_t5x import cli

  source = str(stored / 'legacy' / f'checkpoint_{STEP}')
  target = str(tmp_path / f'checkpoint_{STEP}')
  words = ['convert', '--input', source, '--output', target]
  assert cli.main([*words, '--num_kv_heads', '2']) == 0
  assert 'step 7, optimizer slots: pool' in capsys.readouterr().out
  assert cli.main(['inspect', target, '--json']) == 0
  facts = json.loads(capsys.readouterr().out)
  assert facts['format'] == 't5x'
  assert facts['config']['num_kv_heads'] == 2
  params, states = (
      checkpoints.load_checkpoint(target)[0],
      checkpoints.load_param_states(target),
  )
  assert_same(
      params,
      conversion.convert_params(
          golden.random_params(golden.CONFIG), num_heads=4, num_kv_heads=2
      ),
  )
  kernel = states['decoder']['layers_0']['self_attention']['key']['kernel']
  assert kernel['v'].shape == (7, 6)


def test_slots_follow_heads_that_are_grouped_by_similarity(stored, tmp_path):
  source = str(stored / 'legacy' / f'checkpoint_{STEP}')
  target = str(tmp_path / f'checkpoint_{STEP}')
  conversion.convert_checkpoint(
      source, target, num_kv_heads=2, group_by='similarity'
  )
  params, heads = golden.random_params(golden.CONFIG), {'num_heads': 4}
  orders = conversion.Conversion(
      traverse_util.flatten_dict(params), **heads, num_kv_heads=2,
      group_by='similarity',
  ).orders  # pyformat: disable
  assert any(order.tolist() != [0, 1, 2, 3] for order in orders.values())
  expected = conversion.convert_optimizer_slots(
      checkpoints.load_param_states(source), params, **heads, num_kv_heads=2,
      orders=orders,
  )  # pyformat: disable
  assert_same(checkpoints.load_param_states(target), expected)


@pytest.mark.parametrize(
    'words, message',
    [
        ('--slots zero', "slots='zero' is unknown; choose one of pool, reset"),
        ('--format t5x', f'write to {{target}}/checkpoint_{STEP}'),
        ('--format hdf5', "format='hdf5' is unknown"),
    ],
)
def test_convert_command_refuses(stored, tmp_path, capsys, words, message):
  from gqa_t5x import cli

  source = str(stored / 'orbax' / f'checkpoint_{STEP}')
  target = str(tmp_path / 'gqa')
  status = cli.main(
      ['convert', '--input', source, '--output', target]
      + ['--num_kv_heads', '2', *words.split()]
  )
  assert status == 2
  error = capsys.readouterr().err
  assert message.format(target=target) in error
  assert error.count('\n') == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.t5x
@pytest.mark.parametrize('kind', FORMATS)
def test_t5x_takes_up_its_checkpoint_converted(kind, tmp_path):
  """Stock t5x saves multi-head, we convert, t5x restores into our network."""
  params = golden.random_params(WIDE)
  state = golden.train_state(make_network.t5x_model(WIDE), params)
  source = golden.write(kind, tmp_path / 'mha', state)
  states = jax.tree.map(np.asarray, state.state_dict()['state']['param_states'])
  assert_same(checkpoints.load_param_states(str(source)), states)
  for num_kv_heads in (2, 1):
    target = tmp_path / f'kv{num_kv_heads}' / f'checkpoint_{STEP}'
    conversion.convert_checkpoint(
        str(source), str(target), num_kv_heads=num_kv_heads
    )
    assert checkpoints.detect_format(str(target)) == FORMATS[kind]
    config = dataclasses.replace(WIDE, num_kv_heads=num_kv_heads)
    empty = golden.train_state(Transformer(config))
    restored = golden.checkpointer('orbax', str(target.parent), empty).restore(
        path=str(target)
    )
    heads = {'num_heads': 4, 'num_kv_heads': num_kv_heads}
    assert int(restored.step) == STEP
    assert_same(
        restored.state_dict()['target'],
        conversion.convert_params(params, **heads),
    )
    converted = conversion.convert_optimizer_slots(states, params, **heads)
    assert_same(restored.state_dict()['state']['param_states'], converted)
    # Adafactor goes on from there: its slots have the shapes it expects.
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_equal(ours.shape, theirs.shape),
        converted,
        empty.state_dict()['state']['param_states'],
    )


@pytest.mark.t5x
@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('with_optimizer', [True, False])
def test_t5x_restores_what_we_write(kind, with_optimizer, tmp_path):
  """Bit for bit, by its own manager for the format."""
  config = dataclasses.replace(golden.CONFIG, num_kv_heads=2)
  params = golden.random_params(config)
  state = golden.train_state(Transformer(config), params, with_optimizer)
  expected = jax.tree.map(np.asarray, state.state_dict())
  path = tmp_path / f'checkpoint_{STEP}'
  checkpoints.save_checkpoint(
      str(path),
      params,
      format=FORMATS[kind],
      metadata={'config': config.to_dict(), 'step': STEP},
      param_states=expected['state'].get('param_states'),
  )
  empty = golden.train_state(Transformer(config), None, with_optimizer)
  checkpointer = golden.checkpointer(kind, str(tmp_path), empty)
  assert checkpointer.latest_step() == STEP
  for where in ({'path': str(path)}, {'step': STEP}):
    assert_same(checkpointer.restore(**where).state_dict(), expected)
