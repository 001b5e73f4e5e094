"""The meaning of attention, in NumPy: rows of the table in `reference.py`.

softmax(q k^T * scale + mask) v over the last axis, in float32 or wider.  Where `causal`, a query
attends to its own place and those before it.  A row with nothing to attend to has weights 0/0: 0
where `empty_is_zero`, else NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.inference_attention import (
    dropout_of,
    operand_shapes,
    optional_operands,
    statistics_dtype,
)
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.philox import random_bits

Array = numpy.ndarray


def _viewed(node: Node, inputs: Sequence[Array]) -> list[Array]:
    """The operands as attention sees them."""
    views = node.attrs[3] or (None,) * len(inputs)
    found = []
    for array, view in zip(inputs, views, strict=True):
        if view is not None:
            offset, shape, strides = view
            flat = numpy.ascontiguousarray(array).reshape(-1)[offset:]
            steps = [step * flat.itemsize for step in strides]
            array = numpy.lib.stride_tricks.as_strided(flat, shape, steps)
        found.append(numpy.asarray(array))
    return found


def _wide(node: Node, array: Array) -> Array:
    return array.astype(statistics_dtype(node.inputs[0].dtype).numpy)


def _repeated(array: Array, heads: int) -> Array:
    """Heads of k or v, each for its group of heads of q."""
    return numpy.repeat(array, heads // array.shape[1], axis=1)


def _kept(node: Node, state: Array | None) -> Array | None:
    """Where dropout leaves weights (B, H, L, S)."""
    dropout = dropout_of(node.attrs)
    if dropout is None or state is None:
        return None
    q, k = operand_shapes(node.inputs, node.attrs[3])[:2]
    shape = (dropout.draws, q[1], q[2], k[2])
    kept = random_bits(state, shape) >> 8 >= dropout.threshold
    return numpy.tile(kept, (q[0] // dropout.draws, 1, 1, 1))


def _dropped(node: Node, values: Array, kept: Array | None) -> Array:
    dropout = dropout_of(node.attrs)
    if dropout is None or kept is None:
        return values
    return numpy.where(kept, values * values.dtype.type(dropout.factor), values.dtype.type(0))


def _scores(node: Node, q: Array, k: Array, mask: Array | None) -> Array:
    """Scaled scores (B, H, L, S), -inf where attention is not allowed."""
    scale, causal = node.attrs[:2]
    scores = q @ numpy.swapaxes(_repeated(k, q.shape[1]), -1, -2) * q.dtype.type(scale)
    if mask is not None:
        if mask.dtype == numpy.bool_:
            scores = numpy.where(mask, scores, q.dtype.type(-math.inf))
        else:
            scores = scores + _wide(node, mask)
    if causal:
        allowed = numpy.tri(*scores.shape[-2:]) > 0
        scores = numpy.where(allowed, scores, q.dtype.type(-math.inf))
    return scores


def _statistics(scores: Array) -> tuple[Array, Array]:
    """exp(scores - top), and the top; a top of -inf counts as 0."""
    top = scores.max(axis=-1, keepdims=True, initial=-math.inf)
    top = numpy.where(top == -math.inf, scores.dtype.type(0), top)
    return numpy.exp(scores - top), top


def _attention(node: Node, inputs: Sequence[Array]) -> Array:
    viewed = _viewed(node, inputs)
    mask, state = optional_operands(node.op, viewed, node.attrs)
    q, k, v = (_wide(node, array) for array in viewed[:3])
    powers, _ = _statistics(_scores(node, q, k, mask))
    total = powers.sum(axis=-1, keepdims=True)
    if node.attrs[2]:
        total = numpy.where(total == 0, total.dtype.type(1), total)
    powers = _dropped(node, powers, _kept(node, state))
    return ((powers @ _repeated(v, q.shape[1])) / total).astype(node.dtype.numpy)


def _logsumexp(node: Node, inputs: Sequence[Array]) -> Array:
    viewed = _viewed(node, inputs)
    mask, _ = optional_operands(node.op, viewed, node.attrs)
    q, k = (_wide(node, array) for array in viewed[:2])
    powers, top = _statistics(_scores(node, q, k, mask))
    return (numpy.log(powers.sum(axis=-1)) + top[..., 0]).astype(node.dtype.numpy)


def _grouped(array: Array, heads: int) -> Array:
    """Summed over the heads of q that share a head."""
    batch, all_heads, *rest = array.shape
    return array.reshape(batch, heads, all_heads // heads, *rest).sum(axis=2)


def _attention_grad(node: Node, inputs: Sequence[Array]) -> Array:
    viewed = _viewed(node, inputs)
    q, k, v, g, logsumexp, delta = viewed[:6]
    mask, state = optional_operands(node.op, viewed, node.attrs)
    kept = _kept(node, state)
    q, k, v, g = (_wide(node, array) for array in (q, k, v, g))
    scale = q.dtype.type(node.attrs[0])
    scores = _scores(node, q, k, mask)
    logsumexp = logsumexp[..., None]
    weights = numpy.exp(scores - numpy.where(logsumexp == -math.inf, math.inf, logsumexp))
    weights = weights.astype(q.dtype)
    if node.attrs[5] == "v":
        if not node.attrs[2]:
            weights = numpy.where(logsumexp == -math.inf, q.dtype.type(math.nan), weights)
        result = _grouped(numpy.swapaxes(_dropped(node, weights, kept), -1, -2) @ g, v.shape[1])
        return result.astype(node.dtype.numpy)
    inner = g @ numpy.swapaxes(_repeated(v, q.shape[1]), -1, -2)
    slope = weights * (_dropped(node, inner, kept) - delta[..., None]) * scale
    if mask is not None and mask.dtype == numpy.bool_:  # nothing flows to a score that was replaced
        slope = numpy.where(weights == 0, q.dtype.type(0), slope)
    if node.attrs[5] == "q":
        result = slope @ _repeated(k, q.shape[1])
    else:
        result = _grouped(numpy.swapaxes(slope, -1, -2) @ q, k.shape[1])
    return result.astype(node.dtype.numpy)


RULES: dict[str, Callable[[Node, Sequence[Array]], Any]] = {
    "attention": _attention,
    "attention_logsumexp": _logsumexp,
    "attention_grad": _attention_grad,
}

