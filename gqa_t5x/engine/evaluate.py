# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""How good a model is: its dev loss, its outputs and their metrics.

`dev_loss` and `predict` need numpy arrays only; `task_evaluator` and `infer`
read seqio tasks, and import seqio and TensorFlow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from gqa_t5x import decoding
from gqa_t5x import network
from gqa_t5x import storage
from gqa_t5x.engine import cache
from gqa_t5x.engine import losses
from gqa_t5x.errors import UserError

PyTree = Any

DEV_METRICS = ('loss', 'accuracy')  # Of `dev_loss`.
# Inputs are padded to a multiple of this, so that few lengths are compiled.
_BUCKET = 64
# Batches of examples that are read, sorted by length and written together.
_CHUNK = 16


@functools.partial(jax.jit, static_argnums=1)
def _row_sums(params, model, batch):
  """Sums over the tokens of each row: {'loss', 'accuracy', 'tokens'}."""
  features = {k: v for k, v in batch.items() if k != 'decoder_loss_weights'}
  logits = model.apply({'params': params}, **features, enable_dropout=False)
  targets = batch['decoder_target_tokens']
  per_token, _ = losses.token_losses(
      logits, targets, losses.LossConfig(z_loss=0.0)
  )
  weights = batch['decoder_loss_weights']
  is_correct = (logits.argmax(-1) == targets).astype(weights.dtype)
  return {
      'loss': (per_token * weights).sum(1),
      'accuracy': (is_correct * weights).sum(1),
      'tokens': weights.sum(1),
  }


def _on_host(tree: PyTree) -> PyTree:
  """Returns arrays as numpy's, also those whose parts other processes hold."""

  def whole(x):
    if x.is_fully_addressable or x.is_fully_replicated:
      return x
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.device_get(jax.tree.map(whole, tree))


def _all_row_sums(model, params, batches) -> dict[str, np.ndarray]:
  """`_row_sums` of all batches, one after the other; no rows of padding."""
  # Models that differ in their dropout alone share one compilation.
  config = dataclasses.replace(model.config, dropout_rate=0.0)
  model = network.Transformer(config)
  parts = _on_host([_row_sums(params, model, dict(b)) for b in batches])
  sums = {
      name: np.concatenate([part[name] for part in parts])
      for name in ('loss', 'accuracy', 'tokens')
  }
  is_real = sums['tokens'] > 0
  return {name: rows[is_real] for name, rows in sums.items()}


def dev_loss(
    model: network.Transformer,
    params: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, float]:
  """Teacher-forced cross-entropy (nats a token) and accuracy.

  Args:
    model: as named.
    params: its parameters.
    batches: as `data.eval_batches` gives them.

  Returns:
    {'loss', 'accuracy'}, means over all target tokens.
  """
  sums = _all_row_sums(model, params, batches)
  tokens = sums.pop('tokens').sum()
  return {name: float(rows.sum() / tokens) for name, rows in sums.items()}


def example_losses(
    model: network.Transformer,
    params: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> np.ndarray:
  """Teacher-forced cross-entropy of each example, nats a target token.

  Args:
    model: as named.
    params: its parameters.
    batches: as `data.eval_batches` gives them, one example a row.

  Returns:
    float [examples]; rows of padding are left out.
  """
  sums = _all_row_sums(model, params, batches)
  return sums['loss'] / sums['tokens']


def predict(
    model: network.Transformer,
    params: PyTree,
    inputs: Sequence[np.ndarray],
    *,
    batch_size: int,
    max_decode_len: int,
    first_example: int = 0,
    progress: Callable[[int], Any] | None = None,
    **options: Any,
) -> list[np.ndarray]:
  """Writes the output of each input.

  Args:
    model: as named.
    params: its parameters.
    inputs: int [tokens] each, with EOS.
    batch_size: inputs decoded together; similar lengths share a batch.
    max_decode_len: most tokens of an output.
    first_example: number of the first input. What is sampled for an input
      depends on its number, not on the batch that it is in.
    progress: called with the number of inputs done, batch after batch.
    **options: of `decoding.generate`.

  Returns:
    int32 [max_decode_len] each, 0 after EOS, in the order of `inputs`.

  Raises:
    UserError: as `decoding.generate`, and if `batch_size` is below 1.
  """
  if batch_size < 1:
    raise UserError(f'expected a batch_size of 1 or more, got {batch_size}')
  if not inputs:
    return []
  lengths = np.asarray([len(tokens) for tokens in inputs])
  order = np.argsort(lengths, kind='stable')
  outputs: list[np.ndarray] = [np.zeros(0, np.int32)] * len(inputs)
  for start in range(0, len(order), batch_size):
    chosen = order[start : start + batch_size]
    # One of empty inputs alone has a length too.
    length = max(1, -(-lengths[chosen[-1]] // _BUCKET)) * _BUCKET
    # Rows of padding fill the last batch up.
    tokens = np.zeros((batch_size, length), np.int32)
    for row, i in enumerate(chosen):
      tokens[row, : lengths[i]] = inputs[i]
    decoded = _on_host(
        decoding.generate(
            model,
            params,
            tokens,
            max_decode_len=max_decode_len,
            example_ids=first_example + np.resize(chosen, batch_size),
            **options,
        )
    )
    for row, i in enumerate(chosen):
      outputs[i] = decoded[row]
    if progress:
      progress(len(chosen))
  return outputs


def task_evaluator(
    model: network.Transformer,
    mixture_or_task: str,
    feature_lengths: Mapping[str, int],
    *,
    batch_size: int,
    split: str = 'validation',
    max_examples: int | None = None,
    output_dir: str | None = None,
    **options: Any,
) -> Callable[..., dict[str, float]]:
  """Evaluates a seqio task, or those of a mixture, by their own metrics.

  Args:
    model: as named.
    mixture_or_task: a registered seqio name.
    feature_lengths: {'inputs': S, 'targets': T}; longer inputs are cut, and
      outputs have at most T tokens.
    batch_size: as for `predict`.
    split: as named.
    max_examples: of each task; None means all.
    output_dir: where seqio's JSONLogger writes outputs and metrics.
    **options: of `decoding.generate`.

  Returns:
    A function of parameters (and `step`, to be logged) to
    {'task/metric': value}. Of the examples it keeps what metrics need of the
    whole split, targets and outputs.

  Raises:
    UserError: if the task is unknown, has no metric, or has one of scores, or
      the split no targets.
  """
  import seqio  # pylint: disable=g-import-not-at-top

  provider = cache.provider_of(mixture_or_task)
  cache.check_targets(provider, split)
  # Its memory cache would hold every example, padded; decoding takes far
  # longer than reading them again.
  evaluator = seqio.Evaluator(
      provider.name,
      feature_converter=seqio.EncDecFeatureConverter(pack=False),
      eval_split=split,
      use_cached=False,
      sequence_length=dict(feature_lengths),
      num_examples=max_examples,
      logger_cls=[seqio.JSONLogger] if output_dir else [],
      log_dir=output_dir,
      async_compute_metrics=False,
      use_memory_cache=False,
  )
  if not evaluator.eval_tasks:
    raise UserError(
        f'{mixture_or_task} has no metric, or no {split} split; choose another'
    )
  for task in evaluator.eval_tasks:
    for metric in task.metric_objs:
      kind = metric.model_output_type
      if kind != seqio.metrics.ModelOutputType.PREDICTION:
        raise UserError(
            f'expected metrics of what is decoded in {task.name}, got one of'
            f' {kind.name}; leave it out, or evaluate with t5x'
        )

  def evaluate(params: PyTree, step: int = -1) -> dict[str, float]:
    def predict_fn(dataset):
      examples = (
          (i, _unpadded(row['encoder_input_tokens']))
          for i, row in dataset.as_numpy_iterator()
      )
      return [
          (i, output.tolist())
          for i, output in _predictions(
              model,
              params,
              examples,
              batch_size=batch_size,
              max_decode_len=feature_lengths['targets'],
              **options,
          )
      ]

    metrics, _ = evaluator.evaluate(
        compute_metrics=True, step=step, predict_fn=predict_fn
    )
    return {
        f'{task}/{name}': float(getattr(value, 'value', value))
        for task, values in metrics.result().items()
        for name, value in values.items()
        # A text or a picture is for seqio's loggers alone.
        if isinstance(value, seqio.metrics.Scalar)
        or not isinstance(value, seqio.metrics.MetricValue)
    }

  return evaluate


def infer(
    model: network.Transformer,
    params: PyTree,
    mixture_or_task: str,
    feature_lengths: Mapping[str, int],
    output_path: str,
    *,
    batch_size: int,
    split: str = 'test',
    max_examples: int | None = None,
    identity: str = '',
    **options: Any,
) -> int:
  """Writes a JSON line for each example: its inputs, prediction, targets.

  Targets that are blank, as where there are none, are left out of it.
  The tasks of a mixture follow each other, each from its first example on.
  Lines go to a file beside, as they are made, which becomes `output_path` when
  all are written. What an interrupted call has written is kept and not made
  again, if nothing but `batch_size` differs. Memory does not grow with the
  examples. Arguments are those of `task_evaluator`, and

  Args:
    identity: stands for the parameters.

  Returns:
    The number of lines.

  Raises:
    UserError: if the task is unknown, an option is out of its range, or another
      program writes the file.
  """
  import seqio  # pylint: disable=g-import-not-at-top

  task = cache.provider_of(mixture_or_task)
  vocabulary = task.output_features['targets'].vocabulary
  max_decode_len = feature_lengths['targets']
  # Before a file is made, like what follows: a split may be missing.
  decoding.check_options(model.config.vocab_size, max_decode_len, **options)
  path = storage.output_file(output_path)
  path.parent.mkdir(parents=True, exist_ok=True)
  parts = seqio.get_subtasks(task)
  datasets = [
      part.get_dataset(dict(feature_lengths), split=split, shuffle=False)
      for part in parts
  ]
  what = [
      identity, model.config.to_dict(), mixture_or_task,
      sorted(feature_lengths.items()), split, max_examples,
      sorted(options.items()), cache.vocabulary_hash(vocabulary),
      [cache.fingerprint(part, split) for part in parts],
  ]  # pyformat: disable
  digest = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
  beside = path.with_name(f'{path.name}.{digest}.part')
  with storage.locked(beside) as lines:
    done = _whole_lines(lines)
    examples = (
        itertools.islice(dataset.as_numpy_iterator(), max_examples)
        for dataset in datasets
    )
    rows = itertools.islice(
        itertools.chain.from_iterable(examples), done, None
    )
    predictions = _predictions(
        model,
        params,
        ((row, row.get('inputs', [decoding.EOS_ID])) for row in rows),
        batch_size=batch_size,
        max_decode_len=max_decode_len,
        first_example=done,
        **options,
    )
    for row, output in predictions:
      line = {
          'inputs': _text(row, 'inputs', vocabulary),
          'prediction': vocabulary.decode(_unpadded(output).tolist()),
      }
      if targets := _text(row, 'targets', vocabulary):
        line['targets'] = targets
      text = json.dumps(line, ensure_ascii=False) + '\n'
      lines.write(text.encode())
      lines.flush()
      done += 1
    os.replace(beside, path)
  return done


def _predictions(
    model: network.Transformer,
    params: PyTree,
    examples: Iterable[tuple[Any, np.ndarray]],
    *,
    batch_size: int,
    first_example: int = 0,
    **options: Any,
) -> Iterator[tuple[Any, np.ndarray]]:
  """Yields (whatever came with an input, its output), in order.

  Some batches of examples are read and held at a time. Options are those of
  `predict`.
  """
  examples = iter(examples)
  while chunk := list(itertools.islice(examples, _CHUNK * batch_size)):
    kept, inputs = zip(*chunk)
    outputs = predict(
        model,
        params,
        inputs,
        batch_size=batch_size,
        first_example=first_example,
        **options,
    )
    first_example += len(chunk)
    yield from zip(kept, outputs, strict=True)


def _whole_lines(file) -> int:
  """Returns how many lines a file has, and cuts off one that is not whole."""
  count, end = 0, 0
  file.seek(0)
  for line in file:
    if not line.endswith(b'\n'):
      break
    count, end = count + 1, end + len(line)
  file.truncate(end)
  file.seek(end)
  return count


def _text(row, feature: str, vocabulary) -> str:
  plain = row.get(f'{feature}_pretokenized')
  if isinstance(plain, bytes):
    return plain.decode('utf-8')
  return vocabulary.decode(row[feature].tolist()) if feature in row else ''


def _unpadded(tokens: np.ndarray) -> np.ndarray:
  return np.trim_zeros(np.asarray(tokens), 'b')
