# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""One wrong byte anywhere in a checkpoint that we wrote is found and named."""

import dataclasses
import hashlib
import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import conversion
from gqa_t5x import pretrained
from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import manifest
from gqa_t5x.engine import checkpointing
from gqa_t5x.errors import UserError
from tests import hf_reference
from tests.golden import make_t5x_checkpoints as golden
from tests.test_t5x_checkpoints import assert_same, full_slots

CONFIG = dataclasses.replace(golden.CONFIG, num_kv_heads=2)
FORMATS = ('orbax', 't5x', 't5x-orbax', 'hf')


def _save(path, format):
  params = hf_reference.random_params(CONFIG, 0)
  checkpoints.save_checkpoint(
      str(path),
      params,
      format=format,
      metadata={'config': CONFIG.to_dict(), 'step': 3, 'conversion': None},
      param_states=full_slots(params) if 't5x' in format else None,
  )


@pytest.fixture(scope='module', params=FORMATS)
def checkpoint(request, tmp_path_factory):
  """A folder; whoever changes it puts it back."""
  path = tmp_path_factory.mktemp(request.param) / 'checkpoint_3'
  _save(path, request.param)
  return path


def _files(folder):
  return sorted(p for p in folder.rglob('*') if p.is_file())


def _chunk(folder):
  """A file of values that no conversion changes."""
  name = 'encoder.layers_0.mlp.wo.kernel'
  chunks = [p for p in _files(folder) if p.parent.name.endswith(name)]
  return chunks[-1] if chunks else folder / 'model.safetensors'


def _flip(path: pathlib.Path, at: int):
  data = bytearray(path.read_bytes())
  data[at] ^= 1 << (at % 8)
  path.write_bytes(data)


def test_entries_are_the_bytes(checkpoint):
  """By hand: they cover every file, without gaps, with the hashes they have."""
  found = json.loads((checkpoint / manifest.NAME).read_text())
  digest = found.pop('sha256')
  text = json.dumps(found, sort_keys=True).encode()
  assert digest == hashlib.sha256(text).hexdigest()
  covered = {}
  for entry in found['entries']:
    assert entry['begin'] == covered.get(entry['file'], 0)
    covered[entry['file']] = entry['end']
    data = (checkpoint / entry['file']).read_bytes()
    part = data[entry['begin'] : entry['end']]
    assert entry['sha256'] == hashlib.sha256(part).hexdigest()
  assert covered == {
      p.relative_to(checkpoint).as_posix(): p.stat().st_size
      for p in _files(checkpoint)
      if p.name != manifest.NAME
  }


def test_a_flipped_byte_is_found(checkpoint):
  entries = json.loads((checkpoint / manifest.NAME).read_text())['entries']
  rng = random.Random(0)
  files = _files(checkpoint)
  for path in rng.sample(files, min(len(files), 25)):
    good = path.read_bytes()
    at = rng.randrange(len(good))
    _flip(path, at)
    with pytest.raises(UserError, match='is damaged') as error:
      checkpoints.load_checkpoint(str(checkpoint))
    file = path.relative_to(checkpoint).as_posix()
    (name,) = [
        e['array'] or file
        for e in entries
        if e['file'] == file and e['begin'] <= at < e['end']
    ] or [file]
    assert f'{name} is damaged' in str(error.value)
    assert '\n' not in str(error.value)
    path.write_bytes(good)
  checkpoints.load_checkpoint(str(checkpoint))


def test_a_flipped_byte_of_the_manifest_is_found(checkpoint):
  path = checkpoint / manifest.NAME
  good = path.read_bytes()
  for at in range(0, len(good), len(good) // 61):
    _flip(path, at)
    with pytest.raises(UserError, match=f'{manifest.NAME} is damaged'):
      manifest.Reading(checkpoint)
    path.write_bytes(good)


def test_files_too_few_too_short_too_many(checkpoint):
  rng = random.Random(1)
  files = [p for p in _files(checkpoint) if p.name != manifest.NAME]
  for path in rng.sample(files, min(len(files), 12)):
    good = path.read_bytes()
    for bad in (None, good[:-1], good + b'\0'):
      path.unlink() if bad is None else path.write_bytes(bad)
      with pytest.raises(UserError) as error:
        checkpoints.load_checkpoint(str(checkpoint))
      assert '\n' not in str(error.value)
      path.write_bytes(good)
  extra = checkpoint / 'x.safetensors'
  extra.write_bytes(b'')
  with pytest.raises(UserError, match='x.safetensors that its manifest does'):
    checkpoints.load_checkpoint(str(checkpoint))
  extra.unlink()
  # What docs/your_checkpoint.md and the Hugging Face Hub add.
  for name in ('spiece.model', 'README.md'):
    (checkpoint / name).write_bytes(b'')
    checkpoints.load_checkpoint(str(checkpoint))
    (checkpoint / name).unlink()
  for name in ('.cache/huggingface/.gitignore', '.git/HEAD'):
    (checkpoint / name).parent.mkdir(parents=True)
    (checkpoint / name).write_bytes(b'')
    checkpoints.load_checkpoint(str(checkpoint))
    shutil.rmtree(checkpoint / name.split('/')[0])
  path = checkpoint / manifest.NAME
  path.rename(checkpoint.parent / 'moved')
  with pytest.raises(UserError, match='expected the file gqa_t5x_manifest'):
    checkpoints.load_checkpoint(str(checkpoint))
  (checkpoint.parent / 'moved').rename(path)


def test_what_other_programs_hide_in_a_folder_is_passed_over(checkpoint):
  folder = max(_files(checkpoint), key=lambda p: len(p.parts)).parent
  hidden = folder / '.ipynb_checkpoints'
  hidden.mkdir()
  try:
    for path in (hidden / 'x', folder / '.DS_Store'):
      path.write_bytes(b'x')
    checkpoints.load_checkpoint(checkpoint)  # A pathlib.Path, too.
  finally:
    shutil.rmtree(hidden)
    (folder / '.DS_Store').unlink(missing_ok=True)
  with pytest.raises(UserError, match='does not exist; check the path'):
    checkpoints.load_checkpoint(checkpoint / 'not_there')


def test_converting_checks_what_it_copies(checkpoint, tmp_path):
  """Without --verify too, and nothing is left."""
  path = _chunk(checkpoint)
  good = path.read_bytes()
  _flip(path, len(good) - 5)
  with pytest.raises(UserError, match='(encoder|lm_head).* is damaged'):
    conversion.convert_checkpoint(
        str(checkpoint), str(tmp_path / 'x' / 'checkpoint_3'), num_kv_heads=1
    )
  assert not list((tmp_path / 'x').iterdir())
  path.write_bytes(good)


def _save_step(run):
  """Writes a step as the embedded engine does, in Orbax's database.

  Of arrays as large as this embedding it has no checksums of its own.
  """
  config = dataclasses.replace(CONFIG, vocab_size=2**14)
  params = hf_reference.random_params(config, 0)
  saved = checkpointing.Checkpoints(str(run), keep=None)
  metadata = {'config': config.to_dict(), 'step': 3, 'conversion': None}
  saved.save(3, params, {'slot': np.zeros(2)}, metadata, None)
  saved.close()
  return run / 'checkpoints' / '3', params


def test_converting_a_step_of_a_run_checks_its_database(tmp_path):
  step, _ = _save_step(tmp_path / 'run')
  largest = max(_files(step / 'params'), key=lambda p: p.stat().st_size)
  good = largest.read_bytes()
  for at in random.Random(0).sample(range(len(good)), 5):
    _flip(largest, at)
    with pytest.raises(UserError, match='is damaged'):
      conversion.convert_checkpoint(
          str(step), str(tmp_path / 'out'), num_kv_heads=1, measure=True
      )
    largest.write_bytes(good)
  conversion.convert_checkpoint(
      str(step), str(tmp_path / 'out'), num_kv_heads=1
  )


def test_a_database_in_a_folder_that_a_url_would_misread(tmp_path):
  other, _ = _save_step(tmp_path / 'a b')
  step, params = _save_step(tmp_path / 'a%20b#1?')
  shutil.copytree(other, tmp_path / 'a b#1?' / 'checkpoints' / '3')
  assert_same(checkpoints.load_checkpoint(str(step))[0], params)


def test_inspect_verifies_where_asked(checkpoint, capsys):
  assert cli.main(['inspect', str(checkpoint), '--verify', '--json']) == 0
  facts = json.loads(capsys.readouterr().out)
  assert facts['is_verified'] is True and facts['manifest'] is not None
  path = _chunk(checkpoint)
  good = path.read_bytes()
  _flip(path, len(good) - 1)
  assert cli.main(['inspect', str(checkpoint)]) == 0  # It reads no values.
  assert 'not read (--verify)' in capsys.readouterr().out
  assert cli.main(['inspect', str(checkpoint), '--verify']) == 2
  assert 'is damaged' in capsys.readouterr().err
  path.write_bytes(good)


def test_verify_reads_the_target_back(tmp_path, monkeypatch):
  """A disk that loses a byte after it was written."""
  _save(tmp_path / 'a', 'orbax')
  finish = folders.Writing.finish

  def finish_and_lose(self):
    finish(self)
    _flip(self.folder / 'params/token_embedder.embedding/0.0', 3)

  monkeypatch.setattr(folders.Writing, 'finish', finish_and_lose)
  words = ['convert', '--input', str(tmp_path / 'a'), '--num_kv_heads', '1']
  words += ['--output', str(tmp_path / 'b'), '--verify']
  assert cli.main(words) == 2
  assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_manifest_of_a_conversion_says_where_it_comes_from(tmp_path):
  _save(tmp_path / 'a', 'orbax')
  for name in ('b', 'c'):
    conversion.convert_checkpoint(
        str(tmp_path / 'a'),
        str(tmp_path / name),
        num_kv_heads=1,
        method='random',
        seed=5,
    )
  about = manifest.Reading(tmp_path / 'b').about
  assert about['source'] == {
      'path': str(tmp_path / 'a'),
      'sha256': manifest.Reading(tmp_path / 'a').digest,
  }
  assert about['conversion']['method'] == 'random'
  assert about['conversion']['seed'] == 5
  assert (about['num_kv_heads'], about['numpy']) == (1, np.__version__)
  # The same conversion gives the same bytes.
  for path in _files(tmp_path / 'b'):
    other = tmp_path / 'c' / path.relative_to(tmp_path / 'b')
    assert path.read_bytes() == other.read_bytes()


def test_hash_of_a_source_without_a_manifest(tmp_path):
  """By hand: what sha256sum prints for its files, hashed again."""
  _save(tmp_path / 'a', 'hf')
  (tmp_path / 'a' / manifest.NAME).unlink()
  (tmp_path / 'a' / 'gqa_t5x.json').unlink()
  conversion.convert_checkpoint(
      str(tmp_path / 'a'), str(tmp_path / 'b'), num_kv_heads=1
  )
  lines = [
      f'{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n'
      for p in _files(tmp_path / 'a')
  ]
  expected = hashlib.sha256(''.join(lines).encode()).hexdigest()
  about = manifest.Reading(tmp_path / 'b').about
  assert about['source']['sha256'] == expected
  shutil.rmtree(tmp_path / 'a')


def test_the_shipped_checkpoint_is_whole():
  source = checkpoints.open_checkpoint(pretrained.CHECKPOINT_PATH).source
  assert source.digest
  source.check_all()
