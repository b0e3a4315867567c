# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""docs/tpu.md's commands that need a cloud, run with that replaced.

Its other commands are run by test_docs.py and test_t5x_end_to_end.py.
"""

import importlib.metadata
import importlib.util
import os
import re

import pytest

from tests import test_docs

pytestmark = test_docs.in_a_checkout

# `gcloud` runs here what it would run there, `git clone` links the checkout,
# and what pip would take from GitHub becomes an empty module.
_CLOUD = r"""
gcloud() {
  echo "$4" >> gcloud_calls
  case $4 in
    scp) test -s "$5";;
    ssh) bash -euc "$(printf '%s\n' "$@" | sed -n 's/^--command=//p')";;
    *) false;;
  esac
}
git() { test "$1" = clone && ln -s "$CHECKOUT" "$(basename "$2")"; }
python3.11() {
  test "$*" = "-m venv $HOME/venv" && mkdir -p "$HOME/venv/bin"
  touch "$HOME/venv/bin/activate"
}
eval "real_$(declare -f pip)"
pip() {
  case "${@: -1}" in
    git+https://github.com/*)
      name=$(basename "${@: -1}"); touch "$HOME/modules/${name%@*}.py";;
    *) real_pip "$@";;
  esac
}
export -f gcloud git python3.11 pip real_pip
"""


def _block(part: str) -> str:
  """Returns the block of the guide that has this part."""
  text = (test_docs.ROOT / 'docs' / 'tpu.md').read_text()
  (block,) = (b for b in test_docs.shell_blocks(text) if part in b)
  return block


def test_all_hosts_are_installed(tmp_path):
  pins = (test_docs.ROOT / 'constraints.txt').read_text().splitlines()
  if f'jax=={importlib.metadata.version("jax")}' not in pins:
    pytest.skip('installed without constraints.txt, as `make test-newest` does')
  checkout = tmp_path / 'checkout'
  test_docs.link_checkout(checkout)
  (tmp_path / 'modules').mkdir()
  paths = [os.environ.get('PYTHONPATH', ''), str(tmp_path / 'modules')]
  output = test_docs.run_shell(
      _CLOUD + _block('gcloud'),
      tmp_path,
      HOME=str(tmp_path),
      CHECKOUT=str(checkout),
      PYTHONPATH=':'.join(filter(None, paths)),
      JAX_PLATFORMS='cpu',
  )
  assert re.search(r'^\d+ chips$', output, re.M)
  assert (tmp_path / 'gcloud_calls').read_text().split() == ['scp', 'ssh']
  for name in ('t5x', 'airio', 'jestimator'):
    assert (tmp_path / 'modules' / f'{name}.py').exists()


@pytest.mark.skipif(
    importlib.util.find_spec('seqio') is None, reason='seqio is not installed'
)
def test_the_datasets_of_all_tasks_are_prepared(tmp_path):
  import seqio

  from gqa_t5x.tasks import paper  # Registers them.

  (tmp_path / 'tensorflow_datasets.py').write_text("""
class builder:
  def __init__(self, name):
    self.name = name

  def download_and_prepare(self):
    print(self.name)
""")
  output = test_docs.run_shell(
      _block('tensorflow_datasets'), tmp_path, PYTHONPATH=str(tmp_path)
  )
  del paper
  sources = [
      seqio.get_mixture_or_task(name).source
      for name in seqio.TaskRegistry.names()
      if name.startswith('gqa_')
  ]
  names = {
      s.tfds_dataset.name for s in sources if hasattr(s, 'tfds_dataset')
  }
  assert sorted(output.split()) == sorted(names)
