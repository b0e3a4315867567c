# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times a decode step with and without cached cross-attention keys and values.

  python -m gqa_t5x.benchmark.cross_cache --output results/cross_cache.json

Stock t5x caches the decoder's self-attention only and projects the encoder's
output to cross-attention keys and values in each step. The projection does not
depend on the step, so where all steps are one compiled loop XLA may move it out
of the loop. Hence two programs of each kind:

  loop  all steps in one `lax.fori_loop`, as `decoding` and t5x have it. A step
        is the difference of a long and a short run, so that what XLA does once
        before the loop does not count; where it left the projections is read
        off the compiled program.
  step  one step a program, as where a server takes up new requests between
        steps: nothing can be moved out. Includes the call from Python.

The encoder's output is drawn, not computed: no encoder is timed. Where t5x is
importable its `predict_batch` is timed too, with a model without encoder
layers, as the difference of two output lengths.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
import re
import shlex
import sys
import time
import types
from typing import Any

from flax import traverse_util
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import network
from gqa_t5x.benchmark import decode

Array = jax.Array
PyTree = Any

_nest = traverse_util.unflatten_dict


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of a measurement.

  Attributes:
    batch_size: B, samples decoded together.
    input_length: S, tokens a sample.
    output_length: L, steps of the long run and length of the cache; at least 4.
  """

  batch_size: int
  input_length: int
  output_length: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """What a step changes.

  Attributes:
    token: int32 [B], the last one.
    cache: {path: array} of the decoder's self-attention.
  """

  token: Array
  cache: Mapping[tuple[str, ...], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
  """What all steps read.

  Attributes:
    tokens: int32 [B, S]; 0 is padding.
    encoded: [B, S, D], or None where the keys and values are cached.
    cross_cache: {path: array [B, K, S, H]}; empty where they are projected.
  """

  tokens: Array
  encoded: Array | None
  cross_cache: Mapping[tuple[str, ...], Array]


@functools.partial(jax.jit, static_argnames='model')
def project(
    model: network.Transformer, params: PyTree, tokens: Array, encoded: Array
) -> Source:
  """Projects the encoder's output [B, S, D] once, to be cached."""
  none = tokens[:, :0]
  cache = _empty_cache(model, params, tokens, encoded, 1)
  variables = _apply(
      model, params, cache, tokens, encoded, none, prefill=True
  )[1]
  return Source(
      tokens,
      None,
      {path: x for path, x in variables.items() if _is_cross(path)},
  )


@functools.partial(jax.jit, static_argnames=('model', 'length'))
def start(
    model: network.Transformer,
    params: PyTree,
    tokens: Array,
    encoded: Array,
    length: int,
) -> State:
  """Returns the state before the first step, with room for `length` steps."""
  return State(
      jnp.zeros(tokens.shape[:1], jnp.int32),
      _empty_cache(model, params, tokens, encoded, length),
  )


def greedy_step(
    model: network.Transformer, params: PyTree, source: Source, state: State
) -> State:
  """Feeds a token of each row; the next one is the likeliest."""
  logits, cache = _apply(
      model,
      params,
      {**state.cache, **source.cross_cache},
      source.tokens,
      source.encoded,
      state.token[:, None],
      decode=True,
  )
  return State(
      jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32),
      {path: cache[path] for path in state.cache},
  )


# The state is given up, so that its cache is updated in place.
one_step = jax.jit(greedy_step, static_argnums=0, donate_argnums=3)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def loop(
    model: network.Transformer,
    params: PyTree,
    source: Source,
    state: State,
    num_steps: Array,
) -> State:
  """Takes `num_steps` steps in one program, of any number."""
  return lax.fori_loop(
      0, num_steps, lambda _, s: greedy_step(model, params, source, s), state
  )


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
    config: of the model; its encoder is not run.
    shape: as named.
    num_repeats: repeats after the warm-up, which compiles.
    seed: of random parameters and inputs.

  Returns:
    The fields of `shape`, num_kv_heads, num_repeats, and
      projection_ms: median milliseconds to project once, for all layers.
      loop: {'cached': ..., 'projected': ...}, each with ms_per_step, the median
        of ms_per_step_repeats, and `projections`.
      step: likewise, without `projections`, which stay in the step.
      t5x: as loop, of t5x's `predict_batch`; None where t5x is missing.
        'cached' is `t5x_plugin`'s model, 'projected' t5x's own, around a
        decoder that it does not prefill.
    Cache and weights are of the config's dtype.
  """
  model = network.Transformer(config)
  params = decode.random_params(config, config.dtype, seed)
  tokens = _random_tokens(config, shape, seed)
  encoded = jax.random.normal(
      jax.random.key(seed), (*tokens.shape, config.emb_dim), config.dtype
  )
  sources = {
      'cached': project(model, params, tokens, encoded),
      'projected': Source(tokens, encoded, {}),
  }
  length = shape.output_length

  def run_loop(source, num_steps):
    state = start(model, params, tokens, encoded, length)
    return _seconds(loop, model, params, source, state, jnp.int32(num_steps))

  def run_steps(source):
    state = start(model, params, tokens, encoded, length)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    for _ in range(length):
      state = one_step(model, params, source, state)
    jax.block_until_ready(state)
    return (time.perf_counter() - begin) / length

  short = length // 4
  runs = {
      ('loop', kind): functools.partial(
          lambda source: (run_loop(source, length) - run_loop(source, short))
          / (length - short),
          source,
      )
      for kind, source in sources.items()
  }
  runs |= {
      ('step', kind): functools.partial(run_steps, source)
      for kind, source in sources.items()
  }
  t5x = _t5x_programs(config, shape, seed)
  runs |= {('t5x', kind): run for kind, (run, _) in t5x.items()}
  runs['projection', ''] = lambda: _seconds(
      project, model, params, tokens, encoded
  )
  times = {name: [] for name in runs}
  for repeat in range(1 + num_repeats):
    for name, run in runs.items():
      seconds = run()
      if repeat:
        times[name].append(1e3 * seconds)
  result = dataclasses.asdict(shape) | {
      'num_kv_heads': config.num_kv_heads,
      'num_repeats': num_repeats,
      'projection_ms': float(np.median(times.pop(('projection', '')))),
      'loop': {},
      'step': {},
      't5x': None,
  }
  for (program, kind), ms in times.items():
    result[program] = (result[program] or {}) | {
        kind: {'ms_per_step': float(np.median(ms)), 'ms_per_step_repeats': ms}
    }
  for kind, source in sources.items():
    state = start(model, params, tokens, encoded, length)
    program = loop.lower(model, params, source, state, jnp.int32(length))
    result['loop'][kind]['projections'] = projections(program)
  for kind, (_, lowered) in t5x.items():
    result['t5x'][kind]['projections'] = projections(lowered())
  return result


def _t5x_programs(
    config: network.T5Config, shape: Shape, seed: int
) -> dict[str, tuple[Callable[[], float], Callable[[], jax.stages.Lowered]]]:
  """Returns, for each kind, functions that give seconds a step, and a program.

  None where t5x is missing.
  """
  try:
    from gqa_t5x import t5x_plugin
  except ImportError:
    return {}
  # Else the difference of two runs would be lost in the encoder's time.
  config = dataclasses.replace(config, num_encoder_layers=0)
  params = decode.random_params(config, config.dtype, seed)
  # No token is EOS: every row decodes to the end.
  vocabulary = types.SimpleNamespace(
      vocab_size=config.vocab_size, eos_id=config.vocab_size
  )
  greedy = functools.partial(
      t5x_plugin.decoding.temperature_sample, temperature=0.0, topk=1
  )
  modules = {
      'cached': (t5x_plugin.EncoderDecoderModel, network.Transformer),
      'projected': (t5x_plugin.models.EncoderDecoderModel, _NotPrefilled),
  }
  tokens = _random_tokens(config, shape, seed)
  lengths = shape.output_length // 2, shape.output_length
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
    model = model_class(
        module=module_class(config),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=None,
        decode_fn=greedy,
    )
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


def _random_tokens(config: network.T5Config, shape: Shape, seed: int) -> Array:
  """Returns int32 [B, S] without padding."""
  size = shape.batch_size, shape.input_length
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(2, config.vocab_size, size, np.int32))


def _apply(model, params, cache, tokens, encoded, decoder_tokens, **stage):
  """Applies the decoder; returns logits and the flat cache."""
  logits, variables = model.apply(
      {'params': params, 'cache': _nest(cache)},
      encoded,
      tokens,
      decoder_tokens,
      decoder_tokens,
      enable_dropout=False,
      mutable=['cache'],
      method='decode',
      **stage,
  )
  return logits, traverse_util.flatten_dict(variables['cache'])


def _empty_cache(model, params, tokens, encoded, length):
  """Returns the self-attention's cache of zeros, `length` long."""
  rows = jax.ShapeDtypeStruct((tokens.shape[0], length), jnp.int32)
  shapes = jax.eval_shape(
      lambda rows: _apply(
          model, params, {}, tokens, encoded, rows, decode=True
      )[1],
      rows,
  )
  return {path: jnp.zeros(x.shape, x.dtype) for path, x in shapes.items()}


def _is_cross(path: tuple[str, ...]) -> bool:
  return 'encoder_decoder_attention' in path


def _is_projection(line: str) -> bool:
  """Whether an instruction of HLO is a product that makes keys or values."""
  is_product = re.search(r' (?:dot|custom-call)\(', line)
  name = re.search(r'op_name="([^"]*)"', line)
  return bool(
      is_product
      and name
      and re.search(r'encoder_decoder_attention[./\w]*/(key|value)\b', name[1])
  )


def _seconds(function, *arguments) -> float:
  """Times a call whose arguments have been computed."""
  jax.block_until_ready(
      [x for x in arguments if not isinstance(x, network.Transformer)]
  )
  begin = time.perf_counter()
  jax.block_until_ready(function(*arguments))
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
  from gqa_t5x.benchmark import tpu_compile
  from gqa_t5x.experiments import results

  argv = sys.argv[1:] if argv is None else argv
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument('--model', default='small', help='a size of T5.1.1')
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--output_length', type=int, default=32)
  parser.add_argument('--num_repeats', type=int, default=5)
  lists = {'num_kv_heads': '6,2,1', 'input_length': '512,2048'}
  for name, default in lists.items():
    parser.add_argument(
        f'--{name}', default=default, metavar='N,N', help='default: %(default)s'
    )
  args = parser.parse_args(argv)
  numbers = {
      name: [int(part) for part in getattr(args, name).split(',')]
      for name in lists
  }
  report = {
      'command': 'python -m gqa_t5x.benchmark.cross_cache '
      + shlex.join(argv),
      **results.environment(),
      'model': args.model,
      'dtype': 'float32',
      'cases': [],
  }
  for input_length in numbers['input_length']:
    for num_kv_heads in numbers['num_kv_heads']:
      config = tpu_compile.t5_1_1_config(args.model, num_kv_heads)
      case = measure(
          dataclasses.replace(config, dtype=jnp.float32),
          Shape(args.batch_size, input_length, args.output_length),
          num_repeats=args.num_repeats,
      )
      report['cases'].append(case)
      print(table([case]), flush=True)
  path = pathlib.Path(args.output)
  path.parent.mkdir(parents=True, exist_ok=True)
  results.write_text(path, json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
  main()
