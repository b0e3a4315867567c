# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The network inside the real t5x: its model, ours, and our own decoding."""

import functools
import glob
import os
import types

import jax
import numpy as np
import pytest

from gqa_t5x import decoding
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference

pytestmark = pytest.mark.t5x

VOCAB_SIZE = 41
MAX_LEN = 12
BATCH = 3
each_grouping = pytest.mark.parametrize('num_kv_heads', [6, 2, 1])


@functools.cache
def model_and_params(num_kv_heads):
  config = T5Config(
      vocab_size=VOCAB_SIZE,
      emb_dim=24,
      num_heads=6,
      num_kv_heads=num_kv_heads,
      num_encoder_layers=2,
      num_decoder_layers=2,
      head_dim=4,
      mlp_dim=32,
      mlp_activations=('gelu', 'linear'),
  )
  return Transformer(config), hf_reference.random_params(config, seed=7)


def t5x_model(kind, module, decode_fn):
  """t5x's stock model, or ours, around the same module."""
  import seqio
  from t5x import adafactor
  from t5x import models

  from gqa_t5x import t5x_plugin

  cls = {
      'stock': models.EncoderDecoderModel,
      'ours': t5x_plugin.EncoderDecoderModel,
  }[kind]
  vocabulary = seqio.PassThroughVocabulary(VOCAB_SIZE, eos_id=1)
  return cls(
      module=module,
      input_vocabulary=vocabulary,
      output_vocabulary=vocabulary,
      optimizer_def=adafactor.Adafactor(),
      decode_fn=decode_fn,
  )


def batch(prompts=False):
  random = np.random.RandomState(3)
  inputs = random.randint(2, VOCAB_SIZE, (BATCH, 17)).astype(np.int32)
  inputs[1, 9:] = 0
  targets = np.zeros((BATCH, MAX_LEN), np.int32)
  if prompts:
    targets[:, 1:3] = random.randint(2, VOCAB_SIZE, (BATCH, 2))
    targets[1, 2] = 0
  return {'encoder_input_tokens': inputs, 'decoder_input_tokens': targets}


def predict(kind, num_kv_heads, decode_fn, prompts=False, **options):
  """Tokens [B, L] and scores [B], or [B, R, L] and [B, R] of all decodes."""
  module, params = model_and_params(num_kv_heads)
  model = t5x_model(kind, module, decode_fn)

  @jax.jit
  def run(params, batch):
    return model.predict_batch_with_aux(
        params, batch, prompt_with_targets=prompts, **options
    )

  tokens, auxiliary = run(params, batch(prompts))
  return np.asarray(tokens), np.asarray(auxiliary['scores'])


def own_tokens(num_kv_heads, **options):
  """What gqa_t5x.generate gives, which puts 0 after EOS."""
  return np.asarray(
      decoding.generate(
          *model_and_params(num_kv_heads),
          batch()['encoder_input_tokens'],
          max_decode_len=MAX_LEN,
          **options,
      )
  )


def until_eos(tokens):
  """t5x may leave anything after EOS."""
  ended = np.cumsum(tokens == 1, -1) - (tokens == 1) > 0
  return np.where(ended, 0, tokens)


def without_padding(tokens):
  """0 to the end: a prompt that was prefilled makes t5x drop leading ones."""
  is_padding = tokens == 0
  order = np.argsort(is_padding, axis=-1, kind='stable')
  return np.take_along_axis(tokens, order, axis=-1)


@each_grouping
@pytest.mark.parametrize('kind', ['stock', 'ours'])
def test_greedy_tokens_are_those_of_generate(kind, num_kv_heads):
  from t5x import decoding as t5x_decoding

  greedy = functools.partial(
      t5x_decoding.temperature_sample, temperature=0.0, topk=1
  )
  tokens, _ = predict(kind, num_kv_heads, greedy, num_decodes=1)
  np.testing.assert_array_equal(
      until_eos(tokens), own_tokens(num_kv_heads, method='greedy')
  )


@each_grouping
@pytest.mark.parametrize('kind', ['stock', 'ours'])
def test_beam_tokens_are_those_of_generate(kind, num_kv_heads):
  from t5x import decoding as t5x_decoding

  # It does not divide the scores of sequences that are cut; at alpha 0 there is
  # nothing to divide by. And it prefers one that ended to a better one that did
  # not.
  beam = functools.partial(t5x_decoding.beam_search, alpha=0.0)
  tokens, _ = predict(kind, num_kv_heads, beam, num_decodes=3)
  expected = own_tokens(
      num_kv_heads, method='beam', num_beams=3, length_penalty=0.0
  )
  same = (expected == 1).any(-1) | ~(tokens == 1).any(-1)
  assert same.sum() >= 2
  np.testing.assert_array_equal(until_eos(tokens)[same], expected[same])


@each_grouping
@pytest.mark.parametrize(
    ('name', 'prompts'),
    # Beams of prompts of several lengths end elsewhere once they are prefilled,
    # see the notes of t5x's beam_search.
    [
        ('temperature_sample', False),
        ('temperature_sample', True),
        ('beam_search', False),
    ],
)
def test_our_model_decodes_as_the_stock_one(name, prompts, num_kv_heads):
  from t5x import decoding as t5x_decoding

  decode_fn = getattr(t5x_decoding, name)
  (stock, stock_scores), (ours, scores) = (
      predict(
          kind,
          num_kv_heads,
          decode_fn,
          prompts,
          num_decodes=4,
          return_all_decodes=True,
      )
      for kind in ('stock', 'ours')
  )
  assert ours.shape == (BATCH, 4, MAX_LEN)
  np.testing.assert_allclose(scores, stock_scores, rtol=1e-5)
  is_found = scores > -1e6  # Else fewer ended than there are beams.
  np.testing.assert_array_equal(
      without_padding(ours)[is_found], without_padding(stock)[is_found]
  )


def test_beams_share_the_cross_attention_cache():
  """Nothing of the size of the expanded K/V occurs in our decoding loop."""
  from t5x import decoding as t5x_decoding

  module, params = model_and_params(2)

  def compiled(kind):
    model = t5x_model(kind, module, t5x_decoding.beam_search)
    run = functools.partial(model.predict_batch_with_aux, num_decodes=4)
    return jax.jit(run).lower(params, batch()).as_text()

  expanded, shared = '12x2x17x4xf32', '3x2x17x4xf32'
  assert expanded in compiled('stock')
  ours = compiled('ours')
  assert expanded not in ours
  assert shared in ours


@pytest.mark.parametrize('slots', ['pool', 'reset'])
def test_conversion_on_restore_is_the_offline_one(tmp_path, slots):
  """A legacy multi-head checkpoint, restored as K = 2 by t5x itself."""
  import seqio
  from t5x import adafactor
  from t5x import checkpoints as t5x_checkpoints
  from t5x import state_utils
  from t5x import utils

  from gqa_t5x import conversion
  from gqa_t5x import t5x_plugin

  # t5x has a CPU's devices share a model: two, where a test before had them.
  vocab_size = VOCAB_SIZE + 1

  def checkpointer(num_kv_heads, folder):
    config = T5Config(
        vocab_size=vocab_size,
        emb_dim=128,
        num_heads=6,
        num_kv_heads=num_kv_heads,
        num_encoder_layers=1,
        num_decoder_layers=1,
        head_dim=64,
        mlp_dim=32,
        mlp_activations=('gelu', 'linear'),
    )
    vocabulary = seqio.PassThroughVocabulary(vocab_size, eos_id=1)
    partitioner = t5x_plugin.PjitPartitioner(config, num_partitions=1)
    state = utils.TrainStateInitializer(
        optimizer_def=adafactor.Adafactor(
            logical_factor_rules=adafactor.standard_logical_factor_rules()
        ),
        init_fn=t5x_plugin.EncoderDecoderModel(
            module=Transformer(config),
            input_vocabulary=vocabulary,
            output_vocabulary=vocabulary,
            optimizer_def=adafactor.Adafactor(),
        ).get_initial_variables,
        input_shapes={
            'encoder_input_tokens': (1, 4),
            'decoder_input_tokens': (1, 4),
        },
        input_types=dict.fromkeys(
            ('encoder_input_tokens', 'decoder_input_tokens'), np.int32
        ),
        partitioner=partitioner,
    ).from_scratch(jax.random.key(num_kv_heads))
    random = np.random.RandomState(5)
    states = jax.tree.map(
        lambda x: random.uniform(size=x.shape).astype(np.float32),
        state.state_dict()['state']['param_states'],
    )
    whole = state.state_dict()
    whole['state'] = {'step': np.int32(40), 'param_states': states}
    state = state.restore_state(whole)
    return config, state, t5x_checkpoints.Checkpointer(
        state, partitioner, str(folder)
    )

  _, multi_head, writer = checkpointer(6, tmp_path / 'mha')
  writer.save(multi_head)
  path = str(tmp_path / 'mha' / 'checkpoint_40')
  config, grouped, reader = checkpointer(2, tmp_path / 'gqa')
  convert = functools.partial(
      t5x_plugin.convert_on_restore,
      config=config,
      checkpoint_path=path,
      slots=slots,
  )
  restored = reader.restore(path=path, state_transformation_fns=[convert])
  restored, before = restored.state_dict(), multi_head.state_dict()
  heads = dict(num_heads=6, num_kv_heads=2)
  expected = {
      'target': conversion.convert_params(before['target'], **heads),
      'state': {
          'step': np.int32(40),
          'param_states': conversion.convert_optimizer_slots(
              before['state']['param_states'],
              before['target'],
              slots=slots,
              **heads,
          ),
      },
  }
  jax.tree.map(np.testing.assert_array_equal, restored, expected)

  # As new_optimizer.gin has it.
  without_states = functools.partial(
      state_utils.apply_assignment_map,
      assignment_map=[('state/param_states/.*', None)],
  )
  new = grouped.state_dict()
  restored = reader.restore(
      path=path,
      state_transformation_fns=[without_states, convert],
      fallback_state=new,
  ).state_dict()
  expected['state']['param_states'] = new['state']['param_states']
  jax.tree.map(np.testing.assert_array_equal, restored, expected)

  reader.save(grouped)
  resume = functools.partial(convert, is_resuming=True)
  resumed = reader.restore(step=40, state_transformation_fns=[resume])
  jax.tree.map(
      np.testing.assert_array_equal,
      resumed.state_dict()['target'],
      grouped.state_dict()['target'],
  )


def test_conversion_on_restore_says_what_it_takes(tmp_path):
  from gqa_t5x import t5x_plugin

  (tmp_path / '_METADATA').write_text('{}')  # As in t5x's Orbax format.
  with pytest.raises(UserError, match='legacy format to convert on restore'):
    t5x_plugin.convert_on_restore(
        {}, {}, config=T5Config(VOCAB_SIZE), checkpoint_path=str(tmp_path)
    )


@pytest.mark.parametrize(
    'topology,options,shape',
    [
        ('v4:2x2x2', {'num_partitions': 4}, (2, 4)),
        ('v4:2x2x2', {'model_parallel_submesh': (2, 2, 2, 1)}, (1, 8)),
        ('v4:2x2x2', {'model_parallel_submesh': (2, 2, 1, 1)}, (2, 4)),
        ('v4:4x4x4', {'num_partitions': 8}, (8, 8)),
        ('v5e:2x4', {'model_parallel_submesh': (2, 4, 1, 1)}, (1, 8)),
    ],
)
def test_meshes_of_docs_and_gin_files(monkeypatch, topology, options, shape):
  """On libtpu's own description of the slices."""
  pytest.importorskip('libtpu')
  from gqa_t5x import t5x_plugin
  from gqa_t5x.benchmark import tpu_compile

  chips = list(tpu_compile.topology_devices(topology))
  local = [chip for chip in chips if chip.process_index == 0]
  monkeypatch.setattr(jax, 'devices', lambda *_: chips)
  monkeypatch.setattr(jax, 'local_devices', lambda *_, **__: local)
  monkeypatch.setattr(jax, 'local_device_count', lambda *_: len(local))
  config, _ = model_and_params(6)
  options = {'num_partitions': None, **options}
  mesh = t5x_plugin.PjitPartitioner(config.config, **options).mesh
  assert (mesh.shape['data'], mesh.shape['model']) == shape


@pytest.fixture(name='bucket')
def _bucket(tmp_path, monkeypatch):
  """A folder that etils and t5x take for gs://bucket."""
  storage = pytest.importorskip('google.cloud.storage')
  from etils.epath import backend
  from orbax.checkpoint._src.path import gcs_utils
  from t5x import checkpoints
  from t5x import checkpoints_utils

  def local(path):
    assert str(path).startswith('gs://')
    return str(tmp_path / str(path).removeprefix('gs://'))

  class Bucket(backend._OsPathBackend):

    def __getattribute__(self, name):
      found = object.__getattribute__(self, name)
      if name.startswith('_') or not callable(found):
        return found
      return lambda path, *args, **kwargs: found(local(path), *args, **kwargs)

  files = types.SimpleNamespace(
      isdir=lambda path: os.path.isdir(local(path)),
      exists=lambda path: os.path.exists(local(path)),
      glob=lambda pattern: glob.glob(local(pattern)),
  )
  flat = types.SimpleNamespace(hierarchical_namespace_enabled=False)
  client = types.SimpleNamespace(get_bucket=lambda name: flat)
  gcs_utils.get_bucket.cache_clear()
  monkeypatch.setattr(storage, 'Client', lambda: client)
  monkeypatch.setattr(backend, 'tf_backend', Bucket())
  monkeypatch.setattr(checkpoints, 'gfile', files)
  monkeypatch.setattr(checkpoints_utils, 'gfile', files)
  yield tmp_path / 'bucket'
  gcs_utils.get_bucket.cache_clear()


def start_manager(directory):
  """As t5x starts it; returns it when what it does at first is done."""
  from t5x import checkpoints
  from t5x import partitioning

  layout = partitioning.DataLayout(1, 0, 1, True)
  manager = checkpoints.OrbaxCheckpointManagerInterface(
      directory=directory,
      train_state=None,
      partitioner=types.SimpleNamespace(get_data_layout=lambda: layout),
  )
  manager._manager._maybe_await_cleanup_tmp_directory()
  return manager


def test_a_start_in_a_bucket_deletes_nothing(bucket):
  import gqa_t5x.t5x_plugin  # noqa: F401  It makes it so.
  from t5x import checkpoints

  kept = [
      'run/checkpoint_20/commit_success.txt', 'run/checkpoint_20/state/x',
      'run/checkpoint_30/state/half', 'run/inference_eval/scores.jsonl',
      'run/arxiv/checkpoint_25/commit_success.txt', 'run/train/events',
      'public/checkpoint_7/checkpoint', 'public/checkpoint_7/target.x/.zarray',
  ]  # pyformat: disable
  for name in kept:
    (bucket / name).parent.mkdir(parents=True, exist_ok=True)
    (bucket / name).write_text('x')
  manager = start_manager('gs://bucket/run')
  assert list(manager.all_steps()) == [20]
  start_manager('gs://bucket/public/checkpoint_7')  # As t5x.infer does.
  assert all((bucket / name).exists() for name in kept)
  # A run goes on from what was written to its end.
  assert checkpoints.all_steps('gs://bucket/run') == [20]
  assert checkpoints.all_steps('gs://bucket/public') == [7]


def test_what_a_kill_left_on_a_disk_is_removed_as_ever(tmp_path):
  from gqa_t5x import t5x_plugin
  from t5x import checkpoints

  assert issubclass(
      checkpoints.OrbaxCheckpointManagerInterface._CheckpointManagerImpl,
      t5x_plugin._CheckpointManager,
  )
  for name in ('checkpoint_20', 'checkpoint_30.orbax-checkpoint-tmp', 'train'):
    (tmp_path / name).mkdir()
  start_manager(str(tmp_path))
  assert sorted(os.listdir(tmp_path)) == ['checkpoint_20', 'train']
  assert checkpoints.all_steps(str(tmp_path)) == [20]
