# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Converting on disk: what is read, held, left behind, and refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import conversion
from gqa_t5x import pretrained
from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import manifest
from gqa_t5x.errors import UserError
from tests import hf_reference
from tests.golden import make_t5x_checkpoints as golden
from tests.test_t5x_checkpoints import assert_same, full_slots

CONFIG = golden.CONFIG
FORMATS = ('orbax', 't5x', 't5x-orbax', 'hf')


def _save(path, format='orbax', params=None, config=CONFIG):
  checkpoints.save_checkpoint(
      str(path),
      params or hf_reference.random_params(config, 0),
      format=format,
      metadata={'config': config.to_dict(), 'step': 3, 'conversion': None},
  )


def _bytes(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('target_format', FORMATS)
@pytest.mark.parametrize('source_format', FORMATS)
def test_from_and_to_every_format(tmp_path, source_format, target_format):
  source, target = tmp_path / 'checkpoint_3', tmp_path / 'new' / 'checkpoint_3'
  _save(source, source_format)
  conversion.convert_checkpoint(
      str(source), str(target), num_kv_heads=2, format=target_format
  )
  assert checkpoints.detect_format(str(target)) == target_format
  expected = conversion.convert_params(
      hf_reference.random_params(CONFIG, 0), num_heads=4, num_kv_heads=2
  )
  got, metadata = checkpoints.load_checkpoint(str(target))
  assert_same(got, expected)
  assert metadata['step'] == 3
  assert metadata['conversion']['from_num_kv_heads'] == 4


def test_unchanged_arrays_are_the_same_files(tmp_path):
  source, target = tmp_path / 'checkpoint_3', tmp_path / 'orbax'
  _save(source, 't5x')
  conversion.convert_checkpoint(
      str(source), str(target), num_kv_heads=2, format='orbax'
  )
  for name in ('token_embedder.embedding', 'encoder.encoder_norm.scale'):
    old, new = source / f'target.{name}', target / 'params' / name
    assert [p.name for p in sorted(old.iterdir())] == [
        p.name for p in sorted(new.iterdir())
    ]
    for path in old.iterdir():
      assert path.read_bytes() == (new / path.name).read_bytes()
      assert path.stat().st_ino != (new / path.name).stat().st_ino


_KILLED = """
import os, signal, sys
source, target = sys.argv[1:]
from gqa_t5x import conversion
from gqa_t5x.checkpoints import folders
import pathlib

def killing(function, after):
  calls = [0]
  def call(*args, **kwargs):
    calls[0] += 1
    if calls[0] > after:
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
  return call

# The first write, in the middle, the last syncs, before and after renaming.
for name, owner, after in [
    ('mkdir', pathlib.Path, 2), ('pwrite', os, 0), ('pwrite', os, 17),
    ('pwrite', os, 50), ('fsync', os, 0), ('fsync', os, 40),
    ('rename', pathlib.Path, 0), ('_sync', folders, 100),
]:
  child = os.fork()
  if not child:
    if (name, after) == ('_sync', 100):  # The first one after the renaming.
      rename = pathlib.Path.rename
      def renamed(self, to):
        rename(self, to)
        os.kill(os.getpid(), signal.SIGKILL)
      pathlib.Path.rename = renamed
    else:
      setattr(owner, name, killing(getattr(owner, name), after))
    conversion.convert_checkpoint(source, target, num_kv_heads=2)
    os._exit(0)
  status = os.waitpid(child, 0)[1]
  print(name, after, os.WIFSIGNALED(status), os.path.exists(target),
        os.path.exists(target + '.gqa_t5x-incomplete'), flush=True)
"""


def test_killed_at_any_moment_the_target_is_whole_or_absent(tmp_path):
  source, target = tmp_path / 'a', tmp_path / 'b'
  _save(source)
  before = _bytes(source)
  done = subprocess.run(
      [sys.executable, '-c', _KILLED, str(source), str(target)],
      capture_output=True,
      text=True,
      check=True,
  )
  rows = [line.split() for line in done.stdout.splitlines()]
  assert len(rows) == 8, done.stderr
  for name, after, was_killed, is_there, is_beside in rows[:-1]:
    assert was_killed == 'True', (name, after)
    assert (is_there, is_beside) == ('False', 'True'), (name, after)
  assert rows[-1][2:] == ['True', 'True', 'False']
  checkpoints.load_checkpoint(str(target))
  # And the next try cleans up.
  killed = tmp_path / 'c.gqa_t5x-incomplete'
  killed.mkdir()
  (killed / 'rest').write_bytes(b'x')
  again = tmp_path / 'c'
  conversion.convert_checkpoint(str(source), str(again), num_kv_heads=2)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b', 'c']
  assert {p.name: d for p, d in _bytes(target).items()} == {
      p.name: d for p, d in _bytes(again).items()
  }
  assert _bytes(source) == before


_PEAK = """
import re, sys
from gqa_t5x import conversion
from gqa_t5x.benchmark import convert
before = convert._peak_bytes()
source, target, format = sys.argv[1:]
conversion.convert_checkpoint(
    source, target, num_kv_heads=1, format=format, measure=True
)
print(convert._peak_bytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize('formats', [('t5x', 'hf'), ('hf', 't5x')], ids=str)
def test_memory_does_not_grow_with_the_largest_array(tmp_path, formats):
  """An embedding and a logits kernel of 256 MB each."""
  from gqa_t5x.benchmark import convert

  config = checkpoints.T5Config(
      vocab_size=2**17, emb_dim=512, num_heads=2, num_encoder_layers=1,
      num_decoder_layers=1, head_dim=4, mlp_dim=8,
      mlp_activations=('gelu', 'linear'),
  )  # pyformat: disable
  source = tmp_path / 'checkpoint_0'
  convert.write_random(str(source), config, formats[0])
  target = tmp_path / 'new' / 'checkpoint_0'
  done = subprocess.run(
      [sys.executable, '-c', _PEAK, source, target, formats[1]],
      capture_output=True,
      text=True,
      check=True,
  )
  # Blocks of two threads, of arrays that are turned.
  assert int(done.stdout) < 400 * 2**20


@pytest.mark.parametrize(
    'dtype, source_format, target_format',
    [
        *(('float32', x, x) for x in FORMATS),
        *(('bfloat16', x, x) for x in FORMATS),
        ('float32', 'orbax', 'hf'),
        ('float32', 'hf', 't5x'),
    ],
)
def test_values_of_what_stays_are_looked_at_too(
    tmp_path, dtype, source_format, target_format
):
  """Whether arrays are copied as files, turned, or written anew."""
  params = jax.tree.map(
      lambda x: np.array(x, jnp.dtype(dtype)),
      hf_reference.random_params(CONFIG, 0),
  )
  source, target = tmp_path / 'checkpoint_3', tmp_path / 'new' / 'checkpoint_3'
  for kernel, value in (
      (params['encoder']['layers_0']['mlp']['wo']['kernel'], np.nan),
      (params['token_embedder']['embedding'], np.inf),
  ):
    good, kernel[1, 2] = kernel[1, 2], value
    _save(source, source_format, params)
    with pytest.raises(
        UserError,
        match='finite values in .*(wo|embedding|shared).* of .*checkpoint_3',
    ):
      conversion.convert_checkpoint(
          str(source), str(target), num_kv_heads=2, format=target_format
      )
    assert not list(target.parent.iterdir())
    shutil.rmtree(source)
    kernel[1, 2] = good


def test_each_conversion_is_told_of(tmp_path, capsys):
  _save(tmp_path / 'mha')
  once, twice = str(tmp_path / 'once'), str(tmp_path / 'twice')
  first = conversion.convert_checkpoint(
      str(tmp_path / 'mha'), once, num_kv_heads=2, method='random', seed=5
  )
  conversion.convert_checkpoint(once, twice, num_kv_heads=1)
  _, metadata = checkpoints.load_checkpoint(twice)
  assert metadata['conversion']['earlier'] == first['conversion']
  assert cli.main(['inspect', twice]) == 0
  out = capsys.readouterr().out
  assert 'converted          from 2 key/value heads by mean\n' in out
  assert 'and before         from 4 key/value heads by random, seed 5\n' in out


def test_slots_that_a_format_drops_are_not_told_of(tmp_path):
  first, second = tmp_path / 'checkpoint_3', tmp_path / 'orbax'
  params = hf_reference.random_params(CONFIG, 0)
  checkpoints.save_checkpoint(
      str(tmp_path / 'mha' / 'checkpoint_3'),
      params,
      format='t5x',
      metadata={'config': CONFIG.to_dict(), 'step': 3, 'conversion': None},
      param_states=full_slots(params),
  )
  for source, target, format, slots in (
      (tmp_path / 'mha' / 'checkpoint_3', first, 't5x', 'pool'),
      (first, second, 'orbax', None),
  ):
    conversion.convert_checkpoint(
        str(source), str(target), num_kv_heads=2, format=format
    )
    _, metadata = checkpoints.load_checkpoint(str(target))
    assert metadata['conversion']['slots'] == slots


def test_values_that_are_not_finite_are_named(tmp_path):
  params = hf_reference.random_params(CONFIG, 0)
  attention = params['decoder']['layers_0']['encoder_decoder_attention']
  attention['value']['kernel'] = np.array(attention['value']['kernel'])
  for value in (np.nan, -np.inf):
    attention['value']['kernel'][3, 2] = value
    source = tmp_path / f'mha{value}'
    _save(source, params=params)
    before = _bytes(source)
    with pytest.raises(
        UserError,
        match='layers_0/encoder_decoder_attention/value/kernel of .*NaN',
    ):
      conversion.convert_checkpoint(
          str(source), str(tmp_path / 'gqa'), num_kv_heads=2
      )
    assert _bytes(source) == before
  assert sorted(p.name for p in tmp_path.iterdir()) == ['mha-inf', 'mhanan']


@pytest.mark.parametrize(
    'target, num_kv_heads, message',
    [
        ('{source}', 2, 'is the source; choose another folder'),
        ('{source}/x/../', 2, 'is the source; choose another folder'),
        ('{source}/inside', 2, 'lies in the source; choose another folder'),
        ('{source}/..', 2, 'exists already'),
        ('{new}', 4, 'has 4 key/value heads already, and nothing would change'),
    ],
)
def test_targets_and_heads_that_are_refused(
    tmp_path, capsys, target, num_kv_heads, message
):
  source = tmp_path / 'mha'
  _save(source)
  before = _bytes(tmp_path)
  target = target.format(source=source, new=tmp_path / 'new')
  words = ['convert', '--input', str(source), '--output', target]
  assert cli.main([*words, '--num_kv_heads', str(num_kv_heads)]) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert _bytes(tmp_path) == before


@pytest.mark.parametrize('method', conversion.METHODS)
def test_heads_that_stay_are_refused_by_each_method(tmp_path, method):
  _save(tmp_path / 'mha')
  with pytest.raises(UserError, match='mha has 4 key/value heads already'):
    conversion.convert_checkpoint(
        str(tmp_path / 'mha'),
        str(tmp_path / 'x'),
        num_kv_heads=4,
        method=method,
    )


def test_already_converted(tmp_path):
  """Said so, unless the format changes; then it is still what it was."""
  _save(tmp_path / 'mha')
  gqa = str(tmp_path / 'gqa')
  made = conversion.convert_checkpoint(
      str(tmp_path / 'mha'), gqa, num_kv_heads=2, method='first'
  )
  with pytest.raises(UserError, match='gqa has 2 key/value heads already'):
    conversion.convert_checkpoint(gqa, str(tmp_path / 'x'), num_kv_heads=2)
  other = str(tmp_path / 'checkpoint_3')
  metadata = conversion.convert_checkpoint(
      gqa, other, num_kv_heads=2, format='t5x'
  )
  assert metadata == made
  assert_same(*(checkpoints.load_checkpoint(p)[0] for p in (gqa, other)))


def test_space_is_checked_before_writing(tmp_path, monkeypatch):
  _save(tmp_path / 'mha')
  usage = folders.shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
      folders.shutil, 'disk_usage', lambda _: usage._replace(free=100)
  )
  message = r'expected [\d,]+ bytes free in .*, got 100;'
  with pytest.raises(UserError, match=message):
    conversion.convert_checkpoint(
        str(tmp_path / 'mha'), str(tmp_path / 'gqa'), num_kv_heads=2,
        calibrate=lambda: pytest.fail('the model ran over text before'),
    )  # pyformat: disable
  assert [p.name for p in tmp_path.iterdir()] == ['mha']


def test_space_is_checked_for_heads_that_are_repeated(tmp_path, monkeypatch):
  _save(tmp_path / 'mha')

  def asked(format):  # pylint: disable=redefined-builtin
    found = []
    monkeypatch.setattr(
        folders, '_check_free', lambda folder, wanted, _: found.append(wanted)
    )
    conversion.convert_checkpoint(
        str(tmp_path / 'mha'), str(tmp_path / format), num_kv_heads=1,
        format=format,
    )  # pyformat: disable
    # Before anything is read, and of what is about to be written.
    early, late = found
    assert early == late
    return early

  assert asked('hf') > asked('orbax')


def test_what_an_interrupted_command_left_is_room_for_the_next(
    tmp_path, monkeypatch
):
  _save(tmp_path / 'mha')
  left = tmp_path / 'gqa.gqa_t5x-incomplete'
  left.mkdir()
  (left / 'half').write_bytes(bytes(10**6))
  usage = folders.shutil.disk_usage(tmp_path)

  def full_while_it_is_there(_):
    return usage._replace(free=0 if (left / 'half').exists() else 10**6)

  monkeypatch.setattr(folders.shutil, 'disk_usage', full_while_it_is_there)
  conversion.convert_checkpoint(
      str(tmp_path / 'mha'), str(tmp_path / 'gqa'), num_kv_heads=2
  )
  assert not left.exists()


def test_a_full_disk(tmp_path, monkeypatch, capsys):
  """That fills up while it is written to."""
  _save(tmp_path / 'mha')
  pwrite, calls = os.pwrite, [0]

  def filling(*args):
    calls[0] += 1
    if calls[0] > 30:
      raise OSError(28, 'No space left on device')
    return pwrite(*args)

  monkeypatch.setattr(os, 'pwrite', filling)
  words = ['convert', '--input', str(tmp_path / 'mha'), '--num_kv_heads', '2']
  assert cli.main([*words, '--output', str(tmp_path / 'gqa')]) == 2
  assert 'no space left on device while writing' in capsys.readouterr().err
  assert [p.name for p in tmp_path.iterdir()] == ['mha']


def test_wrong_shapes_are_named(tmp_path, monkeypatch):
  params = hf_reference.random_params(CONFIG, 0)
  params['decoder']['layers_0']['mlp']['wo']['kernel'] = np.zeros((5, 6))
  with monkeypatch.context() as patch:  # By another program.
    patch.setattr(checkpoints.names, 'check_arrays', lambda *_: None)
    _save(tmp_path / 'mha', params=params)
  with pytest.raises(
      UserError,
      match=r'decoder/layers_0/mlp/wo/kernel of shape \(5, 7\).*got \(5, 6\)',
  ):
    conversion.convert_checkpoint(
        str(tmp_path / 'mha'), str(tmp_path / 'gqa'), num_kv_heads=2
    )


def test_inspect_reads_no_values(tmp_path):
  _save(tmp_path / 'mha')
  for path in tmp_path.rglob('0.0'):
    path.write_bytes(b'\0' * path.stat().st_size)
  assert cli.main(['inspect', str(tmp_path / 'mha')]) == 0
  assert cli.main(['inspect', str(tmp_path / 'mha'), '--verify']) == 2


def test_nothing_is_measured_for_a_conversion_that_is_refused(tmp_path):
  """Calibration runs the whole model, so it comes last."""

  def measure():
    raise AssertionError('measured')

  for options, message in (
      ({'num_kv_heads': 3}, 'cannot be split over num_kv_heads=3'),
      ({'num_kv_heads': 2, 'method': 'magic'}, "method='magic' is unknown"),
  ):
    with pytest.raises(UserError, match=message):
      conversion.convert_checkpoint(
          pretrained.CHECKPOINT_PATH,
          str(tmp_path / 'out'),
          calibrate=measure,
          **{'method': 'svd', **options},
      )
  _save(tmp_path / 'source')
  options = dict(
      num_kv_heads=CONFIG.num_kv_heads, method='svd', calibrate=measure
  )
  with pytest.raises(UserError, match='nothing would change'):
    conversion.convert_checkpoint(
        str(tmp_path / 'source'), str(tmp_path / 'out'), **options
    )
  conversion.convert_checkpoint(
      str(tmp_path / 'source'), str(tmp_path / 'hf'), format='hf', **options
  )
  config = dataclasses.replace(CONFIG, mlp_activations=('silu', 'linear'))
  _save(tmp_path / 'silu', config=config)
  with pytest.raises(UserError, match="mlp_activations of T5 for format='hf'"):
    conversion.convert_checkpoint(
        str(tmp_path / 'silu'), str(tmp_path / 'out'), format='hf',
        **options | {'num_kv_heads': 1},
    )  # pyformat: disable
  for name in ('source', 'hf', 'silu'):
    shutil.rmtree(tmp_path / name)
  with pytest.raises(AssertionError, match='measured'):
    conversion.convert_checkpoint(
        pretrained.CHECKPOINT_PATH,
        str(tmp_path / 'out'),
        num_kv_heads=2,
        method='svd',
        calibrate=measure,
    )
  assert not list(tmp_path.iterdir())


def test_two_writers_of_one_target(tmp_path):
  """The second is refused, and the first ends as if it had not come."""
  target = tmp_path / 'c'
  with folders.new_folder(target, {}) as first:
    first.write('one', [b'first'])
    with pytest.raises(UserError, match='another program is writing'):
      with folders.new_folder(target, {}) as second:
        second.write('one', [b'second'])
    first.write('two', [b'2'])
  assert (target / 'one').read_bytes() == b'first'
  manifest.Reading(target).check_all()
  assert [p.name for p in tmp_path.iterdir()] == ['c']


def test_what_a_killed_writer_left_is_not_in_the_next_ones(tmp_path):
  left = tmp_path / 'c.gqa_t5x-incomplete'
  (left / 'folder').mkdir(parents=True)
  for name in ('old', 'folder/old'):
    (left / name).touch()
  with folders.new_folder(tmp_path / 'c', {}) as writing:
    writing.write('new', [b'new'])
  found = {p.name for p in (tmp_path / 'c').rglob('*')}
  assert found == {'new', manifest.NAME}


def test_a_source_that_a_killed_writer_left_is_not_removed(tmp_path):
  source = tmp_path / 'c.gqa_t5x-incomplete'
  _save(source)
  before = _bytes(source)
  with pytest.raises(UserError, match='what an interrupted command has left'):
    conversion.convert_checkpoint(
        str(source), str(tmp_path / 'c'), num_kv_heads=1
    )
  assert _bytes(source) == before


def test_a_target_that_another_program_made_meanwhile(tmp_path):
  target = tmp_path / 'c'
  with pytest.raises(UserError, match='exists already'):
    with folders.new_folder(target, {}) as writing:
      writing.write('one', [b'1'])
      (target / 'theirs').mkdir(parents=True)
  assert [p.name for p in tmp_path.rglob('*')] == ['c', 'theirs']


def test_parameters_with_an_empty_node(tmp_path, capsys):
  params = hf_reference.random_params(CONFIG, 0) | {'x': {}}
  _save(tmp_path / 'a', params=params)
  assert cli.main(['inspect', str(tmp_path / 'a')]) == 0
  assert 'parameters' in capsys.readouterr().out
  conversion.convert_checkpoint(
      str(tmp_path / 'a'), str(tmp_path / 'b'), num_kv_heads=1
  )
  params, _ = checkpoints.load_checkpoint(str(tmp_path / 'b'))
  assert params['x'] == {}


def test_a_target_with_a_slash_behind_it_tells_its_step(tmp_path):
  checkpoints.save_checkpoint(
      str(tmp_path / 'source'),
      hf_reference.random_params(CONFIG, 0),
      metadata={'config': CONFIG.to_dict()},
  )
  target = tmp_path / 'checkpoint_7'
  conversion.convert_checkpoint(
      str(tmp_path / 'source'), f'{target}/', num_kv_heads=4, format='t5x'
  )
  _, metadata = checkpoints.load_checkpoint(str(target))
  assert metadata['step'] == 7 and metadata['conversion'] is None


@pytest.mark.parametrize(
    'config', [{}, CONFIG.to_dict() | {'new_field': 1}, 3], ids=str
)
def test_metadata_of_another_kind_is_one_line(tmp_path, config):
  _save(tmp_path / 'c')
  (tmp_path / 'c' / manifest.NAME).unlink()
  text = json.dumps({'config': config, 'step': 3})
  (tmp_path / 'c' / 'metadata' / 'metadata').write_text(text)
  with pytest.raises(UserError, match='cannot be read'):
    checkpoints.open_checkpoint(str(tmp_path / 'c'))


def test_metadata_without_a_configuration_leaves_it_to_the_shapes(tmp_path):
  _save(tmp_path / 'c')
  (tmp_path / 'c' / manifest.NAME).unlink()
  (tmp_path / 'c' / 'metadata' / 'metadata').write_text('{"epoch": 1}')
  opened = checkpoints.open_checkpoint(str(tmp_path / 'c'))
  assert opened.metadata['config']['num_heads'] == CONFIG.num_heads
  assert opened.metadata['step'] is None
