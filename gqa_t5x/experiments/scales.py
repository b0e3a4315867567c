# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How much an experiment does: on a laptop, or to see that all works."""

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Scale:
  """How much is done.

  Attributes:
    inputs_length: tokens of an input row.
    targets_length: tokens of a target row, and most tokens decoded.
    max_cached_examples: of each task and split, to be tokenized.
    batch_size: packed rows of a training batch.
    alpha_unit: what the paper's alpha is multiplied by.
    finetune_steps: of each model on each task.
    dev_examples: of each task, on which the dev loss of a run is measured.
    test_examples: decoded of each task.
    loss_examples: of the pre-training objective.
    decode_batch_size: inputs decoded together, in evaluation.
    calibration_sequences: of calibrated conversions.
    scratch_steps: of a model that is trained from scratch, before uptraining.
    timing: batch_size, input_length, output_length and num_repeats of the
      decoding benchmark.
    seconds: of a stage of each kind, about, on 2 CPU cores.
    xla_flags: added to XLA_FLAGS before JAX starts.
    finetune_bindings: for gin, in fine-tuning.
  """

  inputs_length: int
  targets_length: int
  max_cached_examples: int
  batch_size: int
  alpha_unit: float
  finetune_steps: int
  dev_examples: int
  test_examples: int
  loss_examples: int
  decode_batch_size: int
  calibration_sequences: int
  scratch_steps: int
  timing: Mapping[str, int]
  seconds: Mapping[str, float]
  xla_flags: str = ''
  finetune_bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


SCALES = {
    'laptop': Scale(
        inputs_length=256,
        targets_length=72,
        max_cached_examples=10_000,
        batch_size=8,
        alpha_unit=1.0,
        finetune_steps=80,
        dev_examples=64,
        test_examples=400,
        loss_examples=256,
        decode_batch_size=40,
        calibration_sequences=128,
        scratch_steps=1000,
        timing=dict(
            batch_size=16, input_length=512, output_length=128, num_repeats=5
        ),
        # Uptraining and training from scratch: of a step.
        seconds=dict(
            data=45, convert=4, step=0.33, loss=4, finetune=32, test=8,
            baselines=15, timing=40,
        ),
    ),
    'smoke': Scale(
        inputs_length=64,
        targets_length=16,
        max_cached_examples=200,
        batch_size=4,
        alpha_unit=0.006,
        finetune_steps=2,
        dev_examples=4,
        test_examples=8,
        loss_examples=8,
        decode_batch_size=8,
        calibration_sequences=16,
        scratch_steps=4,
        timing=dict(
            batch_size=2, input_length=64, output_length=8, num_repeats=2
        ),
        seconds=dict(
            data=25, convert=1, step=2, loss=2, finetune=2, test=1,
            baselines=4, timing=10,
        ),
        # Nothing runs long enough to be worth optimising or sharing out, and
        # uptraining's compiled step serves fine-tuning too.
        xla_flags='--xla_backend_optimization_level=0'
        ' --xla_force_host_platform_device_count=1',
        finetune_bindings={
            'optimizer.Schedule.kind': 'rsqrt',
            'optimizer.Schedule.base': 0.5,
            'optimizer.Schedule.warmup_steps': 1000,
            'DROPOUT_RATE': 0.0,
        },
    ),
}  # pyformat: disable
