# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times decode steps of Hugging Face's T5 in bfloat16, on a GPU.

`python -m gqa_t5x.benchmark.hf_decode --model xxl --batch_size 32`. The peers
of `gqa-t5x benchmark decode` take our weights and have to decode the same
tokens; this one is for sizes that do not fit into a device twice, and draws
weights of its own, so that no token is compared. Its encoder does not run: its
attention's logits of a large batch do not fit either, and steps start from a
random encoder's output.
"""

import argparse
import json
import shlex
import statistics
import sys
import time

from gqa_t5x import extras
from gqa_t5x import number_flags
from gqa_t5x.benchmark import models
from gqa_t5x.benchmark import peers
from gqa_t5x.checkpoints import hf
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config


def hf_decode(
    config: T5Config,
    *,
    batch_size: int,
    input_length: int,
    output_length: int,
    num_repeats: int,
) -> dict:
  """Times greedy decoding of the multi-head model, by `generate` as it comes.

  A step is what a long run takes longer than one of two steps, so that the
  first, which projects the cross-attention's keys and values, does not count.

  Args:
    config: of a multi-head model; its dtype does not count.
    batch_size: samples decoded together.
    input_length: input tokens a sample.
    output_length: decoded tokens of the long run, 3 or more.
    num_repeats: the median counts.

  Returns:
    ms_per_step and its repeats, peak_memory_bytes (as PyTorch reports it), the
    GPU's name and the arguments.
  """
  try:
    import torch
    import transformers
    from transformers.modeling_outputs import BaseModelOutput
  except ImportError as error:
    raise UserError(
        f'{error}; {extras.install_command("bench")}'
    ) from error

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.manual_seed(0)
  with torch.device(device):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**hf.config_json(config, 'bfloat16'))
    ).eval()
    encoded = torch.randn(batch_size, input_length, config.emb_dim)
    mask = torch.ones(batch_size, input_length, dtype=torch.long)
    torch.set_default_dtype(before)
  model.encoder.block = torch.nn.ModuleList()
  if device == 'cuda':  # What comes is decoding's alone.
    torch.cuda.reset_peak_memory_stats()
  model.generation_config = peers.hf_greedy()

  def run(steps):
    if device == 'cuda':
      torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
      made = model.generate(
          encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
          attention_mask=mask,
          max_new_tokens=steps,
          min_new_tokens=steps,
      )
    assert made.shape[1] == steps + 1
    if device == 'cuda':
      torch.cuda.synchronize()
    return time.perf_counter() - start

  run(output_length)  # Warms up.
  repeats = [
      1e3 * (run(output_length) - run(2)) / (output_length - 2)
      for _ in range(num_repeats)
  ]
  return {
      'ms_per_step': statistics.median(repeats),
      'ms_per_step_repeats': repeats,
      'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
      'peak_memory_bytes': (
          torch.cuda.max_memory_allocated() if device == 'cuda' else None
      ),
      'batch_size': batch_size,
      'input_length': input_length,
      'output_length': output_length,
      'num_repeats': num_repeats,
      'dtype': 'bfloat16',
      'num_kv_heads': config.num_heads,
  }


def main(words: list[str]) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', required=True, help='small to xxl of T5.1.1')
  for name, default in (
      ('batch_size', 32), ('input_length', 2048), ('output_length', 66),
      ('num_repeats', 5),
  ):  # pyformat: disable
    parser.add_argument(
        f'--{name}', type=number_flags.positive, default=default
    )
  args = vars(parser.parse_args(words))
  if args['output_length'] < 3:
    parser.error(f'expected --output_length 3 or more, got'
                 f' {args["output_length"]}: the first two do not count')
  import jax

  from gqa_t5x import provenance

  jax.config.update('jax_platforms', 'cpu')  # All of the GPU is PyTorch's.
  try:
    config = models.t5_1_1_config(args.pop('model'), None)
    found = hf_decode(config, **args)
  except UserError as error:
    parser.error(str(error))
  command = ['python', '-m', 'gqa_t5x.benchmark.hf_decode', *words]
  json.dump(
      {
          'command': shlex.join(command),
          'config': config.to_dict(),
          **found,
          'peers': peers.versions(['hf']),
          **provenance.environment(),
      },
      sys.stdout,
      indent=1,
  )
  print()


if __name__ == '__main__':
  main(sys.argv[1:])
