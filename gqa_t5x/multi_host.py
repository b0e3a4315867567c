# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Joins the processes of several hosts, and runs a script of t5x on them.

    python -m gqa_t5x.multi_host t5x.infer --gin_file=...

With more than one host the checkpoint library asks for `jax.distributed`.
`t5x.train` starts it with --multiprocess_gpu; `t5x.eval` and `t5x.infer` have
no flag for it.
"""

import argparse
import os
import re
import runpy
import sys

from gqa_t5x.errors import UserError


def join_processes() -> None:
  """Starts `jax.distributed` where the environment names a coordinator.

  Raises:
    UserError: if number and index of the processes are not given, and no
      cluster that JAX knows (such as Slurm) gives them.
  """
  import jax

  if not (coordinator := os.environ.get('JAX_COORDINATOR_ADDRESS')):
    return
  names = 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
  if not re.fullmatch(r'\S+:\d+', coordinator):
    raise UserError(
        'expected HOST:PORT in JAX_COORDINATOR_ADDRESS, got'
        f' {coordinator!r}; add the port'
    )
  given = [os.environ[name] for name in names if os.environ.get(name)]
  try:
    if len(given) == 1:
      raise ValueError(f'of {" and ".join(names)} one is set')
    jax.distributed.initialize(coordinator, *map(int, given))
  except ValueError as error:
    raise UserError(
        f'expected {" and ".join(names)} beside JAX_COORDINATOR_ADDRESS, as'
        f' whole numbers, or a cluster that JAX knows: {error}'
    ) from error


def main(words: list[str]) -> None:
  """Joins the processes and runs the script that the command line names.

  On TPUs JAX finds the other hosts; elsewhere JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.
  """
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('script', choices=('t5x.train', 't5x.eval', 't5x.infer'))
  parser.add_argument('flags', nargs=argparse.REMAINDER, help='of the script')
  args = parser.parse_args(words)
  import jax

  try:
    join_processes()
    if not jax.distributed.is_initialized():
      jax.distributed.initialize()
  except UserError as error:
    parser.error(str(error))
  except ValueError as error:
    parser.error(
        'expected several hosts of a TPU or a cluster, or'
        f' JAX_COORDINATOR_ADDRESS: {error}; on one host start {args.script}'
    )
  sys.argv = [args.script, *args.flags]
  # Gin files import t5x's script as `__main__`.
  runpy.run_module(args.script, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main(sys.argv[1:])
