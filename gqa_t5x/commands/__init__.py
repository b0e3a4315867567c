# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands of `gqa-t5x`: the arguments of each, and what it calls.

Each imports what it needs when it runs, so that `--help` is immediate and no
command needs the extras of another.
"""

import argparse
from collections.abc import Sequence
import re

from gqa_t5x.commands import arguments
from gqa_t5x.commands import benchmarks
from gqa_t5x.commands import checkpoints
from gqa_t5x.commands import engine
from gqa_t5x.commands import environment
from gqa_t5x.commands import experiments
from gqa_t5x.commands import generation


def add_commands(subparsers) -> dict[str, argparse.ArgumentParser]:
  """Adds all commands, each with `run(args)` as a default; returns them."""
  add = arguments.Commands(subparsers)
  for group in (
      experiments, engine, checkpoints, generation, benchmarks, environment
  ):  # pyformat: disable
    group.add_commands(add)
  return add.parsers


def join_gin_flags(argv: Sequence[str]) -> list[str]:
  """Turns t5x's --gin.NAME=VALUE into --gin_bindings=NAME=VALUE."""
  return [re.sub(r'^--gin\.([^=]+)=', r'--gin_bindings=\1=', a) for a in argv]
