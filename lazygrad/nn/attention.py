"""Multi-head attention (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.linear import NonDynamicallyQuantizableLinear
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter


class MultiheadAttention(Module):
    """Attention of `num_heads` heads over projected queries, keys and values.

    Shapes: (L, N, E), or (N, L, E) with batch_first, or (L, E) without a batch.  Returns (output,
    weights); weights is None unless `need_weights`.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0, got "
                             f"embed_dim={embed_dim} and num_heads={num_heads} instead")
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} must be divisible by "
                             f"num_heads {num_heads}")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        made = {"device": device, "dtype": dtype}
        if self._qkv_same_embed_dim:
            self.in_proj_weight = Parameter(lg.empty(3 * embed_dim, embed_dim, **made))
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = Parameter(lg.empty(embed_dim, embed_dim, **made))
            self.k_proj_weight = Parameter(lg.empty(embed_dim, self.kdim, **made))
            self.v_proj_weight = Parameter(lg.empty(embed_dim, self.vdim, **made))
            self.register_parameter("in_proj_weight", None)
        if bias:
            self.in_proj_bias = Parameter(lg.empty(3 * embed_dim, **made))
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **made)
        if add_bias_kv:
            self.bias_k = Parameter(lg.empty(1, 1, embed_dim, **made))
            self.bias_v = Parameter(lg.empty(1, 1, embed_dim, **made))
        else:
            self.register_parameter("bias_k", None)
            self.register_parameter("bias_v", None)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight,
                       self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.constant_(self.in_proj_bias, 0.0)
            init.constant_(self.out_proj.bias, 0.0)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    def forward(self, query: lg.Tensor, key: lg.Tensor, value: lg.Tensor,
                key_padding_mask: lg.Tensor | None = None, need_weights: bool = True,
                attn_mask: lg.Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[lg.Tensor, lg.Tensor | None]:
        """key_padding_mask (N, S): True (or -inf) where a key is padding.  attn_mask (L, S) or (N *
        heads, L, S): True where attention is not allowed, or numbers added to the scores.
        is_causal: a hint that attn_mask is the causal one.
        """
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise fail("MultiheadAttention", "is_causal is a hint about attn_mask, and there is "
                                             "no attn_mask",
                       "Pass attn_mask=nn.Transformer.generate_square_subsequent_mask(L).")
        batched = query.ndim == 3
        one = query is key and key is value
        if not batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        heads = self._project(query, query if one else key, query if one else value)
        causal = is_causal and key_padding_mask is None and not need_weights
        output, weights = self._attend(heads, key_padding_mask, attn_mask, need_weights, causal)
        output = self.out_proj(output)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        if not batched:
            return output.squeeze(0), weights
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _check(self, query: lg.Tensor, key: lg.Tensor, value: lg.Tensor) -> None:
        named = (("query", query, self.embed_dim), ("key", key, self.kdim),
                 ("value", value, self.vdim))
        for name, tensor, size in named:
            if tensor.ndim not in (2, 3) or tensor.ndim != query.ndim:
                raise fail("MultiheadAttention", "query, key and value have 3 axes, or 2 without "
                                                 f"a batch, and {name} has shape "
                                                 f"{tuple(tensor.shape)}")
            if tensor.shape[-1] != size:
                raise fail("MultiheadAttention", f"{name} should end in {size} features, and has "
                                                 f"shape {tuple(tensor.shape)}")
        if key.shape[:-1] != value.shape[:-1]:
            raise fail("MultiheadAttention", f"key {tuple(key.shape)} and value "
                                             f"{tuple(value.shape)} differ in length or batch")

    def _project(self, query: lg.Tensor, key: lg.Tensor, value: lg.Tensor) -> list[lg.Tensor]:
        """Projected and split into heads: (N, heads, length, head_dim) each."""
        size = self.embed_dim
        if self.in_proj_weight is not None and query is key and key is value:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            parts = [projected[..., k * size:(k + 1) * size] for k in range(3)]
        else:
            if self.in_proj_weight is not None:
                weights = [self.in_proj_weight[k * size:(k + 1) * size] for k in range(3)]
            else:
                weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            biases = [None if self.in_proj_bias is None
                      else self.in_proj_bias[k * size:(k + 1) * size] for k in range(3)]
            parts = [F.linear(*given) for given in zip((query, key, value), weights, biases)]
        if self.bias_k is not None:
            batch = query.shape[0]
            parts[1] = lg.cat([parts[1], self.bias_k.expand(batch, 1, size)], dim=1)
            parts[2] = lg.cat([parts[2], self.bias_v.expand(batch, 1, size)], dim=1)
        heads = [part.reshape(part.shape[0], part.shape[1], self.num_heads,
                              self.head_dim).transpose(1, 2) for part in parts]
        if self.add_zero_attn:
            zeros = lg.zeros(query.shape[0], self.num_heads, 1, self.head_dim, dtype=query.dtype)
            heads[1:] = [lg.cat([part, zeros], dim=2) for part in heads[1:]]
        return heads

    def _mask(self, key_padding_mask: lg.Tensor | None, attn_mask: lg.Tensor | None, batch: int,
              dtype: Any) -> lg.Tensor | None:
        """Both masks as one tensor to be added to the scores, or None; broadcasts to (N, heads, L,
        S).
        """
        parts = []
        added = int(self.bias_k is not None) + int(self.add_zero_attn)
        if attn_mask is not None:
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape(batch, self.num_heads, *attn_mask.shape[1:])
            parts.append(attn_mask)
        if key_padding_mask is not None:
            parts.append(key_padding_mask.reshape(batch, 1, 1, key_padding_mask.shape[-1]))
        total = None
        for part in parts:
            if added:
                part = lg.cat([part, lg.zeros(*part.shape[:-1], added, dtype=part.dtype)], dim=-1)
            if not part.is_floating_point():
                part = lg.zeros(part.shape, dtype=dtype).masked_fill(part.to(lg.bool),
                                                                     float("-inf"))
            total = part if total is None else total + part
        return total

    def _attend(self, heads: list[lg.Tensor], key_padding_mask: lg.Tensor | None,
                attn_mask: lg.Tensor | None, need_weights: bool,
                is_causal: bool) -> tuple[lg.Tensor, lg.Tensor | None]:
        """(N, L, E) and, where asked for, the weights (N, heads, L, S)."""
        query, key, value = heads
        batch, _, length, _ = query.shape
        dropout = self.dropout if self.training else 0.0
        mask = None if is_causal else self._mask(key_padding_mask, attn_mask, batch, query.dtype)
        weights = None
        if need_weights:
            scores = (query * (1.0 / math.sqrt(self.head_dim))) @ key.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            if dropout > 0.0:
                weights = F.dropout(weights, dropout)
            output = weights @ value
        else:
            output = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal)
        return output.transpose(1, 2).reshape(batch, length, self.embed_dim), weights
