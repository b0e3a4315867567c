# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where everything that can be made again is kept between runs."""

import os
import pathlib


def cache_folder() -> pathlib.Path:
  """Returns the user's cache folder for gqa_t5x; it may not exist yet.

  `$GQA_T5X_CACHE_DIR`, else `$XDG_CACHE_HOME/gqa_t5x`, else
  `~/.cache/gqa_t5x`.
  """
  if explicit := os.environ.get('GQA_T5X_CACHE_DIR'):
    return pathlib.Path(explicit).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'gqa_t5x'
