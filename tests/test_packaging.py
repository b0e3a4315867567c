# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The core imports alone, the wheel is whole, the versions are all pinned."""

import ast
import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE')
FOLDERS = {
    'gqa_t5x': 'gqa_t5x',
    'tasks': 'gqa_t5x/tasks',
    'gin_configs': 'gqa_t5x/gin_configs',
}

pytestmark = pytest.mark.skipif(
    not (ROOT / 'setup.py').exists(), reason='not a source checkout'
)


def _run_blocked(blocked, code):
  """Runs code in a new Python in which some modules cannot be imported."""
  block = f'import sys; sys.modules.update(dict.fromkeys({blocked!r}))'
  return subprocess.run(
      [sys.executable, '-W', 'error', '-c', f'{block}\n{code}'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
  )


@pytest.mark.parametrize('module', [
    'gqa_t5x',
    'gqa_t5x.network',
    'gqa_t5x.conversion',
    'gqa_t5x.decoding',
    'gqa_t5x.checkpoints',
    'gqa_t5x.benchmark.decode',
    'gqa_t5x.inspection',
    'gqa_t5x.cli',
])
def test_core_imports_with_everything_else_blocked(module):
  blocked = [
      'tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'seqio', 'gin',
      't5x', 'clu', 'babel', 'sentencepiece', 'sacrebleu', 'rouge_score',
      'tqdm', 'safetensors', 'torch', 'transformers', 'optax', 'orbax',
      'threadpoolctl',
  ]
  names = 'T5Config, Transformer, convert_params, generate, load_checkpoint'
  code = f'import {module}; from gqa_t5x import {names}, save_checkpoint'
  done = _run_blocked(blocked, code)
  assert done.returncode == 0, done.stderr
  if module == 'gqa_t5x.cli':
    words = 'plan --model xxl --num_kv_heads 8 --device h100'.split()
    code = f'{code}; assert gqa_t5x.cli.main({words}) == 0'
    done = _run_blocked(blocked, code)
    assert done.returncode == 0, done.stderr


def test_reports_are_written_without_jax():
  code = 'from gqa_t5x.experiments import report, results'
  done = _run_blocked(['jax', 'flax', 'tensorstore', 'tensorflow'], code)
  assert done.returncode == 0, done.stderr


def test_training_imports_without_tensorflow_and_seqio():
  blocked = ['tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'seqio']
  for code in (
      'from gqa_t5x.engine import data, launch, train',
      'from gqa_t5x.tasks import corpus, embedded, local_data, metrics',
      'from gqa_t5x.experiments import pipeline, runner, scoring',
  ):
    done = _run_blocked(blocked, code)
    assert done.returncode == 0, done.stderr


def test_command_line_starts_without_jax():
  code = (
      'import contextlib\n'
      'from gqa_t5x import cli\n'
      'assert cli.main(["--help"]) == 0\n'
      'assert cli.main(["convert", "--help"]) == 0'
  )
  done = _run_blocked(['jax', 'numpy', 'flax'], code)
  assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Builds from a copy: a build folder beside the sources would be reused."""
  source = tmp_path_factory.mktemp('source')
  for name in SOURCES:
    shutil.copy(ROOT / name, source)
  for name in FOLDERS:
    shutil.copytree(
        ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__')
    )
  subprocess.run(
      [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps',
       '--no-build-isolation', '--wheel-dir', 'dist', '.'],
      cwd=source,
      check=True,
      capture_output=True,
  )
  (built,) = (source / 'dist').glob('*.whl')
  with zipfile.ZipFile(built) as file:
    yield file


def test_wheel_has_every_file_of_the_checkout_and_no_other(wheel):
  expected = set()
  for folder, target in FOLDERS.items():
    for path in (ROOT / folder).rglob('*'):
      if path.is_file() and '__pycache__' not in path.parts:
        expected.add(f'{target}/{path.relative_to(ROOT / folder).as_posix()}')
  found = {name for name in wheel.namelist() if '.dist-info/' not in name}
  assert found == expected


def test_wheel_says_what_it_needs(wheel):
  (name,) = (n for n in wheel.namelist() if n.endswith('.dist-info/METADATA'))
  metadata = wheel.read(name).decode()
  assert 'Requires-Python: >=3.11' in metadata
  needs = re.findall(r'^Requires-Dist: ([\w-]+)[^;\n]*$', metadata, re.M)
  assert set(needs) == {'jax', 'flax', 'numpy', 'scipy', 'threadpoolctl'}
  extras = re.findall(r'^Provides-Extra: (\w+)$', metadata, re.M)
  assert {'data', 'train', 't5x', 'bench', 'dev'} <= set(extras)


def _normalised(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def test_constraints_pin_all_that_an_installation_brings(wheel):
  """Follows the requirements through the metadata of what is installed."""
  lines = (ROOT / 'constraints.txt').read_text().splitlines()
  pins = dict(line.split('==') for line in lines if line and line[0] != '#')
  pins = {_normalised(name): version for name, version in pins.items()}
  if importlib.metadata.version('jax') != pins['jax']:
    pytest.skip('installed without constraints.txt, as `make test-newest` does')
  (name,) = (n for n in wheel.namelist() if n.endswith('.dist-info/METADATA'))
  requirement = re.compile(r'^Requires-Dist: ([\w.-]+)(.*)$', re.M)
  todo = [
      _normalised(found[1])
      for found in requirement.finditer(wheel.read(name).decode())
      if re.search(r'''^[^;]*$|extra == ['"]all['"]''', found[2])
  ]
  seen = set()
  while todo:
    package = todo.pop()
    if package in seen:
      continue
    seen.add(package)
    try:
      needs = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
      continue  # Not for this machine, or only the core is installed.
    assert package in pins, f'{package} has no line in constraints.txt'
    assert importlib.metadata.version(package) == pins[package]
    todo += [
        _normalised(re.match(r'[\w.-]+', need)[0])
        for need in needs
        if 'extra ==' not in need and 'python_version' not in need
        and 'platform_system' not in need
    ]


@pytest.mark.parametrize('name', [
    'setup.py', 'gqa_t5x/__init__.py', 'gqa_t5x/__main__.py', 'gqa_t5x/cli.py',
    'gqa_t5x/errors.py', 'gqa_t5x/extras.py',
])
def test_old_pythons_can_read_what_refuses_them(name):
  ast.parse((ROOT / name).read_text(), feature_version=(3, 7))


# As ARCHITECTURE.md has it; everything else is the core, layer 0.
LAYERS = {
    'engine': 1, 'benchmark': 2, 'experiments': 3, 'commands': 4, 'cli': 5
}  # pyformat: disable


def _layer(module: str) -> int:
  if module.startswith('experiments.paper'):
    return 0
  if module == 'pretrained.export':  # A program, of a run and its results.
    return LAYERS['experiments']
  return LAYERS.get(module.split('.')[0], 0)


def _imported(tree: ast.AST):
  """Yields the modules of this package that a file imports, wherever."""
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    yield from (
        n.removeprefix('gqa_t5x.') for n in names if n.startswith('gqa_t5x.')
    )


def test_imports_point_downwards():
  seen = 0
  for path in (ROOT / 'gqa_t5x').rglob('*.py'):
    module = '.'.join(path.relative_to(ROOT / 'gqa_t5x').with_suffix('').parts)
    if module == '__main__':
      continue
    for other in _imported(ast.parse(path.read_text())):
      seen += 1
      assert _layer(other) <= _layer(module), f'{module} imports {other}'
  assert seen > 300


def test_makefile_refuses_a_python_that_is_too_old(tmp_path):
  python = tmp_path / 'python3'
  python.write_text('#!/bin/sh\nexit 1\n')
  python.chmod(0o755)
  done = subprocess.run(
      ['make', 'install', f'VENV={tmp_path}/venv', f'PYTHON={python}'],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )
  assert done.returncode == 2
  assert 'needs Python 3.11, 3.12 or 3.13' in done.stderr.splitlines()[0]
  assert not (tmp_path / 'venv').exists()


def test_substitute_for_editdistance():
  path = ROOT / '.ci' / 'editdistance' / 'editdistance.py'
  spec = importlib.util.spec_from_file_location('substitute', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  for first, second, distance in (
      ('', '', 0), ('', 'abc', 3), ('kitten', 'sitting', 3), ('ab', 'ba', 2),
      ('flaw', 'lawn', 2), ('saturday', 'sunday', 3),
  ):
    assert module.eval(first, second) == distance
    assert module.eval(second, first) == distance
