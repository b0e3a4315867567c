# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with what the user gave us, and what is no fault of ours."""

import dataclasses
import errno
import numbers
import types
import typing
from typing import Any

# `errno` of an OSError where a disk, or a user's share of it, is full.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class UserError(ValueError):
  """Input that the user can correct.

  The message is one line: what was expected, what came, what to do. The
  command line prints it and exits with status 2; nothing has been written.
  """


_KINDS = {
    int: (numbers.Integral, 'a whole number'),
    float: (numbers.Real, 'a number'),
    bool: (bool, 'True or False'),
    str: (str, 'text'),
    types.NoneType: (types.NoneType, 'None'),
}


def check_fields(instance: Any) -> None:
  """Raises UserError for a dataclass's field of another type than declared.

  Only numbers, text, truth values and None are looked at.
  """
  for field in dataclasses.fields(instance):
    is_union = typing.get_origin(field.type) in (types.UnionType, typing.Union)
    kinds = typing.get_args(field.type) if is_union else (field.type,)
    if not all(kind in _KINDS for kind in kinds):
      continue
    value = getattr(instance, field.name)
    fits = isinstance(value, tuple(_KINDS[kind][0] for kind in kinds))
    if not fits or (isinstance(value, bool) and bool not in kinds):
      words = ' or '.join(_KINDS[kind][1] for kind in kinds)
      raise UserError(f'expected {field.name} to be {words}, got {value!r}')


def check_limits(
    instance: Any,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
  """Raises UserError for a field, not None, that is out of its limits."""
  limits = {'of at least': least, 'above': above, 'below': below}
  words = ' and '.join(f'{k} {x}' for k, x in limits.items() if x is not None)
  for name in names:
    value = getattr(instance, name)
    if value is not None and not (
        (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
      raise UserError(f'expected {name} {words}, got {value}')


class Preempted(Exception):
  """The program was told to stop, and has saved what it had.

  The command line prints the message and exits with `EXIT_PREEMPTED`.
  """


class PeerLostError(RuntimeError):
  """Another process of a run has ended, and this one cannot go on."""


# Of sysexits.h: try again. The same command goes on where this one stopped.
EXIT_PREEMPTED = 75
