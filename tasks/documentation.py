# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the documentation installed on this machine, importing none of it.

Source files are parsed with `ast`; a docstring is then taken apart into its
summary sentence, its running prose and the descriptions of its arguments.

As a script it writes the docstrings of one package as JSON lines; it needs the
standard library alone.
"""

import ast
from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import gc
import importlib.util
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import warnings

# What this project installs and what that brings along, by top-level package.
# A missing one is skipped, so the corpus depends on the installation; its
# fingerprint is stored with every result.
PACKAGES = (
    'absl', 'babel', 'clu', 'etils', 'flax', 'jax', 'keras', 'ml_collections',
    'nltk', 'numpy', 'optax', 'orbax', 'pyglove', 'scipy', 'seqio',
    'tensorflow', 'tensorflow_datasets',
)  # pyformat: disable

# Tests and generated aliases repeat other files or hold no documentation.
_SKIPPED_FOLDERS = frozenset((
    'tests', 'test', 'testing', '_api', 'api', 'include', 'idlelib', 'lib2to3',
    'site-packages', 'dist-packages', '__pycache__', '_vendor', 'vendor',
    'turtledemo', 'ensurepip', 'encodings', 'jax2tf', 'f2py',
))  # pyformat: disable
_SKIPPED_ENDS = ('_test.py', '_pb2.py', '_pb2_grpc.py', 'conftest.py')
_MAX_FILE_BYTES = 1_500_000

_ARGUMENT_HEADINGS = frozenset((
    'args', 'arguments', 'parameters', 'attributes', 'keyword args',
    'keyword arguments', 'other parameters', 'params',
))  # pyformat: disable
_OTHER_HEADINGS = frozenset((
    'returns', 'return', 'raises', 'yields', 'example', 'examples', 'usage',
    'references', 'see also', 'notes', 'note', 'reference', 'warnings',
    'input shape', 'output shape', 'call arguments', 'methods', 'todo',
    'example usage',
))  # pyformat: disable
_GOOGLE_ENTRY = re.compile(
    r'^\s*[-*]{0,2}\s?`{0,2}(\w+)`{0,2}(?:\s*\([^)]*\))?\s*:\s+(\S.*)$'
)
_NUMPY_ENTRY = re.compile(r'^(\w+)(?:\s*:.*)?$')
_SPHINX_ENTRY = re.compile(r'^:param (?:[\w\[\]., ]+ )?(\w+):\s+(\S.*)$')
_RULE = re.compile(r'^\s*([-=~^*#+])\1{2,}\s*$')
_FENCE = re.compile(r'```.*?(?:```|\Z)', re.DOTALL)
_ROLE = re.compile(r':[\w:]+:`~?([^`<]*?)\s*(?:<[^>]*>)?`')
_LINK = re.compile(r'\[([^\]]+)\]\([^)]*\)')
_WORD = re.compile(r"^[\"'(]*[A-Za-z][A-Za-z'-]*[.,;:!?)\"']*$")
_SENTENCE_END = re.compile(r'(?<=[.!?])\s+(?=[A-Z"\'(`])')
_NAME_WORD = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+')


@dataclasses.dataclass(frozen=True)
class Docstring:
  """One documented thing.

  Attributes:
    module: dotted module name, 'numpy.linalg._linalg'; the unit of splits.
    kind: 'module', 'class', 'function', 'method' or 'topic'.
    name: the name inside its module or class, without dots.
    arguments: names of the positional and keyword arguments, without self.
    text: the docstring, dedented.
  """

  module: str
  kind: str
  name: str
  arguments: Sequence[str]
  text: str


@dataclasses.dataclass(frozen=True)
class ParsedDocstring:
  """A docstring taken apart; all texts on one line, without markup.

  Attributes:
    summary: the first paragraph where it is one sentence, else ''.
    prose: the paragraphs of running text after the summary.
    arguments: (name, description) pairs.
  """

  summary: str
  prose: Sequence[str]
  arguments: Sequence[tuple[str, str]]


def package_folders() -> dict[str, pathlib.Path]:
  """Returns the folder of the standard library and each package found."""
  folders = {'stdlib': pathlib.Path(sysconfig.get_paths()['stdlib'])}
  for name in PACKAGES:
    spec = importlib.util.find_spec(name)  # of a top-level name: no import
    if spec is not None and spec.submodule_search_locations:
      folders[name] = pathlib.Path(next(iter(spec.submodule_search_locations)))
  return folders


def read_docstrings(name: str, folder: pathlib.Path) -> Iterator[Docstring]:
  """Yields what is documented under `folder`, in a fixed order."""
  prefix = () if name == 'stdlib' else (name,)
  for current, folders, files in os.walk(folder):
    folders[:] = sorted(f for f in folders if f not in _SKIPPED_FOLDERS)
    for file in sorted(files):
      path = pathlib.Path(current, file)
      if not _is_documented_source(path):
        continue
      parts = prefix + path.relative_to(folder).with_suffix('').parts
      if parts[-1] == '__init__':
        parts = parts[:-1]
      source = path.read_bytes()
      if b'"""' in source or b"'''" in source or file == 'topics.py':
        yield from _parse(source, '.'.join(parts))


def read_all() -> Iterator[tuple[Docstring, ParsedDocstring]]:
  """Yields what is documented in all packages, whole and taken apart.

  The order is fixed; each core reads a package.
  """
  folders = package_folders()

  def read(name: str) -> str:
    # A process of its own: threads would take turns.
    command = [sys.executable, '-I', __file__, name, str(folders[name])]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, encoding='utf-8'
    ).stdout

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    # The largest first, or one core would read it while the others wait.
    first = sorted(folders, key=lambda name: name != 'tensorflow')
    texts = {name: pool.submit(read, name) for name in first}
    for name in folders:
      for line in texts.pop(name).result().splitlines():
        whole, parts = json.loads(line)
        yield Docstring(*whole), ParsedDocstring(*parts)


def take_apart(text: str) -> ParsedDocstring:
  """Splits a dedented docstring into summary, prose and arguments."""
  text = _FENCE.sub('\n\n', text)
  first, _, rest = text.partition('\n\n')
  summary = clean(first)
  if len(sentences(summary)) != 1 or not summary.endswith('.'):
    summary, rest = '', text
  arguments, remaining = _split_arguments(rest.split('\n'))
  prose = []
  for paragraph in re.split(r'\n\s*\n', '\n'.join(remaining)):
    if _is_prose(paragraph):
      prose.append(clean(paragraph))
  return ParsedDocstring(summary, tuple(prose), tuple(arguments))


def clean(text: str) -> str:
  """Removes reStructuredText and Markdown markup and joins the lines."""
  text = _ROLE.sub(r'\1', text)
  text = _LINK.sub(r'\1', text)
  text = text.replace('`', '').replace('**', '').replace('\\', '')
  return ' '.join(text.split())


def sentences(text: str) -> list[str]:
  """Splits one-line text at sentence ends followed by a capital."""
  return [s for s in _SENTENCE_END.split(text) if s]


def name_words(name: str) -> str:
  """Writes an identifier as words: 'matrixRank_2' is 'matrix rank 2'."""
  return ' '.join(_NAME_WORD.findall(name)).lower()


def word_fraction(text: str) -> float:
  """Returns the share of blank-separated tokens that are plain words."""
  tokens = text.split()
  return sum(bool(_WORD.match(t)) for t in tokens) / max(1, len(tokens))


def _is_documented_source(path: pathlib.Path) -> bool:
  name = path.name
  return (
      name.endswith('.py')
      and not name.startswith('test_')
      and not name.endswith(_SKIPPED_ENDS)
      and path.stat().st_size < _MAX_FILE_BYTES
  )


def _parse(source: bytes, module: str) -> Iterator[Docstring]:
  """Yields the docstrings of one source file; nothing if it is broken."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # invalid escapes in others' strings
      tree = ast.parse(source)
  except (SyntaxError, ValueError, RecursionError):
    return
  if module == 'pydoc_data.topics':
    for node in tree.body:
      if isinstance(node, ast.Assign):
        for topic, text in ast.literal_eval(node.value).items():
          # Topics are chapters of their own: the split may part them.
          yield Docstring(f'{module}/{topic}', 'topic', topic, (), text)
    return
  short = module.rsplit('.', 1)[-1]
  pending = [(tree, 'module', short)]
  while pending:
    node, kind, name = pending.pop()
    text = _docstring(node)
    if text:
      yield Docstring(module, kind, name, _argument_names(node), text)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      continue  # a function inside a function is no documentation
    inner = 'method' if kind == 'class' else 'function'
    for child in node.body:
      if isinstance(child, ast.ClassDef):
        pending.append((child, 'class', child.name))
      elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
        pending.append((child, inner, child.name))


def _docstring(node) -> str:
  # ast.get_docstring without its walk over the types of node.
  if node.body and isinstance(node.body[0], ast.Expr):
    value = node.body[0].value
    text = value.value if isinstance(value, ast.Constant) else None
    if isinstance(text, str) and len(text) > 20:
      return inspect.cleandoc(text)
  return ''


def _argument_names(node) -> tuple[str, ...]:
  if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
    return ()
  arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
  return tuple(a.arg for a in arguments if a.arg not in ('self', 'cls'))


def _is_prose(paragraph: str) -> bool:
  if '>>>' in paragraph or '|' in paragraph or '::' in paragraph:
    return False
  if any(_RULE.match(line) for line in paragraph.split('\n')):
    return False
  start = paragraph.strip()
  if start.startswith(('.. ', '@', ':', '$', '\\', 'http')):
    return False
  if start.split('\n')[0].rstrip(':').lower() in _OTHER_HEADINGS:
    return False
  return len(start.split()) >= 5 and word_fraction(start) >= 0.65


def _split_arguments(lines):
  """Takes the descriptions of arguments out of the lines of a docstring.

  Understands Google ("Args:"), NumPy ("Parameters" over a rule) and Sphinx
  (":param x:") style.

  Returns:
    The (name, description) pairs, and the lines of all else.
  """
  entries, remaining, i = [], [], 0
  while i < len(lines):
    line = lines[i]
    heading = line.strip().rstrip(':').lower()
    following = lines[i + 1] if i + 1 < len(lines) else ''
    if heading in _ARGUMENT_HEADINGS and _RULE.match(following):
      end = _numpy_section_end(lines, i + 2)
      entries += _entries(lines[i + 2 : end], _NUMPY_ENTRY)
    elif heading in _ARGUMENT_HEADINGS and line.rstrip().endswith(':'):
      end = _indented_end(lines, i)
      entries += _entries(lines[i + 1 : end], _GOOGLE_ENTRY)
    elif _SPHINX_ENTRY.match(line):
      end = _indented_end(lines, i)
      entries += _entries(lines[i:end], _SPHINX_ENTRY)
    else:
      remaining.append(line)
      end = i + 1
    i = end
  return entries, remaining


def _indented_end(lines, start) -> int:
  """Returns where the block indented below lines[start] ends."""
  indent = _indent(lines[start])
  end = start + 1
  while end < len(lines) and (
      not lines[end].strip() or _indent(lines[end]) > indent
  ):
    end += 1
  return end


def _numpy_section_end(lines, start) -> int:
  for i in range(start, len(lines) - 1):
    if lines[i].strip() and _RULE.match(lines[i + 1]):
      return i
  return len(lines)


def _indent(line) -> int:
  return len(line) - len(line.lstrip())


def _entries(lines, pattern) -> list[tuple[str, str]]:
  """Reads (name, description) pairs; deeper indented lines continue one."""
  base = min((_indent(l) for l in lines if l.strip()), default=0)
  pairs, open_entry = [], False
  for line in lines:
    if not line.strip():
      # What follows a blank line is a second paragraph: not the description.
      open_entry = open_entry and not pairs[-1][1]
    elif _indent(line) == base:
      match = pattern.match(line[base:])
      open_entry = match is not None
      if match:
        text = match.group(2) if match.lastindex == 2 else ''
        pairs.append([match.group(1), text])
    elif open_entry:
      pairs[-1][1] += ' ' + line.strip()
  return [(name, clean(text)) for name, text in pairs if text.strip()]


if __name__ == '__main__':
  # Syntax trees hold no cycles, and the collector would walk each of them.
  gc.disable()
  for found in read_docstrings(sys.argv[1], pathlib.Path(sys.argv[2])):
    pair = found, take_apart(found.text)
    print(json.dumps([dataclasses.astuple(record) for record in pair]))
