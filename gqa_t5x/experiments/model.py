# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How a model of an experiment is made, and what it is called."""

import dataclasses

from gqa_t5x.experiments import paper

NUM_HEADS = 8  # Of the multi-head checkpoint of every suite.
ALPHA = paper.UPTRAIN_FRACTION
LOW_RATE = 0.25  # Of uptraining: of pre-training's learning rate.
SCRATCH, FINETUNED = 'scratch', 'finetuned'


@dataclasses.dataclass(frozen=True, order=True)
class Model:
  """How a model is made; a row of our tables.

  Attributes:
    num_kv_heads: K; all of the checkpoint's heads mean MHA, not converted.
    method: of conversion, or None for a model trained from scratch with K, for
      as many steps as pre-training and uptraining of the others.
    alpha: share of the original pre-training that uptraining takes.
    origin: None, the checkpoint of the suite, or 'scratch', an MHA model
      trained for as long as those from scratch, or 'finetuned', the
      checkpoint of the suite fine-tuned on the task.
    rate: learning rate of uptraining, as a multiple of pre-training's.
    is_tuned: whether fine-tuning follows; of what was 'finetuned', again.
  """

  num_kv_heads: int
  method: str | None = 'mean'
  alpha: float = ALPHA
  origin: str | None = None
  rate: float = 1.0
  is_tuned: bool = True

  @property
  def name(self) -> str:
    """The paper's name, and what differs from its recipe."""
    heads = {NUM_HEADS: 'MHA', 1: 'MQA'}
    parts = [heads.get(self.num_kv_heads, f'GQA-{self.num_kv_heads}')]
    if self.method is None:
      return f'{parts[0]} from scratch'
    if self.method != 'mean':
      parts.append(self.method)
    if self.origin == FINETUNED:
      parts.append('tuned twice' if self.is_tuned else 'converted last')
    elif self.alpha != ALPHA:
      parts.append(f'alpha {self.alpha:g}')
    if self.rate != 1:
      parts.append(f'rate {self.rate:g}')
    if self.origin == SCRATCH:
      parts.append('of a model from scratch')
    return ', '.join(parts)

  @property
  def is_converted(self) -> bool:
    return self.num_kv_heads != NUM_HEADS and self.method is not None

  @property
  def slug(self) -> str:
    """Its name in those of stages."""
    parts = [f'K{self.num_kv_heads}']
    origin = SCRATCH if self.method is None else self.origin
    parts += [origin] * bool(origin)
    parts += [self.method] * self.is_converted
    parts += [f'alpha{self.alpha:g}'] * (self.method is not None)
    parts += [f'rate{self.rate:g}'] * (self.rate != 1)
    parts += ['asis'] * (not self.is_tuned)
    return '-'.join(parts)
