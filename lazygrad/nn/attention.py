"""Multi-head attention (Vaswani et al. 2017), and PyTorch's choice among its implementations."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.linear import NonDynamicallyQuantizableLinear
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter


class SDPBackend(enum.IntEnum):
    """PyTorch's implementations of `scaled_dot_product_attention`.  Here the compiler chooses."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: SDPBackend | Sequence[SDPBackend], set_priority: bool = False
                ) -> Iterator[None]:
    """Accepted: the results are the same whichever implementation computes them."""
    for each in [backends] if isinstance(backends, SDPBackend) else backends:
        if not isinstance(each, SDPBackend):
            raise fail("sdpa_kernel", f"takes members of SDPBackend, not {each!r}", kind=TypeError)
    yield


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
        swap = self.batch_first and query.ndim == 3
        one = query is key and key is value
        if swap:
            query = query.transpose(0, 1)
            key, value = (query, query) if one else (key.transpose(0, 1), value.transpose(0, 1))
        output, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight,
            self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn, self.dropout,
            self.out_proj.weight, self.out_proj.bias, self.training, key_padding_mask,
            need_weights, attn_mask, not self._qkv_same_embed_dim, self.q_proj_weight,
            self.k_proj_weight, self.v_proj_weight, average_attn_weights=average_attn_weights,
            is_causal=is_causal)
        return (output.transpose(0, 1) if swap else output), weights

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
