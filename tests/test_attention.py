# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention against JAX's own and against repeated heads.

Every dimension has another size, so that no swapped axis can pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import attention
from gqa_t5x import grouping

B, T, S, N, H = 2, 5, 7, 12, 3


def _inputs(num_kv_heads, seed=0):
  rng = np.random.default_rng(seed)
  query = rng.normal(size=(B, T, N, H)).astype(np.float32)
  key, value = rng.normal(size=(2, B, num_kv_heads, S, H)).astype(np.float32)
  bias = rng.normal(size=(1, N, T, S)).astype(np.float32)
  mask = rng.random((B, 1, T, S)) > 0.3
  mask[..., 0] = True
  return query, key, value, bias, mask


@functools.partial(jax.jit, static_argnames=('dropout_rate', 'float32_logits'))
def _attend(query, key, value, **kwargs):
  """With keys [B, K, S, H], as values are."""
  key = jnp.swapaxes(key, 2, 3)
  return attention.dot_product_attention(query, key, value, **kwargs)


@pytest.mark.parametrize('num_kv_heads', [1, 2, 3, 4, 6, 12])
def test_equals_jax_nn(num_kv_heads):
  *arrays, mask = _inputs(num_kv_heads)
  weight = np.random.default_rng(1).normal(size=(B, T, N, H))

  def ours(query, key, value, bias):
    return _attend(query, key, value, bias=bias, mask=mask)

  def theirs(query, key, value, bias):
    return jax.nn.dot_product_attention(
        query,
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        bias=bias,
        mask=mask,
        scale=1.0,
    )

  def gradients_and_output(attend):
    def weighed(*x):
      out = attend(*x)
      return jnp.sum(weight * out), out

    return jax.jit(jax.grad(weighed, (0, 1, 2, 3), has_aux=True))(*arrays)

  gradients, output = gradients_and_output(ours)
  their_gradients, their_output = gradients_and_output(theirs)
  np.testing.assert_allclose(output, their_output, atol=2e-6, rtol=2e-6)
  for found, expected in zip(gradients, their_gradients, strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('num_kv_heads', [1, 4, 12])
def test_equals_multi_head_with_repeated_heads(num_kv_heads):
  query, key, value, bias, mask = _inputs(num_kv_heads)
  size = N // num_kv_heads
  weight = np.random.default_rng(1).normal(size=query.shape)

  def loss(query, key, value, bias):
    return jnp.sum(weight * _attend(query, key, value, bias=bias, mask=mask))

  loss_and_gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
  repeated = [grouping.repeat_kv_heads(x, N, axis=1) for x in (key, value)]
  gqa, gqa_grads = loss_and_gradients(query, key, value, bias)
  mha, mha_grads = loss_and_gradients(query, *repeated, bias)
  np.testing.assert_allclose(gqa, mha, rtol=1e-5)
  # The gradient of a shared head is the sum over its group.
  summed = [
      x.reshape(B, num_kv_heads, size, S, H).sum(2) for x in mha_grads[1:3]
  ]
  for actual, expected in zip(gqa_grads, [mha_grads[0], *summed, mha_grads[3]]):
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_masked_keys_have_no_influence():
  query, key, value, _, mask = _inputs(3)
  mask[...] = True
  mask[:, :, :, 4] = False
  before = _attend(query, key, value, mask=mask)
  key[:, :, 4], value[:, :, 4] = 100.0, -100.0
  after = _attend(query, key, value, mask=mask)
  np.testing.assert_array_equal(before, after)


def test_dropout_is_shared_by_query_positions_and_unbiased():
  query, key, value, _, _ = _inputs(2)
  query = np.zeros_like(query)  # uniform weights
  value = np.ones_like(value)
  draw = jax.vmap(
      lambda rng: _attend(
          query, key, value, dropout_rate=0.25, dropout_rng=rng
      )
  )(jax.random.split(jax.random.key(0, impl='rbg'), 500))
  assert np.ptp(draw, axis=2).max() == 0  # the same for all T
  assert np.ptp(draw, axis=3).max() > 0  # another for each query head
  np.testing.assert_allclose(draw.mean(), 1.0, atol=0.02)


def test_float32_logits_with_bfloat16_activations():
  query, key, value, bias, _ = [
      jnp.asarray(x, jnp.bfloat16) for x in _inputs(4)
  ]
  exact = _attend(
      *[x.astype(jnp.float32) for x in (query, key, value)],
      bias=bias.astype(jnp.float32),
  )

  def error(**kwargs):
    out = _attend(query, key, value, bias=bias, **kwargs)
    assert out.dtype == jnp.bfloat16
    return np.abs(out.astype(jnp.float32) - exact).mean()

  assert error(float32_logits=True) < error()


@pytest.mark.parametrize('float32_logits', [False, True])
def test_gradients_with_bfloat16_activations(float32_logits):
  exact = _inputs(4)[:4]

  def gradients(arrays, **kwargs):
    def loss(query, key, value, bias):
      out = _attend(query, key, value, bias=bias, **kwargs)
      return jnp.sum(jnp.sin(out.astype(jnp.float32)))

    return jax.grad(loss, argnums=(0, 1, 2, 3))(*arrays)

  rounded = [jnp.asarray(x, jnp.bfloat16) for x in exact]
  ours = gradients(rounded, float32_logits=float32_logits)
  theirs = gradients([x.astype(jnp.float32) for x in rounded])
  for got, want in zip(ours, theirs, strict=True):
    assert got.dtype == jnp.bfloat16
    error = jnp.linalg.norm(got.astype(jnp.float32) - want)
    assert error < 0.03 * jnp.linalg.norm(want)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_a_query_that_sees_nothing_is_no_nan(dtype):
  """As one of padding in a packed row."""
  query, key, value, _, mask = _inputs(4)
  mask[0, :, 2] = False
  arrays = [jnp.asarray(x, dtype) for x in (query, key, value)]
  out = _attend(*arrays, mask=mask)
  assert np.isfinite(out).all()


def test_shapes_that_do_not_fit_are_named():
  query, key, value, _, _ = _inputs(4)
  with pytest.raises(ValueError, match=r'\[B, K, S, H\], with B=2 and H=3'):
    _attend(query, key, value[..., :2])


@pytest.mark.parametrize(
    'num_kv_heads, q_len, bias_batch, mask_len',
    [(1, 12, 1, 1), (4, 12, 3, 12), (1, 11, 1, 11), (2, 11, 3, 1)],
)
def test_blocks_of_queries_change_nothing(
    num_kv_heads, q_len, bias_batch, mask_len, monkeypatch
):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  query, bias = normal(3, q_len, 4, 5), normal(bias_batch, 4, q_len, 7)
  key, value = normal(3, num_kv_heads, 5, 7), normal(3, num_kv_heads, 7, 5)
  mask = jnp.asarray(rng.random((3, 1, mask_len, 7)) < 0.8).at[..., 0].set(True)

  def total(query, key, value, bias):
    out = attention.dot_product_attention(
        query, key, value, bias=bias, mask=mask, dropout_rate=0.3,
        dropout_rng=jax.random.key(1, impl='rbg'),
    )  # pyformat: disable
    return (out**2).sum(), out

  found = []
  # All, 3 and at most 5 at a time: of 11 the last block has padding.
  for rows in (2**20, 3, 5):
    block_bytes = 4 * 3 * 4 * 7 * rows
    monkeypatch.setattr(attention, '_BLOCK_BYTES', {'cpu': block_bytes})
    grads = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True))
    jaxpr = str(jax.make_jaxpr(grads)(query, key, value, bias))
    assert ('scan' in jaxpr) == (rows < q_len)
    found.append(grads(query, key, value, bias))
  for other in found[1:]:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found[0],
        other,
    )


@pytest.mark.parametrize(
    'batch, devices, in_blocks',
    [
        (32, 1, {'cpu', 'cuda', 'rocm'}),
        (1, 1, {'cpu'}),
        (8, 2, {'cpu', 'cuda', 'rocm'}),
        (8, 8, {'cpu'}),
    ],
    ids=['of 34 GB', 'of 1 GB', 'of 4 GB a device', 'of 1 GB a device'],
)  # pyformat: disable
def test_where_queries_go_in_blocks(batch, devices, in_blocks):
  """T5.1.1-XXL's encoder with 2,048 tokens; lowered, not run."""
  query, key, value, bias = (
      jax.ShapeDtypeStruct(shape, jnp.bfloat16)
      for shape in (
          (batch, 2048, 64, 64), (batch, 64, 64, 2048), (batch, 64, 2048, 64),
          (1, 64, 2048, 2048),
      )
  )  # pyformat: disable

  def attend(query, key, value, bias):
    return attention.dot_product_attention(query, key, value, bias=bias)

  mesh = jax.sharding.AbstractMesh((devices, 1), ('data', 'model'))
  with jax.sharding.use_abstract_mesh(mesh):
    traced = jax.jit(attend).trace(query, key, value, bias)
  assert in_blocks == {
      platform
      for platform in ('cpu', 'cuda', 'rocm', 'tpu')
      if 'while' in traced.lower(lowering_platforms=(platform,)).as_text()
  }


def test_length_of_blocks():
  limit = 2**24
  assert attention._block_length(2048, limit // 2048, limit) == 2048
  assert attention._block_length(2048, limit // 64, limit) == 64
  assert attention._block_length(1210, limit // 160, limit) == 121
  # None divides, so the last block is padded.
  assert attention._block_length(1009, limit // 100, limit) == 100
  assert attention._block_length(1025, limit * 2, limit) == 1
