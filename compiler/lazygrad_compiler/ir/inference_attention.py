"""Dtype and shape inference of attention: the output, its row statistics, its gradients.

Operands are q (B, H, L, E), k (B, G, S, E), v (B, G, S, Ev), where the H heads of q share the G of
k and v in groups of H / G neighbours, and perhaps a mask whose axes are those of the scores
(B, H, L, S) or 1: bool (where attention is allowed) or numbers to add to the scores.

An operand may be given as a view of another array, so that projections need not be copied apart:
attribute `views` is empty, or has for each operand None or (offset, shape, strides) in elements.
"""

from __future__ import annotations

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import OpDef, fail, listed
from lazygrad_compiler.ir.node import Node, Shape

GRADIENTS = ("q", "k", "v")
"""What `attention_grad` gives, by its attribute `part`."""

FEWEST_QUERIES_FOUND = 32
FEWEST_SCORES_FOUND = 1 << 11
"""Queries and scores of a head from which on products with a softmax between are made the op:
below that they are as fast.
"""


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


def _checked(
    definition: OpDef, inputs: tuple[Node, ...], views: tuple, mask: Node | None
) -> tuple[Shape, Shape, Shape]:
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
    return q, k, v


def infer_attention(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    if len(inputs) not in (3, 4):
        raise fail(definition, f"takes q, k, v and perhaps a mask, not {len(inputs)} operands")
    q, _, v = _checked(definition, inputs, attrs[3], inputs[3] if len(inputs) == 4 else None)
    return inputs[0].dtype, (*q[:3], v[3])


def infer_logsumexp(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    dtype, shape = infer_attention(definition, inputs, attrs)
    return statistics_dtype(dtype), shape[:3]


def infer_attention_grad(
    definition: OpDef, inputs: tuple[Node, ...], attrs: tuple
) -> tuple[DType, Shape]:
    if len(inputs) not in (6, 7):
        raise fail(
            definition,
            f"takes q, k, v, g, logsumexp, delta and perhaps a mask, not {len(inputs)} operands",
        )
    part, views = attrs[4], attrs[3]
    if part not in GRADIENTS:
        raise fail(definition, f"part is one of {', '.join(GRADIENTS)}, not {part!r}")
    shapes = _checked(definition, inputs, views, inputs[6] if len(inputs) == 7 else None)
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
