# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's numbers, checked by what must hold between them."""

import pytest

from gqa_t5x.experiments import paper


def _mean(row) -> float:
  return sum(row.scores) / len(row.scores)


def test_row_means_as_worked_out_by_hand():
  means = {row.model: round(_mean(row), 2) for row in paper.TABLE_1}
  assert means == {'MHA-Large': 45.96, 'MHA-XXL': 47.21, 'MQA-XXL': 46.76,
                   'GQA-8-XXL': 47.16}


def test_only_the_mqa_mean_disagrees_with_its_printed_average():
  # 47.16 is printed as 47.1: within the rounding of seven rounded numbers.
  wrong = [row.model for row in paper.TABLE_1
           if abs(_mean(row) - row.average) > 0.1]
  assert wrong == ['MQA-XXL']
  assert '46.76' in paper.TABLE_1_NOTE and '46.6' in paper.TABLE_1_NOTE


def test_printed_values_spot_checked():
  rows = {row.model: row for row in paper.TABLE_1}
  names = [task.short_name for task in paper.TASKS]
  gqa = dict(zip(names, rows['GQA-8-XXL'].scores, strict=True))
  assert gqa['CNN'] == 43.5 and gqa['PubMed'] == 47.7
  assert gqa['WMT'] == 28.4 and gqa['TriviaQA'] == 81.6
  assert rows['MHA-XXL'].seconds_per_sample == 1.51
  assert paper.FIGURE_3[2] == ('MQA-XXL', 0.24, 46.6)
  assert 'ms' in paper.FIGURE_3_NOTE


def test_figures_say_what_the_claims_say():
  figure4 = paper.FIGURE_4
  assert figure4['mean'] > figure4['first'] > figure4['random']
  figure5 = paper.FIGURE_5
  assert figure5['GQA-8'][0.0] - figure5['MQA'][0.0] == pytest.approx(2.8)
  assert set(paper.FIGURE_6) == {1, 4, 8, 16, 32, 64}
  assert paper.FIGURE_6[64] / paper.FIGURE_6[8] == pytest.approx(4.85, abs=.01)
  # The curve's ends are the lines of MHA and MQA, within the error of reading.
  assert paper.FIGURE_6[64] == pytest.approx(2.53, abs=0.021)
  assert paper.FIGURE_6[1] == pytest.approx(0.49, abs=0.021)


def test_sizes():
  sizes = {size.name: size for size in paper.MODEL_SIZES}
  assert list(sizes) == ['small', 'base', 'large', 'xl', 'xxl']
  for size in paper.MODEL_SIZES:
    assert size.head_dim == 64
  assert sizes['small'].num_heads * 64 == 384  # Not its emb_dim of 512.
  for name in ('base', 'large', 'xl', 'xxl'):
    assert sizes[name].num_heads * 64 == sizes[name].emb_dim
  assert sizes['xxl'].mlp_dim == 10240 and sizes['xxl'].num_layers == 24


def test_six_claims():
  assert [claim.name for claim in paper.CLAIMS] == [
      'C1', 'C2', 'C3', 'C4', 'C5', 'C6']
