# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a decode step costs where cross-attention's K/V are not cached.

t5x's own decoding projects the encoder's output to keys and values again in
every step, unless the compiler moves that out of the loop. Ours does it once
per input.

  python -m gqa_t5x.benchmark.cross_cache --output cross_cache.json

Timed are one step of our network, called from Python, where no compiler can
move anything, with and without the cache; and where t5x is installed the whole
of its `predict_batch`, for its own model and for ours, at two lengths, whose
difference is that of the steps.
"""

import argparse
import functools
import importlib.util
import json
import pathlib
import shlex
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import network
from gqa_t5x.benchmark import decode
from gqa_t5x.experiments import results

_SHORT = 4  # Steps of the shorter of the two runs of t5x.


def small(num_kv_heads: int) -> network.T5Config:
  """T5.1.1 small, float32."""
  return network.T5Config(
      vocab_size=32128,
      emb_dim=512,
      num_heads=6,
      num_kv_heads=num_kv_heads,
      num_encoder_layers=8,
      num_decoder_layers=8,
      head_dim=64,
      mlp_dim=1024,
      mlp_activations=('gelu', 'linear'),
      dropout_rate=0.0,
  )


def step_functions(config: network.T5Config, params, tokens, length: int):
  """Returns {'cached', 'projected'}: functions that run `length` steps.

  Args:
    config: of the model.
    params: its parameters.
    tokens: int32 [B, S].
    length: of the self-attention's cache.
  """
  module = network.Transformer(config)
  targets = jnp.zeros((tokens.shape[0], length), jnp.int32)

  @jax.jit
  def encode(params, tokens):
    return module.apply(
        {'params': params}, tokens, enable_dropout=False, method=module.encode
    )

  @functools.partial(jax.jit, static_argnames=('prefill',))
  def call(params, cache, encoded, tokens, targets, prefill=False):
    logits, variables = module.apply(
        {'params': params, **cache},
        encoded,
        tokens,
        targets,
        targets,
        enable_dropout=False,
        decode=True,
        prefill=prefill,
        mutable=['cache'],
        method=module.decode,
    )
    return logits[:, -1:].argmax(-1), variables

  encoded = encode(params, tokens)
  _, empty = call(params, {}, encoded, tokens, targets)
  _, filled = call(
      params, empty, encoded, tokens, targets[:, :0], prefill=True
  )

  def steps(cache):
    current = targets[:, :1]
    for _ in range(length):
      current, cache = call(params, cache, encoded, tokens, current)
    return jax.block_until_ready(current)

  return {
      'cached': functools.partial(steps, filled),
      'projected': functools.partial(steps, empty),
  }


def t5x_functions(config: network.T5Config, params, tokens, length: int):
  """Returns {(model, length): function} of t5x's greedy decoding."""
  import seqio
  from t5x import adafactor
  from t5x import decoding
  from t5x import models

  from gqa_t5x import t5x_plugin

  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=-1)
  greedy = functools.partial(
      decoding.temperature_sample, temperature=0.0, topk=1
  )
  functions = {}
  for name, cls in (
      ('t5x_stock', models.EncoderDecoderModel),
      ('t5x_ours', t5x_plugin.EncoderDecoderModel),
  ):
    model = cls(
        module=network.Transformer(config),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=adafactor.Adafactor(),
        decode_fn=greedy,
    )
    predict = jax.jit(
        functools.partial(
            model.predict_batch,
            num_decodes=1,
            prompt_with_targets=False,
        )
    )
    for steps in (_SHORT, _SHORT + length):
      batch = {
          'encoder_input_tokens': tokens,
          'decoder_input_tokens': jnp.zeros(
              (tokens.shape[0], steps), jnp.int32
          ),
      }
      functions[name, steps] = lambda p=predict, b=batch: (
          jax.block_until_ready(p(params, b))
      )
  return functions


def _interleaved(functions, num_repeats: int) -> dict:
  """Seconds of each function, its repeats in turn with the others'."""
  seconds = {name: [] for name in functions}
  for function in functions.values():
    function()  # Compiles.
  for _ in range(num_repeats):
    for name, function in functions.items():
      start = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - start)
  return seconds


def measure(
    config: network.T5Config,
    *,
    batch_size: int,
    input_length: int,
    output_length: int,
    num_repeats: int,
    seed: int = 0,
) -> dict:
  """Returns milliseconds of a step, {name: {'median', 'repeats'}}.

  Args:
    config: of the model; weights are random.
    batch_size: inputs decoded together.
    input_length: S.
    output_length: steps.
    num_repeats: as named.
    seed: of inputs and weights.
  """
  _, params = decode._prepare(config, None, None, seed)  # pylint: disable=protected-access
  rng = np.random.default_rng(seed)
  tokens = jnp.asarray(
      rng.integers(2, config.vocab_size, (batch_size, input_length), np.int32)
  )
  seconds = _interleaved(
      step_functions(config, params, tokens, output_length), num_repeats
  )
  if importlib.util.find_spec('t5x'):
    whole = _interleaved(
        t5x_functions(config, params, tokens, output_length), num_repeats
    )
    for name in ('t5x_stock', 't5x_ours'):
      seconds[name] = list(
          np.subtract(
              whole[name, _SHORT + output_length], whole[name, _SHORT]
          )
      )
  return {
      name: {
          'median': 1e3 * float(np.median(repeats)) / output_length,
          'repeats': [1e3 * float(s) / output_length for s in repeats],
      }
      for name, repeats in seconds.items()
  }


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument('--num_kv_heads', type=int, nargs='+', default=[6, 1])
  parser.add_argument(
      '--input_length', type=int, nargs='+', default=[512, 2048]
  )
  parser.add_argument('--output_length', type=int, default=32)
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--num_repeats', type=int, default=5)
  args = parser.parse_args(argv)
  rows = []
  for input_length in args.input_length:
    for num_kv_heads in args.num_kv_heads:
      shape = {
          'batch_size': args.batch_size,
          'input_length': input_length,
          'output_length': args.output_length,
          'num_repeats': args.num_repeats,
      }
      found = measure(small(num_kv_heads), **shape)
      rows.append(
          {'num_kv_heads': num_kv_heads, **shape, 'ms_per_step': found}
      )
      medians = {name: round(x['median'], 2) for name, x in found.items()}
      print(f'K={num_kv_heads} input {input_length}: ms a step {medians}')
  report = {
      'command': 'python -m gqa_t5x.benchmark.cross_cache '
      + shlex.join(argv if argv is not None else sys.argv[1:]),
      'model': 'T5.1.1 small, float32, random weights',
      'rows': rows,
  } | results.environment()
  path = pathlib.Path(args.output)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
  main()
