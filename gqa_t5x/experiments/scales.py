# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How much an experiment does, and on what: from a rehearsal to one GPU."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from gqa_t5x.experiments import suites

_MODELS = 'gqa_t5x/gin_configs/models/'


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
    timing: batch_size, input_length, output_length, num_repeats and perhaps
      dtype of the decoding benchmark.
    seconds: of a stage of each kind, about, on `machine`.
    machine: that it is made for.
    suite: tasks and checkpoint.
    pretrain_steps: of the suite's checkpoint.
    model_gin: file of its model.
    num_kv_heads: of the models that an experiment names, those that are made.
    finetune_evals: how often the dev loss is measured in fine-tuning.
    finetune_decay_steps: the last ones, over which the learning rate falls to
      0; 0 is none, as in the paper.
    xla_flags: added to XLA_FLAGS before JAX starts.
    model_bindings: for gin, in all training.
    pretrain_bindings: for gin, in pre-training and uptraining.
    finetune_bindings: for gin, in fine-tuning.
    tasks: fields that are other ones for a task, or more of them.
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
  timing: Mapping[str, int | str]
  seconds: Mapping[str, float]
  machine: str = '2 CPU cores'
  suite: suites.Suite = suites.EMBEDDED
  pretrain_steps: int = 7000
  model_gin: str = _MODELS + 't5_1_1_mini.gin'
  num_kv_heads: tuple[int, ...] = (8, 2, 1)
  finetune_evals: int = 2
  finetune_decay_steps: int = 0
  xla_flags: str = ''
  model_bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  pretrain_bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  finetune_bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  tasks: Mapping[str, Mapping[str, Any]] = dataclasses.field(
      default_factory=dict
  )

  @property
  def lengths(self) -> dict[str, int]:
    return {'inputs': self.inputs_length, 'targets': self.targets_length}

  def of(self, task: str) -> 'Scale':
    """Returns what it is for a task."""
    other = {
        name: {**getattr(self, name), **value}
        if isinstance(value, Mapping) else value
        for name, value in self.tasks.get(task, {}).items()
    }  # pyformat: disable
    return dataclasses.replace(self, **other)


_HARDLY_OPTIMIZED = (
    '--xla_backend_optimization_level=0'
    ' --xla_force_host_platform_device_count=1'
)


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
        xla_flags=_HARDLY_OPTIMIZED,
        finetune_bindings={
            'optimizer.Schedule.kind': 'rsqrt',
            'optimizer.Schedule.base': 0.5,
            'optimizer.Schedule.warmup_steps': 1000,
            'DROPOUT_RATE': 0.0,
        },
    ),
    # With 59 million parameters, and SumPubmed at the paper's lengths. Only
    # Multi30k was run, after 1,266 steps of pre-training; the seconds of the
    # other tasks are guesses.
    'gpu': Scale(
        machine='an H100',
        suite=suites.benchmarks(),
        inputs_length=512,
        targets_length=114,
        max_cached_examples=200_000,
        batch_size=128,
        alpha_unit=1.0,
        pretrain_steps=4000,
        finetune_steps=600,
        finetune_evals=10,
        finetune_decay_steps=300,
        finetune_bindings={'optimizer.Schedule.base': 0.015},
        dev_examples=1024,
        test_examples=2000,
        loss_examples=512,
        decode_batch_size=128,
        calibration_sequences=128,
        scratch_steps=1000,
        timing=dict(
            batch_size=32, input_length=2048, output_length=512, num_repeats=5,
            dtype='bfloat16',
        ),
        seconds=dict(
            vocabulary=240, data=120, convert=5, step=0.11, loss=10,
            finetune=60, test=15, baselines=40, timing=120,
        ),
        model_gin=_MODELS + 't5_1_1_small8.gin',
        num_kv_heads=(8, 4, 2, 1),
        tasks={
            'gqa_multi30k': dict(
                inputs_length=64, targets_length=64, batch_size=128,
                decode_batch_size=256, finetune_steps=1000,
                finetune_decay_steps=500, seconds=dict(finetune=50, test=3),
            ),
            'gqa_aeslc': dict(targets_length=32),
            'gqa_fairytaleqa': dict(targets_length=48),
            'gqa_sumpubmed': dict(
                inputs_length=2048, targets_length=512, batch_size=32,
                finetune_steps=2000, finetune_decay_steps=1000,
                decode_batch_size=32, seconds=dict(finetune=400, test=60),
            ),
        },
    ),
}  # pyformat: disable
# The laptop's model on benchmarks: hours, so without SumPubmed, whose inputs
# have 2,048 tokens. The seconds are guesses.
SCALES['benchmarks'] = dataclasses.replace(
    SCALES['laptop'],
    suite=suites.benchmarks('gqa_multi30k', 'gqa_aeslc', 'gqa_fairytaleqa'),
    max_cached_examples=100_000,
    pretrain_steps=8000,
    finetune_steps=5000,
    finetune_evals=10,
    finetune_decay_steps=3000,
    finetune_bindings={'optimizer.Schedule.base': 0.03},
    dev_examples=512,
    test_examples=2000,
    seconds=dict(
        vocabulary=150, data=30, convert=4, step=0.21, loss=5,
        finetune=2500, test=60, baselines=60, timing=40,
    ),
    tasks={
        'gqa_multi30k': dict(
            inputs_length=64, targets_length=64, batch_size=32,
            finetune_steps=2500, finetune_decay_steps=1000,
            seconds=dict(finetune=1250, test=7),
        ),
        'gqa_aeslc': dict(targets_length=32, batch_size=16),
        'gqa_fairytaleqa': dict(targets_length=48, batch_size=16),
    },
)  # pyformat: disable
# A rehearsal of the benchmarks: all of gpu's stages, and hardly any work.
SCALES['benchmarks_smoke'] = dataclasses.replace(
    SCALES['smoke'],
    suite=suites.benchmarks(),
    alpha_unit=1.0,
    pretrain_steps=20,
    scratch_steps=20,
    seconds={**SCALES['smoke'].seconds, 'vocabulary': 150, 'data': 40},
    model_gin=SCALES['gpu'].model_gin,
    num_kv_heads=SCALES['gpu'].num_kv_heads,
    model_bindings={
        'network.T5Config.emb_dim': 64,
        'network.T5Config.mlp_dim': 128,
        'network.T5Config.head_dim': 16,
        'network.T5Config.num_encoder_layers': 2,
        'network.T5Config.num_decoder_layers': 2,
    },
    tasks={
        'gqa_multi30k': {'finetune_bindings': {'DROPOUT_RATE': 0.3}},
        'gqa_sumpubmed': {'inputs_length': 128, 'targets_length': 32},
    },
)
