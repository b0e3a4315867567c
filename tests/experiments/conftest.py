# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up run. Its numbers were invented for the tests and mean nothing."""

import copy

import numpy as np
import pytest

TASK_SCORES = {  # model -> task -> invented score
    'MHA': {'docs_summarize': 41.0, 'docs_question_answering': 62.0},
    'GQA-2': {'docs_summarize': 40.8, 'docs_question_answering': 61.5},
    'MQA': {'docs_summarize': 38.0, 'docs_question_answering': 57.0},
}
BLEU_MATCHED = {'MHA': 6, 'GQA-2': 6, 'MQA': 5}
HEADS = {'MHA': 8, 'GQA-2': 2, 'MQA': 1}
SECONDS = {'MHA': 0.0321, 'GQA-2': 0.0120, 'MQA': 0.0110}
LOSSES = {'MHA': (2.50, 2.48), 'GQA-2': (3.10, 2.55), 'MQA': (4.90, 2.71)}
NUM_EXAMPLES = 40


def _task(name, model):
  samples = [
      {'input': f'invented input {i} of {name} with <b>, `tick`, a | and **',
       'target': f'target {i}', 'prediction': f'{model} wrote {i} & more'}
      for i in range(4)]
  task = {'num_examples': NUM_EXAMPLES, 'best_steps': [300], 'samples': samples}
  if name == 'cldr_translate_en_de':
    matched = BLEU_MATCHED[model]
    row = [8, 8, matched, matched - 1, matched - 2, matched - 3, 8, 7, 6, 5]
    return {**task, 'metrics': {'bleu': 60.0 + matched},
            'per_example': [[10.0 * matched] * NUM_EXAMPLES],
            'bleu_statistics': [[row] * NUM_EXAMPLES]}
  metric = 'rouge1' if name == 'docs_summarize' else 'f1'
  mean = TASK_SCORES[model][name]
  wobble = 3 * np.sin(np.arange(NUM_EXAMPLES))
  scores = mean + wobble - wobble.mean()
  return {**task, 'metrics': {metric: mean}, 'per_example': [scores.tolist()]}


def _decode(model):
  seconds = SECONDS[model]
  return {
      'seconds_per_sample': seconds, 'seconds_per_sample_repeats':
      [seconds * f for f in (0.98, 1.0, 1.0, 1.01, 1.03)],
      'ms_per_step': 8 * seconds / 32 * 1000, 'spread': 0.05,
      'ms_per_step_repeats': [250 * seconds * f for f in (0.9, 1, 1, 1, 1.1)],
      'prefill_seconds': 0.0042, 'limit_ms_per_step': 1.26,
      'cache_bytes_allocated': 1000 * HEADS[model], 'bandwidth_share': 0.42,
      'bandwidth': {'copy': 11e9, 'read': 22.5e9, 'best': 22.5e9},
      'batch_size': 8, 'input_length': 512, 'output_length': 32,
      'dtype': 'float32'}


def _model(name, when):
  wobble = np.sin(np.arange(25)) - np.sin(np.arange(25)).mean()
  loss = LOSSES[name][when]
  return {
      'num_kv_heads': HEADS[name], 'num_params': 3_000_000 + HEADS[name],
      'method': None if name == 'MHA' else 'mean',
      'alpha': 0.05 * when, 'origin': 'shipped', 'step': 20_000 + 1000 * when,
      'cache_bytes_per_token': 2 * 3 * HEADS[name] * 16 * 4,
      'loss': loss, 'loss_per_example': [(loss + wobble).tolist()],
      'decode': _decode(name)}


def _models():
  models = {name: _model(name, 1) for name in HEADS}
  for name, entry in models.items():
    entry['tasks'] = {task: _task(task, name) for task in (
        'docs_summarize', 'cldr_translate_en_de', 'docs_question_answering')}
  return models | {f'{name}, alpha 0': _model(name, 0) for name in HEADS}


def _invented():
  return {
      'schema': 2, 'scale': 'laptop', 'experiment': 'table1',
      'created': '2026-01-02T03:04:05+00:00',
      'command': 'gqa-t5x reproduce --output_dir INVENTED',
      'device': {'cpu': 'Invented CPU', 'cores': 2, 'backend': 'cpu'},
      'versions': {'python': '3.11.0', 'jax': '0.0.0-invented'},
      'commit': 'invented0123', 'seeds': [1],
      'corpus': {'sha256': 'feedface' * 8, 'documents': 123},
      'model': {'num_encoder_layers': 3, 'num_decoder_layers': 3,
                'emb_dim': 128, 'num_heads': 8, 'head_dim': 16},
      'pretrain_steps': 20_000, 'uptrain_fraction': 0.05,
      'stages': [
          {'name': 'convert', 'command': 'gqa-t5x convert --num_kv_heads 2',
           'seconds': 1.5},
          {'name': 'uptrain', 'command': 'gqa-t5x train --gin_file=up.gin',
           'seconds': 240.0}],
      'baselines': {
          'docs_summarize': {'untrained': 1.0, 'lead': 20.5, 'copy': 15.0},
          'cldr_translate_en_de': {'untrained': 0.1, 'copy': 22.5},
          'docs_question_answering': {'untrained': 0.9, 'lead': 12.0}},
      'times': {str(k): _decode(name) for name, k in HEADS.items()},
      'models': _models()}


@pytest.fixture
def results():
  """An invented results.json as a dict; change it freely."""
  return copy.deepcopy(_invented())
