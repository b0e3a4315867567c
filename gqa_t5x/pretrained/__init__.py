# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The multi-head checkpoint and vocabulary that ship with the package.

They play the part of the public T5 checkpoint at laptop scale; README.md
beside this file says how they were made.
"""

import pathlib

_HERE = pathlib.Path(__file__).parent

VOCABULARY_PATH = str(_HERE / 'sentencepiece.model')
CHECKPOINT_PATH = str(_HERE / 'checkpoint')
