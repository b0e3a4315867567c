# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How long decoding, training and converting take, and what they have to hold.

Beside what the memory bandwidth allows, and beside other programs.
"""
