# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a result depends on besides its inputs: device, versions, commit."""

import importlib.metadata
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

  def git(*arguments):
    return subprocess.run(['git', '-C', str(root), *arguments], check=True,
                          capture_output=True, text=True, timeout=20).stdout
  try:
    head = git('rev-parse', 'HEAD').strip()
    changed = git('status', '--porcelain', '--untracked-files=no')
    # What lies in these folders is run.
    changed += git('status', '--porcelain', 'gqa_t5x', 'tasks', 'gin_configs')
  except (OSError, subprocess.SubprocessError):
    return version
  return head + ('+changes' if changed else '')


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
