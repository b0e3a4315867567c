# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`convert` and `inspect`."""

import functools
import sys

from gqa_t5x import number_flags
from gqa_t5x.commands import arguments
from gqa_t5x.errors import UserError

_FEW_SEQUENCES = 16


def add_commands(add) -> None:
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
      help='SentencePiece model that reads it, or tokenizer.json of Hugging'
      ' Face (default: that of --input, or the one that ships if it was trained'
      ' with it)',
  )
  command.add_argument(
      '--calibration_sequences',
      metavar='N',
      type=number_flags.positive,
      help='of 256 tokens each (default: 128)',
  )
  command.add_argument(
      '--seed', type=number_flags.seed, help='of random heads'
  )
  command.add_argument(
      '--format',
      help='of the output: t5x or t5x-orbax, for t5x, in a folder named'
      ' checkpoint_STEP; orbax, ours; hf, for Hugging Face, which repeats the'
      " heads and saves no memory (default: the input's)",
  )
  command.add_argument(
      '--slots',
      help="of t5x's optimizer state, where heads change: pool (default) or"
      ' reset; orbax and hf keep none',
  )
  command.add_argument(
      '--verify',
      action='store_true',
      help='check the input by its manifest, and read the output back',
  )
  arguments.add_json(command)

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
  instead = command.add_mutually_exclusive_group()
  instead.add_argument(
      '--gin', action='store_true', help='print the gin file of its model'
  )
  arguments.add_json(instead)


def _convert(args) -> None:
  from gqa_t5x import checkpoints
  from gqa_t5x import conversion
  from gqa_t5x import inspection

  text, calibrate = args.calibration_data, None
  if text != 'none' and (text or args.method == 'svd'):
    from gqa_t5x.conversion import calibration_text

    calibrate = functools.partial(
        calibration_text.covariances,
        args.input,
        text,
        args.vocabulary,
        num_sequences=(
            args.calibration_sequences or calibration_text.NUM_SEQUENCES
        ),
    )
  else:
    for name in ('vocabulary', 'calibration_sequences'):
      if getattr(args, name):
        raise UserError(
            f'expected text for --{name} to read, got none for --method'
            f' {args.method}; leave it out, or pass --calibration_data'
        )
  if args.seed is not None and args.method != 'random':
    raise UserError(
        f'expected no --seed for --method {args.method}, which draws nothing;'
        ' leave it out'
    )
  metadata = conversion.convert_checkpoint(
      args.input,
      args.output,
      num_kv_heads=args.num_kv_heads,
      method=args.method,
      seed=args.seed,
      group_by=args.group_by,
      calibrate=calibrate,
      measure=True,
      format=args.format,
      slots=args.slots,
      verify=args.verify,
  )
  if args.json:
    arguments.print_json(metadata)
    return
  conversion = metadata['conversion'] or {}
  before, slots = conversion.get('from_num_kv_heads'), conversion.get('slots')
  heads = f'{args.num_kv_heads} key/value heads'
  if before and metadata['errors']:  # Not when an earlier command did it.
    heads = f'{before} -> {heads} ({conversion["method"]})'
  optimizer = f', optimizer slots: {slots}' if slots else ''
  step = inspection.step_text(metadata['step'])
  verified = ', verified' if args.verify else ''
  if verified and not checkpoints.has_manifest(args.input):
    verified += ' as written (the input has no manifest to check it by)'
  print(f'{args.output}: {heads}, {step}{optimizer}{verified}')
  wanted = args.calibration_sequences or _FEW_SEQUENCES
  _print_errors(metadata['errors'], conversion.get('calibration'), wanted)
  if checkpoints.detect_format(args.output) == 'hf':
    config = metadata['config']
    heads = config['num_heads']
    print(
        f'in this form the key/value heads are repeated to {heads}, as Hugging'
        ' Face needs them: the same outputs, but no memory saved there; read'
        ' here, they are as few as wanted (--format orbax is ours)'
    )
    if config['num_decoder_layers'] > config['num_encoder_layers']:
      print(
          'its decoder has more layers than its encoder: transformers 5 makes'
          ' its cache for the encoder\'s, so give `use_cache=False` there'
      )


def _print_errors(errors, calibration, wanted) -> None:
  """Prints a line for each attention; wanted: sequences of text."""
  if not errors:
    return
  on = 'random inputs'
  if calibration:
    count = calibration['sequences']
    on = f'{count} sequences of calibration text'
    if count < _FEW_SEQUENCES and count < wanted:
      print(
          f'gqa-t5x: {count} sequences say little of other text, and the errors'
          ' below are of these alone; pass more text, at best'
          f' {_FEW_SEQUENCES} sequences of 256 tokens or more',
          file=sys.stderr,
      )
  print(f'error relative to the attention before, on {on}, no training:')
  width = max(map(len, errors))
  print(f'{"":<{width}}  logits  outputs')
  for name, row in sorted(errors.items()):
    print(f'{name:<{width}}  {row["logits"]:6.1%}  {row["outputs"]:7.1%}')


def _inspect(args) -> None:
  from gqa_t5x import inspection

  facts = inspection.inspect_checkpoint(args.checkpoint, args.verify)
  if args.gin:
    print(inspection.to_gin(facts), end='')
  elif args.json:
    arguments.print_json(facts)
  else:
    print(inspection.to_text(facts))
