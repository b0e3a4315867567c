# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversions beyond the paper's: exact where theory says so, optimal where
theory says that, and measured against errors worked out from scratch."""

import dataclasses
import errno
import hashlib
import os
import tempfile
import threading
import tracemalloc

from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl

from gqa_t5x import checkpoints
from gqa_t5x import conversion
from gqa_t5x import network
from gqa_t5x import pretrained
from gqa_t5x import vocabularies
from gqa_t5x.checkpoints import lazy
from gqa_t5x.conversion import calibration
from gqa_t5x.conversion import calibration_text
from gqa_t5x.conversion import errors
from gqa_t5x.conversion import heads as heads_lib
from gqa_t5x.conversion import mean
from gqa_t5x.conversion import products
from gqa_t5x.conversion import similarity
from gqa_t5x.conversion import svd
from gqa_t5x.errors import UserError
from tests import hf_reference

CONFIG = network.T5Config(
    vocab_size=29,
    emb_dim=17,
    num_heads=6,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=2,
    mlp_dim=7,
    mlp_activations=('gelu', 'linear'),
)
ATTENTION = ('decoder', 'layers_1', 'encoder_decoder_attention')


def _params(seed=0):
  return hf_reference.random_params(CONFIG, seed=seed)


def _batch():
  rng = np.random.default_rng(3)
  inputs = rng.integers(2, 29, (2, 9)).astype(np.int32)
  targets = rng.integers(2, 29, (2, 7)).astype(np.int32)
  inputs[1, 5:] = targets[1, 4:] = 0
  return {
      'encoder_input_tokens': inputs,
      'decoder_input_tokens': np.roll(targets, 1, 1),
      'decoder_target_tokens': targets,
  }


def _logits(params, num_kv_heads=6):
  config = dataclasses.replace(CONFIG, num_kv_heads=num_kv_heads)
  logits = network.Transformer(config).apply(
      {'params': params}, **_batch(), enable_dropout=False
  )
  return np.asarray(logits)


def _convert(params, num_kv_heads, **options):
  return conversion.convert_params(
      params, num_heads=6, num_kv_heads=num_kv_heads, **options
  )


def _covariances(params):
  return calibration.covariances(CONFIG, params, [_batch()])


def _map_heads(params, change):
  """Applies `change` to the Heads of every attention of the decoder."""
  flat = traverse_util.flatten_dict(params)
  for attention in heads_lib.attentions(flat):
    kernels = {
        name: np.asarray(flat[(*attention, name, 'kernel')])
        for name in heads_lib.PROJECTIONS
    }
    new = heads_lib.join(change(heads_lib.split(kernels, 6)))
    flat |= {(*attention, name, 'kernel'): x for name, x in new.items()}
  return traverse_util.unflatten_dict(flat)


def _heads(params, attention=ATTENTION):
  flat = traverse_util.flatten_dict(params)
  return heads_lib.split(
      {
          name: np.asarray(flat[(*attention, name, 'kernel')])
          for name in heads_lib.PROJECTIONS
      },
      6,
  )


@pytest.mark.parametrize('method', conversion.METHODS)
@pytest.mark.parametrize('group_by', conversion.GROUP_BY)
def test_as_many_heads_keep_the_logits(method, group_by):
  params = _params()
  after = _convert(params, 6, method=method, group_by=group_by)
  np.testing.assert_array_equal(_logits(after), _logits(params))


@pytest.mark.parametrize('method', ['aligned', 'svd'])
@pytest.mark.parametrize('calibrated', [False, True])
def test_one_head_a_group_is_refitted_to_itself(method, calibrated):
  """The method itself at K = N, which `convert_params` does not even call."""
  params = _params()
  found = _covariances(params) if calibrated else {}
  module = conversion.METHODS[method]

  def change(heads):
    return module.convert(heads, 6, covariance=found.get(ATTENTION))

  after = _map_heads(params, change)
  np.testing.assert_allclose(_logits(after), _logits(params), atol=2e-4)


def _alike(orthogonal):
  """Parameters whose heads are equal, in groups of 3, up to a change of basis.

  The maps differ from head to head, for keys and for values.
  """
  rng = np.random.default_rng(5)

  def maps():
    drawn = rng.standard_normal((6, 2, 2)) + 2 * np.eye(2)
    return np.linalg.qr(drawn)[0] if orthogonal else drawn

  def change(heads):
    def in_basis(kernel):
      shared = np.repeat(kernel[:, ::3], 3, axis=1)
      return np.einsum('dnh,nhi->dni', shared, maps()).astype(np.float32)

    return heads._replace(
        key=in_basis(heads.key), value=in_basis(heads.value)
    )

  return _map_heads(_params(), change)


@pytest.mark.parametrize('calibrated', [False, True])
@pytest.mark.parametrize(
    ('method', 'orthogonal'), [('svd', False), ('svd', True), ('aligned', True)]
)
def test_heads_of_one_space_lose_nothing(method, orthogonal, calibrated):
  params = _alike(orthogonal)
  found = _covariances(params) if calibrated else None
  after = _convert(params, 2, method=method, covariances=found)
  np.testing.assert_allclose(_logits(after, 2), _logits(params), atol=2e-4)
  # Which the mean does not manage.
  assert np.abs(_logits(_convert(params, 2), 2) - _logits(params)).max() > 0.01


def test_svd_from_grouped_heads_takes_the_same_space():
  params = _alike(orthogonal=False)
  once = _convert(params, 2, method='svd')
  again = _convert(once, 1, method='svd')
  direct = _convert(params, 1, method='svd')
  np.testing.assert_allclose(_logits(again, 1), _logits(direct, 1), atol=2e-4)


def test_order_of_heads_does_not_matter():
  params = _params()
  order = np.array([3, 0, 5, 1, 4, 2])
  after = _map_heads(params, lambda heads: heads_lib.permute(heads, order))
  bias = params['decoder']['relpos_bias']['rel_embedding']
  assert np.abs(_logits(after) - _logits(params)).max() > 1e-3
  after['decoder']['relpos_bias']['rel_embedding'] = np.asarray(bias)[order]
  np.testing.assert_allclose(_logits(after), _logits(params), atol=1e-5)


@pytest.mark.parametrize('method', ['mean', 'svd'])
def test_similar_heads_find_each_other(method):
  """Twins that do not stand together: no loss by similarity, much by order."""
  twins = [0, 1, 2, 2, 1, 0]
  params = _map_heads(
      _params(),
      lambda heads: heads._replace(
          key=heads.key[:, twins], value=heads.value[:, twins]
      ),
  )
  by_order = _convert(params, 3, method=method)
  alike = _convert(params, 3, method=method, group_by='similarity')
  np.testing.assert_allclose(_logits(alike, 3), _logits(params), atol=2e-4)
  assert np.abs(_logits(by_order, 3) - _logits(params)).max() > 1e-3


def test_groups_by_hand():
  alike = np.eye(4)
  alike[0, 2] = alike[2, 0] = alike[1, 3] = alike[3, 1] = 0.9
  np.testing.assert_array_equal(similarity.groups(alike, 2), [0, 2, 1, 3])
  # Nothing gains, nothing moves.
  np.testing.assert_array_equal(similarity.groups(np.ones((4, 4)), 2), range(4))
  alike[0, 1] = np.nan  # Of a diverged checkpoint; it ends.
  assert sorted(similarity.groups(alike, 2)) == [*range(4)]


def test_svd_is_the_best_that_there_is():
  """The error is that of the truncated singular value decomposition (Eckart
  and Young), of the product matrices written out in full, weighed by the root
  of the covariance of what is projected to keys and values."""
  heads = _heads(_params())
  rng = np.random.default_rng(0)
  roots = [rng.standard_normal((17, 17)) for _ in range(2)]
  covariance = calibration.Covariance(
      query=roots[0].T @ roots[0], key=roots[1].T @ roots[1]
  )
  squared = covariance._replace(key=covariance.key @ covariance.key)
  new = svd.convert(heads, 1, covariance=squared)
  products = [
      roots[0] @ heads.query[:, n] @ heads.key[:, n].T @ roots[1].T
      for n in range(6)
  ]
  singular = np.linalg.svd(np.concatenate(products), compute_uv=False)
  best = np.sqrt((singular[2:] ** 2).sum() / (singular**2).sum())
  found = errors.relative_errors(heads, new, covariance)
  np.testing.assert_allclose(found['logits'], best, rtol=1e-4)
  products = [
      roots[1] @ heads.value[:, n] @ heads.out[n] for n in range(6)
  ]
  singular = np.linalg.svd(np.concatenate(products, 1), compute_uv=False)
  best = np.sqrt((singular[2:] ** 2).sum() / (singular**2).sum())
  np.testing.assert_allclose(found['outputs'], best, rtol=1e-4)


@pytest.mark.parametrize('method', ['mean', 'aligned'])
def test_errors_are_those_of_samples(method):
  """The closed form against logits and outputs of drawn inputs."""
  heads = _heads(_params())
  new = conversion.METHODS[method].convert(heads, 2)
  rng = np.random.default_rng(1)
  x, y = rng.standard_normal((2, 40, 17))

  def products(heads):
    size = 6 // heads.key.shape[1]
    key = np.repeat(heads.key, size, 1)
    value = np.repeat(heads.value, size, 1)
    logits = np.einsum('td,dnh,enh,se->nts', x, heads.query, key, y)
    return logits, np.einsum('se,enh,nhd->nsd', y, value, heads.out)

  moments = calibration.Covariance(x.T @ x / 40, y.T @ y / 40)
  found = errors.relative_errors(heads, new, moments)
  for name, old, got in zip(
      ('logits', 'outputs'), products(heads), products(new)
  ):
    expected = np.linalg.norm(old - got) / np.linalg.norm(old)
    np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_covariances_are_those_of_the_inputs_by_hand():
  """The first layer's self-attention sees normalised embeddings."""
  params = _params()
  batch = _batch()
  found = _covariances(params)
  assert found.keys() == set(
      heads_lib.attentions(traverse_util.flatten_dict(params))
  )
  embedding = np.asarray(params['token_embedder']['embedding'])
  x = embedding[batch['decoder_input_tokens']]
  x = x[batch['decoder_target_tokens'] > 0].astype(np.float64)
  x /= np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6)
  layer = params['decoder']['layers_0']
  x *= np.asarray(layer['pre_self_attention_layer_norm']['scale'])
  of_self = found['decoder', 'layers_0', 'self_attention']
  np.testing.assert_allclose(of_self.query, x.T @ x / len(x), atol=1e-5)
  np.testing.assert_array_equal(of_self.key, of_self.query)
  encoded = network.Transformer(CONFIG).apply(
      {'params': params},
      jnp.asarray(batch['encoder_input_tokens']),
      enable_dropout=False,
      method='encode',
  )
  y = np.asarray(encoded)[batch['encoder_input_tokens'] > 0]
  of_cross = found[ATTENTION]
  np.testing.assert_allclose(of_cross.key, y.T @ y / len(y), atol=1e-5)
  for moments in of_self, of_cross:
    root = moments.key_root
    np.testing.assert_allclose(root @ root, moments.key, atol=1e-5)
    assert (np.linalg.eigvalsh(root) > -1e-5).all()


def test_covariances_a_layer_at_a_time_are_those_of_the_whole_model():
  """Beside what Flax captures while the model runs as it does elsewhere."""
  params = _params()
  batch = _batch()
  rows = [{k: v[i : i + 1] for k, v in batch.items()} for i in (0, 1)]
  found = calibration.covariances(CONFIG, params, rows)
  norms = {
      'self_attention': 'pre_self_attention_layer_norm',
      'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
  }
  _, variables = network.Transformer(CONFIG).apply(
      {'params': params},
      **batch,
      enable_dropout=False,
      capture_intermediates=lambda module, _: module.name in norms.values(),
      mutable=['intermediates'],
  )
  for layer, of_layer in variables['intermediates']['decoder'].items():
    for kind, norm in norms.items():
      x = np.asarray(of_layer[norm]['__call__'][0], np.float64)
      x = x[batch['decoder_target_tokens'] > 0]
      np.testing.assert_allclose(
          found['decoder', layer, kind].query, x.T @ x / len(x), atol=1e-5
      )


def test_a_part_of_a_layer_is_read_and_used_before_the_next(monkeypatch):
  """Nothing of a second part is read before the first has run."""
  events = []

  def logged(path, leaf):
    def rows(start, stop):
      events.append(path[:3])
      return leaf[start:stop]

    return lazy.LazyArray(leaf.shape, leaf.dtype, rows)

  apply = calibration._apply  # pylint: disable=protected-access

  def used(part, *args, **options):
    events.append(part.name)
    return apply(part, *args, **options)

  monkeypatch.setattr(calibration, '_apply', used)
  flat = traverse_util.flatten_dict(_params())
  params = {path: logged(path, np.asarray(x)) for path, x in flat.items()}
  _covariances(traverse_util.unflatten_dict(params))

  # Without norms, embeddings and biases, and each once where it is repeated.
  parts = [e for e in events if isinstance(e, str) or e[-1] in network.NORMS]
  found = [e for e, last in zip(parts, [None, *parts]) if e != last]
  expected = []
  for stack, kinds in (
      (['encoder', 'layers_0'], ['attention']),
      (['decoder', 'layers_0'], heads_lib.ATTENTIONS),
      (['decoder', 'layers_1'], heads_lib.ATTENTIONS),
  ):
    for kind in (*kinds, 'mlp'):
      expected += [(*stack, kind), kind]
  assert found == expected


@pytest.mark.parametrize('method', ['aligned', 'svd', 'similarity'])
@pytest.mark.parametrize('calibrated', [False, True])
def test_no_kernel_is_copied_in_float64(method, calibrated):
  """That would be 12 MiB, beside what is made and a block of half of it."""
  rng = np.random.default_rng(0)
  heads = heads_lib.Heads(*(
      rng.normal(size=shape).astype(np.float32)
      for shape in [(1536, 32, 32)] * 3 + [(32, 32, 1536)]
  ))
  moments = np.eye(1536, dtype=np.float32)
  covariance = calibration.Covariance(moments, moments) if calibrated else None
  tracemalloc.start()
  if method == 'similarity':
    new = similarity.similarities(heads, covariance, by_subspace=True)
  else:
    new = conversion.METHODS[method].convert(heads, 1, covariance=covariance)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  made = sum(x.nbytes for x in new)
  if method == 'svd':
    made += 1024**2 * 8  # The matrix of its eigenvectors.
    # The root of the covariance, its eigenvectors, and their product.
    made += calibrated * 3 * 1536**2 * 4
  assert peak < made + 9 * 2**20


def test_products_of_two_types_by_rows():
  rng = np.random.default_rng(0)
  wide = rng.normal(size=(1100, 6)).astype(np.float32)
  kernel = rng.normal(size=(6, 4))
  found = products.matmul(wide, kernel)
  np.testing.assert_allclose(found, wide.astype(np.float64) @ kernel)


def _blas_threads():
  return {
      library['num_threads']
      for library in threadpoolctl.threadpool_info()
      if library['user_api'] == 'blas'
  }


@pytest.mark.parametrize('emb_dim, num_threads', [(64, 1), (2048, 2)])
def test_blas_has_one_thread_for_small_matrices(
    monkeypatch, emb_dim, num_threads
):
  if not _blas_threads():
    pytest.skip('a BLAS that threadpoolctl does not know')
  seen = []
  kernel = np.ones((emb_dim, emb_dim))
  flat = {
      ('decoder', 'layers_0', 'self_attention', name, 'kernel'): kernel
      for name in heads_lib.PROJECTIONS
  } | {heads_lib.BIAS: np.ones((4, 32))}

  def watched(function):
    def call(*args, **kwargs):
      seen.append(_blas_threads())
      return function(*args, **kwargs)

    return call

  monkeypatch.setattr(svd, 'convert', watched(mean.convert))
  monkeypatch.setattr(
      similarity, 'similarities', watched(similarity.similarities)
  )
  with threadpoolctl.threadpool_limits(2, user_api='blas'):
    conversion.convert_params(
        traverse_util.unflatten_dict(flat),
        num_heads=4,
        num_kv_heads=1,
        method='svd',
        group_by='similarity',
    )
    assert _blas_threads() == {2}
  assert seen == [{1}, {num_threads}]  # Similarities are of heads alone here.


def test_conversion_without_the_library_that_limits_threads(monkeypatch):
  expected = _convert(_params(), 2, method='svd')
  monkeypatch.setattr(products, 'threadpoolctl', None)
  got = _convert(_params(), 2, method='svd')
  for path, leaf in traverse_util.flatten_dict(got).items():
    other = traverse_util.flatten_dict(expected)[path]
    np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6)


def test_svd_of_heads_that_carry_the_same():
  """All eigenvalues are equal, of which LAPACK may find too few."""
  for seed in range(60):
    rng = np.random.default_rng(seed)
    kernel = np.linalg.qr(rng.normal(size=(160, 128)))[0].reshape(160, 8, 16)
    shared, maps = svd.shared_head(kernel, np.stack([np.eye(16)] * 8), None)
    assert maps.shape == (8, 16, 16)
    gram = shared.T @ shared
    np.testing.assert_allclose(gram, np.eye(16) * gram[0, 0], atol=1e-9)


@pytest.mark.parametrize('calibrated', [False, True])
@pytest.mark.parametrize('by_subspace', [False, True])
def test_similarities_are_cosines_by_hand(calibrated, by_subspace):
  rng = np.random.default_rng(1)
  shapes = [(17, 6, 2), (17, 3, 2), (17, 3, 2), (6, 2, 17)]
  heads = heads_lib.Heads(*(rng.normal(size=shape) for shape in shapes))
  x = rng.normal(size=(40, 17)) if calibrated else np.eye(17)
  covariance = calibration.Covariance(np.eye(17), x.T @ x)
  found = similarity.similarities(
      heads, covariance if calibrated else None, by_subspace=by_subspace
  )

  def cosines(kernels, others):
    seen = [x @ kernels[:, k] for k in range(3)]
    if by_subspace:
      # M M^T, M the products with both query or output heads of each.
      made = [
          y @ np.concatenate(others[2 * k : 2 * k + 2]).T
          for k, y in enumerate(seen)
      ]
      seen = [m @ m.T for m in made]
    flat = np.stack([y.reshape(-1) for y in seen])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T

  expected = cosines(heads.key, heads.query.transpose(1, 0, 2))
  expected += cosines(heads.value, heads.out.transpose(0, 2, 1))
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_turned_matrices_are_read_in_one_pass():
  """As those of Hugging Face are, of which any rows cost all columns."""
  x = np.arange(2**21 * 10, dtype=np.float32).reshape(-1, 10)
  read = []

  def rows(start, stop):
    read.append(stop - start)
    return x[start:stop]

  leaf = lazy.transpose(lazy.LazyArray(x.shape, x.dtype, rows))
  found = calibration._array(leaf)  # pylint: disable=protected-access
  np.testing.assert_array_equal(found, x.T)
  assert len(read) > 1 and sum(read) == len(x)


def test_second_moments_are_summed_in_float64():
  mean = calibration._Mean()  # pylint: disable=protected-access
  for size in (1e4, *[1.0] * 99):
    mean.add(jnp.full((1, 1, 2), size), jnp.ones((1, 1), jnp.int32))
  assert mean._total.dtype == np.float64  # pylint: disable=protected-access
  np.testing.assert_array_equal(
      mean.value(), np.full((2, 2), np.float32((1e8 + 99) / 100))
  )


def test_scaled_mean_by_hand():
  heads = _heads(_params())
  new = conversion.METHODS['scaled_mean'].convert(heads, 2)
  norms = np.sqrt((heads.key[:, 3:] ** 2).sum((0, 2)))
  wanted = np.sqrt((norms**2).mean())
  mean = heads.key[:, 3:].mean(1)
  np.testing.assert_allclose(
      new.key[:, 1], mean * wanted / np.linalg.norm(mean), rtol=1e-5
  )
  assert new.query is heads.query


def test_calibration_text(tmp_path):
  pytest.importorskip('sentencepiece')
  vocabulary = vocabularies.Vocabulary(pretrained.VOCABULARY_PATH)
  made = list(
      calibration_text.batches(
          'a b c d e f g h ' * 200, vocabulary, vocab_size=4096,
          num_sequences=5, inputs_length=64,
      )
  )  # pyformat: disable
  batch = made[0]
  used = [(b['encoder_input_tokens'] > 0).any(1).sum() for b in made]
  assert sum(used) == 5
  inputs = batch['encoder_input_tokens'][0]
  targets = batch['decoder_target_tokens'][0]
  # Each hidden span is where its sentinel stands.
  sentinels = [t for t in inputs if t >= vocabulary.size - 100]
  assert sentinels == sorted(sentinels, reverse=True)
  assert sentinels[0] == vocabulary.size - 1
  assert inputs[63] == 1 and targets[targets > 0][-1] == 1
  shifted = np.where(targets == 1, 0, targets)[:-1]
  np.testing.assert_array_equal(batch['decoder_input_tokens'][0, 1:], shifted)
  with pytest.raises(UserError, match='check --calibration_data'):
    calibration_text.read(str(tmp_path / 'nowhere'))
  for name in ('rows.jsonl', 'ROWS.JSON'):
    with pytest.raises(UserError, match=f'plain text.*got .*{name}; write'):
      calibration_text.read(str(tmp_path / name))
  with pytest.raises(UserError, match='got 0 letters; pass another'):
    list(calibration_text.batches('', vocabulary, vocab_size=4096))


@pytest.mark.parametrize('word', ['für ', '日'])
def test_of_a_long_calibration_text_parts_are_read(tmp_path, monkeypatch, word):
  monkeypatch.setattr(calibration_text, '_MOST_BYTES', 4096)
  monkeypatch.setattr(calibration_text, '_NUM_PARTS', 4)
  path = tmp_path / 'long.txt'
  text = f'first{word * 3000}middle{word * 3000}last '
  path.write_text(text, encoding='utf-8-sig')
  text = calibration_text.read(str(path))
  assert 3000 < len(text.encode()) <= 4096 + 3
  assert len(text.splitlines()) == 4 and 'middle' not in text
  assert set(''.join(text.split())) <= set('first' + word + 'last')
  data = path.read_bytes()
  path.write_bytes(data[:20] + b'\xff' + data[20:])
  with pytest.raises(UserError, match='UTF-8 .*got other bytes about'):
    calibration_text.read(str(path))


def test_calibration_text_that_can_be_read_once_is_told_by_its_hash(tmp_path):
  pytest.importorskip('sentencepiece')
  text = 'One may pass what another program writes. ' * 20
  os.mkfifo(tmp_path / 'pipe')
  writer = threading.Thread(target=(tmp_path / 'pipe').write_text, args=[text])
  writer.start()
  _, about = calibration_text.covariances(
      pretrained.CHECKPOINT_PATH, str(tmp_path / 'pipe'), None, num_sequences=2
  )
  writer.join()
  assert about['text_sha256'] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize('change, message', [
    (lambda b: {k: v[:1] for k, v in b.items()}, 'of one shape'),
    (lambda b: b | {'encoder_input_tokens': b['encoder_input_tokens'] + 99999},
     'tokens below 4096, got'),
])
def test_calibration_batches_that_are_not_the_models(change, message):
  params, metadata = checkpoints.load_checkpoint(pretrained.CHECKPOINT_PATH)
  config = network.T5Config(**metadata['config'])
  batch = {
      name: np.full((2, 8), 7, np.int32)
      for name in (
          'encoder_input_tokens', 'decoder_input_tokens',
          'decoder_target_tokens',
      )
  }  # pyformat: disable
  with pytest.raises(ValueError, match=message):
    calibration.covariances(config, params, [batch, change(batch)])


@pytest.mark.parametrize('name', ['query', 'key', 'value', 'out'])
@pytest.mark.parametrize('method', conversion.METHODS)
def test_heads_that_are_zero_give_finite_kernels(method, name):
  """A group whose other side is zero may have any head, but none of NaN."""

  def without(heads):
    kernel = getattr(heads, name).copy()
    if name == 'out':
      kernel[:3] = 0
    else:
      kernel[:, :3] = 0
    return heads._replace(**{name: kernel})

  params = _map_heads(_params(), without)
  new = _convert(params, 2, method=method)
  for path, leaf in traverse_util.flatten_dict(new).items():
    assert np.isfinite(leaf).all(), path
  if name in ('query', 'out') and method in ('svd', 'aligned'):
    # What the other heads of the attention give is as before.
    heads, other = _heads(new), _heads(_convert(_params(), 2, method=method))
    for field in ('key', 'value'):
      got, expected = getattr(heads, field)[:, 1], getattr(other, field)[:, 1]
      np.testing.assert_array_equal(got, expected)


def test_a_model_that_has_diverged_gives_no_covariances():
  params = _params()
  kernel = params['encoder']['layers_0']['mlp']['wo']['kernel']
  params['encoder']['layers_0']['mlp']['wo']['kernel'] = kernel * np.nan
  with pytest.raises(UserError, match='finite activations on the calibration'):
    _covariances(params)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_disk_is_told_as_such(monkeypatch):
  monkeypatch.setattr(
      tempfile, 'TemporaryFile', lambda: open('/dev/full', 'w+b', buffering=0)
  )
  with pytest.raises(OSError) as error:
    calibration._Arrays((4, 4)).append(np.ones((4, 4)))  # pylint: disable=protected-access
  assert error.value.errno == errno.ENOSPC
