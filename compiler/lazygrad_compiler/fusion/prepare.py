"""Brings contractions and large reductions into the forms that kernels exist for; last step of the
stage `opt`.

- conv becomes dot over a window of the padded input: the kernel packs its panels through that index
  map; where its input is spread out (transposed convolutions, gradients of strided ones), each
  phase of the output becomes a conv of its own first (`conv_phases.py`);
- a dot with a single row, column or product becomes multiply and sum: memory-bound, a row kernel
  does it best;
- a reduction to few values over many elements is done in two steps, so that threads can share it
  and sums stay accurate;
- operands of attention are read where they lie (`attention.py`);
- and likewise in the bodies of loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lazygrad_compiler.fusion.attention import with_views
from lazygrad_compiler.fusion.conv_phases import by_phases, takes_phases
from lazygrad_compiler.fusion.partition import joined_operands
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.loop import body_of
from lazygrad_compiler.ir.node import Graph, Node, build, node, rebuild, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.loops.concat import joins_equal_pieces
from lazygrad_compiler.loops.lower import is_woven

FEW_RESULTS = 64
LONG_REDUCTION = 16384
CHUNK = 8192
MOST_TRIED = 4096
"""Numbers of chunks that are tried for one that divides the length."""


def prepare(graph: Graph) -> Graph:
    """The graph with the rewrites of this file applied once, inputs before users."""
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        rule = RULES.get(made.op)
        result[current] = rule(made) if rule is not None else made
    return Graph(join_pieces([result[output] for output in graph.outputs]))


def join_pieces(outputs: Sequence[Node]) -> tuple[Node, ...]:
    """The outputs; what joins equal pieces and is stored by itself has them marked, so that each
    piece is computed by itself and stored where it belongs (`loops/concat.py`).
    """
    order = topological(outputs)
    whole = {*outputs, *joined_operands(order)}
    pieces: dict[Node, Node] = {}
    result: dict[Node, Node] = {}
    for current in order:
        made = result[current] = rebuild(current, [result[value] for value in current.inputs])
        if current not in whole or made.op != "concat" or is_woven(made) \
                or not joins_equal_pieces(made) or not pieces.keys().isdisjoint(made.inputs):
            continue
        for piece in made.inputs:
            where = piece.location or made.location
            pieces[piece] = node("stop_gradient", piece, location=where)
        result[current] = rebuild(made, [pieces[piece] for piece in made.inputs])
    return tuple(result[output] for output in outputs)


def reshape(value: Node, shape: tuple[int, ...]) -> Node:
    return (
        value
        if value.shape == shape
        else node("reshape", value, shape=shape, location=value.location)
    )


def _broadcast(value: Node, shape: tuple[int, ...]) -> Node:
    return (
        value
        if value.shape == shape
        else node("expand", value, shape=shape, location=value.location)
    )


def padded(value: Node, padding: Sequence[tuple[int, int]]) -> Node:
    """The last axes with zeros in front and behind; below zero elements are cut off."""
    first, where = value.ndim - len(padding), value.location
    front = (0,) * first
    if any(a > 0 or b > 0 for a, b in padding):
        value = node(
            "pad",
            value,
            low=(*front, *(max(a, 0) for a, _ in padding)),
            high=(*front, *(max(b, 0) for _, b in padding)),
            interior=(0,) * value.ndim,
            value=0.0 if value.dtype.is_floating else 0,
            location=where,
        )
    if any(a < 0 or b < 0 for a, b in padding):
        stops = [size - max(-b, 0) for size, (_, b) in zip(value.shape[first:], padding)]
        value = node(
            "slice",
            value,
            starts=(*front, *(max(-a, 0) for a, _ in padding)),
            stops=(*value.shape[:first], *stops),
            steps=(1,) * value.ndim,
            location=where,
        )
    return value


def lower_conv(conv: Node) -> Node:
    """conv -> pad, window, dot."""
    value, weight = conv.inputs
    strides, padding, _, right_dilation, _ = conv.attrs
    where = conv.location
    rank = value.ndim - 2
    if conv.size == 0 or weight.size == 0 or value.size == 0:
        return node("const", value=0, dtype=conv.dtype, shape=conv.shape, location=where)
    window = node(
        "window",
        padded(value, padding),
        axes=tuple(range(2, 2 + rank)),
        sizes=weight.shape[2:],
        strides=strides,
        dilations=right_dilation,
        location=where,
    )
    return product_of_windows(conv, window)


def product_of_windows(conv: Node, window: Node) -> Node:
    """The conv as a dot of its weights and the windows, (N, C, *results, *taps), of its input."""
    weight, groups, where = conv.inputs[1], conv.attrs[4], conv.location
    kernel, space = weight.shape[2:], conv.shape[2:]
    rank = len(space)
    batch, out_channels = conv.shape[0], conv.shape[1]
    channels = window.shape[1]
    per_group, out_per_group = channels // groups, out_channels // groups
    grouped = reshape(window, (batch, groups, per_group, *space, *kernel))
    weights = reshape(weight, (groups, out_per_group, per_group, *kernel))
    kernel_axes = tuple(range(3, 3 + rank))
    window_kernel_axes = tuple(range(3 + rank, 3 + 2 * rank))
    if math.prod(space) >= 64:
        # each image is a product of its own: results lie contiguous along the positions
        weights = _broadcast(reshape(weights, (1, *weights.shape)), (batch, *weights.shape))
        product = node(
            "dot",
            weights,
            grouped,
            left_batch=(0, 1),
            right_batch=(0, 1),
            left_contract=(3, *(axis + 1 for axis in kernel_axes)),
            right_contract=(2, *window_kernel_axes),
            location=where,
        )
        return reshape(product, conv.shape)
    product = node(
        "dot",
        weights,
        grouped,
        left_batch=(0,),
        right_batch=(1,),
        left_contract=(2, *kernel_axes),
        right_contract=(2, *window_kernel_axes),
        location=where,
    )
    order = (2, 0, 1, *range(3, 3 + rank))
    return reshape(node("permute", product, order=order, location=where), conv.shape)


def lower_thin_dot(dot: Node) -> Node:
    """A dot with one row, one column or nothing to sum -> multiply and sum."""
    left, right = dot.inputs
    left_batch, right_batch, left_contract, right_contract = dot.attrs
    left_free = tuple(a for a in range(left.ndim) if a not in left_batch and a not in left_contract)
    right_free = tuple(
        a for a in range(right.ndim) if a not in right_batch and a not in right_contract
    )
    b = math.prod(left.shape[a] for a in left_batch)
    m = math.prod(left.shape[a] for a in left_free)
    n = math.prod(right.shape[a] for a in right_free)
    k = math.prod(left.shape[a] for a in left_contract)
    where = dot.location
    if dot.size == 0 or k == 0:
        return node("const", value=0, dtype=dot.dtype, shape=dot.shape, location=where)
    if min(m, n) > 1 and k > 1:
        return dot
    wide = dtypes.float32 if dot.dtype.kind == "float" and dot.dtype.bits == 16 else dot.dtype

    def arranged(
        value: Node, order: tuple[int, ...], shape: tuple[int, ...], full: tuple[int, ...]
    ) -> Node:
        if order != tuple(range(value.ndim)):
            value = node("permute", value, order=order, location=where)
        value = reshape(value, shape)
        if wide is not value.dtype:
            value = node("cast", value, dtype=wide, location=where)
        return _broadcast(value, full)

    full = (b, m, n, k)
    product = node(
        "mul",
        arranged(left, (*left_batch, *left_free, *left_contract), (b, m, 1, k), full),
        arranged(right, (*right_batch, *right_free, *right_contract), (b, 1, n, k), full),
        location=where,
    )
    total = node("sum", product, axes=(3,), location=where) if k > 1 else product
    if wide is not dot.dtype:
        total = node("cast", total, dtype=dot.dtype, location=where)
    return reshape(total, dot.shape)


def split_reduction(reduction: Node) -> Node:
    """A long reduction to few values -> chunks, then the chunks."""
    value, axes = reduction.inputs[0], reduction.attrs[0]
    where = reduction.location
    length = math.prod(value.shape[axis] for axis in axes)
    if reduction.size >= FEW_RESULTS or length < LONG_REDUCTION or not reduction.size:
        return reduction
    if value.dtype.kind == "float" and value.dtype.bits == 16:
        wide = node("cast", value, dtype=dtypes.float32, location=where)
        return node(
            "cast",
            split_reduction(node(reduction.op, wide, axes=axes, location=where)),
            dtype=value.dtype,
            location=where,
        )
    kept = tuple(axis for axis in range(value.ndim) if axis not in axes)
    order = (*kept, *axes)
    if order != tuple(range(value.ndim)):
        value = node("permute", value, order=order, location=where)
    flat = reshape(value, (reduction.size, length))
    wanted = max(-(-length // CHUNK), -(-FEW_RESULTS // reduction.size))
    most = min(4 * wanted, wanted + MOST_TRIED, length)
    pieces = next((c for c in range(wanted, most + 1) if length % c == 0), 0)
    if not pieces:
        pieces = wanted
        short = -length % pieces
        low, high = value.dtype.limits()
        neutral = {"sum": 0, "prod": 1, "max": low, "min": high}[reduction.op]
        flat = node(
            "pad",
            flat,
            low=(0, 0),
            high=(0, short),
            interior=(0, 0),
            value=float(neutral) if value.dtype.is_floating else neutral,
            location=where,
        )
        length += short
    chunked = reshape(flat, (reduction.size, pieces, length // pieces))
    partial = node(reduction.op, chunked, axes=(2,), location=where)
    return reshape(node(reduction.op, partial, axes=(1,), location=where), reduction.shape)


def _conv_then_thin(conv: Node) -> Node:
    lowered = by_phases(conv) if takes_phases(conv) else lower_conv(conv)
    replaced: dict[Node, Node] = {}
    for current in topological((lowered,), stop=lambda n: n in conv.inputs):
        if current in conv.inputs:
            replaced[current] = current
            continue
        made = rebuild(current, [replaced[value] for value in current.inputs])
        if made.op == "conv":
            made = _conv_then_thin(made)
        elif made.op == "dot":
            made = lower_thin_dot(made)
        replaced[current] = made
    return replaced[lowered]


def prepare_body(loop: Node) -> Node:
    """A loop whose body is prepared."""
    body, *others = loop.attrs
    outputs = prepare(Graph(body.outputs)).outputs
    made = body_of(body.name, outputs, body.inputs, body)
    return build(OPS["loop"], loop.inputs, (made, *others), loop.location)


RULES: dict[str, Callable[[Node], Node]] = {
    "conv": _conv_then_thin,
    "dot": lower_thin_dot,
    "loop": prepare_body,
    "sum": split_reduction,
    "prod": split_reduction,
    "max": split_reduction,
    "min": split_reduction,
    **dict.fromkeys(("attention", "attention_logsumexp", "attention_grad"), with_views),
}
