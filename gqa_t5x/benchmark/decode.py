# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times autoregressive decoding, with the decoder that `generate` uses.

All weights are in the model's dtype, as in a checkpoint of that dtype. Of one
in float32 `generate` keeps those of the logits, also where it computes in 16
bits.

A decode step has to read the decoder's weights and the key/value cache once.
That many bytes over the machine's bandwidth is its limit; grouped-query
attention lowers it by shrinking the cache.
"""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import decoding
from gqa_t5x import grouping
from gqa_t5x import sizes
from gqa_t5x.benchmark import peers as peers_lib
from gqa_t5x.benchmark.bandwidth import measure_bandwidth
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer


@dataclasses.dataclass(frozen=True)
class _Timed:
  """Seconds of one repeat for the whole batch.

  A prefill has the encoder in it. Of a peer the encoder alone is not known.
  """

  encode: float | None
  prefill: float
  steps: float


def random_params(config: T5Config, dtype: Any, seed: int,
                  made: dict[Any, jax.Array] | None = None):
  """Returns parameters of the right shapes and about the right size.

  Compiling the true initialisers takes seconds even for a tiny model. A call
  a leaf compiles each shape once; 'rbg' compiles and runs faster than the
  default generator.

  Args:
    config: of the model.
    dtype: of the parameters; None is float32.
    seed: of the random numbers.
    made: arrays by name and shape, which are taken from there or added, so
      that models of the same layers share what they have in common.
  """
  made = {} if made is None else made
  leaves, tree = jax.tree.flatten_with_path(sizes.parameter_shapes(config))
  params = []
  for i, (path, leaf) in enumerate(leaves):
    name = jax.tree_util.keystr(path), leaf.shape
    if name not in made:
      made[name] = _fill(jax.random.key(seed + i, impl='rbg'), leaf.shape,
                         dtype or leaf.dtype)
    params.append(made[name])
  return tree.unflatten(params)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _fill(key, shape, dtype):
  return jax.random.uniform(key, shape, dtype, -1, 1) * shape[0] ** -0.5


def _prepare(config, params, dtype, seed):
  """Returns the module and its parameters, in `dtype` unless it is None."""
  if dtype is not None:
    config = dataclasses.replace(config, dtype=dtype)
  if params is None:
    params = random_params(config, dtype, seed)
  elif dtype is not None:
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
  else:
    params = jax.tree.map(jnp.asarray, params)
  return Transformer(config), params


def random_tokens(config: T5Config, size, seed) -> jax.Array:
  """Returns int32 tokens of `size` without padding (0) and EOS (1)."""
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(2, config.vocab_size, size, np.int32))


def _time_second(call, *args) -> tuple[float, Any]:
  """Returns the seconds of the second of two calls, and what it returns.

  As for someone who decodes batch after batch with one program: the first call
  after another program's finds memory as that left it, and may have to take
  its own anew.
  """
  jax.block_until_ready(call(*args))
  start = time.perf_counter()
  made = jax.block_until_ready(call(*args))
  return time.perf_counter() - start, made


def _of_encoder(params):
  return {name: params[name] for name in ('encoder', 'token_embedder')}


class _Encoder:
  """A model's encoder, compiled for one shape; several models may share it.

  What it made last is held until it encodes something else.

  Attributes:
    compile_seconds: as named.
    memory: XLA's account.
  """

  def __init__(self, module, params, size):
    start = time.perf_counter()
    tokens = jax.ShapeDtypeStruct(size, jnp.int32)
    self._call = decoding.encode.lower(
        module, _of_encoder(params), tokens).compile()
    self.compile_seconds = time.perf_counter() - start
    self.memory = self._call.memory_analysis()
    self._last = None

  def run(self, params, tokens) -> tuple[float, jax.Array]:
    """Returns seconds and what it makes; anew for each array of tokens."""
    if self._last is None or self._last[0] is not tokens:
      self._last = None
      self._last = tokens, *_time_second(
          self._call, _of_encoder(params), tokens)
    return self._last[1:]


class _Program:
  """A model's decoding, compiled for one shape, as `decoding` writes it.

  Attributes:
    compile_seconds: of its three parts.
    peak_memory_bytes: all weights, and what the part that needs most has
      besides: arguments, results, and what XLA allots for the time between.
  """

  def __init__(self, module, params, size, output_length, encoder):
    """Compiles; the parameters may be ShapeDtypeStructs."""
    self._encoder = encoder
    start = time.perf_counter()
    tokens = jax.ShapeDtypeStruct(size, jnp.int32)
    self._output_length = output_length
    encoded = jax.eval_shape(
        functools.partial(decoding.encode, module), params, tokens)
    prefill = functools.partial(decoding.prefill, module)
    prefilled = jax.eval_shape(prefill, params, tokens, encoded)
    self._prefill = decoding.prefill.lower(
        module, params, tokens, encoded).compile()
    self._loop = decoding.decode_loop.lower(
        module, params, prefilled, max_decode_len=output_length,
        eos_id=decoding.NO_EOS).compile()
    self.compile_seconds = (
        self._encoder.compile_seconds + time.perf_counter() - start)
    self.peak_memory_bytes = sizes.tree_bytes(params) + max(
        sizes.tree_bytes(arguments) + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes
        for arguments, memory in (
            (tokens, self._encoder.memory),
            ((tokens, encoded), self._prefill.memory_analysis()),
            ((prefilled, encoded), self._loop.memory_analysis())))

  def run(self, params, tokens) -> tuple[_Timed, jax.Array]:
    """Returns times, and the tokens [B, output_length] that it decodes."""
    encode, encoded = self._encoder.run(params, tokens)
    prefill, prefilled = _time_second(self._prefill, params, tokens, encoded)
    start = time.perf_counter()
    decoded = jax.block_until_ready(
        self._loop(params, prefilled, eos_id=decoding.NO_EOS))
    steps = time.perf_counter() - start
    assert int(decoded.num_steps) == self._output_length
    return _Timed(encode, encode + prefill, steps), decoded.tokens


def compare_decode(
    models: Mapping[str, tuple[T5Config, Mapping[str, Any] | None]], *,
    batch_size: int, input_length: int, output_length: int,
    num_repeats: int = 5, dtype: Any = None, seed: int = 0,
    bandwidth: Mapping[str, float] | None = None,
    peers: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] | None = None,
    same_as: str | None = None) -> dict[str, dict]:
  """Times greedy decoding of several models, in turn within each repeat.

  In turn, so that a machine that slows down does so for all. In a turn the
  encoder, the rest of the prefill and a peer's run of one step go twice, and
  the second counts. Each repeat has fresh random inputs, the same for every
  model of one vocabulary size, without padding; EOS is suppressed. All models
  are in memory at once. Those whose encoders are the same arrays encode but
  for the first of them.

  Args:
    models: name -> (config, parameters); random parameters where None.
    batch_size: samples decoded together.
    input_length: input tokens a sample.
    output_length: decoded tokens a sample.
    num_repeats: repeats after the warm-up, which compiles.
    dtype: of activations, cache and weights; None leaves them as they are.
    seed: of inputs and random parameters.
    bandwidth: what `measure_bandwidth` gave in this run; None measures it.
    peers: other programs by name, see `benchmark.peers`. A step of theirs is
      what a long run takes longer than a run of one step.
    same_as: the model whose weights the peers have.

  Returns:
    name -> dict with, for the whole batch and as medians of the repeats unless
    said otherwise (of a peer only times and shape):
      seconds_per_sample: (prefill + all steps) / batch_size.
      seconds_per_sample_repeats: the same of each repeat.
      spread: (longest - shortest repeat) / median.
      encode_seconds: encoder.
      prefill_seconds: encoder and cross-attention keys and values.
      ms_per_step: milliseconds of one decode step.
      ms_per_step_repeats: the same of each repeat.
      tokens_per_second: decoded tokens, without prefill.
      compile_seconds: once; the run that warms up comes after.
      peak_memory_bytes: on one device, by XLA's account: weights, and what the
        encoder, the prefill or the steps need most besides.
      cache_bytes_per_token, cache_bytes_computed, cache_bytes_allocated.
      step_weight_bytes: see there.
      step_bytes: weights and the cache filled so far, read by a mean step.
      bandwidth: as `measure_bandwidth` gives it, bytes per second.
      limit_ms_per_step: step_bytes / the best bandwidth.
      bandwidth_share: limit_ms_per_step / ms_per_step, 1 at the limit.
      batch_size, input_length, output_length, num_repeats, dtype (of
      activations and cache), weights_dtype, num_kv_heads.

  Raises:
    RuntimeError: if a peer decodes other tokens than the model of its weights.
  """
  size = batch_size, input_length
  peers = peers or {}
  ready, encoders, programs = {}, {}, {}
  for name, (config, params) in models.items():
    module, params = ready[name] = _prepare(config, params, dtype, seed)
    # Models with the same arrays here share an encoder.
    key = (dataclasses.replace(module.config, num_kv_heads=None),
           *map(id, jax.tree.leaves(_of_encoder(params))))
    if key not in encoders:
      encoders[key] = _Encoder(module, params, size)
    programs[name] = _Program(
        module, params, size, output_length, encoders[key])
  vocabularies = {m.config.vocab_size: m.config for m, _ in ready.values()}
  times = {name: [] for name in (*models, *peers)}
  for repeat in range(num_repeats + 1):  # The first one warms up.
    inputs = {vocab_size: random_tokens(config, size, (seed, repeat))
              for vocab_size, config in vocabularies.items()}
    decoded = {}
    for name, (module, params) in ready.items():
      seconds, decoded[name] = programs[name].run(
          params, inputs[module.config.vocab_size])
      times[name] += [seconds] * (repeat > 0)
    for name, peer in peers.items():
      tokens = np.asarray(inputs[ready[same_as][0].config.vocab_size])
      if repeat:
        times[name].append(_time_peer(peer, tokens, output_length))
      else:
        _check_tokens(name, peer, tokens, np.asarray(decoded[same_as]))
  bandwidth = bandwidth or measure_bandwidth()
  shape = {'batch_size': batch_size, 'input_length': input_length,
           'output_length': output_length}
  found = {
      name: {**_summary(times[name], module.config, params, bandwidth, shape),
             'compile_seconds': programs[name].compile_seconds,
             'peak_memory_bytes': programs[name].peak_memory_bytes}
      for name, (module, params) in ready.items()}
  for name in peers:
    row = _times(times[name], shape) | shape | {'num_repeats': num_repeats}
    limit = found[same_as]['limit_ms_per_step']
    found[name] = row | {
        'limit_ms_per_step': limit,
        'bandwidth_share': limit / row['ms_per_step'],
        'num_kv_heads': ready[same_as][0].config.num_kv_heads}
  return found


def configs_by_kv_heads(
    config: T5Config, num_kv_heads: Sequence[int] | None = None
) -> dict[int, T5Config]:
  """Returns a configuration with other numbers of key/value heads.

  Args:
    config: of a model.
    num_kv_heads: wanted; None is all divisors of its query heads.

  Raises:
    UserError: if the heads do not divide.
  """
  return {
      k: dataclasses.replace(config, num_kv_heads=k)
      for k in num_kv_heads or grouping.num_kv_heads_choices(config.num_heads)}


def compare_kv_heads(
    config: T5Config, num_kv_heads: Sequence[int] | None = None, *,
    against: Sequence[str] = (), **options) -> dict[str, dict]:
  """Times a model of random weights with other numbers of key/value heads.

  All but the heads' own weights are the same arrays in all of them.

  Args:
    config: of the model; its dtype is that of weights and cache too.
    num_kv_heads: wanted; None is all divisors of its query heads.
    against: peers to time beside it, see `benchmark.peers`; they run the
      multi-head model, which is then timed too.
    **options: as in `compare_decode`.

  Returns:
    'K=...' or the peer's name -> what `compare_decode` returns.

  Raises:
    UserError: if the heads do not divide, or a peer is unknown, not installed,
      or cannot run the model.
  """
  configs = configs_by_kv_heads(config, num_kv_heads)
  peers_lib.check(peers_lib.DECODE, against, config)
  if against and (
      config.logits_via_embedding or config.dtype != jnp.float32):
    raise UserError(
        'expected T5.1.1 in float32 to time peers beside it, got '
        f'{jnp.dtype(config.dtype).name}'
        + ', input and output embeddings tied' * config.logits_via_embedding
        + '; add --model and --dtype=float32')
  if against and options['output_length'] < 2:
    raise UserError(
        'expected an output_length of 2 or more to tell the steps of peers from'
        f' their prefill, got {options["output_length"]}')
  options = {'dtype': config.dtype, **options}
  made = {}

  def params_of(one):
    return random_params(one, options['dtype'], options.get('seed', 0), made)

  models = {f'K={k}': (one, params_of(one)) for k, one in configs.items()}
  if not against:
    return compare_decode(models, **options)
  multi_head = f'K={config.num_heads}'
  params = peers_lib.without_pad_and_eos(params_of(config))
  models = {multi_head: (config, params)} | {
      name: model for name, model in models.items() if name != multi_head}
  with tempfile.TemporaryDirectory() as folder:
    return compare_decode(
        models, peers=peers_lib.load(
            peers_lib.DECODE, against, config, params, folder),
        same_as=multi_head, **options)


def largest_batch(config: T5Config, memory_bytes: float, *, input_length: int,
                  output_length: int) -> int:
  """Returns the most samples that can be decoded together, to some 3%.

  It is found by compiling for several batches; nothing is allotted.

  Args:
    config: of the model; its dtype is that of weights and cache too.
    memory_bytes: what `peak_memory_bytes` of `compare_decode` may be.
    input_length: input tokens a sample.
    output_length: decoded tokens a sample.

  Raises:
    UserError: if not even one sample fits.
  """
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, config.dtype),
                        sizes.parameter_shapes(config))

  def peak(batch_size):
    module, size = Transformer(config), (batch_size, input_length)
    return _Program(module, params, size, output_length,
                    _Encoder(module, params, size)).peak_memory_bytes

  one = peak(1)
  if one > memory_bytes:
    raise UserError(
        f'expected memory for one sample, {one / 2**30:.3g} GiB with'
        f' {config.num_kv_heads} key/value heads, got'
        f' {memory_bytes / 2**30:.3g}; give more, or take a smaller model')
  fits, too_many, guess = 1, None, 8
  while too_many is None or too_many - fits > max(1, fits // 32):
    found = peak(guess)
    if found <= memory_bytes:
      fits = guess
    else:
      too_many = guess
    if too_many is not None:
      guess = (fits + too_many) // 2
    else:  # Memory grows by about as much with each sample.
      sample = (found - one) / (guess - 1)
      guess = max(fits + max(1, fits // 32),
                  int((memory_bytes - one) / sample) + 1)
  return fits


def largest_batches(
    config: T5Config, num_kv_heads: Sequence[int] | None,
    memory_bytes: float, **lengths) -> dict[int, int]:
  """Returns `largest_batch` of each number of key/value heads.

  Args:
    config: of the model; its dtype is that of weights and cache too.
    num_kv_heads: wanted; None is all divisors of its query heads.
    memory_bytes: as in `largest_batch`.
    **lengths: likewise.

  Raises:
    UserError: if the heads do not divide, or not even one sample fits.
  """
  return {
      k: largest_batch(one, memory_bytes, **lengths)
      for k, one in configs_by_kv_heads(config, num_kv_heads).items()
  }


def compare_largest_batches(
    config: T5Config, batches: Mapping[int, int], **options
) -> dict[str, dict]:
  """Times each number of key/value heads at its own batch.

  One after another, since each may need all of the memory.

  Args:
    config: of the model; its dtype is that of weights and cache too.
    batches: {key/value heads: samples}, as `largest_batches` finds them.
    **options: as in `compare_decode`.

  Returns:
    'K=...' -> what `compare_decode` returns.
  """
  found = {}
  for k, one in configs_by_kv_heads(config, list(batches)).items():
    found |= compare_decode({f'K={k}': (one, None)}, batch_size=batches[k],
                            **{'dtype': config.dtype, **options})
  return found


def _check_tokens(name, peer, tokens, ours):
  """Raises RuntimeError unless a peer decodes the same from the same inputs.

  Nearly: where two logits are as good as equal, rounding decides, and the rest
  of that row differs.
  """
  theirs = peer(tokens, ours.shape[1])
  peer(tokens, 1)  # It may have to be compiled too.
  same = (ours == theirs).all(axis=1) if ours.shape == theirs.shape else [0]
  if np.mean(same) < 0.75:
    raise RuntimeError(
        f'{name} decodes other tokens than ours, {ours[0][:8]} here and'
        f' {theirs[0][:8]} there; timing it would compare different work')


def _time_peer(peer, tokens, output_length) -> _Timed:
  first, _ = _time_second(peer, tokens, 1)
  start = time.perf_counter()
  peer(tokens, output_length)
  whole = time.perf_counter() - start
  steps = (whole - first) * output_length / (output_length - 1)
  return _Timed(None, whole - steps, steps)


def _times(times, shape) -> dict:
  batch_size, output_length = shape['batch_size'], shape['output_length']
  samples = [(t.prefill + t.steps) / batch_size for t in times]
  steps = float(np.median([t.steps for t in times]))
  return {
      'seconds_per_sample': float(np.median(samples)),
      'seconds_per_sample_repeats': samples,
      'spread': float(np.ptp(samples) / np.median(samples)),
      'prefill_seconds': float(np.median([t.prefill for t in times])),
      'ms_per_step': 1e3 * steps / output_length,
      'ms_per_step_repeats': [1e3 * t.steps / output_length for t in times],
      'tokens_per_second': batch_size * output_length / steps,
  }


def _summary(times, config, params, bandwidth, shape) -> dict:
  weights = sizes.step_weight_bytes(params)
  step_bytes = sizes.step_bytes(weights, config, **shape)
  limit = step_bytes / bandwidth['best']
  measured = _times(times, shape)
  return {
      **measured,
      'encode_seconds': float(np.median([t.encode for t in times])),
      'cache_bytes_per_token': sizes.cache_bytes_per_token(config),
      'cache_bytes_computed': sizes.cache_bytes(config, **shape),
      'cache_bytes_allocated': sizes.allocated_cache_bytes(config, **shape),
      'step_weight_bytes': weights,
      'step_bytes': step_bytes,
      'bandwidth': dict(bandwidth),
      'limit_ms_per_step': 1e3 * limit,
      'bandwidth_share': 1e3 * limit / measured['ms_per_step'],
      **shape,
      'num_repeats': len(times),
      'dtype': jnp.dtype(config.dtype).name,
      'weights_dtype': jax.tree.leaves(params)[0].dtype.name,
      'num_kv_heads': config.num_kv_heads,
  }
