# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A short form of `make torture`."""

import pytest

from gqa_t5x import pretrained
from tests import torture

pytestmark = pytest.mark.slow


def test_converting_survives_kills(tmp_path):
  job = torture.conversion(pretrained.CHECKPOINT_PATH, 2)
  assert torture.torture(job, 4, tmp_path)['kills'] == 4


def test_training_survives_kills(tmp_path):
  assert torture.torture(torture.train(12), 4, tmp_path)['kills'] == 4
