# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What t5x's checkpoints do not say: the configuration, read off the shapes.

Those that we write say it, and what they were converted from, in a file that
t5x passes over.
"""

import json
import pathlib
from typing import Any

from flax import traverse_util
import numpy as np

from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

PyTree = Any

_FILE = 'gqa_t5x.json'


def derive_config(params: PyTree) -> T5Config:
  """Returns the configuration that parameters of a T5 have.

  What they do not determine has T5Config's default: dropout and the dtype of
  activations. Gated MLPs are taken for T5.1.1's, others for T5 1.0's.

  Args:
    params: nested dict of anything with a `shape`.

  Raises:
    UserError: if `params` is not a T5 encoder-decoder's tree.
  """
  shapes = {
      '/'.join(path): tuple(leaf.shape)
      for path, leaf in traverse_util.flatten_dict(params).items()
  }
  attention = 'decoder/layers_0/self_attention'
  gated = 'decoder/layers_0/mlp/wi_0/kernel' in shapes
  mlp = f'decoder/layers_0/mlp/{"wi_0" if gated else "wi"}/kernel'
  try:
    vocab_size, emb_dim = shapes['token_embedder/embedding']
    num_heads, _ = shapes['decoder/relpos_bias/rel_embedding']
    _, query_width = shapes[f'{attention}/query/kernel']
    _, key_width = shapes[f'{attention}/key/kernel']
    _, mlp_dim = shapes[mlp]
    head_dim = query_width // num_heads
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_kv_heads=key_width // head_dim,
        num_encoder_layers=_num_layers(params['encoder']),
        num_decoder_layers=_num_layers(params['decoder']),
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        mlp_activations=('gelu', 'linear') if gated else ('relu',),
        logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
    )
  except (LookupError, ValueError, ZeroDivisionError) as error:
    missing = isinstance(error, LookupError)
    raise UserError(
        'expected the parameters of a T5 encoder-decoder with layers_0,'
        ' layers_1, ... in each stack, but'
        f' {f"{error} is missing" if missing else "a shape is not one of T5"};'
        ' other models cannot be used'
    ) from error


def _num_layers(stack: PyTree) -> int:
  return sum(name.startswith('layers_') for name in stack)


def read(folder: pathlib.Path, params: PyTree, step) -> dict[str, Any]:
  """Returns a t5x checkpoint's metadata as `checkpoints.load_checkpoint`."""
  try:
    written = json.loads((folder / _FILE).read_text())
  except FileNotFoundError:
    written = {'config': derive_config(params).to_dict(), 'conversion': None}
  return written | {'step': int(step)}


def write(folder: pathlib.Path, metadata: dict[str, Any]) -> None:
  (folder / _FILE).write_text(json.dumps(metadata, indent=2) + '\n')


def make_state(
    params: PyTree, metadata: dict[str, Any], param_states: PyTree | None
) -> PyTree:
  """Returns the nested dict that t5x saves, of numpy arrays."""
  state = {'step': np.asarray(metadata['step'], np.int32)}
  if param_states is not None:
    state['param_states'] = param_states
  tree = traverse_util.flatten_dict(
      {'target': params, 'state': state}, keep_empty_nodes=True
  )
  return traverse_util.unflatten_dict({
      path: leaf if leaf is traverse_util.empty_node else np.asarray(leaf)
      for path, leaf in tree.items()
  })
