# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a script of t5x on several hosts.

    python -m gqa_t5x.multi_host t5x.infer --gin_file=...

With more than one host the checkpoint library asks for `jax.distributed`.
`t5x.train` starts it with --multiprocess_gpu; `t5x.eval` and `t5x.infer` have
no flag for it.
"""

import os
import runpy
import sys

from gqa_t5x.commands import engine
from gqa_t5x.errors import UserError

_SCRIPTS = ('t5x.train', 't5x.eval', 't5x.infer')


def main() -> None:
  """Joins the processes and runs the script that the command line names.

  On TPUs JAX finds the other hosts; elsewhere JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.

  Raises:
    UserError: if it is none of t5x's, or as `engine.join_processes`.
  """
  arguments = sys.argv[1:]
  if not arguments or arguments[0] not in _SCRIPTS:
    raise UserError(
        f'expected one of {", ".join(_SCRIPTS)} and its flags, got'
        f' {" ".join(arguments[:1]) or "nothing"}'
    )
  if os.environ.get('JAX_COORDINATOR_ADDRESS'):
    engine.join_processes()
  else:
    import jax

    jax.distributed.initialize()
  sys.argv = arguments
  # Gin files import t5x's script as `__main__`.
  runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    sys.exit(f'gqa_t5x.multi_host: {error}')
