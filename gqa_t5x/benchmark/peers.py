# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Other programs that run T5, on the same weights and inputs.

Each that decodes is a function from input tokens int32 [B, S] and a number of
steps to the tokens that it decodes greedily, int [B, steps], without ever
stopping. What they do in training is in `benchmark.train`.
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import checkpoints
from gqa_t5x import extras
from gqa_t5x import provenance
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config

Decode = Callable[[np.ndarray, int], np.ndarray]
_ON_CPU = frozenset({'hf', 'ctranslate2'})
PyTree = Any


def without_pad_and_eos(params: PyTree) -> PyTree:
  """Returns random parameters that never make tokens 0 and 1 the likeliest.

  So no program has a reason to stop, and all decode the same tokens.

  Args:
    params: of a model with an output projection of its own.
  """
  kernel = params['decoder']['logits_dense']['kernel']
  dense = {'kernel': kernel.at[:, :2].set(0.0)}
  return params | {'decoder': params['decoder'] | {'logits_dense': dense}}


def check(
    table: Mapping[str, Any], names: Sequence[str], config: T5Config
) -> None:
  """Checks names before anything is made for them.

  Raises:
    UserError: if there is no such peer, or it would run on another device than
      ours, or in another dtype.
  """
  backend = jax.default_backend()
  for name in names:
    if name not in table:
      raise UserError(
          f'expected peers of {", ".join(table)}, got {name!r}; choose one'
      )
    if name in _ON_CPU and backend != 'cpu':
      raise UserError(
          f'expected a CPU to time {name} beside ours, since it runs on that,'
          f' got {backend}; set JAX_PLATFORMS=cpu, or leave {name} out'
      )
    if name == 'hf' and config.dtype != jnp.float32:
      raise UserError(
          'expected float32 to time Hugging Face beside it, got'
          f' {jnp.dtype(config.dtype).name}; add --dtype=float32'
      )


def load(
    table: Mapping[str, Callable[..., Any]],
    names: Sequence[str],
    config: T5Config,
    params: PyTree,
    folder: str,
) -> dict[str, Any]:
  """Returns the peers named, as their functions in a table make them.

  Args:
    table: `DECODE`, or another by name; functions of the next three and the
      folder's path.
    names: of the table.
    config: of the multi-head model.
    params: its parameters.
    folder: where their files go.

  Raises:
    UserError: as `check`; or if a peer is not installed.
  """
  check(table, names, config)
  made = {}
  for name in names:
    try:
      made[name] = table[name](config, params, pathlib.Path(folder))
    except ImportError as error:
      raise UserError(
          f'{name} cannot be timed: {error};'
          f' {extras.install_command("bench")}, or t5x from its repository'
      ) from error
  return made


def versions(names: Sequence[str]) -> dict[str, str]:
  """Returns the installed versions of what the peers run on.

  Of t5x, whose version never changes, the commit.
  """
  import importlib.metadata

  packages = {
      'hf': ('transformers', 'torch'), 'ctranslate2': ('ctranslate2',),
  }  # pyformat: disable
  found = {
      package: importlib.metadata.version(package)
      for name in names
      for package in packages.get(name, ())
  }
  if 't5x' in names:
    found['t5x'] = provenance.commit_of('t5x') or 'unknown'
  return found


def hf_model(config: T5Config, params: PyTree, folder: pathlib.Path):
  """Returns Hugging Face's model in float32, which is to use all cores."""
  import torch
  import transformers

  torch.set_num_threads(provenance.cores())
  path = folder / 'hf'
  if not path.exists():
    metadata = {'config': config.to_dict(), 'step': 0}
    checkpoints.save_checkpoint(
        str(path), params, format='hf', metadata=metadata
    )
  return transformers.T5ForConditionalGeneration.from_pretrained(
      path, dtype=torch.float32
  )


def hf_greedy():
  """Returns Hugging Face's settings of greedy decoding, which never stops."""
  import transformers

  return transformers.GenerationConfig(
      decoder_start_token_id=0, pad_token_id=0, do_sample=False, num_beams=1
  )


def _hf(config, params, folder) -> Decode:
  import torch

  model = hf_model(config, params, folder).eval()
  model.generation_config = hf_greedy()

  def decode(tokens, steps):
    inputs = torch.from_numpy(np.asarray(tokens, np.int64))
    with torch.inference_mode():
      made = model.generate(
          inputs,
          attention_mask=torch.ones_like(inputs),
          max_new_tokens=steps,
          min_new_tokens=steps,
      )
    return made[:, 1:].numpy()

  return decode


def _ctranslate2(config, params, folder) -> Decode:
  import ctranslate2
  from ctranslate2.converters import transformers as converter

  path = folder / 'ctranslate2'
  if not path.exists():
    model = hf_model(config, params, folder)
    # Its own converter wants a tokenizer; here tokens are numbers.
    loader = converter._MODEL_LOADERS['T5Config']  # pylint: disable=protected-access
    spec = loader.get_model_spec(model)
    words = ['<pad>', '</s>', '<unk>']
    words += [str(i) for i in range(3, config.vocab_size)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.bos_token = '<pad>'
    spec.config.eos_token = '</s>'
    spec.config.unk_token = '<unk>'
    spec.config.decoder_start_token = '<pad>'
    spec.validate()
    spec.optimize()
    path.mkdir()
    spec.save(str(path))
  translator = ctranslate2.Translator(
      str(path),
      device='cpu',
      compute_type='float32',
      intra_threads=provenance.cores(),
  )

  def decode(tokens, steps):
    # Tokens are 3 and up: `decode.random_tokens` has no other but 2.
    found = translator.translate_batch(
        [['<unk>' if t == 2 else str(t) for t in row] for row in tokens],
        beam_size=1,
        max_batch_size=0,
        max_input_length=0,
        max_decoding_length=steps,
        min_decoding_length=steps,
    )
    number = {'<pad>': 0, '</s>': 1, '<unk>': 2}
    return np.array([
        [number[t] if t in number else int(t) for t in row.hypotheses[0]]
        for row in found
    ])

  return decode


def _t5x(config, params, folder) -> Decode:
  del folder
  from gqa_t5x import t5x_plugin

  model = t5x_plugin.greedy_model(t5x_plugin.own_network(config))
  predict = jax.jit(model.predict_batch)

  def decode(tokens, steps):
    return np.asarray(
        predict(
            params,
            {
                'encoder_input_tokens': jnp.asarray(tokens),
                'decoder_input_tokens': jnp.zeros(
                    (len(tokens), steps), jnp.int32
                ),
            },
        )
    )

  return decode


DECODE: Mapping[str, Callable[..., Decode]] = {
    'hf': _hf, 'ctranslate2': _ctranslate2, 't5x': _t5x,
}  # pyformat: disable
