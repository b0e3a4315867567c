# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Invented training losses of which it is plain what they do."""

import numpy as np

from gqa_t5x.experiments import loss_curves


def loss_curve(spikes=(), length=400):
  rng = np.random.default_rng(0)
  curve = 3 + 0.1 * rng.standard_normal(length)
  for step in spikes:
    curve[step : step + 5] += 3
  return curve.tolist()


def test_spikes_are_counted_once_each():
  assert loss_curves.spikes(loss_curve()) == 0
  assert loss_curves.spikes(loss_curve([150, 300])) == 2
  assert loss_curves.spikes(loss_curve()[:200] + [None] * 3) == 1
  assert loss_curves.spikes(loss_curve([30, 60], length=80)) == 2
  assert loss_curves.spikes(loss_curve(length=80)) == 0
  # A fall, as every training starts with, is none.
  assert loss_curves.spikes([9.0 * 0.99**i for i in range(300)]) == 0


def test_divergence():
  assert not loss_curves.has_diverged(loss_curve([150]))
  assert loss_curves.has_diverged(loss_curve() + [4.5] * 100)
  assert loss_curves.has_diverged(loss_curve() + [None])
  # A number of steps that the window does not divide.
  assert loss_curves.has_diverged(loss_curve() + [9.0] * 50)
  assert not loss_curves.has_diverged(loss_curve() + loss_curve(length=50))
  # A step that was skipped, long ago.
  assert not loss_curves.has_diverged(loss_curve() + [None] + loss_curve())
  assert not loss_curves.has_diverged([3.0] * 50)
  # At once, and in a run that is shorter than the window.
  assert loss_curves.has_diverged([2.0] * 10 + [8.0] * 590)
  assert loss_curves.has_diverged([1.0] * 40 + [9.0] * 40)
  assert loss_curves.has_diverged([1.0] * 50 + [2.6] * 50)  # Its second half.
  assert not loss_curves.has_diverged(loss_curve(length=80))
  assert not loss_curves.has_diverged([9.0 * 0.99**i for i in range(300)])
