# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""All experiments, in the order in which a report shows them."""

from gqa_t5x.experiments import figure4
from gqa_t5x.experiments import figure5
from gqa_t5x.experiments import figure6
from gqa_t5x.experiments import finetuned
from gqa_t5x.experiments import learning_rate
from gqa_t5x.experiments import stability
from gqa_t5x.experiments import table1

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        table1, figure6, figure4, figure5, stability, learning_rate, finetuned,
    )
}  # pyformat: disable
