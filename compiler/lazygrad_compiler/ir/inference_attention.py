"""Dtype and shape inference of attention: the output, its row statistics, its gradients.

Operands are q (B, H, L, E), k (B, G, S, E), v (B, G, S, Ev), where the H heads of q share the G of
k and v in groups of H / G neighbours, and perhaps a mask whose axes are those of the scores
(B, H, L, S) or 1: bool (where attention is allowed) or numbers to add to the scores.

*Dropout*: attribute `dropout` is empty, or (p, factor, draws).  Then the last input is the state of
random bits (seed, offset), int64, and weights, once they sum up to 1, are times factor where bits
of theirs, as 24 bits of a uniform number, are p at least, else 0: element (b, h, l, s) of bits
(draws, H, L, S), that is, op `random_bits` of that state, where draws divides B and b counts modulo
draws.  What is drawn does not depend on how it is computed.

An operand may be given as a view of another array, so that projections need not be copied apart:
attribute `views` is empty, or has for each operand None or (offset, shape, strides) in elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

T = TypeVar("T")

GRADIENTS = ("q", "k", "v")
"""What `attention_grad` gives, by its attribute `part`."""

FEWEST_QUERIES_FOUND = 32
FEWEST_SCORES_FOUND = 1 << 11
"""Queries and scores of a head from which on products with a softmax between are made the op:
below that they are as fast, but for few queries to many keys.
"""
MOST_QUERIES_DECODED = 23
FEWEST_KEYS_DECODED = 128


def few_to_many(queries: int, keys: int) -> bool:
    """Whether there is a kernel for them that gives no gradients (`loops/attention.py`)."""
    return queries <= MOST_QUERIES_DECODED and keys >= FEWEST_KEYS_DECODED


def worth_finding(queries: int, keys: int) -> bool:
    """Whether products with a softmax between are made the op."""
    many = queries >= FEWEST_QUERIES_FOUND and queries * keys >= FEWEST_SCORES_FOUND
    return many or few_to_many(queries, keys)


def statistics_dtype(dtype: DType) -> DType:
    """What scores, weights and sums are held in: float32 for 16-bit floats."""
    return dtypes.float32 if dtype.bits == 16 else dtype


def operand_shapes(inputs: tuple[Node, ...], views: tuple) -> list[Shape]:
    """The shapes of the operands as attention sees them."""
    if not views:
        return [value.shape for value in inputs]
    return [
        value.shape if view is None else view[1]
        for value, view in zip(inputs, views, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Dropout:
    """Weights of less than `threshold`, of 24 random bits, are dropped; others are times factor.
    draws: batch entries that have bits of their own.
    """

    threshold: int
    factor: float
    draws: int


def dropout_of(attrs: tuple) -> Dropout | None:
    """That of an attention op's attributes."""
    if not attrs[4]:
        return None
    p, factor, draws = attrs[4]
    return Dropout(math.ceil(float(numpy.float32(p)) * 2**24), factor, draws)


def optional_operands(op: str, inputs: Sequence[T], attrs: tuple) -> tuple[T | None, T | None]:
    """(mask, random state), what there is of them, of an attention op's inputs or what stands for
    them.
    """
    rest = list(inputs[6 if op == "attention_grad" else 3 :])
    state = rest.pop() if attrs[4] else None
    return (rest[0] if rest else None), state


def drawn(node: Node) -> tuple[Node, Shape] | None:
    """(state, shape) of the random bits that a node draws."""
    if node.op == "random_bits":
        return node.inputs[0], node.shape
    if not node.op.startswith("attention") or not node.attrs[4]:
        return None
    _, state = optional_operands(node.op, node.inputs, node.attrs)
    q, k = operand_shapes(node.inputs, node.attrs[3])[:2]
    assert state is not None
    return state, (node.attrs[4][2], q[1], q[2], k[2])


def _checked(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[Shape, Shape, Shape]:
    views = attrs[3]
    mask, state = optional_operands(definition.name, inputs, attrs)
    shapes = operand_shapes(inputs, views)
    q, k, v = shapes[:3]
    shown = f"q {listed(q)}, k {listed(k)} and v {listed(v)}"
    if not len(q) == len(k) == len(v) == 4:
        raise fail(definition, f"takes operands of four axes, not {shown}")
    if q[0] != k[0] or k[:3] != v[:3] or q[3] != k[3] or not k[1] or q[1] % k[1]:
        raise fail(definition, f"{shown} do not fit")
    dtype = inputs[0].dtype
    if not dtype.is_floating or any(value.dtype is not dtype for value in inputs[:3]):
        raise fail(
            definition,
            f"takes operands of one floating dtype, not "
            f"{', '.join(value.dtype.name for value in inputs[:3])}",
        )
    if mask is not None:
        scores = (q[0], q[1], q[2], k[2])
        fits = mask.ndim == 4 and all(
            size in (1, full) for size, full in zip(mask.shape, scores, strict=True)
        )
        if not fits or (mask.dtype is not dtypes.bool_ and not mask.dtype.is_floating):
            raise fail(
                definition,
                f"the mask {mask.dtype.name} {listed(mask.shape)} does not fit the scores "
                f"{listed(scores)}",
            )
    if state is not None:
        draws = attrs[4][2]
        if state.dtype is not dtypes.int64 or state.shape != (2,):
            raise fail(definition, f"takes the int64 pair (seed, offset), not {state!r}")
        if draws < 1 or q[0] % draws:
            raise fail(definition, f"dropout for {draws} batch entries does not fit {q[0]}")
    return q, k, v


def infer_attention(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    if len(inputs) - bool(attrs[4]) not in (3, 4):
        raise fail(
            definition,
            f"takes q, k, v, perhaps a mask, with dropout a state, not {len(inputs)} operands",
        )
    q, _, v = _checked(definition, inputs, attrs)
    return inputs[0].dtype, (*q[:3], v[3])


def infer_logsumexp(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    dtype, shape = infer_attention(definition, inputs, attrs)
    return statistics_dtype(dtype), shape[:3]


def infer_attention_grad(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    if len(inputs) - bool(attrs[4]) not in (6, 7):
        raise fail(
            definition,
            f"takes q, k, v, g, logsumexp, delta, perhaps a mask, with dropout a state, not "
            f"{len(inputs)} operands",
        )
    part, views = attrs[5], attrs[3]
    if part not in GRADIENTS:
        raise fail(definition, f"part is one of {', '.join(GRADIENTS)}, not {part!r}")
    shapes = _checked(definition, inputs, attrs)
    q, _, v = shapes
    dtype = inputs[0].dtype
    cotangent = operand_shapes(inputs, views)[3]
    if inputs[3].dtype is not dtype or cotangent != (*q[:3], v[3]):
        raise fail(definition, f"the cotangent {listed(cotangent)} does not fit the result")
    for value in inputs[4:6]:
        if value.dtype is not statistics_dtype(dtype) or value.shape != q[:3]:
            raise fail(
                definition,
                f"row statistics are {statistics_dtype(dtype).name} {listed(q[:3])}, not "
                f"{value.dtype.name} {listed(value.shape)}",
            )
    return dtype, shapes[GRADIENTS.index(part)]
