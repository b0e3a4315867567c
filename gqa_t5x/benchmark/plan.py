# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What decoding takes at best, from a model's numbers and a device's.

A decode step reads the decoder's weights and the key/value cache once, and
makes its products; it takes the longer of both, and so does the encoder. What
devices say to each other, and all that a program does besides, comes on top.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax

from gqa_t5x import sizes
from gqa_t5x.benchmark.devices import Device
from gqa_t5x.benchmark.devices import DEVICES
from gqa_t5x.checkpoints import names
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import paper
from gqa_t5x.network import T5Config

_OPTIONAL = ('memory_gib', 'flops')  # Of a device that is not named.


@dataclasses.dataclass(frozen=True)
class Plan:
  """Of one number of key/value heads; bytes and times are lower limits.

  Attributes:
    num_kv_heads: K.
    cache_bytes_per_token: of all decoder layers, for a sample.
    cache_bytes: of the batch, full.
    weight_bytes: of the model.
    memory_bytes: weights and cache, on all devices together.
    fits: whether the devices hold that; None if their memory is not known, as
      the next.
    largest_batch: samples that they hold; 0 if not even the weights.
    prefill_seconds: encoder, and the cross-attention's keys and values.
    ms_per_step: a mean step, of the whole batch.
    seconds_per_sample: of one device: all devices' time by the batch.
    paper_seconds_per_sample: the paper's Figure 6 on TPU v4, where it has this
      model, K and lengths; it is digitised.
  """

  num_kv_heads: int
  cache_bytes_per_token: int
  cache_bytes: int
  weight_bytes: int
  memory_bytes: int
  fits: bool | None
  largest_batch: int | None
  prefill_seconds: float
  ms_per_step: float
  seconds_per_sample: float
  paper_seconds_per_sample: float | None


def plan(
    config: T5Config,
    *,
    batch_size: int,
    input_length: int,
    output_length: int,
    device: Device,
    num_devices: int = 1,
) -> Plan:
  """Returns the limits of one model.

  Args:
    config: of the model; its dtype is that of weights and cache too.
    batch_size: samples decoded together, on all devices.
    input_length: tokens of each.
    output_length: tokens decoded of each.
    device: as named.
    num_devices: that share weights and cache evenly. With fewer key/value
      heads than devices the cache is shared out by samples.
  """
  shape = {'input_length': input_length, 'output_length': output_length}
  shapes = {
      path: jax.ShapeDtypeStruct(array.shape, config.dtype)
      for path, array in names.arrays(config).items()
  }
  parts = sizes.parts(shapes)
  weight_bytes = sizes.tree_bytes(shapes)
  cache = sizes.cache_bytes(config, batch_size=batch_size, **shape)
  one = sizes.cache_bytes(config, batch_size=1, **shape)
  step_bytes = sizes.step_bytes(
      sizes.tree_bytes(parts.step), config, batch_size=batch_size, **shape
  )
  filled = sizes.filled_length(**shape)
  step_flops = batch_size * (
      2 * _size(parts.step) + _attention_flops(config, filled)
  )
  per_input = [parts.encoder, parts.cross_kv]
  prefill_bytes = sizes.tree_bytes(per_input)
  prefill_flops = (
      2 * batch_size * input_length * _size(per_input)
      + 4 * config.num_encoder_layers * batch_size * input_length**2
      * config.num_heads * config.head_dim
  )  # pyformat: disable

  def seconds(num_bytes, flops):
    computing = flops / device.flops if device.flops else 0.0
    slower = max(num_bytes / device.bandwidth, computing)
    return slower / num_devices

  prefill = seconds(prefill_bytes, prefill_flops)
  step = seconds(step_bytes, step_flops)
  total = prefill + output_length * step
  fits = largest_batch = None
  if device.memory_gib is not None:
    left = device.memory_gib * 2**30 * num_devices - weight_bytes
    fits, largest_batch = cache <= left, max(0, int(left // one))
  is_figure_6 = paper.is_figure_6(config.to_dict(), input_length, output_length)
  return Plan(
      num_kv_heads=config.num_kv_heads,
      cache_bytes_per_token=sizes.cache_bytes_per_token(config),
      cache_bytes=cache,
      weight_bytes=weight_bytes,
      memory_bytes=weight_bytes + cache,
      fits=fits,
      largest_batch=largest_batch,
      prefill_seconds=prefill,
      ms_per_step=1e3 * step,
      seconds_per_sample=total * num_devices / batch_size,
      paper_seconds_per_sample=(
          paper.FIGURE_6.get(config.num_kv_heads) if is_figure_6 else None
      ),
  )


def _size(shapes: Any) -> int:
  return sum(x.size for x in jax.tree.leaves(shapes))


def _attention_flops(config: T5Config, filled: float) -> float:
  """Operations of a token with the cache, logits and outputs."""
  return (
      4 * config.num_decoder_layers * config.num_heads * config.head_dim
      * filled
  )  # pyformat: disable


def device_of(name: str | None, **given: float | None) -> Device:
  """Returns a device by its name, with numbers of the user's in place of its.

  Args:
    name: of `devices.DEVICES`, or None.
    **given: attributes of `Device`; None keeps the named device's. Without a
      name memory and operations may be left out.

  Raises:
    UserError: if there is no such device, or no bandwidth.
  """
  if name is not None and name not in DEVICES:
    raise UserError(
        f'expected a device of {", ".join(DEVICES)}, got {name!r}; choose one,'
        ' or give --bandwidth'
    )
  numbers = {k: v for k, v in given.items() if v is not None}
  if name is None:
    if 'bandwidth' not in numbers:
      raise UserError(
          f'expected a --device of {", ".join(DEVICES)}, or --bandwidth, with'
          ' --memory and --flops where they are known; got neither'
      )
    return Device(source='given', **dict.fromkeys(_OPTIONAL) | numbers)
  source = DEVICES[name].source
  if numbers:
    source += f'; given: {", ".join(numbers)}'
  return dataclasses.replace(DEVICES[name], source=source, **numbers)


def to_text(plans: Sequence[Plan]) -> str:
  """Returns lines for a person, a line for each number of heads."""
  header = (
      ' K  cache KB/token  cache GB  memory GB  largest batch  prefill s'
      '  ms/step  s/sample  paper s/sample'
  )
  lines = [header]
  for p in plans:
    beside = p.paper_seconds_per_sample
    batch = '-' if p.largest_batch is None else f'{p.largest_batch:,}'
    lines.append(
        f'{p.num_kv_heads:2}  {p.cache_bytes_per_token / 1e3:14.1f}'
        f'  {p.cache_bytes / 1e9:8.2f}  {p.memory_bytes / 1e9:9.2f}'
        f'  {batch:>13}  {p.prefill_seconds:9.4f}'
        f'  {p.ms_per_step:7.3f}  {p.seconds_per_sample:8.4f}'
        + (f'  {beside:14.2f}' if beside else '')
        + ('  does not fit' if p.fits is False else '')
    )
  return '\n'.join(lines)
