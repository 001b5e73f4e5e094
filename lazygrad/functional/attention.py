"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional.joining import triangle
from lazygrad.functional.products import contract
from lazygrad.functional.random import dropout_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.ops import listed

__all__ = ["scaled_dot_product_attention"]


@operation
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False, **_: Any) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value; a bool mask keeps where it holds.

    query (…, L, E), key (…, S, E), value (…, S, Ev) give (…, L, Ev).
    """
    name = "scaled_dot_product_attention"
    q, k, v = as_node(name, query), as_node(name, key), as_node(name, value)
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise fail(
            name,
            f"query {listed(q.shape)}, key {listed(k.shape)} and value {listed(v.shape)} "
            "do not fit",
            "They are (…, L, E), (…, S, E) and (…, S, Ev).",
        )
    if enable_gqa:
        times = q.shape[-3] // k.shape[-3]
        k, v = (node_of(wrap(each).repeat_interleave(times, -3)) for each in (k, v))
    batch = graph.broadcast_shape(name, q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (graph.broadcast(each, (*batch, *each.shape[-2:])) for each in (q, k, v))
    axes = tuple(range(len(batch)))
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = graph.mul(contract(q, k, axes, axes, (len(batch) + 1,), (len(batch) + 1,)), factor)
    if is_causal:
        if attn_mask is not None:
            raise fail(name, "is_causal and attn_mask exclude each other")
        scores = graph.where(triangle(0, scores.shape[-2:], 0, True), scores, -math.inf)
    empty = None
    if attn_mask is not None:
        mask = node_of(attn_mask)
        if mask.dtype is dtypes.bool_:
            scores = graph.where(mask, scores, -math.inf)
            empty = True
        else:
            scores = graph.add(scores, graph.cast(mask, scores.dtype))
            empty = True
    last = scores.ndim - 1
    top = graph.stop_gradient(graph.reduce("max", scores, (last,), True))
    if empty:
        # A row with nothing to attend to gives 0, as in PyTorch.
        nothing = graph.binary("eq", top, -math.inf)
        top = graph.where(nothing, 0, top)
    power = graph.unary("exp", graph.sub(scores, top))
    total = graph.reduce("sum", power, (last,), True)
    if empty:
        total = graph.where(graph.binary("eq", total, 0), 1, total)
    weights = graph.div(power, total)
    if dropout_p:
        weights = dropout_node(weights, dropout_p, weights.shape)
    return wrap(contract(weights, v, axes, axes, (len(batch) + 1,), (len(batch),)))
