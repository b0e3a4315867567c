# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How fast this machine moves memory: the yardstick of a decode step."""

import time

import jax
import jax.numpy as jnp
from jax import lax

_COPIES = 8  # In one call, so that making the result's buffer hardly counts.
_WIDTH = 4096


def measure_bandwidth(*, num_bytes: int | None = None,
                      num_repeats: int = 5) -> dict[str, float]:
  """Measures reading and copying of an array that fits in no cache.

  Args:
    num_bytes: size of the array; by default 256 MiB on a CPU and 2 GiB on an
      accelerator, where less is over too soon to be timed.
    num_repeats: the fastest of so many counts: what the machine can do.

  Returns:
    Bytes per second: `copy` (a byte copied counts twice, read and written),
    `read` (the faster of a sum and a matrix-vector product, which is how a
    decode step reads), and `best`, the higher of the two.
  """
  if num_bytes is None:
    num_bytes = 2**28 if jax.default_backend() == 'cpu' else 2**31
  rows = max(num_bytes // (4 * _WIDTH), 1)
  array = jnp.ones((rows, _WIDTH), jnp.float32)
  vector = jnp.ones((_WIDTH,), jnp.float32)
  copy = jax.jit(
      lambda x: lax.fori_loop(0, _COPIES, lambda _, y: y + 1.0, x))

  def fastest(function, *arguments):
    jax.block_until_ready(function(*arguments))  # Compiles.
    times = []
    for _ in range(num_repeats):
      start = time.perf_counter()
      jax.block_until_ready(function(*arguments))
      times.append(time.perf_counter() - start)
    return min(times)

  read_seconds = min(fastest(jax.jit(jnp.sum), array),
                     fastest(jax.jit(jnp.matmul), array, vector))
  result = {'copy': 2 * _COPIES * array.nbytes / fastest(copy, array),
            'read': array.nbytes / read_seconds}
  return {**result, 'best': max(result.values())}
