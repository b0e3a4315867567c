# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention for T5, in JAX and Flax.

Reproduces and extends "GQA: Training Generalized Multi-Query Transformer
Models from Multi-Head Checkpoints" (Ainslie et al., 2023, arXiv 2305.13245).
"""

import pathlib as _pathlib

__version__ = '0.1.0'

# In a source checkout `tasks/` and `gin_configs/` lie beside this package; an
# installed wheel has them inside it. Either way they are `gqa_t5x.tasks` and
# `gqa_t5x.gin_configs`.
_root = _pathlib.Path(__file__).resolve().parent.parent
if (_root / 'tasks' / '__init__.py').exists() and (_root / 'setup.py').exists():
  __path__.append(str(_root))
