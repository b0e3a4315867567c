# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes seqio tasks as token arrays, from which the engine trains.

Training then needs numpy only, reads its rows in any order, and resumes
exactly. This is the one place of the engine's training path that needs seqio
and TensorFlow; where they are not installed, it finds what was cached before.

A cache folder holds, for one task and split,

  inputs.npy, targets.npy   the tokens of all examples, one after the other
  inputs_offsets.npy, ...   int64 [n + 1]; example i is tokens[o[i]:o[i + 1]]
  meta.json                 what it was made from

Tokens end with EOS and are trimmed to the feature lengths. Beside the folders,
`NAME.SPLIT.json` lists those of a task or mixture.
"""

from collections.abc import Mapping
import hashlib
import importlib.util
import json
import logging
import pathlib
from typing import Any

import numpy as np

from gqa_t5x import storage
from gqa_t5x.errors import UserError

_log = logging.getLogger(__name__)

FEATURES = ('inputs', 'targets')


def folder_name(task: str) -> str:
  """Returns the task's name as a folder name."""
  return task.replace(':', '_').replace('/', '_')


def has_seqio() -> bool:
  """Returns whether tasks can be read here."""
  return importlib.util.find_spec('seqio') is not None


def provider_of(mixture_or_task: str):
  """Returns seqio's task or mixture; raises UserError if there is none."""
  import seqio

  try:
    return seqio.get_mixture_or_task(mixture_or_task)
  except ValueError as error:
    registries = seqio.TaskRegistry, seqio.MixtureRegistry
    known = sorted(name for r in registries for name in r.names())
    raise UserError(
        f'{mixture_or_task!r} is no registered task or mixture; known are '
        f'{", ".join(known)}; import the module that registers it in the gin'
        ' file'
    ) from error


def cache_mixture(
    mixture_or_task: str,
    split: str,
    feature_lengths: Mapping[str, int],
    cache_dir: str,
    *,
    num_epochs: int = 1,
    seed: int = 0,
    max_examples: int | None = None,
    only_cached: bool = False,
) -> dict[str, float]:
  """Caches the tasks of a mixture, those that are not there yet.

  Args:
    mixture_or_task: a registered seqio name.
    split: of the tasks.
    feature_lengths: most tokens of 'inputs' and 'targets', EOS counted.
    cache_dir: each task gets `cache_dir/task/split`, or, where its source
      has a fingerprint, `cache_dir/task-fingerprint/split`.
    num_epochs: passes over a task; noise such as span corruption's is drawn
      anew in each.
    seed: of that noise.
    max_examples: of each task, the first ones; None means all.
    only_cached: whether to take what was cached last, and look at no source;
      as where seqio is not installed.

  Returns:
    {folder: rate in the mixture} of the tasks.

  Raises:
    UserError: if the name is unknown, a folder there was made otherwise, or
      it is not there and may not, or cannot, be made; if it has no targets.
  """
  options = {
      'feature_lengths': {name: feature_lengths[name] for name in FEATURES},
      'num_epochs': num_epochs,
      'seed': seed,
      'max_examples': max_examples,
  }
  name = f'{folder_name(mixture_or_task)}.{split}.json'
  listed = pathlib.Path(cache_dir) / name
  if only_cached or not has_seqio():
    return _listed(listed, mixture_or_task, split, options)
  import seqio

  provider = provider_of(mixture_or_task)
  check_targets(provider, split)
  rates = {}
  for task in seqio.get_subtasks(provider):
    name = folder_name(task.name)
    if rows := fingerprint(task, split):
      name += f'-{rows[:12]}'
    vocabulary = vocabulary_hash(task.output_features['targets'].vocabulary)
    if vocabulary:
      name += f'-{vocabulary[:8]}'
    folder = pathlib.Path(cache_dir) / name / split
    _cache_task(task, split, folder, vocabulary, options)
    is_mixture = isinstance(provider, seqio.Mixture)
    rates[str(folder)] = float(provider.get_rate(task)) if is_mixture else 1.0
  relative = {
      str(pathlib.Path(folder).relative_to(cache_dir)): rate
      for folder, rate in rates.items()
  }
  storage.write_json(listed, relative)
  return rates


def fingerprint(task, split: str) -> str:
  """Returns the SHA-256 of a task's rows, '' if its source tells none."""
  tell = getattr(task.source, 'fingerprint', None)
  return tell(split) if tell else ''


def check_targets(provider, split: str) -> None:
  """Raises UserError if the source of a task has no targets in a split.

  Args:
    provider: seqio's task or mixture.
    split: as named.
  """
  import seqio

  for task in seqio.get_subtasks(provider):
    if split in getattr(task.source, 'unlabeled', ()):
      raise UserError(
          f'expected targets in the {split} split of {task.name}, got none in'
          ' the first line of its file; add them, or write outputs with'
          ' `gqa-t5x infer`'
      )


def _listed(path, mixture_or_task, split, options) -> dict[str, float]:
  """Returns what an earlier call has listed, if it had these options."""
  if not path.exists():
    raise UserError(
        f'expected the {split} split of {mixture_or_task} in {path.parent},'
        ' where it is not, and it is not made here; copy the cache folder of a'
        ' machine with seqio on which `gqa-t5x cache` has made it'
    )
  rates = json.loads(path.read_text(encoding='utf-8'))
  found = {path.parent / folder: rate for folder, rate in rates.items()}
  for folder in found:
    _check_meta(folder, options)
  return {str(folder): rate for folder, rate in found.items()}


def _check_meta(folder: pathlib.Path, made_from: Mapping[str, Any]) -> None:
  meta = read_meta(folder)
  for name, value in made_from.items():
    if meta.get(name) != value:
      raise UserError(
          f'{folder} was cached with {name}={meta.get(name)}, not {value};'
          ' remove it or choose another cache folder'
      )


def _cache_task(task, split, folder, vocabulary_sha256, options):
  made_from = {
      'task': task.name,
      'split': split,
      **options,
      'vocab_size': task.output_features['targets'].vocabulary.vocab_size,
      'vocabulary_sha256': vocabulary_sha256,
  }
  with storage.made_once(folder) as beside:
    if beside is None:
      _check_meta(folder, made_from)
      return
    arrays, texts = _read_task(task, split, **options)
    for name in texts:
      most = options['feature_lengths'].get(name)
      is_full = np.diff(arrays[f'{name}_offsets']) == most
      if is_full.any():
        _log.info(
            '%s, %s: %d of %d %s fill %s tokens, where longer ones are cut',
            task.name, split, is_full.sum(), len(is_full), name, most,
        )  # pyformat: disable
    _write(beside, arrays, made_from)


def _write(folder, arrays, made_from):
  """Writes the arrays of a task, and what they were made from."""
  num_examples = len(arrays['targets_offsets']) - 1
  if not num_examples:
    raise UserError(
        f'{made_from["task"]} has no examples in its {made_from["split"]} split'
    )
  digest = hashlib.sha256()
  for name, array in arrays.items():
    np.save(folder / f'{name}.npy', array)
    digest.update(array.tobytes())
  meta = made_from | {
      'num_examples': num_examples,
      'sha256': digest.hexdigest(),
  }
  (folder / 'meta.json').write_text(json.dumps(meta, indent=1) + '\n')


def _read_task(task, split, feature_lengths, num_epochs, seed, max_examples):
  """Returns the arrays of a task's folder, and which features are texts.

  The others, as of span corruption, are made to fill their lengths.
  """
  import tensorflow as tf

  vocab_size = task.output_features['targets'].vocabulary.vocab_size
  dtype = np.uint16 if vocab_size <= 2**16 else np.int32
  tokens = {name: [np.zeros(0, dtype)] for name in FEATURES}
  lengths = {name: [np.zeros(1, np.int64)] for name in FEATURES}
  for epoch in range(num_epochs):
    dataset = task.get_dataset(
        dict(feature_lengths),
        split=split,
        shuffle=False,
        seed=seed + epoch,
        num_epochs=1,
    )
    dataset = dataset.take(-1 if max_examples is None else max_examples)
    texts = [f for f in FEATURES if f'{f}_pretokenized' in dataset.element_spec]
    # A task may have no inputs; the encoder then sees EOS alone.
    dataset = dataset.map(
        lambda example: {name: example.get(name, [1]) for name in FEATURES}
    )
    for batch in dataset.ragged_batch(1024):
      for name in FEATURES:
        rows = batch[name]
        if isinstance(rows, tf.Tensor):  # Where all lengths are said to be one.
          rows = tf.RaggedTensor.from_tensor(rows)
        tokens[name].append(rows.values.numpy().astype(dtype))
        lengths[name].append(rows.row_lengths().numpy())
  arrays = {}
  for name in FEATURES:
    arrays[name] = np.concatenate(tokens[name])
    arrays[f'{name}_offsets'] = np.cumsum(np.concatenate(lengths[name]))
  return arrays, texts


def vocabulary_hash(vocabulary) -> str:
  """Returns the SHA-256 of a vocabulary's file, '' if it has none."""
  import tensorflow as tf

  if hasattr(vocabulary, 'sha256'):
    return vocabulary.sha256
  if not hasattr(vocabulary, 'sentencepiece_model_file'):
    return ''  # Bytes.

  with tf.io.gfile.GFile(vocabulary.sentencepiece_model_file, 'rb') as f:
    return hashlib.sha256(f.read()).hexdigest()


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
  """Reads meta.json of a cache folder.

  Raises:
    UserError: if there is none.
  """
  path = pathlib.Path(folder) / 'meta.json'
  if not path.exists():
    raise UserError(
        f'{folder} holds no cached task (no meta.json); write one with'
        ' `gqa-t5x cache`'
    )
  return json.loads(path.read_text())
