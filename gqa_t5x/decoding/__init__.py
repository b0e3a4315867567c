# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a model's output token by token: greedy, sampling, beam search.

Decoding has two compiled parts, so that they can be timed apart: `prefill`
encodes the inputs and projects the cross-attention's keys and values, once per
input; `decode_loop` and `beam_loop` are the steps, one `lax.while_loop` that
stops when every row has ended. `generate` puts them together.

A row's tokens depend on nothing but that row: not on the other rows of the
batch, nor on how far its input is padded (in bfloat16 but for its rounding).
"""

from gqa_t5x.decoding.beams import beam_loop
from gqa_t5x.decoding.beams import beam_search
from gqa_t5x.decoding.methods import check_options
from gqa_t5x.decoding.methods import generate
from gqa_t5x.decoding.sampling import Sampling
from gqa_t5x.decoding.sampling import decode_loop
from gqa_t5x.decoding.sampling import greedy_search
from gqa_t5x.decoding.sampling import temperature_sample
from gqa_t5x.decoding.steps import EOS_ID
from gqa_t5x.decoding.steps import NOT_FINITE
from gqa_t5x.decoding.steps import NO_EOS
from gqa_t5x.decoding.steps import PAD_ID
from gqa_t5x.decoding.steps import Decoded
from gqa_t5x.decoding.steps import Prefilled
from gqa_t5x.decoding.steps import decode_step
from gqa_t5x.decoding.steps import empty_cache
from gqa_t5x.decoding.steps import encode
from gqa_t5x.decoding.steps import place_params
from gqa_t5x.decoding.steps import prefill
from gqa_t5x.decoding.steps import split_cache

__all__ = [
    'Decoded',
    'EOS_ID',
    'NOT_FINITE',
    'NO_EOS',
    'PAD_ID',
    'Prefilled',
    'Sampling',
    'beam_loop',
    'beam_search',
    'check_options',
    'decode_loop',
    'decode_step',
    'empty_cache',
    'encode',
    'generate',
    'greedy_search',
    'place_params',
    'prefill',
    'split_cache',
    'temperature_sample',
]
