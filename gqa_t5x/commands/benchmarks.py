# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`benchmark`, `plan` and `compile`."""

import dataclasses
import shlex

from gqa_t5x import number_flags
from gqa_t5x.commands import arguments


def add_commands(add) -> None:
  command = add(
      'benchmark',
      None,
      'time decoding, training or converting',
      'gqa-t5x benchmark decode --num_kv_heads 8,2,1 --batch_size 8',
  )
  within = arguments.Commands(
      command.add_subparsers(metavar='WHAT', required=True)
  )
  _add_decode(within)
  _add_train(within)
  _add_convert(within)
  _add_plan(add)
  _add_compile(add)


def _add_decode(add) -> None:
  command = add(
      'decode',
      _decode,
      'time decoding for several numbers of key/value heads',
      'gqa-t5x benchmark decode --model small --num_kv_heads 6,2,1'
      ' --against hf,ctranslate2',
  )
  arguments.add_shapes(command, 'float32')
  arguments.add_num_layers(command)
  command.add_argument(
      '--batch_size',
      type=number_flags.integers,
      default=[8],
      metavar='B,B',
      help='samples decoded together; several are timed one after another'
      ' (default: 8)',
  )
  arguments.add_numbers(
      command,
      ('input_length', 512, 'tokens'),
      ('output_length', 64, 'tokens'),
      ('num_repeats', 5, 'the median counts'),
  )
  _add_against(
      command, 'of hf, ctranslate2 and t5x: time these too, on the same weights'
  )
  command.add_argument(
      '--largest_batch_in',
      type=number_flags.amount,
      metavar='GIB',
      help='time for each K also the largest batch that so much memory holds',
  )
  arguments.add_json(command)


def _add_train(add) -> None:
  command = add(
      'train',
      _train,
      'time training steps for several numbers of key/value heads',
      'gqa-t5x benchmark train --model small --num_kv_heads 6,2,1',
  )
  arguments.add_shapes(
      command, 'float32', 'activations; weights are in float32'
  )
  arguments.add_num_layers(command)
  arguments.add_numbers(
      command,
      ('batch_size', 8, 'rows; the cores of a CPU have to divide it'),
      ('input_length', 512, 'tokens of a row'),
      ('target_length', 128, 'tokens of a row'),
      ('num_repeats', 5, 'steps, of which the median counts'),
  )
  _add_against(
      command,
      "of hf and t5x: time Hugging Face's training and t5x's own network too",
  )
  arguments.add_json(command)


def _add_against(command, meaning: str) -> None:
  command.add_argument(
      '--against',
      type=arguments.names,
      default=[],
      metavar='PEER,PEER',
      help=meaning,
  )


def _add_convert(add) -> None:
  command = add(
      'convert',
      _convert,
      'time converting T5.1.1 of random values, beside `cp -r`',
      'gqa-t5x benchmark convert --model xl --num_kv_heads 8 --folder /tmp',
  )
  command.add_argument(
      '--model',
      default='small',
      help='tiny, small (default), base, large, xl or xxl',
  )
  arguments.add_num_layers(command)
  command.add_argument(
      '--num_kv_heads',
      type=number_flags.positive,
      metavar='K',
      help='(default: an eighth of the query heads)',
  )
  arguments.add_numbers(command, ('num_repeats', 5, 'the median counts'))
  command.add_argument(
      '--method', default='mean', help='as in convert (default: mean)'
  )
  command.add_argument(
      '--calibration_sequences',
      type=number_flags.positive,
      metavar='N',
      help='text that the method is given (default: none)',
  )
  command.add_argument(
      '--without_cp', action='store_true', help='time no copy beside it'
  )
  command.add_argument(
      '--folder', metavar='DIR', help="takes twice the model's size"
  )
  command.add_argument(
      '--format', default='t5x', help='of the source (default: t5x)'
  )
  command.add_argument(
      '--target_format', help="of the target (default: the source's)"
  )
  arguments.add_json(command)


def _add_plan(add) -> None:
  command = add(
      'plan',
      _plan,
      'say what decoding takes at best on a device, for each K',
      'gqa-t5x plan --model xxl --num_kv_heads 64,8,1 --batch_size 64'
      ' \\\n    --input_length 2048 --output_length 512 --device tpu-v4'
      ' --num_devices 8',
  )
  arguments.add_shapes(command, 'bfloat16')
  arguments.add_numbers(
      command,
      ('batch_size', 32, 'samples, on all devices together'),
      ('input_length', 2048, 'tokens'),
      ('output_length', 512, 'tokens'),
      ('num_devices', 1, 'that share weights and cache'),
  )
  command.add_argument(
      '--device', help='tpu-v4, tpu-v5e, tpu-v5p, a100, h100 or h200'
  )
  for flag, meaning in (
      ('bandwidth', 'of its memory, GB/s'),
      ('memory', 'GiB'),
      ('flops', 'operations a second, in 10**12; of bfloat16 in --device'),
  ):
    command.add_argument(
        f'--{flag}',
        type=number_flags.amount,
        metavar='X',
        help=f"{meaning}, in place of the device's",
    )
  arguments.add_json(command)


def _add_compile(add) -> None:
  command = add(
      'compile',
      _compile,
      'say what decoding or training takes on TPUs; needs no TPU',
      'gqa-t5x compile --model xxl --num_kv_heads 8 --topology v4:2x2x1'
      ' \\\n    --batch_size 32 --input_length 2048 --output_length 512',
  )
  command.add_argument(
      '--model', required=True, help='tiny, small, base, large, xl or xxl'
  )
  command.add_argument(
      '--num_kv_heads',
      type=number_flags.positive,
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
      type=number_flags.positive,
      metavar='N',
      help='chips that share a model (default: all)',
  )
  command.add_argument(
      '--what',
      choices=['decode', 'train'],
      default='decode',
      help='greedy decoding (default), or a training step',
  )
  arguments.add_numbers(
      command,
      ('batch_size', 32, 'samples, on all chips together'),
      ('input_length', 2048, 'tokens'),
      ('output_length', 512, 'tokens; of training, those of the targets'),
      ('num_microbatches', 1, 'of a training step'),
  )
  arguments.add_json(command)


def _shape(args, *names: str) -> dict[str, int]:
  return {name: getattr(args, name) for name in names}


def _print_rows(args, config, rows, **more) -> None:
  """Prints what was timed as JSON, with all that it depends on."""
  from gqa_t5x import provenance

  arguments.print_json({
      'command': shlex.join(['gqa-t5x', *args.words]),
      'model': args.model or 'checkpoint',
      'config': config.to_dict(),
      'rows': rows,
      **provenance.environment(),
      **more,
  })


def _decode(args) -> None:
  from gqa_t5x.benchmark import decode
  from gqa_t5x.benchmark import peers

  config = arguments.with_layers(arguments.config_of(args), args.num_layers)
  shape = _shape(args, 'input_length', 'output_length', 'num_repeats')
  rows, bandwidth, largest = {}, None, {}
  if args.largest_batch_in:  # It may not be found; then nothing is timed.
    batches = decode.largest_batches(
        config,
        args.num_kv_heads,
        args.largest_batch_in * 2**30,
        **_shape(args, 'input_length', 'output_length'),
    )
  sizes = list(dict.fromkeys(args.batch_size))
  for size in sizes:
    found = decode.compare_kv_heads(
        config,
        args.num_kv_heads,
        against=args.against,
        batch_size=size,
        bandwidth=bandwidth,
        **shape,
    )
    bandwidth = bandwidth or next(iter(found.values()))['bandwidth']
    of_size = f', batch {size}' if len(sizes) > 1 else ''
    rows |= {name + of_size: row for name, row in found.items()}
  if not args.json:  # Before batches that may not fit.
    _print_decode(rows)
  if args.largest_batch_in:
    largest = decode.compare_largest_batches(
        config, batches, bandwidth=bandwidth, **shape
    )
  if args.json:
    _print_rows(
        args,
        config,
        rows,
        largest_batch=largest,
        peers=peers.versions(args.against),
    )
    return
  if largest:
    print(f'the largest batch in {args.largest_batch_in:g} GiB:')
    _print_decode(largest)


def _print_decode(rows) -> None:
  width = max(16, *map(len, rows))
  print(
      f'{"model":<{width}}  batch  s/sample  spread  tokens/s  encode s'
      '  prefill s  ms/step  of limit  cache MB  peak MB  compile s'
  )
  for name, row in rows.items():
    is_ours = 'cache_bytes_allocated' in row
    encode = f'{row["encode_seconds"]:8.3f}' if is_ours else f'{"":8}'
    rest = ''
    if is_ours:
      rest = (
          f'  {row["cache_bytes_allocated"] / 1e6:8,.1f}'
          f'  {row["peak_memory_bytes"] / 1e6:7,.0f}'
          f'  {row["compile_seconds"]:9.1f}'
      )
    print(
        f'{name:<{width}}  {row["batch_size"]:5}'
        f'  {row["seconds_per_sample"]:8.4f}  {row["spread"]:6.0%}'
        f'  {row["tokens_per_second"]:8,.0f}'
        f'  {encode}  {row["prefill_seconds"]:9.3f}'
        f'  {row["ms_per_step"]:7.2f}  {row["bandwidth_share"]:8.0%}{rest}'
    )


def _train(args) -> None:
  from gqa_t5x.benchmark import decode
  from gqa_t5x.benchmark import peers
  from gqa_t5x.benchmark import train
  from gqa_t5x.engine import partitioning

  partitioning.use_cpu_cores()
  config = arguments.with_layers(arguments.config_of(args), args.num_layers)
  configs = decode.configs_by_kv_heads(config, args.num_kv_heads)
  rows = train.compare_train(
      {f'K={k}': one for k, one in configs.items()},
      against=args.against,
      **_shape(
          args, 'batch_size', 'input_length', 'target_length', 'num_repeats'
      ),
  )
  if args.json:
    _print_rows(args, config, rows, peers=peers.versions(args.against))
    return
  print('model  s/step  spread  tokens/s  utilisation')
  for name, row in rows.items():
    print(
        f'{name:<5}  {row["seconds_per_step"]:6.3f}  {row["spread"]:6.0%}'
        f'  {row["tokens_per_second"]:8,.0f}  {row["utilisation"]:11.0%}'
    )


def _convert(args) -> None:
  from gqa_t5x.benchmark import convert
  from gqa_t5x.benchmark import models

  config = arguments.with_layers(
      models.t5_1_1_config(args.model, None), args.num_layers
  )
  found = convert.benchmark_convert(
      config,
      num_kv_heads=args.num_kv_heads or max(1, config.num_heads // 8),
      folder=args.folder,
      format=args.format,
      target_format=args.target_format,
      method=args.method,
      calibration_sequences=args.calibration_sequences,
      num_repeats=args.num_repeats,
      copy=not args.without_cp,
  )
  if args.json:
    # The folder, which is a matter of the machine, stays out of it.
    words = [w for w in args.words if not w.startswith('--folder=')]
    if '--folder' in words:
      at = words.index('--folder')
      del words[at : at + 2]
    arguments.print_json({'command': shlex.join(['gqa-t5x', *words]), **found})
  else:
    print(convert.to_text(found))


def _plan(args) -> None:
  from gqa_t5x.benchmark import decode
  from gqa_t5x.benchmark import plan

  device = plan.device_of(
      args.device,
      bandwidth=args.bandwidth and args.bandwidth * 1e9,
      memory_gib=args.memory,
      flops=args.flops and args.flops * 1e12,
  )
  config = arguments.config_of(args)
  configs = decode.configs_by_kv_heads(config, args.num_kv_heads)
  shape = _shape(
      args, 'batch_size', 'input_length', 'output_length', 'num_devices'
  )
  plans = [plan.plan(c, device=device, **shape) for c in configs.values()]
  if args.json:
    arguments.print_json({
        'command': shlex.join(['gqa-t5x', *args.words]),
        'model': args.model or 'checkpoint',
        'config': config.to_dict(),
        'device': dataclasses.asdict(device),
        **shape,
        'plans': [dataclasses.asdict(p) for p in plans],
    })
    return
  name = args.device or 'the device given'
  given = [n for n in ('bandwidth', 'memory', 'flops') if getattr(args, n)]
  if args.device and given:
    name += f' with the {" and ".join(given)} given'
  print(
      f'{args.num_devices} x {name}: batch'
      f' {args.batch_size}, {args.input_length} tokens in,'
      f' {args.output_length} out; s/sample: seconds of one device'
  )
  print(plan.to_text(plans))
  print(
      'Lower limits: what devices say to each other, and all that a program'
      ' does besides, comes on top.'
  )
  if not device.flops:
    print('Times are of reading alone: what it computes at is not known, see'
          ' --flops.')
  elif not args.flops and config.dtype != 'bfloat16':
    print("The device's operations are those of bfloat16; give others with"
          ' --flops.')
  if any(p.paper_seconds_per_sample for p in plans):
    print("The paper's are digitised from its Figure 6, per TPU v4 chip.")


def _compile(args) -> None:
  from gqa_t5x.benchmark import tpu_compile

  fields = dataclasses.fields(tpu_compile.Job)
  result = tpu_compile.compile_for_tpu(
      tpu_compile.Job(**{f.name: getattr(args, f.name) for f in fields})
  )
  if args.json:
    arguments.print_json(result)
  else:
    print(tpu_compile.to_text(result))
