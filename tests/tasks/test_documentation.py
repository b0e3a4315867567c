# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Docstrings taken apart, against expectations written by hand."""

import textwrap

import pytest

from gqa_t5x.tasks import documentation

GOOGLE = '''Returns the `sum` of x.

The sum runs over all elements of the array
and is exact for integers.

>>> add(1)
1

Args:
  x: The input array. It may be empty.
  axis (int): The axis to sum over,
    counted from zero.

    More about the axis.

Returns:
  A number.
'''
NUMPY = '''Compute the norm.

Parameters
----------
x : array_like
    Input array.
ord : {'fro', 2}, optional
    Order of the
    norm.

Returns
-------
n : float
    The norm itself.
'''
SPHINX = '''Format a date.

:param locale: the locale to use,
               as a string
:param int width: how wide it is
:return: the text
'''


def test_google_style():
  parsed = documentation.take_apart(GOOGLE)
  assert parsed.summary == 'Returns the sum of x.'
  assert parsed.prose == (
      'The sum runs over all elements of the array and is exact for integers.',
  )
  assert parsed.arguments == (
      ('x', 'The input array. It may be empty.'),
      ('axis', 'The axis to sum over, counted from zero.'),
  )


def test_numpy_style():
  parsed = documentation.take_apart(NUMPY)
  assert parsed.summary == 'Compute the norm.'
  assert parsed.prose == ()
  assert parsed.arguments == (
      ('x', 'Input array.'), ('ord', 'Order of the norm.')
  )  # pyformat: disable


def test_sphinx_style():
  parsed = documentation.take_apart(SPHINX)
  assert parsed.arguments == (
      ('locale', 'the locale to use, as a string'), ('width', 'how wide it is')
  )  # pyformat: disable


@pytest.mark.parametrize('empty', ['', 'x', 'Args:', 'Args:\n\n', ':param'])
def test_odd_docstrings_are_no_error(empty):
  documentation.take_apart(empty)


@pytest.mark.parametrize(
    'text,expected',
    [
        (':class:`~jax.Array` and ``x``', 'jax.Array and x'),
        ('see [the docs](http://x.org)  now', 'see the docs now'),
    ],
)
def test_clean(text, expected):
  assert documentation.clean(text) == expected


@pytest.mark.parametrize(
    'name,words',
    [('matrix_rank', 'matrix rank'), ('HTTPServer2', 'http server 2'),
     ('_Layer', 'layer'), ('__', '')],
)  # pyformat: disable
def test_name_words(name, words):
  assert documentation.name_words(name) == words


def test_reading_imports_nothing_and_skips_what_is_broken(tmp_path):
  (tmp_path / 'tests').mkdir()
  (tmp_path / 'tests' / 'a.py').write_text('"""A test, not to be read."""')
  (tmp_path / 'broken.py').write_text('"""A broken file, skipped."""\ndef (')
  (tmp_path / '__init__.py').write_text('"""The package, documented."""\n1/0')
  (tmp_path / 'm.py').write_text(textwrap.dedent('''
      class C:
        def f(self, a, *, b=1):
          """Does something with a and b."""
          def inner():
            """A function inside, not documentation."""
  '''))  # pyformat: disable
  found = list(documentation.read_docstrings('p', tmp_path))
  assert found == [
      documentation.Docstring(
          'p', 'module', 'p', (), 'The package, documented.'
      ),
      documentation.Docstring(
          'p.m', 'method', 'f', ('a', 'b'), 'Does something with a and b.'
      ),
  ]
