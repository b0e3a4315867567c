# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a result says of where it was made."""

import json
import subprocess

import pytest

import gqa_t5x
from gqa_t5x import provenance


def test_environment():
  facts = provenance.environment()
  assert facts['device']['backend'] == 'cpu'
  assert facts['device']['cores'] >= 1 and facts['device']['cpu']
  assert facts['versions']['gqa_t5x'] == gqa_t5x.__version__
  assert facts['versions']['jax'] and facts['versions']['python']
  json.dumps(facts)


@pytest.mark.parametrize('quota, expected', [
    ('max 100000\n', 6), ('150000 100000\n', 2), ('50000 100000\n', 1),
    ('900000 100000\n', 6), (None, 6),
])
def test_cores_of_a_container(quota, expected, tmp_path, monkeypatch):
  file = tmp_path / 'cpu.max'
  if quota:
    file.write_text(quota)
  monkeypatch.setattr(provenance, '_CPU_QUOTA', file)
  monkeypatch.setattr(
      provenance.os, 'sched_getaffinity', lambda _: set(range(6)), raising=False
  )
  assert provenance.cores() == expected


def test_commit_outside_a_checkout_is_the_version(tmp_path, monkeypatch):
  package = tmp_path / 'site' / 'gqa_t5x'
  package.mkdir(parents=True)
  monkeypatch.setattr(gqa_t5x, '__file__', str(package / '__init__.py'))
  assert provenance.commit() == f'gqa_t5x {gqa_t5x.__version__}'


@pytest.mark.parametrize('name, is_run', [
    ('gqa_t5x/new.py', True), ('notes.txt', False)
])  # pyformat: disable
def test_a_new_file_that_is_run_is_a_change(
    tmp_path, monkeypatch, name, is_run
):
  for path in ('gqa_t5x/__init__.py', 'setup.py', 'tasks/a.py',
               'gin_configs/a.gin'):  # pyformat: disable
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
  git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a']
  for words in (['init', '-q'], ['add', '-A'], ['commit', '-q', '-m', 'all']):
    subprocess.run(git + words, check=True)
  path = tmp_path / 'gqa_t5x' / '__init__.py'
  monkeypatch.setattr(gqa_t5x, '__file__', str(path))
  assert len(provenance.commit()) == 40
  (tmp_path / name).touch()
  assert provenance.commit().endswith('+changes') == is_run


def test_commit_of_a_package_from_a_repository(tmp_path, monkeypatch):
  def git(*words):
    name = ['-c', 'user.name=a', '-c', 'user.email=a']
    return subprocess.run(
        ['git', '-C', str(tmp_path), *name, *words],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # pyformat: disable

  monkeypatch.syspath_prepend(tmp_path)
  for name in ('of_the_checkout', 'of_an_environment'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').touch()
  git('init', '-q')
  git('add', 'of_the_checkout')
  git('commit', '-q', '-m', 'all')
  assert provenance.commit_of('of_the_checkout') == git('rev-parse', 'HEAD')
  assert provenance.commit_of('of_an_environment') is None
  assert provenance.commit_of('of_nobody') is None

  installed = tmp_path / 'of_pip-1.dist-info'
  installed.mkdir()
  (installed / 'METADATA').write_text('Name: of_pip\nVersion: 1\n')
  origin = {'url': 'https://a/b', 'vcs_info': {'commit_id': 'c0ffee'}}
  (installed / 'direct_url.json').write_text(json.dumps(origin))
  assert provenance.commit_of('of_pip') == 'c0ffee'
