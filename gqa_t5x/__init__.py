# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention for T5, in JAX and Flax.

Reproduces and extends "GQA: Training Generalized Multi-Query Transformer
Models from Multi-Head Checkpoints" (Ainslie et al., 2023, arXiv 2305.13245).
"""

import importlib as _importlib
import pathlib as _pathlib
import typing as _typing

__version__ = '0.1.0'

# In a source checkout `tasks/` and `gin_configs/` lie beside this package; an
# installed wheel has them inside it. Either way they are `gqa_t5x.tasks` and
# `gqa_t5x.gin_configs`.
_root = _pathlib.Path(__file__).resolve().parent.parent
if all((_root / name).is_dir() for name in ('tasks', 'gin_configs')):
  __path__.append(str(_root))

# The public names, imported when first used, so that the command line starts
# at once.
_PUBLIC = {
    'T5Config': 'network',
    'Transformer': 'network',
    'convert_params': 'conversion',
    'load_checkpoint': 'checkpoints',
    'save_checkpoint': 'checkpoints',
    'generate': 'decoding',
}
__all__ = ['__version__', *_PUBLIC]

if _typing.TYPE_CHECKING:
  from gqa_t5x.checkpoints import load_checkpoint, save_checkpoint
  from gqa_t5x.conversion import convert_params
  from gqa_t5x.decoding import generate
  from gqa_t5x.network import T5Config, Transformer


def __dir__() -> list[str]:
  return sorted(__all__)


def __getattr__(name: str) -> object:
  if name not in _PUBLIC:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(_importlib.import_module(f'{__name__}.{_PUBLIC[name]}'), name)
