# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes hf_checkpoints.tar.xz: checkpoints of transformers, all small.

Needs torch and transformers. From the repository's root:

  python -m tests.golden.make_hf_checkpoints

  t5_1_0, t5_1_1  T5ForConditionalGeneration, t5_1_1 in shards
  byt5            more layers in the encoder than in the decoder, bfloat16
  mt5             MT5ForConditionalGeneration, logits apart from the embedding
  mt5_tied        the same, tied, as transformers 5 makes them anew

Each has outputs.json: logits of transformers for INPUTS and TARGETS, and what
it generates greedily. The parameters are random and made again by the tests.
"""

import dataclasses
import json
import pathlib
import tempfile

from tests import golden
from tests import hf_reference
from tests.golden import make_t5x_checkpoints

PATH = pathlib.Path(__file__).with_name('hf_checkpoints.tar.xz')
INPUTS = [[3, 5, 7, 11, 13, 1], [17, 2, 18, 4, 6, 1]]
TARGETS = [[9, 8, 1], [12, 10, 1]]
MAX_DECODE_LEN = 7
T5_1_1 = make_t5x_checkpoints.CONFIG
CONFIGS = {
    't5_1_0': dataclasses.replace(
        T5_1_1, mlp_activations=('relu',), logits_via_embedding=True
    ),
    't5_1_1': T5_1_1,
    'byt5': dataclasses.replace(T5_1_1, num_encoder_layers=2),
    'mt5': T5_1_1,
    'mt5_tied': T5_1_1,
}


def random_params(name: str):
  """Returns the parameters that checkpoint `name` has, in float32."""
  params = hf_reference.random_params(CONFIGS[name], seed=11)
  if name == 'mt5_tied':
    embedding = params['token_embedder']['embedding']
    params['decoder']['logits_dense']['kernel'] = embedding.T
  return params


def make_model(name: str):
  """Returns the model of transformers."""
  import torch
  import transformers

  model = hf_reference.params_to_hf(random_params(name), CONFIGS[name])
  if name.startswith('mt5'):
    found = model.config.to_dict()
    found = {k: v for k, v in found.items() if k not in ('model_type',)}
    found |= {'tie_word_embeddings': False}
    other = transformers.MT5ForConditionalGeneration(
        transformers.MT5Config(**found)
    )
    if name == 'mt5':
      other.lm_head.weight = torch.nn.Parameter(
          torch.empty_like(model.lm_head.weight)
      )
    other.load_state_dict(model.state_dict())
    model = other.eval()
  return model.to(torch.bfloat16) if name == 'byt5' else model


def outputs(model):
  """Returns what is stored in outputs.json."""
  import torch

  model = model.float()
  inputs, targets = torch.tensor(INPUTS), torch.tensor(TARGETS)
  with torch.no_grad():
    logits = model(input_ids=inputs, labels=targets).logits
    tokens = model.generate(
        inputs, max_new_tokens=MAX_DECODE_LEN, do_sample=False
    )
  return {'logits': logits.tolist(), 'tokens': tokens[:, 1:].tolist()}


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as scratch:
    for name in CONFIGS:
      folder = pathlib.Path(scratch) / name
      model = make_model(name)
      size = '2KB' if name == 't5_1_1' else '50GB'
      model.save_pretrained(folder, max_shard_size=size)
      (folder / 'outputs.json').write_text(json.dumps(outputs(model)))
    golden.pack(PATH, pathlib.Path(scratch), CONFIGS)
