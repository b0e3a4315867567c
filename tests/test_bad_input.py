# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong: one line, exit status 2, nothing written."""

import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from gqa_t5x import cli
from gqa_t5x import network
from gqa_t5x import pretrained
from tests import test_cli

checkpoint = test_cli.checkpoint  # a fixture: 6 query heads

MODEL = '--gin_file=gqa_t5x/gin_configs/models/t5_1_1_mini.gin'
PRETRAIN = '--gin_file=gqa_t5x/gin_configs/local/pretrain.gin'
FINETUNE = '--gin_file=gqa_t5x/gin_configs/local/finetune.gin'
EVAL = '--gin_file=gqa_t5x/gin_configs/local/eval.gin'
INFER = '--gin_file=gqa_t5x/gin_configs/local/infer.gin'
MODEL_DIR = "--gin.MODEL_DIR='{new}'"

# (words, part of the line). {ckpt} is a checkpoint, {new} does not exist,
# {folder} holds other files, {file} is a text file, {bytes} a binary one.
CASES = [
    # Key/value heads that do not divide.
    ('convert --input {ckpt} --output {new} --num_kv_heads 4', 'choose'),
    ('convert --input {ckpt} --output {new} --num_kv_heads 0', 'choose'),
    ('convert --input {ckpt} --output {new} --num_kv_heads -2', 'choose'),
    ('convert --input {ckpt} --output {new} --num_kv_heads 12', 'choose'),
    ('benchmark decode --checkpoint {ckpt} --num_kv_heads 5', 'choose'),
    ('benchmark decode --checkpoint {ckpt} --num_kv_heads 2,x', "got 'x'"),
    (f'train {MODEL} {PRETRAIN} {MODEL_DIR} --gin.NUM_KV_HEADS=3', 'choose'),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2'
        ' --method random --seed -1',
        'a number from 0',
    ),
    (
        'generate --checkpoint {ckpt} --input {file} --method sample'
        ' --seed 99999999999999999999',
        'a number from 0',
    ),
    (
        'benchmark decode --model small --against hf --output_length 1',
        'output_length of 2 or more',
    ),
    (
        'benchmark convert --model small --num_kv_heads 2 --folder {new}',
        'is none',
    ),
    ('benchmark convert --model small --num_kv_heads 6', 'fewer than 6'),
    # Before parameters are made, which would not fit.
    (
        'benchmark train --model xxl --against ctranslate2 --batch_size 2',
        "got 'ctranslate2'",
    ),
    (
        'benchmark train --model xxl --against hf --batch_size 2'
        ' --dtype bfloat16',
        'add --dtype=float32',
    ),
    ('convert --input gs://b/c --output {new} --num_kv_heads 2', 'gcloud'),
    ('convert --input {ckpt} --output gs://b/c --num_kv_heads 2', 'gcloud'),
    (f"train {MODEL} {PRETRAIN} --gin.MODEL_DIR='gs://b/c'", 'gcloud'),
    # Methods and formats.
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2'
        ' --method median',
        'mean, first, random',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --seed 3',
        'draws nothing; leave it out',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2'
        ' --vocabulary {file}',
        'text for --vocabulary to read, got none',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2'
        ' --calibration_sequences 8',
        'text for --calibration_sequences to read, got none',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --slots reset',
        'no slots for an output of format orbax',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --format zip',
        'choose one of orbax',
    ),
    ('generate --checkpoint {ckpt} --input {file} --method best', 'greedy'),
    # Nothing is to be decoded.
    ('generate --checkpoint {ckpt} --input /dev/null --method best', 'greedy'),
    (
        'generate --checkpoint {ckpt} --input {file} --method sample'
        ' --num_beams 3',
        'no option',
    ),
    (
        'generate --checkpoint {ckpt} --input {file} --method sample'
        ' --temperature -1',
        'temperature',
    ),
    ('generate --checkpoint {ckpt} --max_decode_len 0', 'from 1'),
    ('generate --checkpoint {ckpt} --input {file} text', 'leave one'),
    ('generate --checkpoint {ckpt} a\udcffb', 'expected UTF-8'),
    # Checkpoints that are missing, foreign, or in the way.
    ('convert --input {new} --output {new}2 --num_kv_heads 2', 'not exist'),
    (
        'convert --input {folder} --output {new} --num_kv_heads 2',
        'not a checkpoint',
    ),
    (
        'convert --input {file} --output {new} --num_kv_heads 2',
        'not a checkpoint',
    ),
    (
        'convert --input {ckpt} --output {folder} --num_kv_heads 2',
        'exists already',
    ),
    ('inspect {new}', 'does not exist'),
    ('inspect {folder}', 'not a checkpoint'),
    ('generate --checkpoint {new} --input {file}', 'does not exist'),
    ('generate --checkpoint {folder} --input {file}', 'not a checkpoint'),
    ('benchmark decode --checkpoint {new}', 'does not exist'),
    # Text and vocabularies.
    ('generate --checkpoint {ckpt} --input {new}', 'check --input'),
    ('generate --checkpoint {ckpt} --input {bytes}', 'line 2: expected UTF-8'),
    (
        'generate --checkpoint {ckpt} --input {file} --vocabulary {new}',
        'check --vocabulary',
    ),
    (
        'generate --checkpoint {ckpt} --input {file} --vocabulary {file}',
        'not a SentencePiece model',
    ),
    (
        'generate --checkpoint {ckpt} --input {file} --vocabulary {other}',
        'expected the vocabulary that',
    ),
    # Gin.
    ('train', 'no gin file'),
    ('train --gin_file={new}', 'cannot be read'),
    (f'train {MODEL} {PRETRAIN}', 'MODEL_DIR must be set'),
    (f'train {PRETRAIN} {MODEL_DIR}', 'no model was given'),
    (f'train {MODEL} {PRETRAIN} {MODEL_DIR} --gin.MODEL_DIRR=3', 'did you'),
    (f'train {MODEL} {PRETRAIN} --gin.MODEL_DIR={{new}}', 'quotes'),
    (
        f'train {MODEL} {PRETRAIN} {MODEL_DIR} --gin.train.TrainConfig.x=3',
        'there are schedule, loss, clip_norm,',
    ),
    (
        f'train {MODEL} {PRETRAIN} {MODEL_DIR} --gin.BATCH_SIZE=3'
        ' --gin.train.TrainConfig.num_microbatches=2',
        'choose a multiple of',
    ),
    (
        f'train {MODEL} {PRETRAIN} {MODEL_DIR}'
        ' --gin.train.TrainConfig.log_every=0',
        'log_every of at least 1, got 0',
    ),
    *(
        (f'train {MODEL} {PRETRAIN} {MODEL_DIR} --gin.{binding}', part)
        for binding, part in (
            ('train.TrainConfig.keep=0', 'keep of at least 1, got 0'),
            ('train.TrainConfig.clip_norm=0.0', 'clip_norm above 0'),
            ('optimizer.Schedule.base=-1.0', 'base of at least 0'),
            ('losses.LossConfig.label_smoothing=1.0', 'and below 1, got 1.0'),
            ('losses.LossConfig.loss_normalizing_factor=0', 'factor above 0'),
            ('SEED=-1', 'eed of at least 0, got -1'),
            ('BATCH_SIZE=0', 'batch_size of at least 1'),
            ('launch.Train.dev_examples=0', 'dev_examples of at least 1'),
            ('DROPOUT_RATE=1.0', 'dropout_rate of at least 0 and below 1'),
            ('network.T5Config.num_heads=0', 'num_heads of at least 1'),
            ("network.T5Config.mlp_activations='gelu'", "got 'gelu'"),
            ("network.T5Config.mlp_activations=('gelu','liner')", "'liner')"),
            ("network.T5Config.mlp_activations=('Dense',)", "('Dense',)"),
            ('network.T5Config.num_decoder_layers=0', 'num_decoder_layers'),
            ("network.T5Config.dtype='float8_e4m3fn'", "or 'float16'"),
            ("network.T5Config.dtype='float64'", "or 'float16'"),
            ("network.T5Config.dtype='flaot32'", "got 'flaot32'"),
            ("network.T5Config.dtype='int8'", "'float16', got 'int8'"),
            ('network.T5Config.dtype=None', "'float16', got None"),
            ('TASK_FEATURE_LENGTHS=None', "{'inputs': 256,"),
            ("train.TrainConfig.best_metric='a/b'", 'metric_examples'),
            (
                "train.TrainConfig.best_metric='loss'"
                " --gin.launch.Cache.splits=('train',)",
                'validation split',
            ),
            (
                'train.TrainConfig.best_metric=None'
                " --gin.launch.Cache.splits=('validation',)",
                'a split to train on',
            ),
            ("TASK_FEATURE_LENGTHS={{'inputs':2,'targets':8}}", '3 tokens or'),
            ('network.T5Config.vocab_size=100', 'of at most 100 ids'),
            ('PRETRAIN_STEPS=2.5', 'total_steps to be a whole number'),
            ("BATCH_SIZE='4'", "batch_size to be a whole number, got '4'"),
            ("SEED='x'", 'to be a whole number'),
            ("optimizer.Schedule.base='x'", 'base to be a number'),
            ("TASK_FEATURE_LENGTHS={{'inputs':64}}", "{'inputs': 256,"),
            ("NUM_KV_HEADS='2'", 'num_kv_heads to be a whole number or None'),
            ('losses.LossConfig.z_loss=True', 'z_loss to be a number'),
            ("train.TrainConfig.best_metric='rouge'", 'to be loss or accuracy'),
            ("train.TrainConfig.tensorboard='no'", 'to be True or False'),
        )
    ),
    ('train --gin_file={file}', 'cannot configure train'),
    (
        f'train {MODEL} {FINETUNE} {MODEL_DIR}'
        " --gin.INITIAL_CHECKPOINT_PATH='{ckpt}'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_sumarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'docs_sumarize',
    ),
    (
        f'eval {MODEL} {EVAL} --gin.CHECKPOINT_PATH=\'{{new}}\''
        " --gin.EVAL_OUTPUT_DIR='{new}2'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'does not exist',
    ),
    (
        f'infer {MODEL} {INFER} --gin.CHECKPOINT_PATH=\'{{new}}\''
        " --gin.INFER_OUTPUT_PATH='{new}2/outputs.jsonl'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'does not exist',
    ),
    # Outputs that are there already are not written over.
    (
        f"eval {MODEL} {EVAL} --gin.CHECKPOINT_PATH='{{ckpt}}'"
        " --gin.EVAL_OUTPUT_DIR='{scored}'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'metrics.json exists already; remove it',
    ),
    (
        f"infer {MODEL} {INFER} --gin.CHECKPOINT_PATH='{{ckpt}}'"
        " --gin.INFER_OUTPUT_PATH='{file}'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'file.txt exists already; remove it',
    ),
    (
        f"infer {MODEL} {INFER} --gin.CHECKPOINT_PATH='{{ckpt}}'"
        " --gin.INFER_OUTPUT_PATH='{folder}'"
        " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
        " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}",
        'expected the name of a file',
    ),
    *(
        (
            f"{command} {MODEL} {gin} --gin.CHECKPOINT_PATH='{{ckpt}}'"
            f" --gin.{target}='{{new}}'"
            " --gin.MIXTURE_OR_TASK_NAME='docs_summarize'"
            " --gin.TASK_FEATURE_LENGTHS={{'inputs':16,'targets':8}}"
            f' --gin.launch.{job}.{binding}',
            part,
        )
        for command, gin, target, job in (
            ('eval', EVAL, 'EVAL_OUTPUT_DIR', 'Evaluate'),
            ('infer', INFER, 'INFER_OUTPUT_PATH', 'Infer'),
        )
        for binding, part in (
            ('batch_size=0', 'batch_size of at least 1'),
            ('max_examples=0', 'max_examples of at least 1'),
            ("decoding='beam'", "got 'beam'"),
            ("decoding={{'max_decode_len':9}}", 'without max_decode_len'),
            ("decoding={{'method':'beem'}}", "choose one of 'greedy'"),
            (
                "decoding={{'method':'sample','temperature':'hot'}}",
                'temperature to be a number',
            ),
            (
                "decoding={{'method':'sample','temperature':0}}",
                'temperature above 0',
            ),
            (
                "decoding={{'method':'beam','num_beams':0}}",
                'num_beams from 1 to',
            ),
            ("decoding={{'model':1}}", "no option 'model'"),
            ("decoding={{'eos_id':-2}}", 'eos_id from -1 to 4095'),
        )
    ),
    (
        'benchmark convert --num_kv_heads 2 --method first --format hf'
        ' --target_format zarr',
        'choose one of orbax',
    ),
    # A user's files.
    ('cache --gin_file={empty_jsonl}', 'empty'),
    ('cache --gin_file={bad_jsonl}', 'line 2'),
    ('cache --gin_file={list_jsonl}', 'line 1'),
    ('cache --gin_file={field_jsonl}', "expected the field 'summary'"),
    ('cache --gin_file={missing_jsonl}', 'check the path'),
    ('cache --gin_file={utf16_jsonl}', 'UTF-8'),
    ('cache --gin_file={nul_jsonl}', 'line 1'),
    ('cache --gin_file={number_jsonl}', 'line 1'),
    ('cache --gin_file={folder_jsonl}', 'readable file'),
    # Hostile files where a checkpoint is expected, and odd paths.
    ('inspect {pickle}', 'not a checkpoint'),
    ('inspect {pickle_hf}', 'safetensors'),
    ('inspect {pickle_t5x}', 'cannot be read'),
    ('inspect {no_config}', 'expected config.json'),
    ('inspect {loop}', 'does not exist'),
    ('inspect {dangling}', 'does not exist'),
    ('inspect {long}', 'check the path'),
    ('convert --input {ckpt} --output /proc/x --num_kv_heads 2', 'check the'),
    ('inspect ~nobody_of_that_name/x', 'check the ~'),
    (
        'convert --input {ckpt} --output {ckpt} --num_kv_heads 2',
        'is the source',
    ),
    (
        'convert --input {ckpt} --output {ckpt}/../mha/new --num_kv_heads 2',
        'lies in the source',
    ),
    (
        'convert --input {ckpt} --output {link}/new --num_kv_heads 2',
        'lies in the source',
    ),
    (
        'convert --input {ckpt} --output {file}/new --num_kv_heads 2',
        'file.txt: is a file, not a folder; check the path',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --method svd'
        ' --calibration_data {new}',
        'check',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --method svd'
        ' --calibration_data {bytes}',
        'UTF-8',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --group_by x',
        'order',
    ),
    (
        'convert --input {ckpt} --output {new} --num_kv_heads 2 --format t5x',
        'expected a folder named checkpoint_',
    ),
    ('convert --input {ckpt} --output {new} --num_kv_heads 1e3', '1e3'),
    ('plan --model xxl', '--device'),
    ('plan --model xxl --checkpoint {ckpt} --device h100', 'got both'),
    (
        'benchmark decode --checkpoint {ckpt} --largest_batch_in 1e-6'
        ' --num_kv_heads 1',
        'expected memory for one sample',
    ),
    ('plan --model xxl --device tpu-v9', 'tpu-v5p'),
    ('plan --model huge --device h100', 'xxl'),
    ('plan --model xxl --device h100 --bandwidth nan', "got 'nan'"),
    ('benchmark decode --model small --against vllm', "got 'vllm'"),
    (
        'benchmark decode --checkpoint {ckpt} --num_kv_heads 6'
        ' --batch_size 99999999999999999999',
        'batch_size',
    ),
    ('figure {new}', 'check the path'),
    ('figure {file}', 'got something else'),
    ('figure gs://bucket/x.json', 'a path of this machine'),
    ('claims {new}', 'check the path'),
    ('claims {file}', 'got something else'),
    ('claims {folder}', 'of a finished run'),
    ('benchmark convert --model small --num_kv_heads 2 --folder=', 'empty one'),
    ('figure {file} --output {new}.png', 'a file named .svg'),
    ('figure {bytes}', 'got something else'),
    ('generate --checkpoint {ckpt} --input {folder}', 'check the path'),
    ('generate --checkpoint= text', 'got an empty one'),
    ('generate --checkpoint {ckpt} --input=', 'got an empty one'),
    ('generate --checkpoint {ckpt} --vocabulary= text', 'got an empty one'),
    ('completion ksh', 'ksh'),
    # Runs and reports.
    ('report {broken_run}', 'results.json'),
    ('reproduce --seeds 1,1 --output_dir {new}', 'seeds that differ'),
    ('reproduce --seeds 0 --output_dir {new}', "got '0'"),
    ('reproduce --scale paper --output_dir {new}', '--dry_run'),
    ('report {new}', 'results.json'),
    ('report {folder}', 'results.json'),
    ('reproduce --scale huge --output_dir {new}', 'smoke'),
    ('reproduce --experiment table9 --output_dir {new}', 'table1'),
    ('reproduce --scale smoke --output_dir {folder}', 'output_dir'),
    ('reproduce --scale smoke --output_dir {run}', 'another run'),
    ('reproduce --scale smoke --output_dir {cut_run}', 'copy it again'),
]

_FILE_TASK = """
from __gin__ import dynamic_registration
from gqa_t5x.engine import launch
from gqa_t5x.tasks import files
files.file_task:
  name = 'bad_input'
  kind = 'summarization'
  files = {{'train': '{path}'}}
launch.Cache:
  mixture_or_task_name = @files.file_task()
  task_feature_lengths = {{'inputs': 16, 'targets': 8}}
  splits = ('train',)
  cache_dir = '{cache}'
"""
_JSONL = {
    'empty': '',
    'bad': '{"document": "a", "summary": "b"}\n{"document": \n',
    'list': '["document"]\n',
    'field': '{"document": "a"}\n',
    'missing': None,
    'nul': '\0\0\0\n',
    'number': '{"document": 3, "summary": {}}\n',
    'utf16': b'\xff\xfe{\x00"\x00',
    'folder': 'folder',
}


@pytest.fixture(scope='module')
def places(checkpoint, tmp_path_factory):
  """Returns the values of the fields in `CASES`."""
  root = tmp_path_factory.mktemp('bad_input')
  (root / 'folder').mkdir()
  (root / 'folder' / 'mine.txt').write_text('precious')
  (root / 'scored').mkdir()
  (root / 'scored' / 'metrics.json').write_text('{"bleu": 30}')
  (root / 'run').mkdir()
  (root / 'run' / 'run.json').write_text('{"scale": "laptop"}')
  (root / 'file.txt').write_text('a line\n')
  (root / 'bytes.txt').write_bytes(b'good\n\xff\xfe\n')
  other = pathlib.Path(pretrained.VOCABULARY_PATH).read_bytes()
  # A model without its last piece is another model.
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto.FromString(other)
  del proto.pieces[-1]
  (root / 'other.model').write_bytes(proto.SerializeToString())
  (root / 'pickle.pkl').write_bytes(pickle.dumps({'a': 1}))
  for name, inside in (
      ('pickle_hf', 'pytorch_model.bin'), ('pickle_t5x', 'checkpoint')
  ):  # pyformat: disable
    (root / name).mkdir()
    (root / name / inside).write_bytes(pickle.dumps({'a': 1}))
    (root / name / 'config.json').write_text(
        '{"vocab_size": 8, "d_model": 8, "num_heads": 2, "num_layers": 1,'
        ' "d_kv": 4, "d_ff": 8}'
    )
  (root / 'no_config').mkdir()
  (root / 'no_config' / 'model.safetensors').write_bytes(b'x' * 9)
  (root / 'loop').symlink_to(root / 'loop')
  (root / 'dangling').symlink_to(root / 'nowhere')
  (root / 'link').symlink_to(checkpoint)
  (root / 'cut_run').mkdir()
  (root / 'cut_run' / 'run.json').write_text('{"scale')
  (root / 'broken_run').mkdir()
  (root / 'broken_run' / 'results.json').write_text('{"scale": [')
  found = {
      'pickle': str(root / 'pickle.pkl'),
      'pickle_hf': str(root / 'pickle_hf'),
      'pickle_t5x': str(root / 'pickle_t5x'),
      'no_config': str(root / 'no_config'),
      'loop': str(root / 'loop'),
      'dangling': str(root / 'dangling'),
      'link': str(root / 'link'),
      'long': str(root / ('x' * 5000)),
      'broken_run': str(root / 'broken_run'),
      'ckpt': checkpoint,
      'new': str(root / 'new'),
      'folder': str(root / 'folder'),
      'scored': str(root / 'scored'),
      'run': str(root / 'run'),
      'cut_run': str(root / 'cut_run'),
      'file': str(root / 'file.txt'),
      'bytes': str(root / 'bytes.txt'),
      'other': str(root / 'other.model'),
      'root': str(root),
  }
  for name, text in _JSONL.items():
    path = root / f'{name}.jsonl'
    if name == 'folder':
      path.mkdir()
    elif isinstance(text, bytes):
      path.write_bytes(text)
    elif text is not None:
      path.write_text(text)
    gin = root / f'{name}_jsonl.gin'
    gin.write_text(_FILE_TASK.format(path=path, cache=root / 'cache'))
    found[f'{name}_jsonl'] = str(gin)
  return found


def _tree(folder):
  return {
      path: path.read_bytes() if path.is_file() else None
      for path in pathlib.Path(folder).rglob('*')
  }


@pytest.mark.parametrize('words, part', CASES, ids=[c[0][:60] for c in CASES])
def test_one_line_exit_2_nothing_written(
    words, part, places, tmp_path, monkeypatch, capfd
):
  for module in ('seqio', 'sentencepiece'):
    pytest.importorskip(module)
  monkeypatch.chdir(tmp_path)
  before = _tree(places['root'])
  status = cli.main(words.format(**places).split())
  out, err = capfd.readouterr()
  last = err.splitlines()[-1]
  assert status == 2, err
  assert out == ''
  assert last.startswith('gqa-t5x') and part in last, last
  assert 'Traceback' not in err
  assert _tree(places['root']) == before
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_no_space_left(checkpoint):
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
        [sys.executable, '-m', 'gqa_t5x', 'inspect', checkpoint],
        stdout=full,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith(
      'gqa-t5x: no space left on device; free some'
  )


def test_heads_are_checked_in_one_place():
  """The message that `CASES` shortens to 'choose', in full."""
  with pytest.raises(ValueError, match=r'num_heads=6 .*num_kv_heads=4; choose'):
    network.T5Config(vocab_size=8, num_heads=6, num_kv_heads=4)
