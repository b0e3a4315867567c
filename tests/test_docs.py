# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What README and docs/ tell to type is typed here.

Each `gqa-t5x` command of theirs has to be understood by the parser, and each
`python -m` of theirs and of docstrings by its program; those of the quick start
and of fine-tuning on one's own data are run one after another.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from gqa_t5x import cli
from gqa_t5x import commands
from gqa_t5x import pretrained

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

pytestmark = pytest.mark.skipif(
    not DOCUMENTS[0].exists(), reason='not a source checkout'
)


def _shell_lines(text: str) -> list[str]:
  """Returns the lines of blocks without a language, continued ones joined."""
  fences = re.findall(r'^```(\w*)\n(.*?)^```', text, re.M | re.S)
  blocks = [inside for language, inside in fences if language in ('', 'sh')]
  blocks += re.findall(r'(?:^    .*\n)+', text, re.M)
  lines = []
  for block in blocks:
    lines += re.sub(r'\\\n', ' ', block).splitlines()
  return [line.strip() for line in lines]


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
    for line in _shell_lines(path.read_text())
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


def test_code_of_the_readme_runs(tmp_path):
  """And prints what its comment says."""
  (code,) = re.findall(
      r'^```python\n(.*?)^```', (ROOT / 'README.md').read_text(), re.M | re.S
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
  )  # pyformat: disable
  (expected,) = re.findall(r'^print.*# (.*)', code, re.M)
  assert done.stdout == f'{expected}\n'


def _run(lines, folder) -> str:
  """Runs lines in a folder that has the checkout's files."""
  for name in ('gqa_t5x', 'gin_configs', 'tasks'):
    (folder / name).symlink_to(ROOT / name)
  script = '\n'.join(lines).replace(
      'gqa-t5x ', f'{shlex.quote(sys.executable)} -m gqa_t5x '
  )
  done = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', script],
      cwd=folder, capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path):
  """Line by line, as it stands."""
  pytest.importorskip('seqio')
  lines = _shell_lines((ROOT / 'docs' / 'quick_start.md').read_text())
  # The wheel test runs `reproduce --scale smoke`, from an empty folder.
  wanted = [
      x
      for x in lines
      if 'gqa-t5x' in x and 'completion' not in x and 'reproduce' not in x
  ]
  assert len(wanted) == 7
  shown = _run(wanted, tmp_path)
  assert '2 key/value heads' in shown
  assert shown.count('Mittwoch, 5. Mai 2021') == 2


@pytest.mark.slow
def test_fine_tuning_on_own_data_runs(tmp_path):
  """As it stands, but for the checkpoint and two steps instead of 80."""
  pytest.importorskip('seqio')
  text = (ROOT / 'docs' / 'your_data.md').read_text()
  (gin,) = re.findall(r'^```gin\n(.*?)^```', text, re.M | re.S)
  (tmp_path / 'my_task.gin').write_text(gin)
  row = {'article': 'Returns the sum of all the numbers.', 'abstract': 'A sum.'}
  for name, count in (('train', 40), ('dev', 3)):
    lines = (json.dumps(row | {'id': n}) + '\n' for n in range(count))
    (tmp_path / f'{name}.jsonl').write_text(''.join(lines))
  lines = [
      line.replace('uptrained/checkpoints/7350', 'converted')
      .replace('TRAIN_STEPS_RELATIVE=80', 'TRAIN_STEPS_RELATIVE=2')
      .replace('finetuned/checkpoints/7430', 'finetuned/checkpoints/7002')
      for line in _shell_lines(text)
  ]
  convert = (
      f'gqa-t5x convert --input {shlex.quote(pretrained.CHECKPOINT_PATH)}'
      ' --output converted --num_kv_heads 2'
  )
  _run([convert, *lines], tmp_path)
  scores = json.loads((tmp_path / 'scores' / 'metrics.json').read_text())
  assert 'my_summaries/rouge1' in scores
  outputs = (tmp_path / 'outputs.jsonl').read_text().splitlines()
  assert [json.loads(x)['targets'] for x in outputs] == ['A sum.'] * 3
  assert json.loads(outputs[0])['inputs'] == f'summarize: {row["article"]}'
