# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes decoding.json: the tokens that Hugging Face T5 decodes.

Needs torch and transformers. From the repository's root:

  python -m tests.golden.make_decoding

Parameters and inputs are random and made again by the test, so that the file
holds tokens only. Where torch is missing, the test compares with the file;
where it is there, it also checks the file against Hugging Face.
"""

import json
import pathlib

import numpy as np

from gqa_t5x.network import T5Config
from tests import hf_reference

PATH = pathlib.Path(__file__).with_name('decoding.json')
VOCAB_SIZE = 23
MAX_DECODE_LEN = 11
INPUT_LENGTHS = (13, 7, 2, 11, 5, 3, 13)
NUM_BEAMS = 3
LENGTH_PENALTIES = (0.0, 0.6, 1.5)
SEED = 5


def configs():
  """Returns the models by name: T5.1.1 and T5 1.0, MHA, GQA and MQA."""
  versions = {
      't5_1_1': dict(mlp_activations=('gelu', 'linear')),
      't5_1_0': dict(mlp_activations=('relu',), logits_via_embedding=True),
  }
  return {
      f'{version}_kv{num_kv_heads}': T5Config(
          vocab_size=VOCAB_SIZE,
          emb_dim=19,
          num_heads=6,
          num_kv_heads=num_kv_heads,
          # Not fewer than the decoder's: Transformers 5.23 sizes its cache by
          # the encoder.
          num_encoder_layers=2,
          num_decoder_layers=2,
          head_dim=5,
          mlp_dim=29,
          **fields,
      )
      for version, fields in versions.items()
      for num_kv_heads in ((6, 2, 1) if version == 't5_1_1' else (6, 2))
  }


def input_tokens():
  """Returns int32 [B, S], rows of INPUT_LENGTHS padded with 0."""
  random = np.random.RandomState(SEED)
  tokens = np.zeros((len(INPUT_LENGTHS), max(INPUT_LENGTHS)), np.int32)
  for row, length in zip(tokens, INPUT_LENGTHS):
    row[:length] = random.randint(2, VOCAB_SIZE, length)
  return tokens


class _T5Penalty(float):
  """An exponent that makes Hugging Face's `length ** penalty` that of T5."""

  def __rpow__(self, length):
    return ((5.0 + length) / 6.0) ** float(self)


def hf_tokens(config: T5Config):
  """Decodes with Hugging Face: {'greedy' or 'beam <penalty>': [B, L]}."""
  import torch

  params = hf_reference.random_params(config, SEED)
  hf_model = hf_reference.params_to_hf(params, config)
  inputs = torch.from_numpy(input_tokens()).long()

  def decode(**kwargs):
    with torch.no_grad():
      tokens = hf_model.generate(
          inputs,
          attention_mask=(inputs > 0).long(),
          max_new_tokens=MAX_DECODE_LEN,
          do_sample=False,
          **kwargs,
      )
    # Without the start token; Hugging Face's beams fill up with EOS, not 0.
    tokens = tokens[:, 1:].numpy()
    tokens = np.pad(tokens, ((0, 0), (0, MAX_DECODE_LEN - tokens.shape[1])))
    is_after_end = np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0
    return np.where(is_after_end, 0, tokens).tolist()

  decoded = {'greedy': decode(num_beams=1)}
  for penalty in LENGTH_PENALTIES:
    decoded[f'beam {penalty}'] = decode(
        num_beams=NUM_BEAMS,
        length_penalty=_T5Penalty(penalty),
        early_stopping='never',
    )
  return decoded


def main():
  """Writes the file."""
  goldens = {name: hf_tokens(config) for name, config in configs().items()}
  text = json.dumps(goldens).replace('], "', '],\n  "')
  PATH.write_text(text.replace('}, "', '},\n"') + '\n', encoding='utf-8')


if __name__ == '__main__':
  main()
