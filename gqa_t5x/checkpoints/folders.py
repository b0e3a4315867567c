# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders that hold a checkpoint: complete or absent, read or refused."""

from collections.abc import Iterator
import contextlib
import pathlib
import shutil

from gqa_t5x.errors import UserError


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a folder to write to, which becomes `folder` if nothing is raised.

  It lies beside `folder`, so that renaming it moves no bytes. What a killed
  process left there is removed first.

  Args:
    folder: must not exist; its parent must.
  """
  beside = folder.with_name(f'{folder.name}.gqa_t5x-incomplete')
  shutil.rmtree(beside, ignore_errors=True)
  beside.mkdir()
  try:
    yield beside
    beside.rename(folder)
  except BaseException:
    shutil.rmtree(beside, ignore_errors=True)
    raise


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
  """Makes one UserError of whatever reading a damaged checkpoint raises."""
  try:
    yield
  except UserError:
    raise
  # Parsers of damaged bytes raise whatever they stumble over.
  except (
      ValueError,
      OSError,
      LookupError,
      TypeError,
      AttributeError,
  ) as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    # TensorStore appends the specification of the array.
    reason = reason.split(' [tensorstore_spec=')[0]
    raise UserError(
        f'the checkpoint in {folder} cannot be read: {reason}; it is damaged'
        ' or incomplete, take another step or copy it again'
    ) from error
