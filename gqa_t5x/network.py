# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""T5 encoder-decoder with grouped-query attention in the decoder.

The module contract (`__call__`, `encode`, `decode`) and the parameter names,
shapes and logical axes are those of t5x/examples/t5, so that t5x can train it
and its checkpoints load. T5.1.1 (gated GELU, untied logits) and T5 1.0 (ReLU,
tied logits) are two configurations of it.

As in the paper only the decoder is grouped: the encoder's keys and values are
computed once per input and cost no memory bandwidth while decoding.

Letters of the shapes: B batch, S input length, T target length, L length of
the decoder's cache, N query heads, D model dim, V vocabulary.
"""

import dataclasses
from typing import Any, Mapping, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gqa_t5x import attention
from gqa_t5x import errors
from gqa_t5x import grouping
from gqa_t5x import layers

Array = jax.Array


def _float_dtype(dtype: Any) -> np.dtype:
  """Returns the dtype, or raises UserError if it is none of floats."""
  try:
    # Of None numpy makes float64.
    found = None if dtype is None else jnp.dtype(dtype)
  except TypeError:
    found = None
  # Eight bits have no room for the values that hide what is masked.
  if not (
      found is not None
      and jnp.issubdtype(found, jnp.floating)
      and 1 < found.itemsize <= 4
  ):
    raise errors.UserError(
        "expected dtype to be 'float32', 'bfloat16' or 'float16', got"
        f' {dtype!r}'
    )
  return found


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Shape and numerics of a model: t5x's T5Config plus `num_kv_heads`.

  Attributes:
    vocab_size: V, with sentinels and padding.
    dtype: of activations; parameters are always float32.
    emb_dim: D.
    num_heads: N, query heads; all heads of the encoder.
    num_kv_heads: K, key/value heads of the decoder's self- and
      cross-attention: N (or None) is multi-head attention, 1 is multi-query,
      any other divisor of N is grouped-query. None becomes N at once, so
      `dataclasses.replace` with another `num_heads` has to name it too.
    num_encoder_layers: as named.
    num_decoder_layers: as named.
    head_dim: H.
    mlp_dim: F.
    mlp_activations: ('relu',) for T5 1.0, ('gelu', 'linear') for T5.1.1.
    dropout_rate: for embeddings, attention weights, MLP and residual branches.
    logits_via_embedding: whether the output projection is the embedding, with
      its input scaled by 1/sqrt(D) (T5 1.0).
    float32_attention_logits: whether attention logits and softmax are float32
      where activations are not.

  Raises:
    UserError: if `num_kv_heads` does not divide `num_heads`, or a value is of
      another type, unknown or out of its limits.
  """

  vocab_size: int
  dtype: Any = jnp.float32
  emb_dim: int = 512
  num_heads: int = 8
  num_kv_heads: int | None = None
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  head_dim: int = 64
  mlp_dim: int = 2048
  mlp_activations: Sequence[str] = ('relu',)
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  float32_attention_logits: bool = False

  def __post_init__(self):
    # Normalised, so that equal configurations are equal and hashable whether
    # they come from Python, gin or JSON.
    def put(name, value):
      object.__setattr__(self, name, value)

    errors.check_fields(self)
    errors.check_limits(
        self, 'vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim',
        least=1,
    )  # pyformat: disable
    # A decoder may be timed without its encoder.
    errors.check_limits(self, 'num_encoder_layers', least=0)
    errors.check_limits(self, 'num_decoder_layers', least=1)
    errors.check_limits(self, 'dropout_rate', least=0, below=1)
    put('dtype', _float_dtype(self.dtype))
    layers.check_activations(self.mlp_activations)
    put('mlp_activations', tuple(self.mlp_activations))
    if self.num_kv_heads is None:
      put('num_kv_heads', self.num_heads)
    grouping.group_size(self.num_heads, self.num_kv_heads)

  def kv_heads_of(self, attention: str) -> int:
    """Returns the key/value heads of the attentions with this name.

    The encoder's are not grouped, section 2.2 of the paper.

    Args:
      attention: 'attention' is the encoder's, 'self_attention' and
        'encoder_decoder_attention' are the decoder's.
    """
    return self.num_heads if attention == 'attention' else self.num_kv_heads

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields as values that JSON can hold."""
    fields = dataclasses.asdict(self)
    return fields | {
        'dtype': self.dtype.name,
        'mlp_activations': list(self.mlp_activations),
    }


_ATTENTIONS = {
    'attention': attention.Attention,
    'self_attention': attention.CachedSelfAttention,
    'encoder_decoder_attention': attention.CrossAttention,
}
# What normalises the inputs of each part of a layer.
NORMS = {
    'attention': 'pre_attention_layer_norm',
    'self_attention': 'pre_self_attention_layer_norm',
    'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
    'mlp': 'pre_mlp_layer_norm',
}


def layer_part(cfg: T5Config, name: str) -> nn.Module:
  """Returns what has this name, one of `NORMS`, in a layer's parameters."""
  if name == 'mlp':
    return layers.Mlp(
        cfg.mlp_dim, cfg.mlp_activations, cfg.dropout_rate, cfg.dtype, name=name
    )
  return _ATTENTIONS[name](
      emb_dim=cfg.emb_dim,
      num_heads=cfg.num_heads,
      num_kv_heads=cfg.kv_heads_of(name),
      head_dim=cfg.head_dim,
      dtype=cfg.dtype,
      dropout_rate=cfg.dropout_rate,
      float32_logits=cfg.float32_attention_logits,
      name=name,
  )


def _norm(cfg: T5Config, name: str) -> nn.Module:
  """Returns the norm of the part of a layer that has this name."""
  return layers.RMSNorm(cfg.dtype, name=NORMS[name])


def _dropout(cfg: T5Config, x: Array, deterministic: bool) -> Array:
  """Drops whole features of a sequence: one draw for all its positions."""
  return nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
  )


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each with pre-norm and residual."""

  config: T5Config

  @nn.compact
  def __call__(
      self, inputs: Array, bias: Array, mask: Array, deterministic: bool
  ) -> Array:
    """Maps [B, S, D] to [B, S, D]; bias [1, N, S, S], mask [B, 1, 1|S, S]."""
    cfg = self.config
    x = _norm(cfg, 'attention')(inputs)
    x = layer_part(cfg, 'attention')(
        x, bias=bias, mask=mask, deterministic=deterministic
    )
    x = inputs + _dropout(cfg, x, deterministic)

    y = _norm(cfg, 'mlp')(x)
    y = layer_part(cfg, 'mlp')(y, deterministic)
    return x + _dropout(cfg, y, deterministic)


class DecoderLayer(nn.Module):
  """Grouped-query self- and cross-attention and MLP."""

  config: T5Config

  @nn.compact
  def __call__(
      self,
      inputs: Array,
      encoded: Array,
      bias: Array,
      mask: Array,
      cross_mask: Array,
      deterministic: bool,
      decode: bool,
      prefill: bool,
      index: Array | None,
  ) -> Array:
    """Maps [B, T, D] to [B, T, D]; arguments as `Decoder` makes them."""
    cfg = self.config
    x = _norm(cfg, 'self_attention')(inputs)
    x = layer_part(cfg, 'self_attention')(
        x,
        bias=bias,
        mask=mask,
        deterministic=deterministic,
        decode=decode,
        index=index,
    )
    x = inputs + _dropout(cfg, x, deterministic)

    y = _norm(cfg, 'encoder_decoder_attention')(x)
    y = layer_part(cfg, 'encoder_decoder_attention')(
        y,
        encoded,
        mask=cross_mask,
        deterministic=deterministic,
        decode=decode,
        prefill=prefill,
    )
    y = x + _dropout(cfg, y, deterministic)

    z = _norm(cfg, 'mlp')(y)
    z = layer_part(cfg, 'mlp')(z, deterministic)
    return y + _dropout(cfg, z, deterministic)


class Encoder(nn.Module):
  """Embeds and encodes the input."""

  config: T5Config
  shared_embedding: nn.Module

  @nn.compact
  def __call__(self, tokens: Array, mask: Array, deterministic: bool) -> Array:
    """Maps tokens [B, S] to [B, S, D]; mask is bool [B, 1, 1 or S, S]."""
    cfg = self.config
    positions = jnp.arange(tokens.shape[1])
    bias = layers.RelativePositionBias(
        cfg.num_heads, cfg.dtype, bidirectional=True, name='relpos_bias'
    )(positions, positions)[None]

    x = _dropout(cfg, self.shared_embedding(tokens), deterministic)
    for i in range(cfg.num_encoder_layers):
      x = EncoderLayer(cfg, name=f'layers_{i}')(x, bias, mask, deterministic)
    x = layers.RMSNorm(cfg.dtype, name='encoder_norm')(x)
    return nn.Dropout(cfg.dropout_rate)(x, deterministic=deterministic)


class Decoder(nn.Module):
  """Decodes targets, all at once or step by step over a cache."""

  config: T5Config
  shared_embedding: nn.Module

  @nn.compact
  def __call__(
      self,
      encoded: Array,
      tokens: Array,
      mask: Array | None,
      cross_mask: Array,
      deterministic: bool,
      decode: bool,
      prefill: bool,
      prefill_lengths: Array | None,
  ) -> Array:
    """Maps tokens [B, T] to float32 logits [B, T, V].

    Args:
      encoded: [B, S, D].
      tokens: int [B, T], shifted right: they begin with the start token 0.
      mask: bool [B, 1, T, T] on top of the causal one, for packing, or None.
      cross_mask: bool [B, 1, 1 or T, S].
      deterministic: no dropout.
      decode: tokens continue a sequence whose keys and values are cached.
      prefill: tokens begin that sequence (T may be 0), and the cross-attention
        keys and values are to be computed and kept.
      prefill_lengths: int [B], how many of the tokens count in each row; None
        means all T.
    """
    cfg = self.config
    is_first = decode and not self.has_variable('cache', 'cache_index')
    index, kv_length = None, tokens.shape[1]
    if decode:
      # One position serves the whole stack; layers only hold keys and values.
      stored = jnp.zeros((), jnp.int32)
      if not (is_first or prefill):
        stored = self.get_variable('cache', 'cache_index')
      # After prefilling t5x's beam search keeps it as [B, R], for B * R rows.
      index = stored.reshape(-1) if stored.ndim > 1 else stored
      if not is_first:
        cached = self.variables['cache']['layers_0']['self_attention']
        kv_length = cached['cached_value'].shape[2]

    # [T], or [B, T] where rows are at different positions.
    query_positions = jnp.arange(tokens.shape[1])
    if decode:
      query_positions += index[..., None]
    key_positions = jnp.arange(kv_length)
    bias = layers.RelativePositionBias(
        cfg.num_heads, cfg.dtype, bidirectional=False, name='relpos_bias'
    )(query_positions, key_positions)
    causal = key_positions <= query_positions[..., None]
    if query_positions.ndim == 1:
      bias, causal = bias[None], causal[None]
    causal = causal[:, None]
    # bias is [1 or B, N, T, L], causal [1 or B, 1, T, L].
    mask = causal if mask is None else causal & mask

    y = _dropout(cfg, self.shared_embedding(tokens), deterministic)
    for i in range(cfg.num_decoder_layers):
      y = DecoderLayer(cfg, name=f'layers_{i}')(
          y,
          encoded,
          bias,
          mask,
          cross_mask,
          deterministic,
          decode,
          prefill,
          index,
      )
    if decode:
      length = tokens.shape[1] if prefill_lengths is None else prefill_lengths
      self.put_variable(
          'cache', 'cache_index', stored if is_first else stored + length
      )

    y = layers.RMSNorm(cfg.dtype, name='decoder_norm')(y)
    y = _dropout(cfg, y, deterministic)
    if cfg.logits_via_embedding:
      # Normal(0, 1) embeddings need this to give logits of order 1.
      return self.shared_embedding.attend(y) / jnp.sqrt(cfg.emb_dim)
    return layers.Dense(
        (cfg.vocab_size,),
        ('embed', 'vocab'),
        dtype=jnp.float32,  # for stability
        name='logits_dense',
    )(y)


class Transformer(nn.Module):
  """T5 with grouped-query attention; t5x's module contract."""

  config: T5Config

  def setup(self):
    cfg = self.config
    self.token_embedder = layers.Embed(
        cfg.vocab_size, cfg.emb_dim, dtype=cfg.dtype
    )
    self.encoder = Encoder(cfg, self.token_embedder)
    self.decoder = Decoder(cfg, self.token_embedder)

  def encode(
      self,
      encoder_input_tokens: Array,
      encoder_segment_ids: Array | None = None,
      enable_dropout: bool = True,
  ) -> Array:
    """Maps tokens [B, S] (0 is padding) to the encoder's output [B, S, D]."""
    tokens = encoder_input_tokens.astype(jnp.int32)
    mask = key_mask(tokens)
    if encoder_segment_ids is not None:
      mask = mask & _same_segment(encoder_segment_ids, encoder_segment_ids)
    return self.encoder(tokens, mask, deterministic=not enable_dropout)

  def decode(
      self,
      encoded: Array,
      encoder_input_tokens: Array,
      decoder_input_tokens: Array,
      decoder_target_tokens: Array,
      encoder_segment_ids: Array | None = None,
      decoder_segment_ids: Array | None = None,
      decoder_positions: Array | None = None,
      enable_dropout: bool = True,
      decode: bool = False,
      max_decode_length: int | None = None,
      prefill: bool = False,
      prefill_lengths: Array | None = None,
  ) -> Array:
    """Applies the decoder.

    The cache (collection 'cache', to be mutable) has three stages: a first
    call with `decode=True` and tokens [B, L] makes an empty one for L
    positions; a call with `prefill=True` fills in a prompt and the
    cross-attention's keys and values; then each call with `decode=True` takes
    the next token. Without the prefill, decoding works but projects the
    encoder's output in each step.

    Args:
      encoded: [B, S, D], from `encode`.
      encoder_input_tokens: int [B, S]; 0 marks padding.
      decoder_input_tokens: int [B, T], shifted right. While decoding, the rows
        may be B * R: R beams of an input next to each other.
      decoder_target_tokens: unused: padding at the end of a row is hidden by
        causality and carries no loss weight. t5x passes it.
      encoder_segment_ids: int [B, S], for packed rows.
      decoder_segment_ids: int [B, T], for packed rows.
      decoder_positions: unused: T5's positions are relative.
      enable_dropout: as named; needs the 'dropout' RNG.
      decode: whether to use the cache.
      max_decode_length: unused: the cache knows its length. t5x passes it.
      prefill: whether the tokens are a prompt (T may be 0).
      prefill_lengths: int [B]: how many tokens of each row the cache keeps;
        None keeps all T.

    Returns:
      Logits, float32 [B, T, V].

    Raises:
      ValueError: if packed rows are to be decoded.
    """
    del decoder_target_tokens, decoder_positions, max_decode_length
    decode = decode or prefill
    mask = None
    cross_mask = key_mask(encoder_input_tokens)
    if encoder_segment_ids is not None:
      if decode:
        raise ValueError(
            'expected one example per row while decoding, got packed rows; '
            'decode without segment ids'
        )
      if decoder_segment_ids is None:
        raise ValueError(
            'expected segment ids of both sides or neither, got those of the'
            ' encoder; pass those of the decoder too'
        )
      cross_mask = cross_mask & _same_segment(
          decoder_segment_ids, encoder_segment_ids
      )
    if decoder_segment_ids is not None:
      mask = _same_segment(decoder_segment_ids, decoder_segment_ids)
    return self.decoder(
        encoded,
        decoder_input_tokens.astype(jnp.int32),
        mask,
        cross_mask,
        deterministic=not enable_dropout,
        decode=decode,
        prefill=prefill,
        prefill_lengths=prefill_lengths,
    )

  def __call__(
      self,
      encoder_input_tokens: Array,
      decoder_input_tokens: Array,
      decoder_target_tokens: Array,
      encoder_segment_ids: Array | None = None,
      decoder_segment_ids: Array | None = None,
      encoder_positions: Array | None = None,
      decoder_positions: Array | None = None,
      *,
      enable_dropout: bool = True,
      decode: bool = False,
  ) -> Array:
    """Encodes inputs [B, S] and decodes targets [B, T]: logits [B, T, V]."""
    del encoder_positions  # T5's positions are relative.
    encoded = self.encode(
        encoder_input_tokens,
        encoder_segment_ids,
        enable_dropout=enable_dropout,
    )
    return self.decode(
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=encoder_segment_ids,
        decoder_segment_ids=decoder_segment_ids,
        decoder_positions=decoder_positions,
        enable_dropout=enable_dropout,
        decode=decode,
    )


def new_variables(model: Transformer, key: Array) -> Mapping[str, Any]:
  """Returns the variables of a model that has learned nothing.

  Args:
    model: as named.
    key: from which parameters are drawn.

  Returns:
    {'params', 'params_axes'}, nested dicts.
  """
  token = jnp.zeros((1, 1), jnp.int32)  # They depend on no length.
  return model.init(key, token, token, token, enable_dropout=False)


def key_mask(tokens: Array) -> Array:
  """Maps tokens [B, S] to a mask [B, 1, 1, S] that hides padding."""
  return (tokens > 0)[:, None, None, :]


def _same_segment(query_ids: Array, key_ids: Array) -> Array:
  """Maps segment ids [B, T] and [B, S] to a mask [B, 1, T, S]."""
  return (query_ids[:, :, None] == key_ids[:, None, :])[:, None]
