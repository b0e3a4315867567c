# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs that made the stored references run, and make the same again.

Each is run in a copy of the tests, and what it writes there has to pass the
tests that compare with it.
"""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
_HUGGING_FACE = ('torch', 'transformers')
# What each program needs, and the tests that read what it writes.
PROGRAMS = {
    'make_decoding': (_HUGGING_FACE, 'test_decoding.py', 'hugging_face'),
    'make_hf_checkpoints': (
        _HUGGING_FACE, 'test_hf_checkpoints.py', 'transformers_wrote'
    ),
    'make_network': (
        (*_HUGGING_FACE, 't5x'), 'test_network.py', 'that_of_t5x or those_of'
    ),
    'make_t5x_checkpoints': (('t5x',), 'test_t5x_checkpoints.py', 't5x_wrote'),
}  # pyformat: disable


def test_all_programs_are_here():
  files = (TESTS / 'golden').glob('make_*.py')
  assert {path.stem for path in files} == set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize('name', PROGRAMS)
def test_a_program_makes_what_is_stored(name, tmp_path):
  needs, file, tests = PROGRAMS[name]
  for module in needs:
    if importlib.util.find_spec(module) is None:
      pytest.skip(f'{module} is not installed')
  shutil.copytree(TESTS, tmp_path / 'tests')
  shutil.copy(TESTS.parent / 'pyproject.toml', tmp_path)
  paths = (str(TESTS.parent), os.environ.get('PYTHONPATH'))
  env = os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))}

  def run(*words):
    done = subprocess.run(
        [sys.executable, '-m', *words],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # pyformat: disable
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]

  written = {p: p.stat().st_mtime_ns for p in tmp_path.glob('tests/golden/*.*')}
  run(f'tests.golden.{name}')
  assert any(p.stat().st_mtime_ns > when for p, when in written.items())
  run('pytest', '-q', f'tests/{file}', '-k', tests)
