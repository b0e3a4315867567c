# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's own experiments as t5x commands for a pod, in order.

They are shown, not run: each takes a TPU slice, the public checkpoints and the
data sets. docs/tpu.md has the steps before them.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools

from gqa_t5x.experiments.model import LOW_RATE
from gqa_t5x.tasks import common

_GIN = 'gqa_t5x/gin_configs/'
_PUBLIC = 'gs://t5-data/pretrained_models/t5x/t5_1_1_{}/checkpoint_1000000'
_TASKS = (
    'cnn_dailymail', 'arxiv', 'pubmed', 'media_sum', 'multi_news',
    'wmt14_en_de', 'trivia_qa',
)  # pyformat: disable
_LONG_SUMMARIES = ('arxiv', 'pubmed', 'media_sum', 'multi_news')
# At 2,048 input tokens; the others have 512.
_LONG = (*_LONG_SUMMARIES, 'trivia_qa')
_ABLATION_TASKS = ('cnn_dailymail', 'multi_news', 'trivia_qa')
_GROUPED_XXL = {'gqa8': 8, 'mqa': 1}  # {name of its gin files: K}.
_COPY = 't5_1_1_xxl'  # Folder of a copy of the public checkpoint.
_BY_SVD = ' \\\n  --method svd --vocabulary sentencepiece.model'
_XXL = {'NUM_PARTITIONS': 8, 'trainer.Trainer.num_microbatches': 8}
# At the batch of pre-training, on 64 v4 chips (docs/tpu_memory.md).
_UPTRAIN = {
    'large': {'trainer.Trainer.num_microbatches': 4},
    'xxl': _XXL | {'trainer.Trainer.num_microbatches': 32},
}


# TPUv3 chip-days of the 1,000,000 steps of pre-training: 20 times what the
# paper gives for uptraining XXL by 5%; Large's in proportion to operations.
_PRETRAIN_DAYS = {'large': 850, 'xxl': 12_000}
# Share of such a step that one of fine-tuning takes, 128 rows for 2,048, in
# proportion to its tokens: (512 + 256) or (2048 + 512) for 512 + 114.
_SHORT_STEP = 128 * 768 / (2048 * 626)
_LONG_STEP = 128 * 2560 / (2048 * 626)
_FINETUNE_STEPS = 50_000


@dataclasses.dataclass(frozen=True)
class Command:
  """A command, what it is for, and about how many TPUv3 chip-days it takes.

  None: it takes none, or few.
  """

  title: str
  line: str
  chip_days: float | None = None


def _days(size: str, steps: float, share: float = 1.0) -> float:
  return _PRETRAIN_DAYS[size] * steps / 1e6 * share


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
    'eval': 'python -m gqa_t5x.multi_host t5x.eval',
}


def _t5x(script: str, gin_files: tuple[str, ...], **bindings) -> str:
  words = [_SCRIPTS[script]]
  words += [f'--gin_file={_GIN}{name}.gin' for name in gin_files]
  words += [f'--gin.{k}="{v!r}"' for k, v in bindings.items()]
  return ' \\\n  '.join(words)


def _uptrain(
    gin: str, size: str, target: str, percent: int = 5, **more
) -> Command:
  """Converts the public checkpoint as it is restored, and uptrains it."""
  source, files = _PUBLIC.format(size), (f'experiments/{gin}',)
  return _uptraining(files, size, source, target, percent, **more)


def _uptraining(files, size, source, target, percent=5, **more) -> Command:
  line = _t5x(
      'train',
      files,
      INITIAL_CHECKPOINT_PATH=source,
      MODEL_DIR=target,
      **_UPTRAIN[size],
      **more,
  )
  title = f'Uptrain {target.split("/")[-1]} by {percent}%'
  return Command(title, line, _days(size, 10_000 * percent))


def _finetune(gin, size, source, target, tasks, **more) -> Iterator[Command]:
  for task in tasks:
    line = _t5x(
        'train',
        (f'experiments/{gin}', f'experiments/tasks/{task}'),
        INITIAL_CHECKPOINT_PATH=source,
        MODEL_DIR=f'{target}/{task}',
        **more,
    )
    share = _LONG_STEP if task in _LONG else _SHORT_STEP
    days = _days(size, _FINETUNE_STEPS, share)
    name = target.split('/', 3)[-1]  # Without the bucket.
    yield Command(f'Fine-tune and score {name} on {task}', line, days)


def _copy(
    remote: str = _PUBLIC.format('xxl'), name: str = _COPY, remark: str = ''
) -> Command:
  """Copies what `_convert` takes: a checkpoint, and T5's vocabulary."""
  return Command(
      f'Copy what will be converted to {name}/{remark}',
      f'mkdir -p {name} && gcloud storage cp -r {remote} {name}/ && \\\n'
      f'  gcloud storage cp {common.T5_VOCABULARY_PATH} .',
  )


def _convert(
    bucket: str,
    name: str,
    heads: int,
    options: str = '',
    source: str = f'{_COPY}/checkpoint_1000000',
) -> Command:
  """Converts what `_copy` copied and uploads it to {bucket}/{name}."""
  step = source.rsplit('/', 1)[-1]
  return Command(
      f'Convert to K={heads}',
      f'gqa-t5x convert --input {source} \\\n'
      f'  --output {name}/{step} --num_kv_heads {heads}{options} &&'
      f' \\\n  gcloud storage cp -r {name} {bucket}/',
  )


def _table1(bucket) -> Iterator[Command]:
  for size, more in (('large', {}), ('xxl', _XXL)):
    yield from _finetune(
        f'table1_mha_{size}',
        size,
        _PUBLIC.format(size),
        f'{bucket}/mha_{size}',
        _TASKS,
        **more,
    )
  yield from _in_papers_order(bucket)
  yield from _ours(bucket)


def _in_papers_order(bucket) -> Iterator[Command]:
  """Table 1's rows of the mean, uptrained by 5% and fine-tuned."""
  for name in ('mqa', 'gqa8'):
    target = f'{bucket}/{name}_xxl'
    yield _uptrain(f'figure5_{name}_alpha_5', 'xxl', target)
    yield from _finetune(
        f'table1_{name}_xxl',
        'xxl',
        f'{target}/checkpoint_1050000',
        target,
        _TASKS,
        **_XXL,
    )


def _ours(bucket) -> Iterator[Command]:
  """Calibrated svd, not uptrained and uptrained by 5%."""
  yield _copy()
  for name, heads in _GROUPED_XXL.items():
    source = _svd(bucket, heads)
    yield _convert_by_svd(bucket, heads)
    target = f'{bucket}/{name}_xxl_svd'
    yield _uptrain_xxl(name, source, target)
    for step, start in (
        (1_000_000, source), (1_050_000, f'{target}/checkpoint_1050000'),
    ):  # pyformat: disable
      yield from _finetune_xxl(
          name, step, start, target + '_alpha_0' * (start == source)
      )


def _svd(bucket: str, heads: int) -> str:
  return f'{bucket}/xxl_svd_{heads}/checkpoint_1000000'


def _convert_by_svd(bucket: str, heads: int) -> Command:
  return _convert(bucket, f'xxl_svd_{heads}', heads, _BY_SVD)


def _uptrain_xxl(name: str, source: str, target: str, **more) -> Command:
  """Uptrains a checkpoint of models/{name}_xxl by 5%."""
  files = (f'models/{name}_xxl', 'runs/uptrain')
  return _uptraining(files, 'xxl', source, target, **more)


def _finetune_xxl(
    name: str, step: int, start: str, target: str
) -> Iterator[Command]:
  """Fine-tunes a checkpoint of models/{name}_xxl, of a step, on all tasks."""
  return _finetune(
      f'table1_{name}_xxl',
      'xxl',
      start,
      target,
      _TASKS,
      **_XXL,
      TRAIN_STEPS=step + _FINETUNE_STEPS,
  )


def _learning_rate(bucket) -> Iterator[Command]:
  """Calibrated svd and MHA uptrained at both rates, beside the mean."""
  yield from _in_papers_order(bucket)
  yield from _ours(bucket)  # At the full rate.
  sources = {'mha': _PUBLIC.format('xxl')}
  sources |= {k: _svd(bucket, heads) for k, heads in _GROUPED_XXL.items()}
  for name, source in sources.items():
    for factor in (1.0, LOW_RATE) if name == 'mha' else (LOW_RATE,):
      target = f'{bucket}/{name}_xxl' + '_svd' * (name != 'mha')
      more = {}
      if factor != 1:
        target += f'_rate_{factor:g}'
        more['LEARNING_RATE_FACTOR'] = factor
      else:
        target += '_uptrained'
      yield _uptrain_xxl(name, source, target, **more)
      start = f'{target}/checkpoint_1050000'
      yield from _finetune_xxl(name, 1_050_000, start, target)


def _finetuned(bucket) -> Iterator[Command]:
  """Table 1's MHA converted after fine-tuning, beside the paper's order."""
  yield from _in_papers_order(bucket)
  yield from _ours(bucket)
  last = 1_000_000 + _FINETUNE_STEPS
  more = {**_XXL, 'TRAIN_STEPS': last + _FINETUNE_STEPS}
  for task in _TASKS:
    tuned = f'{bucket}/mha_xxl/{task}/checkpoint_{last}'
    yield from _finetune(
        'table1_mha_xxl', 'xxl', _PUBLIC.format('xxl'), f'{bucket}/mha_xxl',
        [task], **_XXL,
    )  # pyformat: disable
    yield from _finetune(
        'table1_mha_xxl', 'xxl', tuned, f'{bucket}/mha_xxl_twice', [task],
        **more,
    )  # pyformat: disable
    yield _copy(
        tuned, f'mha_{task}',
        '; if the dev set had its best score at another step, that one, and'
        ' TRAIN_STEPS below 50,000 after it',
    )  # pyformat: disable
    for method, options in (('mean', ''), ('svd', _BY_SVD)):
      for name, heads in _GROUPED_XXL.items():
        converted = f'{name}_xxl_of_{task}_{method}'
        source = f'{bucket}/{converted}/checkpoint_{last}'
        yield _convert(
            bucket, converted, heads, options, f'mha_{task}/checkpoint_{last}'
        )
        line = _t5x(
            'eval',
            (f'models/{name}_xxl', 'runs/eval', f'experiments/tasks/{task}'),
            CHECKPOINT_PATH=source,
            EVAL_OUTPUT_DIR=f'{bucket}/{converted}/eval',
            NUM_PARTITIONS=_XXL['NUM_PARTITIONS'],
        )
        yield Command(f'Score {converted}', line)
        yield from _finetune(
            f'table1_{name}_xxl', 'xxl', source,
            f'{bucket}/{name}_xxl_{method}_twice', [task], **more,
        )  # pyformat: disable


def _figure4(bucket) -> Iterator[Command]:
  yield from _finetune(
      'table1_mha_large',
      'large',
      _PUBLIC.format('large'),
      f'{bucket}/mha_large',
      _ABLATION_TASKS,
  )
  for method in ('mean', 'first', 'random', 'aligned'):
    target = f'{bucket}/large_{method}'
    gin, more = f'figure4_{method}', {}
    if method == 'aligned':  # Ours has no file of its own.
      gin, more = 'figure4_mean', {'CONVERSION_METHOD': method}
    yield _uptrain(gin, 'large', target, **more)
    yield from _finetune_large(target, 1_050_000)
  name, target = 'large_svd_1', f'{bucket}/large_svd'
  source = f'{bucket}/{name}'
  yield _copy(_PUBLIC.format('large'), 't5_1_1_large')
  yield _convert(bucket, name, 1, _BY_SVD, 't5_1_1_large/checkpoint_1000000')
  yield from _finetune_large(source, 1_000_000, f'{target}_alpha_0')
  yield _uptraining(
      ('models/t5_1_1_large', 'runs/uptrain'),
      'large',
      f'{source}/checkpoint_1000000',
      target,
      NUM_KV_HEADS=1,
  )
  yield from _finetune_large(target, 1_050_000)


def _finetune_large(
    folder: str, step: int, target: str | None = None
) -> Iterator[Command]:
  """Fine-tunes a checkpoint of MQA in a folder, of a step, for Figure 4."""
  return _finetune(
      'figure4_finetune',
      'large',
      f'{folder}/checkpoint_{step}',
      target or folder,
      _ABLATION_TASKS,
      TRAIN_STEPS=step + _FINETUNE_STEPS,
  )


def _figure5(bucket) -> Iterator[Command]:
  yield from _finetune(
      'table1_mha_xxl',
      'xxl',
      _PUBLIC.format('xxl'),
      f'{bucket}/mha_xxl',
      _ABLATION_TASKS,
      **_XXL,
  )
  for name in ('gqa8', 'mqa'):
    # Converted as it is restored for fine-tuning.
    yield from _finetune(
        f'figure5_{name}_alpha_0',
        'xxl',
        _PUBLIC.format('xxl'),
        f'{bucket}/{name}_xxl_alpha_0',
        _ABLATION_TASKS,
        **_XXL,
    )
    # The paper has 0, 5 and 10.
    for percent in (1, 2, 5, 10):
      # 5% is Table 1's model: where that is done, these commands end at once.
      target = f'{bucket}/{name}_xxl' + f'_alpha_{percent}' * (percent != 5)
      gin, more = f'figure5_{name}_alpha_{percent}', {}
      if percent < 5:
        gin = f'figure5_{name}_alpha_5'
        more = {'UPTRAIN_FRACTION': percent / 100}
      yield _uptrain(gin, 'xxl', target, percent, **more)
      step = 1_000_000 + 10_000 * percent
      yield from _finetune(
          f'table1_{name}_xxl',
          'xxl',
          f'{target}/checkpoint_{step}',
          target,
          _ABLATION_TASKS,
          **_XXL,
          # Of 5% the gin file has it, so that the commands are Table 1's.
          **({} if percent == 5 else {'TRAIN_STEPS': step + _FINETUNE_STEPS}),
      )


def _figure6(bucket) -> Iterator[Command]:
  yield _copy()
  for heads in (1, 4, 8, 16, 32, 64):
    # With all heads too, in another format: t5x.infer needs a bucket whose
    # metadata it may read.
    checkpoint = f'{bucket}/xxl_{heads}/checkpoint_1000000'
    yield _convert(bucket, f'xxl_{heads}', heads, ' --format t5x-orbax')
    line = _t5x(
        'infer',
        ('experiments/figure6',),
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
          'large',
          f'{target}/checkpoint_1050000',
          f'{target}/run_{run}',
          _LONG_SUMMARIES,
          RANDOM_SEED=run,
          **more,
      )
  # The paper's, and beyond it those that it should be held against, for as many
  # steps as pre-training and uptraining have together.
  from_scratch = {
      'mqa': {}, 'gqa8': {'NUM_KV_HEADS': 8}, 'mha': {'NUM_KV_HEADS': None}
  }  # pyformat: disable
  for (name, more), run in itertools.product(from_scratch.items(), (1, 2, 3)):
    target = f'{bucket}/{name}_large_scratch_{run}'
    line = _t5x(
        'train',
        ('experiments/appendix_a_pretrain',),
        MODEL_DIR=target,
        RANDOM_SEED=run,
        TRAIN_STEPS=1_050_000,
        **_UPTRAIN['large'],
        **more,
    )
    title = f'Pre-train {name} from scratch, run {run}'
    yield Command(title, line, _days('large', 1_050_000))
    yield from _finetune(
        'figure4_finetune',
        'large',
        f'{target}/checkpoint_1050000',
        target,
        _LONG_SUMMARIES,
        **more,
    )


_EXPERIMENTS: dict[str, Callable[[str], Iterator[Command]]] = {
    'table1': _table1,
    'figure4': _figure4,
    'figure5': _figure5,
    'figure6': _figure6,
    'stability': _stability,
    'learning_rate': _learning_rate,
    'finetuned': _finetuned,
}
