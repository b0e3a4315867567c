# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers on a command line, for argparse's `type=`."""

import argparse


def _number(text: str, low: int) -> int:
  if not text.isascii() or not text.isdigit() or not low <= int(text) < 2**31:
    raise argparse.ArgumentTypeError(
        f'expected a number from {low} to {2**31 - 1}, got {text[:40]!r}'
    )
  return int(text)


def positive(text: str) -> int:
  """A number from 1 that fits in 31 bits."""
  return _number(text, 1)


def seed(text: str) -> int:
  """A number from 0 that fits in 31 bits."""
  return _number(text, 0)


def integers(text: str) -> list[int]:
  """Numbers from 1 with commas between them."""
  if len(text.split()) > 1 and ',' not in text:
    raise argparse.ArgumentTypeError(
        f'expected commas between numbers, got {text[:40]!r}'
    )
  return [positive(part.strip()) for part in text.split(',')]


def amount(text: str) -> float:
  """A number above 0, and below what units could make infinite."""
  try:
    number = float(text)
  except ValueError:
    number = 0.0
  if not 1e-9 <= number <= 1e12:
    raise argparse.ArgumentTypeError(
        f'expected a number above 0, from 1e-9 to 1e12, got {text[:40]!r}'
    )
  return number
