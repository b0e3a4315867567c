# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What t5x needs to train and serve grouped-query models well.

The only file that imports t5x. t5x's own `EncoderDecoderModel` and partitioner
work with our `Transformer` too; those here decode faster, and place key/value
heads on a mesh that they do not divide over. Importing it also makes t5x's
checkpoints in buckets safe: see `_CheckpointManager`.
"""

import dataclasses
import functools
import logging
import posixpath
import types
from typing import Any, Callable

from etils import epath
from flax import struct
from flax import traverse_util
import numpy as np
from t5x import checkpoints
from t5x import decoding
from t5x import models
from t5x import partitioning

from gqa_t5x import conversion
from gqa_t5x import network
from gqa_t5x.checkpoints.orbax_tree import DONE
from gqa_t5x.decoding import split_cache
from gqa_t5x.errors import UserError

PyTree = Any

_log = logging.getLogger(__name__)


class EncoderDecoderModel(models.EncoderDecoderModel):
  """t5x's model, with cross-attention keys and values computed once per input.

  t5x's own computes them anew in each step of a beam search; where it prefills
  a prompt it keeps them, but copies them for every beam, and in a beam search
  again in each step. Here all beams of an input share one copy, which the
  decoding function never sees.

  A prompt is given to the decoder token by token. (t5x prefills it, by a pass
  over all positions that may be decoded, which without a prompt is lost.)
  """

  def __init__(
      self,
      *args: Any,
      decode_fn: Callable[..., Any] = decoding.beam_search,
      **kwargs: Any,
  ):
    """Arguments are those of t5x's `EncoderDecoderModel`."""
    super().__init__(
        *args, decode_fn=_sharing_cross_attention(decode_fn), **kwargs
    )

  def _compute_kv_cache(
      self,
      params: PyTree,
      encoded_inputs,
      encoder_input_tokens,
      decoder_input_tokens,
      prefill_decoder_prompt: bool = False,
  ):
    """Returns an empty cache that holds the cross-attention's K/V, and None.

    Args:
      params: of the module.
      encoded_inputs: [B, S, D].
      encoder_input_tokens: [B, S].
      decoder_input_tokens: [B, L], whose length L is the cache's.
      prefill_decoder_prompt: unused, see the class.
    """
    del prefill_decoder_prompt
    empty, _ = super()._compute_kv_cache(
        params, encoded_inputs, encoder_input_tokens, decoder_input_tokens
    )
    no_tokens = decoder_input_tokens[:, :0]
    _, variables = self.module.apply(
        {'params': params, 'cache': empty},
        encoded_inputs,
        encoder_input_tokens,
        no_tokens,
        no_tokens,
        enable_dropout=False,
        prefill=True,
        mutable=['cache'],
        method=self.module.decode,
    )
    return variables['cache'], None

  def _compute_logits_from_slice(
      self,
      decoding_state,
      params: PyTree,
      encoded_inputs,
      raw_inputs,
      max_decode_length: int,
  ):
    """As t5x's; of the beams' copies of an input it takes the first."""
    cross, _ = split_cache(decoding_state.cache)
    beams = raw_inputs.shape[0] // next(iter(cross.values())).shape[0]
    return super()._compute_logits_from_slice(
        decoding_state,
        params,
        encoded_inputs[::beams],
        raw_inputs[::beams],
        max_decode_length,
    )


class PjitPartitioner(partitioning.PjitPartitioner):
  """t5x's partitioner, with a rule for key/value heads.

  They are sharded over the model axis where it divides them, else replicated:
  multi-query attention has one head, which each device then holds. The kernels
  stay 'joined_kv', sharded by t5x's own rule.
  """

  def __init__(
      self, config: network.T5Config, *args: Any, **kwargs: Any
  ):
    """Initializes.

    Args:
      config: of the model.
      *args: of t5x's `PjitPartitioner`.
      **kwargs: likewise; a 'kv_heads' rule among `logical_axis_rules` wins.
    """
    super().__init__(*args, **kwargs)
    size = self.mesh.shape['model']
    divides = config.num_kv_heads % size == 0
    if not divides:
      _log.info(
          'key/value heads are replicated: %d of them do not divide over a'
          ' model axis of %d',
          config.num_kv_heads,
          size,
      )
    self._logical_axis_rules += (('kv_heads', 'model' if divides else None),)


def convert_on_restore(
    state_dict: PyTree,
    target_state_dict: PyTree,
    *,
    is_resuming: bool = False,
    config: network.T5Config,
    checkpoint_path: str,
    method: str = 'mean',
    seed: int | None = None,
    slots: str = 'pool',
) -> PyTree:
  """Converts a multi-head checkpoint as t5x restores it (paper, section 2.1).

  For `RestoreCheckpointConfig.state_transformation_fns`, and checkpoints in
  t5x's legacy format only: with Orbax t5x lets such functions rename, not
  compute. Each process reads all key and value kernels of the decoder.

  Args:
    state_dict: what t5x read of the checkpoint, {'target', 'state'}; a leaf is
      an array or the TensorStore specification of one.
    target_state_dict: of the model; not needed.
    is_resuming: t5x sets it where a run continues from its own checkpoint,
      which has been converted; nothing is done then.
    config: of the model, whose `num_kv_heads` is wanted.
    checkpoint_path: what is being restored: t5x does not tell it, and the
      specifications are relative to it.
    method: as in `conversion.convert_params`, like `seed`.
    slots: 'pool' or 'reset', see `conversion.convert_optimizer_slots`.

  Returns:
    `state_dict` with other kernels and slots; the step is kept, so that the
    learning rate goes on where pre-training left it.

  Raises:
    UserError: as the functions of `conversion`; or if the checkpoint is of
      another format.
  """
  del target_state_dict
  if is_resuming:
    return state_dict
  conversion.check_slots(slots)
  try:
    stored = checkpoints.load_t5x_checkpoint(
        checkpoint_path, lazy_parameters=True
    )
  except ValueError as error:
    raise UserError(
        "expected a checkpoint in t5x's legacy format to convert on restore,"
        f' got {checkpoint_path}; leave convert_on_restore.gin out and convert'
        ' it with gqa-t5x convert first'
    ) from error
  kernels = traverse_util.flatten_dict(stored['target'])
  heads = dict(num_heads=config.num_heads, num_kv_heads=config.num_kv_heads)
  wanted = conversion.Conversion(
      {path: _Leaf(leaf) for path, leaf in kernels.items()},
      method=method,
      seed=seed,
      **heads,
  )
  changed = {('target', *path): wanted.leaf(path) for path in wanted.shapes}
  states = stored.get('state', {}).get('param_states')
  # new_optimizer.gin takes them out of what t5x restores.
  is_wanted = state_dict.get('state', {}).get('param_states')
  if states and is_wanted and changed:
    states = traverse_util.flatten_dict(states, keep_empty_nodes=True)
    for path, slot in states.items():
      if conversion.is_converted(path[:-1]):
        states[path] = _read(slot)
    states = conversion.convert_optimizer_slots(
        traverse_util.unflatten_dict(states),
        stored['target'],
        slots=slots,
        **heads,
    )
    changed |= {
        ('state', 'param_states', *path, name): slot
        for path in filter(conversion.is_converted, kernels)
        for name, slot in _at(states, path).items()
    }
  # Not flattened: a specification is a dictionary too.
  for path, array in changed.items():
    _at(state_dict, path[:-1])[path[-1]] = np.asarray(array)
  return state_dict


class _CheckpointManager(
    checkpoints.OrbaxCheckpointManagerInterface._CheckpointManagerImpl
):
  """t5x's, which in a bucket deletes nothing but checkpoints of its own.

  A folder in a bucket cannot be renamed when it is complete. Orbax puts a file
  into it instead, takes every folder without one for an unfinished checkpoint,
  and, as t5x has it do, deletes those at each start: in MODEL_DIR the scores,
  the logs and other runs, and in a checkpoint of t5x's legacy format, where
  t5x.eval and t5x.infer start it, the arrays (Orbax 0.12.8, its issue 394).
  """

  def __init__(self, directory, *args, options, **kwargs):
    if _is_bucket(directory):
      options.cleanup_tmp_directories = False
    super().__init__(directory, *args, options=options, **kwargs)


def _is_bucket(path) -> bool:
  return str(path).startswith('gs://')


def _of_finished(all_steps):
  """Has t5x's list of steps leave out what is not complete in a bucket.

  t5x goes on from the last one; the next save of such a step replaces it.
  """

  @functools.wraps(all_steps)
  def finished(checkpoints_dir):
    steps = all_steps(checkpoints_dir)
    if not _is_bucket(checkpoints_dir):
      return steps
    folders = {
        step: epath.Path(posixpath.join(checkpoints_dir, f'checkpoint_{step}'))
        for step in steps
    }
    # Orbax's own file, and the index of the legacy format, written last.
    complete = [
        step for step, folder in folders.items()
        if (folder / DONE).exists() or (folder / 'checkpoint').exists()
    ]  # pyformat: disable
    if left_out := sorted(set(steps).difference(complete)):
      _log.warning(
          'The checkpoints of steps %s in %s have no %s and are left out. Put'
          ' an empty one into what was written elsewhere and is complete.',
          left_out, checkpoints_dir, DONE,
      )  # pyformat: disable
    return complete

  return finished


# No gin binding reaches them: where a run goes on t5x makes its own
# configuration, which must name the same class as that for saving.
checkpoints.OrbaxCheckpointManagerInterface._CheckpointManagerImpl = (
    _CheckpointManager
)
checkpoints.all_steps = _of_finished(checkpoints.all_steps)


def own_network(config: network.T5Config):
  """Returns t5x's own T5 (t5x/examples/t5) of the same sizes, multi-head.

  Its configuration has `num_kv_heads` as well, which the embedded engine's
  sharding rules ask for.
  """
  from t5x.examples.t5 import network as t5x_network

  @struct.dataclass
  class Config(t5x_network.T5Config):
    num_kv_heads: int = 0

  known = {field.name for field in dataclasses.fields(Config)}
  options = dataclasses.asdict(config) | {'num_kv_heads': config.num_heads}
  return t5x_network.Transformer(
      Config(**{name: x for name, x in options.items() if name in known})
  )


def greedy_model(module, model_class=models.EncoderDecoderModel):
  """Returns a model that decodes greedily and never stops, to be timed.

  Args:
    module: of its network.
    model_class: t5x's, or ours.
  """
  size = module.config.vocab_size
  # No token is EOS: every row decodes to the end.
  vocabulary = types.SimpleNamespace(vocab_size=size, eos_id=size)
  return model_class(
      module=module,
      input_vocabulary=vocabulary,
      output_vocabulary=vocabulary,
      optimizer_def=None,
      decode_fn=functools.partial(
          decoding.temperature_sample, temperature=0.0, topk=1
      ),
  )


class _Leaf:
  """An array, or the TensorStore specification of one, that numpy can read."""

  def __init__(self, leaf):
    self._leaf = leaf
    self.shape = tuple(leaf.shape)

  def __array__(self, dtype=None, copy=None):
    return np.array(_read(self._leaf), dtype, copy=copy)


def _read(leaf) -> np.ndarray:
  return np.asarray(leaf.get() if hasattr(leaf, 'get') else leaf)


def _at(tree: PyTree, path: tuple[str, ...]) -> Any:
  return functools.reduce(lambda node, name: node[name], path, tree)


def _sharing_cross_attention(decode_fn):
  """Keeps the cross-attention's part of the cache away from `decode_fn`."""

  @functools.wraps(decode_fn)  # t5x looks at the names of its arguments.
  def decode(*, inputs, cache, tokens_to_logits, **kwargs):
    cross, own = split_cache(cache)

    def with_cross(state):
      whole = traverse_util.flatten_dict(state.cache) | cross
      whole = traverse_util.unflatten_dict(whole)
      logits, cache = tokens_to_logits(state.replace(cache=whole))
      return logits, traverse_util.unflatten_dict(split_cache(cache)[1])

    return decode_fn(
        inputs=inputs,
        cache=traverse_util.unflatten_dict(own),
        tokens_to_logits=with_cross,
        **kwargs,
    )

  return decode
