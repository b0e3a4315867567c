# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands of `gqa-t5x`: the arguments of each, and what it calls.

Each imports what it needs when it runs, so that `--help` is immediate and no
command needs the extras of another.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import functools
import json
import os
import re
import shlex
import sys

from gqa_t5x.errors import UserError


def add_commands(subparsers) -> dict[str, argparse.ArgumentParser]:
  """Adds all commands, each with `run(args)` as a default; returns them."""
  commands = {}

  def add(name, run, summary, example):
    command = subparsers.add_parser(
        name,
        help=summary,
        description=f'{summary[0].upper()}{summary[1:]}.',
        epilog=f'example:\n  {example}',
    )
    command.set_defaults(run=run, command=name)
    commands[name] = command
    return command

  _add_experiments(add)
  _add_engine(add)
  _add_checkpoints(add)
  _add_generate(add)
  _add_benchmark(add)
  _add_figure(add)
  _add_plan(add)
  _add_compile(add)
  return commands


def join_gin_flags(argv: Sequence[str]) -> list[str]:
  """Turns t5x's --gin.NAME=VALUE into --gin_bindings=NAME=VALUE."""
  return [re.sub(r'^--gin\.([^=]+)=', r'--gin_bindings=\1=', a) for a in argv]


def _add_experiments(add) -> None:
  command = add(
      'reproduce',
      _reproduce,
      'run experiments of the paper, from checkpoint to report',
      'gqa-t5x reproduce --scale smoke --output_dir /tmp/gqa_smoke',
  )
  command.add_argument(
      '--scale',
      default='laptop',
      help='smoke or laptop (default); paper with --dry_run shows commands for'
      ' a pod',
  )
  command.add_argument(
      '--experiment',
      default='table1',
      metavar='E,E',
      help='table1 (default), figure4, figure5, figure6, stability or all',
  )
  command.add_argument(
      '--seeds',
      type=_integers,
      default=[1],
      metavar='N,N',
      help='of data order, dropout and random heads (default: 1)',
  )
  command.add_argument(
      '--dry_run',
      action='store_true',
      help='show the stages, their commands and how long each takes',
  )
  command.add_argument(
      '--output_dir',
      metavar='DIR',
      help='of stages and report; a run that is there is continued (default:'
      ' ./reproduce_SCALE)',
  )
  command = add(
      'report',
      _report,
      'write report.md and report.html again from results.json',
      'gqa-t5x report reproduce_laptop',
  )
  command.add_argument('dir', metavar='DIR', help="a run's output folder")


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


def _add_engine(add) -> None:
  for mode, (summary, example) in _ENGINE.items():
    command = add(mode, _engine, summary, example)
    command.add_argument(
        '--gin_file',
        action='append',
        default=[],
        metavar='F',
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


def _add_checkpoints(add) -> None:
  command = add(
      'convert',
      _convert,
      'reduce the key/value heads of a checkpoint',
      'gqa-t5x convert --input CKPT --output /tmp/gqa2 --num_kv_heads 2',
  )
  command.add_argument('--input', required=True, metavar='CKPT')
  command.add_argument(
      '--output', required=True, metavar='CKPT', help='must not exist'
  )
  command.add_argument(
      '--num_kv_heads',
      required=True,
      type=int,
      metavar='K',
      help="a divisor of the input's; 1 is multi-query attention",
  )
  command.add_argument(
      '--method',
      default='mean',
      help="mean (default), first or random, the paper's; svd, which loses"
      ' least; scaled_mean or aligned',
  )
  command.add_argument(
      '--group_by',
      default='order',
      help="order (default, the paper's) or similarity: which heads share one",
  )
  command.add_argument(
      '--calibration_data',
      metavar='FILE',
      help='UTF-8 text that svd (by default: the language reference of Python)'
      ' and aligned (by default: none) weigh errors by; none is without',
  )
  command.add_argument(
      '--vocabulary',
      metavar='FILE',
      help='SentencePiece model that reads it (default: the one that ships)',
  )
  command.add_argument(
      '--calibration_sequences',
      type=_positive,
      default=128,
      metavar='N',
      help='of 256 tokens (default: 128)',
  )
  command.add_argument('--seed', type=int, help='of random heads')
  command.add_argument(
      '--format',
      help='of the output: t5x or t5x-orbax, for t5x, in a folder named'
      ' checkpoint_STEP; orbax, ours; hf, for Hugging Face, which repeats the'
      " heads and saves no memory (default: the input's)",
  )
  command.add_argument(
      '--slots',
      default='pool',
      help="of t5x's optimizer state, where heads change: pool (default) or"
      ' reset; orbax and hf keep none',
  )
  command.add_argument(
      '--verify',
      action='store_true',
      help='check the input by its manifest, and read the output back',
  )
  _add_json(command)

  command = add(
      'inspect',
      _inspect,
      'show parameters, heads, sizes and cache bytes of a checkpoint',
      'gqa-t5x inspect CKPT',
  )
  command.add_argument('checkpoint', metavar='CKPT')
  command.add_argument(
      '--verify', action='store_true', help='read all of it, by its manifest'
  )
  _add_json(command)


def _add_json(command) -> None:
  command.add_argument(
      '--json', action='store_true', help='print JSON instead of text'
  )


def _add_generate(add) -> None:
  command = add(
      'generate',
      _generate,
      'read lines, write the output of each as a line',
      "echo 'translate English to German: 5 May 2021' | gqa-t5x generate",
  )
  command.add_argument(
      '--checkpoint', metavar='CKPT', help='(default: the one that ships)'
  )
  command.add_argument(
      '--input', metavar='FILE', help='UTF-8 text (default: standard input)'
  )
  command.add_argument(
      '--vocabulary',
      metavar='FILE',
      help='SentencePiece model (default: the one that ships)',
  )
  command.add_argument(
      '--max_decode_len',
      type=_positive,
      default=64,
      metavar='L',
      help='longest output, in tokens (default: 64)',
  )
  command.add_argument(
      '--batch_size',
      type=_positive,
      default=16,
      metavar='B',
      help='lines decoded together (default: 16)',
  )
  command.add_argument(
      '--method',
      default='greedy',
      help='greedy (default), sample or beam; the flags below are theirs',
  )
  for flag, kind in _DECODING_OPTIONS.items():
    command.add_argument(f'--{flag}', type=kind)


# Arguments of `gqa_t5x.decoding.temperature_sample` and `beam_search`, which
# have their defaults.
_DECODING_OPTIONS = {
    'temperature': float,
    'top_k': int,
    'top_p': float,
    'seed': int,
    'num_beams': int,
    'length_penalty': float,
}


def _add_benchmark(add) -> None:
  command = add(
      'benchmark',
      _benchmark,
      'time decoding or training for several K, or converting',
      'gqa-t5x benchmark decode --num_kv_heads 8,2,1 --batch_size 8'
      ' --input_length 512\n'
      '  gqa-t5x benchmark decode --model small --num_kv_heads 6,2,1'
      ' --against hf,ctranslate2\n'
      '  gqa-t5x benchmark train --model small --num_kv_heads 6,2,1'
      ' --batch_size 8 --output_length 128\n'
      '  gqa-t5x benchmark convert --model xl --num_kv_heads 8 --folder /tmp',
  )
  command.add_argument(
      'what', choices=['decode', 'train', 'convert'], help='what to time'
  )
  command.add_argument(
      '--checkpoint',
      metavar='CKPT',
      help='gives shapes; the weights are random (default: the one that ships)',
  )
  command.add_argument(
      '--num_kv_heads',
      type=_integers,
      metavar='K,K',
      help="(default: all divisors of the checkpoint's query heads)",
  )
  for flag, default, meaning in (
      ('batch_size', 8, 'samples decoded together'),
      ('input_length', 512, 'tokens'),
      ('output_length', 64, 'tokens'),
      ('num_repeats', 5, 'the median counts'),
  ):
    command.add_argument(
        f'--{flag}',
        type=_positive,
        default=default,
        metavar='N',
        help=f'{meaning} (default: {default})',
    )
  command.add_argument(
      '--model',
      metavar='SIZE',
      help='small, base, large, xl or xxl: T5.1.1 with random values (default:'
      " decode takes --checkpoint's shapes, convert takes small)",
  )
  command.add_argument(
      '--num_layers',
      type=_positive,
      metavar='N',
      help="layers of each stack (default: the model's)",
  )
  command.add_argument(
      '--dtype',
      default='float32',
      choices=['float32', 'bfloat16'],
      help='of decode: weights, activations and cache (default: float32)',
  )
  command.add_argument(
      '--against',
      metavar='PEER,PEER',
      help='time hf, ctranslate2 or t5x too; train knows t5x, its network',
  )
  command.add_argument(
      '--without_cp',
      action='store_true',
      help='of convert: time no copy beside it',
  )
  command.add_argument(
      '--folder',
      metavar='DIR',
      help="of convert: where to work; takes twice the model's size",
  )
  command.add_argument(
      '--format', default='t5x', help='of convert: the source (default: t5x)'
  )
  command.add_argument(
      '--target_format', help="of convert: the target (default: the source's)"
  )
  _add_json(command)


def _positive(text: str) -> int:
  if not text.isascii() or not text.isdigit() or not int(text):
    raise argparse.ArgumentTypeError(f'expected a number from 1, got {text!r}')
  return int(text)


def _integers(text: str) -> list[int]:
  return [_positive(part.strip()) for part in text.split(',')]


def _add_figure(add) -> None:
  command = add(
      'figure',
      _figure,
      "draw a decoding benchmark as the paper's Figure 6",
      'gqa-t5x benchmark decode --json > decode.json\n'
      '  gqa-t5x figure decode.json --output figure6.svg',
  )
  command.add_argument(
      'benchmark', help='what `gqa-t5x benchmark decode --json` printed'
  )
  command.add_argument(
      '--output', metavar='SVG', help='(default: standard output)'
  )


def _add_plan(add) -> None:
  command = add(
      'plan',
      _plan,
      'say what decoding takes at best on a device, for each K',
      'gqa-t5x plan --model xxl --num_kv_heads 64,8,1 --batch_size 64'
      ' \\\n    --input_length 2048 --output_length 512 --device tpu-v4'
      ' --num_devices 8',
  )
  command.add_argument(
      '--model',
      metavar='SIZE',
      help='small, base, large, xl or xxl of T5.1.1 (default: the shapes of'
      ' --checkpoint)',
  )
  command.add_argument(
      '--checkpoint', metavar='CKPT', help='(default: the one that ships)'
  )
  command.add_argument(
      '--num_kv_heads',
      type=_integers,
      metavar='K,K',
      help='(default: all divisors of the query heads)',
  )
  for flag, default in (
      ('batch_size', 32), ('input_length', 2048), ('output_length', 512),
      ('num_devices', 1),
  ):  # pyformat: disable
    command.add_argument(
        f'--{flag}',
        type=_positive,
        default=default,
        metavar='N',
        help=f'(default: {default})',
    )
  command.add_argument(
      '--dtype',
      default='bfloat16',
      choices=['float32', 'bfloat16'],
      help='of weights and cache (default: bfloat16)',
  )
  command.add_argument(
      '--device', help='tpu-v4, tpu-v5e, tpu-v5p, a100, h100 or h200'
  )
  for flag, meaning in (
      ('bandwidth', 'of its memory, GB/s'),
      ('memory', 'GiB'),
      ('flops', 'operations a second, in 10**12'),
  ):
    command.add_argument(
        f'--{flag}',
        type=_amount,
        metavar='X',
        help=f"{meaning}, in place of the device's",
    )
  _add_json(command)


def _amount(text: str) -> float:
  try:
    number = float(text)
  except ValueError:
    number = 0.0
  if not 0 < number < float('inf'):
    raise argparse.ArgumentTypeError(f'expected a number above 0, got {text!r}')
  return number


def _add_compile(add) -> None:
  command = add(
      'compile',
      _compile,
      'say what decoding or training takes on TPUs; needs no TPU',
      'gqa-t5x compile --model xxl --num_kv_heads 8 --topology v4:2x2x1'
      ' \\\n    --batch_size 32 --input_length 2048 --output_length 512',
  )
  command.add_argument(
      '--model', required=True, help='small, base, large, xl or xxl'
  )
  command.add_argument(
      '--num_kv_heads',
      type=_positive,
      metavar='K',
      help="of the decoder (default: the model's query heads)",
  )
  command.add_argument(
      '--topology',
      required=True,
      help='kind of TPU and chips along each axis: v4:2x2x1, v5e:2x4, ...',
  )
  command.add_argument(
      '--model_axis',
      type=_positive,
      metavar='N',
      help='chips that share a model (default: all)',
  )
  command.add_argument(
      '--what',
      choices=['decode', 'train'],
      default='decode',
      help='greedy decoding (default), or a training step',
  )
  for flag, default, meaning in (
      ('batch_size', 32, 'samples, on all chips together'),
      ('input_length', 2048, 'tokens'),
      ('output_length', 512, 'tokens; of training, those of the targets'),
      ('num_microbatches', 1, 'of a training step'),
  ):
    command.add_argument(
        f'--{flag}',
        type=_positive,
        default=default,
        metavar='N',
        help=f'{meaning} (default: {default})',
    )
  _add_json(command)


def _compile(args) -> None:
  import dataclasses

  from gqa_t5x.benchmark import tpu_compile

  fields = dataclasses.fields(tpu_compile.Job)
  result = tpu_compile.compile_for_tpu(
      tpu_compile.Job(**{f.name: getattr(args, f.name) for f in fields})
  )
  if args.json:
    _print_json(result)
  else:
    print(tpu_compile.to_text(result))


def _print_json(value) -> None:
  print(json.dumps(value, indent=2))


def _reproduce(args) -> None:
  from gqa_t5x.experiments import runner

  runner.reproduce(
      scale=args.scale,
      experiment=args.experiment,
      output_dir=args.output_dir,
      seeds=args.seeds,
      dry_run=args.dry_run,
  )


def _report(args) -> None:
  from gqa_t5x.experiments import report

  for path in report.write_report(args.dir):
    print(path)


def _engine(args) -> None:
  import jax

  from gqa_t5x.engine import launch

  if os.environ.get('JAX_COORDINATOR_ADDRESS'):
    jax.distributed.initialize()
  for folder in filter(None, args.gin_search_paths.split(',')):
    import gin

    gin.add_config_file_search_path(folder)
  result = launch.run(args.command, args.gin_file, args.gin_bindings)
  if result is not None and jax.process_index() == 0:
    _print_json(result)


def _convert(args) -> None:
  from gqa_t5x import checkpoints
  from gqa_t5x import conversion

  text, covariances = args.calibration_data, None
  if text != 'none' and (text or args.method == 'svd'):
    from gqa_t5x.conversion import calibration_text

    covariances = functools.partial(
        calibration_text.covariances,
        args.input,
        text,
        args.vocabulary,
        num_sequences=args.calibration_sequences,
    )
  metadata = conversion.convert_checkpoint(
      args.input,
      args.output,
      num_kv_heads=args.num_kv_heads,
      method=args.method,
      seed=args.seed,
      group_by=args.group_by,
      covariances=covariances,
      measure=True,
      format=args.format,
      slots=args.slots,
      verify=args.verify,
  )
  if args.json:
    _print_json(metadata)
    return
  conversion = metadata['conversion'] or {}
  before, slots = conversion.get('from_num_kv_heads'), conversion.get('slots')
  heads = f'{args.num_kv_heads} key/value heads'
  if before:
    heads = f'{before} -> {heads} ({conversion["method"]})'
  optimizer = f', optimizer slots: {slots}' if slots else ''
  step = f'step {metadata.get("step")}'
  verified = ', verified' if args.verify else ''
  print(f'{args.output}: {heads}, {step}{optimizer}{verified}')
  _print_errors(metadata['errors'], conversion.get('calibration'))
  if checkpoints.detect_format(args.output) == 'hf':
    heads = metadata['config']['num_heads']
    print(
        f'in this form the key/value heads are repeated to {heads}, as Hugging'
        ' Face needs them: the same outputs, but no memory saved'
    )


def _print_errors(errors, calibration) -> None:
  """Prints a line for each attention, before any training."""
  if not errors:
    return
  on = 'calibration text' if calibration else 'random inputs'
  print(f'error relative to the multi-head attention, on {on}, no training:')
  width = max(map(len, errors))
  print(f'{"":<{width}}  logits  outputs')
  for name, row in sorted(errors.items()):
    print(f'{name:<{width}}  {row["logits"]:6.1%}  {row["outputs"]:7.1%}')


def _inspect(args) -> None:
  from gqa_t5x import inspection

  facts = inspection.inspect_checkpoint(args.checkpoint, args.verify)
  if args.json:
    _print_json(facts)
  else:
    print(inspection.to_text(facts))


def _generate(args) -> None:
  from gqa_t5x import text_generation

  options = {
      name: getattr(args, name)
      for name in _DECODING_OPTIONS
      if getattr(args, name) is not None
  }
  write_line = text_generation.line_generator(
      args.checkpoint,
      args.vocabulary,
      max_decode_len=args.max_decode_len,
      method=args.method,
      **options,
  )
  lines = text_generation.read_lines(args.input)
  is_typed = args.input is None and sys.stdin.isatty()
  for output in write_line(lines, 1 if is_typed else args.batch_size):
    print(output, flush=True)


def _benchmark_convert(args) -> None:
  from gqa_t5x.benchmark import convert
  from gqa_t5x.benchmark import tpu_compile

  config = tpu_compile.t5_1_1_config(args.model or 'small', None)
  config = _with_layers(config, args.num_layers)
  found = convert.benchmark_convert(
      config,
      num_kv_heads=(args.num_kv_heads or [max(1, config.num_heads // 8)])[0],
      folder=args.folder,
      format=args.format,
      target_format=args.target_format,
      num_repeats=args.num_repeats,
      copy=not args.without_cp,
  )
  if args.json:
    # The folder, which is a matter of the machine, stays out of it.
    words = [w for w in args.words if w not in ('--folder', args.folder)]
    _print_json({'command': shlex.join(['gqa-t5x', *words]), **found})
  else:
    print(convert.to_text(found))


def _figure(args) -> None:
  from gqa_t5x.experiments import figures
  from gqa_t5x.experiments import results

  try:
    with open(args.benchmark, encoding='utf-8') as file:
      svg = figures.of_benchmark(json.load(file))
  except OSError as error:
    raise UserError(
        f'{args.benchmark} cannot be read: {error.strerror}; check the path'
    ) from error
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise UserError(
        f'expected in {args.benchmark} what `gqa-t5x benchmark decode --json`'
        ' printed, got something else; make it again'
    ) from error
  if args.output:
    results.write_text(args.output, svg)
  else:
    print(svg, end='')


def _plan(args) -> None:
  from gqa_t5x import inspection
  from gqa_t5x.benchmark import plan

  device = plan.device_of(
      args.device,
      bandwidth=args.bandwidth and args.bandwidth * 1e9,
      memory_gib=args.memory,
      flops=args.flops and args.flops * 1e12,
  )
  configs = inspection.configs_by_kv_heads(
      _config_of(args), args.num_kv_heads
  )
  shape = {
      name: getattr(args, name)
      for name in ('batch_size', 'input_length', 'output_length', 'num_devices')
  }
  plans = [plan.plan(c, device=device, **shape) for c in configs.values()]
  if args.json:
    _print_json({
        'device': dataclasses.asdict(device),
        **shape,
        'plans': [dataclasses.asdict(p) for p in plans],
    })
    return
  print(plan.to_text(plans))
  print(
      'Lower limits: what devices say to each other, and all that a program'
      ' does besides, comes on top.'
  )
  if any(p.paper_seconds_per_sample for p in plans):
    print("The paper's are digitised from its Figure 6, per TPU v4 chip.")


def _config_of(args):
  """Returns the configuration of --model or --checkpoint, multi-head."""
  from gqa_t5x import inspection
  from gqa_t5x.benchmark import tpu_compile

  config = (
      tpu_compile.t5_1_1_config(args.model, None)
      if args.model
      else inspection.config_of(args.checkpoint)
  )
  return dataclasses.replace(
      config, dtype=args.dtype, num_kv_heads=config.num_heads
  )


def _with_layers(config, num_layers: int | None):
  if not num_layers:
    return config
  return dataclasses.replace(
      config, num_encoder_layers=num_layers, num_decoder_layers=num_layers
  )


def _benchmark(args) -> None:
  {
      'decode': _benchmark_decode,
      'train': _benchmark_train,
      'convert': _benchmark_convert,
  }[args.what](args)


def _benchmark_train(args) -> None:
  from gqa_t5x import inspection
  from gqa_t5x.benchmark import train
  from gqa_t5x.engine import partitioning
  from gqa_t5x.experiments import results

  partitioning.use_cpu_cores()
  config = _with_layers(_config_of(args), args.num_layers)
  heads = args.num_kv_heads or [config.num_heads, max(1, config.num_heads // 4)]
  configs = inspection.configs_by_kv_heads(config, heads)
  if args.against not in (None, 't5x'):
    raise UserError(
        f'expected --against t5x for training, got {args.against}; hf and'
        ' ctranslate2 are timed by decode'
    )
  try:
    found = train.compare_train(
        {f'K={k}': one for k, one in configs.items()},
        batch_size=args.batch_size,
        input_length=args.input_length,
        target_length=args.output_length,
        num_repeats=args.num_repeats,
        against_t5x=bool(args.against),
    )
  except ImportError as error:
    raise UserError(
        f't5x cannot be timed: {error}; install it from its repository'
    ) from error
  if args.json:
    _print_json({
        'command': shlex.join(['gqa-t5x', *args.words]),
        'model': args.model or 'checkpoint',
        'config': config.to_dict(),
        'rows': found,
        **results.environment(),
    })
    return
  print('model  s/step  tokens/s  utilisation')
  for name, row in found.items():
    print(
        f'{name:<5}  {row["seconds_per_step"]:6.3f}'
        f'  {row["tokens_per_second"]:8,.0f}  {row["utilisation"]:11.0%}'
    )


def _benchmark_decode(args) -> None:
  import tempfile

  from gqa_t5x import inspection
  from gqa_t5x.benchmark import decode
  from gqa_t5x.benchmark import peers
  from gqa_t5x.experiments import results

  config = _with_layers(_config_of(args), args.num_layers)
  configs = inspection.configs_by_kv_heads(config, args.num_kv_heads)
  models = {f'K={k}': (one, None) for k, one in configs.items()}
  names = args.against.split(',') if args.against else []
  with tempfile.TemporaryDirectory() as folder:
    others, mha = {}, f'K={config.num_heads}'
    if names:
      if config.logits_via_embedding or args.dtype != 'float32':
        raise UserError(
            '--against needs --model and float32: the peers run T5.1.1 on CPUs'
        )
      params = peers.without_pad_and_eos(
          decode.random_params(config, config.dtype, 0)
      )
      models = {mha: (config, params)} | {
          k: v for k, v in models.items() if k != mha
      }
      others = peers.load(names, config, params, folder)
    found = decode.compare_decode(
        models,
        batch_size=args.batch_size,
        input_length=args.input_length,
        output_length=args.output_length,
        num_repeats=args.num_repeats,
        dtype=args.dtype,
        peers=others,
        same_as=mha,
    )
  if args.json:
    _print_json({
        'command': shlex.join(['gqa-t5x', *args.words]),
        'model': args.model or 'checkpoint',
        'config': config.to_dict(),
        'rows': found,
        **results.environment(),
        'peers': peers.versions(names),
    })
    return
  print('model        s/sample  prefill s  ms/step  of limit  cache MB')
  for name, row in found.items():
    cache = row.get('cache_bytes_allocated')
    print(
        f'{name:<11}  {row["seconds_per_sample"]:8.4f}'
        f'  {row["prefill_seconds"]:9.3f}  {row["ms_per_step"]:7.2f}'
        f'  {row["bandwidth_share"]:8.0%}'
        + ('' if cache is None else f'  {cache / 1e6:8.1f}')
    )
