# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times a decode step with and without cached cross-attention keys and values.

  python -m gqa_t5x.benchmark.cross_cache --output results/cross_cache.json

Stock t5x caches the decoder's self-attention only and projects the encoder's
output to cross-attention keys and values in each step. The projection does not
depend on the step, so where all steps are one compiled loop XLA may move it out
of the loop. Hence two programs of each kind:

  loop  `decoding.decode_loop`, all steps in one program. A step is the
        difference of a long and a short run, so that what is done once before
        the loop does not count; where XLA left the projections is read off the
        compiled program.
  step  `decoding.decode_step`, one step a program, as where a server takes up
        new requests between steps: nothing can be moved out. Includes the call
        from Python.

Where t5x is importable its `predict_batch` is timed too, as `loop` is. The
model has no encoder layers, which would be most of the time and none of a step.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import re
import shlex
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import decoding
from gqa_t5x import network
from gqa_t5x import number_flags
from gqa_t5x import storage
from gqa_t5x.benchmark import decode
from gqa_t5x.errors import UserError

Array = jax.Array
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of a measurement.

  Attributes:
    batch_size: B, samples decoded together.
    input_length: S, tokens a sample.
    output_length: L, steps of the long run; at least 4.
  """

  batch_size: int
  input_length: int
  output_length: int


def sources(
    model: network.Transformer, params: PyTree, tokens: Array
) -> dict[str, decoding.Prefilled]:
  """Returns what the steps need of tokens [B, S], 'cached' and 'projected'."""
  encoded = model.apply(
      {'params': params}, tokens, enable_dropout=False, method='encode'
  )
  return {
      'cached': decoding.prefill(model, params, tokens),
      'projected': decoding.Prefilled(tokens, {}, encoded),
  }


# The cache is given up, so that it is updated in place.
@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def one_step(model, params, source, cache, tokens):
  """Feeds tokens [B]; returns the likeliest next ones and the cache."""
  logits, cache = decoding.decode_step(model, params, source, cache, tokens)
  return jnp.argmax(logits, axis=-1).astype(jnp.int32), cache


def projections(program: jax.stages.Lowered) -> dict[str, int]:
  """Compiles a program and counts its cross-attention's K and V projections.

  Returns:
    {'in_loop': those inside of a `while`, 'outside': all others}. XLA may join
    those of a key and a value.
  """
  lines, names = {}, []
  for line in program.compile().as_text().splitlines():
    if head := re.match(r'(?:ENTRY )?%?([\w.-]+) .*\{$', line):
      names.append(head[1])
      lines[head[1]] = []
    elif names:
      lines[names[-1]].append(line)

  def called(name, what):
    pattern = rf'\b(?:{what})=\{{?%?([\w.-]+)'
    return [c for line in lines[name] for c in re.findall(pattern, line)]

  inside = set()
  waiting = [body for name in lines for body in called(name, 'body')]
  while waiting:
    name = waiting.pop()
    if name not in inside:
      inside.add(name)
      waiting += called(name, 'body|condition|calls|to_apply')
  counts = {'in_loop': 0, 'outside': 0}
  for name, body in lines.items():
    found = sum(map(_is_projection, body))
    counts['in_loop' if name in inside else 'outside'] += found
  return counts


def measure(
    config: network.T5Config,
    shape: Shape,
    *,
    num_repeats: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
  """Times the pair of one model, in turn within each repeat.

  Args:
    config: of the model, whose encoder layers are left out.
    shape: as named.
    num_repeats: repeats after the warm-up, which compiles.
    seed: of random parameters and inputs.

  Returns:
    The fields of `shape`, num_kv_heads, num_repeats, and
      loop: {'cached': ..., 'projected': ...}, each with ms_per_step, the median
        of ms_per_step_repeats, and `projections`.
      step: likewise, without `projections`, which stay in the step.
      t5x: as loop, of t5x's `predict_batch`; None where t5x is missing.
        'cached' is `t5x_plugin`'s model, 'projected' t5x's own, around a
        decoder that it does not prefill.
    Cache and weights are of the config's dtype.
  """
  config = dataclasses.replace(config, num_encoder_layers=0)
  model = network.Transformer(config)
  params = decode.random_params(config, config.dtype, seed)
  size = shape.batch_size, shape.input_length
  tokens = decode.random_tokens(config, size, seed)
  length, short = shape.output_length, shape.output_length // 4

  def run_loop(source):
    many, few = (
        _seconds(
            decoding.decode_loop, model, params, source,
            max_decode_len=steps, eos_id=decoding.NO_EOS,
        )
        for steps in (length, short)
    )  # pyformat: disable
    return (many - few) / (length - short)

  def run_steps(source):
    current = jnp.zeros(tokens.shape[:1], jnp.int32)
    cache = decoding.empty_cache(model, params, current, length)
    jax.block_until_ready(cache)
    begin = time.perf_counter()
    for _ in range(length):
      current, cache = one_step(model, params, source, cache, current)
    jax.block_until_ready(current)
    return (time.perf_counter() - begin) / length

  both = sources(model, params, tokens)
  t5x = _t5x_programs(config, params, tokens, (short, length))
  runs = {}
  for kind, source in both.items():
    runs['loop', kind] = functools.partial(run_loop, source)
    runs['step', kind] = functools.partial(run_steps, source)
    if t5x:
      runs['t5x', kind] = t5x[kind][0]
  times = {name: [] for name in runs}
  for repeat in range(1 + num_repeats):
    for name, run in runs.items():
      seconds = run()
      if repeat:
        times[name].append(1e3 * seconds)
  result = dataclasses.asdict(shape) | {
      'num_kv_heads': config.num_kv_heads,
      'num_repeats': num_repeats,
      'loop': {},
      'step': {},
      't5x': {} if t5x else None,
  }
  for (program, kind), ms in times.items():
    result[program][kind] = {
        'ms_per_step': float(np.median(ms)),
        'ms_per_step_repeats': ms,
    }
  for kind, source in both.items():
    program = decoding.decode_loop.lower(
        model, params, source, max_decode_len=length, eos_id=decoding.NO_EOS
    )
    result['loop'][kind]['projections'] = projections(program)
    if t5x:
      result['t5x'][kind]['projections'] = projections(t5x[kind][1]())
  return result


def _t5x_programs(
    config: network.T5Config,
    params: PyTree,
    tokens: Array,
    lengths: tuple[int, int],
) -> dict[str, tuple[Callable[[], float], Callable[[], jax.stages.Lowered]]]:
  """Returns, for each kind, functions that give seconds a step, and a program.

  Nothing where t5x is missing.
  """
  try:
    from gqa_t5x import t5x_plugin
  except ImportError:
    return {}
  modules = {
      'cached': (t5x_plugin.EncoderDecoderModel, network.Transformer),
      'projected': (t5x_plugin.models.EncoderDecoderModel, _NotPrefilled),
  }
  batches = [
      {
          'encoder_input_tokens': tokens,
          'decoder_input_tokens': jnp.zeros((len(tokens), length), jnp.int32),
      }
      for length in lengths
  ]

  def seconds(predict):
    few, many = (_seconds(predict, params, batch) for batch in batches)
    return (many - few) / (lengths[1] - lengths[0])

  programs = {}
  for kind, (model_class, module_class) in modules.items():
    model = t5x_plugin.greedy_model(module_class(config), model_class)
    predict = jax.jit(model.predict_batch)
    programs[kind] = (
        functools.partial(seconds, predict),
        functools.partial(predict.lower, params, batches[-1]),
    )
  return programs


class _NotPrefilled(network.Transformer):
  """Has no argument `prefill`, as t5x's own network; t5x looks for it.

  t5x prefills a network that has it before it samples, greedily too, and so
  would have the cross-attention's keys and values in the cache.
  """

  def decode(
      self,
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      enable_dropout=True,
      decode=False,
      max_decode_length=None,
      **packing,
  ):
    return super().decode(
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        enable_dropout=enable_dropout,
        decode=decode,
        max_decode_length=max_decode_length,
        **packing,
    )


def _is_projection(line: str) -> bool:
  """Whether an instruction of HLO is a product that makes keys or values."""
  is_product = re.search(r' (?:dot|custom-call)\(', line)
  name = re.search(r'op_name="([^"]*)"', line)
  return bool(
      is_product
      and name
      and re.search(r'encoder_decoder_attention[./\w]*/(key|value)\b', name[1])
  )


def _seconds(function, *arguments, **options) -> float:
  begin = time.perf_counter()
  jax.block_until_ready(function(*arguments, **options))
  return time.perf_counter() - begin


def table(cases: Sequence[Mapping[str, Any]]) -> str:
  """Returns results of `measure` as lines, milliseconds a step."""
  lines = ['   B     S   K  program  projected    cached  ratio  in the loop']
  for case in cases:
    for program in ('loop', 'step', 't5x'):
      pair = case[program]
      if not pair:
        continue
      slow, fast = (pair[k]['ms_per_step'] for k in ('projected', 'cached'))
      found = pair['projected'].get('projections')
      lines.append(
          f'{case["batch_size"]:4} {case["input_length"]:5}'
          f' {case["num_kv_heads"]:3}  {program:<7}  {slow:9.2f} {fast:9.2f}'
          f'  {slow / fast:5.2f}'
          + (f'  {found["in_loop"]} projections' if found else '')
      )
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
  from gqa_t5x.benchmark import models
  from gqa_t5x import provenance

  argv = sys.argv[1:] if argv is None else argv
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument('--model', default='small', help='a size of T5.1.1')
  for name, default in (
      ('batch_size', 8), ('output_length', 32), ('num_repeats', 5),
  ):  # pyformat: disable
    parser.add_argument(
        f'--{name}', type=number_flags.positive, default=default
    )
  for name, default in (
      ('num_kv_heads', [6, 2, 1]), ('input_length', [512, 2048]),
  ):  # pyformat: disable
    parser.add_argument(
        f'--{name}', type=number_flags.integers, default=default, metavar='N,N',
        help='default: %(default)s',
    )  # pyformat: disable
  args = parser.parse_args(argv)
  if args.output_length < 4:
    parser.error(
        'expected --output_length 4 or more, of which a short run takes a'
        f' quarter, got {args.output_length}'
    )
  try:
    configs = [
        models.t5_1_1_config(args.model, k) for k in args.num_kv_heads
    ]
    path = storage.output_file(args.output)  # Before anything is measured.
    path.parent.mkdir(parents=True, exist_ok=True)
  except (UserError, OSError) as error:
    parser.error(str(error))
  report = {
      'command': 'python -m gqa_t5x.benchmark.cross_cache '
      + shlex.join(argv),
      **provenance.environment(),
      'model': args.model,
      'dtype': 'float32',
      'cases': [],
  }
  for input_length in args.input_length:
    for config in configs:
      case = measure(
          dataclasses.replace(config, dtype=jnp.float32),
          Shape(args.batch_size, input_length, args.output_length),
          num_repeats=args.num_repeats,
      )
      report['cases'].append(case)
      print(table([case]), flush=True)
  storage.write_json(path, report)


if __name__ == '__main__':
  main()
