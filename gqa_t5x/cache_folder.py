# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where everything that can be made again is kept between runs."""

import os
import pathlib

from gqa_t5x import storage


def cache_folder() -> pathlib.Path:
  """Returns the user's cache folder for gqa_t5x; it may not exist yet.

  `$GQA_T5X_CACHE_DIR`, else `$XDG_CACHE_HOME/gqa_t5x`, else
  `~/.cache/gqa_t5x`.
  """
  if explicit := os.environ.get('GQA_T5X_CACHE_DIR'):
    return storage.local_path(explicit)
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return storage.local_path(base) / 'gqa_t5x'
