# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What README and docs/ tell to type is typed here.

Each `gqa-t5x` command of theirs has to be understood by the parser, and each
`python -m` of theirs and of docstrings by its program. Then all commands of a
document are run, one after another: see `REHEARSALS`. What needs t5x or a cloud
is run by test_t5x_end_to_end.py and test_tpu_guide.py.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import commands
from gqa_t5x import network
from gqa_t5x import pretrained
from gqa_t5x.benchmark import decode

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

in_a_checkout = pytest.mark.skipif(
    not DOCUMENTS[0].exists(), reason='not a source checkout'
)
pytestmark = in_a_checkout


def shell_blocks(text: str) -> list[str]:
  """Returns the commands of each block, continued lines joined.

  A block is indented, or fenced without a language. Tables that a program made
  are none.
  """
  text = re.sub(r'<!-- made:.*?<!-- end -->', '', text, flags=re.S)
  fence = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
  blocks = [inside for language, inside in fence.findall(text) if not language]
  blocks += re.findall(r'(?:^    .*\n)+', fence.sub('', text), re.M)
  return [re.sub(r'\\\n', ' ', block) for block in blocks]


def _is_run_elsewhere(block: str) -> bool:
  elsewhere = r'(-m|multi_host) t5x\.|gcloud|tensorflow_datasets'
  return bool(re.search(elsewhere, block))


def _lines(text: str) -> list[str]:
  """Returns the lines of all blocks."""
  return [
      line.strip() for x in shell_blocks(text) for line in x.splitlines()
  ]


def _words(line: str) -> list[str] | None:
  """Returns the words after `gqa-t5x`, up to what a shell would take."""
  found = re.search(r'(?:^|\| |; )gqa-t5x (.*)', line)
  if not found:
    return None
  words = shlex.split(found[1].split(' #')[0], comments=True)
  for stop in ('>', '|', '&&', '&'):
    if stop in words:
      words = words[: words.index(stop)]
  return words


COMMANDS = [
    (path.name, words)
    for path in DOCUMENTS
    if path.exists()
    for line in _lines(path.read_text())
    if (words := _words(line))
]


def test_there_are_commands():
  assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    'name, words', COMMANDS, ids=[f'{n}-{w[0]}' for n, w in COMMANDS]
)
def test_commands_of_documents_are_understood(name, words):
  del name
  try:
    args = cli._parse(commands, [w for w in words if w != '...'])  # pylint: disable=protected-access
  except SystemExit as stop:
    assert stop.code == 0, words  # --help
  else:
    assert isinstance(args, argparse.Namespace)
    for file in getattr(args, 'gin_file', []):
      if file.startswith('gqa_t5x/'):
        assert (ROOT / file.removeprefix('gqa_t5x/')).exists(), file


def test_extras_of_documents_exist():
  """pip takes others without a word."""
  metadata = importlib.metadata.metadata('gqa_t5x')
  text = '\n'.join(path.read_text() for path in DOCUMENTS)
  found = re.findall(r"'\.\[([\w,]+)\]'", text)
  assert len(found) >= 3
  named = {extra for extras in found for extra in extras.split(',')}
  assert named <= set(metadata.get_all('Provides-Extra'))


# Where docstrings and documents say `python -m`.
PROGRAMS = {
    found[0]: found[1]
    for path in [
        *DOCUMENTS,
        *(ROOT / 'gqa_t5x').rglob('*.py'),
        *(ROOT / 'tasks').glob('*.py'),
        *(ROOT / 'tests').glob('*.py'),
    ]
    if path.exists()
    for found in re.findall(
        # Those of tests/golden take nothing, and need PyTorch.
        r'python -m ((?:gqa_t5x|tests)(?!\.golden)\.[\w.]+\w)([^`\n]*)',
        path.read_text(),
    )
}


def test_there_are_programs():
  assert len(PROGRAMS) >= 5


@pytest.mark.parametrize('module', sorted(PROGRAMS))
def test_programs_of_docstrings_have_what_is_passed(module):
  done = subprocess.run(
      [sys.executable, '-m', module, '--help'],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr
  for word in PROGRAMS[module].split():
    if word.startswith('--'):
      assert word in done.stdout


# How those programs are run here, small: {out} is a file that they make, {tiny}
# a checkpoint of one layer.
SMALL_RUNS = {
    'gqa_t5x.experiments.calibration_study':
        '--output {out} --checkpoint {tiny} --sequences 8 --num_kv_heads 1'
        ' --draws 2',
    'gqa_t5x.experiments.conversion_methods':
        '--output {out} --checkpoint {tiny} --methods mean,svd_calibrated'
        ' --num_kv_heads 1 --seeds 1 --alphas 0,0.5',
    'gqa_t5x.tasks.train_vocabulary': '{out}',
    'tests.memory': '--one evaluate 20',
    'tests.mutations': '--output {out} --files ^checkpoints/manifest',
    'tests.torture': '--output {out} --kills 1 --commands convert',
}  # pyformat: disable
# And those that a test of their own runs; export runs after README's commands.
RUN_ELSEWHERE = {
    'gqa_t5x.benchmark.cross_cache': 'benchmark/test_cross_cache.py',
    'gqa_t5x.benchmark.hf_decode': 'benchmark/test_peers.py',
    'gqa_t5x.multi_host': 'test_cli.py',  # With t5x: test_t5x_end_to_end.py.
}
EXPORT = 'gqa_t5x.pretrained.export'


def test_all_programs_are_run_by_a_test():
  assert {*SMALL_RUNS, *RUN_ELSEWHERE, EXPORT} == set(PROGRAMS)
  for module, path in RUN_ELSEWHERE.items():
    call = module.split('.')[-1] + '.main('
    assert call in (ROOT / 'tests' / path).read_text()
  assert f'{EXPORT} ' in REHEARSALS['README.md'].after


def _save_tiny(path: str) -> None:
  """Writes a model like the one that ships, but smaller, after 4 steps."""
  shipped = checkpoints.open_checkpoint(pretrained.CHECKPOINT_PATH).metadata
  config = network.T5Config(**shipped['config'] | {
      'emb_dim': 16, 'head_dim': 4, 'mlp_dim': 16,
      'num_encoder_layers': 1, 'num_decoder_layers': 1,
  })  # pyformat: disable
  checkpoints.save_checkpoint(
      path,
      decode.random_params(config, None, 0),
      metadata={'config': config.to_dict(), 'step': 4},
  )


@pytest.mark.slow
@pytest.mark.parametrize('module', sorted(SMALL_RUNS))
def test_a_program_runs(module, tmp_path):
  pytest.importorskip('seqio')
  words = SMALL_RUNS[module]
  if '{tiny}' in words:
    _save_tiny(str(tmp_path / 'tiny'))
  words = words.format(out=tmp_path / 'out', tiny=tmp_path / 'tiny')
  done = subprocess.run(
      [sys.executable, '-m', module, *words.split()],
      cwd=ROOT, capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-2000:]
  if '{out}' in SMALL_RUNS[module]:
    assert (tmp_path / 'out').stat().st_size > 100
  else:
    assert json.loads(done.stdout)['examples'] == 20


PYTHON = [
    pytest.param(code, id=f'{path.name}-{i}')
    for path in DOCUMENTS
    if path.exists()
    for i, code in enumerate(
        re.findall(r'^```python\n(.*?)^```', path.read_text(), re.M | re.S)
    )
]


@pytest.mark.parametrize('code', PYTHON)
def test_python_of_documents_runs(code, tmp_path):
  """And prints what its comments say."""
  pytest.importorskip('sentencepiece')
  done = subprocess.run(
      [sys.executable, '-c', code.replace('/tmp', str(tmp_path))],
      check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
  )  # pyformat: disable
  expected = re.findall(r'^print.*# (.*)', code, re.M)
  assert done.stdout.splitlines() == expected


@dataclasses.dataclass(frozen=True)
class Rehearsal:
  """How a document's commands are run here.

  Attributes:
    changes: what stands in a command, and what takes its place: the user's
      files, and sizes that would take hours.
    before: commands that make what earlier documents have made.
    after: commands that take what these have made.
    expected: parts of the output, and how often each stands in it.
    made: files that the commands leave.
    needs: a module that they need.
  """

  changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  before: str = ''
  after: str = ''
  expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
  made: Sequence[str] = ()
  needs: str = 'seqio'


_CHECKPOINT = shlex.quote(pretrained.CHECKPOINT_PATH)
_VOCABULARY = f'cp {shlex.quote(pretrained.VOCABULARY_PATH)}'
_TEXT = 'for i in $(seq 150); do echo "Row $i: the sum of its numbers."; done'
_FEW_STEPS = (
    ' --gin.UPTRAIN_FRACTION=0.0003 --gin.MAX_CACHED_EXAMPLES=200'
    ' --gin.DEV_EXAMPLES=4'
)
_SMALL_BENCHMARK = (
    'benchmark decode --model small --num_layers 1 --input_length 16'
    ' --output_length 4 --batch_size 2 --num_repeats 1'
)
_ON_TPU = {
    '--model xxl --num_kv_heads 8': '--model small --num_kv_heads 2',
    '4x4x4': '2x2x1',
    '--model_axis 8': '--model_axis 2',
    '--batch_size 2048 --num_microbatches 32': '--batch_size 8',
}
REHEARSALS = {
    'README.md': Rehearsal(
        changes={
            '/tmp/': '',
            'up/checkpoints/7350': 'up/checkpoints/7002',
            '\'"up"\'': '\'"up"\'' + _FEW_STEPS,
            'benchmark decode --model small': _SMALL_BENCHMARK,
        },
        after=(
            'python -m gqa_t5x.pretrained.export up 7002 exported;'
            ' gqa-t5x inspect exported | grep bfloat16'
        ),
        expected={'Mittwoch, 5. Mai 2021': 1},
        made=['up/checkpoints/7002', 'figure6.svg'],
    ),
    'quick_start.md': Rehearsal(
        # The wheel test runs it, from an empty folder.
        changes={'--output_dir smoke': '--output_dir smoke --dry_run'},
        expected={'Mittwoch, 5. Mai 2021': 2},
        made=['gqa2'],
    ),
    'conversion.md': Rehearsal(
        changes={
            'CKPT': _CHECKPOINT,
            '\'"uptrained"\'': '\'"uptrained"\'' + _FEW_STEPS,
        },
        before=f'{_VOCABULARY} sentencepiece.model; ({_TEXT}) > text.txt',
        expected={'sequences of calibration text, no training': 1},
        made=['OUT', 'uptrained/checkpoints/7002'],
    ),
    'your_checkpoint.md': Rehearsal(
        changes={
            'CKPT': _CHECKPOINT,
            '\'"uptrained"\'': '\'"uptrained"\'' + _FEW_STEPS,
            '--batch_size 1,32 --input_length 1024 --output_length 128':
                '--batch_size 2 --input_length 16 --output_length 4'
                ' --num_repeats 1',
            'TRAIN_STEPS_RELATIVE=5000': 'TRAIN_STEPS_RELATIVE=2',
            'BATCH_SIZE=64': 'BATCH_SIZE=2',
            'checkpoints/5000': 'checkpoints/7002',
        },
        before=f'{_VOCABULARY} spiece.model; ({_TEXT}) > text.txt',
        made=['OUT', 'uptrained/checkpoints/7002', 'NEW/model.safetensors',
              'tuned_scores/metrics.json'],
    ),
    'your_data.md': Rehearsal(
        changes={
            'uptrained/checkpoints/7350': 'converted',
            'TRAIN_STEPS_RELATIVE=80': 'TRAIN_STEPS_RELATIVE=2',
            'finetuned/checkpoints/7430': 'finetuned/checkpoints/7002',
        },
        before=(
            f'gqa-t5x convert --input {_CHECKPOINT} --output converted'
            ' --num_kv_heads 2'
        ),
    ),
    'reproduce.md': Rehearsal(
        # `make reproduce` runs this one; it takes 10 to 15 minutes.
        changes={'table1\n': 'table1 --dry_run\n'},
        expected={'# Train MHA from scratch': 1},
    ),
    'gpu.md': Rehearsal(
        changes={
            # The tests of suites run its stages, with a small vocabulary.
            '--prepare': '--prepare --dry_run',
            'benchmark decode --model large --num_kv_heads 16,2,1':
                f'{_SMALL_BENCHMARK} --num_kv_heads 6,1',
            '--batch_size 32 --input_length 2048 --output_length 512'
            ' --largest_batch_in 70': '--largest_batch_in 0.22',
        },
    ),
    'tpu.md': Rehearsal(changes=_ON_TPU, needs='libtpu'),
    'tpu_memory.md': Rehearsal(
        changes={**_ON_TPU, '--batch_size 32 --input_length 2048': ''},
        needs='libtpu',
    ),
}  # pyformat: disable


# The environment is there: pip looks whether what it is told to install is, and
# make shows what it would do.
SHELL = rf"""
PATH={shlex.quote(str(pathlib.Path(sys.executable).parent))}:$PATH
gqa-t5x() {{ python -m gqa_t5x "$@"; }}
pip() {{
  python -m pip "$1" --dry-run --no-deps --no-index --no-build-isolation \
    "${{@:2}}"
}}
make() {{ command make --dry-run "$@"; }}
"""


def run_shell(script: str, folder: pathlib.Path, **env) -> str:
  """Runs a script of `SHELL`'s commands in a folder; returns its output."""
  done = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', SHELL + script],
      cwd=folder, env=os.environ | env,
      capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def link_checkout(folder: pathlib.Path) -> None:
  """Gives a folder what an installation and the commands read."""
  folder.mkdir(exist_ok=True)
  for name in (
      'gqa_t5x', 'gin_configs', 'tasks', 'setup.py', 'pyproject.toml',
      'README.md', 'constraints.txt', 'Makefile',
  ):  # pyformat: disable
    (folder / name).symlink_to(ROOT / name)


_ROW = {'article': 'Returns the sum of all the numbers.', 'abstract': 'A sum.'}


def _write_own_data(folder: pathlib.Path) -> None:
  """Writes what a user has: `my_task.gin` of your_data.md, and its files."""
  text = (ROOT / 'docs' / 'your_data.md').read_text()
  (gin,) = re.findall(r'^```gin\n(.*?)^```', text, re.M | re.S)
  (folder / 'my_task.gin').write_text(gin)
  for name, count in (('train', 40), ('dev', 3), ('test', 3)):
    lines = (json.dumps(_ROW | {'id': n}) + '\n' for n in range(count))
    (folder / f'{name}.jsonl').write_text(''.join(lines))


def _run(name: str, folder: pathlib.Path) -> str:
  """Runs the commands of a document in a folder with the checkout's files."""
  rehearsal = REHEARSALS[name]
  (path,) = (p for p in DOCUMENTS if p.name == name)
  link_checkout(folder)
  activate = folder / '.venv' / 'bin' / 'activate'
  activate.parent.mkdir(parents=True)
  activate.touch()
  blocks = [
      b for b in shell_blocks(path.read_text()) if not _is_run_elsewhere(b)
  ]
  script = '\n'.join(
      re.sub(' +', ' ', line.strip())
      for block in blocks
      for line in block.splitlines()
  ) + '\n'
  if 'my_task.gin' in script:
    _write_own_data(folder)
  for old, new in rehearsal.changes.items():
    assert old in script, old
    script = script.replace(old, new)
  output = run_shell(f'{rehearsal.before}\n{script}{rehearsal.after}', folder)
  for part, count in rehearsal.expected.items():
    assert output.count(part) == count, part
  for file in rehearsal.made:
    assert (folder / file).exists(), file
  return output


def test_all_documents_with_commands_are_rehearsed():
  documents = {p.name for p in DOCUMENTS if shell_blocks(p.read_text())}
  assert documents == set(REHEARSALS)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(REHEARSALS) - {'your_data.md'}))
def test_commands_of_a_document_run(name, tmp_path):
  """One after another, as they stand but for the changes above."""
  pytest.importorskip(REHEARSALS[name].needs)
  _run(name, tmp_path)


@pytest.mark.slow
def test_fine_tuning_on_own_data_runs(tmp_path):
  pytest.importorskip('seqio')
  _run('your_data.md', tmp_path)
  scores = json.loads((tmp_path / 'scores' / 'metrics.json').read_text())
  assert 'my_summaries/rouge1' in scores
  outputs = (tmp_path / 'outputs.jsonl').read_text().splitlines()
  assert [json.loads(x)['targets'] for x in outputs] == ['A sum.'] * 3
  assert json.loads(outputs[0])['inputs'] == f'summarize: {_ROW["article"]}'
