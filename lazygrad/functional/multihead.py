"""Multi-head attention as a function of its weights (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor
from lazygrad.functional.activations import softmax
from lazygrad.functional.attention import scaled_dot_product_attention
from lazygrad.functional.creation import zeros
from lazygrad.functional.dropouts import dropout
from lazygrad.functional.joining import cat
from lazygrad.functional.products import linear
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.ops import listed

__all__ = ["multi_head_attention_forward"]

NAME = "multi_head_attention_forward"


def _check(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None,
           heads: int) -> bool:
    """Whether there is a batch axis; refuses what does not fit together."""
    if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
        raise fail(NAME, "query, key and value have 3 axes, or 2 without a batch, not "
                   f"{listed(query.shape)}, {listed(key.shape)} and {listed(value.shape)}")
    if key.shape[:-1] != value.shape[:-1]:
        raise fail(NAME, f"key {listed(key.shape)} and value {listed(value.shape)} differ in "
                   "length or batch")
    batched = query.ndim == 3
    batch = query.shape[1] if batched else 1
    if batched and key.shape[1] != batch:
        raise fail(NAME, f"query {listed(query.shape)} and key {listed(key.shape)} differ in batch")
    length, source = query.shape[0], key.shape[0]
    if padding is not None:
        expected: tuple[int, ...] = (batch, source) if batched else (source,)
        if tuple(padding.shape) != expected:
            raise fail(NAME, f"key_padding_mask {listed(padding.shape)} is not {listed(expected)}")
    if mask is not None and tuple(mask.shape) not in ((length, source),
                                                      (batch * heads, length, source)):
        raise fail(NAME, f"attn_mask {listed(mask.shape)} is neither {listed((length, source))} "
                   f"nor {listed((batch * heads, length, source))}")
    return batched


def _projected(inputs: tuple[Tensor, Tensor, Tensor], weights: Any, packed: Tensor | None,
               bias: Tensor | None, size: int) -> list[Tensor]:
    """Query, key and value in `size` features each."""
    query, key, value = inputs
    if packed is not None and query is key and key is value:
        joined = linear(query, packed, bias)
        return [joined[..., k * size:(k + 1) * size] for k in range(3)]
    if packed is not None:
        weights = [packed[k * size:(k + 1) * size] for k in range(3)]
    biases = [None if bias is None else bias[k * size:(k + 1) * size] for k in range(3)]
    return [linear(*given) for given in zip(inputs, weights, biases, strict=True)]


def additive(mask: Tensor, dtype: Any) -> Tensor:
    """A mask as numbers to add to the scores; True becomes -inf."""
    if mask.is_floating_point():
        return mask.to(dtype)
    if mask.dtype is not dtypes.bool_:
        raise fail(NAME, f"masks are bool or floating, not {mask.dtype.name}")
    return zeros(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)


def _joined_mask(padding: Tensor | None, mask: Tensor | None, batch: int, heads: int,
                 added: int, dtype: Any) -> Tensor | None:
    """Both masks as one tensor that broadcasts to (N, heads, L, S), or None."""
    total = None
    if mask is not None:
        mask = mask.reshape(batch, heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        total = additive(mask, dtype)
    if padding is not None:
        extra = additive(padding, dtype).reshape(batch, 1, 1, padding.shape[-1])
        total = extra if total is None else total + extra
    if total is None or not added:
        return total
    return cat([total, zeros(*total.shape[:-1], added, dtype=dtype)], dim=-1)


@operation
def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads over projected inputs; (output, weights or None).

    query (L, N, E) or (L, E), key and value (S, N, ·) or (S, ·).  key_padding_mask (N, S): True (or
    -inf) where a key is padding.  attn_mask (L, S) or (N * heads, L, S): True where attention is
    not allowed, or numbers added to the scores.  is_causal: a hint that attn_mask is the causal
    one.  bias_k, bias_v (1, 1, E): a key and a value appended to every sequence.  static_k,
    static_v (N * heads, S, E / heads): used in place of the projected ones.  Weights are
    (N, L, S), or (N, heads, L, S) without average_attn_weights.
    """
    batched = _check(query, key, value, key_padding_mask, attn_mask, num_heads)
    size = query.shape[-1]
    if size != embed_dim_to_check:
        raise fail(NAME, f"expected {embed_dim_to_check} features, and the query "
                   f"{listed(query.shape)} has {size}")
    if size % num_heads:
        raise fail(NAME, f"{size} features do not split into {num_heads} heads")
    if is_causal and attn_mask is None:
        raise fail(NAME, "is_causal is a hint about attn_mask, and there is no attn_mask",
                   "Pass attn_mask=nn.Transformer.generate_square_subsequent_mask(L).")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    given = separate if use_separate_proj_weight else (in_proj_weight,)
    if any(each is None for each in given):
        raise fail(NAME, "use_separate_proj_weight needs q_proj_weight, k_proj_weight and "
                   "v_proj_weight, otherwise in_proj_weight is needed")
    one = query is key and key is value
    if not batched:
        query, key, value = (each.unsqueeze(1) for each in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    if one:
        key = value = query
    length, batch, _ = query.shape
    parts = _projected((query, key, value), separate,
                       None if use_separate_proj_weight else in_proj_weight, in_proj_bias, size)
    if (bias_k is None) != (bias_v is None):
        raise fail(NAME, "bias_k and bias_v come together")
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise fail(NAME, "bias_k and bias_v cannot be appended to static_k and static_v")
        parts[1] = cat([parts[1], bias_k.expand(1, batch, size)])
        parts[2] = cat([parts[2], bias_v.expand(1, batch, size)])
    heads = [_in_heads(part, num_heads) for part in parts]
    for place, static in ((1, static_k), (2, static_v)):
        if static is not None:
            heads[place] = _static(static, batch, num_heads, size // num_heads)
    if add_zero_attn:
        nothing = zeros(batch, num_heads, 1, size // num_heads, dtype=query.dtype)
        heads[1:] = [cat([part, nothing], dim=2) for part in heads[1:]]
    added = int(bias_k is not None) + int(add_zero_attn)
    causal = is_causal and key_padding_mask is None and not need_weights and not added
    mask = None if causal else _joined_mask(key_padding_mask, attn_mask, batch, num_heads, added,
                                            query.dtype)
    chance = dropout_p if training else 0.0
    output, weights = _attend(heads, mask, chance, causal, need_weights)
    output = output.permute(2, 0, 1, 3).reshape(length, batch, size)
    output = linear(output, out_proj_weight, out_proj_bias)
    if weights is not None:
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if batched else weights.squeeze(0)
    return (output if batched else output.squeeze(1)), weights


def _in_heads(part: Tensor, heads: int) -> Tensor:
    """(length, N, E) as (N, heads, length, E / heads)."""
    length, batch, size = part.shape
    return part.reshape(length, batch, heads, size // heads).permute(1, 2, 0, 3)


def _static(part: Tensor, batch: int, heads: int, size: int) -> Tensor:
    if part.ndim != 3 or part.shape[0] != batch * heads or part.shape[2] != size:
        raise fail(NAME, f"static_k and static_v are ({batch * heads}, S, {size}), not "
                   f"{listed(part.shape)}")
    return part.reshape(batch, heads, part.shape[1], size)


def _attend(heads: list[Tensor], mask: Tensor | None, chance: float, causal: bool,
            need_weights: bool) -> tuple[Tensor, Tensor | None]:
    """(N, heads, L, E / heads), and the weights (N, heads, L, S) where asked for."""
    query, key, value = heads
    if not need_weights:
        return scaled_dot_product_attention(query, key, value, mask, chance, causal), None
    scores = (query * math.sqrt(1.0 / query.shape[-1])) @ key.transpose(-2, -1)
    weights = softmax(scores if mask is None else scores + mask, -1)
    if chance > 0.0:
        weights = dropout(weights, chance)
    return weights @ value, weights
