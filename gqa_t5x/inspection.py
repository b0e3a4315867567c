# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint holds and what it costs to decode with, as numbers."""

import collections
import dataclasses
from typing import Any

import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import grouping
from gqa_t5x import pretrained
from gqa_t5x import sizes
from gqa_t5x.checkpoints import lazy
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config


def inspect_checkpoint(path: str, verify: bool = False) -> dict[str, Any]:
  """Returns a checkpoint's facts, without reading its values.

  Args:
    path: of any known format.
    verify: whether to read all bytes and compare them with the manifest.

  Returns:
    JSON values: `path`; `format`; `step`; `conversion`; `config` (the fields of
    `T5Config`); `parameters`, numbers by part of the model and `total`;
    `bytes` of all of them; `dtypes`, numbers by dtype; `manifest`, what it
    says of the whole, None without one; `is_verified`, None unless asked for;
    and `cache_bytes_per_token`, bytes by number of key/value heads, for each
    that the checkpoint can be converted to.

  Raises:
    UserError: if there is no such checkpoint, or it is damaged.
  """
  opened = checkpoints.open_checkpoint(path)
  metadata, source = opened.metadata, opened.source
  if verify:
    if source.about is None:
      raise UserError(
          f'expected a manifest in {path} to verify it by, got none; those that'
          ' `gqa-t5x convert` writes have one'
      )
    source.check_all()
  config = T5Config(**metadata['config'])
  parts, dtypes = collections.Counter(), collections.Counter()
  leaves = lazy.arrays(opened.params)
  for name, leaf in leaves.items():
    parts[name[0]] += leaf.size
    dtypes[np.dtype(leaf.dtype).name] += leaf.size
  return {
      'path': path,
      'format': opened.format,
      'step': metadata.get('step'),
      'conversion': metadata.get('conversion'),
      'config': config.to_dict(),
      'parameters': {
          **{name: int(size) for name, size in sorted(parts.items())},
          'total': int(sum(parts.values())),
      },
      'bytes': sum(int(leaf.nbytes) for leaf in leaves.values()),
      'dtypes': {name: int(size) for name, size in dtypes.items()},
      'manifest': source.about,
      'is_verified': verify or None,
      'cache_bytes_per_token': {
          str(k): sizes.cache_bytes_per_token(
              dataclasses.replace(config, num_kv_heads=k)
          )
          for k in grouping.num_kv_heads_choices(config.num_kv_heads)
      },
  }


def config_of(path: str | None) -> T5Config:
  """Returns a checkpoint's configuration; None is the one that ships.

  Raises:
    UserError: if there is no such checkpoint.
  """
  opened = checkpoints.open_checkpoint(
      pretrained.CHECKPOINT_PATH if path is None else path
  )
  return T5Config(**opened.metadata['config'])


def step_text(step: int | None) -> str:
  """Returns a checkpoint's step for a person."""
  return 'step unknown' if step is None else f'step {step}'


def to_gin(facts: dict[str, Any]) -> str:
  """Returns a model file, as those of gin_configs/models, of the facts."""
  config = facts['config'] | {
      'num_kv_heads': '%NUM_KV_HEADS', 'dropout_rate': '%DROPOUT_RATE'
  }  # pyformat: disable
  lines = [
      f'# The model of {facts["path"]!r}.',
      'from __gin__ import dynamic_registration',
      '',
      'from gqa_t5x import network',
      '',
      f'NUM_KV_HEADS = {facts["config"]["num_kv_heads"]}',
      '',
      'network.Transformer.config = @network.T5Config()',
      'network.T5Config:',
  ]
  for name, value in config.items():
    is_macro = isinstance(value, str) and value.startswith('%')
    lines.append(f'  {name} = {value if is_macro else repr(value)}')
  return '\n'.join(lines) + '\n'


def _how_converted(conversion: dict[str, Any]) -> str:
  text = (
      f'from {conversion["from_num_kv_heads"]} key/value heads by'
      f' {conversion["method"]}'
  )
  if conversion.get('group_by', 'order') != 'order':
    text += f', grouped by {conversion["group_by"]}'
  if conversion.get('seed') is not None:
    text += f', seed {conversion["seed"]}'
  if calibration := conversion.get('calibration'):
    text += f', calibrated on {calibration["sequences"]} sequences'
  return text


def to_text(facts: dict[str, Any]) -> str:
  """Returns `inspect_checkpoint`'s facts as lines for a person."""
  config = facts['config']
  heads, kv_heads = config['num_heads'], config['num_kv_heads']
  kind = {heads: 'multi-head', 1: 'multi-query'}.get(kv_heads, 'grouped-query')
  is_repeated = facts['format'] == 'hf' and kv_heads < heads
  repeated = f', key/value heads repeated to {heads}' if is_repeated else ''
  parts = dict(facts['parameters'])
  total = parts.pop('total')
  rows = [
      ('checkpoint', f'{facts["path"]}, {step_text(facts["step"])}'),
      ('format', facts['format'] + repeated),
      (
          'decoder attention',
          f'{kind}: {heads} query heads, {kv_heads} key/value heads of'
          f' {config["head_dim"]}',
      ),
      (
          'layers',
          f'{config["num_encoder_layers"]} encoder,'
          f' {config["num_decoder_layers"]} decoder, width'
          f' {config["emb_dim"]}, MLP {config["mlp_dim"]}'
          f' ({" x ".join(config["mlp_activations"])})',
      ),
      ('vocabulary', f'{config["vocab_size"]:,} ids'),
      (
          'parameters',
          f'{total:,} ('
          + ', '.join(f'{name} {size:,}' for name, size in parts.items())
          + ')',
      ),
      ('size', f'{facts["bytes"] / 1e6:,.1f} MB {", ".join(facts["dtypes"])}'),
  ]
  conversion, name = facts['conversion'], 'converted'
  while conversion:
    rows.append((name, _how_converted(conversion)))
    conversion, name = conversion.get('earlier'), 'and before'
  if (about := facts['manifest']) is None:
    rows.append(('manifest', 'none'))
  else:
    origin = about.get('source', {}).get('path')
    verified = 'verified' if facts['is_verified'] else 'not read (--verify)'
    rows.append(
        ('manifest', verified + (f', made from {origin}' if origin else ''))
    )
  rows.append(('cache', f'bytes per token, activations in {config["dtype"]}'))
  rows += [
      (f'  K={k}', f'{size:,}' + (' (this checkpoint)' if i == 0 else ''))
      for i, (k, size) in enumerate(facts['cache_bytes_per_token'].items())
  ]
  width = max(len(name) for name, _ in rows)
  return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows)
