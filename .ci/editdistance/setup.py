# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Installs the substitute beside this file; see there."""

import setuptools

setuptools.setup(
    name='editdistance',
    version='0.8.1+python',  # what seqio's requirement and our pin accept
    description='Levenshtein distance in Python, for machines that cannot'
    ' compile editdistance',
    py_modules=['editdistance'],
)
