# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiles decoding and training of T5.1.1 for TPUs, on a machine without one.

The package libtpu holds the compiler of a TPU, which needs no TPU: it tells
what each device would have to hold, and refuses what does not fit. Programs
are lowered from shapes and shardings alone, so XXL needs no memory here.

Decoding is the two programs that `decoding` runs one after the other: the
prefill (encoder, cross-attention's keys and values) and the loop of all steps.
Training is the engine's step with Adafactor. Activations are bfloat16;
parameters are bfloat16 to decode, and float32, as are their gradients, to
train.

What is *not* said is how long anything takes.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import os
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gqa_t5x import decoding
from gqa_t5x import extras
from gqa_t5x import sizes
from gqa_t5x.benchmark import models
from gqa_t5x.benchmark.devices import DEVICES
from gqa_t5x.engine import partitioning
from gqa_t5x.engine import train_step
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer, new_variables

PyTree = Any
GIB = 2**30

_COMPILER_OPTIONS = {
    'decode': {},
    # With the default of 0 a step of XXL takes more than 5 minutes to compile,
    # one of a single layer more than 3. Temporaries get somewhat larger: 0.22
    # instead of 0.18 GiB in a step of the small model.
    'train': {'exec_time_optimization_effort': -1.0},
}


@dataclasses.dataclass(frozen=True)
class Generation:
  """A kind of TPU; a device is a whole chip.

  Attributes:
    usable_gib: what the compiler leaves to programs, from its own refusals.
    options: what makes libtpu see each chip as one device. A v4 chip has two
      cores; libtpu on a TPU VM joins them, but here it has to be told, or a
      device is half a chip with half of the memory.
    example: a topology.
  """

  usable_gib: float
  options: dict[str, str]
  example: str


# Checked with libtpu 0.0.42.1.
GENERATIONS = {
    'v4': Generation(30.75, {'chip_config_name': 'megacore'}, 'v4:2x2x1'),
    'v5e': Generation(15.75, {}, 'v5e:2x4'),
    'v5p': Generation(95.74, {}, 'v5p:2x2x1'),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """What to compile.

  Attributes:
    model: a size of `models.SIZES`.
    num_kv_heads: K; None is multi-head attention.
    what: 'decode' or 'train'.
    topology: TPU generation and chips, such as 'v4:2x2x1'.
    model_axis: devices that share a model; None is all of them.
    batch_size: rows on all devices together.
    input_length: tokens.
    output_length: tokens to decode, or of the targets.
    num_microbatches: of a training step.
  """

  model: str
  num_kv_heads: int | None
  what: str
  topology: str
  model_axis: int | None
  batch_size: int
  input_length: int
  output_length: int
  num_microbatches: int = 1


def topology_devices(topology: str) -> Sequence[jax.Device]:
  """Returns stand-ins for the chips of a TPU, to compile for.

  Args:
    topology: such as 'v4:2x2x1': generation, then chips along each axis.

  Raises:
    UserError: if libtpu is missing or does not know the topology.
  """
  generation = _generation(topology)
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(
        'this needs the package libtpu, which is not installed;'
        f' {extras.install_command("compile")}'
    )
  # What libtpu would otherwise ask the VM it is on, which is none. It wants an
  # answer, whatever the topology.
  os.environ |= {
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_ACCELERATOR_TYPE': 'v4-8',
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'TPU_WORKER_ID': '0',
      # One process may use a TPU, but several may compile.
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }
  os.environ.setdefault('TPU_LOG_DIR', 'disabled')
  os.environ.setdefault('TPU_STDERR_LOG_LEVEL', '3')
  # With libtpu there, JAX would look for a TPU to run on.
  jax.config.update('jax_platforms', 'cpu')
  from jax.experimental import topologies

  try:
    return topologies.get_topology_desc(
        platform='tpu', topology_name=topology, **generation.options
    ).devices
  except jax.errors.JaxRuntimeError as error:
    if 'INVALID_ARGUMENT' not in str(error):
      raise
    raise UserError(
        f'{topology!r} is no topology that libtpu knows ({_line(error)});'
        f' choose one such as {generation.example}'
    ) from error


def compile_for_tpu(job: Job) -> dict[str, Any]:
  """Compiles a job's programs; allocates nothing.

  Returns:
    The fields of `job` (with model_axis and num_kv_heads filled in), and
      device_kind, num_devices, data_axis, hbm_gib (of a device), usable_gib.
      num_params, param_dtype, activation_dtype.
      versions: of jax and libtpu.
      compiler_options: other than the compiler's defaults.
      fits: whether the compiler accepted all programs.
      programs: name -> dict. Bytes are those of one device.
        argument_bytes, and, unless the compiler refused,
        temp_bytes, output_bytes: as the compiler says. Outputs that take the
          place of arguments do not count.
        total_bytes: the sum of these three. The compiler counts once what it
          lets share room, and so may accept a sum above usable_gib.
        bytes_accessed, flops: of one device, as the compiler estimates them,
          with the body of a loop counted once: of decoding one step, of
          training one microbatch and one update.
        compile_seconds: on this machine.
        fits: whether the compiler accepted it.
        refusal: what it said, if not.

  Raises:
    UserError: if the job makes no sense, or libtpu is missing.
  """
  config = models.t5_1_1_config(job.model, job.num_kv_heads)
  generation = _generation(job.topology)
  devices = topology_devices(job.topology)
  mesh = partitioning.make_mesh(job.model_axis or len(devices), devices)
  _check_batch(job, mesh)
  make_programs = {'decode': _decode_programs, 'train': _train_programs}
  programs = {}
  for name, program in make_programs[job.what](job, config, mesh).items():
    # Else a constant that is made while a program is traced would be put on a
    # device of the mesh.
    cpu = jax.default_device(jax.devices()[0])
    with partitioning.use(mesh, config), cpu:
      programs[name] = _compile(*program, _COMPILER_OPTIONS[job.what])
  return dataclasses.asdict(job) | {
      'num_kv_heads': config.num_kv_heads,
      'model_axis': mesh.shape['model'],
      'data_axis': mesh.shape['data'],
      'num_devices': len(devices),
      'device_kind': devices[0].device_kind,
      'hbm_gib': DEVICES[f'tpu-{job.topology.split(":")[0]}'].memory_gib,
      'usable_gib': generation.usable_gib,
      'num_params': sum(
          leaf.size
          for leaf in jax.tree.leaves(sizes.parameter_shapes(config))
      ),
      'param_dtype': 'bfloat16' if job.what == 'decode' else 'float32',
      'activation_dtype': config.dtype.name,
      'versions': {
          name: importlib.metadata.version(name) for name in ('jax', 'libtpu')
      },
      'compiler_options': _COMPILER_OPTIONS[job.what],
      'fits': all(program['fits'] for program in programs.values()),
      'programs': programs,
  }


def table(results: Sequence[dict[str, Any]]) -> str:
  """Returns results of `compile_for_tpu` as lines, one a program.

  Memory is in GiB; a mesh is data axis x model axis; a batch of a training
  step is followed by its number of microbatches; 'edge' is what the compiler
  accepted although the sum is above `usable_gib`.
  """
  lines = [
      'model    K  topology  mesh      batch  program   args    temp     out'
      '   total  fits      GB   TFLOP'
  ]
  for result in results:
    mesh = f'{result["data_axis"]}x{result["model_axis"]}'
    batch = str(result['batch_size'])
    if result['num_microbatches'] > 1:
      batch += f'/{result["num_microbatches"]}'
    for name, program in result['programs'].items():
      sizes = (
          _number(program.get(f'{kind}_bytes'), GIB, 6)
          for kind in ('argument', 'temp', 'output', 'total')
      )
      lines.append(
          f'{result["model"]:<6} {result["num_kv_heads"]:>3}'
          f'  {result["topology"]:<8}  {mesh:<5}  {batch:>8}'
          f'  {name:<7} {"  ".join(sizes)}'
          f'  {_verdict(program, result["usable_gib"]):<4}'
          f'  {_number(program.get("bytes_accessed"), 1e9, 6)}'
          f'  {_number(program.get("flops"), 1e12, 6)}'
      )
  return '\n'.join(lines)


def to_text(result: dict[str, Any]) -> str:
  """Returns a result of `compile_for_tpu` as lines for a person."""
  seconds = sum(p['compile_seconds'] for p in result['programs'].values())
  lines = [
      f'T5.1.1 {result["model"]}, {result["num_params"]:,} parameters'
      f' ({result["param_dtype"]}; activations {result["activation_dtype"]}),'
      f' {result["input_length"]}/{result["output_length"]} tokens',
      f'{result["num_devices"]} x {result["device_kind"]} of'
      f' {result["hbm_gib"]} GiB, {result["usable_gib"]} of them for programs;'
      ' GiB, and GB accessed, are those of one device',
      table([result]),
  ]
  for name, program in result['programs'].items():
    if not program['fits']:
      lines.append(f'{name}: {program["refusal"]}')
  verdict = 'fits' if result['fits'] else 'does not fit'
  lines.append(f'{verdict}; compiled in {seconds:.0f} s')
  return '\n'.join(lines)


def _verdict(program: dict[str, Any], usable_gib: float) -> str:
  if not program['fits']:
    return 'no'
  return 'yes' if program['total_bytes'] <= usable_gib * GIB else 'edge'


def _number(value: float | None, unit: float, width: int) -> str:
  return f'{"-":>{width}}' if value is None else f'{value / unit:{width}.2f}'


def _generation(topology: str) -> Generation:
  """Returns the kind of TPU of a topology that is well formed."""
  name, _, chips = topology.partition(':')
  if name not in GENERATIONS or not re.fullmatch(r'\d+(x\d+)+', chips):
    examples = ', '.join(g.example for g in GENERATIONS.values())
    raise UserError(
        f'expected a topology such as {examples} (kind of TPU, chips along each'
        f' axis), got {topology!r}'
    )
  return GENERATIONS[name]


def _check_batch(job: Job, mesh: Mesh) -> None:
  if job.num_microbatches > 1 and job.what != 'train':
    raise UserError(
        'expected one microbatch, since only training has more, got'
        f' {job.num_microbatches}; leave --num_microbatches out'
    )
  parts = mesh.shape['data'] * job.num_microbatches
  if job.batch_size % parts:
    raise UserError(
        f'expected a batch that divides over a data axis of'
        f' {mesh.shape["data"]} and {job.num_microbatches} microbatches, got'
        f' {job.batch_size}; choose a multiple of {parts}'
    )


def _decode_programs(job: Job, config: T5Config, mesh: Mesh):
  """Returns the two programs of greedy decoding, as `_compile` takes them."""
  model = Transformer(config)
  params = _bfloat16_params(model, mesh)
  tokens = _tokens(job.batch_size, job.input_length, mesh)
  prefill = functools.partial(decoding.prefill, model)
  loop = functools.partial(
      decoding.decode_loop,
      model,
      max_decode_len=job.output_length,
      eos_id=decoding.NO_EOS,
  )
  rules = dict(partitioning.axis_rules(config, mesh))
  # As `attention.Attention.project_kv` leaves them.
  heads = NamedSharding(mesh, PartitionSpec('data', rules['kv_heads']))
  cross_cache = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=heads),
      jax.eval_shape(prefill, params, tokens).cross_cache,
  )
  # What a program does not use, such as the encoder in the loop, stays in the
  # device's memory all the same.
  compiled = functools.partial(jax.jit, keep_unused=True)
  return {
      'prefill': (compiled(prefill), (params, tokens)),
      'decode': (
          compiled(loop),
          (params, decoding.Prefilled(tokens, cross_cache)),
      ),
  }


def _train_programs(job: Job, config: T5Config, mesh: Mesh):
  """Returns the engine's training step, as `_compile` takes it."""
  targets = _tokens(job.batch_size, job.output_length, mesh)
  batch = {
      'encoder_input_tokens': _tokens(job.batch_size, job.input_length, mesh),
      'decoder_input_tokens': targets,
      'decoder_target_tokens': targets,
  }
  run = train_step.StepConfig(num_microbatches=job.num_microbatches)
  trainer = train_step.Trainer(Transformer(config), run, mesh)
  arguments = trainer.shapes, batch, jax.random.key(0)
  return {'train': (trainer.jitted_step, arguments)}


def _bfloat16_params(model: Transformer, mesh: Mesh) -> PyTree:
  """Returns shapes and shardings of the parameters."""
  new = functools.partial(new_variables, model)
  variables = jax.eval_shape(new, jax.random.key(0))
  shardings = partitioning.param_shardings(
      variables['params'], variables['params_axes'], model.config, mesh
  )
  return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=s),
      variables['params'],
      shardings,
  )


def _tokens(batch_size: int, length: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(
      (batch_size, length),
      jnp.int32,
      sharding=partitioning.batch_sharding(mesh),
  )


def _compile(
    program: Callable, arguments: tuple, options: dict[str, Any]
) -> dict[str, Any]:
  """Compiles a jitted function; see `compile_for_tpu` for what comes back."""
  start = time.perf_counter()
  lowered = program.lower(*arguments)
  try:
    compiled = lowered.compile(compiler_options=options or None)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {
        'argument_bytes': _shard_bytes(arguments),
        'compile_seconds': time.perf_counter() - start,
        'fits': False,
        'refusal': _line(error),
    }
  seconds = time.perf_counter() - start
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  sizes = {
      'argument_bytes': memory.argument_size_in_bytes,
      'temp_bytes': memory.temp_size_in_bytes,
      'output_bytes': (
          memory.output_size_in_bytes - memory.alias_size_in_bytes
      ),
  }
  return sizes | {
      'total_bytes': sum(sizes.values()),
      'bytes_accessed': cost['bytes accessed'],
      'flops': cost['flops'],
      'compile_seconds': seconds,
      'fits': True,
  }


def _shard_bytes(arguments: PyTree) -> int:
  """Returns the bytes of one device's part of the arguments."""
  return sum(
      leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
      for leaf in jax.tree.leaves(arguments)
  )


def _line(error: Exception) -> str:
  """Returns the first line of an error of the compiler."""
  return re.sub('^[A-Z_]+: ', '', str(error).splitlines()[0])
