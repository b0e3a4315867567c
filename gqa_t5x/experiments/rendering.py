# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A report's blocks, written as Markdown and as one self-contained HTML page.

In the texts of blocks, `code` and **bold** are understood; everything else is
shown as it stands.
"""

import dataclasses
import html
import re


@dataclasses.dataclass(frozen=True)
class Heading:
  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  text: str


@dataclasses.dataclass(frozen=True)
class Source:
  """The command that makes what follows, and the file that has its numbers."""

  command: str
  file: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; `text_columns` of its columns, the first, hold text.

  The others hold numbers. `cards` shows each row as a card on a phone, for
  tables with long texts. A page shows the rows of a `folded` one on demand.
  """

  caption: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  note: str = ''
  text_columns: int = 1
  cards: bool = False
  folded: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
  """Panels side by side, (title, svg) each; Markdown shows only `note`."""

  caption: str
  panels: tuple[tuple[str, str], ...]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Sample:
  """An example with what each model made of it; shown as it is, unmarked."""

  title: str
  parts: tuple[tuple[str, str], ...]


def _markdown_cell(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ').replace('<', '&lt;')


def _markdown_table(table: Table) -> str:
  rules = [':--' if i < table.text_columns else '--:'
           for i in range(len(table.header))]
  rows = [table.header, rules, *table.rows]
  lines = ['| ' + ' | '.join(map(_markdown_cell, row)) + ' |' for row in rows]
  note = f'\n\n{table.note}' if table.note else ''
  return f'**{table.caption}**\n\n' + '\n'.join(lines) + note


def _markdown_sample(sample: Sample) -> str:
  text = '\n'.join(f'{name}: {value}' for name, value in sample.parts)
  longest = max((len(run) for run in re.findall('`+', text)), default=0)
  fence = '`' * max(3, longest + 1)
  return f'{sample.title}\n\n{fence}text\n{text}\n{fence}'


def _markdown_block(block) -> str:
  if isinstance(block, Heading):
    return f'## {block.text}'
  if isinstance(block, Paragraph):
    return block.text.replace('<', '&lt;')
  if isinstance(block, Source):
    link = f'[{block.file}]({block.file})'
    return f'Made by `{block.command}`; numbers in {link}.'
  if isinstance(block, Bullets):
    return '\n'.join('- ' + item.replace('<', '&lt;') for item in block.items)
  if isinstance(block, Table):
    return _markdown_table(block)
  if isinstance(block, Figure):
    return f'**{block.caption}** (drawn in report.html). {block.note}'
  return _markdown_sample(block)


def to_markdown(title: str, blocks) -> str:
  """Returns the report as Markdown, without its drawings."""
  return '\n\n'.join([f'# {title}', *map(_markdown_block, blocks)]) + '\n'


def _inline(text: str) -> str:
  text = html.escape(text, quote=False)
  text = re.sub(r'`([^`]+)`', r'<code>\1</code>', text)
  return re.sub(r'\*\*([^*]+)\*\*', r'<strong>\1</strong>', text)


def _html_table(table: Table) -> str:
  def cell(tag, i, text):
    # On a phone a card shows each cell's heading before it.
    label = (f' data-label="{html.escape(table.header[i])}"'
             if table.cards and tag == 'td' and i else '')
    kind = ' class="text"' if i < table.text_columns else ''
    return f'<{tag}{kind}{label}>{_inline(text)}</{tag}>'

  def row(tag, cells):
    return '<tr>' + ''.join(
        cell(tag, i, text) for i, text in enumerate(cells)) + '</tr>'
  kind = ' class="cards"' if table.cards else ''
  note = f'<p class="note">{_inline(table.note)}</p>' if table.note else ''
  # The title stands outside the table, or it would scroll away with it.
  title = f'class="caption">{_inline(table.caption)}'
  before, after = f'<p {title}</p>', ''
  if table.folded:
    before, after = f'<details><summary {title}</summary>', '</details>'
  return (f'{before}<div class="scroll" tabindex="0">'
          f'<table{kind} aria-label="{html.escape(table.caption)}">'
          f'<thead>{row("th", table.header)}</thead><tbody>\n'
          + '\n'.join(row('td', cells) for cells in table.rows)
          + f'\n</tbody></table></div>{note}{after}')


def _html_figure(figure: Figure) -> str:
  panels = ''.join(
      f'<div class="panel"><p>{_inline(title)}</p>\n{svg}\n</div>'
      for title, svg in figure.panels)
  return (f'<figure><figcaption><strong>{_inline(figure.caption)}</strong> '
          f'{_inline(figure.note)}</figcaption>'
          f'<div class="panels">{panels}</div></figure>')


def _html_sample(sample: Sample) -> str:
  parts = ''.join(
      f'<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>'
      for name, value in sample.parts)
  return (f'<div class="sample"><h3>{_inline(sample.title)}</h3>'
          f'<dl>{parts}</dl></div>')


def _html_block(block) -> str:
  if isinstance(block, Heading):
    return f'<h2>{_inline(block.text)}</h2>'
  if isinstance(block, Paragraph):
    return f'<p>{_inline(block.text)}</p>'
  if isinstance(block, Source):
    link = html.escape(block.file)
    return (f'<p class="note">Made by {_inline(f"`{block.command}`")}; numbers '
            f'in <a href="{link}">{link}</a>.</p>')
  if isinstance(block, Bullets):
    items = ''.join(f'<li>{_inline(item)}</li>' for item in block.items)
    return f'<ul>{items}</ul>'
  if isinstance(block, Table):
    return _html_table(block)
  if isinstance(block, Figure):
    return _html_figure(block)
  return _html_sample(block)


# Blue, orange and green of Okabe and Ito's palette, which colour-blind readers
# tell apart, made lighter where the page is dark.
_STYLE = '''
:root { color-scheme: light dark; --page: #fff; --ink: #1a1a1a; --soft: #555;
  --line: #d5d5d5; --band: #f4f5f7; --mha: #0072b2; --gqa: #b85c00;
  --mqa: #007a5a; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #15181c;
  --ink: #e8e8e8; --soft: #a9b0b8; --line: #3a4048; --band: #1f242a;
  --mha: #5ab4e6; --gqa: #f0a030; --mqa: #35c79a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.25rem 1rem 4rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem;
  border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p, ul { max-width: 46rem; overflow-wrap: anywhere; } li { margin: .25rem 0; }
a { color: inherit; }
code { font-size: .9em; overflow-wrap: anywhere; }
.caption { font-weight: 600; margin: 1.25rem 0 .4rem; break-after: avoid; }
.scroll { overflow-x: auto; margin: 0 0 .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .6rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom;
  white-space: normal; }
th.text, td.text { text-align: left; }
.cards td:not(:first-child) { white-space: normal;
  overflow-wrap: break-word; }
tr { background: var(--page); }
tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td:first-child { position: sticky; left: 0;
  background: inherit; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
figcaption strong { color: var(--ink); }
figure { margin: 1.5rem 0; }
.panels { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.panel { max-width: 30rem; break-inside: avoid; }
.panel p { margin: .75rem 0 .25rem; font-weight: 600; font-size: .9rem; }
svg { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .mha { fill: var(--mha); } svg .gqa { fill: var(--gqa); }
svg .mqa { fill: var(--mqa); }
svg .curve { fill: none; stroke-width: 2; } svg .curve.mha {
  stroke: var(--mha); } svg .curve.gqa { stroke: var(--gqa); }
svg .curve.mqa { stroke: var(--mqa); }
.sample { background: var(--band); border-radius: .4rem; padding: .75rem 1rem;
  margin: .75rem 0; break-inside: avoid; }
dl { margin: 0; display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem .9rem; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  th, td { padding: .35rem .45rem; }
  .cards thead { display: none; }
  .cards, .cards tbody, .cards tr, .cards td { display: block;
    text-align: left; }
  .cards td:first-child { position: static; font-weight: 600;
    white-space: normal; }
  .cards tr { border: 1px solid var(--line); border-radius: .4rem;
    padding: .5rem .75rem; margin: 0 0 .6rem; }
  .cards td { border: 0; padding: .1rem 0; }
  .cards td[data-label]::before { content: attr(data-label) ": ";
    color: var(--soft); }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .4rem; }
}
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; } th, td { padding: .2rem .35rem; }
  table { font-size: .8rem; } tr { break-inside: avoid; }
  figure { break-inside: avoid; } h2 { break-after: avoid; }
  * { print-color-adjust: exact; } }
'''


def to_html(title: str, blocks) -> str:
  """Returns the report as one HTML page that needs nothing outside."""
  body = '\n'.join(map(_html_block, blocks))
  return (f'<!doctype html>\n<html lang="en">\n<head>\n'
          f'<meta charset="utf-8">\n<meta name="viewport" '
          f'content="width=device-width, initial-scale=1">\n'
          f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n'
          f'</head>\n<body>\n<main>\n<h1>{html.escape(title)}</h1>\n{body}\n'
          f'</main>\n</body>\n</html>\n')
