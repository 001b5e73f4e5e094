"""Transformer encoder and decoder (Vaswani et al. 2017), post-norm or pre-norm."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import lazygrad as lg
from lazygrad._core.context import fail
from lazygrad.nn import functional as F
from lazygrad.nn import init
from lazygrad.nn.attention import MultiheadAttention
from lazygrad.nn.containers import MOST_LAYERS, ModuleList
from lazygrad.nn.dropout import Dropout
from lazygrad.nn.linear import Linear
from lazygrad.nn.module import Module
from lazygrad.nn.normalization import LayerNorm

Activation = str | Callable[[lg.Tensor], lg.Tensor]
_ACTIVATIONS = {"relu": lambda x: F.relu(x), "gelu": lambda x: F.gelu(x)}


def _activation(given: Activation) -> Callable[[lg.Tensor], lg.Tensor]:
    if not isinstance(given, str):
        return given
    if given not in _ACTIVATIONS:
        raise RuntimeError(f"activation should be relu/gelu, not {given}")
    return _ACTIVATIONS[given]


class _Layer(Module):
    """The feed-forward block that encoder and decoder layers share."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float,
                 activation: Activation, batch_first: bool, norm_first: bool, bias: bool,
                 made: dict[str, Any], with_cross: bool) -> None:
        super().__init__()
        attention = {"dropout": dropout, "bias": bias, "batch_first": batch_first, **made}
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        if with_cross:
            self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **made)
        self.norm_first = norm_first
        self.activation = _activation(activation)

    def _feed_forward(self, x: lg.Tensor) -> lg.Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _norms(self, count: int, d_model: int, eps: float, dropout: float, bias: bool,
               made: dict[str, Any]) -> None:
        for number in range(1, count + 1):
            setattr(self, f"norm{number}", LayerNorm(d_model, eps=eps, bias=bias, **made))
        for number in range(1, count + 1):
            setattr(self, f"dropout{number}", Dropout(dropout))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward block, each with residual and layer norm."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = "relu", layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        made = {"device": device, "dtype": dtype}
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, batch_first,
                         norm_first, bias, made, with_cross=False)
        self._norms(2, d_model, layer_norm_eps, dropout, bias, made)

    def forward(self, src: lg.Tensor, src_mask: lg.Tensor | None = None,
                src_key_padding_mask: lg.Tensor | None = None,
                is_causal: bool = False) -> lg.Tensor:
        def attend(x: lg.Tensor) -> lg.Tensor:
            attended, _ = self.self_attn(x, x, x, attn_mask=src_mask,
                                         key_padding_mask=src_key_padding_mask, need_weights=False,
                                         is_causal=is_causal)
            return self.dropout1(attended)

        x = src
        if self.norm_first:
            x = x + attend(self.norm1(x))
            return x + self.dropout2(self._feed_forward(self.norm2(x)))
        x = self.norm1(x + attend(x))
        return self.norm2(x + self.dropout2(self._feed_forward(x)))


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output, and a feed-forward block."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = "relu", layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        made = {"device": device, "dtype": dtype}
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, batch_first,
                         norm_first, bias, made, with_cross=True)
        self._norms(3, d_model, layer_norm_eps, dropout, bias, made)

    def forward(self, tgt: lg.Tensor, memory: lg.Tensor, tgt_mask: lg.Tensor | None = None,
                memory_mask: lg.Tensor | None = None, tgt_key_padding_mask: lg.Tensor | None = None,
                memory_key_padding_mask: lg.Tensor | None = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> lg.Tensor:
        def attend(x: lg.Tensor) -> lg.Tensor:
            attended, _ = self.self_attn(x, x, x, attn_mask=tgt_mask,
                                         key_padding_mask=tgt_key_padding_mask, need_weights=False,
                                         is_causal=tgt_is_causal)
            return self.dropout1(attended)

        def cross(x: lg.Tensor) -> lg.Tensor:
            attended, _ = self.multihead_attn(x, memory, memory, attn_mask=memory_mask,
                                              key_padding_mask=memory_key_padding_mask,
                                              need_weights=False, is_causal=memory_is_causal)
            return self.dropout2(attended)

        x = tgt
        if self.norm_first:
            x = x + attend(self.norm1(x))
            x = x + cross(self.norm2(x))
            return x + self.dropout3(self._feed_forward(self.norm3(x)))
        x = self.norm1(x + attend(x))
        x = self.norm2(x + cross(x))
        return self.norm3(x + self.dropout3(self._feed_forward(x)))


def _copies(layer: Module, num_layers: int) -> ModuleList:
    """So many layers, each with parameters of its own."""
    if num_layers > MOST_LAYERS:
        raise ValueError(f"num_layers is at most {MOST_LAYERS}, not {num_layers}")
    return ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, and a norm at the end where one is given."""

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
                 enable_nested_tensor: bool = True, mask_check: bool = True) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, src: lg.Tensor, mask: lg.Tensor | None = None,
                src_key_padding_mask: lg.Tensor | None = None,
                is_causal: bool | None = None) -> lg.Tensor:
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, src_key_padding_mask=src_key_padding_mask,
                           is_causal=bool(is_causal))
        return output if self.norm is None else self.norm(output)


class TransformerDecoder(Module):
    """`num_layers` copies of a layer, and a norm at the end where one is given."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, tgt: lg.Tensor, memory: lg.Tensor, tgt_mask: lg.Tensor | None = None,
                memory_mask: lg.Tensor | None = None, tgt_key_padding_mask: lg.Tensor | None = None,
                memory_key_padding_mask: lg.Tensor | None = None, tgt_is_causal: bool | None = None,
                memory_is_causal: bool = False) -> lg.Tensor:
        output = tgt
        for layer in self.layers:
            output = layer(output, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                           memory_key_padding_mask, bool(tgt_is_causal), memory_is_causal)
        return output if self.norm is None else self.norm(output)


class Transformer(Module):
    """Encoder and decoder together."""

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
                 num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: Activation = "relu", custom_encoder: Module | None = None,
                 custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        made = {"device": device, "dtype": dtype}
        settings = {"dim_feedforward": dim_feedforward, "dropout": dropout,
                    "activation": activation, "layer_norm_eps": layer_norm_eps,
                    "batch_first": batch_first, "norm_first": norm_first, "bias": bias, **made}

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **made)

        self.encoder = custom_encoder if custom_encoder is not None else TransformerEncoder(
            TransformerEncoderLayer(d_model, nhead, **settings), num_encoder_layers, norm())
        self.decoder = custom_decoder if custom_decoder is not None else TransformerDecoder(
            TransformerDecoderLayer(d_model, nhead, **settings), num_decoder_layers, norm())
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(self, src: lg.Tensor, tgt: lg.Tensor, src_mask: lg.Tensor | None = None,
                tgt_mask: lg.Tensor | None = None, memory_mask: lg.Tensor | None = None,
                src_key_padding_mask: lg.Tensor | None = None,
                tgt_key_padding_mask: lg.Tensor | None = None,
                memory_key_padding_mask: lg.Tensor | None = None, src_is_causal: bool | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> lg.Tensor:
        batch_axis = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch_axis] != tgt.shape[batch_axis]:
            raise fail("Transformer", f"src {tuple(src.shape)} and tgt {tuple(tgt.shape)} differ "
                       "in batch")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise fail("Transformer", f"src {tuple(src.shape)} and tgt {tuple(tgt.shape)} should "
                       f"end in d_model = {self.d_model} features")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask,
                              is_causal=src_is_causal)
        return self.decoder(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                            memory_key_padding_mask, tgt_is_causal, memory_is_causal)

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None,
                                        dtype: Any = None) -> lg.Tensor:
        """(sz, sz): 0 where attention is allowed (this and earlier places), else -inf."""
        return lg.triu(lg.full((sz, sz), float("-inf"), dtype=dtype, device=device), diagonal=1)
