# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: the CPU, a quiet TensorFlow, t5x if present."""

import importlib.util
import os

import pytest

# Before anything imports jax or TensorFlow.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def pytest_collection_modifyitems(items):
  """Skips tests marked `t5x` where t5x is not installed."""
  if importlib.util.find_spec('t5x') is not None:
    return
  skip = pytest.mark.skip(reason='t5x is not installed; see setup.py')
  for item in items:
    if 't5x' in item.keywords:
      item.add_marker(skip)
