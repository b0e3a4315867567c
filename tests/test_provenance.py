# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a result says of where it was made."""

import json

import gqa_t5x
from gqa_t5x import provenance


def test_environment():
  facts = provenance.environment()
  assert facts['device']['backend'] == 'cpu'
  assert facts['device']['cores'] >= 1 and facts['device']['cpu']
  assert facts['versions']['gqa_t5x'] == gqa_t5x.__version__
  assert facts['versions']['jax'] and facts['versions']['python']
  json.dumps(facts)


def test_commit_outside_a_checkout_is_the_version(tmp_path, monkeypatch):
  package = tmp_path / 'site' / 'gqa_t5x'
  package.mkdir(parents=True)
  monkeypatch.setattr(gqa_t5x, '__file__', str(package / '__init__.py'))
  assert provenance.commit() == f'gqa_t5x {gqa_t5x.__version__}'
