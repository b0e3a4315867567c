# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The report's figures as small SVG drawings, without a plotting library.

Text stays text and takes the page's font and colour; marks take their colour
from the page's CSS classes `mha`, `gqa`, `mqa` and their shape from here, so
that they differ in print, on a dark screen and to a colour-blind reader.
"""

import dataclasses
import html
import math
import re
from collections.abc import Sequence

from gqa_t5x.experiments import paper
from gqa_t5x.experiments import results as results_lib

WIDTH, HEIGHT = 360, 250  # About a phone's width: text is never scaled down.
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 348, 18, 206  # The plot's area.
_MARKED = 12  # Curves of more points have no marks.
# What is no kind of attention, such as methods, in a file of its own.
SERIES = tuple(f'series{i}' for i in range(7))
_SHAPES = {'mha': 0, 'gqa': 1, 'mqa': 2} | {
    name: i % 3 for i, name in enumerate(SERIES)}
_STEP = 15  # Between the lines of a legend.
_MOST_INSIDE = 4  # Curves whose legend has room among them.
# Widths at the page's 12 px figure font, roughly; no letter but W is wider.
_LETTER, _CAPITAL = 6.7, 10.4


@dataclasses.dataclass(frozen=True)
class Point:
  """A model in a figure; kind is 'mha', 'gqa' or 'mqa'.

  `value` is y as it is written on a bar.
  """

  label: str
  kind: str
  x: float
  y: float
  value: str = ''


@dataclasses.dataclass(frozen=True)
class Line:
  """A curve through points (x, y); kind as for a Point, or of `SERIES`."""

  label: str
  kind: str
  points: tuple[tuple[float, float], ...]


def _ticks(low: float, high: float) -> list[float]:
  """Round numbers from at most `low` to at least `high`."""
  if low == high:
    high = low + 1.0
  raw = (high - low) / 4
  scale = 10.0 ** math.floor(math.log10(raw))
  step = next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= raw * .999)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


def _number(value: float) -> str:
  return f'{value:,.10g}'  # As many digits as tell ticks apart.


def _text(x, y, text, anchor='middle', extra='') -> str:
  return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>'
          f'{html.escape(text)}</text>')


def _mark(kind: str, x: float, y: float) -> str:
  """A circle for MHA, a square for GQA, a triangle for MQA."""
  shape = _SHAPES[kind]
  if shape == 0:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
  if shape == 1:
    return (f'<rect class="{kind}" x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" '
            'width="11" height="11"/>')
  return (f'<path class="{kind}" d="M{x:.1f} {y - 7:.1f}l7 12h-14z"/>')


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
  return (f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
          f'aria-label="{html.escape(title)}">' + ''.join(parts) + '</svg>')


def _y_axis(ticks, to_y, label) -> list[str]:
  parts = []
  for tick in ticks:
    parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" '
                 f'y1="{to_y(tick):.1f}" y2="{to_y(tick):.1f}"/>')
    parts.append(_text(_LEFT - 6, to_y(tick) + 4, _number(tick), 'end',
                       ' class="tick"'))
  middle = (_TOP + _BOTTOM) / 2
  parts.append(_text(11, middle, label,
                     extra=f' transform="rotate(-90 11 {middle:g})"'))
  return parts


def _place_labels(labels, positions) -> list[str] | None:
  """Puts labels right, left, above or below their marks; None without room."""
  taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in positions]
  parts = []
  for label, (x, y) in zip(labels, positions, strict=True):
    width = sum(_CAPITAL if letter.isupper() else _LETTER for letter in label)
    choices = [(x, y - 12, 'middle', x - width / 2),
               (x, y + 21, 'middle', x - width / 2)]
    # Farther off as well, where marks or labels stand side by side.
    beside = [choice for off in (11, 22, 33, 44)
              for choice in ((x + off, y + 4, 'start', x + off),
                             (x - off, y + 4, 'end', x - off - width))]
    for text_x, text_y, anchor, left in beside[:2] + choices + beside[2:]:
      box = (left, text_y - 11, left + width, text_y + 3)
      inside = (box[0] > _LEFT and box[2] < WIDTH and box[1] > 0
                and box[3] < _BOTTOM)
      if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3]
                            and t[1] < box[3] for t in taken):
        break
    else:
      return None
    taken.append(box)
    parts.append(_text(text_x, text_y, label, anchor))
  return parts


def scatter(points: Sequence[Point], *, title: str, x_label: str,
            y_label: str) -> str:
  """Returns an SVG of y against x; x starts at 0, y near its values."""
  x_ticks = _ticks(0, max(p.x for p in points) * 1.05)
  ys = [p.y for p in points]
  margin = max(0.15 * (max(ys) - min(ys)), 0.05)
  y_ticks = _ticks(min(ys) - margin, max(ys) + margin)

  def to_x(x):
    return _LEFT + (_RIGHT - _LEFT) * x / x_ticks[-1]

  def to_y(y):
    share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return _BOTTOM - (_BOTTOM - _TOP) * share

  parts = _y_axis(y_ticks, to_y, y_label)
  for tick in x_ticks:
    # The last one would stick out if it were long.
    half = _LETTER * len(_number(tick)) / 2
    parts.append(_text(min(to_x(tick), WIDTH - half), _BOTTOM + 18,
                       _number(tick), extra=' class="tick"'))
  parts.append(_text((_LEFT + _RIGHT) / 2, HEIGHT - 6, x_label))
  positions = [(to_x(p.x), to_y(p.y)) for p in points]
  parts += [_mark(p.kind, *xy) for p, xy in zip(points, positions)]
  labels, height = [p.label for p in points], HEIGHT
  placed = _place_labels(labels, positions)
  if placed is None:  # Numbers there, and what they stand for below.
    numbers = [str(i) for i in range(1, len(labels) + 1)]
    placed = _place_labels(numbers, positions) or []
    for number, point in zip(numbers, points):
      height += _STEP
      placed += [_text(_LEFT + 12, height - 3, number, 'end'),
                 _mark(point.kind, _LEFT + 28, height - 7),
                 _text(_LEFT + 44, height - 3, point.label, 'start')]
    height += 6
  return _svg(title, parts + placed, height)


def bars(points: Sequence[Point], *, title: str, x_label: str,
         y_label: str) -> str:
  """Returns an SVG of one bar a point, in order, from 0 to its y.

  The label stands below the bar, the value on it; x is not used.
  """
  y_ticks = _ticks(0, max(p.y for p in points) * 1.05)

  def to_y(y):
    return _BOTTOM - (_BOTTOM - _TOP) * y / y_ticks[-1]

  slot = (_RIGHT - _LEFT) / len(points)
  width = min(0.7 * slot, 56)
  parts = _y_axis(y_ticks, to_y, y_label)
  for i, point in enumerate(points):
    x = _LEFT + (i + 0.5) * slot
    parts.append(f'<rect class="{point.kind}" x="{x - width / 2:.1f}" '
                 f'y="{to_y(point.y):.1f}" width="{width:.1f}" '
                 f'height="{_BOTTOM - to_y(point.y):.1f}"/>')
    parts.append(_text(x, to_y(point.y) - 5, point.value))
    parts.append(_text(x, _BOTTOM + 18, point.label, extra=' class="tick"'))
  parts.append(_text((_LEFT + _RIGHT) / 2, HEIGHT - 6, x_label))
  return _svg(title, parts)


def lines(curves: Sequence[Line], *, title: str, x_label: str,
          y_label: str) -> str:
  """Returns an SVG of curves; a curve of one point is a level all through.

  Marks tell the kinds of few points apart; the legend stands on the right,
  above or below the curves, where there is more room, or, where it is long,
  below the drawing.
  """
  xs = [x for curve in curves for x, _ in curve.points]
  ys = [y for curve in curves for _, y in curve.points]
  x_ticks = _ticks(min([0, *xs]), max(xs))
  margin = max(0.05 * (max(ys) - min(ys)), 1e-3)
  y_ticks = _ticks(min(ys) - margin, max(ys) + margin)
  right = _RIGHT - 8

  def place(x, y):
    share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return (_LEFT + (right - _LEFT) * (x - x_ticks[0]) / (
        x_ticks[-1] - x_ticks[0]), _BOTTOM - (_BOTTOM - _TOP) * share)

  parts = _y_axis(y_ticks, lambda y: place(0, y)[1], y_label)
  for tick in x_ticks:
    parts.append(_text(place(tick, 0)[0], _BOTTOM + 18, _number(tick),
                       extra=' class="tick"'))
  parts.append(_text((_LEFT + _RIGHT) / 2, HEIGHT - 6, x_label))
  # Of the right half of each curve.
  late = [place(x, y)[1] for curve in curves for x, y in curve.points
          if len(curve.points) == 1 or x >= (x_ticks[0] + max(xs)) / 2]
  is_above = min(late) - _TOP > _BOTTOM - max(late)
  first = _TOP + 12 if is_above else _BOTTOM - _STEP * (len(curves) - 1) - 8
  letters = max(len(curve.label) for curve in curves)
  left, height = _RIGHT - _LETTER * letters, HEIGHT
  if len(curves) > _MOST_INSIDE:
    first, left = HEIGHT + 12, _LEFT + 32
    height += _STEP * len(curves) + 12
  for i, curve in enumerate(curves):
    points = curve.points
    if len(points) == 1:
      points = ((x_ticks[0], points[0][1]), (x_ticks[-1], points[0][1]))
    placed = [place(x, y) for x, y in points]
    path = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in placed)
    dash = ('', '6 3', '2 3')[i % 3]
    parts.append(f'<path class="curve {curve.kind}" d="M{path}" '
                 f'stroke-dasharray="{dash or "none"}"/>')
    if 1 < len(curve.points) <= _MARKED:
      parts += [_mark(curve.kind, x, y) for x, y in placed]
    y = first + i * _STEP
    parts.append(f'<path class="curve {curve.kind}" d="M{left - 32:.1f} '
                 f'{y:.1f}h26" stroke-dasharray="{dash or "none"}"/>')
    if 1 < len(curve.points) <= _MARKED:
      parts.append(_mark(curve.kind, left - 19, y))
    parts.append(_text(left, y + 4, curve.label, 'start'))
  return _svg(title, parts, height)


def panels(draw, data, x_label: str, y_label: str) -> tuple:
  """Returns a Figure's panels: of (title, points) each, drawn by `draw`."""
  return tuple(
      (title, draw(points, title=f'{title}: {y_label} against {x_label}',
                   x_label=x_label, y_label=y_label))
      for title, points in data if points)


# Colours of a drawing that is on no page, on white and on black; of series they
# are near those of Okabe and Ito, which the colour-blind tell apart too.
_COLOURS = {
    'mha': ('#0072b2', '#5ab4e6'), 'gqa': ('#b85c00', '#f0a030'),
    'mqa': ('#007a5a', '#35c79a'), 'peer': ('#8a8f98', '#8a8f98'),
} | dict(zip(SERIES, (
    ('#d55e00', '#ff8a3c'), ('#009e73', '#35c79a'), ('#cc79a7', '#e79ac4'),
    ('#b08a00', '#f0e442'), ('#3a9fd0', '#56b4e9'), ('#777777', '#b0b0b0'),
    ('#8a4fbf', '#b98af0'),
)))  # pyformat: disable


def _style() -> str:
  def rules(text, tick, grid, of):
    marks = ''.join(
        f'.{kind} {{ fill: {colours[of]}; }} '
        f'.curve.{kind} {{ fill: none; stroke: {colours[of]}; }} '
        for kind, colours in _COLOURS.items())
    return (f'text {{ fill: {text}; }} .tick {{ fill: {tick}; }} '
            f'.grid {{ stroke: {grid}; }} {marks}')

  return (
      'text { font: 12px system-ui, sans-serif; } .curve { stroke-width: 2; } '
      + rules('#1a1a1a', '#555', '#d5d5d5', 0)
      + '@media (prefers-color-scheme: dark) { '
      + rules('#e8e8e8', '#a9b0b8', '#3a4048', 1) + '}')


def standalone(drawings: Sequence[str]) -> str:
  """Returns drawings, one below the other, as a file of its own."""
  placed, top = [], 0
  for drawing in drawings:
    height = int(re.match(r'<svg viewBox="0 0 \d+ (\d+)"', drawing)[1])
    placed.append(drawing.replace(
        '<svg ', f'<svg y="{top}" width="{WIDTH}" height="{height}" ', 1))
    top += height
  return (f'<svg viewBox="0 0 {WIDTH} {top}" width="{2 * WIDTH}" '
          'xmlns="http://www.w3.org/2000/svg">'
          f'<style>{_style()}</style>{"".join(placed)}</svg>\n')


def of_benchmark(found: dict) -> str:
  """Returns a figure like the paper's Figure 6, as a file of its own.

  Each shape has a drawing, and those of the paper's Figure 6 have its beside.

  Args:
    found: what `gqa-t5x benchmark decode --json` printed.

  Raises:
    KeyError: if it is something else.
    ValueError: if a time is none, or a name cannot be printed.
  """
  most = found['config']['num_heads']
  drawn, is_papers = {}, False
  for shape, rows in results_lib.rows_by_shape(found).items():
    drawn[shape] = []
    # Peers have MHA's heads, and come last.
    for name, row in sorted(rows.items(), key=lambda item: (
        not item[0].startswith('K='), -item[1]['num_kv_heads'])):
      heads, seconds = row['num_kv_heads'], row['seconds_per_sample']
      kind = {most: 'mha', 1: 'mqa'}.get(heads, 'gqa')
      drawn[shape].append(Point(
          name, kind if name.startswith('K=') else 'peer', 0, seconds,
          f'{seconds:.3g}'))
      is_papers |= paper.is_figure_6(
          found['config'], row['input_length'], row['output_length'])
  if is_papers:
    drawn['paper, TPU v4, digitised; input 2048, output 512'] = [
        Point(f'K={k}', {64: 'mha', 1: 'mqa'}.get(k, 'gqa'), 0, x, f'{x:.2f}')
        for k, x in sorted(paper.FIGURE_6.items(), reverse=True)]
  return standalone([
      bars(points, title='Time per sample of each number of key/value heads',
           x_label=shape, y_label='seconds per sample')
      for shape, points in drawn.items()])
