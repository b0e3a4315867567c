# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back bit by bit, and what is none is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from gqa_t5x import checkpoints
from gqa_t5x.checkpoints import lazy
from gqa_t5x.errors import UserError
from tests import hf_reference
from tests.golden import make_t5x_checkpoints
from tests.test_t5x_checkpoints import assert_same

CONFIG = make_t5x_checkpoints.CONFIG
METADATA = {'config': CONFIG.to_dict(), 'step': 3, 'conversion': None}


def _params():
  """In two dtypes, with values that are easily lost."""
  params = hf_reference.random_params(CONFIG, seed=1)
  scale = np.resize(np.array([0.1, -0.0, np.inf], np.float32), CONFIG.emb_dim)
  params['encoder']['encoder_norm']['scale'] = scale
  embedding = params['token_embedder']['embedding']
  params['token_embedder']['embedding'] = embedding.astype(jnp.bfloat16)
  return params


def test_round_trip_keeps_bits_dtypes_and_metadata(tmp_path):
  path = str(tmp_path / 'new' / 'checkpoint')
  checkpoints.save_checkpoint(path, _params(), metadata=METADATA)
  params, metadata = checkpoints.load_checkpoint(path)
  assert metadata == METADATA
  assert params['token_embedder']['embedding'].dtype == jnp.bfloat16
  assert_same(params, _params())
  (scale,), (expected,) = (
      tree['encoder']['encoder_norm'].values() for tree in (params, _params())
  )
  assert scale.tobytes() == expected.tobytes()


@pytest.mark.parametrize('change, message', [
    ({'config': CONFIG.to_dict() | {'num_kv_heads': 1}},
     'in the parameters, as its configuration says, .* pass the one'),
    ({'config': {}}, "a 'config' of T5Config.to_dict, got TypeError"),
    ({'step': np.int32(3)}, 'metadata of JSON values'),
])
@pytest.mark.parametrize('format', ['orbax', 't5x', 't5x-orbax', 'hf'])
def test_what_could_not_be_loaded_is_not_written(
    format, change, message, tmp_path
):
  with pytest.raises(UserError, match=message):
    checkpoints.save_checkpoint(
        str(tmp_path / 'checkpoint_3'), _params(), format=format,
        metadata=METADATA | change,
    )  # pyformat: disable
  assert not any(tmp_path.iterdir())


def test_existing_folder_is_not_overwritten(tmp_path):
  (tmp_path / 'mine').write_text('precious')
  with pytest.raises(UserError, match='exists already; remove it'):
    checkpoints.save_checkpoint(
        str(tmp_path / 'mine'), _params(), metadata=METADATA
    )
  assert (tmp_path / 'mine').read_text() == 'precious'


def test_missing_and_foreign_folders_are_refused(tmp_path):
  with pytest.raises(UserError, match='does not exist; check the path'):
    checkpoints.load_checkpoint(str(tmp_path / 'nowhere'))
  with pytest.raises(UserError, match='is not a checkpoint of a known format'):
    checkpoints.load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    'steps, last',
    [
        (['checkpoints/90', 'checkpoints/1000'], 'checkpoints/1000'),
        (['checkpoint_90', 'checkpoint_1000'], 'checkpoint_1000'),
    ],
)
def test_the_folder_of_a_run_names_its_last_step(tmp_path, steps, last):
  for step in steps:
    (tmp_path / step).mkdir(parents=True)
  with pytest.raises(UserError, match=f'such as the last, {tmp_path / last}$'):
    checkpoints.load_checkpoint(str(tmp_path))


def test_damaged_checkpoint_is_one_line(tmp_path):
  path = tmp_path / 'checkpoint'
  checkpoints.save_checkpoint(str(path), _params(), metadata=METADATA)
  (path / 'params' / '_METADATA').write_text('{')
  with pytest.raises(UserError) as error:
    checkpoints.load_checkpoint(str(path))
  assert 'cannot be read' in str(error.value)
  assert '\n' not in str(error.value)


def test_unknown_format_is_refused(tmp_path):
  with pytest.raises(UserError, match="format='zip' is unknown"):
    checkpoints.save_checkpoint(
        str(tmp_path / 'x'), _params(), format='zip', metadata=METADATA
    )


def test_every_bfloat16_is_finite_or_not_as_numpy_says():
  every = np.arange(2**16, dtype=np.uint16).view(jnp.bfloat16)
  with np.errstate(invalid='ignore'):
    expected = np.isfinite(every)
  assert [lazy.is_finite(x) for x in every[:, None]] == expected.tolist()
  finite = every[expected].reshape(2, -1)
  assert lazy.is_finite(finite) and lazy.is_finite(finite.T)
  assert lazy.is_finite(every[:0])
  assert not lazy.is_finite(every)
