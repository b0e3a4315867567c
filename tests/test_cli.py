# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command line: exit status, one line an error, results that are right."""

import errno
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gqa_t5x
from gqa_t5x import checkpoints
from gqa_t5x import cli
from gqa_t5x import commands
from gqa_t5x import extras
from gqa_t5x import multi_host
from gqa_t5x import pretrained
from gqa_t5x import text_generation
from gqa_t5x import vocabularies
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from gqa_t5x.tasks import common

COMMANDS = [
    'reproduce', 'report', 'train', 'eval', 'infer', 'cache', 'convert',
    'inspect', 'generate', 'benchmark', 'figure', 'claims', 'plan', 'compile',
    'doctor', 'completion',
]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A checkpoint of 6 heads with the shipped vocabulary."""
  config = T5Config(
      vocab_size=4096, emb_dim=10, num_heads=6, num_encoder_layers=1,
      num_decoder_layers=2, head_dim=4, mlp_dim=14,
      mlp_activations=('gelu', 'linear'), dropout_rate=0.0,
  )
  tokens = jnp.ones((1, 1), jnp.int32)
  params = Transformer(config).init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
  )['params']
  path = str(tmp_path_factory.mktemp('cli') / 'mha')
  vocabulary = vocabularies.Vocabulary(pretrained.VOCABULARY_PATH)
  checkpoints.save_checkpoint(
      path,
      params,
      metadata={
          'config': config.to_dict(),
          'step': 7,
          'conversion': None,
          'vocabulary_sha256': vocabulary.sha256,
      },
  )
  return path


@pytest.fixture
def run(capsys):
  """Returns run(*words) -> (status, standard output, standard error)."""

  def run_(*words):
    status = cli.main(list(words))
    return status, *capsys.readouterr()

  return run_


@pytest.fixture
def fake(monkeypatch):
  """Returns fake(exception): `report` raises it."""

  def fake_(error):
    def write_report(folder):
      del folder
      raise error

    module = types.SimpleNamespace(write_report=write_report)
    monkeypatch.setitem(sys.modules, 'gqa_t5x.experiments.report', module)
    import gqa_t5x.experiments

    monkeypatch.setattr(
        gqa_t5x.experiments, 'report', module, raising=False
    )

  return fake_


def test_version_and_help(run):
  assert run('--version') == (0, gqa_t5x.__version__ + '\n', '')
  status, out, _ = run('--help')
  assert status == 0
  assert all(f'\n    {command}' in out for command in COMMANDS)
  status, out, err = run()
  assert (status, out) == (2, '') and 'usage: gqa-t5x' in err


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(command, run):
  status, out, _ = run(command, '--help')
  assert status == 0
  assert f'gqa-t5x {command}' in out.split('example:')[1]


@pytest.mark.parametrize('words, line', [
    (['convertt'], "'convertt' is not a command; did you mean convert?"),
    (['xyz'], "'xyz' is not a command"),
    (['convert', '--num_kv_head', '2'], 'did you mean --num_kv_heads?'),
    (['convert', '--input', 'a'], 'required: --output, --num_kv_heads'),
    (
        ['convert', '--input=a', '--output=b', '--num_kv_heads=two'],
        "invalid int value: 'two'",
    ),
    (['train', '--gin.STEPS', '3'], 'expected --gin.STEPS=VALUE'),
    (['benchmark', 'decode', '--batch_sise', '2'], 'did you mean --batch_size'),
    (['benchmark', 'convert', '--batch_size', '2'], 'is not an argument'),
    (['benchmark', 'decoed'], 'did you mean decode'),
    (['benchmark'], 'WHAT'),
    (
        ['benchmark', 'decode', '--against', 'hf'],
        'expected T5.1.1 in float32 to time peers',
    ),
    (['benchmark', 'decode', '--batch_size', '0'], 'a number from 1'),
    (['inspect', 'a', '--gin', '--json'], 'not allowed with argument --gin'),
])
def test_wrong_arguments_are_one_line(words, line, run):
  status, out, err = run(*words)
  assert (status, out, err.count('\n')) == (2, '', 1)
  assert line in err


@pytest.mark.parametrize('error, line', [
    (UserError('expected a,\n got b'), 'expected a, got b'),
    (
        OSError(errno.ENOSPC, 'No space left on device', '/full/x'),
        'no space left on device while writing /full/x; free some',
    ),
    (ValueError('RESOURCE_EXHAUSTED: No space left on device'), 'free some'),
    (PermissionError(errno.EACCES, 'Permission denied', '/x'), '/x: Perm'),
    (OSError(errno.ELOOP, 'Too many levels', '/x'), '/x: Too many'),
    (RuntimeError('RESOURCE_EXHAUSTED: Out of\nmemory'), 'make the batch'),
    (UnicodeEncodeError('ascii', 'a ü', 2, 3, 'x'), "'\\xfc' cannot be wri"),
    (ModuleNotFoundError('No seqio', name='seqio'), "'gqa-t5x[data]'"),
    (ModuleNotFoundError('No tqdm', name='tqdm.auto'), "'gqa-t5x[train]'"),
    (ModuleNotFoundError('No t5x', name='t5x'), 'google-research/t5x'),
])
def test_what_the_user_can_mend_is_one_line(error, line, run, fake):
  fake(error)
  status, out, err = run('report', 'x')
  assert (status, out, err.count('\n')) == (2, '', 1)
  assert err.startswith('gqa-t5x: ') and line in err


def test_cause_of_an_error_is_found(run, fake):
  error = UserError('cannot configure train')
  error.__cause__ = ModuleNotFoundError('No gin', name='gin')
  fake(error)
  assert 'gqa-t5x[train]' in run('report', 'x')[2]


def test_our_own_faults_keep_their_trace(fake):
  fake(KeyError('bug'))
  with pytest.raises(KeyError):
    cli.main(['report', 'x'])


def test_interruption_is_no_trace(run, fake):
  fake(KeyboardInterrupt())
  assert run('report', 'x') == (130, '', 'gqa-t5x: interrupted\n')
  fake(KeyboardInterrupt('stopped by Ctrl-C, step 3 is saved'))
  said = 'gqa-t5x: stopped by Ctrl-C, step 3 is saved\n'
  assert run('report', 'x') == (130, '', said)


def test_interruption_of_a_callback_is_not_lost():
  code = '''
import gc, os, signal, time
from gqa_t5x import cli
# A shell has its children in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.keep_interrupts()
def callback(phase, info):
  gc.callbacks.remove(callback)
  os.kill(os.getpid(), signal.SIGINT)
  for _ in range(1000): pass
gc.callbacks.append(callback)
try:
  gc.collect()
  time.sleep(60)
except KeyboardInterrupt:
  print('noticed')
'''
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert (done.stdout, done.stderr) == ('noticed\n', '')


def test_old_python_is_one_line(run, monkeypatch):
  monkeypatch.setattr(sys, 'version_info', (3, 8, 18, 'final', 0))
  status, out, err = run('--help')
  assert (status, out, err.count('\n')) == (2, '', 1)
  assert 'needs Python 3.11 or newer, this is Python 3.8' in err


def test_gin_flags_are_those_of_t5x(monkeypatch, run):
  from gqa_t5x.engine import launch

  seen = []
  monkeypatch.setattr(
      launch, 'run', lambda *args: seen.append(args) or {'loss': 1.5}
  )
  status, out, _ = run(
      'eval', '--gin_file=a.gin', '--gin_file', 'b.gin', '--gin.STEPS=3',
      '--gin.x/Y.z="a=b"', '--gin_bindings=W = 2',
  )
  assert seen == [
      ('eval', ['a.gin', 'b.gin'], ['STEPS=3', 'x/Y.z="a=b"', 'W = 2'])
  ]
  assert (status, json.loads(out)) == (0, {'loss': 1.5})


def test_inspect_counts_by_hand(checkpoint, run):
  status, out, _ = run('inspect', checkpoint, '--json')
  facts = json.loads(out)
  attention = 4 * 10 * 24  # q, k, v, o
  mlp = 3 * 10 * 14
  encoder = attention + mlp + 2 * 10 + 10 + 32 * 6
  decoder = 2 * (2 * attention + mlp + 3 * 10) + 10 + 32 * 6 + 10 * 4096
  assert status == 0
  assert facts['parameters'] == {
      'encoder': encoder,
      'decoder': decoder,
      'token_embedder': 40960,
      'total': encoder + decoder + 40960,
  }
  assert facts['bytes'] == 4 * facts['parameters']['total']
  # 2 (key, value) * 2 layers * K * 4 numbers * 4 bytes.
  assert facts['cache_bytes_per_token'] == {
      '6': 384, '3': 192, '2': 128, '1': 64
  }
  assert facts['step'] == 7


def test_inspect_writes_the_gin_file_of_a_model(checkpoint, run, tmp_path):
  launch = pytest.importorskip('gqa_t5x.engine.launch')
  pytest.importorskip('seqio')
  _, out, _ = run('inspect', checkpoint, '--gin')
  (tmp_path / 'model.gin').write_text(out)
  job = launch.configure(
      'train',
      [
          'gqa_t5x/gin_configs/local/pretrain.gin',
          str(tmp_path / 'model.gin'),
      ],
      ['MODEL_DIR = "m"', 'NUM_KV_HEADS = 2'],
  )
  _, facts, _ = run('inspect', checkpoint, '--json')
  expected = json.loads(facts)['config'] | {
      'num_kv_heads': 2, 'dropout_rate': 0.0,
  }  # pyformat: disable
  assert job.model.config.to_dict() == expected


def test_inspect_for_a_person(checkpoint, run):
  status, out, _ = run('inspect', checkpoint)
  assert status == 0
  assert 'multi-head: 6 query heads, 6 key/value heads of 4' in out
  assert max(map(len, out.splitlines())) < 160


def test_convert_then_inspect(checkpoint, tmp_path, run):
  target = str(tmp_path / 'gqa')
  words = ['--input', checkpoint, '--output', target, '--num_kv_heads', '2']
  status, out, _ = run('convert', *words)
  assert status == 0 and '6 -> 2 key/value heads (mean), step 7' in out
  _, out, _ = run('inspect', target)
  assert 'grouped-query: 6 query heads, 2 key/value heads' in out
  assert 'from 6 key/value heads by mean' in out
  assert 'repeated' not in out
  words[3] = target = str(tmp_path / 'hf')
  assert run('convert', *words, '--format', 'hf')[0] == 0
  _, out, _ = run('inspect', target)
  assert 'hf, key/value heads repeated to 6' in out
  assert '6 query heads, 2 key/value heads' in out


@pytest.mark.parametrize('blank', [None, '\u2581', ''])
def test_vocabulary_gives_the_ids_of_seqio(tmp_path, blank):
  """Sentinels after the pieces, or in the file, as those of T5.1.1 and mT5."""
  seqio = pytest.importorskip('seqio')
  path, extra_ids = pretrained.VOCABULARY_PATH, 100
  if blank is not None:
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    model = model_pb2.ModelProto.FromString(pathlib.Path(path).read_bytes())
    for i in reversed(range(100)):
      piece = model.pieces.add(piece=f'{blank}<extra_id_{i}>', score=0.0)
      piece.type = model_pb2.ModelProto.SentencePiece.USER_DEFINED
    path, extra_ids = str(tmp_path / 'with_sentinels.model'), 0
    pathlib.Path(path).write_bytes(model.SerializeToString())
  ours = vocabularies.Vocabulary(path)
  theirs = seqio.SentencePieceVocabulary(path, extra_ids=extra_ids)
  assert common.default_vocabulary(path) == theirs
  assert ours.size == theirs.vocab_size
  for text in (
      'translate English to German: 5 May 2021',
      'Returns <extra_id_0> the array <extra_id_99>.',
      '<extra_id_1> starts, a\ttab, two  blanks, \u00fcml\u00e4ut \u4e2d ',
      '',
  ):
    ids = ours.encode(text)
    assert ids == theirs.encode(text), text
    assert ours.decode(ids) == theirs.decode(ids), text
  assert ours.decode([ours.encode('a')[0], 1, 5]) == 'a'


def test_generate_gives_a_line_for_a_line(checkpoint, tmp_path, run):
  lines = ['summarize: one two', '', 'translate English to German: May', 'x']
  file = tmp_path / 'lines.txt'
  file.write_text('\n'.join(lines), encoding='utf-8')
  words = ['--checkpoint', checkpoint, '--input', str(file)]
  words += ['--max_decode_len', '5']
  status, out, _ = run('generate', *words, '--batch_size', '3')
  assert status == 0
  outputs = out.split('\n')
  assert len(outputs) == 5 and outputs[1] == '' and outputs[4] == ''
  # Alone, each line gives the same.
  status, again, _ = run('generate', *words, '--batch_size', '1')
  assert again == out

  params, metadata = checkpoints.load_checkpoint(checkpoint)
  vocabulary = vocabularies.Vocabulary(pretrained.VOCABULARY_PATH)
  tokens = np.array([[*vocabulary.encode(lines[0]), 1]])
  _, narrow, _ = run('generate', *words, '--dtype', 'bfloat16')
  for dtype, line in (('float32', outputs[0]), ('bfloat16', narrow)):
    model = Transformer(T5Config(**metadata['config'] | {'dtype': dtype}))
    ids = gqa_t5x.generate(model, params, tokens, max_decode_len=5)
    assert vocabulary.decode(np.asarray(ids)[0].tolist()) == line.split('\n')[0]


def test_generate_refuses_what_the_model_has_no_place_for(
    checkpoint, tmp_path, run
):
  """LongT5, for one, has T5's arrays and more."""
  params, metadata = checkpoints.load_checkpoint(checkpoint)
  params['encoder']['side_relpos_bias'] = {'rel_embedding': np.zeros((6, 32))}
  path = str(tmp_path / 'more')
  checkpoints.save_checkpoint(path, params, metadata=metadata)
  status, out, err = run('generate', '--checkpoint', path, 'Some text')
  assert (status, out) == (2, '')
  assert 'encoder/side_relpos_bias/rel_embedding should be absent' in err


def test_generate_moves_parameters_to_the_device_once(checkpoint, monkeypatch):
  seen = []
  generate = text_generation.decoding.generate
  monkeypatch.setattr(
      text_generation.decoding,
      'generate',
      lambda model, params, *args, **kwargs: seen.append(params)
      or generate(model, params, *args, **kwargs),
  )
  answer = text_generation.line_generator(checkpoint, None, max_decode_len=2)
  assert len(list(answer(['One line.', 'another'], 1))) == 2
  assert len(seen) == 2 and seen[0] is seen[1]
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(seen))


@pytest.mark.parametrize('words', [[], ['t5x.trian', '--gin_file=x']])
def test_several_hosts_run_scripts_of_t5x(capsys, words):
  with pytest.raises(SystemExit, match='2'):
    multi_host.main(words)
  assert '{t5x.train,t5x.eval,t5x.infer}' in capsys.readouterr().err


def test_a_vocabulary_that_cannot_be_the_checkpoints_calibrates_nothing(
    tmp_path, run
):
  config = T5Config(
      vocab_size=32128, emb_dim=4, num_heads=2, num_encoder_layers=1,
      num_decoder_layers=1, head_dim=2, mlp_dim=2,
  )
  tokens = jnp.ones((1, 1), jnp.int32)
  params = Transformer(config).init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
  )['params']
  checkpoints.save_checkpoint(
      str(tmp_path / 'of_another'),
      params,
      metadata={'config': config.to_dict()},
  )
  status, _, err = run(
      'convert', '--input', str(tmp_path / 'of_another'),
      '--output', str(tmp_path / 'out'), '--num_kv_heads', '1',
      '--method', 'svd', '--vocabulary', pretrained.VOCABULARY_PATH,
  )
  assert status == 2
  assert 'expected a vocabulary of 32128 ids or somewhat fewer' in err
  assert not (tmp_path / 'out').exists()


def test_little_calibration_text_is_said(checkpoint, tmp_path, run):
  text = tmp_path / 'text.txt'
  text.write_text('A line or two.\n' * 3, encoding='utf-8')
  status, out, err = run(
      'convert', '--input', checkpoint, '--output', str(tmp_path / 'out'),
      '--num_kv_heads', '2', '--method', 'svd', '--calibration_data', str(text),
      '--vocabulary', pretrained.VOCABULARY_PATH,
  )
  assert status == 0
  assert 'on 1 sequences of calibration text' in out
  assert '1 sequences say little' in err
  # So few as were asked for are not.
  status, out, err = run(
      'convert', '--input', checkpoint, '--output', str(tmp_path / 'again'),
      '--num_kv_heads', '2', '--method', 'svd', '--calibration_sequences', '2',
      '--vocabulary', pretrained.VOCABULARY_PATH,
  )
  assert status == 0
  assert 'on 2 sequences of calibration text' in out and not err


def test_generate_takes_texts_as_arguments(checkpoint, tmp_path, run):
  texts = ['summarize: one two', 'x']
  file = tmp_path / 'lines.txt'
  file.write_text('\n'.join(texts), encoding='utf-8')
  words = ['--checkpoint', checkpoint, '--max_decode_len', '5']
  status, out, _ = run('generate', *words, *texts)
  assert status == 0 and out.count('\n') == 2
  assert out == run('generate', *words, '--input', str(file))[1]
  # A prompt without its quotes.
  _, out, err = run('generate', *words, 'summarize:', 'one', 'two')
  assert out.count('\n') == 3 and '3 texts of a word each; quote' in err
  # A text may look like a flag.
  status, out, _ = run('generate', *words, '--', '--x', '-1')
  assert status == 0 and out.count('\n') == 2


def test_generate_reads_standard_input(checkpoint, run, monkeypatch):
  data = io.TextIOWrapper(io.BytesIO(b'one\ntwo\n'))
  monkeypatch.setattr(sys, 'stdin', data)
  status, out, _ = run(
      'generate', '--checkpoint', checkpoint, '--max_decode_len', '3',
      '--method', 'sample', '--seed', '1', '--top_k', '9',
  )
  assert status == 0 and out.count('\n') == 2


def test_a_byte_order_mark_is_no_text(checkpoint, run, tmp_path):
  words = ['generate', '--checkpoint', checkpoint, '--max_decode_len', '5']
  for name, mark in (('plain', b''), ('marked', b'\xef\xbb\xbf')):
    (tmp_path / name).write_bytes(mark + b'number 7\n')
  plain, marked = (
      run(*words, '--input', str(tmp_path / name))[1]
      for name in ('plain', 'marked')
  )
  assert plain == marked and plain.count('\n') == 1


@pytest.mark.parametrize('words, status', [('inspect {}', 0), ('inspect x', 2)])
def test_a_closed_output_changes_no_status(checkpoint, words, status):
  words = words.format(shlex.quote(str(checkpoint)))
  command = f'{shlex.quote(sys.executable)} -m gqa_t5x {words}'
  for closed, other in (('>&-', '2>err'), ('2>&-', '>out')):
    done = subprocess.run(
        ['bash', '-c', f'{command} {closed}'], check=False,
        capture_output=True, text=True,
    )  # pyformat: disable
    assert done.returncode == status, other
    assert 'Traceback' not in done.stderr
    assert bool(done.stdout) == (status == 0 and closed == '2>&-')


def test_samples_of_one_text_differ_whatever_the_batches(checkpoint, run):
  words = [
      'generate', '--checkpoint', checkpoint, '--max_decode_len', '8',
      '--method', 'sample', '--seed', '3', *6 * ['one two'],
  ]  # pyformat: disable
  status, out, _ = run(*words, '--batch_size', '2')
  assert status == 0 and len(set(out.splitlines())) == 6
  assert out == run(*words, '--batch_size', '6')[1]


def test_generate_without_standard_input(checkpoint, run, monkeypatch):
  monkeypatch.setattr(sys, 'stdin', None)  # As after `<&-`.
  status, _, err = run('generate', '--checkpoint', checkpoint)
  assert status == 2 and 'expected texts, --input or standard input' in err


@pytest.fixture(name='benchmark_rows')
def fixture_benchmark_rows(checkpoint, run):
  """Rows of `benchmark decode`, by numbers of heads and batch sizes."""

  def rows(num_kv_heads, batch_size):
    status, out, _ = run(
        'benchmark', 'decode', '--checkpoint', checkpoint, '--num_kv_heads',
        num_kv_heads, '--batch_size', batch_size, '--input_length', '8',
        '--output_length', '3', '--num_repeats', '1', '--json',
    )
    assert status == 0
    return json.loads(out)['rows']

  return rows


def test_benchmark_rows(benchmark_rows):
  rows = benchmark_rows('6,1', '2')
  assert list(rows) == ['K=6', 'K=1']
  assert rows['K=6']['cache_bytes_per_token'] == 384


def test_benchmark_of_several_batch_sizes(benchmark_rows):
  rows = benchmark_rows('1', '2,3')
  assert list(rows) == ['K=1, batch 2', 'K=1, batch 3']
  assert [row['batch_size'] for row in rows.values()] == [2, 3]
  # The bandwidth is measured once.
  assert len({str(row['bandwidth']) for row in rows.values()}) == 1


def test_gin_flags_are_joined_only_with_a_value():
  assert commands.join_gin_flags(['--gin.A=1', '--gin_file=b', 'c']) == [
      '--gin_bindings=A=1', '--gin_file=b', 'c',
  ]


def test_plan_needs_a_device_and_prints_a_row_for_each_k(run):
  code, out, _ = run(
      'plan', '--model', 'xxl', '--num_kv_heads', '64,8,1',
      '--device', 'tpu-v4', '--num_devices', '8', '--batch_size', '64',
      '--json',
  )  # pyformat: disable
  assert code == 0
  plans = json.loads(out)['plans']
  assert [p['num_kv_heads'] for p in plans] == [64, 8, 1]
  # The paper's Figure 6 lies above these limits, as measurements must.
  assert all(
      p['seconds_per_sample'] < p['paper_seconds_per_sample'] for p in plans
  )


def test_figure_of_a_benchmark(run, tmp_path):
  rows = {
      'K=1': (1, 0.25), 'hf': (4, 1.0), 'K=4': (4, 0.5),
  }  # pyformat: disable
  path = tmp_path / 'decode.json'
  path.write_text(json.dumps({
      'config': {'num_heads': 4},
      'rows': {
          name: {
              'num_kv_heads': k, 'seconds_per_sample': seconds,
              'batch_size': 8, 'input_length': 512, 'output_length': 64,
          }
          for name, (k, seconds) in rows.items()
      },
  }))  # pyformat: disable
  code, out, _ = run('figure', str(path))
  assert code == 0
  drawing = xml.etree.ElementTree.fromstring(out)
  bars = [e for e in drawing.iter() if e.tag.endswith('rect')]
  assert [b.get('class') for b in bars] == ['mha', 'mqa', 'peer']
  heights = [float(b.get('height')) for b in bars]
  np.testing.assert_allclose(heights[2] / heights[1], 4.0, rtol=0.01)
  assert 'batch 8, input 512, output 64' in out
  text = path.read_text()
  path.write_text(text.replace('"batch_size": 8', '"batch_size": 9', 1))
  out = run('figure', str(path))[1]
  assert '>batch 9, input 512' in out and '>batch 8, input 512' in out
  # The most heads that were timed need not be those of MHA.
  path.write_text(text.replace('"num_heads": 4', '"num_heads": 8'))
  assert 'class="mha"' not in run('figure', str(path))[1]


def test_claims_of_a_benchmark(run, tmp_path):
  rows = {
      f'K={k}': {
          'num_kv_heads': k,
          'seconds_per_sample': seconds,
          'seconds_per_sample_repeats': [seconds] * 3,
          'batch_size': 8,
          'input_length': 512,
          'output_length': 64,
      }
      for k, seconds in ((16, 0.5), (2, 0.22), (1, 0.2))
  }
  path = tmp_path / 'decode.json'
  path.write_text(json.dumps({'config': {'num_heads': 16}, 'rows': rows}))
  code, out, _ = run('claims', str(path))
  assert code == 0
  assert out.startswith('batch 8, input 512, output 64\nC2 speed: shown in')
  assert 'here 1.10 [1.10, 1.10] times' in out
  assert 'here 2.27 [2.27, 2.27] times' in out
  assert 'Not tested: C1 quality, C3' in out
  path.write_text('{"rows": {}}')
  for wrong in (path, tmp_path / 'absent', tmp_path):
    code, out, error = run('claims', str(wrong))
    assert (code, out, error.count('\n')) == (2, '', 1)


def test_a_file_that_is_replaced_leaves_its_permissions(run, tmp_path):
  rows = {'K=1': {
      'num_kv_heads': 1, 'seconds_per_sample': 0.5, 'batch_size': 8,
      'input_length': 512, 'output_length': 64,
  }}  # pyformat: disable
  (tmp_path / 'decode.json').write_text(
      json.dumps({'config': {'num_heads': 4}, 'rows': rows})
  )
  # As long as file systems take.
  path = tmp_path / ('a' * 251 + '.svg')
  path.touch(mode=0o600)
  draw = 'figure', str(tmp_path / 'decode.json'), '--output'
  assert run(*draw, str(path))[0] == 0
  assert path.stat().st_mode & 0o777 == 0o600 and path.read_text()
  assert len(list(tmp_path.iterdir())) == 2
  loop = tmp_path / 'loop.svg'
  loop.symlink_to(loop)
  assert run(*draw, str(loop))[0] == 0
  assert '<svg' in loop.read_text()


@pytest.mark.parametrize('platforms', ['cuda', 'no_such'])
def test_platforms_that_jax_lacks_are_one_line(platforms):
  done = subprocess.run(
      [sys.executable, '-m', 'gqa_t5x', 'generate', 'a text'],
      env=os.environ | {'JAX_PLATFORMS': platforms},
      capture_output=True, text=True, check=False,
  )  # pyformat: disable
  assert done.returncode == 2
  assert f'cannot start JAX_PLATFORMS={platforms}; unset it' in done.stderr
  assert 'Traceback' not in done.stderr


def test_doctor_where_jax_finds_no_device(run, monkeypatch):
  def devices():
    raise AssertionError('no backend cuda')

  monkeypatch.setattr(jax, 'devices', devices)
  status, out, _ = run('doctor')
  assert status == 0 and 'devices: none, JAX says: no backend cuda' in out


def test_doctor_tells_what_is_missing_for_what(run, monkeypatch):
  monkeypatch.setitem(sys.modules, 'shtab', None)
  monkeypatch.setitem(sys.modules, 't5x', None)
  real = importlib.util.find_spec

  def find_spec(name, *args):
    return None if name in ('shtab', 't5x') else real(name, *args)

  monkeypatch.setattr(importlib.util, 'find_spec', find_spec)
  status, out, _ = run('doctor', '--json')
  facts = json.loads(out)
  assert status == 0
  assert facts['features']['core']['missing'] == []
  assert facts['features']['core']['versions']['jax'] == jax.__version__
  assert facts['features']['completion']['missing'] == ['shtab']
  assert 'cpu' in facts['devices'][0]
  _, out, _ = run('doctor')
  assert "without: shtab; pip install 'gqa-t5x[completion]'" in out
  assert 'google-research/t5x' in out


def test_every_extra_is_known_to_doctor():
  text = (pathlib.Path(gqa_t5x.__file__).parents[1] / 'setup.py').read_text()
  known = set(re.findall(r"^        '(\w+)': _", text, re.M))
  assert known - {'all', 'dev', 'docs', 't5x'} == set(extras.FEATURES) - {''}
  core = re.search(r'install_requires=\[(.*?)\]', text, re.S)[1]
  assert set(re.findall(r"'(\w+)", core)) == set(extras.FEATURES[''][1])


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish', 'tcsh'])
def test_completion_knows_commands_and_flags(run, shell):
  pytest.importorskip('shtab')
  status, out, _ = run('completion', shell)
  assert status == 0
  assert 'convert' in out and 'num_kv_heads' in out
  if shell == 'bash':  # Paths still complete.
    assert '_inspect_pos_0_COMPGEN=_shtab_compgen_files' in out
  if shell == 'zsh':
    assert ':CKPT:_files' in out


@pytest.mark.parametrize('fails', [False, True])
def test_tensorflow_starts_without_information(tmp_path, fails):
  """The lines of its absl logs; its own, and what else is written, stay."""
  (tmp_path / 'tensorflow.py').write_text(f"""
import os
os.write(2, b'WARNING: All log messages before absl::InitializeLog() is ...\\n')
os.write(2, b'I0000 00:00:1.2 34 cudart_stub.cc:31] Could not find ...\\n')
os.write(2, b'W0000 00:00:1.2 34 x.cc:1] The disk is full\\n')
if {fails}:
  raise ImportError('a part of it is missing')
""")
  code = (
      'from gqa_t5x import quiet_tensorflow as quiet; quiet.install();'
      ' quiet.install(); import tensorflow; print(tensorflow.__loader__)'
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      env=os.environ | {'PYTHONPATH': f'{tmp_path}:{os.getcwd()}'},
      capture_output=True, text=True, check=False,
  )  # pyformat: disable
  lines = done.stderr.splitlines()
  assert lines[0] == 'W0000 00:00:1.2 34 x.cc:1] The disk is full'
  if fails:
    assert lines[-1] == 'ImportError: a part of it is missing'
  else:
    assert len(lines) == 1 and 'SourceFileLoader' in done.stdout


def test_the_real_tensorflow_starts_without_a_word():
  pytest.importorskip('tensorflow')
  code = (
      'from gqa_t5x import quiet_tensorflow as quiet; quiet.install();'
      ' import tensorflow'
  )
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert not done.stderr
