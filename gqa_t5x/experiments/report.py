# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a run's results.json into report.md and report.html."""

import collections
import pathlib
import re

from gqa_t5x import storage
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import catalog
from gqa_t5x.experiments import claims
from gqa_t5x.experiments import rendering
from gqa_t5x.experiments import tables
from gqa_t5x.experiments import results as results_lib
from gqa_t5x.experiments.model import ALPHA, FINETUNED, SCRATCH
from gqa_t5x.experiments.tables import DASH

_SAMPLES_A_TASK = 3
_SAMPLE_LETTERS = 600  # Of an input: enough to judge, short enough to read.


REHEARSAL = (
    'A rehearsal only checks that every stage works: its models have hardly '
    'learned, no score or difference here means anything, and no claim is '
    'judged.')


def estimate(finding: claims.Finding) -> str:
  """Returns what a test found, with its interval and unit."""
  if finding.estimate is None:
    return DASH
  sign = '' if finding.unit in ('times', 'of seeds') else '+'
  digits = 3 if finding.unit == 'nats' else 2
  text = (f'{finding.estimate:{sign}.{digits}f}'
          f' [{finding.interval.low:{sign}.{digits}f},'
          f' {finding.interval.high:{sign}.{digits}f}]')
  return f'{text} {finding.unit}'.replace('-', '−')


def claims_as_text(found: list[claims.Finding]) -> str:
  """Returns the verdict on each claim that was tested, and its tests."""
  lines, untested = [], []
  for claim in claims.CLAIMS:
    name = f'{claim.name} {claim.title}'
    tests = [f for f in found if f.claim == claim.name]
    if all(f.verdict == claims.NOT_TESTED for f in tests):
      untested.append(name)
      continue
    lines.append(f'{name}: {claims.verdict(claim.name, found)}')
    for f in tests:
      text = f'  {f.verdict}: {f.test}'
      if f.estimate is not None:
        text += f'; here {estimate(f)}'
      lines.append(f'{text}; paper {f.paper}')
  if untested:
    lines.append(f'Not tested: {", ".join(untested)}')
  return '\n'.join(lines)


def _headline(results: dict) -> rendering.Paragraph:
  model, entries = results['model'], [
      entry for entry in results['models'].values()
      if entry.get('origin') != SCRATCH]
  deeds = [text for text, is_done in (
      ('converted to grouped-query (GQA) and multi-query (MQA) attention',
       bool(entries) or not results['models']),
      (f'uptrained for {results["uptrain_fraction"]:.3g} of its '
       f'{results["pretrain_steps"]:,} pre-training steps',
       any(entry.get('alpha') for entry in entries)),
      ('trained from scratch', len(entries) < len(results['models'])),
      ('fine-tuned and scored', any(
          entry.get('tasks') for entry in results['models'].values())),
      ('timed', _is_timed(results)),
  ) if is_done]
  return rendering.Paragraph(
      f'T5 with multi-head (MHA) attention was {"; ".join(deeds)}; as in the '
      'paper (Ainslie et al. 2023, arXiv 2305.13245), here with '
      f'{model.get("num_encoder_layers", DASH)}+'
      f'{model.get("num_decoder_layers", DASH)} layers of width '
      f'{model.get("emb_dim", DASH)} and {model.get("num_heads", DASH)} query '
      f'heads at scale `{results["scale"]}`. K is the number of key/value '
      'heads, the paper\'s groups.')


def _is_timed(results: dict) -> bool:
  return bool(results['times']) or any(
      entry.get('decode') for entry in results['models'].values())


def _claims(results: dict) -> list:
  found = claims.findings(results)
  tested = [f for f in found if f.verdict != claims.NOT_TESTED]
  untested = [f for f in found if f.verdict == claims.NOT_TESTED]
  warning = []
  if results_lib.is_rehearsal(results):
    warning.append(rendering.Paragraph(f'**{REHEARSAL}**'))
  return [
      *warning,
      rendering.Heading('The paper\'s claims, and ours'),
      rendering.Table(
          'What this run says about them', ('Claim', 'Statement', 'Verdict'),
          tuple((f'{claim.name} {claim.title}', claim.statement,
                 f'**{claims.verdict(claim.name, found)}**')
                for claim in claims.CLAIMS), text_columns=3, cards=True),
      rendering.Table(
          'The tests behind the verdicts',
          ('Claim', 'Test', 'Paper', 'Here, with 95% interval', 'Verdict'),
          tuple((f.claim, f.test, f.paper, estimate(f),
                 f.verdict + (f' ({f.comment})' if f.comment else ''))
                for f in tested), text_columns=5, cards=True, note=(
              'Shown: the whole interval lies where the claim says. '
              'Contradicted: the whole interval lies where it is false. Not '
              'shown: neither. A claim takes the verdict of its worst tested '
              'part. Intervals of scores and losses: paired bootstrap over '
              'examples (or what they are of: see the limits) and seeds; of '
              'times: bootstrap over repeats. With one seed they do not '
              'include the variance over seeds, and with few they are too '
              'narrow. C: the paper\'s claims, O: ours.')),
      *([rendering.Paragraph('Not tested in this run:'), rendering.Bullets(
          tuple(f'{f.claim}: {f.test}. Paper: {f.paper}.' for f in untested))]
        if untested else []),
  ]


def _losses(results: dict) -> list:
  if not results['models']:
    return []
  rows, smaller = [], ''
  if results['uptrain_fraction'] != ALPHA:
    smaller = (f' in the paper; here {ALPHA:g} stands for'
               f' {results["uptrain_fraction"]:.3g}')
  for name, entry in sorted(
      results['models'].items(),
      key=lambda item: (-item[1]['num_kv_heads'], item[0])):
    if entry.get('origin') == FINETUNED:
      continue
    rows.append((name, entry.get('method') or DASH,
                 DASH if entry.get('alpha') is None else f'{entry["alpha"]:g}',
                 tables.whole(entry.get('step')),
                 tables.whole(entry.get('num_params')),
                 tables.loss(entry)))
  return [
      rendering.Heading('Loss'),
      rendering.Table(
          'Validation loss on the pre-training task, nats per target token',
          ('Model', 'Conversion', 'Alpha', 'Step', 'Parameters', 'Loss'),
          tuple(rows), text_columns=2, note=(
               f'Alpha: share of the {results["pretrain_steps"]:,} steps of '
               'pre-training, or of those from scratch, that uptraining takes'
               + smaller + '. MHA is the control, not '
               'converted and continued for the same steps: what it gains or '
               'loses is not due to conversion.')),
  ]


def _shorten(text: str) -> str:
  if len(text) <= _SAMPLE_LETTERS:
    return text
  return text[:_SAMPLE_LETTERS].rstrip() + ' … (cut here)'


def _samples(results: dict) -> list:
  blocks = [rendering.Heading('What the models wrote'), rendering.Paragraph(
      'The first test examples of each task, not chosen.')]
  for column in results_lib.columns(results):
    by_input = {}
    for name, entry in results['models'].items():
      if not tables.is_of_paper(entry):
        continue
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


def _drawn(task: str, clusters: list[str]) -> str:
  """What the intervals of a task's scores draw."""
  names = collections.Counter(clusters)
  largest, count = names.most_common(1)[0]
  return (f'{task}: intervals draw its {len(names)} modules, stories or pages, '
          f'not its {len(clusters)} examples one by one, since those of one '
          f'are alike. The largest, {largest}, has {count} of them.')


def _limits(results: dict) -> rendering.Bullets:
  seeds = results['seeds']
  tasks = [column.task for column in results_lib.columns(results)]
  clusters = results.get('clusters', {})
  items = [
      f'{len(seeds)} training seed{"s" * (len(seeds) != 1)} '
      f'({", ".join(map(str, seeds))}); how much another would change is '
      + ('not known.' if len(seeds) == 1
         else 'known as far as these tell.'),
      ('These models, texts and tasks are small. Nothing here says how large '
       'the differences are for T5-XXL or on the paper\'s data sets, and the '
       'scores of the two tables cannot be compared with each other.'),
      *['CLDR translation is templates, not language: its BLEU says that a '
        'model learned the formats.'] * ('cldr_translate_en_de' in tasks),
      *['The splits of documentation share no module and no text, but near '
        'twins: jax.numpy describes a function as NumPy does. That raises the '
        'scores of all models.'] * ('docs_summarize' in tasks),
      *[_drawn(*of_task) for of_task in clusters.items()],
  ]
  if _is_timed(results):
    items.append(
        f'Times are from {_device(results_lib.timed_on(results))}, not '
        'from TPUs. All models are timed at one batch; the paper used the '
        'largest batch that fits, which favours a small cache more.')
  if any(entry.get('tasks') for entry in results['models'].values()):
    items.append(
        'A dev split chose the best checkpoints, and scores are on the test '
        'split; those of the paper\'s Table 1 are on the dev sets.')
  return rendering.Bullets(tuple(items))


def _device(device: dict) -> str:
  """Returns what a run was timed on."""
  kind = 'cpu' if device.get('backend') == 'cpu' else 'device_kind'
  return device.get(kind, 'one device')


def _duration(seconds: float | None) -> str:
  if seconds is None:
    return DASH
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{seconds:.1f} s'


def _run_facts(results: dict) -> list:
  device, stages = results['device'], results['stages']
  total = sum(stage.get('seconds') or 0.0 for stage in stages)
  # A run may have been continued by a later version.
  commits = {stage.get('commit') for stage in stages} - {None}
  commits = sorted(commits or {results['commit']})

  def listed(values):
    return ', '.join(f'{key} {value}' for key, value in values.items())

  facts = (
      ('Command', f'`{results["command"]}`'),
      *([('But for', results['differences'])]
        if results.get('differences') else []),
      ('Made', results['created']), ('Duration', _duration(total)),
      ('Device', listed(device)),
      *([('Timed on', listed(results['timed_on']['device']))]
        if results.get('timed_on') else []),
      ('Commit', ', '.join(f'`{commit}`' for commit in commits)),
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
          text_columns=3, cards=True, folded=True),
  ]


def _experiment(name: str, results: dict) -> list:
  """Its heading, what makes it, and the rest of its part."""
  command, run = results['command'], results['experiment']
  # A part may have come about by another experiment, which shares its models.
  if run == 'all' or name in run.split(','):
    command = re.sub(r' --experiment \S+', '', command)
    command += f' --experiment {name}'
  source = rendering.Source(command, results_lib.FILE_NAME)
  blocks = catalog.EXPERIMENTS[name].blocks(results)
  return [*blocks[:1], source, *blocks[1:]] if blocks else []


def _blocks(results: dict) -> list:
  return [
      _headline(results), *_claims(results),
      *(block for name in catalog.EXPERIMENTS
        for block in _experiment(name, results)),
      *_losses(results), *_samples(results),
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
  output_dir = storage.local_path(output_dir)
  if output_dir.name == results_lib.FILE_NAME:
    output_dir = output_dir.parent
  results = results_lib.load_results(output_dir)
  try:
    blocks = _blocks(results)
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise UserError(
        f'expected what `gqa-t5x reproduce` wrote in {output_dir}/'
        f'{results_lib.FILE_NAME}, got something else '
        f'({type(error).__name__}: {error}); run it again to write it'
    ) from error
  title = 'Grouped-query attention from a multi-head checkpoint'
  markdown, page = output_dir / 'report.md', output_dir / 'report.html'
  storage.write_text(markdown, rendering.to_markdown(title, blocks))
  storage.write_text(page, rendering.to_html(title, blocks))
  return markdown, page
