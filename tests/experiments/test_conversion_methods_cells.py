# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cells of a comparison of conversion methods are kept, and added to."""

import json
import types

import flax
import jax
import numpy as np
import pytest
import scipy.linalg

from gqa_t5x import checkpoints
from gqa_t5x import network
from gqa_t5x import pretrained
from gqa_t5x import storage
from gqa_t5x.conversion import calibration
from gqa_t5x.errors import UserError
from gqa_t5x.experiments import conversion_methods


class _Comparison:
  config = types.SimpleNamespace(num_heads=4)
  asked = []
  corpus = 'of these packages'

  def __init__(self, checkpoint, calibration_sequences):
    self.made_from = {
        'calibration_sequences': calibration_sequences,
        'corpus_sha256': self.corpus,
    }

  def losses(self, label, num_kv_heads, seed, alphas):
    self.asked.append((label, num_kv_heads, seed, tuple(alphas)))
    yield from ((alpha, seed + alpha) for alpha in alphas)


@pytest.fixture
def run(tmp_path, monkeypatch):
  monkeypatch.setattr(conversion_methods, 'Comparison', _Comparison)
  monkeypatch.setattr(_Comparison, 'asked', [])
  path = tmp_path / 'out.json'

  def run(commit, alphas, *more):
    monkeypatch.setattr(
        conversion_methods.provenance, 'environment', lambda: {'commit': commit}
    )
    conversion_methods.main([
        '--output', str(path), '--methods', 'none,mean', '--num_kv_heads', '2',
        '--seeds', '1', '--alphas', alphas, *more,
    ])  # pyformat: disable
    return json.loads(path.read_text())

  return run


def test_an_alpha_is_added_and_names_its_commit(run, capsys):
  run('first', '0,0.05')
  report = run('second', '0.1')
  mean = next(c for c in report['cells'] if c['method'] == 'mean')
  assert len(report['cells']) == 2
  assert mean['losses'] == {'0.0': 1.0, '0.05': 1.05, '0.1': 1.1}
  assert mean['commits'] == {'0.0': 'first', '0.05': 'first', '0.1': 'second'}
  # What is there is not made again.
  made = list(_Comparison.asked)
  assert made == [
      ('none', 4, 1, (0.0, 0.05)), ('mean', 2, 1, (0.0, 0.05)),
      ('none', 4, 1, (0.1,)), ('mean', 2, 1, (0.1,)),
  ]  # pyformat: disable
  run('third', '0.05,0.1')
  assert _Comparison.asked == made
  # A seed that has fewer alphas is told.
  capsys.readouterr()
  run('fourth', '0', '--seeds', '1,2')
  rows = [x.split() for x in capsys.readouterr().out.splitlines()]
  row = next(x for x in rows if x[:2] == ['2', 'mean'] and x[2] == '2')
  assert row[-2:] == ['1.100', '(1)']


def test_distilled_cells_of_the_multi_head_model_are_one(run):
  run('first', '0', '--methods', 'none_distilled,svd_distilled,mean')
  assert [x[:2] for x in _Comparison.asked] == [
      ('none_distilled', 4), ('svd_distilled', 2), ('mean', 2),
  ]  # pyformat: disable


def test_alphas_ascend_and_earlier_commands_are_kept(run):
  first = run('first', '0.05,0,0.05')['command']
  assert _Comparison.asked[0][-1] == (0.0, 0.05)
  report = run('second', '0.1')
  assert report['earlier_commands'] == [first] != [report['command']]


def test_unknown_methods_are_refused_at_once(run, capsys):
  with pytest.raises(SystemExit):
    run('first', '0', '--methods', 'mean,svdx')
  assert "got 'svdx'" in capsys.readouterr().err
  assert not _Comparison.asked


@pytest.mark.parametrize('words, corpus, message', [
    (['--calibration_sequences', '8'], _Comparison.corpus, '128, not 8'),
    ([], 'of newer packages', "corpus_sha256 'of these packages', not"),
])
def test_cells_of_another_kind_are_refused(
    words, corpus, message, run, capsys, monkeypatch
):
  run('first', '0')
  monkeypatch.setattr(_Comparison, 'corpus', corpus)
  with pytest.raises(SystemExit):
    run('second', '0.1', *words)
  error = capsys.readouterr().err
  assert message in error and 'choose another file' in error


def test_cells_that_do_not_tell_their_text_are_refused(run, tmp_path, capsys):
  report = run('first', '0')
  del report['corpus_sha256']
  storage.write_json(tmp_path / 'out.json', report)
  with pytest.raises(SystemExit):
    run('second', '0.1')
  assert 'corpus_sha256 None, not' in capsys.readouterr().err


def test_a_report_is_one_programs_at_a_time(run, tmp_path, capsys):
  with storage.locked(tmp_path / '.out.json.lock'):
    with pytest.raises(SystemExit):
      run('first', '0')
  assert 'another program is writing to' in capsys.readouterr().err
  assert not _Comparison.asked


@pytest.mark.parametrize('change, message', [
    ({'step': None}, 'that tells its step'),
    ({'vocabulary_sha256': 'ab' * 32}, 'expected the vocabulary that'),
])
def test_a_checkpoint_of_something_else_is_refused(
    change, message, tmp_path, monkeypatch
):
  params, metadata = checkpoints.load_checkpoint(pretrained.CHECKPOINT_PATH)
  path = str(tmp_path / 'other')
  checkpoints.save_checkpoint(path, params, metadata=metadata | change)
  made_for = metadata['vocabulary_sha256']
  cached = types.SimpleNamespace(run=lambda: {'validation': ('folder',)})
  monkeypatch.setattr(
      conversion_methods.Comparison, '_dev_source', lambda _: cached
  )
  monkeypatch.setattr(
      conversion_methods.cache, 'read_meta',
      lambda _: {'vocab_size': 4096, 'vocabulary_sha256': made_for},
  )  # pyformat: disable
  with pytest.raises(UserError, match=message):
    conversion_methods.Comparison(path, 8)


def test_heads_that_do_not_divide_are_refused_before_any_cell(run, capsys):
  with pytest.raises(SystemExit):
    run('first', '0', '--num_kv_heads', '2,3')
  assert 'num_kv_heads=3; choose' in capsys.readouterr().err
  assert not _Comparison.asked


def test_a_figure_of_nothing_is_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit) as end:
    conversion_methods.main(
        ['--output', str(tmp_path / 'none.json'), '--figure', 'a.svg']
    )
  assert end.value.code == 2
  assert 'none.json' in capsys.readouterr().err


def test_columns_are_in_the_order_of_alpha():
  cells = [
      {'method': 'svd', 'num_kv_heads': 2, 'losses': losses}
      for losses in ({'0.0': 4.0, '0.05': 3.0}, {'0.01': 3.5})
  ]
  head = conversion_methods.summary(cells).splitlines()[0].split('alpha ')
  assert [part.strip() for part in head[1:]] == ['0.0', '0.01', '0.05']


@pytest.mark.parametrize(
    'text', ['', '[1]', '{"a": 1}', '{"cells": [{"loss": 4.5, "seed": 1}]}']
)
@pytest.mark.parametrize('more', [(), ('--figure', 'x.svg')])
def test_a_file_of_something_else_is_left_alone(
    run, tmp_path, capsys, text, more
):
  (tmp_path / 'out.json').write_text(text)
  with pytest.raises(SystemExit):
    run('first', '0', *more)
  assert 'choose another file' in capsys.readouterr().err.splitlines()[-1]
  assert (tmp_path / 'out.json').read_text() == text


@pytest.mark.parametrize('kind, other', [
    ('self_attention', 'encoder_decoder_attention'),
    ('encoder_decoder_attention', 'self_attention'),
])
def test_one_kind_of_attention_shares_heads_and_the_other_keeps_its_own(
    kind, other
):
  """By the multi-head network with the means of two heads, each twice."""
  config = network.T5Config(
      vocab_size=32, emb_dim=16, num_heads=4, num_encoder_layers=1,
      num_decoder_layers=2, head_dim=4, mlp_dim=16, dropout_rate=0.0,
  )  # pyformat: disable
  multi_head = network.Transformer(config)
  tokens = np.random.default_rng(1).integers(2, 32, (2, 7))
  inputs = (tokens, tokens[:, ::-1], tokens)
  params = flax.core.unfreeze(
      multi_head.init(jax.random.key(0), *inputs, enable_dropout=False)
  )['params']
  comparison = object.__new__(conversion_methods.Comparison)
  comparison.params, comparison.config = params, config
  model = comparison.model(2, kind)
  converted = comparison.convert(2, method='mean', only=kind)

  def logits(model, params):
    return model.apply({'params': params}, *inputs, enable_dropout=False)

  got = logits(model, converted)
  expected = jax.tree.map(np.array, params)
  for layer in ('layers_0', 'layers_1'):
    assert converted['decoder'][layer][kind]['key']['kernel'].shape == (16, 8)
    np.testing.assert_array_equal(*(
        x['decoder'][layer][other]['key']['kernel'] for x in (converted, params)
    ))  # pyformat: disable
    for name in ('key', 'value'):
      kernel = expected['decoder'][layer][kind][name]['kernel']
      heads = kernel.reshape(16, 2, 2, 4).mean(axis=2)
      kernel[:] = np.repeat(heads, 2, axis=1).reshape(16, 16)
  np.testing.assert_allclose(got, logits(multi_head, expected), atol=1e-5)
  assert np.abs(got - logits(multi_head, params)).max() > 1e-3
  # The scale of a factor is no matter of what is computed.
  scaled = comparison.convert(2, method='mean', only=kind, scale=2.0)
  for x in ('key', 'query'):
    before, after = (p['decoder']['layers_0'][kind][x]['kernel']
                     for p in (converted, scaled))
    np.testing.assert_array_equal(after, before * (2 if x == 'key' else 0.5))
  np.testing.assert_allclose(logits(model, scaled), got, atol=1e-5)


def test_svd_by_other_powers_of_the_covariance():
  x = np.random.default_rng(0).normal(size=(40, 6))
  moments = calibration.Covariance(np.eye(6), x.T @ x / 40)
  root = scipy.linalg.sqrtm(moments.key)
  for power, expected in (
      (1.0, moments.key), (0.5, root), (0.25, scipy.linalg.sqrtm(root)),
  ):  # pyformat: disable
    found = conversion_methods._weighed_by(moments, power)
    np.testing.assert_allclose(found.key_root, expected, atol=1e-9)
    assert found.query is moments.query
