# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every gin file keeps the rules; models, runs and tasks compose in any order.

Under the real t5x each composition is parsed, finalised and built: what is
looked at is what t5x's script would be called with. Under the embedded engine
it is the job that would run.
"""

import functools
import importlib.util
import inspect
import math
import pathlib
import re
import sys

import pytest

pytest.importorskip('gin')
pytest.importorskip('seqio')

import gin

from gqa_t5x import errors
from gqa_t5x import gin_configs
from gqa_t5x import pretrained
from gqa_t5x import uptraining
from gqa_t5x.benchmark import models
from gqa_t5x.engine import launch
from gqa_t5x.experiments import paper
from gqa_t5x.tasks import common

PACKAGE = 'gqa_t5x/gin_configs'
ROOT = pathlib.Path(gin_configs.__file__).parent
FILES = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob('*.gin'))


def names(folder):
  """Files of a folder, without those that are only parts of others."""
  found = (name for name in FILES if name.rpartition('/')[0] == folder)
  stems = (name.rpartition('/')[2].removesuffix('.gin') for name in found)
  parts = ('common', 'convert_on', 'new_')
  return [s for s in stems if not s.startswith(parts)]


MODELS, RUNS = names('models'), names('runs')
TASKS = names('experiments/tasks')
# The model of `gqa_t5x.pretrained` has sizes of its own.
SIZES = {'t5_1_1_' + size.name: size for size in models.SIZES}
NAMED = {
    'mha_large': ('large', 16),
    'mha_xxl': ('xxl', 64),
    'mqa_xxl': ('xxl', 1),
    'gqa8_xxl': ('xxl', 8),
}
SCRIPTS = {'eval': 'evaluate', 'infer': 'infer'}


# --- What can be seen without t5x ---


@pytest.mark.parametrize('name', FILES)
def test_head_says_what_how_where_and_what_comes_of_it(name):
  head = ''.join(
      line for line in (ROOT / name).read_text().partition('\n\n')[0]
      .splitlines(keepends=True) if line.startswith('#')
  )  # pyformat: disable
  flat = ' '.join(head.replace('#', ' ').split())
  # These two do what the paper has no word on.
  if name not in ('local/cache.gin', 'local/infer.gin'):
    assert re.search(r'[Ss]ection|Table|Figure|appendix|Appendix', flat)
  assert re.search(r'(python -m t5x\.\w+|gqa-t5x \w+) ', flat), 'no command'
  assert 'Hardware: ' in flat
  assert 'Expected' in flat
  for path in re.findall(r'--gin_file=(\S+\.gin)', flat):
    assert path.removeprefix(PACKAGE + '/') in FILES, path
  for path in re.findall(r'\b(?:figure|table|appendix)\w*\.gin', flat):
    assert f'experiments/{path}' in FILES, path


@pytest.mark.parametrize(
    'name', [n for n in FILES if n.startswith(('runs/', 'local/'))]
)
def test_no_run_includes_a_model(name):
  """It would set the key/value heads back to those of that file."""
  text = (ROOT / name).read_text()
  for included in re.findall(r"include '(\S+)'", text):
    assert included.startswith((f'{PACKAGE}/runs/', f'{PACKAGE}/local/'))
  assert 'NUM_KV_HEADS =' not in text
  assert not re.search(r'^network\.T5Config', text, re.M)


@pytest.mark.parametrize('name', [n for n in FILES if n.startswith('models/')])
def test_models_bind_nothing_but_the_network(name):
  code = re.sub(r'#.*', '', (ROOT / name).read_text())
  assert set(re.findall(r'^import (.*)$|^from (\S+)', code, re.M)) <= {
      ('', '__gin__'), ('', 'gqa_t5x')
  }
  bound = re.findall(r'^(\S+?)(?::| =)', code, re.M)
  assert set(bound) <= {
      'NUM_KV_HEADS', 'network.Transformer.config', 'network.T5Config'
  }


def test_every_folder_is_a_package():
  """Else gin's lookup fails with a message that nobody understands."""
  for name in FILES:
    assert (ROOT / name).with_name('__init__.py').exists(), name


def test_every_cell_of_the_paper_has_its_file():
  rows = {f'table1_{row.model}' for row in paper.TABLE_1}
  rows = {r.lower().replace('-8', '8').replace('-', '_') for r in rows}
  cells = {f'figure4_{method}' for method in paper.FIGURE_4}
  for model, points in paper.FIGURE_5.items():
    if model != 'MHA':
      short = model.lower().replace('-', '')
      cells |= {f'figure5_{short}_alpha_{round(100 * a)}' for a in points}
  others = {'figure4_finetune', 'figure6', 'appendix_a_pretrain'}
  assert set(names('experiments')) == rows | cells | others


def test_uptraining_counts_on():
  assert uptraining.total_steps(1_000_000, 0.05) == 1_050_000
  assert uptraining.total_steps(7000, 0.05) == 7350
  assert uptraining.total_steps(1_000_000, 0.0) == 1_000_000
  for wrong in (5, -0.05, 'x'):
    with pytest.raises(errors.UserError, match=f'got {wrong!r}; 5% is 0.05'):
      uptraining.total_steps(1_000_000, wrong)


def test_a_new_optimizer_counts_from_the_checkpoint():
  assert uptraining.optimizer_start('gs://b/checkpoint_7350/') == 7350
  assert uptraining.optimizer_start('gs://b/checkpoint_7350', 7000) == 7000
  assert uptraining.optimizer_start('/data/copy', 7350) == 7350
  for path, start in (
      ('b/checkpoint_7350', 7351), ('/data/copy', None), ('c', '7'), ('c', -5),
  ):  # pyformat: disable
    with pytest.raises(errors.UserError, match=f'of {path}, got {start}; '):
      uptraining.optimizer_start(path, start)


def test_uptraining_at_a_lower_rate():
  assert uptraining.learning_rate(0.5) == 0.5
  assert uptraining.learning_rate(0.5, 0.25) == 0.125
  for wrong in (0.0, -0.25, math.nan, math.inf, 'x'):
    expected = f'above 0, got {wrong!r}; 1.0 is'
    with pytest.raises(errors.UserError, match=expected):
      uptraining.learning_rate(0.5, wrong)


@pytest.mark.parametrize('model_first', [True, False])
@pytest.mark.parametrize('model', MODELS)
def test_models_serve_the_embedded_engine(monkeypatch, model, model_first):
  made = []
  monkeypatch.setattr(launch.Train, 'run', lambda job: made.append(job))
  files = [f'{PACKAGE}/models/{model}.gin', f'{PACKAGE}/local/finetune.gin']
  launch.run(
      'train',
      files if model_first else files[::-1],
      [
          'INITIAL_CHECKPOINT_PATH = "c"',
          'MODEL_DIR = "m"',
          'MIXTURE_OR_TASK_NAME = "docs_summarize"',
          'TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 8}',
      ],
  )
  check_model(model, made[0].model.config, dropout_rate=0.1)


def check_model(model, config, dropout_rate):
  size, heads = NAMED.get(model, (model.rpartition('_')[2], None))
  assert config.dropout_rate == dropout_rate
  assert config.num_kv_heads == (heads or config.num_heads)
  if f't5_1_1_{size}' in SIZES:
    size = SIZES[f't5_1_1_{size}']
    assert config.vocab_size == paper.VOCAB_SIZE
    assert config.emb_dim == size.emb_dim
    assert config.mlp_dim == size.mlp_dim
    assert config.num_heads == size.num_heads
    assert config.head_dim == size.head_dim
    assert config.num_encoder_layers == size.num_layers
    assert config.num_decoder_layers == size.num_layers
    assert config.mlp_activations == ('gelu', 'linear')
    assert config.dtype.name == 'bfloat16'
    assert not config.logits_via_embedding


# --- Under the real t5x ---


@pytest.fixture(scope='module')
def call():
  """Returns a function: files and bindings to a script's real arguments.

  Run files name the script as `__main__`, which it is when a user starts it.
  """
  if importlib.util.find_spec('t5x') is None:
    pytest.skip('t5x is not installed')
  from t5x import eval as t5x_eval
  from t5x import infer
  from t5x import train

  main = sys.modules['__main__']
  recorders = {}

  def record(function):
    @functools.wraps(function)
    def recorder(*args, **kwargs):
      return inspect.signature(function).bind(*args, **kwargs).arguments

    recorder.__module__ = '__main__'
    recorders[function.__name__] = recorder
    setattr(main, function.__name__, recorder)

  for function in (train.train, t5x_eval.evaluate, infer.infer):
    record(function)

  def call_script(run, files, *bindings):
    script = SCRIPTS.get(run, 'train')
    gin.clear_config(clear_constants=True)
    gin.parse_config_files_and_bindings(
        [f'{PACKAGE}/{name}.gin' for name in files],
        [*REQUIRED[script], *bindings],
    )
    return gin.get_configurable(recorders[script])()

  yield call_script
  gin.clear_config(clear_constants=True)
  for name in recorders:
    delattr(main, name)


_SUMMARIZE = (
    'MIXTURE_OR_TASK_NAME = "docs_summarize"',
    'TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 8}',
)
REQUIRED = {
    'train': ('MODEL_DIR = "m"', 'INITIAL_CHECKPOINT_PATH = "c/checkpoint_7"'),
    'evaluate': ('CHECKPOINT_PATH = "c"', 'EVAL_OUTPUT_DIR = "o"'),
    'infer': ('CHECKPOINT_PATH = "c"', 'INFER_OUTPUT_DIR = "o"'),
}


def dataset(arguments):
  """The dataset's configuration, by whatever name the script knows it."""
  return arguments.get('train_dataset_cfg') or arguments['dataset_cfg']


@pytest.mark.t5x
@pytest.mark.parametrize('model_first', [True, False])
@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('model', MODELS)
def test_models_and_runs_compose(call, model, run, model_first):
  files = [f'models/{model}', f'runs/{run}']
  steps = ['TRAIN_STEPS = 5'] if run == 'finetune' else []
  arguments = call(
      run, files if model_first else files[::-1], *_SUMMARIZE, *steps
  )
  config = arguments['model'].module.config
  check_model(model, config, 0.1 if run == 'finetune' else 0.0)
  from gqa_t5x import t5x_plugin
  assert isinstance(arguments['model'], t5x_plugin.EncoderDecoderModel)
  assert isinstance(arguments['partitioner'], t5x_plugin.PjitPartitioner)
  vocabulary = arguments['model'].output_vocabulary
  assert vocabulary.vocab_size == 4096  # that of docs_summarize


@pytest.mark.t5x
@pytest.mark.parametrize('model_first', [True, False])
@pytest.mark.parametrize('run', RUNS)
def test_heads_of_the_command_line_survive(call, run, model_first):
  files = ['models/t5_1_1_base', f'runs/{run}']
  steps = ['TRAIN_STEPS = 5'] if run == 'finetune' else []
  arguments = call(
      run,
      files if model_first else files[::-1],
      *_SUMMARIZE,
      *steps,
      'NUM_KV_HEADS = 3',
      'BATCH_SIZE = 24',
      'DROPOUT_RATE = 0.25',
  )
  assert arguments['model'].module.config.num_kv_heads == 3
  assert arguments['model'].module.config.dropout_rate == 0.25
  assert dataset(arguments).batch_size == 24


@pytest.mark.t5x
@pytest.mark.parametrize('task_first', [True, False])
@pytest.mark.parametrize('run', ['finetune', 'eval', 'infer'])
@pytest.mark.parametrize('task', paper.TASKS, ids=lambda t: t.short_name)
def test_tasks_compose(call, task, run, task_first):
  (name,) = (n for n in TASKS if _joined(n).startswith(_joined(task.name)))
  files = ['models/mqa_xxl', f'runs/{run}', f'experiments/tasks/{name}']
  steps = ['TRAIN_STEPS = 5'] if run == 'finetune' else []
  arguments = call(run, files[::-1] if task_first else files, *steps)
  for config in (dataset(arguments), arguments.get('infer_eval_dataset_cfg')):
    if config is not None:
      assert config.mixture_or_task_name == f'gqa_{name}'
      assert config.task_feature_lengths == {
          'inputs': task.input_length, 'targets': task.output_length
      }
  vocabulary = arguments['model'].output_vocabulary
  assert vocabulary.sentencepiece_model_file == common.T5_VOCABULARY_PATH


@pytest.mark.t5x
def test_model_follows_the_vocabulary_of_the_tasks(call):
  arguments = call(
      'eval',
      ['models/t5_1_1_mini', 'runs/eval', 'experiments/tasks/arxiv'],
      f't5_vocabulary.path = "{pretrained.VOCABULARY_PATH}"',
  )
  assert arguments['model'].output_vocabulary.vocab_size == 4096


def _joined(name):
  return re.sub(r'[^a-z0-9]', '', name.lower())


@pytest.mark.t5x
def test_pretraining_is_the_papers(call):
  arguments = call('pretrain', ['models/mha_large', 'runs/pretrain'],
                   'INITIAL_CHECKPOINT_PATH = None')  # pyformat: disable
  check_recipe(arguments)
  assert arguments['total_steps'] == 1_000_000
  assert not arguments['checkpoint_cfg'].restore.path


@pytest.mark.t5x
def test_uptraining_continues_it(call):
  arguments = call('uptrain', ['models/gqa8_xxl', 'runs/uptrain'])
  check_recipe(arguments)
  assert arguments['total_steps'] == 1_050_000
  restore = arguments['checkpoint_cfg'].restore
  assert (restore.path, restore.mode) == ('c/checkpoint_7', 'specific')
  assert not restore.state_transformation_fns


@pytest.mark.t5x
def test_uptraining_at_a_quarter_of_the_rate(call):
  call('uptrain', ['models/gqa8_xxl', 'runs/uptrain'],
       'LEARNING_RATE_FACTOR = 0.25')  # pyformat: disable
  assert learning_rate(1_000_000) == pytest.approx(0.00025)


def check_recipe(arguments):
  assert dataset(arguments).mixture_or_task_name == 'gqa_c4_span_corruption'
  assert dataset(arguments).batch_size == 2048
  assert dataset(arguments).task_feature_lengths == {
      'inputs': 512, 'targets': 114
  }
  assert not dataset(arguments).use_cached
  model = arguments['model']
  assert model._loss_normalizing_factor == 2048 * 114
  assert model.optimizer_def.hyper_params.decay_rate == 0.8
  assert learning_rate(1) == pytest.approx(0.01)
  assert learning_rate(10_000) == pytest.approx(0.01)
  assert learning_rate(1_000_000) == pytest.approx(0.001)


def learning_rate(step):
  """Of the trainer whose class gin passes; only its call would show it."""
  bound = gin.get_bindings('t5x.trainer.Trainer')
  return float(bound['learning_rate_fn'](step))


@pytest.mark.t5x
def test_finetuning_is_the_papers(call):
  arguments = call('finetune', ['experiments/table1_gqa8_xxl'], *_SUMMARIZE)
  assert dataset(arguments).batch_size == 128
  assert learning_rate(1_060_000) == pytest.approx(0.001)
  assert arguments['model']._loss_normalizing_factor == 233_472
  decoded = arguments['infer_eval_dataset_cfg']
  assert decoded.split == 'validation'
  assert decoded.task_feature_lengths == {'inputs': 16, 'targets': 8}


@pytest.mark.t5x
@pytest.mark.parametrize('run', ['uptrain', 'finetune'])
def test_conversion_on_restore(call, run):
  arguments = call(
      run,
      ['models/gqa8_xxl', f'runs/{run}', 'runs/convert_on_restore'],
      *_SUMMARIZE,
      'TRAIN_STEPS = 5',
      'CONVERSION_METHOD = "first"',
      'OPTIMIZER_SLOTS = "reset"',
  )
  (convert,) = arguments['checkpoint_cfg'].restore.state_transformation_fns
  bound = gin.get_bindings('gqa_t5x.t5x_plugin.convert_on_restore')
  assert bound.pop('config').num_kv_heads == 8
  assert bound == {
      'checkpoint_path': 'c/checkpoint_7',
      'method': 'first',
      'seed': None,
      'slots': 'reset',
  }
  assert convert({'target': 1}, {}, is_resuming=True) == {'target': 1}


@pytest.mark.t5x
@pytest.mark.parametrize('run', ['uptrain', 'finetune'])
def test_new_optimizer(call, run):
  arguments = call(
      run,
      ['models/gqa8_xxl', f'runs/{run}', 'runs/new_optimizer'],
      *_SUMMARIZE,
      'TRAIN_STEPS = 1050000',
  )
  optimizer = arguments['model'].optimizer_def.hyper_params
  assert (optimizer.step_offset, optimizer.decay_rate) == (7, 0.8)
  restore = arguments['checkpoint_cfg'].restore
  assert restore.fallback_to_scratch
  (take_away,) = restore.state_transformation_fns
  stored = {'target': {'w': 1}, 'state': {'step': 7, 'param_states': {'w': 2}}}
  assert take_away(stored, stored) == {'target': {'w': 1}, 'state': {'step': 7}}
  assert take_away(stored, stored, is_resuming=True) == stored


@pytest.mark.t5x
@pytest.mark.parametrize('name', names('experiments'))
def test_experiments_build(call, name):
  text = (ROOT / f'experiments/{name}.gin').read_text()
  (run,) = re.findall(
      r"^include '\S+/runs/(pretrain|uptrain|finetune|infer)\.gin'", text, re.M
  )
  extra = _SUMMARIZE if run == 'finetune' else ()
  if name == 'figure6':  # There are no eight devices here.
    extra = (
        'NUM_PARTITIONS = 1',
        't5x_plugin.PjitPartitioner.model_parallel_submesh = None',
    )
  arguments = call(run, [f'experiments/{name}'], *extra)
  config = arguments['model'].module.config
  if name.startswith('table1'):
    assert config.num_kv_heads == NAMED[name.removeprefix('table1_')][1]
  elif name.startswith(('figure4', 'appendix_a')):
    assert (config.emb_dim, config.num_kv_heads) == (1024, 1)
  elif name.startswith('figure5'):
    assert config.emb_dim == 4096
    assert config.num_kv_heads == (8 if 'gqa8' in name else 1)
    percent = int(name.rpartition('_')[2])
    assert arguments['total_steps'] == (
        1_000_000 + 10_000 * percent if percent else 1_050_000
    )
    assert arguments['checkpoint_cfg'].restore.state_transformation_fns
  else:
    assert dataset(arguments).task_feature_lengths == {
        'inputs': 2048, 'targets': 512
    }
    assert arguments['model'].output_vocabulary.eos_id == -1
