# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns a multi-head checkpoint into a grouped- or multi-query one.

Section 2.1 of the paper, and what goes beyond it. A method is a module that
converts the heads of one attention: `mean`, `first` and `random` are the
paper's; `scaled_mean`, `aligned` and `svd` are not.
"""

from gqa_t5x.conversion.checkpoint import convert_checkpoint
from gqa_t5x.conversion.optimizer_slots import check_slots
from gqa_t5x.conversion.optimizer_slots import convert_optimizer_slots
from gqa_t5x.conversion.optimizer_slots import is_converted
from gqa_t5x.conversion.params import GROUP_BY
from gqa_t5x.conversion.params import METHODS
from gqa_t5x.conversion.params import Conversion
from gqa_t5x.conversion.params import convert_params

__all__ = [
    'Conversion',
    'GROUP_BY',
    'METHODS',
    'check_slots',
    'convert_checkpoint',
    'convert_optimizer_slots',
    'convert_params',
    'is_converted',
]
