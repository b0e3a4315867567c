# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's tasks end to end: on rows written here, and on TFDS's features.

Texts, lengths and orders are worked out by hand from what T5 and the paper say.
"""

import functools
from importlib import resources
import shlex

import gin
import numpy as np
import pytest

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')
tfds = pytest.importorskip('tensorflow_datasets')

from gqa_t5x import errors
from gqa_t5x import pretrained
from gqa_t5x.tasks import common
from gqa_t5x.tasks import metrics
from gqa_t5x.tasks import paper  # noqa: F401  It registers them.

# Most tokens, EOS counted: section 3.1; those of C4 are T5's pre-training.
LENGTHS = {
    'gqa_cnn_dailymail': {'inputs': 512, 'targets': 256},
    'gqa_arxiv': {'inputs': 2048, 'targets': 512},
    'gqa_pubmed': {'inputs': 2048, 'targets': 512},
    'gqa_media_sum': {'inputs': 2048, 'targets': 512},
    'gqa_multi_news': {'inputs': 2048, 'targets': 512},
    'gqa_wmt14_en_de': {'inputs': 512, 'targets': 256},
    'gqa_trivia_qa': {'inputs': 2048, 'targets': 32},
    'gqa_c4_span_corruption': {'inputs': 512, 'targets': 114},
}


@pytest.fixture(autouse=True)
def _shipped_vocabulary():
  gin.bind_parameter('t5_vocabulary.path', pretrained.VOCABULARY_PATH)
  yield
  gin.clear_config()


def _inject(monkeypatch, name, rows, split, repeat=1):
  """Returns the task, its source replaced by these rows, again and again."""
  task = seqio.get_mixture_or_task(name)

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    parts = [tf.data.Dataset.from_tensors(row) for row in rows]
    return functools.reduce(lambda a, b: a.concatenate(b), parts).repeat(repeat)

  source = seqio.FunctionDataSource(dataset, splits=(split,))
  monkeypatch.setattr(task, '_source', source)
  return task


def _examples(
    monkeypatch, name, rows, split='train', lengths=None, seed=0, repeat=1
):
  task = _inject(monkeypatch, name, rows, split, repeat)
  dataset = task.get_dataset(lengths, split=split, shuffle=False, seed=seed)
  return list(dataset.as_numpy_iterator())


def _decoded(example):
  """Returns what the model is given, as text, and checks where EOS is."""
  texts = []
  for feature in ('inputs', 'targets'):
    tokens = example[feature].tolist()
    assert tokens[-1] == 1 and 1 not in tokens[:-1]
    texts.append(common.t5_vocabulary().decode(tokens))
  return tuple(texts)


def _text(example):
  return tuple(
      example[f'{feature}_pretokenized'].decode()
      for feature in ('inputs', 'targets')
  )


def test_cnn_dailymail(monkeypatch):
  row = {'article': 'A dog barked. It rained.', 'highlights': 'Dog.\nRain.'}
  (example,) = _examples(monkeypatch, 'gqa_cnn_dailymail', [row])
  assert _text(example) == (
      'summarize: A dog barked. It rained.', 'Dog.\nRain.'
  )  # pyformat: disable
  assert _decoded(example) == (
      'summarize: A dog barked. It rained.', 'Dog. Rain.'
  )  # pyformat: disable


@pytest.mark.parametrize('name', ['gqa_arxiv', 'gqa_pubmed'])
def test_papers_without_abstract_or_text_are_left_out(monkeypatch, name):
  rows = [
      {'article': 'we show x .', 'abstract': '', 'section_names': 'a'},
      {'article': '', 'abstract': ' x . ', 'section_names': ''},
      {'article': 'we show x .\nand y .', 'abstract': ' x . \n y . ',
       'section_names': 'intro\nend'},
      {'article': 'we show z .', 'abstract': '\n ', 'section_names': ''},
  ]  # pyformat: disable
  for split in ('train', 'validation'):
    (example,) = _examples(monkeypatch, name, rows, split)
    assert _decoded(example) == (
        'summarize: we show x . and y .', 'x . y .'
    )  # pyformat: disable


def test_media_sum_names_its_speakers(monkeypatch):
  rows = [
      {
          'speaker': ['TERRY GROSS, HOST', 'Mr. LEE (Actor)', '', 'GROSS'],
          'utt': ['Welcome.', 'Thanks: hi!', '(Laughter)', 'So?'],
          'summary': 'An actor is welcomed.',
      },
      {'speaker': ['ANN'], 'utt': ['One.', 'Two.'], 'summary': 'Counting.'},
      {'speaker': ['ANN', 'BO'], 'utt': ['Hm.'], 'summary': 'A sound.'},
      {'speaker': np.zeros([0], str), 'utt': np.zeros([0], str),
       'summary': 'Nobody spoke.'},
  ]  # pyformat: disable
  examples = _examples(monkeypatch, 'gqa_media_sum', rows)
  assert [_text(e) for e in examples] == [
      ('summarize: TERRY GROSS, HOST: Welcome. Mr. LEE (Actor): Thanks: hi! '
       '(Laughter) GROSS: So?', 'An actor is welcomed.'),
      ('summarize: ANN: One. Two.', 'Counting.'),
      ('summarize: ANN: Hm.', 'A sound.'),
  ]  # pyformat: disable


def test_multi_news_lines_and_articles(monkeypatch):
  row = {
      'document': 'First.\n \nMore of it. ||||| Second.\n',
      'summary': '– Both\nsay so.',
  }
  (example,) = _examples(monkeypatch, 'gqa_multi_news', [row])
  inputs, targets = _decoded(example)
  assert inputs == 'summarize: First. More of it. ||||| Second.'
  assert targets == '– Both say so.'
  # Metrics see the text of the data set, and forgive the line break.
  assert metrics.rouge([_text(example)[1]], [targets])['rouge1'] == 100.0


def test_wmt14(monkeypatch):
  row = {'en': 'That is good.', 'de': 'Das ist gut.'}
  (example,) = _examples(monkeypatch, 'gqa_wmt14_en_de', [row])
  assert _decoded(example) == (
      'translate English to German: That is good.', 'Das ist gut.'
  )  # pyformat: disable


def _trivia_row(**changes):
  return {
      'question': 'Who wrote "Main Street"?',
      'question_id': 'q1',
      'entity_pages': {
          'title': ['Main Street', 'Nothing'],
          'wiki_context': ['It is by Sinclair Lewis,\nborn 1885.', 'No.'],
      },
      'search_results': {
          'rank': [1],
          'search_context': ["LEWIS'S book; by H. S. Lewis."],
      },
      'answer': {
          'value': 'Sinclair Lewis',
          'aliases': ['Sinclair Lewis', 'Harry Sinclair Lewis', 'Lewis, S.'],
          'normalized_aliases': ['sinclair lewis', 'h s lewis', '', 'lewis'],
          'normalized_value': 'sinclair lewis',
      },
      **changes,
  }


def test_trivia_qa_trains_on_each_page_and_alias(monkeypatch):
  examples = _examples(monkeypatch, 'gqa_trivia_qa', [_trivia_row()])
  question = 'question: Who wrote " Main Street " ? context: '
  wiki = question + 'It is by Sinclair Lewis , born 1885 .'
  search = question + "LEWIS ' S book ; by H . S . Lewis ."
  # "h s lewis" is nowhere: the page has full stops between.
  assert [_text(e) for e in examples] == [
      (wiki, 'sinclair lewis'), (wiki, 'lewis'), (search, 'lewis'),
  ]  # pyformat: disable
  assert [_decoded(e) for e in examples] == [_text(e) for e in examples]


def test_trivia_qa_evaluates_each_question_once(monkeypatch):
  row = _trivia_row()
  (example,) = _examples(monkeypatch, 'gqa_trivia_qa', [row], 'validation')
  assert _decoded(example) == (
      'question: Who wrote " Main Street " ? context: It is by Sinclair Lewis '
      ", born 1885 . No . LEWIS ' S book ; by H . S . Lewis .",
      'sinclair lewis',
  )
  task = seqio.get_mixture_or_task('gqa_trivia_qa')
  answers = task.postprocess_fn('x', example=example, is_target=True)
  assert answers[0] == 'Sinclair Lewis' and answers[-1] == 'Lewis, S.'
  (metric,) = task.metric_fns
  assert metric([answers], ['s. lewis']) == {'em': 0.0, 'f1': 100.0}
  assert metric([answers], ['The LEWIS S'])['em'] == 100.0


def test_trivia_qa_without_evidence_or_answer(monkeypatch):
  row = _trivia_row(
      entity_pages={'wiki_context': np.zeros([0], str)},
      search_results={'search_context': ['  ']},
      answer={
          'value': '<unk>', 'aliases': np.zeros([0], str),
          'normalized_aliases': np.zeros([0], str), 'normalized_value': '<unk>',
      },
  )  # pyformat: disable
  assert not _examples(monkeypatch, 'gqa_trivia_qa', [row])
  (example,) = _examples(monkeypatch, 'gqa_trivia_qa', [row], 'test')
  assert _text(example)[0] == 'question: Who wrote " Main Street " ? context:'
  assert example['answers'].tolist() == [b'<unk>']


def test_seqio_evaluates_trivia_qa(monkeypatch):
  rows = [_trivia_row(), _trivia_row(question='And who else?')]
  _inject(monkeypatch, 'gqa_trivia_qa', rows, 'validation')
  evaluator = seqio.Evaluator(
      'gqa_trivia_qa',
      feature_converter=seqio.EncDecFeatureConverter(pack=False),
      sequence_length={'inputs': 32, 'targets': 8},
  )
  encode = common.t5_vocabulary().encode
  outputs = [
      (i, (encode(text) + [1] + [0] * 32)[:32])
      for i, text in enumerate(['harry sinclair lewis', 'nobody'])
  ]
  values, _ = evaluator.evaluate(
      compute_metrics=True, predict_fn=lambda dataset: outputs
  )
  scores = values.result()['gqa_trivia_qa']
  assert (scores['em'], scores['f1']) == (50.0, 50.0)


def _long_row(place, answer='Ada Lovelace', alias='ada lovelace'):
  """A page of 200 words with the answer at one place, and at the end."""
  words = [f'w{i}' for i in range(200)]
  words[place] = answer
  return _trivia_row(
      question='Who?',
      entity_pages={'wiki_context': [' '.join(words) + ' ' + answer]},
      search_results={'search_context': np.zeros([0], str)},
      answer={'value': answer, 'aliases': [answer],
              'normalized_aliases': [alias], 'normalized_value': alias},
  )  # pyformat: disable


@pytest.mark.parametrize('place', [0, 3, 100, 199])
def test_long_pages_keep_question_and_answer(monkeypatch, place):
  lengths = {'inputs': 48, 'targets': 32}
  made = _examples(
      monkeypatch, 'gqa_trivia_qa', [_long_row(place)], lengths=lengths,
      repeat=40,
  )  # pyformat: disable
  starts = set()
  encode = common.t5_vocabulary().encode
  whole = encode(_text(made[0])[0])
  prefix = len(encode('question: Who ? context:'))
  before = ' '.join(f'w{i}' for i in range(place))
  start = prefix + len(encode(before))
  end = start + len(encode('Ada Lovelace'))
  for example in made:
    tokens = example['inputs'].tolist()
    assert len(tokens) == 48 and tokens[-1] == 1
    assert tokens[:prefix] == whole[:prefix]
    window = tokens[prefix:-1]
    (found,) = [
        i for i in range(prefix, len(whole) - len(window) + 1)
        if whole[i : i + len(window)] == window
    ]  # pyformat: disable
    assert found <= start and end <= found + len(window)
    starts.add(found)
  # As many windows hold the answer as there are places to begin; 40 draws.
  room = 47 - prefix
  possible = range(
      max(prefix, end - room), min(start, len(whole) - room) + 1
  )
  assert starts <= set(possible)
  assert len(starts) >= min(len(possible), 8)
  if len(possible) > 1:
    assert min(starts) < np.mean(possible) < max(starts)


def test_windows_are_those_of_the_seed(monkeypatch):
  lengths = {'inputs': 48, 'targets': 32}
  made, again, other = (
      np.stack([
          example['inputs']
          for example in _examples(
              monkeypatch, 'gqa_trivia_qa', [_long_row(100)], lengths=lengths,
              seed=seed, repeat=5,
          )
      ])
      for seed in (1, 1, 2)
  )  # pyformat: disable
  np.testing.assert_array_equal(made, again)
  assert (made != other).any()


def test_long_pages_in_evaluation_keep_their_front(monkeypatch):
  lengths = {'inputs': 48, 'targets': 32}
  (example,) = _examples(
      monkeypatch, 'gqa_trivia_qa', [_long_row(100)], 'validation', lengths
  )
  assert _decoded(example)[0].startswith('question: Who ? context: w0 w1 w2 w3')
  assert len(example['inputs']) == 48


def test_answers_inside_words_and_answers_too_long(monkeypatch):
  lengths = {'inputs': 48, 'targets': 32}
  inside = _long_row(100, answer='xUNKNOWNy', alias='know')
  too_long = _long_row(100, *[' '.join(['ab'] * 60)] * 2)
  (example,) = _examples(
      monkeypatch, 'gqa_trivia_qa', [inside, too_long], lengths=lengths
  )
  inputs, targets = _decoded(example)
  assert ' xUNKNOWNy' in inputs and targets == 'know'


def test_c4_has_t5s_lengths_and_sentinels(monkeypatch):
  row = {'text': 'A page of\nsome two lines, or more. ' * 4, 'url': 'u'}
  made, again = (
      _examples(
          monkeypatch, 'gqa_c4_span_corruption', [row], repeat=128,
          lengths=LENGTHS['gqa_c4_span_corruption'],
      )
      for _ in range(2)
  )  # pyformat: disable
  # 568 raw tokens, 85 hidden in 28 spans; EOS in both.
  assert made[0]['inputs'].shape == (512,)
  assert made[0]['targets'].shape == (114,)
  sentinels = list(range(4095, 4095 - 28, -1))
  for feature in ('inputs', 'targets'):
    tokens = made[0][feature]
    assert tokens[tokens >= 4096 - 100].tolist() == sentinels
    np.testing.assert_array_equal(tokens, again[0][feature])


@pytest.mark.parametrize(
    'name,split',
    [(name, 'validation') for name in LENGTHS]
    + [('gqa_trivia_qa', 'train')],
)
def test_features_are_those_of_tfds(name, split):
  task = seqio.get_mixture_or_task(name)
  with tfds.testing.mock_data(num_examples=3):
    dataset = task.get_dataset(
        LENGTHS[name],
        split=split,
        shuffle=False,
        try_in_mem_cache=False,
    )
    examples = list(dataset.as_numpy_iterator())
  seqio.utils.LazyTfdsLoader._MEMOIZED_BUILDERS.clear()
  for feature in ('inputs', 'targets'):
    spec = dataset.element_spec[feature]
    assert (spec.dtype, spec.shape.rank) == (tf.int32, 1)
  if name == 'gqa_trivia_qa' and split == 'train':
    return  # No answer occurs among random letters.
  assert len(examples) == (1 if 'c4' in name else 3)
  for example in examples:
    assert example['inputs'][-1] == 1 and example['targets'][-1] == 1


@pytest.mark.parametrize('name', LENGTHS)
def test_gin_files_have_the_papers_lengths(name):
  file = f'experiments/tasks/{name.removeprefix("gqa_")}.gin'
  if name == 'gqa_c4_span_corruption':
    file = 'runs/pretrain.gin'
  text = (resources.files('gqa_t5x.gin_configs') / file).read_text()
  assert f"MIXTURE_OR_TASK_NAME = '{name}'" in text
  assert f'TASK_FEATURE_LENGTHS = {LENGTHS[name]}' in text
  assert {'train', 'validation'} <= set(seqio.get_mixture_or_task(name).splits)


@pytest.mark.parametrize('name', LENGTHS)
def test_missing_data_says_where_and_how(tmp_path, monkeypatch, name):
  task = seqio.get_mixture_or_task(name)
  loader = task.source.tfds_dataset
  monkeypatch.setattr(loader, '_data_dir_override', str(tmp_path))
  calls = [
      lambda: task.get_dataset(None, split='train', shuffle=False),
      lambda: task.source.list_shards('validation'),
      lambda: task.num_input_examples('train'),
  ]
  for call in calls:
    with pytest.raises(errors.UserError) as caught:
      call()
    message = str(caught.value)
    assert '\n' not in message and f'prepared in {tmp_path};' in message
    # A shell reads the command as python, -c and a program.
    command = message.partition('run: ')[2].partition(', or set')[0]
    python, option, program = shlex.split(command)
    assert (python, option) == ('python', '-c')
    compile(program, name, 'exec')
    assert f"tfds.builder('{loader.name}', data_dir='{tmp_path}')" in program


def _prepare(monkeypatch, name, data_dir, splits):
  """Writes these rows as TFDS would have downloaded them."""
  builder = tfds.builder(name, data_dir=data_dir)
  monkeypatch.setattr(
      builder, '_split_generators', lambda *args, **kwargs: splits
  )
  config = tfds.download.DownloadConfig(manual_dir=data_dir)
  builder.download_and_prepare(download_config=config)


def test_prepared_data_is_read_from_disk(tmp_path, monkeypatch):
  def rows(split):
    for i in range(3):
      yield f'{split}{i}', {
          'id': f'{i}', 'program': '', 'date': '', 'url': '',
          'summary': f'{split} {i}', 'speaker': ['A', 'B'], 'utt': ['x', 'y'],
      }  # pyformat: disable

  _prepare(
      monkeypatch, 'media_sum:1.0.0', str(tmp_path),
      {split: rows(split) for split in ('train', 'val', 'test')},
  )  # pyformat: disable
  task = seqio.get_mixture_or_task('gqa_media_sum')
  loader = task.source.tfds_dataset
  monkeypatch.setattr(loader, '_data_dir_override', str(tmp_path))
  dataset = task.get_dataset(
      {'inputs': 64, 'targets': 64}, split='validation', shuffle=False,
      shard_info=seqio.ShardInfo(0, 1),
  )  # pyformat: disable
  texts = sorted(_text(e) for e in dataset.as_numpy_iterator())
  assert texts == [('summarize: A: x B: y', f'val {i}') for i in range(3)]
  assert task.num_input_examples('train') == 3


def test_vocabulary_is_t5s_and_is_not_read():
  gin.clear_config()
  for name in LENGTHS:
    features = seqio.get_mixture_or_task(name).output_features
    for feature in features.values():
      vocabulary = feature.vocabulary
      assert vocabulary.sentencepiece_model_file == (
          'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
      )
      # The file has its sentinels; t5x's models name it so as well.
      assert vocabulary.extra_ids == 0
      assert vocabulary == seqio.SentencePieceVocabulary(
          'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
      )


def test_gin_chooses_the_vocabulary_after_the_import():
  gin.clear_config()
  gin.parse_config(f"""
      from __gin__ import dynamic_registration
      from gqa_t5x.tasks import common
      from gqa_t5x.tasks import paper
      common.t5_vocabulary.path = '{pretrained.VOCABULARY_PATH}'
      common.t5_vocabulary.extra_ids = 10
  """)
  features = seqio.get_mixture_or_task('gqa_wmt14_en_de').output_features
  # The shipped model has 3,996 pieces.
  assert features['inputs'].vocabulary.vocab_size == 4006
  assert common.t5_vocabulary() == features['targets'].vocabulary
  gin.clear_config()
  gin.bind_parameter('t5_vocabulary.path', '/nowhere/x.model')
  with pytest.raises(errors.UserError, match='found no file'):
    seqio.get_mixture_or_task('gqa_wmt14_en_de').output_features
