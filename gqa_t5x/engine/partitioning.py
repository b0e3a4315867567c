# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where parameters and activations live on a (data, model) mesh."""

from collections.abc import Sequence
import contextlib
import functools
import logging
import os
from typing import Any

from flax.linen import partitioning
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax

from gqa_t5x import provenance
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

PyTree = Any

_log = logging.getLogger(__name__)


def use_cpu_cores() -> None:
  """Makes JAX see a CPU as several devices, so that training uses its cores.

  XLA runs much of a small model's step on one thread of a CPU device. As
  several devices, each trains on its share of the batch: on 2 cores a step
  takes half of the time. To be called before JAX computes anything; does
  nothing where the user has chosen the number of CPU devices.
  """
  if 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
    return
  # A power of two divides the usual batch sizes.
  devices = min(8, 1 << (provenance.cores().bit_length() - 1))
  # RuntimeError: JAX has its devices already, and they stay.
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_num_cpu_devices', devices)
    # Programs in flight at the same time wait for each other's threads in
    # their collectives, and never end.
    jax.config.update('jax_cpu_enable_async_dispatch', False)
    # So do the collectives of one program, where they occupy all threads.
    os.environ.setdefault('NPROC', str(4 * devices))


def make_mesh(
    model_axis: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh of devices, with `model_axis` of them for one model.

  Args:
    model_axis: as named.
    devices: None means all that there are.

  Raises:
    UserError: if the devices cannot be split so.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if model_axis < 1 or count % model_axis:
    raise UserError(
        f'expected a model axis that divides {count} devices, got'
        f' {model_axis}; choose one of '
        + ', '.join(str(n) for n in range(1, count + 1) if count % n == 0)
    )
  grid = np.asarray(devices).reshape(-1, model_axis)
  return Mesh(grid, ('data', 'model'))


def axis_rules(config: T5Config, mesh: Mesh) -> tuple[tuple[str, Any], ...]:
  """Maps logical axes to mesh axes; what does not divide is replicated."""
  size = mesh.shape['model']
  dims = {
      'heads': config.num_heads,
      'kv_heads': config.num_kv_heads,
      'mlp': config.mlp_dim,
      'vocab': config.vocab_size,
  }
  if config.num_kv_heads % size:
    _log_replicated(config.num_kv_heads, size)
  sharded = (
      (name, None if dim % size else 'model') for name, dim in dims.items()
  )
  replicated = ('embed', 'kv', 'length', 'relpos_buckets')
  return (('batch', 'data'), *sharded, *((name, None) for name in replicated))


@functools.cache
def _log_replicated(num_kv_heads: int, size: int) -> None:
  """Says it once: the rules are asked for at every step."""
  _log.info(
      'key/value heads are replicated: %d of them do not divide over a model'
      ' axis of %d',
      num_kv_heads,
      size,
  )


@contextlib.contextmanager
def use(mesh: Mesh, config: T5Config):
  """Within it the network's logical axes mean axes of this mesh."""
  with jax.set_mesh(mesh), partitioning.axis_rules(axis_rules(config, mesh)):
    yield


def param_shardings(
    shapes: PyTree, params_axes: PyTree, config: T5Config, mesh: Mesh
) -> PyTree:
  """Returns the sharding of each parameter.

  Args:
    shapes: parameters, or their ShapeDtypeStructs.
    params_axes: the 'params_axes' collection that `Transformer.init` gives.
    config: of the model.
    mesh: from `make_mesh`.
  """
  rules = dict(axis_rules(config, mesh))
  names = partitioning.get_axis_names(params_axes)
  size = mesh.shape['model']

  def of(shape, axes):
    def mesh_axis(dim, name):
      # A projection is cut between heads, never within one.
      if name == 'joined_kv':
        return None if (dim // config.head_dim) % size else 'model'
      return rules.get(name)

    return NamedSharding(
        mesh, PartitionSpec(*map(mesh_axis, shape.shape, axes))
    )

  return jax.tree.map(of, shapes, _plain(names))


def state_shardings(
    optimizer: optax.GradientTransformation,
    opt_state: PyTree,
    params: PyTree,
    shardings: PyTree,
    mesh: Mesh,
) -> PyTree:
  """Returns the sharding of each array of the optimizer's state.

  What has a parameter's shape lies as the parameter does; Adafactor's factored
  statistics are vectors, and replicated.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  return optax.tree_map_params(
      optimizer,
      lambda slot, param, s: s if slot.shape == param.shape else everywhere,
      opt_state,
      params,
      shardings,
      transform_non_params=lambda _: everywhere,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over the data axis."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_batch_size(batch_size: int, parts: int, what: str) -> None:
  """Raises UserError if that many `parts`, for `what`, cannot be equal."""
  if batch_size % parts:
    raise UserError(
        f'expected a batch size that {what} divide, {parts}, got'
        f' {batch_size}; choose a multiple of {parts}'
    )


def check_rows(batch_size: int, mesh: Mesh) -> None:
  """Raises UserError if the devices cannot share a batch."""
  what = 'the devices that share a batch'
  check_batch_size(batch_size, mesh.shape['data'], what)


def batch_share(mesh: Mesh) -> tuple[int, int]:
  """Returns (index, count): which part of a batch's rows this process holds.

  Processes whose devices share a model hold the same rows.

  Raises:
    UserError: if processes hold some rows together and others not.
  """
  held = {}
  for row, devices in enumerate(mesh.devices):
    for device in devices:
      held.setdefault(device.process_index, set()).add(row)
  ours = held[jax.process_index()]
  size, count = len(ours), mesh.shape['data'] // len(ours)
  parts = [set(range(i * size, (i + 1) * size)) for i in range(count)]
  if any(rows not in parts for rows in held.values()):
    raise UserError(
        f"expected a model axis that divides a process's devices, or is a"
        f' multiple of them, got {mesh.shape["model"]}; choose another'
    )
  return parts.index(ours), count


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Puts this process's rows of a batch on its devices."""
  sharding = batch_sharding(mesh)
  return {
      name: jax.make_array_from_process_local_data(sharding, rows)
      for name, rows in batch.items()
  }


def _plain(tree: PyTree) -> PyTree:
  if hasattr(tree, 'items') and not isinstance(tree, PartitionSpec):
    return {name: _plain(value) for name, value in tree.items()}
  return tree
