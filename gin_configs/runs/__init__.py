# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of t5x's scripts, and the one thing that gin cannot say in them."""


def task_vocabulary(mixture_or_task_name: str):
  """Returns the seqio vocabulary of a task's targets, for the model.

  So a model speaks the language of whatever task it is composed with. All our
  tasks have one vocabulary for inputs and targets; t5x compares both.
  """
  import seqio  # Looking up a gin file must not import it.

  provider = seqio.get_mixture_or_task(mixture_or_task_name)
  return provider.output_features['targets'].vocabulary
