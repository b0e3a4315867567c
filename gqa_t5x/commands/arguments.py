# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Kinds of arguments, and those that several commands have."""

import argparse
import dataclasses
import json

from gqa_t5x import number_flags
from gqa_t5x.errors import UserError


class Commands:
  """Makes commands of one level; calling it adds one.

  Attributes:
    parsers: by name.
  """

  def __init__(self, subparsers):
    self.parsers: dict[str, argparse.ArgumentParser] = {}
    self._subparsers = subparsers

  def __call__(
      self, name: str, run, summary: str, example: str
  ) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
      name: as named.
      run: called with the parsed arguments; None where commands follow.
      summary: a line without a full stop.
      example: lines that can be run.
    """
    command = self._subparsers.add_parser(
        name,
        help=summary,
        description=f'{summary[0].upper()}{summary[1:]}.',
        epilog=f'example:\n  {example}',
    )
    command.set_defaults(run=run, command=name)
    self.parsers[name] = command
    return command


def add_numbers(command, *numbers: tuple[str, int, str]) -> None:
  """Adds flags for numbers from 1: (flag, default, meaning) each."""
  for flag, default, meaning in numbers:
    command.add_argument(
        f'--{flag}',
        type=number_flags.positive,
        default=default,
        metavar='N',
        help=f'{meaning} (default: {default})',
    )


def add_checkpoint(command) -> None:
  command.add_argument(
      '--checkpoint', metavar='CKPT', help='(default: the one that ships)'
  )


def names(text: str) -> list[str]:
  """Returns the parts of a list with commas; one at least."""
  found = [part.strip() for part in text.split(',') if part.strip()]
  if not found:
    raise argparse.ArgumentTypeError(f'expected names, got {text!r}')
  return found


def add_shapes(
    command, dtype: str, of_dtype: str = 'weights, activations and cache'
) -> None:
  """Adds what gives a model's shapes; `config_of` reads it."""
  add_checkpoint(command)
  command.add_argument(
      '--model',
      metavar='SIZE',
      help='tiny, small, base, large, xl or xxl of T5.1.1 (default: the shapes'
      ' of --checkpoint; the one that ships has 2.3 million parameters)',
  )
  command.add_argument(
      '--num_kv_heads',
      type=number_flags.integers,
      metavar='K,K',
      help='(default: all divisors of the query heads)',
  )
  command.add_argument(
      '--dtype',
      default=dtype,
      choices=['float32', 'bfloat16'],
      help=f'of {of_dtype} (default: {dtype})',
  )


def config_of(args):
  """Returns the configuration that `add_shapes` asked for, multi-head."""
  from gqa_t5x import inspection
  from gqa_t5x.benchmark import models

  if args.model and args.checkpoint:
    raise UserError(
        'expected --model or --checkpoint to give the shapes, got both; leave'
        ' one of them out'
    )
  config = (
      models.t5_1_1_config(args.model, None)
      if args.model
      else inspection.config_of(args.checkpoint)
  )
  return dataclasses.replace(
      config, dtype=args.dtype, num_kv_heads=config.num_heads
  )


def add_num_layers(command) -> None:
  command.add_argument(
      '--num_layers',
      type=number_flags.positive,
      metavar='N',
      help="layers of each stack (default: the model's)",
  )


def with_layers(config, num_layers: int | None):
  """Returns a configuration with what `add_num_layers` asked for."""
  if not num_layers:
    return config
  return dataclasses.replace(
      config, num_encoder_layers=num_layers, num_decoder_layers=num_layers
  )


def add_json(command) -> None:
  command.add_argument(
      '--json', action='store_true', help='print JSON instead of text'
  )


def print_json(value) -> None:
  print(json.dumps(value, indent=2))
