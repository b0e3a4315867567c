# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The report on an invented run: what it says, and that it is sound HTML."""

import html.parser
import itertools
import re

import numpy as np
import pytest

from gqa_t5x.errors import UserError
from gqa_t5x.experiments import conversion_methods
from gqa_t5x.experiments import figure5
from gqa_t5x.experiments import figures
from gqa_t5x.experiments import report
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments import tables

VOID = {'meta', 'br', 'circle', 'rect', 'line', 'path'}


class Balanced(html.parser.HTMLParser):
  """Fails where tags do not close in order; keeps texts and attributes."""

  def __init__(self):
    super().__init__()
    self.open, self.texts, self.attributes, self.tags = [], [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open and self.open[-1] == tag, (tag, self.open, self.getpos())
    self.open.pop()

  def handle_data(self, data):
    self.texts.append(data)


@pytest.fixture
def written(results, tmp_path):
  """Texts of (report.md, report.html) of the invented run."""
  results_lib.save_results(tmp_path, results)
  markdown, page = report.write_report(tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'report.html', 'report.md', 'results.json']
  return markdown.read_text('utf-8'), page.read_text('utf-8')


def _parse(page):
  parser = Balanced()
  parser.feed(page)
  parser.close()
  assert not parser.open
  return parser


def test_html_is_balanced_and_needs_nothing_outside(written):
  parser = _parse(written[1])
  assert not {'script', 'link', 'img', 'iframe', 'object'} & set(parser.tags)
  assert not {'src', 'xlink:href', 'srcset'} & {
      name for name, _ in parser.attributes}
  links = [value for name, value in parser.attributes if name == 'href']
  assert links and set(links) == {'results.json'}
  assert not re.search(r'url\(|@import|https?://|file:', written[1])
  assert parser.tags.count('svg') == 5
  assert parser.tags.count('details') == 1  # The stages, which are many.
  assert ('name', 'viewport') in parser.attributes
  assert 'prefers-color-scheme: dark' in written[1]
  assert '@media print' in written[1]


def test_each_part_names_the_command_that_makes_it(written):
  text = written[0]
  # The run is of table1, whose models are timed.
  for option, heading in (
      (' --experiment table1', 'Quality and time'), ('', 'Time'),
  ):  # pyformat: disable
    part = text.split(f'\n## {heading}\n\n')[1]
    assert part.startswith(
        f'Made by `gqa-t5x reproduce --output_dir INVENTED{option}`; numbers in'
        ' [results.json](results.json).'
    )


@pytest.mark.parametrize('which', [0, 1])
def test_says_what_was_run_and_found(written, which):
  text = written[which]
  for expected in (
      'Invented CPU', 'invented0123', '0.0.0-invented', 'feedface',
      'gqa-t5x convert --num_kv_heads 2', '4 min 2 s', 'MHA-Large', '46.76',
      '20.5 (lead)', '22.5 (copy)', '3,072', '0.05 of its 20,000',
      'Every model is above both baselines',
      '22.5 GB/s', '1 training seed (1)', 'templates, not language',
      '+0.550'):
    assert expected in text, expected


def test_claims_come_first_with_their_verdicts(written):
  markdown = written[0]
  assert markdown.index('C1 quality') < markdown.index('MHA-Large')
  verdicts = dict(re.findall(r'\| (C\d) \w+ \| .* \| \*\*(.*)\*\* \|',
                             markdown))
  assert verdicts == {
      'C1': 'shown', 'C2': 'shown', 'C3': 'not tested',
      'C4': 'shown in part', 'C5': 'shown in part', 'C6': 'not tested'}


def test_paper_rows_stand_directly_above_ours(written):
  markdown = written[0]
  paper_at = markdown.index('| GQA-8-XXL | 8 | 0.28 | 47.1 |')
  ours = '| GQA-2 | 2 | 0.0120 | 768 | 56.1 | 40.8 | 66.0 | 61.5 |'
  assert paper_at < markdown.index(ours)
  assert markdown[paper_at:markdown.index(ours)].count('|\n\n') == 1


def test_untrusted_text_is_shown_as_it_stands(written):
  markdown, page = written
  sample = 'invented input 0 of docs_summarize with <b>, `tick`, a | and **'
  assert sample in markdown and sample in ''.join(_parse(page).texts)
  assert 'b' not in _parse(page).tags
  assert 'example 3' in markdown and 'example 4' not in markdown


def test_score_below_a_baseline_is_said_aloud(results, tmp_path):
  results['baselines']['docs_summarize']['lead'] = 40.9
  results_lib.save_results(tmp_path, results)
  text = report.write_report(tmp_path)[0].read_text('utf-8')
  assert 'Not above both baselines: Docs R1 of GQA-2; MQA. Nothing' in text


def test_missing_baseline_is_said_aloud(results, tmp_path):
  del results['baselines']['cldr_translate_en_de']['untrained']
  results_lib.save_results(tmp_path, results)
  text = report.write_report(tmp_path)[0].read_text('utf-8')
  assert 'Baselines not measured on: CLDR BLEU.' in text
  assert 'above both' not in text


def test_missing_parts_become_dashes(results, tmp_path):
  del results['models']['MQA']['decode']
  results['models']['MHA']['loss'] = float('nan')
  results['baselines'] = {}
  for entry in results['models'].values():
    entry.get('tasks', {}).pop('docs_summarize', None)
    entry.pop('loss_per_example')
  results_lib.save_results(tmp_path, results)
  markdown, page = report.write_report(tmp_path)
  _parse(page.read_text('utf-8'))
  text = markdown.read_text('utf-8')
  assert '| MQA | 1 | – | 384 | – | – | 65.0 | 57.0 |' in text
  assert '| MHA | – | 0.05 | 21,000 | 3,000,008 | – |' in text
  assert re.search(r'\| C1 quality \| .* \| \*\*not tested\*\* \|', text)


def test_losses_that_are_no_number_become_dashes(results, tmp_path):
  # As `save_results` writes those of a model that diverged.
  models = results['models']
  for name in ('MQA', 'GQA-2', 'MHA'):
    models[f'{name} from scratch'] = models[name] | {
        'origin': 'scratch', 'alpha': None, 'loss': None,
        'loss_per_example': [[None] * 25], 'train_losses': [[None] * 9],
    }  # pyformat: disable
  models['GQA-2 from scratch']['tasks'] = {
      'docs_summarize': {'train_losses': [[None] * 9]},
      'cldr_translate_en_de': {'train_losses': [[1.0] * 9]},
  }
  models['GQA-2']['loss'] = None
  results_lib.save_results(tmp_path, results)
  text, _ = (path.read_text() for path in report.write_report(tmp_path))
  assert '| MQA from scratch | 0 | 1 of 1 | – | – | – |' in text
  assert '| GQA-2 from scratch | 0 | 1 of 1 | 0 | 1 of 2 | – |' in text


def test_bars_of_zeros_can_be_drawn():
  points = [figures.Point(name, 'gqa', 0, 0.0, '0') for name in 'ab']
  drawn = figures.bars(points, title='t', x_label='x', y_label='y')
  assert drawn.count('height="0.0"') == 2


def test_no_model_at_all(results, tmp_path):
  results['models'], results['times'] = {}, {}
  results_lib.save_results(tmp_path, results)
  _parse(report.write_report(tmp_path)[1].read_text('utf-8'))


def test_says_only_what_was_done(results, tmp_path):
  results['models'] = {}
  results['timed_on'] = {'device': {'backend': 'cpu', 'cpu': 'Older CPU'}}
  results['device'] = {'backend': 'gpu'}
  assert '(s per sample on cpu)' in tables.format_table(results)
  results_lib.save_results(tmp_path, results)
  timed = report.write_report(tmp_path)[0].read_text('utf-8')
  assert 'attention; timed; as in' in timed
  assert 'Times are from Older CPU, not' in timed
  assert 'scored' not in timed.split('##')[0] and 'dev split' not in timed
  assert "The paper's Table 1" not in timed


def test_a_run_that_timed_nothing_says_so(results, tmp_path):
  results['times'], results['differences'] = {}, 'Half of the steps.'
  for entry in results['models'].values():
    del entry['decode']
  results_lib.save_results(tmp_path, results)
  text = report.write_report(str(tmp_path / 'results.json'))[0].read_text()
  assert 'scored; as in' in text and 'Times are from' not in text
  assert 'Decoding was not timed.' in text
  assert '| But for | Half of the steps. |' in text


@pytest.mark.parametrize('broken', [
    {'models': []},
    {'model': None},
    {'models': {'MHA': {'num_kv_heads': 8}}},
    {'times': {'8': {'seconds_per_sample': None}}},
])
def test_a_damaged_file_is_one_line(results, tmp_path, broken):
  results_lib.save_results(tmp_path, results | broken)
  with pytest.raises(UserError, match='run it again to write it'):
    report.write_report(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['results.json']


def test_smoke_says_that_it_shows_nothing(results, tmp_path):
  results['scale'] = 'smoke'
  results_lib.save_results(tmp_path, results)
  text = report.write_report(tmp_path)[0].read_text('utf-8')
  assert 'hardly learned' in text
  assert '**not judged**' in text
  for verdict in ('shown', 'not shown', 'contradicted'):
    assert f'| {verdict} |' not in text and f'**{verdict}**' not in text


def test_terminal_table(results):
  lines = tables.format_table(results).splitlines()
  assert max(map(len, lines)) <= 80
  rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
  assert rows['GQA-8-XXL'][:4] == ['8', '0.28', '47.1', '43.5']
  assert rows['GQA-2'] == ['2', '0.0120', '768', '56.1', '40.8', '66.0', '61.5']
  assert rows['Untrained'][-1] == '0.9'


def test_failed_write_leaves_the_old_report(results, tmp_path, monkeypatch):
  results_lib.save_results(tmp_path, results)
  (tmp_path / 'report.md').write_text('old')

  def no_space(*unused):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr('os.replace', no_space)
  with pytest.raises(OSError, match='No space'):
    report.write_report(tmp_path)
  assert (tmp_path / 'report.md').read_text() == 'old'
  assert len(list(tmp_path.iterdir())) == 2


def test_folder_without_a_run(tmp_path):
  with pytest.raises(UserError, match='expected results.json'):
    report.write_report(tmp_path)
  assert not list(tmp_path.iterdir())


def test_quality_against_time_has_our_conversion_and_no_other(
    results, tmp_path
):
  for method in ('svd', 'first'):
    name = f'GQA-2, {method}'
    results['models'][name] = results['models']['GQA-2'] | {'method': method}
  results_lib.save_results(tmp_path, results)
  _, page = report.write_report(tmp_path)
  page = page.read_text('utf-8').split('Figure 3.')[1]
  labels = re.findall(r'>([^<]*)</text>', page.split('</figure>')[0])
  assert {'MHA', 'GQA-2', 'MQA', 'GQA-2, svd'} <= set(labels)
  assert 'GQA-2, first' not in labels


def test_a_lower_rate_stands_beside_the_full_one(results, tmp_path):
  models = results['models']
  models['MHA, rate 0.25'] = models['MHA'] | {'rate': 0.25, 'loss': 1.2345}
  results_lib.save_results(tmp_path, results)
  markdown, _ = report.write_report(tmp_path)
  _, after = markdown.read_text('utf-8').split('## The learning rate')
  # Loss and average of both; the average is of 41, BLEU and 62.
  row = next(x for x in after.splitlines() if x.startswith('| MHA'))
  cells = [cell.strip() for cell in row.strip('|').split('|')]
  average = results_lib.average_score(results, models['MHA'])
  assert cells == ['MHA', '2.480', '1.234', *[f'{average:.1f}'] * 2]


def test_what_was_fine_tuned_before_stands_in_its_own_table(
    results, tmp_path
):
  models = results['models']
  for alpha in (0.0, 0.01, 0.1):
    models[f'MQA, alpha {alpha:g}'] = models['MQA'] | {'alpha': alpha}
  without = figure5.blocks(results), tables.format_headline(results)
  assert without[0]
  for name, method in (('MQA', 'mean'), ('MQA, svd', 'svd')):
    models[f'{name}, converted last'] = entry = models['GQA-2'] | {
        'alpha': 0.0, 'method': method, 'num_kv_heads': 1,
        'origin': 'finetuned',
    }  # pyformat: disable
    for key in ('loss', 'loss_per_example', 'step', 'num_params'):
      del entry[key]
  results_lib.save_results(tmp_path, results)
  markdown, page = report.write_report(tmp_path)
  before, after = markdown.read_text('utf-8').split('## A model that is')
  average = results_lib.average_score(results, models['GQA-2'])
  row = f'| MQA, svd, converted last | {average:.1f} | 40.8 | 66.0 | 61.5 |'
  assert row in after
  assert 'converted last' not in after.split('## Loss')[1].split('## ')[0]
  assert 'converted last' not in page.read_text('utf-8').split('Figure 3.')[
      1
  ].split('</figure>')[0]
  # Table 1 has all that was scored; what is drawn or shown of it has not.
  assert row.split('|')[1] in before
  assert (figure5.blocks(results), tables.format_headline(results)) == without


def test_svd_stands_beside_multi_head_models_trained_as_it_is():
  models = {'MHA': {'alpha': 0.05, 'method': None}}
  for name, method in (('MHA', None), ('MQA, svd', 'svd'), ('MQA', 'mean')):
    models[f'{name}, alpha 0'] = {'alpha': 0.0, 'method': method}
    models[f'{name}, rate 0.25'] = {
        'alpha': 0.05, 'method': method, 'rate': 0.25
    }
  del models['MQA, svd, rate 0.25']
  assert set(tables.shown(models)) == {
      'MHA', 'MHA, alpha 0', 'MQA, svd, alpha 0'
  }


def test_a_label_ends_within_the_drawing():
  """M, H and A of DejaVu Sans are 0.863, 0.752 and 0.684 em wide, at 12 px."""
  for seconds in np.linspace(0.5, 1.0, 40):
    points = [
        figures.Point('MHA', 'mha', seconds, 1.0),
        figures.Point('', 'mqa', 1.0, 0.0),
    ]
    svg = figures.scatter(points, title='t', x_label='x', y_label='y')
    found = re.search(r'<text x="([^"]+)"[^>]*r="(\w+)">MHA<', svg)
    x, anchor = found.groups()
    share = {'start': 1.0, 'middle': 0.5, 'end': 0.0}[anchor]
    assert float(x) + share * 12 * (0.863 + 0.752 + 0.684) <= figures.WIDTH


def test_many_models_at_one_time_have_numbers():
  names = [f'GQA-2, svd, rate 0.{i}' for i in range(9)]
  points = [
      figures.Point(name, 'gqa', 1.0, 50 + i / 2)
      for i, name in enumerate(names)
  ] + [figures.Point('MHA', 'mha', 2.0, 60.0)]
  svg = figures.scatter(points, title='t', x_label='x', y_label='y')
  height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
  texts = [
      (text, float(x), float(y), anchor)
      for x, y, anchor, text in re.findall(
          r'<text x="(\S+)" y="(\S+)" text-anchor="(\w+)">([^<]+)<', svg
      )
  ]
  below = {text: y for text, _, y, _ in texts if y > figures.HEIGHT}
  assert max(below.values()) < height
  assert len(set(below.values())) == len(points)
  inside = {}
  for i, point in enumerate(points, 1):
    assert below[str(i)] == below[point.label]
    ((x, y, anchor),) = (
        place for text, *place in texts
        if text == str(i) and place[1] < figures.HEIGHT
    )  # pyformat: disable
    # A digit of DejaVu Sans is 0.636 em wide, at 12 px.
    width = 12 * 0.636 * len(str(i))
    x -= {'start': 0.0, 'middle': width / 2, 'end': width}[anchor]
    inside[i] = x, x + width, y
  for a, b in itertools.combinations(inside.values(), 2):
    assert a[1] <= b[0] or b[1] <= a[0] or abs(a[2] - b[2]) >= 12


def _texts(svg):
  """[(drawing, height, x, y, text)] of a file's drawings."""
  found = []
  for i, drawing in enumerate(svg.split('<svg y=')[1:]):
    height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', drawing)[1])
    for x, y, text in re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)<', drawing
    ):
      found.append((i, height, float(x), float(y), text))
  return found


def test_conversions_are_told_apart_within_their_drawings():
  methods = 'mean', 'first', 'random', 'aligned', 'svd'
  losses = {'0.0': 4.0, '0.1': 3.9}
  cells = [
      {'method': method, 'num_kv_heads': k, 'losses': losses}
      for k in (4, 1) for method in methods
  ] + [{'method': 'none', 'num_kv_heads': 8, 'losses': losses}]
  svg = conversion_methods.figure(cells)
  texts = _texts(svg)
  assert {i for i, *_ in texts} == {0, 1}
  assert all(0 < y < height for _, height, _, y, _ in texts)
  assert [text for *_, text in texts].count('svd') == 2
  for drawing in svg.split('<svg y=')[1:]:
    kinds = re.findall(r'<path class="curve (\w+)" d="[^"]*L', drawing)
    assert len(kinds) == len(set(kinds)) == 6
  # Each has its colour, on dark screens too.
  for kind in set(kinds):
    assert svg.count(f'.curve.{kind} {{') == 2


def test_each_shape_of_a_benchmark_has_its_drawing():
  shapes = {'input_length': 512, 'output_length': 64}
  rows = {
      f'{name}, batch {size}': {
          'num_kv_heads': 6, 'seconds_per_sample': 0.5, 'batch_size': size,
      } | shapes
      for size in (1, 8) for name in ('K=6', 'K=2', 'K=1', 'hf', 'ctranslate2')
  }
  svg = figures.of_benchmark({'config': {'num_heads': 6}, 'rows': rows})
  texts = [(i, text) for i, *_, text in _texts(svg)]
  assert (0, 'batch 1, input 512, output 64') in texts
  assert (1, 'batch 8, input 512, output 64') in texts
  assert texts.count((1, 'K=2')) == texts.count((0, 'hf')) == 1
  with pytest.raises(KeyError):
    figures.of_benchmark({'config': {'num_heads': 6}, 'rows': {}})
  name, row = next(iter(rows.items()))
  for wrong in ({name: row | {'seconds_per_sample': -1}}, {'K=\1': row}):
    with pytest.raises(ValueError):
      figures.of_benchmark({'config': {'num_heads': 6}, 'rows': wrong})


@pytest.mark.parametrize('num_layers, output_length, is_there', [
    (24, 512, True), (24, 64, False), (2, 512, False),
])
def test_the_papers_figure_6_stands_beside_its_shapes(
    num_layers, output_length, is_there
):
  row = {
      'num_kv_heads': 8, 'seconds_per_sample': 0.25, 'batch_size': 32,
      'input_length': 2048, 'output_length': output_length,
  }  # pyformat: disable
  config = {
      'num_heads': 64, 'emb_dim': 4096, 'num_encoder_layers': num_layers,
      'num_decoder_layers': num_layers,
  }  # pyformat: disable
  svg = figures.of_benchmark({'config': config, 'rows': {'K=8': row}})
  theirs = [text for i, *_, text in _texts(svg) if i == 1]
  assert ('2.52' in theirs and 'K=64' in theirs) == is_there


def test_ticks_that_are_near_read_differently():
  for low, high in ((1000.2, 1001.0), (0.0, 23_000.0), (2.9991, 3.0011)):
    ticks = [figures._number(tick) for tick in figures._ticks(low, high)]
    assert len(set(ticks)) == len(ticks) > 3
    numbers = [float(x.replace(',', '')) for x in ticks]
    assert numbers == figures._ticks(low, high)
