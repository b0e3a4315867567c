# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The rule that says which query head uses which key/value head."""

import numpy as np
import pytest

from gqa_t5x import grouping
from gqa_t5x.errors import UserError


@pytest.mark.parametrize('num_kv_heads, size', [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_group_size(num_kv_heads, size):
  assert grouping.group_size(6, num_kv_heads) == size


def test_heads_of_a_group_stand_next_to_each_other():
  heads = np.arange(6)[None]  # [1, N]
  np.testing.assert_array_equal(
      grouping.split_groups(heads, 2, axis=1), [[[0, 1, 2], [3, 4, 5]]]
  )


def test_repeat_serves_query_head_n_with_kv_head_n_over_g():
  np.testing.assert_array_equal(
      grouping.repeat_kv_heads(np.array([10, 20, 30]), 6, axis=0),
      [10, 10, 20, 20, 30, 30],
  )
  x = np.array([10, 20, 30])
  assert grouping.repeat_kv_heads(x, 3, axis=0) is x


@pytest.mark.parametrize('num_kv_heads', [0, 5, 24])
def test_refuses_what_does_not_divide(num_kv_heads):
  with pytest.raises(
      UserError,
      match=f'num_heads=12 cannot be split over num_kv_heads={num_kv_heads}; '
      'choose 1, 2, 3, 4, 6 or 12',
  ):
    grouping.group_size(12, num_kv_heads)
