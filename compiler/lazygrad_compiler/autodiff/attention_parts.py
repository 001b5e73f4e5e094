"""Attention written in ops that everything else knows: products, exp and sums.

What the ops `attention`, `attention_logsumexp` and `attention_grad` mean, as nodes.  Derivatives of
higher order, gradients of masks, and shapes too small for a kernel of their own go this way.
"""

from __future__ import annotations

import math

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference_attention import (
    dropout_of,
    optional_operands,
    statistics_dtype,
)
from lazygrad_compiler.ir.node import Node

HEADS = (0, 1)
"""Batch axes of the products."""
LAST = (3,)


def composed(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The op on other inputs of the same dtypes and shapes, as nodes.  Views are resolved before
    they come into being, that is, never here.
    """
    assert not node.attrs[3], "a view of an operand in a graph that is still rewritten"
    return PARTS[node.op](Builder(node.location), node, inputs)


def _wide(at: Builder, value: Node) -> Node:
    return at.cast(value, statistics_dtype(value.dtype))


def _repeated(at: Builder, value: Node, heads: int) -> Node:
    """Heads of k or v, each for its group of heads of q."""
    batch, groups, *rest = value.shape
    if groups == heads:
        return value
    value = at.reshape(value, (batch, groups, 1, *rest))
    value = at.expand(value, (batch, groups, heads // groups, *rest))
    return at.reshape(value, (batch, heads, *rest))


def _grouped(at: Builder, value: Node, groups: int) -> Node:
    """The other way: summed over the heads of q that share a head."""
    batch, heads, *rest = value.shape
    if groups == heads:
        return value
    return at.sum(at.reshape(value, (batch, groups, heads // groups, *rest)), (2,))


def _product(at: Builder, left: Node, right: Node, left_axis: int, right_axis: int) -> Node:
    return at.op("dot", left, right, attrs=(HEADS, HEADS, (left_axis,), (right_axis,)))


def _scores(at: Builder, node: Node, q: Node, k: Node, mask: Node | None) -> Node:
    scale, causal = node.attrs[:2]
    scores = _product(at, _wide(at, q), _repeated(at, _wide(at, k), q.shape[1]), 3, 3)
    scores = at.mul(scores, at.like(scores, scale))
    nothing = at.like(scores, -math.inf)
    if mask is not None:
        full = at.expand(mask, scores.shape)
        if mask.dtype is dtypes.bool_:
            scores = at.where(full, scores, nothing)
        else:
            scores = at.add(scores, at.cast(full, scores.dtype))
    if causal:
        query, key = (
            at.op("iota", attrs=(axis, dtypes.int64, scores.shape)) for axis in (2, 3)
        )
        scores = at.where(at.op("le", key, query), scores, nothing)
    return scores


def _statistics(at: Builder, scores: Node, guarded: bool = True) -> tuple[Node, Node, Node]:
    """exp(scores - top), its sum over rows, and the top; guarded: a top of -inf counts as 0.

    Not guarded these are the nodes of a softmax, and shared with one that is there already.
    """
    top = at.op("stop_gradient", at.op("max", scores, attrs=(LAST,)))
    if guarded:
        top = at.where(at.compare("eq", top, -math.inf), at.zeros(top), top)
    powers = at.op("exp", at.sub(scores, at.spread(top, LAST, scores.shape)))
    return powers, at.sum(powers, LAST), top


def _dropped(at: Builder, node: Node, values: Node, state: Node | None) -> Node:
    """What dropout leaves of weights, times its factor."""
    if state is None:
        return values
    dropout = dropout_of(node.attrs)
    assert dropout is not None
    batch, *rest = values.shape
    bits = at.op("random_bits", state, attrs=((dropout.draws, *rest),))
    bits = at.op("shr", bits, at.like(bits, 8))
    kept = at.op("le", at.like(bits, dropout.threshold), bits)
    if dropout.draws != batch:
        kept = at.reshape(kept, (1, dropout.draws, *rest))
        kept = at.expand(kept, (batch // dropout.draws, dropout.draws, *rest))
        kept = at.reshape(kept, values.shape)
    factor = at.like(values, dropout.factor)
    return at.where(kept, at.mul(values, factor), at.zeros(values))


def _attention(at: Builder, node: Node, inputs: tuple[Node, ...]) -> Node:
    q, k, v = inputs[:3]
    mask, state = optional_operands(node.op, inputs, node.attrs)
    powers, total, _ = _statistics(at, _scores(at, node, q, k, mask), node.attrs[2])
    if node.attrs[2]:
        total = at.where(at.compare("eq", total, 0), at.like(total, 1), total)
    weights = at.op("div", powers, at.spread(total, LAST, powers.shape))
    weights = _dropped(at, node, weights, state)
    values = _repeated(at, _wide(at, v), q.shape[1])
    return at.cast(_product(at, weights, values, 3, 2), node.dtype)


def _logsumexp(at: Builder, node: Node, inputs: tuple[Node, ...]) -> Node:
    mask, _ = optional_operands(node.op, inputs, node.attrs)
    _, total, top = _statistics(at, _scores(at, node, inputs[0], inputs[1], mask))
    return at.add(at.op("log", total), top)


def _attention_grad(at: Builder, node: Node, inputs: tuple[Node, ...]) -> Node:
    q, k, v, g, logsumexp, delta = inputs[:6]
    mask, state = optional_operands(node.op, inputs, node.attrs)
    heads, groups = q.shape[1], k.shape[1]
    g = _wide(at, g)
    scores = _scores(at, node, q, k, mask)
    shift = at.where(
        at.compare("eq", logsumexp, -math.inf), at.like(logsumexp, math.inf), logsumexp
    )
    weights = at.op("exp", at.sub(scores, at.spread(shift, LAST, scores.shape)))
    if node.attrs[5] == "v":
        if not node.attrs[2]:
            empty = at.compare("eq", logsumexp, -math.inf)
            empty = at.spread(empty, LAST, scores.shape)
            weights = at.where(empty, at.like(weights, math.nan), weights)
        weights = _dropped(at, node, weights, state)
        return at.cast(_grouped(at, _product(at, weights, g, 2, 2), groups), node.dtype)
    inner = _product(at, g, _repeated(at, _wide(at, v), heads), 3, 3)
    inner = _dropped(at, node, inner, state)
    slope = at.mul(weights, at.sub(inner, at.spread(delta, LAST, scores.shape)))
    slope = at.mul(slope, at.like(slope, node.attrs[0]))
    if mask is not None and mask.dtype is dtypes.bool_:
        # nothing flows to a score that was replaced
        slope = at.where(at.compare("eq", weights, 0), at.zeros(slope), slope)
    if node.attrs[5] == "q":
        result = _product(at, slope, _repeated(at, _wide(at, k), heads), 3, 2)
    else:
        result = _grouped(at, _product(at, slope, _wide(at, q), 2, 2), groups)
    return at.cast(result, node.dtype)


PARTS = {
    "attention": _attention,
    "attention_logsumexp": _logsumexp,
    "attention_grad": _attention_grad,
}
