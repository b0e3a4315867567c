# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop: resume, accumulation, packing, choice of checkpoints."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
from scipy import special

from gqa_t5x import checkpoints
from gqa_t5x.engine import checkpointing
from gqa_t5x.engine import losses
from gqa_t5x.engine import optimizer
from gqa_t5x.engine import train
from gqa_t5x.engine import train_step
from gqa_t5x.errors import PeerLostError, UserError
from tests.engine import conftest


def make_config(model_dir, **changes) -> train.TrainConfig:
  settings = dict(
      model_dir=str(model_dir),
      total_steps=7,
      schedule=optimizer.Schedule('constant', 0.05),
      log_every=1,
      eval_every=3,
      checkpoint_every=3,
  )
  return train.TrainConfig(**(settings | changes))


def trainer_of(model) -> train_step.Trainer:
  return train_step.Trainer(model, train_step.StepConfig())


def read_metrics(model_dir) -> list[dict]:
  """Lines of metrics.jsonl without what depends on the clock."""
  lines = (model_dir / 'metrics.jsonl').read_text().splitlines()
  clock = ('seconds_per_step', 'tokens_per_second')
  return [
      {k: v for k, v in json.loads(line).items() if k not in clock}
      for line in lines
  ]


def same(a, b) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


class Killed(Exception):
  pass


def test_resume_after_a_kill_is_exact(tmp_path, batches):
  model = conftest.make_model(dropout_rate=0.2)
  # A rate that falls up to where the run ends, and steps that are counted from
  # where it starts.
  changes = dict(
      schedule=optimizer.Schedule('constant', 0.05, linear_decay_steps=6),
      total_steps=None,
      relative_steps=7,
  )
  config = make_config(tmp_path / 'whole', **changes)
  whole = train.train(model, config, batches)

  def killed(start):
    for n, batch in enumerate(batches(start)):
      if n == 5:  # After steps 4 and 5, which were logged but not saved.
        raise Killed
      yield batch

  config = make_config(tmp_path / 'killed', **changes)
  with pytest.raises(Killed):
    train.train(model, config, killed)
  resumed = train.train(model, config, batches)
  same(whole.params, resumed.params)
  same(whole.opt_state, resumed.opt_state)
  assert read_metrics(tmp_path / 'whole') == read_metrics(tmp_path / 'killed')
  assert [m['step'] for m in read_metrics(tmp_path / 'killed')] == [
      1, 2, 3, 4, 5, 6, 7,
  ]
  longer = dataclasses.replace(config, relative_steps=9)
  with pytest.raises(UserError, match="was 'relative_steps=7', is now"):
    train.train(model, longer, batches)


@pytest.mark.parametrize('steps', [{'total_steps': 0}, {'relative_steps': 0}])
def test_no_steps_at_all_are_refused(tmp_path, batches, steps):
  config = make_config(tmp_path, **{'total_steps': None} | steps)
  with pytest.raises(UserError, match='expected steps to make, got none'):
    train.train(conftest.make_model(), config, batches)


def test_a_run_that_saved_nothing_may_be_another(tmp_path, batches):
  def fails(start):
    raise Killed

  model = conftest.make_model()
  with pytest.raises(Killed):
    train.train(model, make_config(tmp_path, seed=1), fails)
  config = make_config(tmp_path, seed=2, total_steps=1)
  state = train.train(model, config, batches)
  config = make_config(tmp_path / 'other', seed=2, total_steps=1)
  same(state.params, train.train(model, config, batches).params)


def test_finished_run_is_not_trained_again(tmp_path, batches):
  model, config = conftest.make_model(), make_config(tmp_path, total_steps=2)
  first = train.train(model, config, batches)
  again = train.train(
      model, config, lambda start: pytest.fail('it is trained again')
  )
  same(first.params, again.params)


def test_what_is_not_measured_has_no_line(tmp_path, batches):
  config = make_config(tmp_path, total_steps=1)
  train.train(conftest.make_model(), config, batches, lambda *unused: {})
  (line,) = read_metrics(tmp_path)
  assert line['step'] == 1 and 'loss' in line


def test_loss_falls(tmp_path, batches):
  model = conftest.make_model()
  config = make_config(tmp_path, total_steps=60, log_every=10)
  train.train(model, config, batches)
  metrics = read_metrics(tmp_path)
  assert metrics[-1]['loss'] < metrics[0]['loss'] - 0.5


@pytest.mark.parametrize(
    'factor', [None, 'NUM_REAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE']
)
def test_microbatches_add_up_to_the_batch(tmp_path, batches, factor):
  model = conftest.make_model()
  loss = losses.LossConfig(loss_normalizing_factor=factor)
  batch = next(batches(0))
  results = []
  for parts in (1, 4):
    config = make_config(tmp_path, loss=loss, num_microbatches=parts)
    trainer = train_step.Trainer(model, config)
    state, metrics = trainer.step(trainer.initial_state(0), batch)
    results.append((metrics, state.params))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
      *results,
  )


def test_gradients_are_of_the_mean_loss_of_a_token(tmp_path, batches):
  """Adafactor does not see their size, but clipping and the log do."""
  model = conftest.make_model()
  loss = losses.LossConfig(
      z_loss=0.0, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS'
  )
  config = make_config(tmp_path, loss=loss)
  trainer = train_step.Trainer(model, config)
  start = trainer.initial_state(0)
  params = jax.tree.map(np.asarray, start.params)
  batch = next(batches(0))
  weights = batch['decoder_loss_weights']

  def mean_loss(params):
    features = {k: v for k, v in batch.items() if k != 'decoder_loss_weights'}
    logits = model.apply({'params': params}, **features, enable_dropout=False)
    of_target = jax.nn.one_hot(batch['decoder_target_tokens'], logits.shape[-1])
    per_token = -(jax.nn.log_softmax(logits) * of_target).sum(-1)
    return (per_token * weights).sum() / weights.sum()

  grads = jax.tree.leaves(jax.grad(mean_loss)(params))
  expected = np.sqrt(sum(float((g**2).sum()) for g in grads))
  _, metrics = trainer.step(start, batch)
  np.testing.assert_allclose(metrics['grad_norm'], expected, rtol=1e-4)


def test_continues_from_checkpoint_at_its_step_and_rate(tmp_path, batches):
  model = conftest.make_model()
  params = trainer_of(model).initial_state(0).params
  metadata = {'config': model.config.to_dict(), 'step': 1_000_000}
  metadata |= {'hf_config': {'n_positions': 512}}
  checkpoints.save_checkpoint(tmp_path / 'init', params, metadata=metadata)
  config = make_config(
      tmp_path / 'run',
      initial_checkpoint=str(tmp_path / 'init'),
      total_steps=None,
      relative_steps=2,
      schedule=optimizer.Schedule('rsqrt', 1.0, 10_000),
  )
  state = train.train(model, config, batches)
  assert int(state.step) == 1_000_002
  first = read_metrics(tmp_path / 'run')[0]
  assert first['step'] == 1_000_001
  np.testing.assert_allclose(first['learning_rate'], 1e-3, rtol=1e-6)
  restarted = dataclasses.replace(
      config, model_dir=str(tmp_path / 'restarted'), reset_step=True
  )
  assert int(train.train(model, restarted, batches).step) == 2
  decaying = dataclasses.replace(
      config,
      model_dir=str(tmp_path / 'decaying'),
      log_every=1,
      schedule=optimizer.Schedule('constant', 0.01, linear_decay_steps=2),
  )
  train.train(model, decaying, batches)
  rates = [row['learning_rate'] for row in read_metrics(tmp_path / 'decaying')]
  np.testing.assert_allclose(rates, [0.01, 0.005], rtol=1e-6)
  warm = dataclasses.replace(
      decaying,
      model_dir=str(tmp_path / 'warm'),
      schedule=optimizer.Schedule('constant', 0.01, linear_warmup_steps=2),
  )
  train.train(model, warm, batches)
  rates = [row['learning_rate'] for row in read_metrics(tmp_path / 'warm')]
  np.testing.assert_allclose(rates, [0.0, 0.005], rtol=1e-6)
  # Hugging Face's tell no step, and others must be of the one that is told.
  checkpoints.save_checkpoint(
      tmp_path / 'no_step', params, metadata=metadata | {'step': None}
  )
  told = dataclasses.replace(
      config, model_dir=str(tmp_path / 'told'), initial_step=500,
      initial_checkpoint=str(tmp_path / 'no_step'),
  )  # pyformat: disable
  assert int(train.train(model, told, batches).step) == 502
  wrong = dataclasses.replace(
      told, model_dir=str(tmp_path / 'wrong'),
      initial_checkpoint=config.initial_checkpoint,
  )  # pyformat: disable
  with pytest.raises(UserError, match='set --gin.PRETRAIN_STEPS=1000000'):
    train.train(model, wrong, batches)
  # Either reads the run's data from its beginning.
  losses_of = [
      read_metrics(tmp_path / run)[0]['loss'] for run in ('run', 'restarted')
  ]
  assert losses_of[0] == losses_of[1]
  _, metadata = checkpoints.load_checkpoint(
      str(tmp_path / 'run' / 'checkpoints' / '1000002')
  )
  assert metadata['step'] == 1_000_002
  assert metadata['hf_config'] == {'n_positions': 512}
  assert metadata['config'] == model.config.to_dict()


def test_initial_checkpoint_of_another_model_is_refused(tmp_path, batches):
  other = conftest.make_model(num_kv_heads=4)
  params = trainer_of(other).initial_state(0).params
  metadata = {'config': other.config.to_dict(), 'step': 3}
  checkpoints.save_checkpoint(tmp_path / 'init', params, metadata=metadata)
  config = make_config(
      tmp_path / 'run', initial_checkpoint=str(tmp_path / 'init')
  )
  with pytest.raises(UserError, match='gqa-t5x convert') as error:
    train.train(conftest.make_model(), config, batches)
  assert 'key/kernel should be (24, 8), is (24, 16)' in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_run_goes_on_without_what_it_began_with(tmp_path, batches):
  """The run that made that may have removed the step since."""
  model = conftest.make_model()
  params = trainer_of(model).initial_state(0).params
  metadata = {'config': model.config.to_dict(), 'step': 10}
  checkpoints.save_checkpoint(tmp_path / 'init', params, metadata=metadata)
  config = make_config(
      tmp_path / 'run', initial_checkpoint=str(tmp_path / 'init'),
      total_steps=11,
  )  # pyformat: disable
  train.train(model, config, batches)
  shutil.rmtree(tmp_path / 'init')
  longer = dataclasses.replace(
      config, total_steps=12,
      initial_checkpoint=config.initial_checkpoint + '/',  # As shells end it.
  )  # pyformat: disable
  assert int(train.train(model, longer, batches).step) == 12


def test_a_folder_that_only_looks_like_a_step_is_not_gone_on_from(
    tmp_path, batches
):
  (tmp_path / 'run' / 'checkpoints' / '7').mkdir(parents=True)
  config = make_config(
      tmp_path / 'run', initial_checkpoint=str(tmp_path / 'missing')
  )
  # Neither that nor parameters drawn anew.
  with pytest.raises(UserError):
    train.train(conftest.make_model(), config, batches)


def test_other_run_in_the_folder_is_refused(tmp_path, batches):
  model = conftest.make_model()
  train.train(model, make_config(tmp_path, total_steps=1), batches)
  with pytest.raises(UserError, match='train.seed was 0, is now 1'):
    train.train(model, make_config(tmp_path, seed=1), batches)
  longer = train.train(model, make_config(tmp_path, total_steps=2), batches)
  assert int(longer.step) == 2
  config = make_config(tmp_path, schedule=optimizer.Schedule('constant', 0.1))
  with pytest.raises(UserError, match='train.schedule.base was 0.05, is now'):
    train.train(model, config, batches)
  # One of a version before there was a warm-up is no other run.
  path = tmp_path / 'config.json'
  old = json.loads(path.read_text())
  del old['train']['schedule']['linear_warmup_steps']
  path.write_text(json.dumps(old))
  longer = train.train(model, make_config(tmp_path, total_steps=3), batches)
  assert int(longer.step) == 3


@pytest.mark.parametrize('metric, mode', [
    ('loss', 'min'), ('accuracy', 'max'), ('docs_summarize/rouge1', 'max')
])
def test_of_a_loss_the_lowest_is_best_of_all_else_the_highest(
    tmp_path, metric, mode
):
  assert make_config(tmp_path, best_metric=metric).best_mode == mode
  chosen = make_config(tmp_path, best_metric=metric, best_mode='min')
  assert chosen.best_mode == 'min'


@pytest.mark.parametrize('third', [0.1, float('nan')])
def test_best_checkpoint_is_kept_with_the_latest(tmp_path, batches, third):
  scores = iter([0.3, 0.9, third, 0.5])
  config = make_config(
      tmp_path,
      total_steps=4,
      eval_every=1,
      checkpoint_every=1,
      keep=1,
      best_metric='f1',
  )
  train.train(
      conftest.make_model(), config, batches, lambda *_: {'f1': next(scores)}
  )
  assert sorted(os.listdir(tmp_path / 'checkpoints')) == ['2', '4']
  best = checkpointing.best_or_latest(str(tmp_path), 'f1', 'max')
  assert os.path.basename(best) == '2'
  assert os.path.basename(checkpointing.best_or_latest(str(tmp_path))) == '4'


@pytest.mark.parametrize('start', [100, 101])
def test_runs_are_measured_after_as_many_steps_wherever_they_start(
    tmp_path, batches, start
):
  model = conftest.make_model()
  params = trainer_of(model).initial_state(0).params
  checkpoints.save_checkpoint(
      tmp_path / 'init',
      params,
      metadata={'config': model.config.to_dict(), 'step': start},
  )
  config = make_config(
      tmp_path / 'run',
      total_steps=None,
      relative_steps=7,
      initial_checkpoint=str(tmp_path / 'init'),
      keep=None,
  )
  measured = []
  train.train(
      model, config, batches, lambda _, step: measured.append(step) or {'x': 1}
  )
  saved = sorted(int(x) for x in os.listdir(tmp_path / 'run' / 'checkpoints'))
  assert measured == saved == [start + n for n in (3, 6, 7)]


def test_loss_that_is_not_finite_stops_the_run_unsaved(tmp_path, batches):
  config = make_config(
      tmp_path, schedule=optimizer.Schedule('constant', float('inf')),
      log_every=100,
  )
  with pytest.raises(UserError, match='that of step 2 is not'):
    train.train(conftest.make_model(), config, batches)
  assert not list((tmp_path / 'checkpoints').glob('*'))


@pytest.mark.parametrize(
    'status,expected',
    [
        ('RESOURCE_EXHAUSTED: 9G', jax.errors.JaxRuntimeError),
        ('UNAVAILABLE: reset by peer', PeerLostError),
    ],
)
def test_a_step_that_fails_among_several_processes(
    tmp_path, batches, monkeypatch, status, expected
):
  def fail(*args):
    del args
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    raise jax.errors.JaxRuntimeError(status)

  monkeypatch.setattr(train, '_loop', fail)
  with pytest.raises(expected, match=status):
    train.train(conftest.make_model(), make_config(tmp_path), batches)


def test_runs_of_other_seeds_and_lengths_share_the_compiled_step(tmp_path):
  model = conftest.make_model(dropout_rate=0.2)
  one = train_step.trainer_for(model, make_config(tmp_path / 'a', seed=1))
  other = make_config(tmp_path / 'b', seed=2, total_steps=99)
  assert train_step.trainer_for(model, other) is one
  another = dataclasses.replace(other, num_microbatches=2)
  assert train_step.trainer_for(model, another) is not one


def test_dropout_follows_the_key(tmp_path, batches):
  model = conftest.make_model(dropout_rate=0.5)
  trainer = train_step.trainer_for(model, make_config(tmp_path))
  batch = next(batches(0))

  def loss(seed):
    state = trainer.initial_state(0)
    return float(trainer.step(state, batch, jax.random.key(seed))[1]['loss'])

  assert loss(1) == loss(1) != loss(2)


DISTILLS = losses.LossConfig(
    z_loss=1e-3, distillation_weight=0.75, temperature=2.0,
    loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
)  # pyformat: disable


@pytest.fixture
def teacher(tmp_path):
  """Returns a multi-head model's parameters, and where they are."""
  model = conftest.make_model(num_kv_heads=4)
  params = trainer_of(model).initial_state(7).params
  # Random logits are all but equal: these have something to teach.
  params['token_embedder']['embedding'] *= 3
  path = str(tmp_path / 'teacher')
  metadata = {'config': model.config.to_dict(), 'step': 3}
  checkpoints.save_checkpoint(path, params, metadata=metadata)
  return jax.tree.map(np.asarray, params), path


def test_distillation_is_of_the_teachers_softened_distribution(
    batches, teacher
):
  """The loss of a step, by hand; the teacher has no dropout."""
  model = conftest.make_model(num_kv_heads=1, dropout_rate=0.5)
  params = trainer_of(model).initial_state(0).params
  batch, key = next(batches(0)), jax.random.key(1)
  weights = batch['decoder_loss_weights']
  features = {k: v for k, v in batch.items() if k != 'decoder_loss_weights'}
  logits = model.apply(
      {'params': params}, **features, enable_dropout=True, rngs={'dropout': key}
  )
  wanted = conftest.make_model(num_kv_heads=4).apply(
      {'params': teacher[0]}, **features, enable_dropout=False
  )
  log_q, log_p = (
      special.log_softmax(np.float64(x) / 2, -1) for x in (logits, wanted)
  )
  divergence = 4 * (np.exp(log_p) * (log_p - log_q)).sum(-1)
  logits, targets = np.float64(logits), batch['decoder_target_tokens']
  log_z = special.logsumexp(logits, -1)
  chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  z_loss = 1e-3 * log_z**2
  expected = 0.25 * (log_z - chosen) + 0.75 * divergence + z_loss
  loss, metrics = train_step.loss_fn(
      params, model, batch, weights, DISTILLS, key, teacher[0]
  )
  np.testing.assert_allclose(loss, (expected * weights).sum(), rtol=1e-5)
  found = [metrics[name] for name in ('distillation_loss', 'loss')]
  expected = [
      (x * weights).sum() for x in (divergence, log_z - chosen + z_loss)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert found[0] > 1


def test_distilling_goes_on_exactly_and_comes_closer(
    tmp_path, batches, teacher
):
  """In microbatches, stopped and gone on with."""
  model = conftest.make_model(num_kv_heads=1)
  changes = dict(
      teacher_checkpoint=teacher[1],
      loss=dataclasses.replace(DISTILLS, distillation_weight=1.0),
      num_microbatches=2, log_every=5, checkpoint_every=5,
  )  # pyformat: disable
  config = make_config(tmp_path / 'run', total_steps=40, **changes)
  whole = train.train(model, config, batches)
  found = [line['distillation_loss'] for line in read_metrics(tmp_path / 'run')]
  assert found[-1] < 0.7 * found[0]
  config = make_config(tmp_path / 'again', total_steps=10, **changes)
  train.train(model, config, batches)
  config = dataclasses.replace(config, total_steps=40)
  same(whole.params, train.train(model, config, batches).params)


def test_a_teacher_and_its_weight_go_together(tmp_path, batches, teacher):
  for changes in ({'teacher_checkpoint': teacher[1]}, {'loss': DISTILLS}):
    with pytest.raises(UserError, match='both or neither'):
      make_config(tmp_path, **changes)
  # One that is not the multi-head model of the same sizes is named.
  model = conftest.make_model(num_kv_heads=1, mlp_dim=8)
  config = make_config(
      tmp_path / 'run', teacher_checkpoint=teacher[1], loss=DISTILLS
  )
  with pytest.raises(UserError, match='a multi-head checkpoint') as error:
    train.train(model, config, batches)
  assert 'teacher does not fit the model: ' in str(error.value)
  assert not (tmp_path / 'run').exists()
