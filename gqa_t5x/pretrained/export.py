# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the shipped checkpoint from a step of a pre-training run.

  python -m gqa_t5x.pretrained.export MODEL_DIR STEP TARGET

Parameters become bfloat16, half the size; the optimizer's state is left out.
The metadata gets the run's losses, and what it was made from.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp

from gqa_t5x import checkpoints
from gqa_t5x import provenance
from gqa_t5x.tasks import corpus


def export(model_dir: str, step: str, target: str) -> None:
  """Writes the checkpoint folder `target`, which must not exist."""
  folder = pathlib.Path(model_dir)
  params, metadata = checkpoints.load_checkpoint(
      str(folder / 'checkpoints' / step)
  )
  lines = (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
  dev = [
      (row['step'], round(row['dev/loss'], 4))
      for row in map(json.loads, lines)
      if 'dev/loss' in row
  ]
  kept = ('config', 'step', 'conversion', 'vocabulary_sha256')
  made = {
      'run': json.loads((folder / 'config.json').read_text(encoding='utf-8')),
      'dev_loss_by_step': dev,
      'corpus': corpus.corpus_fingerprint(),
      **provenance.environment(),
  }
  made['run']['train'].pop('model_dir')
  checkpoints.save_checkpoint(
      target,
      jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params),
      metadata={name: metadata[name] for name in kept} | {'made_from': made},
  )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  for name in ('model_dir', 'step', 'target'):
    parser.add_argument(name, metavar=name.upper())
  export(**vars(parser.parse_args()))
