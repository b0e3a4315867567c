# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's checkpoints: what transformers wrote, and what it reads.

The first half reads stored checkpoints and needs nothing else; the last test
asks the real transformers where it is installed.
"""

import dataclasses
import json
import shutil
import struct
import subprocess
import sys

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x import decoding
from gqa_t5x.checkpoints import hf
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_hf_checkpoints as golden
from tests.golden import unpack
from tests.test_t5x_checkpoints import assert_same, full_slots

CONFIG = golden.T5_1_1
METADATA = {'config': CONFIG.to_dict(), 'step': 3, 'conversion': None}


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  """The folder of the golden checkpoints; not to be written to."""
  return unpack(golden.PATH, tmp_path_factory.mktemp('golden'))


@pytest.fixture
def sharded(tmp_path):
  """A copy of a checkpoint in shards, to damage."""
  return unpack(golden.PATH, tmp_path) / 't5_1_1'


@pytest.mark.parametrize('name', golden.CONFIGS)
def test_reads_what_transformers_wrote(stored, name):
  path, config = stored / name, golden.CONFIGS[name]
  assert checkpoints.detect_format(str(path)) == 'hf'
  params, metadata = checkpoints.load_checkpoint(str(path))
  dtype = jnp.bfloat16 if name == 'byt5' else jnp.float32
  expected = jax.tree.map(lambda x: x.astype(dtype), golden.random_params(name))
  assert_same(params, expected)
  assert T5Config(**metadata['config']) == config
  assert metadata['step'] is None and metadata['conversion'] is None
  # And they mean the same there.
  outputs = json.loads((path / 'outputs.json').read_text())
  params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  inputs, targets = jnp.asarray(golden.INPUTS), jnp.asarray(golden.TARGETS)
  shifted = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  logits = Transformer(config).apply(
      {'params': params}, inputs, shifted, targets, enable_dropout=False
  )
  np.testing.assert_allclose(logits, outputs['logits'], rtol=1e-4, atol=1e-5)
  assert _greedy(config, params) == _padded(outputs['tokens'])


def _greedy(config, params):
  tokens = decoding.generate(
      Transformer(config),
      params,
      jnp.asarray(golden.INPUTS),
      max_decode_len=golden.MAX_DECODE_LEN,
  )
  return np.asarray(tokens).tolist()


def _padded(tokens):
  """transformers stops when all have ended."""
  length = golden.MAX_DECODE_LEN
  return [row + [0] * (length - len(row)) for row in tokens]


@pytest.mark.parametrize(
    'left_out', [(), ('shared',), ('shared', 'encoder.embed_tokens')]
)
def test_reads_float16_and_old_copies_by_hand(tmp_path, left_out):
  """As older versions wrote it, and others, with fewer names of one array."""
  numpy_io = pytest.importorskip('safetensors.numpy')
  params = jax.tree.map(
      lambda x: np.asarray(x, np.float16), golden.random_params('t5_1_1')
  )
  state = {}
  for path, value in traverse_util.flatten_dict(params).items():
    name, is_transposed = hf_reference.hf_name(path)
    state[name] = np.ascontiguousarray(value.T if is_transposed else value)
  for stack in ('encoder', 'decoder'):
    state[f'{stack}.embed_tokens.weight'] = state['shared.weight']
  layer = 'decoder.block.0.layer.1.EncDecAttention'
  state[f'{layer}.relative_attention_bias.weight'] = np.ones((32, 4))
  for name in left_out:
    del state[f'{name}.weight']
  numpy_io.save_file(state, str(tmp_path / 'model.safetensors'))
  (tmp_path / 'config.json').write_text(
      json.dumps({
          'model_type': 't5', 'vocab_size': 19, 'd_model': 7, 'd_kv': 3,
          'd_ff': 5, 'num_layers': 1, 'num_heads': 4, 'tie_word_embeddings':
          False, 'feed_forward_proj': 'gated-gelu', 'dropout_rate': 0.2,
      })
  )  # pyformat: disable
  got, metadata = checkpoints.load_checkpoint(str(tmp_path))
  assert_same(got, params)
  assert T5Config(**metadata['config']) == dataclasses.replace(
      CONFIG, dropout_rate=0.2
  )


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_library_reads_what_we_write(tmp_path, dtype):
  safetensors = pytest.importorskip('safetensors')
  torch_free = pytest.importorskip('safetensors.numpy')
  config = dataclasses.replace(CONFIG, num_kv_heads=2)
  params = jax.tree.map(
      lambda x: x.astype(dtype), hf_reference.random_params(config, 0)
  )
  checkpoints.save_checkpoint(
      str(tmp_path / 'x'),
      params,
      format='hf',
      metadata=METADATA | {'config': config.to_dict()},
  )
  file = str(tmp_path / 'x' / 'model.safetensors')
  with safetensors.safe_open(file, 'np') as opened:
    assert opened.metadata() == {'format': 'pt'}
    names = set(opened.keys())
  repeated = traverse_util.flatten_dict(hf_reference.repeat_kv(params, config))
  assert names == {hf_reference.hf_name(path)[0] for path in repeated}
  if dtype == jnp.float32:
    found = torch_free.load_file(file)
    for path, value in repeated.items():
      name, is_transposed = hf_reference.hf_name(path)
      value = np.asarray(value.T if is_transposed else value)
      np.testing.assert_array_equal(found[name], value)
  written = json.loads((tmp_path / 'x' / 'config.json').read_text())
  assert (written['d_kv'], written['num_heads']) == (3, 4)
  assert written['decoder_start_token_id'] == written['pad_token_id'] == 0


def test_neither_torch_nor_the_library_is_needed(stored, tmp_path):
  code = f"""
import sys
for name in ('tensorflow', 't5x', 'seqio', 'gin', 'torch', 'transformers',
             'safetensors'):
  sys.modules[name] = None
from gqa_t5x import conversion
conversion.convert_checkpoint({str(stored / 't5_1_1')!r},
                              {str(tmp_path / 'x')!r}, num_kv_heads=2)
"""
  subprocess.run([sys.executable, '-c', code], check=True)
  assert checkpoints.detect_format(str(tmp_path / 'x')) == 'hf'


@pytest.mark.parametrize('num_kv_heads', [4, 2])
def test_round_trip_through_all_formats(tmp_path, monkeypatch, num_kv_heads):
  """t5x -> Orbax -> Hugging Face -> t5x, bit for bit."""
  monkeypatch.setattr(hf, 'SHARD_BYTES', 3000)
  config = dataclasses.replace(
      CONFIG, num_kv_heads=num_kv_heads, dtype=jnp.bfloat16
  )
  params = hf_reference.random_params(config, 0)
  first, last = str(tmp_path / 'checkpoint_3'), str(tmp_path / 'z/checkpoint_3')
  checkpoints.save_checkpoint(
      first,
      params,
      format='t5x',
      metadata=METADATA | {'config': config.to_dict()},
      param_states=full_slots(params),
  )
  source = first
  for format in ('orbax', 'hf', 't5x'):
    target = last if format == 't5x' else str(tmp_path / format)
    conversion.convert_checkpoint(
        source, target, num_kv_heads=num_kv_heads, format=format
    )
    assert checkpoints.detect_format(target) == format
    source = target
  (got, metadata), (expected, expected_metadata) = (
      checkpoints.load_checkpoint(path) for path in (last, first)
  )
  assert_same(got, expected)
  assert metadata == expected_metadata


def test_an_exported_gqa_model_comes_back_with_its_few_heads(tmp_path):
  config = dataclasses.replace(CONFIG, num_kv_heads=2)
  params = hf_reference.random_params(config, 0)
  path = str(tmp_path / 'x')
  checkpoints.save_checkpoint(
      path,
      params,
      format='hf',
      metadata=METADATA | {'config': config.to_dict()},
  )
  got, metadata = checkpoints.load_checkpoint(path)
  assert_same(got, params)
  assert metadata == METADATA | {'config': config.to_dict()}


def test_config_json_keeps_what_is_for_others(tmp_path, stored):
  """Such as the prefixes of T5 1.0's tasks; over another format too."""
  source, through, target = (tmp_path / name for name in 'abc')
  shutil.copytree(stored / 't5_1_1', source)
  others = {
      'task_specific_params': {'summarization': {'prefix': 'summarize: '}},
      'n_positions': 512,
  }
  of_weights = {'scale_decoder_outputs': False, 'quantization_config': {}}
  _edit(source / 'config.json', **others, **of_weights)
  conversion.convert_checkpoint(
      str(source), str(through), num_kv_heads=2, format='orbax'
  )
  conversion.convert_checkpoint(
      str(through), str(target), num_kv_heads=1, format='hf'
  )
  written = json.loads((target / 'config.json').read_text())
  assert {key: written[key] for key in others} == others
  assert not written.keys() & of_weights.keys()


def test_a_tokenizer_comes_along(tmp_path, stored):
  source, target = tmp_path / 'source', tmp_path / 'target'
  shutil.copytree(stored / 't5_1_1', source)
  for name in ('spiece.model', 'tokenizer_config.json', 'notes.txt'):
    (source / name).write_text(name)
  conversion.convert_checkpoint(str(source), str(target), num_kv_heads=2)
  assert (target / 'spiece.model').read_text() == 'spiece.model'
  assert (target / 'tokenizer_config.json').exists()
  assert not (target / 'notes.txt').exists()
  got, _ = checkpoints.load_checkpoint(str(target))  # The manifest has them.
  (target / 'spiece.model').write_text('Spiece.model')
  with pytest.raises(UserError, match='spiece.model is damaged'):
    checkpoints.open_checkpoint(str(target)).source.check_all()
  with pytest.raises(UserError, match='spiece.model is damaged'):
    conversion.convert_checkpoint(
        str(target), str(tmp_path / 'x'), num_kv_heads=1
    )


def _edit(file, **values):
  file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _first_shard(folder):
  return folder / 'model-00001-of-00004.safetensors'


def _edit_header(file, old: bytes, new: bytes):
  data = file.read_bytes()
  assert old in data and len(old) == len(new)
  file.write_bytes(data.replace(old, new, 1))


def _drop_embedding(folder):
  """Leaves one file without the tensors of the others."""
  _first_shard(folder).rename(folder / 'model.safetensors')


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            lambda f: _edit(f / 'config.json', model_type='umt5'),
            'expected model_type t5 or mt5 .*got umt5',
        ),
        (
            lambda f: _edit(
                f / 'config.json', relative_attention_num_buckets=64
            ),
            'expected relative_attention_num_buckets 32 .*got 64',
        ),
        (
            lambda f: _edit(f / 'config.json', feed_forward_proj='gated-silu'),
            'expected feed_forward_proj relu or gated-gelu .*got gated-silu',
        ),
        (
            lambda f: _edit(f / 'config.json', dense_act_fn='silu'),
            'expected dense_act_fn relu or gelu_new .*got silu',
        ),
        (
            lambda f: _edit(f / 'config.json', eos_token_id=2),
            'expected eos_token_id 1 .*got 2',
        ),
        (
            lambda f: _edit(f / 'config.json', decoder_start_token_id=5),
            'expected decoder_start_token_id 0 .*got 5',
        ),
        (
            lambda f: _edit(f / 'config.json', pad_token_id=3),
            'expected pad_token_id 0 .*got 3',
        ),
        (
            lambda f: _edit(f / 'config.json', num_heads=0),
            'config.json is of no T5: expected num_heads of at least 1, got 0',
        ),
        (
            lambda f: _edit(f / 'config.json', dropout_rate=None),
            'config.json is of no T5: expected dropout_rate to be a number',
        ),
        (
            lambda f: _edit(f / 'config.json', d_kv=None),
            'config.json has no number d_kv',
        ),
        (
            lambda f: (f / 'config.json').write_text('[]'),
            'config.json has no keys',
        ),
        (
            lambda f: _edit(f / 'config.json', d_ff=6),
            r'mlp/wi_0/kernel of shape \(7, 6\).*got \(7, 5\)',
        ),
        (
            lambda f: _edit(f / 'config.json', num_layers=2),
            'encoder/layers_1/.* of shape .*got none',
        ),
        (
            lambda f: _edit(f / 'config.json', vocab_size=7),
            r'token_embedder/embedding of shape \(7, 7\)',
        ),
        (
            lambda f: (f / 'config.json').write_text('{'),
            'cannot be read: config.json is no JSON',
        ),
        (
            lambda f: _first_shard(f).write_bytes(b'\x01'),
            'ends inside its header',
        ),
        (
            lambda f: _first_shard(f).write_bytes(
                _first_shard(f).read_bytes()[:-1]
            ),
            'bytes, expected .* by its header',
        ),
        (
            lambda f: _first_shard(f).write_bytes(
                struct.pack('<Q', 2**40) + b'{}'
            ),
            'ends inside its header',
        ),
        (lambda f: _first_shard(f).unlink(), 'model-00001-of-00004'),
        (
            lambda f: _edit_header(_first_shard(f), b'"F32"', b'"I32"'),
            'expected numbers of F64, F32, .* of I32; .*quantized',
        ),
        (
            lambda f: _first_shard(f).write_text(
                'version https://git-lfs.github.com/spec/v1\noid sha256:0\n'
            ),
            'got a pointer of git-lfs; run git lfs pull',
        ),
        (
            lambda f: _edit_header(_first_shard(f), b'layer', b'lxyer'),
            'is not in model-00001-of-00004',
        ),
        (
            lambda f: _edit(
                f / 'model.safetensors.index.json',
                weight_map={'shared.weight': '../x'},
            ),
            'outside the folder',
        ),
        (_drop_embedding, 'got none'),
    ],
)  # pyformat: disable
def test_damage_is_one_line(sharded, damage, message):
  damage(sharded)
  with pytest.raises(UserError, match=message) as error:
    checkpoints.load_checkpoint(str(sharded))
  assert '\n' not in str(error.value)


def _with_tensors(stored, tmp_path, name, change):
  """Returns a copy of a stored checkpoint in one file, its tensors changed."""
  numpy_io = pytest.importorskip('safetensors.numpy')
  folder = tmp_path / name
  shutil.copytree(stored / name, folder)
  files = list(folder.glob('*.safetensors'))
  tensors = {}
  for file in files:
    tensors |= numpy_io.load_file(file)
    file.unlink()
  (folder / hf.INDEX).unlink(missing_ok=True)
  numpy_io.save_file(change(tensors), folder / hf.WEIGHTS)
  return str(folder)


@pytest.mark.parametrize(
    'name, tensor',
    [
        ('t5_1_0', 'lm_head.weight'),  # Whose logits are of the embedding.
        ('t5_1_0', 'decoder.embed_tokens.weight'),
        ('t5_1_1', 'encoder.embed_tokens.weight'),
    ],
)
def test_what_is_tied_may_have_no_values_of_its_own(
    stored, tmp_path, name, tensor
):
  good, _ = checkpoints.load_checkpoint(str(stored / name))

  def added(value):
    return lambda x: x | {tensor: x['shared.weight'] + np.float32(value)}

  same = _with_tensors(stored, tmp_path / 'a', name, added(0))
  assert_same(checkpoints.load_checkpoint(same)[0], good)
  other = _with_tensors(stored, tmp_path / 'b', name, added(1))
  with pytest.raises(
      UserError, match=f'{tensor} .*values of shared.weight.*AutoModel'
  ):
    checkpoints.load_checkpoint(other)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda x: {f'base_model.model.{k}': v for k, v in x.items()},
            "'base_model.model.' before their names; .*merge_and_unload",
        ),
        (
            lambda x: {
                k: v for k, v in x.items() if k.startswith(('enc', 'shared'))
            },
            'got no decoder',
        ),
    ],
)
def test_a_t5_that_is_wrapped_or_cut(stored, tmp_path, change, message):
  path = _with_tensors(stored, tmp_path, 't5_1_1', change)
  with pytest.raises(UserError, match=message):
    checkpoints.load_checkpoint(path)


@pytest.mark.parametrize(
    'files, message',
    [
        (['checkpoint-500/config.json'], 'such as the last, .*checkpoint-500'),
        (['snapshots/1f/config.json'], 'cache of Hugging Face.*pass .*/1f'),
        (['adapter_config.json', 'x.safetensors'], 'an adapter of PEFT'),
        (['config.json'], 'beside config.json in .*got no weights'),
        (['config.json', 'tf_model.h5'], 'got tf_model.h5; .*AutoModelForSeq'),
        (['model.safetensors'], 'expected config.json'),
    ],
)
def test_folders_that_are_nearly_a_checkpoint(tmp_path, files, message):
  for file in files:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text('{}')
  with pytest.raises(UserError, match=message) as error:
    checkpoints.load_checkpoint(str(tmp_path))
  assert '\n' not in str(error.value)


def test_a_name_of_the_hub_is_to_be_downloaded(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match='hf download google/flan-t5-small'):
    checkpoints.load_checkpoint('google/flan-t5-small')


def test_files_of_other_programs_do_no_harm(stored, tmp_path):
  """Neither those that are in the way of nothing, nor their size."""
  source, target = tmp_path / 'source', tmp_path / 'target'
  shutil.copytree(stored / 't5_1_1', source)
  before = checkpoints.open_checkpoint(str(source)).source.source_hash()
  (source / 'checkpoint-500').mkdir()
  for name in ('checkpoint-500/optimizer.pt', 'training_args.bin'):
    (source / name).write_bytes(b'x')
  opened = checkpoints.open_checkpoint(str(source))
  assert opened.source.source_hash() == before
  conversion.convert_checkpoint(str(source), str(target), num_kv_heads=2)
  good, _ = checkpoints.load_checkpoint(str(target))
  for name in ('vocab.json', 'training_args.bin', '.DS_Store'):
    (target / name).write_bytes(b'x')
  assert_same(checkpoints.load_checkpoint(str(target))[0], good)
  (target / hf.INDEX).write_text('{}')  # Another checkpoint's, or half of one.
  with pytest.raises(UserError, match='does not list'):
    checkpoints.load_checkpoint(str(target))


def test_pickles_are_not_opened(tmp_path):
  (tmp_path / 'config.json').write_text(
      json.dumps({
          'vocab_size': 19, 'd_model': 7, 'd_kv': 3, 'd_ff': 5,
          'num_layers': 1, 'num_heads': 4,
      })
  )  # pyformat: disable
  (tmp_path / 'pytorch_model.bin').write_bytes(b'not even a pickle')
  with pytest.raises(UserError, match='a pickle, .*save_pretrained') as error:
    checkpoints.load_checkpoint(str(tmp_path))
  assert '\n' not in str(error.value)


def test_other_parameters_have_no_place(tmp_path):
  params = golden.random_params('t5_1_1') | {'mine': {'x': np.ones(3)}}
  with pytest.raises(UserError, match='got mine/x as well'):
    checkpoints.save_checkpoint(
        str(tmp_path / 'x'), params, format='hf', metadata=METADATA
    )
  assert not list(tmp_path.iterdir())


def test_other_activations_have_no_name(tmp_path):
  config = dataclasses.replace(CONFIG, mlp_activations=('silu', 'linear'))
  with pytest.raises(UserError, match=r"got \('silu', 'linear'\); choose"):
    checkpoints.save_checkpoint(
        str(tmp_path / 'x'),
        hf_reference.random_params(config, 0),
        format='hf',
        metadata=METADATA | {'config': config.to_dict()},
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('num_kv_heads', [4, 2, 1])
@pytest.mark.parametrize('name', ['t5_1_0', 't5_1_1'])
def test_transformers_runs_what_we_export(
    tmp_path, monkeypatch, name, num_kv_heads
):
  """In shards; logits and greedy tokens are those of the grouped model."""
  transformers = pytest.importorskip('transformers')
  torch = pytest.importorskip('torch')
  monkeypatch.setattr(hf, 'SHARD_BYTES', 3000)
  config = dataclasses.replace(golden.CONFIGS[name], num_kv_heads=num_kv_heads)
  params = hf_reference.random_params(config, 2)
  path = str(tmp_path / 'x')
  checkpoints.save_checkpoint(
      path,
      params,
      format='hf',
      metadata=METADATA | {'config': config.to_dict()},
  )
  model, info = transformers.T5ForConditionalGeneration.from_pretrained(
      path, output_loading_info=True
  )
  assert not any(info.values()), info
  model.eval()
  inputs, targets = golden.INPUTS, golden.TARGETS
  with torch.no_grad():
    logits = model(
        input_ids=torch.tensor(inputs), labels=torch.tensor(targets)
    ).logits
  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  ours = Transformer(config).apply(
      {'params': params},
      *map(jnp.asarray, (inputs, shifted, targets)),
      enable_dropout=False,
  )
  np.testing.assert_allclose(ours, logits.numpy(), rtol=1e-4, atol=1e-5)
  tokens = model.generate(
      torch.tensor(inputs), max_new_tokens=golden.MAX_DECODE_LEN
  )
  assert _greedy(config, params) == _padded(tokens[:, 1:].tolist())
