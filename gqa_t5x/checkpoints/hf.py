# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's checkpoints: config.json and safetensors, in shards or not.

T5 1.0, T5 1.1, Flan-T5, mT5 and byT5, which differ in config.json alone. They
have a key/value head for each query head, so those of fewer are repeated as
they are written: any runtime computes the same with them, and saves nothing.
"""

from collections.abc import Mapping
import json
import pathlib
import re
from typing import Any

import numpy as np

from gqa_t5x import decoding
from gqa_t5x import grouping
from gqa_t5x import layers
from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.checkpoints import names
from gqa_t5x.checkpoints import safetensors
from gqa_t5x.checkpoints import t5x_metadata
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

SHARD_BYTES = 5 * 10**9
_CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
# Of our metadata: the heads that were repeated, and are one again when read.
_REPEATED_FROM = 'repeated_from_num_kv_heads'
INDEX = 'model.safetensors.index.json'
_PICKLES = ('pytorch_model.bin', 'pytorch_model.bin.index.json')
_OTHER_WEIGHTS = ('tf_model.h5', 'flax_model.msgpack', 'model.ckpt.index')
_HOW_TO_SAVE = (
    'save it with transformers as AutoModelForSeq2SeqLM.from_pretrained(IN)'
    '.save_pretrained(OUT), and copy the files of its tokenizer'
)
_SIZES = ('vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads')
_ACTIVATIONS = {'relu': ('relu',), 'gated-gelu': ('gelu', 'linear')}
# Keys of config.json that have one value in every T5, and it if it is missing.
_FIXED = {
    'model_type': (('t5', 'mt5'), 't5'),
    'relative_attention_num_buckets': ((layers.NUM_BUCKETS,), 32),
    'relative_attention_max_distance': ((layers.MAX_DISTANCE,), 128),
    'layer_norm_epsilon': ((layers.EPSILON,), 1e-6),
    'feed_forward_proj': (tuple(_ACTIVATIONS), 'relu'),
    'dense_act_fn': (('relu', 'gelu_new', None), None),
    'pad_token_id': ((decoding.PAD_ID, None), None),
    'eos_token_id': ((decoding.EOS_ID, None), None),
    'decoder_start_token_id': ((decoding.PAD_ID, None), None),
}
_OURS = ('dtype', 'float32_attention_logits')
# Of our metadata: what config.json says besides, for its own programs.
OTHER_KEYS = 'hf_config'
# Not kept: what we say in another key, and what is of the former weights.
_SAID_ANEW = ('dtype', 'scale_decoder_outputs', 'quantization_config')
_EMBEDDING = 'shared.weight'
# Some writers keep but a copy of it.
_COPIES = ('decoder.embed_tokens.weight', 'encoder.embed_tokens.weight')
# And a table of T5 1.0 that nothing uses.
_IGNORED = (
    *_COPIES,
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
)


def is_checkpoint(folder: pathlib.Path) -> bool:
  return (folder / _CONFIG).is_file() and any(
      (folder / name).is_file() for name in (WEIGHTS, INDEX, *_PICKLES)
  )


def is_part(file: str) -> bool:
  """Whether a file, by relative path, belongs to such a checkpoint.

  Programs leave others beside it, as large as optimizer states.
  """
  return file.endswith('.safetensors') or file in (
      _CONFIG, INDEX, t5x_metadata.FILE, *manifest.TOKENIZER_FILES
  )  # pyformat: disable


def how_to_download(path: str) -> str:
  """Returns what to add for a path that looks like a repository's name."""
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', path):
    return ''
  return (
      '; what is meant on the Hugging Face Hub is had by: hf download'
      f' {path} --local-dir FOLDER'
  )


def check_complete(folder: pathlib.Path, path: str) -> None:
  """Raises UserError if a folder has some of such a checkpoint, but not all."""
  there = {file.name for file in folder.glob('*')}
  if 'adapter_config.json' in there:
    raise UserError(
        f'expected a whole model, got an adapter of PEFT, {path}; merge it into'
        ' its model (merge_and_unload) and save that'
    )
  if any(name.endswith('.safetensors') for name in there):
    if _CONFIG not in there:
      raise UserError(
          f'expected {_CONFIG} beside the safetensors of {path}, as Hugging'
          ' Face has it, got none; copy it too'
      )
    raise UserError(
        f'expected {WEIGHTS} in {path}, or {INDEX} beside its parts, as'
        ' Hugging Face has them, got other names; copy what is missing too'
    )
  if others := sorted(there.intersection(_OTHER_WEIGHTS)):
    raise UserError(
        f'expected {WEIGHTS} in {path}, got {others[0]}; {_HOW_TO_SAVE}'
    )
  if _CONFIG in there:
    raise UserError(
        f'expected {WEIGHTS} beside {_CONFIG} in {path}, got no weights; copy'
        ' them too'
    )


def open_params(source: manifest.Reading):
  """Opens as `checkpoints.open_checkpoint`."""
  found = _read_json(source, _CONFIG)
  config = _read_config(found, source.folder)
  tensors = _open_tensors(source)
  for name in _COPIES:
    if _EMBEDDING not in tensors and name in tensors:
      tensors[_EMBEDDING] = tensors[name]
  if 'encoder.final_layer_norm.weight' in tensors and not any(
      name.startswith('decoder.block') for name in tensors
  ):
    raise UserError(
        f'expected encoder and decoder of a T5 in {source.folder}, got no'
        ' decoder; other models cannot be used'
    )
  _check_tied(source, config, tensors)
  if _may_lack_logits(found) and 'lm_head.weight' not in tensors:
    # Tied without T5 1.0's scale, which we have no name for.
    tensors['lm_head.weight'] = tensors.get(_EMBEDDING)
  flat = {}
  for path, array in names.arrays(config).items():
    # A tensor that is missing is told of by `names.check_arrays`.
    if (leaf := tensors.pop(array.hf_name, None)) is not None:
      is_matrix = array.is_transposed and len(leaf.shape) == 2
      flat[path] = lazy.transpose(leaf) if is_matrix else leaf
  tied = ('lm_head.weight',) if config.logits_via_embedding else ()
  if rest := sorted(tensors.keys() - {*_IGNORED, *tied}):
    _check_whole(rest, source.folder)
    raise UserError(
        f'expected the tensors of a T5 in {source.folder}, got {rest[0]} as'
        f' well ({len(rest)} such); other models cannot be used'
    )
  metadata = t5x_metadata.read_file(source) or {}
  # Ours may say what config.json has no place for.
  written = metadata.get('config', {})
  kept = {k: written[k] for k in _OURS if k in written}
  if num_kv_heads := metadata.pop(_REPEATED_FROM, None):
    kept |= {'num_kv_heads': num_kv_heads}
    for path, leaf in flat.items():
      if _has_kv_heads(path):
        flat[path] = _first_of_groups(leaf, num_kv_heads, config)
  written_anew = {*config_json(config, ''), *_SAID_ANEW}
  others = {k: v for k, v in found.items() if k not in written_anew}
  metadata.pop(OTHER_KEYS, None)
  return flat, metadata | {'config': config.to_dict() | kept} | (
      {OTHER_KEYS: others} if others else {}
  )


def open_param_states(source: manifest.Reading) -> None:
  """Hugging Face keeps no optimizer state of t5x's."""
  del source


def _read_json(source: manifest.Reading, file: str) -> dict[str, Any]:
  source.check(file)
  try:
    found = json.loads((source.folder / file).read_text())
  except ValueError as error:
    raise ValueError(f'{file} is no JSON ({error})') from error
  if not isinstance(found, dict):
    raise ValueError(f'{file} has no keys')
  return found


def _check_whole(rest: list[str], folder: pathlib.Path) -> None:
  """Raises UserError if tensors of other names are those of a T5 all the same.

  Args:
    rest: names of some, sorted.
    folder: for the message.
  """
  for name in rest:
    prefix, dot, _ = name.partition('shared.weight')
    if dot and prefix:
      raise UserError(
          f'expected the tensors of a T5 in {folder}, got them with'
          f' {prefix!r} before their names; save the model itself, not what is'
          ' around it (an adapter of PEFT: merge_and_unload)'
      )


def _check_tied(
    source: manifest.Reading,
    config: T5Config,
    tensors: Mapping[str, lazy.LazyArray],
) -> None:
  """Raises UserError if what has to be the embedding has values of its own."""
  if (embedding := tensors.get(_EMBEDDING)) is None:
    return
  tied = _COPIES + ('lm_head.weight',) * config.logits_via_embedding
  for name in tied:
    if (leaf := tensors.get(name)) is None or leaf is embedding:
      continue
    if leaf.shape != embedding.shape or not all(
        np.array_equal(leaf.rows(*block), embedding.rows(*block))
        for block in lazy.blocks(embedding)
    ):
      raise UserError(
          f'expected {name} in {source.folder} to have the values of'
          f' {_EMBEDDING}, as in every T5 of this {_CONFIG}, got others;'
          f' {_HOW_TO_SAVE}'
      )


def _read_config(found: dict[str, Any], folder: pathlib.Path) -> T5Config:
  for key, (known, default) in _FIXED.items():
    if (got := found.get(key, default)) not in known:
      raise UserError(
          f'expected {key} {" or ".join(map(str, known))} in'
          f' {folder / _CONFIG}, got {got}; other models cannot be used'
      )
  if missing := [key for key in _SIZES if not isinstance(found.get(key), int)]:
    raise ValueError(f'{_CONFIG} has no number {missing[0]}')
  try:
    return _make_config(found)
  except UserError as error:
    raise UserError(
        f'{folder / _CONFIG} is of no T5: {error}; take another checkpoint, or'
        ' mend the file'
    ) from error


def _make_config(found: dict[str, Any]) -> T5Config:
  return T5Config(
      vocab_size=found['vocab_size'],
      emb_dim=found['d_model'],
      num_heads=found['num_heads'],
      num_encoder_layers=found['num_layers'],
      num_decoder_layers=found.get('num_decoder_layers') or found['num_layers'],
      head_dim=found['d_kv'],
      mlp_dim=found['d_ff'],
      mlp_activations=_ACTIVATIONS[found.get('feed_forward_proj', 'relu')],
      dropout_rate=found.get('dropout_rate', 0.1),
      logits_via_embedding=_are_logits_scaled(found),
  )


def _are_logits_scaled(found: dict[str, Any]) -> bool:
  """Whether logits are those of T5 1.0, of the embedding with a scale.

  transformers 5 writes so; before, what was tied was scaled, and only that.
  """
  if found.get('model_type') == 'mt5':
    return False
  is_tied = found.get('tie_word_embeddings', True)
  return found.get('scale_decoder_outputs', is_tied)


def _may_lack_logits(found: dict[str, Any]) -> bool:
  """Whether transformers 5 may have tied unscaled logits to the embedding."""
  return not _are_logits_scaled(found) and (
      found.get('model_type') == 'mt5' or 'scale_decoder_outputs' in found
  )


def _open_tensors(source: manifest.Reading) -> dict[str, lazy.LazyArray]:
  folder = source.folder
  if (folder / WEIGHTS).is_file():
    return safetensors.open_file(source, WEIGHTS)
  if not (folder / INDEX).is_file():
    raise UserError(
        f'expected {WEIGHTS} in {folder}, got pytorch_model.bin, a pickle,'
        f' which can run any code and is not opened; {_HOW_TO_SAVE}'
    )
  files = _read_json(source, INDEX)['weight_map']
  found = {}
  for file in sorted(set(files.values())):
    if pathlib.PurePath(file).name != file:
      raise ValueError(f'its index names a file {file!r} outside the folder')
    found |= safetensors.open_file(source, file)
  if missing := sorted(files.keys() - found.keys()):
    raise ValueError(f'{missing[0]} is not in {files[missing[0]]}')
  return found


def check_fits(
    params: Mapping[tuple[str, ...], Any], config: T5Config
) -> dict[str, Any]:
  """Returns config.json of a model, whatever its key/value heads.

  Raises:
    UserError: if these files have no place for some of it.
  """
  dtype = lazy.of(params['token_embedder', 'embedding']).dtype.name
  description = config_json(config, dtype)
  if rest := sorted(params.keys() - names.arrays(config).keys()):
    raise UserError(
        "expected parameters of a T5 alone for format='hf', got"
        f' {"/".join(rest[0])} as well; choose another format'
    )
  return description


def write(
    writing: folders.Writing,
    params: dict[tuple[str, ...], Any],
    param_states: None,
    metadata: dict[str, Any],
) -> None:
  """Writes as `checkpoints.save_checkpoint`."""
  del param_states
  config = T5Config(**metadata['config'])
  description = check_fits(params, config)
  leaves = {}
  for path, array in names.arrays(config).items():
    leaf = lazy.of(params[path])
    if _has_kv_heads(path):
      leaf = _repeat_heads(leaf, config)
    leaf = lazy.transpose(leaf) if array.is_transposed else leaf
    leaves[array.hf_name] = leaf
  shards = _split(leaves)
  for file, shard in shards.items():
    safetensors.write_file(writing, file, shard)
  writing.run()
  if len(shards) > 1:
    total = sum(leaf.nbytes for leaf in leaves.values())
    files = {name: file for file, shard in shards.items() for name in shard}
    writing.write_json(
        INDEX, {'metadata': {'total_size': total}, 'weight_map': files}
    )
  writing.write_json(_CONFIG, metadata.get(OTHER_KEYS, {}) | description)
  # A multi-head model is what is in here, of `from_num_kv_heads` or so.
  stored = metadata | {'config': config.to_dict() | {
      'num_kv_heads': config.num_heads
  }}  # pyformat: disable
  if config.num_kv_heads != config.num_heads:
    stored |= {_REPEATED_FROM: config.num_kv_heads}
  t5x_metadata.write(writing, stored)


def copy_tokenizer(writing: folders.Writing, source: manifest.Reading) -> None:
  """Takes along what lies beside another checkpoint and is not its weights."""
  for name in manifest.TOKENIZER_FILES:
    if (path := source.folder / name).is_file():
      source.check(name)
      writing.write(name, [path.read_bytes()])


def _has_kv_heads(path: tuple[str, ...]) -> bool:
  return path[0] == 'decoder' and path[-2] in ('key', 'value')


def _first_of_groups(
    leaf: lazy.LazyArray, num_kv_heads: int, config: T5Config
) -> lazy.LazyArray:
  """Maps a kernel [D, N * H], rows at a time, to [D, K * H]."""

  def rows(start, stop):
    part = leaf.rows(start, stop)
    heads = part.reshape(len(part), num_kv_heads, -1, config.head_dim)
    return heads[:, :, 0].reshape(len(part), -1)

  shape = (leaf.shape[0], num_kv_heads * config.head_dim)
  return lazy.LazyArray(shape, leaf.dtype, rows, leaf.is_ordered)


def _repeat_heads(leaf: lazy.LazyArray, config: T5Config) -> lazy.LazyArray:
  """Maps a kernel [D, K * H], rows at a time, to [D, N * H]."""

  def rows(start, stop):
    part = leaf.rows(start, stop)
    heads = part.reshape(len(part), config.num_kv_heads, config.head_dim)
    heads = grouping.repeat_kv_heads(heads, config.num_heads, axis=1)
    return heads.reshape(len(part), -1)

  shape = (leaf.shape[0], config.num_heads * config.head_dim)
  return lazy.LazyArray(shape, leaf.dtype, rows, leaf.is_ordered)


def _split(leaves: dict[str, lazy.LazyArray]):
  """Returns the tensors of each file, by file."""
  shards, size = [{}], 0
  for name, leaf in leaves.items():
    if shards[-1] and size + leaf.nbytes > SHARD_BYTES:
      shards.append({})
      size = 0
    shards[-1][name] = leaf
    size += leaf.nbytes
  if len(shards) == 1:
    return {WEIGHTS: shards[0]}
  return {
      f'model-{i:05}-of-{len(shards):05}.safetensors': shard
      for i, shard in enumerate(shards, 1)
  }


def config_json(config: T5Config, dtype: str) -> dict[str, Any]:
  """Returns what Hugging Face's config.json says of a model.

  Raises:
    UserError: if the MLP has activations that it has no name for here.
  """
  names_of = {activations: name for name, activations in _ACTIVATIONS.items()}
  if config.mlp_activations not in names_of:
    raise UserError(
        "expected mlp_activations of T5 for format='hf', "
        + ' or '.join(map(str, names_of))
        + f', got {config.mlp_activations}; choose another format'
    )
  return {
      'architectures': ['T5ForConditionalGeneration'],
      'model_type': 't5',
      'is_encoder_decoder': True,
      'vocab_size': config.vocab_size,
      'd_model': config.emb_dim,
      'd_kv': config.head_dim,
      'd_ff': config.mlp_dim,
      'num_layers': config.num_encoder_layers,
      'num_decoder_layers': config.num_decoder_layers,
      'num_heads': config.num_heads,
      'feed_forward_proj': names_of[config.mlp_activations],
      'tie_word_embeddings': config.logits_via_embedding,
      'relative_attention_num_buckets': layers.NUM_BUCKETS,
      'relative_attention_max_distance': layers.MAX_DISTANCE,
      'layer_norm_epsilon': layers.EPSILON,
      'dropout_rate': config.dropout_rate,
      'pad_token_id': decoding.PAD_ID,
      'eos_token_id': decoding.EOS_ID,
      'decoder_start_token_id': decoding.PAD_ID,
      'torch_dtype': dtype,
  }
