# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Brings results/ and notebooks/ into the site, to which docs/ links.

In the repository they lie beside docs/, and links there begin with `../`.
"""

import pathlib
import re

from mkdocs.structure.files import File

_BESIDE = ('results', 'notebooks')
_LINK = re.compile(r'\]\(\s*\.\./(' + '|'.join(_BESIDE) + ')/')


def on_files(files, config):
  root = pathlib.Path(config.config_file_path).parent
  for folder in _BESIDE:
    for path in sorted((root / folder).rglob('*')):
      if path.is_file():
        name = path.relative_to(root).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown, **_):
  return _LINK.sub(r'](\1/', markdown)
