# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded engine: training and evaluation where t5x is not installed."""
