# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's own experiments as t5x commands for a pod, in order.

They are shown, not run: each takes a TPU slice, the public checkpoints and the
data sets. docs/tpu.md has the steps before them.
"""

from collections.abc import Callable, Iterator
import dataclasses

_GIN = 'gqa_t5x/gin_configs/experiments/'
_PUBLIC = 'gs://t5-data/pretrained_models/t5x/t5_1_1_{}/checkpoint_1000000'
_TASKS = (
    'cnn_dailymail', 'arxiv', 'pubmed', 'media_sum', 'multi_news',
    'wmt14_en_de', 'trivia_qa',
)  # pyformat: disable
_ABLATION_TASKS = ('cnn_dailymail', 'multi_news', 'trivia_qa')
_LONG_TASKS = ('arxiv', 'pubmed', 'media_sum', 'multi_news')
_XXL = {'NUM_PARTITIONS': 8, 'trainer.Trainer.num_microbatches': 8}
# At the batch of pre-training, on 64 v4 chips (docs/tpu_memory.md).
_UPTRAIN = {
    'large': {'trainer.Trainer.num_microbatches': 4},
    'xxl': _XXL | {'trainer.Trainer.num_microbatches': 32},
}


@dataclasses.dataclass(frozen=True)
class Command:
  """A command and what it is for."""

  title: str
  line: str


def commands(experiment: str, bucket: str = 'gs://BUCKET') -> list[Command]:
  """Returns an experiment's commands; what several need stands in each.

  Args:
    experiment: a name of `catalog.EXPERIMENTS`.
    bucket: where checkpoints go.
  """
  return list(_EXPERIMENTS[experiment](bucket))


# More than one host: t5x.train has a flag, the others have none.
_SCRIPTS = {
    'train': 'python -m t5x.train --multiprocess_gpu',
    'infer': 'python -m gqa_t5x.multi_host t5x.infer',
}


def _t5x(script: str, gin_files: tuple[str, ...], **bindings) -> str:
  words = [_SCRIPTS[script]]
  words += [f'--gin_file={_GIN}{name}.gin' for name in gin_files]
  words += [f'--gin.{k}="{v!r}"' for k, v in bindings.items()]
  return ' \\\n  '.join(words)


def _uptrain(gin: str, size: str, target: str, **more) -> Command:
  line = _t5x(
      'train',
      (gin,),
      INITIAL_CHECKPOINT_PATH=_PUBLIC.format(size),
      MODEL_DIR=target,
      **_UPTRAIN[size],
      **more,
  )
  return Command(f'Convert and uptrain, {gin}', line)


def _finetune(gin, source, target, tasks, **more) -> Iterator[Command]:
  for task in tasks:
    line = _t5x(
        'train',
        (gin, f'tasks/{task}'),
        INITIAL_CHECKPOINT_PATH=source,
        MODEL_DIR=f'{target}/{task}',
        **more,
    )
    yield Command(f'Fine-tune and score, {gin} on {task}', line)


def _table1(bucket) -> Iterator[Command]:
  for size, more in (('large', {}), ('xxl', _XXL)):
    yield from _finetune(
        f'table1_mha_{size}',
        _PUBLIC.format(size),
        f'{bucket}/mha_{size}',
        _TASKS,
        **more,
    )
  for name in ('mqa', 'gqa8'):
    target = f'{bucket}/{name}_xxl'
    yield _uptrain(f'figure5_{name}_alpha_5', 'xxl', target)
    yield from _finetune(
        f'table1_{name}_xxl',
        f'{target}/checkpoint_1050000',
        target,
        _TASKS,
        **_XXL,
    )


def _figure4(bucket) -> Iterator[Command]:
  for method in ('mean', 'first', 'random'):
    target = f'{bucket}/large_{method}'
    yield _uptrain(f'figure4_{method}', 'large', target)
    yield from _finetune(
        'figure4_finetune',
        f'{target}/checkpoint_1050000',
        target,
        _ABLATION_TASKS,
    )


def _figure5(bucket) -> Iterator[Command]:
  yield from _finetune(
      'table1_mha_xxl',
      _PUBLIC.format('xxl'),
      f'{bucket}/mha_xxl',
      _ABLATION_TASKS,
      **_XXL,
  )
  for name in ('gqa8', 'mqa'):
    # Converted as it is restored for fine-tuning.
    yield from _finetune(
        f'figure5_{name}_alpha_0',
        _PUBLIC.format('xxl'),
        f'{bucket}/{name}_xxl_alpha_0',
        _ABLATION_TASKS,
        **_XXL,
    )
    for percent in (5, 10):
      # 5% is Table 1's model: where that is done, these commands end at once.
      target = f'{bucket}/{name}_xxl' + '_alpha_10' * (percent == 10)
      yield _uptrain(f'figure5_{name}_alpha_{percent}', 'xxl', target)
      step = 1_000_000 + 10_000 * percent
      yield from _finetune(
          f'table1_{name}_xxl',
          f'{target}/checkpoint_{step}',
          target,
          _ABLATION_TASKS,
          **_XXL,
          TRAIN_STEPS=step + 50_000,
      )


def _figure6(bucket) -> Iterator[Command]:
  source = _PUBLIC.format('xxl')
  for heads in (1, 4, 8, 16, 32, 64):
    checkpoint = source
    if heads < 64:
      checkpoint = f'{bucket}/xxl_{heads}/checkpoint_1000000'
      yield Command(
          f'Convert to K={heads}; copy the public checkpoint first',
          'gqa-t5x convert --input t5_1_1_xxl/checkpoint_1000000 \\\n'
          f'  --output xxl_{heads}/checkpoint_1000000 --num_kv_heads {heads} &&'
          f' \\\n  gcloud storage cp -r xxl_{heads} {bucket}/',
      )
    line = _t5x(
        'infer',
        ('figure6',),
        NUM_KV_HEADS=heads,
        CHECKPOINT_PATH=checkpoint,
        INFER_OUTPUT_DIR=f'{bucket}/figure6/{heads}',
    )
    yield Command(f'Decode with K={heads}', line)


def _stability(bucket) -> Iterator[Command]:
  for name, more in (('mean', {}), ('gqa8', {'NUM_KV_HEADS': 8})):
    target = f'{bucket}/large_{name}'
    yield _uptrain('figure4_mean', 'large', target, **more)
    for run in (1, 2, 3):
      yield from _finetune(
          'figure4_finetune',
          f'{target}/checkpoint_1050000',
          f'{target}/run_{run}',
          _LONG_TASKS,
          RANDOM_SEED=run,
          **more,
      )
  for run in (1, 2, 3):
    target = f'{bucket}/mqa_large_scratch_{run}'
    line = _t5x(
        'train',
        ('appendix_a_pretrain',),
        MODEL_DIR=target,
        RANDOM_SEED=run,
        **_UPTRAIN['large'],
    )
    yield Command(f'Pre-train MQA from scratch, run {run}', line)
    yield from _finetune(
        'figure4_finetune',
        f'{target}/checkpoint_1000000',
        target,
        _LONG_TASKS,
        TRAIN_STEPS=1_050_000,
    )


_EXPERIMENTS: dict[str, Callable[[str], Iterator[Command]]] = {
    'table1': _table1,
    'figure4': _figure4,
    'figure5': _figure5,
    'figure6': _figure6,
    'stability': _stability,
}
