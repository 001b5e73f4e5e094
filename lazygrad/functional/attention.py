"""Scaled dot-product attention."""

from __future__ import annotations

import math

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._attention_node import Dropout, all_heads, attention_node
from lazygrad.functional._operands import as_node
from lazygrad.functional.dropouts import dropout_node
from lazygrad.functional.joining import triangle
from lazygrad.functional.products import contract
from lazygrad.functional.random import state_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["scaled_dot_product_attention"]

NAME = "scaled_dot_product_attention"


def _checked(query: Tensor, key: Tensor, value: Tensor) -> tuple[Node, Node, Node]:
    q, k, v = as_node(NAME, query), as_node(NAME, key), as_node(NAME, value)
    shapes = f"query {listed(q.shape)}, key {listed(k.shape)} and value {listed(v.shape)}"
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise fail(NAME, f"{shapes} do not fit", "They are (…, L, E), (…, S, E) and (…, S, Ev).")
    if not q.dtype is k.dtype is v.dtype or not q.dtype.is_floating:
        raise fail(NAME, f"query is {q.dtype.name}, key {k.dtype.name}, value {v.dtype.name}",
                   "They share one floating dtype; convert with .to(...).")
    return q, k, v


def _check_groups(query: Node, node: Node, what: str) -> None:
    """Query heads are a multiple of those of keys or values."""
    if query.ndim < 3 or node.ndim < 3 or not node.shape[-3] or query.shape[-3] % node.shape[-3]:
        raise fail(NAME, f"enable_gqa: the heads of query {listed(query.shape)} are no multiple of "
                   f"those of {what} {listed(node.shape)}", "Heads are the axis third from last.")


def _checked_mask(mask: Tensor, scores: tuple[int, ...]) -> Node:
    """The mask's node: bool, or floating and to be added."""
    node = node_of(mask)
    if graph.broadcast_shape(NAME, scores, node.shape) != scores:
        raise fail(NAME, f"attn_mask {listed(node.shape)} does not broadcast to the scores "
                   f"{listed(scores)}", "Its last axes are (L, S).")
    if node.dtype is not dtypes.bool_ and not node.dtype.is_floating:
        raise fail(NAME, f"attn_mask is bool or floating, not {node.dtype.name}")
    return node


def _masked(scores: Node, mask: Tensor | None, is_causal: bool) -> Node:
    """Scores with -inf where attention is not allowed."""
    if is_causal:
        return graph.where(triangle(0, scores.shape[-2:], 0, True), scores, -math.inf)
    if mask is None:
        return scores
    node = _checked_mask(mask, scores.shape)
    if node.dtype is dtypes.bool_:
        return graph.where(node, scores, -math.inf)
    return graph.add(scores, graph.cast(node, scores.dtype))


def _weights(scores: Node, may_be_empty: bool) -> Node:
    """softmax over the last axis; a row with nothing to attend to gives 0, as in PyTorch."""
    last = (scores.ndim - 1,)
    top = graph.stop_gradient(graph.reduce("max", scores, last, True))
    if may_be_empty:
        top = graph.where(graph.binary("eq", top, -math.inf), 0, top)
    power = graph.unary("exp", graph.sub(scores, top))
    total = graph.reduce("sum", power, last, True)
    if may_be_empty:
        total = graph.where(graph.binary("eq", total, 0), 1, total)
    return graph.div(power, total)


@operation
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(query @ key.mT * scale + mask) @ value.

    query (…, L, E), key (…, S, E), value (…, S, Ev) give (…, L, Ev).  attn_mask: bool, True where
    attention is allowed, or numbers added to the scores; broadcasts to (…, L, S).  is_causal: only
    this and earlier places, counted from the start.  scale: 1 / sqrt(E) unless given.  enable_gqa:
    key and value may have fewer heads (axis -3), each serving a group of query heads.  A row with
    nothing to attend to gives 0.
    """
    if not 0.0 <= dropout_p <= 1.0:
        raise fail(NAME, f"dropout_p is a probability, and {dropout_p} does not lie in 0..1")
    q, k, v = _checked(query, key, value)
    if is_causal and attn_mask is not None:
        raise fail(NAME, "is_causal and attn_mask exclude each other",
                   "Put the causal mask into attn_mask.")
    outer = [node.shape[:-2] for node in (k, v)]
    if enable_gqa:
        _check_groups(q, k, "key")
        _check_groups(q, v, "value")
        outer = [(*shape[:-1], 1) for shape in outer]
    batch = graph.broadcast_shape(NAME, q.shape[:-2], *outer)
    if not k.shape[-2]:
        return wrap(graph.const(0, q.dtype, (*batch, q.shape[-2], v.shape[-1])))
    factor = 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale
    if dropout_p < 1 and 0 not in batch:
        dropout = None
        if dropout_p:
            shape = (*batch, q.shape[-2], k.shape[-2])
            dropout = Dropout(dropout_p, 1 / (1 - dropout_p), state_node(shape))
        mask = None
        if attn_mask is not None:
            mask = _checked_mask(attn_mask, (*batch, q.shape[-2], k.shape[-2]))
        return wrap(attention_node(q, k, v, mask, batch, factor, bool(is_causal),
                                   empty_is_zero=mask is not None, dropout=dropout))
    k, v = (all_heads(node, batch[-1]) if batch else node for node in (k, v))
    q, k, v = (graph.broadcast(each, (*batch, *each.shape[-2:])) for each in (q, k, v))
    axes = tuple(range(len(batch)))
    scores = graph.mul(contract(q, k, axes, axes, (len(batch) + 1,), (len(batch) + 1,)), factor)
    weights = _weights(_masked(scores, attn_mask, is_causal), attn_mask is not None)
    weights = dropout_node(weights, dropout_p, weights.shape)
    return wrap(contract(weights, v, axes, axes, (len(batch) + 1,), (len(batch),)))
