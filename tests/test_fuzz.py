# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of what others wrote, given damaged and hostile files.

They have to read them or say in a UserError why not; they never run what is in
a file, nor take memory for what a file merely claims.
"""

import contextlib
import json
import pathlib
import pickle
import resource
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x.checkpoints import manifest
from gqa_t5x.errors import UserError
from gqa_t5x.tasks import files

hypothesis = pytest.importorskip('hypothesis')
st = hypothesis.strategies

CONFIG = network.T5Config(
    vocab_size=40, emb_dim=6, num_heads=2, num_encoder_layers=1,
    num_decoder_layers=1, head_dim=4, mlp_dim=8,
    mlp_activations=('gelu', 'linear'), dropout_rate=0.0,
)  # pyformat: disable
FORMATS = {
    'orbax': 'run', 't5x': 'checkpoint_3', 't5x-orbax': 'checkpoint_3',
    'hf': 'hf',
}  # pyformat: disable
SETTINGS = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # CI has to say the same of the same code.
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope='module', name='written')
def fixture_written(tmp_path_factory):
  """Returns {format: folder} of checkpoints that no manifest protects."""
  tokens = jnp.ones((1, 1), jnp.int32)
  params = network.Transformer(CONFIG).init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
  )['params']
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoints, '_HAS_MANIFEST', 'of_another_program')
    for name, folder in FORMATS.items():
      path = tmp_path_factory.mktemp(name) / folder
      checkpoints.save_checkpoint(
          str(path),
          params,
          format=name,
          metadata={'config': CONFIG.to_dict(), 'step': 3},
      )
      (path / manifest.NAME).unlink()
      found[name] = path
  for path in found.values():
    checkpoints.load_checkpoint(str(path))
  return found


def _changes():
  """A change of a file: where, as a share of it, and what is put there."""
  return st.tuples(
      st.floats(0, 1),
      st.sampled_from(['flip', 'cut', 'insert', 'replace', 'empty']),
      st.binary(min_size=1, max_size=9),
      st.integers(0, 7),
  )


def _changed(content: bytes, change) -> bytes:
  share, kind, new, bit = change
  at = min(int(share * len(content)), max(len(content) - 1, 0))
  if kind == 'flip' and content:
    flipped = bytes([content[at] ^ (1 << bit)])
    return content[:at] + flipped + content[at + 1 :]
  if kind == 'cut':
    return content[:at]
  if kind == 'insert':
    return content[:at] + new + content[at:]
  if kind == 'replace':
    return content[:at] + new + content[at + len(new) :]
  return b''


@pytest.mark.parametrize('name', FORMATS)
def test_damaged_checkpoints_are_read_or_refused(written, name, tmp_path):
  source = written[name]
  all_files = sorted(p for p in source.rglob('*') if p.is_file())

  @SETTINGS
  @hypothesis.given(st.integers(0, 10**6), st.lists(_changes(), min_size=1))
  def check(number, changes):
    folder = tmp_path / source.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    path = all_files[number % len(all_files)].relative_to(source)
    content = (folder / path).read_bytes()
    for change in changes:
      content = _changed(content, change)
    (folder / path).write_bytes(content)
    try:
      params, metadata = checkpoints.load_checkpoint(str(folder))
    except UserError as error:
      assert '\n' not in str(error).strip()
    else:
      assert all(hasattr(x, 'shape') for x in jax.tree.leaves(params))
      assert 'config' in metadata

  check()


class _Evil:
  """Unpickled, it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path(self.path),)


@pytest.mark.parametrize('name', FORMATS)
def test_a_pickle_in_any_place_is_not_executed(written, name, tmp_path):
  made = tmp_path / 'executed'
  evil = pickle.dumps(_Evil(str(made)))
  source = written[name]
  for path in (p for p in source.rglob('*') if p.is_file()):
    folder = tmp_path / source.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    (folder / path.relative_to(source)).write_bytes(evil)
    # Some files nobody has to read.
    with contextlib.suppress(UserError):
      checkpoints.load_checkpoint(str(folder))
    assert not made.exists()


def _huge_safetensors(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(struct.pack('<Q', 2**60) + b'{}')


def _huge_tensor(folder):
  header = json.dumps({
      'shared.weight': {
          'dtype': 'F32', 'shape': [2**40, 2**20], 'data_offsets': [0, 2**62],
      }
  }).encode()  # pyformat: disable
  path = folder / 'model.safetensors'
  path.write_bytes(struct.pack('<Q', len(header)) + header)


def _huge_msgpack(folder):
  # An ext 32 that claims four gigabytes.
  (folder / 'checkpoint').write_bytes(b'\xc9\xff\xff\xff\xff\x01')


def _deep_msgpack(folder):
  (folder / 'checkpoint').write_bytes(b'\x81\xa1a' * 10**5 + b'\xc0')


def _huge_array(folder):
  (path, *_) = sorted(folder.rglob('.zarray'))
  meta = json.loads(path.read_text())
  meta['shape'] = [2**40] * len(meta['shape'])
  meta['chunks'] = meta['shape']
  path.write_text(json.dumps(meta))


@pytest.mark.parametrize('name, craft', [
    ('hf', _huge_safetensors),
    ('hf', _huge_tensor),
    ('t5x', _huge_msgpack),
    ('t5x', _deep_msgpack),
    ('t5x', _huge_array),
])
def test_claims_of_size_are_checked_before_memory_is_taken(
    written, name, craft, tmp_path
):
  folder = tmp_path / FORMATS[name]
  shutil.copytree(written[name], folder)
  craft(folder)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(UserError):
    checkpoints.load_checkpoint(str(folder))
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 200 * 1024  # KiB


@SETTINGS
@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.one_of(
                st.dictionaries(
                    st.sampled_from(['document', 'summary', 'x']),
                    st.one_of(st.text(), st.none(), st.integers(), st.lists(
                        st.text(), max_size=2)),
                ),
                st.text(),
            ),
            max_size=4,
        ).map(lambda rows: '\n'.join(map(json.dumps, rows)).encode()),
        st.text(max_size=80).map(lambda t: t.encode('utf-8', 'replace')),
    ),
    st.sampled_from(['.jsonl', '.tsv']),
)
def test_a_users_file_is_read_or_refused(tmp_path_factory, content, suffix):
  path = tmp_path_factory.mktemp('rows') / f'file{suffix}'
  path.write_bytes(content)
  names = {'document': 'document', 'summary': 'summary'}
  try:
    rows = files.read_rows(str(path), names)
  except UserError as error:
    assert '\n' not in str(error).strip()
  else:
    for row in rows:
      assert set(row) == set(names)
      assert all(isinstance(x, str) for x in row.values())


def test_token_arrays_are_not_unpickled(tmp_path):
  from gqa_t5x.engine import data
  from tests.engine import conftest

  folder = pathlib.Path(conftest.write_arrays(tmp_path / 'toy'))
  made = tmp_path / 'executed'
  evil = np.array([_Evil(str(made))], dtype=object)
  np.save(folder / 'inputs.npy', evil, allow_pickle=True)
  with pytest.raises((UserError, ValueError)):
    next(data.train_batches({str(folder): 1.0}, data.BatchConfig(8, 11, 7)))
  assert not made.exists()
