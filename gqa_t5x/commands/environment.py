# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`doctor` and `completion`."""

import argparse
import functools
import importlib.metadata
import importlib.util
import platform
import re
import sys

import gqa_t5x
from gqa_t5x import extras
from gqa_t5x import provenance
from gqa_t5x.commands import arguments


def add_commands(add) -> None:
  command = add(
      'doctor',
      _doctor,
      'show versions, devices, and what is missing for what',
      'gqa-t5x doctor',
  )
  arguments.add_json(command)
  command = add(
      'completion',
      _completion,
      'print what makes a shell complete commands and flags',
      'gqa-t5x completion bash > ~/.gqa-t5x && . ~/.gqa-t5x',
  )
  command.add_argument('shell', choices=['bash', 'zsh', 'fish', 'tcsh'])


def _doctor(args) -> None:
  import jax

  from gqa_t5x import cache_folder
  from gqa_t5x import storage

  try:
    devices = [f'{d.platform} {d.device_kind}' for d in jax.devices()]
  except (RuntimeError, AssertionError) as error:  # Of a backend that is not.
    devices = [f'none, JAX says: {error or type(error).__name__}']
  cache = cache_folder.cache_folder()
  features = {}
  for extra, (what_for, modules) in extras.FEATURES.items():
    features[extra or 'core'] = {
        'for': what_for,
        'versions': {m: _version(m) for m in modules if _is_there(m)},
        'missing': [m for m in modules if not _is_there(m)],
    }
  missing = [m for m in extras.T5X if not _is_there(m)]
  features['t5x'] = {
      'for': 't5x.train, benchmark --against t5x',
      'versions': {m: _version(m) for m in extras.T5X if _is_there(m)},
      'missing': missing,
  }
  facts = {
      'gqa_t5x': gqa_t5x.__version__,
      'python': platform.python_version(),
      'platform': platform.platform(),
      'devices': devices,
      'cores': provenance.cores(),
      'cache_folder': str(cache),
      'cache_free_bytes': storage.free_bytes(cache),
      'features': features,
  }
  if args.json:
    arguments.print_json(facts)
    return
  print(f'gqa_t5x {facts["gqa_t5x"]}, Python {facts["python"]}, '
        f'{facts["platform"]}')
  print(f'devices: {", ".join(devices)}; {facts["cores"]} cores')
  print(f'cache: {cache}, {facts["cache_free_bytes"] / 1e9:.0f} GB free')
  for name, feature in features.items():
    lacking = feature['missing']
    print(f'{"missing" if lacking else "ok":<8} {name}: {feature["for"]}')
    if feature['versions']:
      print('         ' + ', '.join(
          f'{m} {v}' for m, v in feature['versions'].items()))
    if lacking:
      how = (
          '; '.join(map(extras.install_t5x_command, lacking))
          if name == 't5x'
          else extras.install_command(name)
      )
      print(f'         without: {", ".join(lacking)}; {how}')


def _is_there(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ImportError:  # Of a parent.
    return False


_distributions = functools.cache(importlib.metadata.packages_distributions)


def _version(module: str) -> str:
  """Returns the version of the package that has a module; '?' if unknown."""
  top = module.split('.')[0]
  packages = _distributions().get(top, [])
  named = [p for p in packages if module.replace('.', '-') in p.lower()]
  for package in named + packages:
    return importlib.metadata.version(package)
  return '?'


def _completion(args) -> None:
  import shtab

  _complete_paths(args.parser, shtab.FILE)
  sys.stdout.write(shtab.complete(args.parser, args.shell))


def _complete_paths(parser: argparse.ArgumentParser, how) -> None:
  """Marks the arguments that are paths, which a shell would complete itself."""
  for action in parser._actions:  # As shtab reads them.
    if isinstance(action, argparse._SubParsersAction):
      for command in action.choices.values():
        _complete_paths(command, how)
    elif re.search(r'\b(CKPT|DIR|FILE|SVG)\b', str(action.metavar)):
      action.complete = how
