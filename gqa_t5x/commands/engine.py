# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`train`, `eval`, `infer` and `cache`: gin files on the embedded engine."""

from collections.abc import Iterator
import contextlib
import logging
import os

from gqa_t5x import multi_host
from gqa_t5x.commands import arguments


_ENGINE = {
    'train': (
        'pre-train, uptrain or fine-tune, as gin files say',
        'gqa-t5x train --gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
        ' \\\n    --gin_file=gqa_t5x/gin_configs/local/pretrain.gin \\\n'
        "    --gin.NUM_KV_HEADS=2 --gin.MODEL_DIR='\"/tmp/pretrain\"'",
    ),
    'eval': (
        "decode a split and measure the tasks' metrics",
        'gqa-t5x eval --gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
        ' \\\n    --gin_file=gqa_t5x/gin_configs/local/eval.gin \\\n'
        "    --gin.NUM_KV_HEADS=2 --gin.CHECKPOINT_PATH='\"CKPT\"' \\\n"
        "    --gin.MIXTURE_OR_TASK_NAME='\"docs_summarize\"' \\\n"
        '    --gin.TASK_FEATURE_LENGTHS=\'{"inputs": 256, "targets": 72}\''
        " \\\n    --gin.EVAL_OUTPUT_DIR='\"/tmp/eval\"'",
    ),
    'infer': (
        'decode a split into a JSONL file',
        'gqa-t5x infer --gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
        ' \\\n    --gin_file=gqa_t5x/gin_configs/local/infer.gin \\\n'
        "    --gin.NUM_KV_HEADS=2 --gin.CHECKPOINT_PATH='\"CKPT\"' ...",
    ),
    'cache': (
        'write tasks as token arrays, for training without TensorFlow',
        'gqa-t5x cache --gin_file=gqa_t5x/gin_configs/local/cache.gin',
    ),
}


def add_commands(add) -> None:
  for mode, (summary, example) in _ENGINE.items():
    command = add(mode, _engine, summary, example)
    command.add_argument(
        '--gin_file',
        action='append',
        default=[],
        metavar='FILE',
        help='a path, or gqa_t5x/gin_configs/... of this package; may be'
        ' repeated, later files override',
    )
    command.add_argument(
        '--gin.NAME',
        '--gin_bindings',
        action='append',
        default=[],
        dest='gin_bindings',
        metavar='VALUE',
        help="overrides the files; in gin's syntax, so strings need quotes"
        ' inside those of the shell',
    )
    command.add_argument(
        '--gin_search_paths',
        default='',
        metavar='DIR,DIR',
        help='where else to look for gin files',
    )


@contextlib.contextmanager
def _progress_shown() -> Iterator[None]:
  """Shows what the engine logs, beside the bar of a terminal."""
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(message)s'))
  log = logging.getLogger('gqa_t5x')
  log.addHandler(handler)
  log.setLevel(logging.INFO)
  log.propagate = False
  # seqio and Orbax warn of what is meant so.
  logging.getLogger('absl').setLevel(logging.ERROR)
  try:
    yield
  finally:
    log.propagate = True
    log.removeHandler(handler)


def _engine(args) -> None:
  import jax

  from gqa_t5x.engine import launch

  if args.command == 'train':  # The others share no work.
    multi_host.join_processes()
  for folder in filter(None, args.gin_search_paths.split(',')):
    import gin

    gin.add_config_file_search_path(os.path.expanduser(folder))
  files = [os.path.expanduser(path) for path in args.gin_file]
  with _progress_shown():
    result = launch.run(args.command, files, args.gin_bindings)
  if result is not None and jax.process_index() == 0:
    arguments.print_json(result)
