"""Panels: an array of columns laid out once as contractions want to read it.

A contraction runs down its right operand a panel of columns at a time.  Where the operand lies
transposed, or its rows a power of two apart, the kernel has to pack each panel before use; an
operand that serves many products is better packed once: `arrange` gives it as an array of panels,
`restore` the view of those that stands for the operand.  A contraction whose operand is such a view
reads the panels where they lie (`loops/operands.py`).

The pass: in the body of a loop, right operands that are the same in every step come in panels,
arranged before the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lazygrad_compiler.ir.composite import placeholder
from lazygrad_compiler.ir.loop import Loop, body_of, copied
from lazygrad_compiler.ir.node import Graph, Node, build, node, rebuild, topological
from lazygrad_compiler.ir.ops import OPS

PANEL_BYTES = 256
"""Of one row of a panel: four vectors of 64 bytes, a multiple of every register tile's width but
those of three vectors.
"""
FEWEST_STEPS = 4
SMALLEST = 32
"""Sizes below which an operand is left as it is."""


def arrange(value: Node, k_axes: Sequence[int]) -> Node:
    """The array as (panel, k, column of the panel), its last panel filled up with zeros."""
    order = (*k_axes, *(axis for axis in range(value.ndim) if axis not in k_axes))
    (k, n), width = _sizes(value, k_axes), PANEL_BYTES // value.dtype.itemsize
    where = value.location
    made = node("permute", value, order=order, location=where)
    made = node("reshape", made, shape=(k, n), location=where)
    if n % width:
        made = node(
            "pad", made, low=(0, 0), high=(0, -n % width), interior=(0, 0),
            value=0.0 if value.dtype.is_floating else 0, location=where,
        )
    made = node("reshape", made, shape=(k, -(-n // width), width), location=where)
    return node("permute", made, order=(1, 0, 2), location=where)


def restore(panels: Node, k_shape: Sequence[int], free_shape: Sequence[int]) -> Node:
    """The operand that was arranged: its axes of k first, then the others."""
    count, k, width = panels.shape
    n = math.prod(free_shape)
    where = panels.location
    made = node("permute", panels, order=(1, 0, 2), location=where)
    made = node("reshape", made, shape=(k, count * width), location=where)
    if n < count * width:
        made = node("slice", made, starts=(0, 0), stops=(k, n), steps=(1, 1), location=where)
    return node("reshape", made, shape=(*k_shape, *free_shape), location=where)


def _sizes(value: Node, k_axes: Sequence[int]) -> tuple[int, int]:
    """(k, n) of an operand."""
    k = math.prod(value.shape[axis] for axis in k_axes)
    return k, value.size // max(k, 1)


def with_panels(graph: Graph) -> Graph:
    """The graph, its loops' right operands that no step changes in panels."""
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        result[current] = _loop_with_panels(made) if made.op == "loop" else made
    return Graph(tuple(result[output] for output in graph.outputs))


def _loop_with_panels(loop: Node) -> Node:
    state = Loop.of(loop)
    if state.length < FEWEST_STEPS:
        return loop
    first = state.carried + state.stepped
    outside = dict(zip(state.placeholders[first:], state.constants, strict=True))
    inputs, signature = list(loop.inputs), list(state.body.inputs)
    result: dict[Node, Node] = {}
    for current in topological(state.body.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        constant = _moved(current.inputs[1], outside) if _runs_down_panels(current) else None
        if constant is not None:
            panels = arrange(constant, current.attr("right_contract"))
            if panels not in inputs[first:]:
                inputs.append(panels)
                signature.append((panels.dtype, panels.shape))
            number = inputs.index(panels, first)
            made = _dot_of_panels(made, placeholder(number, panels.dtype, panels.shape))
        result[current] = made
    if len(inputs) == len(loop.inputs):
        return loop
    outputs = [result[output] for output in state.body.outputs]
    body = body_of(state.body.name, outputs, tuple(signature), state.body)
    made = build(OPS["loop"], tuple(inputs), (body, *loop.attrs[1:]), loop.location)
    return _without_unread(made)


def _without_unread(loop: Node) -> Node:
    """The loop without the constants that its body has no use for any more."""
    state = Loop.of(loop)
    first = state.carried + state.stepped
    read = set(topological(state.body.outputs))
    kept = [
        number
        for number, stand_in in enumerate(state.placeholders)
        if number < first or stand_in in read
    ]
    signature = tuple(state.body.inputs[number] for number in kept)
    renumbered = {
        state.placeholders[old]: placeholder(new, *signature[new]) for new, old in enumerate(kept)
    }
    outputs = copied(state.body.outputs, renumbered)
    body = body_of(state.body.name, outputs, signature, state.body)
    inputs = tuple(loop.inputs[number] for number in kept)
    return build(OPS["loop"], inputs, (body, *loop.attrs[1:]), loop.location)


def _runs_down_panels(dot: Node) -> bool:
    """Whether a node is a product that would have to pack its right operand."""
    if dot.op != "dot" or dot.attr("right_batch") or dot.dtype.name not in ("float32", "float64"):
        return False
    k, n = _sizes(dot.inputs[1], dot.attr("right_contract"))
    return min(k, n) >= SMALLEST


def _moved(value: Node, outside: Mapping[Node, Node]) -> Node | None:
    """A constant of the loop, or one with its elements moved, as a value outside of the loop; None
    for anything else.
    """
    steps = []
    while value not in outside:
        if value.op not in ("permute", "reshape", "flip", "slice"):
            return None
        steps.append(value)
        value = value.inputs[0]
    made = outside[value]
    for step in reversed(steps):
        made = rebuild(step, [made])
    return made


def _dot_of_panels(dot: Node, panels: Node) -> Node:
    right, k_axes = dot.inputs[1], dot.attr("right_contract")
    k_shape = [right.shape[axis] for axis in k_axes]
    free_shape = [right.shape[axis] for axis in range(right.ndim) if axis not in k_axes]
    return node(
        "dot",
        dot.inputs[0],
        restore(panels, k_shape, free_shape),
        left_batch=(),
        right_batch=(),
        left_contract=dot.attr("left_contract"),
        right_contract=tuple(range(len(k_shape))),
        location=dot.location,
    )
