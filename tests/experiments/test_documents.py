# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""README and docs/ show what results/ hold, and their links lead somewhere."""

import json
import pathlib
import re

import pytest

from gqa_t5x.errors import UserError
from gqa_t5x.experiments import claims
from gqa_t5x.experiments import documents
from gqa_t5x.experiments import results

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATHS = [p for p in documents.documents(ROOT) if p.exists()]

pytestmark = pytest.mark.skipif(
    not PATHS, reason='not a source checkout'
)


@pytest.mark.parametrize('path', PATHS, ids=lambda p: p.name)
def test_documents_show_the_results(path):
  text = path.read_text()
  folder = str(path.parent.relative_to(ROOT))
  filled, drawn = documents.fill(text, folder, ROOT)
  assert filled == text, 'run `make readme-figures`'
  for name, svg in drawn.items():
    assert (ROOT / name).read_text() == svg, 'run `make readme-figures`'


def test_the_notebook_shows_the_claims_of_the_results(monkeypatch, capsys):
  folder = ROOT / 'notebooks'
  path = folder / 'figures_5_and_6.ipynb'
  cell = json.loads(path.read_text())['cells'][-1]
  shown = ''.join(
      line for output in cell['outputs'] for line in output['text']
  )
  monkeypatch.chdir(folder)
  names = {'pathlib': pathlib, 'claims': claims, 'results': results}
  exec(''.join(cell['source']), names)  # pylint: disable=exec-used
  assert capsys.readouterr().out == shown, 'run the notebook again'


def test_a_block_is_filled_from_its_files(tmp_path):
  row = {
      'batch_size': 8, 'input_length': 512, 'output_length': 64,
      'ms_per_step': 12.34,
      'limit_ms_per_step': 5.0, 'prefill_seconds': 1.5, 'num_kv_heads': 4,
      'seconds_per_sample': 0.5,
  }  # pyformat: disable
  rows = {'K=4': row, 'hf': row | {'ms_per_step': 50.0}}
  (tmp_path / 'results').mkdir()
  (tmp_path / 'results' / 'd.json').write_text(
      json.dumps({'config': {'num_heads': 4}, 'rows': rows})
  )
  text = (
      'Before.\n<!-- made: decoding results/d.json -->\nold\n<!-- end -->\n'
      '<!-- made: figure6 results/d.json -->\n<!-- end -->\nAfter.\n'
  )
  filled, drawn = documents.fill(text, 'docs', tmp_path)
  assert '| 8, 512 | 12.3 | 50.0 | 5.0 | 1.50 | 1.50 |' in filled
  assert 'Hugging Face' in filled and 'old' not in filled
  assert '](../results/d.svg)' in filled
  assert list(drawn) == ['results/d.svg']
  assert documents.fill(filled, 'docs', tmp_path)[0] == filled
  limits = {
      'K=4': row | {
          'encode_seconds': 1.25, 'bandwidth_share': 0.41,
          'cache_bytes_allocated': 2**29, 'peak_memory_bytes': 3 * 2**30,
      }
  }  # pyformat: disable
  (tmp_path / 'results' / 'e.json').write_text(json.dumps({'rows': limits}))
  filled, _ = documents.fill(
      '<!-- made: limits results/e.json results/e.json -->\n<!-- end -->',
      '',
      tmp_path,
  )
  one = '| K=4 | 8 | 0.500 | 1.25 | 1.50 | 12.34 | 5.00 | 41% | 0.50 '
  assert filled.count(one) == 2
  (tmp_path / 'results' / 'e.json').unlink()
  with pytest.raises(UserError, match="got 'tabel'"):
    documents.fill(text.replace('decoding', 'tabel'), 'docs', tmp_path)
  with pytest.raises(UserError, match='the block decoding needs'):
    documents.fill(text.replace('d.json', 'e.json'), 'docs', tmp_path)
  # Or all that stands between would go.
  with pytest.raises(UserError, match='got one without; add it'):
    documents.fill(text.replace('<!-- end -->', '', 1), 'docs', tmp_path)


def test_losses_of_one_kind_stand_beside_those_of_both(tmp_path):
  def cell(method, **losses):
    return {'method': method, 'num_kv_heads': 2, 'losses': losses}

  reports = {
      'apart.json': [
          cell('mean_self', **{'0.0': 5.0, '0.05': 3.0}),
          cell('mean_self', **{'0.0': 5.0, '0.05': 3.5}),
          cell('mean_cross', **{'0.0': 4.5}),
          cell('svd_self', **{'0.0': 4.0}),
      ],
      'both.json': [
          cell('mean', **{'0.0': 6.0, '0.05': 4.0}),
          cell('none', **{'0.0': 2.0}),
      ],
  }
  for name, cells in reports.items():
    (tmp_path / name).write_text(json.dumps({'cells': cells}))
  filled, _ = documents.fill(
      '<!-- made: attention-kinds apart.json both.json -->\n<!-- end -->',
      '',
      tmp_path,
  )
  # Student's t of one degree of freedom, 12.706, times 0.5 / 2.
  assert filled.splitlines()[1:-1] == [
      '| method | K | self, 0% | cross, 0% | both, 0%'
      ' | self, 5% | cross, 5% | both, 5% |',
      '| --- | --- | --- | --- | --- | --- | --- | --- |',
      '| mean | 2 | 5.000 | 4.500 | 6.000 | 3.250 ±3.177 | – | 4.000 |',
      '| svd | 2 | 4.000 | – | – | – | – | – |',
  ]


@pytest.mark.parametrize('path', PATHS, ids=lambda p: p.name)
def test_links_lead_to_files(path):
  for link in re.findall(r'\]\(\s*([^)#\s]+)', path.read_text()):
    if '://' not in link:
      assert (path.parent / link).exists(), f'{link} in {path.name}'


def test_the_site_builds(tmp_path):
  pytest.importorskip('mkdocs')
  from mkdocs.commands import build
  from mkdocs import config

  settings = config.load_config(
      str(ROOT / 'mkdocs.yml'), site_dir=str(tmp_path / 'site')
  )
  build.build(settings)  # Strict: a broken link is an error.
  pages = {p.stem for p in (ROOT / 'docs').glob('*.md')} - {'index'}
  assert all((tmp_path / 'site' / p / 'index.html').exists() for p in pages)
