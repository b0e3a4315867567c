# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Breaks the code in many places, one at a time, and sees that tests fail.

Each line of MUTATIONS is a file, what stands there once, what is put in its
place, and the tests that have to notice. It works on a copy.

  python -m tests.mutations --output results/mutations.json
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

from gqa_t5x import provenance
from gqa_t5x import storage

ROOT = pathlib.Path(__file__).resolve().parents[1]

_ATTENTION, _DECODING = 'test_attention.py', 'test_decoding.py'
_METHODS, _NETWORK = 'test_conversion_methods.py', 'test_network.py'
_STATISTICS = 'experiments/test_statistics.py'
_PUBLIC = 'test_public_checkpoints.py'
_CURVES = 'experiments/test_loss_curves.py'
_CLAIMS, _SUITES = 'experiments/test_claims.py', 'experiments/test_suites.py'
_CONVERSION, _MANIFEST = 'test_conversion.py', 'test_manifest.py'

MUTATIONS = (
    ('grouping.py', 'x.repeat(size, axis=axis)',
     'np.concatenate([x] * group_size(num_heads, x.shape[axis]), axis)',
     _ATTENTION),
    ('attention.py', 'weights = jax.nn.softmax(logits).astype(dtype)',
     'weights = jax.nn.softmax(logits * 0.99).astype(dtype)', _ATTENTION),
    ('attention.py', 'jnp.where(mask[:, :, None], 0.0, masked)',
     'jnp.where(mask[:, :, None], 0.0, -1.0)', _ATTENTION),
    ('attention.py', 'jnp.moveaxis(out, 0, 1).reshape(batch',
     'jnp.moveaxis(out[::-1], 0, 1).reshape(batch', _ATTENTION),
    ('attention.py', "return grad, jnp.einsum('b,b...->...', ones, grad)[None]",
     'return grad, grad[:1]', _ATTENTION),
    ('attention.py', 'masked = max(_MASKED, ', 'masked = min(_MASKED, ',
     _ATTENTION),
    ('layers.py', 'outputs = inputs.astype(self.dtype).reshape(-1,',
     'outputs = 1.001 * inputs.astype(self.dtype).reshape(-1,', _NETWORK),
    ('layers.py', 'EPSILON = 32, 128, 1e-6', 'EPSILON = 32, 128, 1e-2',
     _NETWORK),
    ('layers.py', 'side = num_buckets // 2 if bidirectional',
     'side = num_buckets if bidirectional', _NETWORK),
    ('layers.py', 'relative = key_positions - query_positions',
     'relative = key_positions + query_positions', _NETWORK),
    ('network.py', 'causal = key_positions <= query_positions[..., None]',
     'causal = key_positions <= query_positions[..., None] + 1', _NETWORK),
    ('network.py', 'self.shared_embedding.attend(y) / jnp.sqrt(cfg.emb_dim)',
     'self.shared_embedding.attend(y)', _NETWORK),
    ('network.py', 'cross_mask = cross_mask & _same_segment(',
     'cross_mask = cross_mask | _same_segment(', _NETWORK),
    ('decoding/sampling.py', 'ended |= (current == eos_id)',
     'ended &= (current == eos_id)', _DECODING),
    ('decoding/sampling.py', 'keep = (before < sampling.top_p)',
     'keep = (before <= sampling.top_p + 0.2)', _DECODING),
    ('decoding/sampling.py', 'logits /= sampling.temperature',
     'logits *= sampling.temperature', _DECODING),
    ('decoding/beams.py', 'return ((5.0 + length) / 6.0) ** length_penalty',
     'return length ** length_penalty', _DECODING),
    ('decoding/beams.py',
     'parents, new = chosen // vocab_size, chosen % vocab_size',
     'parents, new = chosen // vocab_size * 0, chosen % vocab_size', _DECODING),
    ('decoding/beams.py',
     'may_end = ends & (jnp.arange(2 * num_beams) < num_beams)',
     'may_end = ends', _DECODING),
    ('decoding/beams.py', 'cache={k: v[rows] if v.ndim else v for',
     'cache={k: v for', _DECODING),
    ('conversion/mean.py', '.mean(axis=2)', '.sum(axis=2)', _CONVERSION),
    ('conversion/scaled_mean.py', '.mean(axis=1))', '.sum(axis=1))', _METHODS),
    ('conversion/svd.py', 'subset_by_index=(size - head_dim, size - 1)',
     'subset_by_index=(0, head_dim - 1)', _METHODS),
    ('conversion/svd.py', 'else covariance.key_root', 'else covariance.key',
     _METHODS),
    ('conversion/products.py', 'np.maximum(values, 0) ** 0.25',
     'np.maximum(values, 0) ** 0.5', _METHODS),
    ('conversion/svd.py', 'return shared * scale, maps / scale',
     'return shared * scale, maps', _METHODS),
    ('conversion/heads.py', 'head.astype(np.float64) @ maps[g]',
     'head.astype(np.float64) @ maps[g].T', _METHODS),
    ('conversion/similarity.py', '(weights @ grams) * (grams @ weights[k])',
     '(weights @ grams) * (grams @ weights[0])', _METHODS),
    ('conversion/svd.py', 'if len(energy) < head_dim:', 'if False:', _METHODS),
    ('conversion/calibration.py',
     'np.add(self._total, summed, out=self._total)', 'self._total += summed',
     _METHODS),
    ('conversion/products.py', 'for i in range(0, len(wide), _ROWS)',
     'for i in range(0, _ROWS, _ROWS)', _METHODS),
    ('conversion/aligned.py', 'maps = left @ right', 'maps = right @ left',
     _METHODS),
    ('conversion/optimizer_slots.py', 'means[0] * group, sum_groups',
     'means[0], sum_groups', _CONVERSION),
    ('attention.py', '.reshape(batch, -1, *heads)[:, :q_len]',
     '.reshape(batch, -1, *heads)[:, -q_len:]', 'test_attention.py'),
    ('engine/losses.py', 'loss = log_z - at_target', 'loss = -at_target',
     'engine/test_losses.py'),
    ('engine/losses.py', 'z_loss = config.z_loss * jnp.square(log_z)',
     'z_loss = config.z_loss * log_z', 'engine/test_losses.py'),
    ('engine/losses.py', 'return temperature**2 *', 'return',
     'engine/test_losses.py'),
    ('engine/train_step.py', '(1 - share) * of_targets', 'of_targets',
     'engine/test_train.py'),
    ('engine/optimizer.py', 'rate /= jnp.sqrt(jnp.maximum(step,',
     'rate /= jnp.sqrt(jnp.minimum(step,', 'engine/test_optimizer.py'),
    ('engine/data.py', 'decoder_inputs[i, where] = np.append(0, tokens[:-1])',
     'decoder_inputs[i, where] = tokens', 'engine/test_data.py'),
    ('engine/data.py', 'itertools.islice(rows, start_step * config.batch_size,',
     'itertools.islice(rows, 0 * config.batch_size,', 'engine/test_data.py'),
    ('engine/train_step.py', 'lambda g: g / normalizer', 'lambda g: g',
     'engine/test_train.py'),
    ('engine/train.py', 'saved.latest_good_step()', 'saved.latest_step()',
     'engine/test_faults.py'),
    ('checkpoints/manifest.py', "if found != entry['sha256']:", 'if not found:',
     _MANIFEST),
    ('checkpoints/folders.py', 'if not lazy.is_finite(array):',
     'if np.isnan(array).all():', 'test_convert_checkpoint.py'),
    ('checkpoints/zarr.py', 'if got != length:', 'if got < length:', _PUBLIC),
    ('checkpoints/zarr.py', 'with writing.holding(self):', 'if False:',
     _PUBLIC),
    ('conversion/params.py', 'if kv_heads == num_kv_heads:', 'if False:',
     'test_convert_checkpoint.py'),
    ('experiments/claims.py', 'max(2, heads // 8)', 'max(2, heads // 2)',
     _CLAIMS),
    ('experiments/statistics.py', 'np.quantile', 'np.median', _STATISTICS),
    ('experiments/statistics.py', 'if cluster_of is None', 'if 1',
     _STATISTICS),
    ('experiments/statistics.py', 'share = weight / len(tasks) /',
     'share = weight /', _STATISTICS),
    ('experiments/statistics.py', 'smooth = 0.5 ** np.cumsum',
     'smooth = 1.0 ** np.cumsum', _STATISTICS),
    ('experiments/statistics.py', 'return (m[3] - m[2]) - (m[1] - m[0])',
     'return (m[3] - m[2]) + (m[1] - m[0])', _STATISTICS),
    ('experiments/claims.py', 'is_false = interval.low > bound',
     'is_false = interval.estimate > bound', _CLAIMS),
    ('experiments/claims.py', 'is_false = interval.low > bound',
     'is_false = interval.low >= bound', _CLAIMS),
    ('experiments/loss_curves.py', 'spread = 1.4826 *', 'spread = 0.1 *',
     _CURVES),
    ('experiments/loss_curves.py', 'count += is_high and not in_spike',
     'count += is_high', _CURVES),
    ('experiments/loss_curves.py', 'np.nanmin(in_a_row.mean(1))',
     'np.nanmax(in_a_row.mean(1))', _CURVES),
    ('experiments/loss_curves.py', 'min(SPIKE_WINDOW, len(losses) // 2)',
     'SPIKE_WINDOW', _CURVES),
    ('engine/checkpointing.py', 'not math.isfinite(best)', 'False',
     'engine/test_train.py'),
    ('experiments/pipeline.py', "best = 'loss' if", 'best = None if',
     'experiments/test_runner.py'),
    ('engine/optimizer.py', 'self.linear_decay_steps > 0 and ', '',
     'engine/test_optimizer.py'),
    ('engine/train.py', 'if self.schedule.needs_last_step:', 'if False:',
     'engine/test_train.py'),
    ('experiments/tables.py', '(SCRATCH, FINETUNED)', '(SCRATCH,)',
     'experiments/test_report.py'),
    ('experiments/stages.py', 'or (is_read and is_gone)', '',
     'experiments/test_runner.py'),
    ('experiments/stages.py', 'made_of = [self.name, self.recipe,',
     'made_of = [self.name, ', 'experiments/test_runner.py'),
    ('experiments/scoring.py', 'targets = targets[: len(predictions)]',
     'targets = targets[-len(predictions) :]', _SUITES),
    ('experiments/scoring.py', 'return found[: scale.loss_examples].tolist()',
     'return found.tolist()', 'engine/test_evaluate.py'),
    ('experiments/scales.py', '{**getattr(self, name), **value}', 'value',
     _SUITES),
    ('conversion/products.py', 'width >= _WIDE:', 'width >= 64:', _METHODS),
    ('conversion/calibration.py', '(self._total / self._count)',
     '(self._total / (self._count + 1))', _METHODS),
    ('conversion/calibration.py', 'self._file.seek(i * self._size',
     'self._file.seek(0 * self._size', _METHODS),
    ('conversion/calibration.py', 'self._numbers[path] = query, key',
     'self._numbers[path] = query, query', _METHODS),
    ('engine/evaluate.py', "return sums['loss'] / sums['tokens']",
     "return sums['loss']", 'engine/test_evaluate.py'),
    ('span_corruption.py', 'starts = mask & ~np.concatenate',
     'starts = mask | ~np.concatenate', _METHODS),
    ('sizes.py', 'return input_length + (output_length + 1) / 2',
     'return input_length + output_length', 'benchmark/test_decode.py'),
    ('benchmark/decode.py', 'samples = [(t.prefill + t.steps) / batch_size',
     'samples = [(t.prefill + t.steps)', 'benchmark/test_peers.py'),
    ('benchmark/decode.py', 'steps = (whole - first) * output_length',
     'steps = whole * output_length', 'benchmark/test_peers.py'),
    ('benchmark/plan.py', 'slower = max(num_bytes', 'slower = min(num_bytes',
     'benchmark/test_plan.py'),
    ('engine/partitioning.py', 'return parts.index(ours), count',
     'return jax.process_index(), jax.process_count()',
     'engine/test_multi_process.py'),
    ('engine/evaluate.py',
     'itertools.islice(dataset.as_numpy_iterator(), max_examples)',
     'dataset.as_numpy_iterator()', 'engine/test_evaluate.py'),
    ('engine/evaluate.py', 'np.zeros((batch_size, length), np.int32)',
     'np.zeros((batch_size, lengths.max()), np.int32)',
     'engine/test_evaluate.py'),
    ('engine/train.py', 'made % config.eval_every', 'step % config.eval_every',
     'engine/test_train.py'),
    ('engine/run_folder.py', 'found.keys() == self._config.keys()', 'True',
     'engine/test_faults.py'),
    ('checkpoints/zarr.py', 'self.source.check_all(self._inside)', 'pass',
     _MANIFEST),
    ('checkpoints/zarr.py', 'urllib.parse.quote(str(source.folder / inside))',
     'str(source.folder / inside)', _MANIFEST),
    ('vocabularies.py', 'return 0 if held else', 'return', 'test_cli.py'),
    ('uptraining.py', 'return pretrain_steps', 'return 1 + pretrain_steps',
     'test_gin.py'),
    ('uptraining.py', 'return pretrain * factor', 'return pretrain',
     'test_gin.py'),
    ('storage.py', 'shutil.rmtree(beside, ignore_errors=True)  # What a kill',
     'pass  # What a kill', 'tasks/test_corpus.py'),
    ('provenance.py', "_git(folder, 'rev-parse', 'HEAD:./')", 'pass',
     'test_provenance.py'),
    ('experiments/claims.py', "int((more > 0).sum())", 'len(more)',
     'experiments/test_claims.py'),
)  # pyformat: disable


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--output', required=True, metavar='JSON')
  parser.add_argument(
      '--files', default='', metavar='REGEX', help='those alone that match'
  )
  args = parser.parse_args()
  chosen = [m for m in MUTATIONS if re.search(args.files, m[0])]
  for file, old, *_ in MUTATIONS:  # Also of those that are not run.
    if old not in (ROOT / 'gqa_t5x' / file).read_text():
      raise SystemExit(f'{old!r} no longer stands in {file}; mend the list')
  found = []
  with tempfile.TemporaryDirectory() as name:
    copy = pathlib.Path(name)
    for folder in ('gqa_t5x', 'tasks', 'gin_configs', 'tests', 'docs'):
      shutil.copytree(ROOT / folder, copy / folder)
    for file in ('pyproject.toml', 'setup.py', 'README.md'):
      shutil.copy(ROOT / file, copy)
    for file, old, new, test in chosen:
      path = copy / 'gqa_t5x' / file
      text = path.read_text()
      path.write_text(text.replace(old, new, 1))
      start = time.monotonic()
      done = subprocess.run(
          [
              sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:xdist',
              '-p', 'no:cacheprovider', f'tests/{test}',
          ],
          cwd=copy, capture_output=True, text=True, check=False,
          env=os.environ | {'PYTHONPATH': str(copy)},
      )  # pyformat: disable
      path.write_text(text)
      # 1 is failed tests; a run that finds none, or breaks, has another status.
      found.append({
          'file': file, 'was': old, 'is': new, 'tests': test,
          'status': done.returncode, 'is_noticed': done.returncode == 1,
          'seconds': time.monotonic() - start,
      })  # pyformat: disable
      print(done.returncode, file, new, flush=True)
  missed = [m for m in found if not m['is_noticed']]
  print(f'{len(found) - len(missed)} of {len(found)} noticed')
  report = {
      'command': shlex.join(['python', '-m', 'tests.mutations', *sys.argv[1:]]),
      'mutations': found,
  } | provenance.environment()
  storage.write_json(args.output, report)
  sys.exit(bool(missed))


if __name__ == '__main__':
  main()
