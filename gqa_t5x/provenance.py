# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a result depends on besides its inputs: device, versions, commit."""

import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import subprocess

import gqa_t5x

_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'optax',
             'orbax-checkpoint', 'seqio', 'tensorflow', 'tensorflow-cpu',
             'sentencepiece', 'rouge-score', 'sacrebleu', 'babel')
# Microseconds of processor in a period, as of `docker run --cpus`.
_CPU_QUOTA = pathlib.Path('/sys/fs/cgroup/cpu.max')


def _cpu_model() -> str:
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
  except OSError:
    text = ''
  for line in text.splitlines():
    if line.startswith('model name'):
      return line.split(':', 1)[1].strip()
  return platform.processor() or platform.machine()


def cores() -> int:
  """Cores this process may use; fewer than the machine's in a container."""
  if hasattr(os, 'sched_getaffinity'):
    found = len(os.sched_getaffinity(0))
  else:
    found = os.cpu_count() or 1
  try:
    quota, period = _CPU_QUOTA.read_text(encoding='utf-8').split()
  except OSError:  # Without Linux, or without control groups of version 2.
    return found
  if quota == 'max':
    return found
  return min(found, math.ceil(int(quota) / int(period)))


def commit() -> str:
  """The checkout's commit, '+changes' if it has any, else the version."""
  root = pathlib.Path(gqa_t5x.__file__).resolve().parent.parent
  version = f'gqa_t5x {gqa_t5x.__version__}'
  # Without this, a wheel installed somewhere below another project's checkout
  # would name that project's commit.
  if not ((root / '.git').exists() and (root / 'setup.py').exists()):
    return version

  try:
    head = _git(root, 'rev-parse', 'HEAD')
    changed = _git(root, 'status', '--porcelain', '--untracked-files=no')
    # What lies in these folders is run.
    folders = 'gqa_t5x', 'tasks', 'gin_configs'
    changed += _git(root, 'status', '--porcelain', *folders)
  except (OSError, subprocess.SubprocessError):
    return version
  return head + ('+changes' if changed else '')


def commit_of(package: str) -> str | None:
  """The commit of an installed package that comes from a repository.

  As pip wrote it down, or that of the checkout it is imported from; None where
  neither tells.
  """
  try:
    origin = importlib.metadata.distribution(package).read_text(
        'direct_url.json')
    if found := json.loads(origin or '{}').get('vcs_info'):
      return found['commit_id']
  except importlib.metadata.PackageNotFoundError:
    pass
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    return None
  folder = spec.submodule_search_locations[0]
  try:
    # Fails in an environment that lies in another project's checkout.
    _git(folder, 'rev-parse', 'HEAD:./')
    return _git(folder, 'rev-parse', 'HEAD')
  except (OSError, subprocess.SubprocessError):
    return None


def _git(folder: str | os.PathLike, *arguments: str) -> str:
  return subprocess.run(
      ['git', '-C', str(folder), *arguments], check=True, capture_output=True,
      text=True, timeout=20).stdout.strip()


def environment() -> dict:
  """Returns what a result depends on besides its inputs.

  Returns:
    {'device': {cpu, cores, system, backend, device_kind, num_devices,
     and the environment's variables for XLA, JAX and numbers of threads},
     'versions': {'python', 'gqa_t5x', and installed packages},
     'commit': git commit, or the package's version outside a checkout}
  """
  import jax  # Reading results and writing a report need no JAX.
  devices = jax.devices()
  versions = {'python': platform.python_version(),
              'gqa_t5x': gqa_t5x.__version__}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      pass
  return {
      'device': {
          'cpu': _cpu_model(), 'cores': cores(),
          'system': f'{platform.system()} {platform.machine()}',
          'backend': jax.default_backend(),
          'device_kind': devices[0].device_kind,
          'num_devices': len(devices),
          # XLA_FLAGS, JAX_DEFAULT_MATMUL_PRECISION and the like.
          **{
              name.lower(): value
              for name, value in sorted(os.environ.items())
              if value and (
                  name.startswith(('XLA_', 'JAX_'))
                  or name in ('OMP_NUM_THREADS', 'NPROC')
              )
          },
      },
      'versions': versions,
      'commit': commit(),
  }
