# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a run's results.json into report.md and report.html."""

import pathlib

from gqa_t5x.experiments import claims, figures, paper, rendering, tables
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments.tables import DASH, format_table

__all__ = ['format_table', 'write_report']

_SAMPLES_A_TASK = 3
_SAMPLE_LETTERS = 600  # Of an input: enough to judge, short enough to read.


def _interval(finding: claims.Finding) -> str:
  if finding.estimate is None:
    return DASH
  sign = '' if finding.unit == 'times' else '+'
  digits = 3 if finding.unit == 'nats' else 2
  text = f'{finding.estimate:{sign}.{digits}f}'
  if finding.interval is not None:
    text += (f' [{finding.interval.low:{sign}.{digits}f}, '
             f'{finding.interval.high:{sign}.{digits}f}]')
  return f'{text} {finding.unit}'.replace('-', '−')


def _headline(results: dict) -> rendering.Paragraph:
  model = results['model']
  return rendering.Paragraph(
      'A multi-head (MHA) T5 checkpoint was converted to grouped-query (GQA) '
      'and multi-query (MQA) attention, uptrained for '
      f'{results["uptrain_fraction"]:.3g} of its {results["pretrain_steps"]:,} '
      'pre-training steps, fine-tuned, scored and timed, as in the paper '
      '(Ainslie et al. 2023, arXiv 2305.13245), here with '
      f'{model.get("num_encoder_layers", DASH)}+'
      f'{model.get("num_decoder_layers", DASH)} layers of width '
      f'{model.get("emb_dim", DASH)} and {model.get("num_heads", DASH)} query '
      f'heads at scale `{results["scale"]}`. K is the number of key/value '
      'heads, the paper\'s groups.')


def _claims(results: dict) -> list:
  found = claims.findings(results)
  tested = [f for f in found if f.verdict != claims.NOT_TESTED]
  untested = [f for f in found if f.verdict == claims.NOT_TESTED]
  return [
      rendering.Heading('The paper\'s claims'),
      rendering.Table(
          'What this run says about them', ('Claim', 'Statement', 'Verdict'),
          tuple((f'{claim.name} {claim.title}', claim.statement,
                 f'**{claims.verdict(claim.name, found)}**')
                for claim in paper.CLAIMS), text_columns=3, cards=True),
      rendering.Table(
          'The tests behind the verdicts',
          ('Claim', 'Test', 'Paper', 'Here, with 95% interval', 'Verdict'),
          tuple((f.claim, f.test, f.paper, _interval(f),
                 f.verdict + (f' ({f.comment})' if f.comment else ''))
                for f in tested), text_columns=5, cards=True, note=(
              'Shown: the whole interval lies where the claim says. '
              'Contradicted: the whole interval lies where it is false. Not '
              'shown: neither. A claim takes the verdict of its worst tested '
              'part. Intervals of scores and losses: paired bootstrap over '
              'examples; of times: bootstrap over repeats. They do not '
              'include the variance over training seeds.')),
      *([rendering.Paragraph('Not tested in this run:'), rendering.Bullets(
          tuple(f'{f.claim}: {f.test}. Paper: {f.paper}.' for f in untested))]
        if untested else []),
  ]


def _decode_note(results: dict) -> str:
  decodes = [entry.get('decode') or {} for entry in results['models'].values()]
  shapes = {(d.get('batch_size'), d.get('input_length'),
             d.get('output_length'), d.get('dtype')) for d in decodes}
  if len(shapes) != 1 or not decodes[0]:
    return 'The models were timed at different shapes, or not all were timed.'
  batch, inputs, outputs, dtype = shapes.pop()
  return (f'T_infer: median seconds per sample at batch {batch}, {inputs} '
          f'input and {outputs} output tokens, {dtype or "float32"}, the same '
          'for every model, encoder and prefill included, compilation not.')


def _above_baselines(results: dict) -> str:
  below, unknown = [], []
  for column in results_lib.TASK_COLUMNS:
    untrained = results['baselines'].get(column.task, {}).get('untrained')
    trivial = tables.best_trivial(results, column.task)
    if untrained is None or trivial is None:
      unknown.append(column.title)
      continue
    floor = max(untrained, trivial[1])
    for name, entry in results['models'].items():
      value = results_lib.main_score(entry, column)
      if value is None or value <= floor:
        below.append(f'{name} on {column.title}')
  if below:
    return ('**Not above both baselines: ' + ', '.join(below) + '; nothing '
            'can be read from those scores.**')
  if unknown:
    return f'Baselines not measured on: {", ".join(unknown)}.'
  return 'Every model is above both baselines on every task.'


def _main_tables(results: dict) -> list:
  tasks = '; '.join(f'{column.title}: {column.description}'
                    for column in results_lib.TASK_COLUMNS)
  return [
      rendering.Heading('Quality and time'),
      rendering.Table(
          'The paper\'s Table 1 (dev sets, printed values)',
          tables.PAPER_HEADER, tables.paper_rows(), note=(
              'T_infer: seconds per sample per TPU v4 chip. '
              + paper.TABLE_1_NOTE)),
      rendering.Table(
          'This run: the same columns for our tasks (test splits)',
          tables.OUR_HEADER, tables.our_rows(results), note=(
              f'{_decode_note(results)} Cache: bytes that each input token '
              'takes in the decoder\'s cross-attention cache and each output '
              'token in its self-attention cache, per sample. '
              'Untrained: random parameters, on the first '
              f'{results_lib.UNTRAINED_EXAMPLES} examples. '
              f'Trivial: the best baseline that learns nothing. {tasks}.')),
      rendering.Paragraph(_above_baselines(results)),
      *_timing_table(results),
  ]


def _timing_table(results: dict) -> list:
  rows = []
  for name, entry in results['models'].items():
    decode = entry.get('decode')
    if not decode:
      continue
    rows.append((
        name, tables.significant(decode.get('seconds_per_sample')),
        _percent(decode.get('spread')),
        tables.significant(decode.get('prefill_seconds')),
        tables.significant(decode.get('ms_per_step')),
        tables.significant(decode.get('limit_ms_per_step')),
        _percent(decode.get('bandwidth_share')),
        tables.whole(decode.get('cache_bytes_allocated'))))
  if not rows:
    return []
  return [rendering.Table(
      'Where the time goes', ('Model', 's per sample', 'Spread',
                              'Prefill (s)', 'Step (ms)', 'Limit (ms)',
                              'Of limit', 'Cache (bytes)'),
      tuple(rows), note=(
          'Prefill (encoder and cross-attention keys and values) and step are '
          'for the whole batch; spread is (longest − shortest) / median of '
          'the repeats; the limit of a step is the time to read the '
          'decoder\'s weights and the filled cache once at '
          f'{_bandwidth(results)}.'))]


def _bandwidth(results: dict) -> str:
  for entry in results['models'].values():
    measured = tables.decode_value(entry, 'bandwidth')
    if measured:
      return (f'{measured["best"] / 1e9:.1f} GB/s, the best bandwidth measured '
              'in the same run')
  return 'the best bandwidth measured in the same run'


def _percent(value) -> str:
  return DASH if value is None else f'{100 * value:.0f}%'


def _figures(results: dict) -> list:
  models = results['models']
  ours, times = [], []
  for name, entry in models.items():
    seconds = tables.decode_value(entry, 'seconds_per_sample')
    average = results_lib.average_score(entry)
    kind = tables.kind(name)
    if seconds is not None and average is not None:
      ours.append(figures.Point(name, kind, seconds, average))
    if seconds is not None:
      heads = entry['num_kv_heads']
      times.append(figures.Point(str(heads), kind, heads, seconds,
                                 tables.significant(seconds)))
  times.sort(key=lambda point: point.x)
  theirs = [figures.Point(name, tables.kind(name), x, y)
            for name, x, y in paper.FIGURE_3]
  their_times = [
      figures.Point(str(k), {1: 'mqa', 64: 'mha'}.get(k, 'gqa'), k, seconds,
                     f'{seconds:.2f}')
      for k, seconds in sorted(paper.FIGURE_6.items())]

  def panels(draw, data, x_label, y_label):
    return tuple(
        (title, draw(points, title=f'{title}: {y_label} against {x_label}',
                     x_label=x_label, y_label=y_label))
        for title, points in data if points)
  return [
      rendering.Heading('Figures'),
      rendering.Figure(
          'Quality against time, as the paper\'s Figure 3.',
          panels(figures.scatter, (('Paper (printed values)', theirs),
                                   ('This run', ours)),
                 'seconds per sample', 'average score'),
          note=paper.FIGURE_3_NOTE + ' Up and to the left is better; the two '
          'panels have their own scales. Circle: MHA, square: GQA, triangle: '
          'MQA. The numbers are those of the tables above.'),
      rendering.Figure(
          'Time per sample against the number of key/value heads, as the '
          'paper\'s Figure 6.',
          panels(figures.bars, (('Paper (digitised, ±0.02 s)', their_times),
                                ('This run', times)),
                 'key/value heads K', 'seconds per sample'),
          note=paper.FIGURE_6_NOTE),
      rendering.Table(
          'The paper\'s Figure 6 as numbers (digitised)',
          ('K', *(p.label for p in their_times)),
          (('s per sample', *(p.value for p in their_times)),)),
  ]


def _losses(results: dict) -> list:
  def loss(value):
    return DASH if value is None else f'{value:.3f}'
  rows = []
  for name, entry in results['models'].items():
    label = f'{name}, continued' if name == 'MHA' else name
    before, after = entry.get('loss_converted'), entry.get('loss_uptrained')
    change = (DASH if None in (before, after)
              else f'{after - before:+.3f}'.replace('-', '−'))
    rows.append((label, tables.whole(entry.get('num_params')), loss(before),
                 loss(after), change))
  steps = round(results['uptrain_fraction'] * results['pretrain_steps'])
  return [
      rendering.Heading('Conversion and uptraining'),
      rendering.Table(
          'Validation loss on the pre-training task, nats per target token',
          ('Model', 'Parameters', 'After conversion', 'After uptraining',
           'Change'), tuple(rows), note=(
               f'Uptraining: alpha {results["uptrain_fraction"]:g}, {steps:,} '
               f'steps after {results["pretrain_steps"]:,} of pre-training. '
               'MHA is the control, not converted and continued for the same '
               'steps: what it gains is not due to conversion.')),
  ]


def _shorten(text: str) -> str:
  if len(text) <= _SAMPLE_LETTERS:
    return text
  return text[:_SAMPLE_LETTERS].rstrip() + ' … (cut here)'


def _samples(results: dict) -> list:
  blocks = [rendering.Heading('What the models wrote'), rendering.Paragraph(
      'The first test examples of each task, not chosen.')]
  for column in results_lib.TASK_COLUMNS:
    by_input = {}
    for name, entry in results['models'].items():
      task = entry.get('tasks', {}).get(column.task, {})
      for sample in task.get('samples') or ():
        key = (sample['input'], sample['target'])
        by_input.setdefault(key, []).append((name, sample['prediction']))
    chosen = list(by_input.items())[:_SAMPLES_A_TASK]
    for number, ((text, target), predictions) in enumerate(chosen, 1):
      blocks.append(rendering.Sample(
          f'{column.title}, example {number}',
          (('Input', _shorten(text)), ('Target', target), *predictions)))
  return blocks if len(blocks) > 2 else []


def _limits(results: dict) -> rendering.Bullets:
  seeds = results['seeds']
  items = [
      f'{len(seeds)} training seed{"s" * (len(seeds) != 1)} '
      f'({", ".join(map(str, seeds))}): the intervals are over examples; how '
      'much another seed would change is '
      + ('not known.' if len(seeds) == 1 else 'not part of them.'),
      ('These models, texts and tasks are small. Nothing here says how large '
       'the differences are for T5-XXL or on the paper\'s data sets, and the '
       'scores of the two tables cannot be compared with each other.'),
      ('CLDR translation is templates, not language: its BLEU says that a '
       'model learned the formats.'),
      (f'Times are from {results["device"].get("cpu", "one device")}, not '
       'from TPUs. All models are timed at one batch; the paper used the '
       'largest batch that fits, which favours a small cache more.'),
      ('A dev split chose the best checkpoints, and scores are on the test '
       'split; those of the paper\'s Table 1 are on the dev sets.'),
  ]
  if results['scale'] == 'smoke':
    items.insert(0, '**Scale smoke only checks that every stage works; its '
                    'models have hardly learned.**')
  return rendering.Bullets(tuple(items))


def _duration(seconds: float | None) -> str:
  if seconds is None:
    return DASH
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{seconds:.1f} s'


def _run_facts(results: dict) -> list:
  device, stages = results['device'], results['stages']
  total = sum(stage.get('seconds') or 0.0 for stage in stages)

  def listed(values):
    return ', '.join(f'{key} {value}' for key, value in values.items())
  facts = (
      ('Command', f'`{results["command"]}`'),
      ('Made', results['created']), ('Duration', _duration(total)),
      ('Device', listed(device)), ('Commit', f'`{results["commit"]}`'),
      ('Seeds', ', '.join(map(str, results['seeds']))),
      ('Corpus', listed(results['corpus'])),
      ('Model', listed(results['model'])),
      ('Versions', listed(results['versions'])))
  return [
      rendering.Heading('What was run'),
      rendering.Table('The run', ('What', 'Value'), facts, text_columns=2,
                      cards=True),
      rendering.Table(
          'Its stages', ('Stage', 'Command', 'Time'),
          tuple((stage['name'], f'`{stage["command"]}`'
                 if stage.get('command') else DASH,
                 _duration(stage.get('seconds'))) for stage in stages),
          text_columns=3, cards=True),
  ]


def _blocks(results: dict) -> list:
  return [
      _headline(results), *_claims(results), *_main_tables(results),
      *_figures(results), *_losses(results), *_samples(results),
      rendering.Heading('What this run does not show'), _limits(results),
      *_run_facts(results)]


def write_report(output_dir) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes report.md and report.html from results.json in the same folder.

  Each file is written whole or not at all.

  Args:
    output_dir: folder of a run.

  Returns:
    The paths of report.md and report.html.

  Raises:
    UserError: results.json is missing or not such a file.
  """
  results = results_lib.load_results(output_dir)
  blocks = _blocks(results)
  title = 'Grouped-query attention from a multi-head checkpoint'
  output_dir = pathlib.Path(output_dir)
  markdown, page = output_dir / 'report.md', output_dir / 'report.html'
  results_lib.write_text(markdown, rendering.to_markdown(title, blocks))
  results_lib.write_text(page, rendering.to_html(title, blocks))
  return markdown, page
