# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""results.json: written whole, read back the same, refused in one line."""

import json

import numpy as np
import pytest

from gqa_t5x.errors import UserError
from gqa_t5x.experiments import catalog
from gqa_t5x.experiments import results as results_lib


def test_round_trip(results, tmp_path):
  path = results_lib.save_results(tmp_path, results)
  assert path == tmp_path / 'results.json'
  assert results_lib.load_results(tmp_path) == results
  assert [p.name for p in tmp_path.iterdir()] == ['results.json']


def test_numpy_and_nan_become_plain_json(results, tmp_path):
  results['models']['MHA']['loss_converted'] = np.float32(2.5)
  results['models']['MHA']['loss_uptrained'] = float('inf')
  results['seeds'] = np.arange(2)
  path = results_lib.save_results(tmp_path, results)
  read = json.loads(path.read_text('utf-8'))
  assert read['models']['MHA']['loss_converted'] == 2.5
  assert read['models']['MHA']['loss_uptrained'] is None
  assert read['seeds'] == [0, 1]


@pytest.mark.parametrize('text, message', [
    ('{"schema": 1,', 'expected JSON'),
    ('[]', 'expected schema 2'),
    ('{"schema": 1}', 'expected schema 2 .* got 1'),
    ('{"schema": 2}', "expected 'scale'"),
])
def test_bad_file_is_refused_in_one_line(tmp_path, text, message):
  (tmp_path / 'results.json').write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    results_lib.load_results(tmp_path)
  assert '\n' not in str(caught.value)


def test_average_is_the_plain_mean(results):
  # (41 + 66 + 62) / 3
  average = results_lib.average_score(results, results['models']['MHA'])
  assert average == pytest.approx(56.3333333)
  del results['models']['MHA']['tasks']['docs_summarize']
  assert results_lib.average_score(results, results['models']['MHA']) is None


def test_gqa_heads(results):
  assert results_lib.gqa_heads(results) == 2
  assert results_lib.gqa_heads({'models': {'MHA': {}}}) is None


@pytest.mark.parametrize('name', sorted({*catalog.EXPERIMENTS} - {'figure6'}))
def test_gqa_heads_are_those_of_the_paper_whatever_was_run(name):
  experiment = catalog.EXPERIMENTS[name]
  models = [m.name for m in (*experiment.scored, *experiment.measured)]
  assert results_lib.gqa_heads({'models': dict.fromkeys(models)}) == 2
