# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""The paper's numbers as data, each marked printed or digitised.

"GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
Checkpoints", Ainslie et al., EMNLP 2023, arXiv 2305.13245. The paper's
"groups" (GQA-8 has 8) are key/value heads: our `num_kv_heads`. Printed: the
number stands in the paper. Digitised: read off a figure, ±0.03 score, ±0.02 s.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ModelSize:
  """A T5.1.1 size; head_dim is 64 everywhere.

  Attributes:
    name: the size's name, as in `gin_configs/models`.
    emb_dim: width of the residual stream.
    mlp_dim: width of the gated MLP.
    num_heads: query heads, and key/value heads before conversion.
    num_layers: layers of the encoder, and again of the decoder.
  """

  name: str
  emb_dim: int
  mlp_dim: int
  num_heads: int
  num_layers: int
  head_dim: int = 64


MODEL_SIZES = (
    ModelSize('small', 512, 1024, 6, 8),
    ModelSize('base', 768, 2048, 12, 12),
    ModelSize('large', 1024, 2816, 16, 24),
    ModelSize('xl', 2048, 5120, 32, 24),
    ModelSize('xxl', 4096, 10240, 64, 24),
)

VOCAB_SIZE = 32_128  # 32,100 pieces, 100 of them sentinels, padded up.
UPTRAIN_FRACTION = 0.05  # alpha of the main result.


@dataclasses.dataclass(frozen=True)
class PaperTask:
  """A task of Table 1; lengths in tokens, EOS counted."""

  name: str
  short_name: str
  metric: str
  input_length: int
  output_length: int


TASKS = (
    PaperTask('CNN/Daily Mail', 'CNN', 'R1', 512, 256),
    PaperTask('arXiv', 'arXiv', 'R1', 2048, 512),
    PaperTask('PubMed', 'PubMed', 'R1', 2048, 512),
    PaperTask('MediaSum', 'MediaSum', 'R1', 2048, 512),
    PaperTask('Multi-News', 'MultiNews', 'R1', 2048, 512),
    PaperTask('WMT14 En-De', 'WMT', 'BLEU', 512, 256),
    PaperTask('TriviaQA', 'TriviaQA', 'F1', 2048, 32),
)


@dataclasses.dataclass(frozen=True)
class Table1Row:
  """A row of Table 1 (dev sets), as printed.

  Attributes:
    model: the paper's name for it.
    num_kv_heads: the paper's groups.
    seconds_per_sample: per TPU v4 chip, 8 chips, batch up to 32 a chip.
    average: as printed; see `TABLE_1_NOTE`.
    scores: one a task, in the order of `TASKS`.
  """

  model: str
  num_kv_heads: int
  seconds_per_sample: float
  average: float
  scores: tuple[float, ...]


# Printed.
TABLE_1 = (
    Table1Row('MHA-Large', 16, 0.37, 46.0,
              (42.9, 44.6, 46.2, 35.5, 46.6, 27.7, 78.2)),
    Table1Row('MHA-XXL', 64, 1.51, 47.2,
              (43.8, 45.6, 47.5, 36.4, 46.9, 28.4, 81.9)),
    Table1Row('MQA-XXL', 1, 0.24, 46.6,
              (43.0, 45.0, 46.9, 36.1, 46.5, 28.5, 81.3)),
    Table1Row('GQA-8-XXL', 8, 0.28, 47.1,
              (43.5, 45.4, 47.7, 36.3, 47.2, 28.4, 81.6)),
)
TABLE_1_NOTE = (
    "The MQA row's own seven numbers average 46.76; the paper prints 46.6. "
    'The other three rows agree with their printed averages.')

# Figure 3 plots Table 1: (model, seconds per sample, average). Printed.
FIGURE_3 = tuple(
    (row.model, row.seconds_per_sample, row.average) for row in TABLE_1)
FIGURE_3_NOTE = (
    "The paper labels this figure's time axis ms; the same numbers are "
    'seconds in its Table 1, and seconds here.')

# Figures 4 and 5 average CNN/Daily Mail, Multi-News and TriviaQA.

# Figure 4: T5-Large converted to MQA by each method, alpha 0.05: score.
# Digitised.
FIGURE_4 = {'mean': 55.55, 'first': 55.45, 'random': 55.23}

# Figure 5: XXL, model -> {alpha: score}. MHA is not uptrained.
# Digitised.
FIGURE_5 = {
    'MHA': {0.0: 57.54},
    'GQA-8': {0.0: 56.72, 0.05: 57.41, 0.1: 57.57},
    'MQA': {0.0: 53.92, 0.05: 56.91, 0.1: 57.15},
}

# Figure 6: XXL, input 2048, output 512: key/value heads -> seconds a sample.
# Digitised.
FIGURE_6 = {1: 0.50, 4: 0.48, 8: 0.52, 16: 0.60, 32: 0.80, 64: 2.52}
FIGURE_6_NOTE = (
    'Digitised: the curve at 64 and at 1 reads 2.52 and 0.50 s, the lines '
    'for MHA and MQA, which are the same models, 2.53 and 0.49 s. Figure 6 '
    'has its own shapes, so its times are not those of Table 1.')


def is_figure_6(
    config: Mapping[str, Any], input_length: int, output_length: int
) -> bool:
  """Whether a model's `T5Config.to_dict`, and lengths, are Figure 6's."""
  xxl = {
      'num_heads': 64, 'emb_dim': 4096, 'num_encoder_layers': 24,
      'num_decoder_layers': 24,
  }  # pyformat: disable
  is_xxl = all(config.get(name) == value for name, value in xxl.items())
  return is_xxl and (input_length, output_length) == (2048, 512)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim of the paper that a run can test."""

  name: str
  title: str
  statement: str


CLAIMS = (
    Claim('C1', 'quality', 'GQA-8 after 5% uptraining is close to MHA and '
          'above MQA.'),
    Claim('C2', 'speed', 'GQA-8 decodes nearly as fast as MQA, several times '
          'faster than MHA.'),
    Claim('C3', 'conversion', 'Mean pooling of heads is better than taking '
          'the first, and the first better than random.'),
    Claim('C4', 'proportion', 'GQA is already reasonable without uptraining, '
          'MQA needs it; both gain up to 5% and little from 5% to 10%.'),
    Claim('C5', 'groups', 'Going from 1 to 8 groups costs little time, more '
          'groups cost increasingly more.'),
    Claim('C6', 'stability', 'MQA trained from scratch is less stable than '
          'GQA.'),
)
