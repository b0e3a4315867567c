# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the makers say of their accelerators."""

import dataclasses

_TPU = 'https://cloud.google.com/tpu/docs/'
_NVIDIA = 'https://www.nvidia.com/en-us/data-center/'


@dataclasses.dataclass(frozen=True)
class Device:
  """One chip.

  Attributes:
    memory_gib: as named; None where it is not known.
    bandwidth: of its memory, bytes a second.
    flops: operations a second, dense; None where they are not known. In
      `DEVICES` those of bfloat16.
    source: page of its maker.
  """

  memory_gib: float | None
  bandwidth: float
  flops: float | None
  source: str


# Google writes 16 GB and 95 GB for 16 and 95 GiB; its compiler gives a program
# even 95.74 (`tpu_compile.GENERATIONS`). NVIDIA's 80 and 141 GB are neither
# unit: the MiB are those that nvidia-smi counts. It prints operations with
# sparsity, of which half are dense.
DEVICES = {
    'tpu-v4': Device(32, 1200e9, 275e12, _TPU + 'v4'),
    'tpu-v5e': Device(16, 819e9, 197e12, _TPU + 'v5e'),
    'tpu-v5p': Device(95, 2765e9, 459e12, _TPU + 'v5p'),
    'a100': Device(81920 / 1024, 2039e9, 312e12, _NVIDIA + 'a100/'),
    'h100': Device(81559 / 1024, 3350e9, 989e12, _NVIDIA + 'h100/'),
    'h200': Device(143771 / 1024, 4800e9, 989e12, _NVIDIA + 'h200/'),
}
