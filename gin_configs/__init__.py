# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Gin files, found by gin as gqa_t5x/gin_configs/..."""
