# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of key/value heads, against values worked out by hand."""

import dataclasses

from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x.conversion import optimizer_slots
from gqa_t5x.errors import UserError
from gqa_t5x.network import T5Config, Transformer
from tests import hf_reference
from tests.golden import make_network

CONFIG = T5Config(
    vocab_size=29,
    emb_dim=11,
    num_heads=8,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=3,
    mlp_dim=7,
    mlp_activations=('gelu', 'linear'),
)
KEY = ('decoder', 'layers_1', 'encoder_decoder_attention', 'key', 'kernel')


def _params():
  return hf_reference.random_params(CONFIG, seed=0)


def _flat(params):
  return traverse_util.flatten_dict(params)


def _convert(params, num_kv_heads, **kwargs):
  return conversion.convert_params(
      params, num_heads=8, num_kv_heads=num_kv_heads, **kwargs
  )


def test_mean_and_first_by_hand():
  params = _params()
  heads = np.asarray(_flat(params)[KEY]).reshape(11, 8, 3)
  mean = _flat(_convert(params, 2))[KEY]
  by_hand = np.concatenate(
      [heads[:, 0:4].mean(1), heads[:, 4:8].mean(1)], axis=1
  )
  np.testing.assert_allclose(mean, by_hand, atol=1e-6)
  first = _flat(_convert(params, 2, method='first'))[KEY]
  np.testing.assert_array_equal(
      first, np.concatenate([heads[:, 0], heads[:, 4]], axis=1)
  )


@pytest.mark.parametrize('method', ['mean', 'first', 'random'])
def test_only_decoder_keys_and_values_change(method):
  params = _params()
  before, after = _flat(params), _flat(_convert(params, 2, method=method))
  assert before.keys() == after.keys()
  changed = {p for p in before if before[p] is not after[p]}
  assert changed == {
      ('decoder', layer, attention, projection, 'kernel')
      for layer in ('layers_0', 'layers_1')
      for attention in ('self_attention', 'encoder_decoder_attention')
      for projection in ('key', 'value')
  }
  assert {after[p].shape for p in changed} == {(11, 6)}


@pytest.mark.parametrize('method', ['mean', 'first'])
def test_as_many_heads_as_before_is_bit_exact(method):
  before, after = _flat(_params()), _flat(_convert(_params(), 8, method=method))
  for path in before:
    np.testing.assert_array_equal(before[path], after[path])


@pytest.mark.parametrize('method', ['mean', 'first'])
def test_equal_heads_in_a_group_keep_the_logits(method):
  grouped = dataclasses.replace(CONFIG, num_kv_heads=2)
  params = make_network.random_params(grouped)
  multi_head = hf_reference.repeat_kv(params, grouped)
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(1, 29, (2, 5)))

  def logits(config, params):
    return Transformer(config).apply(
        {'params': params}, tokens, tokens, tokens, enable_dropout=False
    )

  np.testing.assert_allclose(
      logits(grouped, _convert(multi_head, 2, method=method)),
      logits(CONFIG, multi_head),
      atol=1e-5,
  )


def test_mean_in_two_steps_is_mean_in_one():
  params = _params()
  once = _flat(_convert(params, 1))
  twice = _flat(_convert(_convert(params, 4), 1))
  for path in once:
    np.testing.assert_allclose(once[path], twice[path], atol=1e-6)


def test_random_heads_have_the_initial_scale_and_follow_the_seed():
  config = dataclasses.replace(CONFIG, emb_dim=400, head_dim=40)
  params = hf_reference.random_params(config, seed=0)
  one, same, other = [
      _flat(_convert(params, 2, method='random', seed=seed))
      for seed in (1, 1, 2)
  ]
  np.testing.assert_array_equal(one[KEY], same[KEY])
  assert np.abs(one[KEY] - other[KEY]).min() < np.abs(one[KEY]).max()
  assert not np.array_equal(one[KEY], other[KEY])
  # Keys and values, and layers, get heads of their own.
  assert not np.array_equal(one[KEY], one[KEY[:3] + ('value', 'kernel')])
  np.testing.assert_allclose(np.std(one[KEY]), 1 / np.sqrt(400), rtol=0.02)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_kv_heads=3), 'choose 1, 2, 4 or 8'),
        (dict(num_kv_heads=2, method='median'), "method='median' is unknown"),
    ],
)
def test_refuses(kwargs, message):
  with pytest.raises(UserError, match=message):
    _convert(_params(), **kwargs)


def test_refuses_more_heads_than_there_are():
  with pytest.raises(UserError, match='has 2 key/value heads, which cannot'):
    _convert(_convert(_params(), 2), 4)


def test_refuses_a_wrong_number_of_query_heads():
  with pytest.raises(UserError, match='num_heads=7 does not fit'):
    conversion.convert_params(_params(), num_heads=7, num_kv_heads=1)


def test_refuses_what_is_no_t5():
  with pytest.raises(UserError, match='got a tree with params at its top'):
    _convert({'params': _params()}, 2)


def test_checkpoint_on_disk(tmp_path):
  source, target = str(tmp_path / 'mha'), str(tmp_path / 'gqa')
  checkpoints.save_checkpoint(
      source, _params(), metadata={'config': CONFIG.to_dict(), 'step': 7}
  )
  conversion.convert_checkpoint(source, target, num_kv_heads=4)
  params, metadata = checkpoints.load_checkpoint(target)
  expected = _flat(_convert(_params(), 4))
  for path, leaf in _flat(params).items():
    np.testing.assert_array_equal(leaf, expected[path])
  assert T5Config(**metadata['config']) == dataclasses.replace(
      CONFIG, num_kv_heads=4
  )
  assert metadata['step'] == 7
  assert metadata['conversion'] == {
      'method': 'mean',
      'seed': None,
      'group_by': 'order',
      'calibration': None,
      'from_num_kv_heads': 8,
      'slots': None,
  }


def test_nothing_is_written_where_the_conversion_is_refused(tmp_path):
  source, target = str(tmp_path / 'mha'), tmp_path / 'gqa'
  checkpoints.save_checkpoint(
      source, _params(), metadata={'config': CONFIG.to_dict(), 'step': 7}
  )
  with pytest.raises(UserError):
    conversion.convert_checkpoint(source, str(target), num_kv_heads=3)
  assert not target.exists()


def _pool(kernel_slots, emb_dim, head_dim, before, after, slots='pool'):
  return optimizer_slots.convert_kernel_slots(
      {'v_row': np.zeros(1), 'v_col': np.zeros(1), 'm': np.zeros(1)}
      | kernel_slots,
      emb_dim=emb_dim,
      head_dim=head_dim,
      from_num_kv_heads=before,
      num_kv_heads=after,
      slots=slots,
  )


@pytest.mark.parametrize('num_heads', [4, 2, 16])
def test_another_number_of_query_heads_is_noticed(num_heads):
  with pytest.raises(UserError, match='number of query heads, 8'):
    conversion.convert_params(_params(), num_heads=num_heads, num_kv_heads=1)


def test_slots_by_hand():
  # Four heads of two: head n has columns 2n and 2n + 1.
  v = np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.float32)
  new = _pool({'v': v, 'm': v.astype(jnp.bfloat16)}, 1, 2, 4, 2)
  np.testing.assert_array_equal(new['v'], [[4, 6, 12, 14]])  # Sums.
  np.testing.assert_array_equal(new['m'], [[2, 3, 6, 7]])  # Means.
  assert new['m'].dtype == jnp.bfloat16
  assert new['v_row'].shape == new['v_col'].shape == (1,)
  new = _pool({'v': v, 'm': v}, 1, 2, 4, 1, slots='reset')
  for name, shape in {'v': (1, 2), 'm': (1, 2), 'v_row': (1,)}.items():
    np.testing.assert_array_equal(new[name], np.zeros(shape))


def test_factored_slots_by_hand():
  over_emb = np.full(144, 5, np.float32)
  over_heads = np.repeat([1, 9, 2, 8], 64).astype(np.float32)
  old = {'v': np.zeros(1), 'v_row': over_emb, 'v_col': over_heads}
  # 144 x 128: now the heads are the shorter side.
  new = _pool(old, 144, 64, 4, 2)
  np.testing.assert_array_equal(new['v_row'], np.full(128, 10))
  np.testing.assert_array_equal(new['v_col'], np.full(144, 10))
  assert new['v'].shape == (1,)
  # 144 x 64 is not factored: the sum of all four heads everywhere.
  new = _pool(old, 144, 64, 4, 1)
  np.testing.assert_allclose(new['v'], np.full((144, 64), 20), rtol=1e-6)
  assert new['v_row'].shape == new['v_col'].shape == (1,)
  # Before the first step.
  old = {'v': np.zeros(1), 'v_row': np.zeros(144), 'v_col': np.zeros(256)}
  assert not _pool(old, 144, 64, 4, 1)['v'].any()


def test_as_many_heads_keep_the_slots():
  """Unless their kernels are drawn anew and their slots are to be too."""
  old = {'v': np.ones((3, 8)), 'v_row': 1, 'v_col': 2, 'm': 3}
  assert _pool(old, 3, 2, 4, 4) == old
  new = _pool(old, 3, 2, 4, 4, 'reset')
  np.testing.assert_array_equal(new['v'], np.zeros((3, 8)))


def _param_states(params):
  return traverse_util.path_aware_map(
      lambda path, leaf: {
          'v': np.ones(leaf.shape, np.float32),
          **{name: np.zeros(1, np.float32) for name in ('v_row', 'v_col', 'm')},
      },
      params,
  )


def test_only_slots_of_decoder_keys_and_values_change():
  params = _params()
  before = _param_states(params)
  after = conversion.convert_optimizer_slots(
      before, params, num_heads=8, num_kv_heads=2
  )
  before, after = _flat(before), _flat(after)
  assert before.keys() == after.keys()
  old, new = _flat(params), _flat(_convert(params, 2))
  changed = {p[:-1] for p in before if before[p] is not after[p]}
  assert changed == {p for p in new if new[p] is not old[p]}
  assert len(changed) == 8
  for path in changed:
    np.testing.assert_array_equal(after[path + ('v',)], np.full((11, 6), 4))


def test_slots_follow_heads_that_are_put_into_another_order():
  """Each slot holds the number of its head; groups are heads n and n + 4."""
  params = _params()
  order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
  orders = {p[:-2]: order for p in _flat(params) if p[-2:] == ('key', 'kernel')
            and p[0] == 'decoder'}  # pyformat: disable
  head_dim = CONFIG.head_dim
  of_head = np.arange(8).repeat(head_dim)

  def numbered(path, leaf):
    number = {
        'out': of_head[:, None], 'rel_embedding': np.arange(8)[:, None]
    }.get(path[-1] if path[-1] == 'rel_embedding' else path[-2], of_head)
    has_heads = path[-2] in ('query', 'key', 'value', 'out')
    if not has_heads and path[-1] != 'rel_embedding':
      number = 0
    unused = {name: np.zeros(1) for name in ('v_row', 'v_col', 'm')}
    return unused | {'v': np.broadcast_to(number, leaf.shape)}

  states = traverse_util.path_aware_map(numbered, params)
  new = _flat(
      conversion.convert_optimizer_slots(
          states, params, num_heads=8, num_kv_heads=4, orders=orders
      )
  )
  for attention in orders:
    for name, expected in (
        ('key', [4, 6, 8, 10]), ('value', [4, 6, 8, 10]), ('query', order),
    ):  # pyformat: disable
      np.testing.assert_array_equal(
          new[*attention, name, 'kernel', 'v'][0], np.repeat(expected, head_dim)
      )
    np.testing.assert_array_equal(
        new[*attention, 'out', 'kernel', 'v'][:, 0], np.repeat(order, head_dim)
    )
  bias = ('decoder', 'relpos_bias', 'rel_embedding', 'v')
  np.testing.assert_array_equal(new[bias][:, 0], order)
  encoder = ('encoder', 'layers_0', 'attention', 'query', 'kernel', 'v')
  np.testing.assert_array_equal(new[encoder], _flat(states)[encoder])


def test_factored_slots_follow_an_order_too():
  places = np.arange(256).reshape(4, 64)[[0, 2, 1, 3]].reshape(-1)
  slots = {
      'v_row': np.arange(144), 'v_col': np.arange(256),
      'v': np.zeros(1), 'm': np.zeros(1),
  }  # pyformat: disable
  for shape, axis in (((144, 256), 1), ((256, 144), 0)):
    new = optimizer_slots._permuted(slots, shape, axis, places)
    np.testing.assert_array_equal(new['v_col'], places)
    np.testing.assert_array_equal(new['v_row'], slots['v_row'])


@pytest.mark.parametrize('slots, got', [({}, 'none'), ({'mu': 0}, 'mu')])
def test_refuses_other_optimizers(slots, got):
  states = traverse_util.path_aware_map(lambda *_: slots, _params())
  with pytest.raises(UserError, match=f"Adafactor's slots .* got {got};"):
    conversion.convert_optimizer_slots(
        states, _params(), num_heads=8, num_kv_heads=2
    )


def test_refuses_slots_of_another_factoring():
  old = {'v': np.zeros(1), 'v_row': np.ones(3), 'v_col': np.ones(8)}
  with pytest.raises(UserError, match='only min_dim_size_to_factor=128'):
    _pool(old, 3, 2, 4, 2)


def _adafactor_slots(grads, beta1=None, shape=None):
  """Slots that t5x's Adafactor has after a kernel's gradients."""
  from t5x import adafactor

  optimizer = adafactor.Adafactor(learning_rate=0.1, beta1=beta1)
  param = jnp.ones(shape or grads[0].shape)
  state = optimizer.init_param_state(param, 'kernel')
  for step, grad in enumerate(grads):
    param, state = optimizer.apply_param_gradient(
        step, optimizer.hyper_params, param, state, jnp.asarray(grad), 'kernel'
    )
  return {k: np.asarray(v) for k, v in dataclasses.asdict(state).items()}


@pytest.mark.t5x
@pytest.mark.parametrize('emb_dim', [24, 128, 200, 256, 384])
@pytest.mark.parametrize('num_kv_heads', [4, 2, 1])
def test_pooled_slots_are_those_of_the_summed_gradient(emb_dim, num_kv_heads):
  """Which they are exactly where no two heads of a group have a gradient.

  Eight heads of 32: factored by either side or not at all, before and after.
  Squared gradients are of rank one, so that factoring them loses nothing.
  """
  random = np.random.RandomState(emb_dim)
  group = 8 // num_kv_heads
  size = np.sqrt(
      np.outer(random.uniform(1, 2, emb_dim), random.uniform(1, 9, 256))
  ).reshape(emb_dim, num_kv_heads, group, 32)
  has_gradient = random.randint(group, size=(num_kv_heads, 1, 32))
  has_gradient = has_gradient == np.arange(group)[:, None]
  grads = [
      (size * has_gradient * random.choice([-1.0, 1.0], size.shape)).astype(
          np.float32
      )
      for _ in range(3)
  ]
  old = _adafactor_slots([g.reshape(emb_dim, 256) for g in grads])
  expected = _adafactor_slots([g.sum(2).reshape(emb_dim, -1) for g in grads])
  new = _pool(old, emb_dim, 32, 8, num_kv_heads)
  assert new.keys() == expected.keys()
  for name, slot in expected.items():
    assert new[name].dtype == slot.dtype
    np.testing.assert_allclose(new[name], slot, rtol=1e-5, err_msg=name)


@pytest.mark.t5x
@pytest.mark.parametrize('emb_dim', [24, 256])
@pytest.mark.parametrize('beta1', [None, 0.9])
def test_reset_slots_are_those_at_the_start(emb_dim, beta1):
  random = np.random.RandomState(0)
  grad = random.standard_normal((emb_dim, 256)).astype(np.float32)
  old = _adafactor_slots([grad], beta1)
  for num_kv_heads in (4, 1):
    new = _pool(old, emb_dim, 32, 8, num_kv_heads, 'reset')
    expected = _adafactor_slots([], beta1, (emb_dim, 32 * num_kv_heads))
    for name, slot in expected.items():
      assert new[name].dtype == slot.dtype
      np.testing.assert_array_equal(new[name], slot)
