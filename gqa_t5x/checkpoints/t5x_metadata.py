# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What t5x's checkpoints do not say: the configuration, read off the shapes.

Those that we write say it, and what they were converted from, in a file that
t5x passes over.
"""

import json
from typing import Any

import numpy as np

from gqa_t5x.checkpoints import folders
from gqa_t5x.checkpoints import lazy
from gqa_t5x.checkpoints import manifest
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

Path = tuple[str, ...]

FILE = 'gqa_t5x.json'


def derive_config(params: dict[Path, Any]) -> T5Config:
  """Returns the configuration that parameters of a T5 have.

  What they do not determine has T5Config's default: dropout and the dtype of
  activations. Gated MLPs are taken for T5.1.1's, others for T5 1.0's.

  Args:
    params: anything with a `shape`, by path.

  Raises:
    UserError: if `params` is not a T5 encoder-decoder's tree.
  """
  shapes = {
      '/'.join(path): tuple(leaf.shape)
      for path, leaf in lazy.arrays(params).items()
  }
  attention = 'decoder/layers_0/self_attention'
  gated = 'decoder/layers_0/mlp/wi_0/kernel' in shapes
  mlp = f'decoder/layers_0/mlp/{"wi_0" if gated else "wi"}/kernel'

  def matrix(name):
    if len(shapes[name]) != 2 or not all(shapes[name]):
      raise ValueError(
          f'{name} has the shape {shapes[name]}, expected two lengths'
      )
    return shapes[name]

  def parts(name, total, size, what):
    if total % size:
      raise ValueError(
          f'{name} has a width of {total}, expected a multiple of {size},'
          f' {what}'
      )
    return total // size

  query, key = (f'{attention}/{name}/kernel' for name in ('query', 'key'))
  bias = 'decoder/relpos_bias/rel_embedding'
  try:
    vocab_size, emb_dim = matrix('token_embedder/embedding')
    num_heads, _ = matrix(bias)
    _, query_width = matrix(query)
    _, key_width = matrix(key)
    _, mlp_dim = matrix(mlp)
    head_dim = parts(query, query_width, num_heads, f'the heads of {bias}')
    kv_heads = parts(key, key_width, head_dim, f'the width of heads of {query}')
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_kv_heads=kv_heads,
        num_encoder_layers=_num_layers(params, 'encoder'),
        num_decoder_layers=_num_layers(params, 'decoder'),
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        mlp_activations=('gelu', 'linear') if gated else ('relu',),
        logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
    )
  except (LookupError, ValueError) as error:
    missing = isinstance(error, LookupError)
    raise UserError(
        'expected the parameters of a T5 encoder-decoder with layers_0,'
        ' layers_1, ... in each stack, but'
        f' {f"{error} is missing" if missing else error};'
        ' other models cannot be used'
    ) from error


def _num_layers(params: dict[Path, Any], stack: str) -> int:
  return len({p[1] for p in params if p[0] == stack and 'layers_' in p[1]})


def read(source: manifest.Reading, params, step) -> dict[str, Any]:
  """Returns a t5x checkpoint's metadata as `checkpoints.load_checkpoint`.

  Args:
    source: the checkpoint.
    params: by path, for where nothing is written.
    step: array, read here.
  """
  written = read_file(source) or {'config': derive_config(params).to_dict()}
  return written | {'step': int(np.asarray(step))}


def read_file(source: manifest.Reading) -> dict[str, Any] | None:
  """Returns what `write` wrote, or None."""
  source.check(FILE)
  try:
    return json.loads((source.folder / FILE).read_text())
  except FileNotFoundError:
    return None


def write(writing: folders.Writing, metadata: dict[str, Any]) -> None:
  writing.write_json(FILE, metadata)


def make_state(
    params: dict[Path, Any],
    param_states: dict[Path, Any] | None,
    metadata: dict[str, Any],
) -> dict[Path, Any]:
  """Returns what t5x saves, by path."""
  state = {('target', *path): leaf for path, leaf in params.items()}
  state['state', 'step'] = np.asarray(metadata['step'], np.int32)
  for path, leaf in (param_states or {}).items():
    state['state', 'param_states', *path] = leaf
  return state
