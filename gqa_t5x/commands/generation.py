# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""`generate`."""

import sys

from gqa_t5x import number_flags
from gqa_t5x.commands import arguments
from gqa_t5x.errors import UserError


# Arguments of `gqa_t5x.decoding.temperature_sample` and `beam_search`, which
# have their defaults; a test compares.
_DECODING_OPTIONS = {
    'temperature': (float, 'sample: divides the logits (default: 1)'),
    'top_k': (int, 'sample: only from the K likeliest (default: 0, from all)'),
    'top_p': (
        float,
        'sample: only from the likeliest that make up this share (default: 1)',
    ),
    'seed': (number_flags.seed, 'sample: of the random numbers (default: 0)'),
    'num_beams': (int, 'beam: hypotheses a line (default: 4)'),
    'length_penalty': (
        float,
        'beam: the higher, the longer the output (default: 0.6)',
    ),
}


def add_commands(add) -> None:
  command = add(
      'generate',
      _generate,
      'write the output of each text or line as a line',
      "gqa-t5x generate 'translate English to German: Wednesday, May 5, 2021'",
  )
  command.add_argument(
      'text',
      nargs='*',
      metavar='TEXT',
      help='as the model reads it, quoted; texts stand together, and after --'
      ' where one begins with - (default: lines of --input)',
  )
  arguments.add_checkpoint(command)
  command.add_argument(
      '--input', metavar='FILE', help='UTF-8 text (default: standard input)'
  )
  command.add_argument(
      '--vocabulary',
      metavar='FILE',
      help='SentencePiece model, or tokenizer.json of Hugging Face (default:'
      ' that of --checkpoint, or the one that ships if it was trained with it)',
  )
  arguments.add_numbers(
      command,
      ('max_decode_len', 64, 'longest output, in tokens'),
      ('batch_size', 16, 'lines decoded together'),
  )
  command.add_argument(
      '--dtype',
      choices=['float32', 'bfloat16'],
      help='to compute in; bfloat16 suits accelerators (default: that of'
      ' --checkpoint)',
  )
  command.add_argument(
      '--method',
      default='greedy',
      help='greedy (default), sample or beam; the flags below are theirs',
  )
  for flag, (kind, meaning) in _DECODING_OPTIONS.items():
    command.add_argument(f'--{flag}', type=kind, help=meaning)


def _generate(args) -> None:
  from gqa_t5x import text_generation

  has_texts = bool(args.text) or args.input is not None
  if args.text and args.input is not None:
    raise UserError(
        'expected texts or --input, got both; leave one of them out'
    )
  if not has_texts and not sys.stdin:
    raise UserError(
        'expected texts, --input or standard input, got none; give one of them'
    )
  for text in args.text:
    try:
      text.encode('utf-8')
    except UnicodeEncodeError as error:
      raise UserError(
          f'expected UTF-8, got {text[:40]!r}; convert the text'
      ) from error
  if len(args.text) > 1 and not any(' ' in text for text in args.text):
    print(
        f'gqa-t5x: {len(args.text)} texts of a word each; quote a text that has'
        ' blanks',
        file=sys.stderr,
    )
  options = {
      name: getattr(args, name)
      for name in _DECODING_OPTIONS
      if getattr(args, name) is not None
  }
  lines = args.text or text_generation.read_lines(args.input)
  write_line = text_generation.line_generator(
      args.checkpoint,
      args.vocabulary,
      max_decode_len=args.max_decode_len,
      dtype=args.dtype,
      method=args.method,
      **options,
  )
  is_typed = not has_texts and sys.stdin.isatty()
  if is_typed:
    print('Type a line as the model reads it; Ctrl-D ends.', file=sys.stderr)
  batch_size = 1 if is_typed else args.batch_size
  if args.text:
    batch_size = min(batch_size, len(args.text))
  for output in write_line(lines, batch_size):
    print(output, flush=True)
