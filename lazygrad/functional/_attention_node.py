"""The attention op on operands of any number of batch axes, and where matmul finds it.

softmax(q @ k.mT * scale + mask, -1) @ v, written out as such, is attention, and so it is with a
dropout of the weights: the last product is recorded as the one op, which never holds all scores at
a time and draws the bits that the dropout would.  The weights stay what they were,
for whoever reads them; a program that does so computes both from the same scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lazygrad._core import graph
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference_attention import worth_finding
from lazygrad_compiler.ir.node import Node


def _with_heads(node: Node, batch: tuple[int, ...], heads: int) -> Node:
    """(…, rows, columns) as (B, heads, rows, columns); a batch of 1s stays one."""
    shape = (*(1,) * (len(batch) + 2 - node.ndim), *node.shape)
    outer = batch[:-1] if any(size != 1 for size in shape[:-3]) else (1,) * (len(batch) - 1)
    node = graph.broadcast(graph.reshape(node, shape), (*outer, heads, *shape[-2:]))
    return graph.reshape(node, (math.prod(outer), heads, *shape[-2:]))


def all_heads(node: Node, heads: int) -> Node:
    """Heads of keys or values (axis -3), each repeated for its group of query heads."""
    axis = node.ndim - 2
    if axis < 1 or node.shape[-3] == heads:
        return node
    wide = graph.broadcast(
        graph.unsqueeze(node, axis),
        (*node.shape[:axis], heads // node.shape[-3], *node.shape[axis:]))
    return graph.reshape(wide, (*node.shape[:axis - 1], heads, *node.shape[axis:]))


@dataclass(frozen=True, slots=True)
class Dropout:
    """Of weights whose bits begin at a state: dropped with chance p, else times a factor."""

    p: float
    factor: float
    state: Node


def attention_node(q: Node, k: Node, v: Node, mask: Node | None, batch: tuple[int, ...],
                   scale: float, causal: bool, empty_is_zero: bool,
                   dropout: Dropout | None = None) -> Node:
    """One attention op.

    q, k, v: (…, rows, width), broadcasting to the batch; keys and values have the heads of the
    batch (its last axis), or fewer that are shared.  mask: None, bool or floating, broadcasting to
    (*batch, L, S).
    """
    shape = (*batch, q.shape[-2], v.shape[-1])
    batch = (1,) * (2 - len(batch)) + batch
    many, heads = math.prod(batch[:-1]), batch[-1]
    own = [node.shape[-3] if node.ndim > 2 else 1 for node in (k, v)]
    if own[0] != own[1]:
        k, v = (all_heads(node, heads) for node in (k, v))
        own = [heads, heads]
    operands = [_with_heads(node, batch, count)
                for node, count in zip((q, k, v), (heads, *own), strict=True)]
    operands = [graph.broadcast(node, (many, *node.shape[1:])) for node in operands]
    if mask is not None:
        if mask.dtype is not dtypes.bool_:
            mask = graph.cast(mask, q.dtype)
        operands.append(_with_heads(mask, batch, mask.shape[-3] if mask.ndim > 2 else 1))
    drawn: tuple = ()
    if dropout is not None:
        operands.append(dropout.state)
        drawn = (dropout.p, dropout.factor, many)
    attrs = (float(scale), causal, empty_is_zero, (), drawn)
    return graph.reshape(graph.make("attention", *operands, attrs=attrs), shape)


# ---- the idiom


@dataclass(slots=True)
class _Scores:
    """What scores consist of: factor * product + mask, or the product where a bool mask holds."""

    product: Node
    factor: float
    mask: Node | None


WEIGHTS = ("div", "where")
"""Ops that weights are made by: a softmax, a dropout."""


def attention_of_product(weights: Node, values: Node) -> Node | None:
    """weights @ values as attention, where the weights are a softmax of masked, scaled products of
    queries and keys, perhaps with dropout, and where there are enough of them.  Both have the same
    batch axes.
    """
    if weights.ndim < 2 or weights.ndim != values.ndim:
        return None
    queries, keys = weights.shape[-2:]
    if not worth_finding(queries, keys) or 0 in (queries, *values.shape):
        return None
    dropout = None
    if weights.op == "where":
        dropped = _dropped(weights)
        if dropped is None:
            return None
        weights, dropout = dropped
    scores = _softmax_of(weights) if weights.op == "div" else None
    parts = None if scores is None else _parts(scores)
    if parts is None:
        return None
    product, batch = parts.product, weights.shape[:-2]
    axes = tuple(range(len(batch)))
    q, k = product.inputs
    if product.shape != weights.shape or k.ndim != weights.ndim:
        return None
    if product.attrs != (axes, axes, (len(axes) + 1,), (len(axes),)) or not q.shape[-1]:
        return None
    swapped = (*axes, len(axes) + 1, len(axes))
    if k.op == "permute" and k.attrs[0] == swapped:
        k = k.inputs[0]
    else:
        k = graph.permute(k, swapped)
    return attention_node(q, k, values, parts.mask, batch, parts.factor, False, False,
                          dropout)


def _without(node: Node, *ops: str) -> Node:
    while node.op in ops:
        node = node.inputs[0]
    return node


def _dropped(weights: Node) -> tuple[Node, Dropout] | None:
    """(x, dropout) for where(p <= uniform numbers, x * factor, 0), as dropout records it."""
    kept, scaled, nothing = weights.inputs
    if kept.op != "le" or scaled.op != "mul" or not _is_number(nothing, 0):
        return None
    chance, uniform = kept.inputs
    value, factor = scaled.inputs
    if chance.op != "const" or factor.op != "const" or uniform.op != "mul":
        return None
    number, unit = uniform.inputs
    if number.op != "cast" or number.dtype is not dtypes.float32 or not _is_number(unit, 2.0**-24):
        return None
    shifted = number.inputs[0]
    if shifted.op != "shr" or not _is_number(shifted.inputs[1], 8):
        return None
    bits = shifted.inputs[0]
    if bits.op != "random_bits":
        return None
    return value, Dropout(float(chance.attrs[0]), float(factor.attrs[0]), bits.inputs[0])


def _softmax_of(weights: Node) -> Node | None:
    """x where weights are exp(x - max(x)) / sum(exp(x - max(x))) over the last axis."""
    last = (weights.ndim - 1,)
    power, total = weights.inputs
    total = _without(total, "reshape", "expand")
    if power.op != "exp" or total.op != "sum" or total.attrs[0] != last:
        return None
    if total.inputs[0] is not power or power.inputs[0].op != "sub":
        return None
    scores, top = power.inputs[0].inputs
    top = _without(top, "reshape", "expand", "stop_gradient")
    if top.op != "max" or top.attrs[0] != last or top.inputs[0] is not scores:
        return None
    return scores


def _parts(scores: Node) -> _Scores | None:
    mask = None
    if scores.op == "where":
        holds, yes, no = scores.inputs
        if _is_number(no, -math.inf):
            mask, scores = _repeating(holds), yes
        elif _is_number(yes, -math.inf):
            mask, scores = graph.unary("not", _repeating(holds)), no
        else:
            return None
    elif scores.op == "add":
        for value, other in (scores.inputs, scores.inputs[::-1]):
            if _scaled(value) is not None:
                mask, scores = _repeating(other), value
                break
    found = _scaled(scores)
    return None if found is None else _Scores(found[0], found[1], mask)


def _scaled(value: Node) -> tuple[Node, float] | None:
    """(product, factor) for a product times or over a number."""
    if value.op == "dot":
        return value, 1.0
    if value.op not in ("mul", "div"):
        return None
    left, right = value.inputs
    if value.op == "mul" and left.op == "const":
        left, right = right, left
    if left.op != "dot" or right.op != "const" or (value.op == "div" and not right.attrs[0]):
        return None
    number = float(right.attrs[0])
    return left, number if value.op == "mul" else 1.0 / number


def _is_number(node: Node, number: float) -> bool:
    return node.op == "const" and node.attrs[0] == number


def _repeating(mask: Node) -> Node:
    """A mask before it was spread over all heads."""
    return mask.inputs[0] if mask.op == "expand" else mask
