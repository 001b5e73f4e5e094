"""Padding in all modes: constant, reflect, replicate, circular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["pad"]

MODES = ("constant", "reflect", "replicate", "circular")


def _check_room(node: Node, axis: int, low: int, high: int, mode: str) -> None:
    size = node.shape[axis]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if limit is not None and max(low, high) > limit:
        raise fail("pad", f"{mode} padding of {max(low, high)} for an axis of size {size}: at most "
                   f"{limit} fits", "Pad in several steps, or in another mode.")
    if size == 0:
        raise fail("pad", f"{mode} padding repeats elements, and axis {axis} of "
                   f"{listed(node.shape)} has none")


def _wrapped_pad(node: Node, axis: int, low: int, high: int, mode: str) -> Node:
    """Padding of one axis by its own values."""
    _check_room(node, axis, low, high, mode)
    size = node.shape[axis]

    def cut(start: int, stop: int) -> Node:
        return graph.slice_axis(node, axis, start, stop)

    def turned(part: Node) -> Node:
        return graph.make("flip", part, attrs=((axis,),))

    def repeated(part: Node, times: int) -> Node:
        return graph.broadcast(part, (*node.shape[:axis], times, *node.shape[axis + 1:]))

    before, after = {
        "reflect": lambda: (turned(cut(1, low + 1)), turned(cut(size - 1 - high, size - 1))),
        "circular": lambda: (cut(size - low, size), cut(0, high)),
        "replicate": lambda: (repeated(cut(0, 1), low), repeated(cut(size - 1, size), high)),
    }[mode]()
    pieces = [piece for piece, wanted in ((before, low), (node, True), (after, high)) if wanted]
    return graph.concat(pieces, axis)


def _cropped(node: Node, axis: int, low: int, high: int) -> Node:
    return graph.slice_axis(node, axis, max(-low, 0), node.shape[axis] - max(-high, 0))


@operation
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """Elements added around the last axes; negative amounts cut some off.

    pad: (before last axis, after last, before the axis ahead, ...).  mode: "constant" (value, 0
    unless given), "reflect" (mirrored, without the border), "replicate" (the border repeated),
    "circular" (from the other end); any number of axes in each mode.
    """
    node = as_node("pad", input)
    amounts = [each.__index__() for each in pad]
    if len(amounts) % 2 or len(amounts) // 2 > node.ndim:
        raise fail(
            "pad", f"pad {tuple(amounts)} for {listed(node.shape)}: give pairs, last axis first"
        )
    if mode not in MODES:
        raise fail("pad", f"mode {mode!r}; there are {', '.join(map(repr, MODES))}",
                   kind=NotImplementedError)
    low, high = [0] * node.ndim, [0] * node.ndim
    for place in range(len(amounts) // 2):
        low[node.ndim - 1 - place], high[node.ndim - 1 - place] = amounts[2 * place:2 * place + 2]
    if any(size + min(a, 0) + min(b, 0) < 0 or size + a + b < 0
           for size, a, b in zip(node.shape, low, high, strict=True)):
        raise fail("pad", f"pad {tuple(amounts)} cuts more than {listed(node.shape)} has")
    if mode == "constant":
        return wrap(graph.pad(node, low, high, 0 if value is None else value))
    if value is not None and value != 0:
        raise fail("pad", f"mode {mode!r} takes no value, and got {value}",
                   "Only mode 'constant' fills with a value.", ValueError)
    for axis in range(node.ndim):
        before, after = low[axis], high[axis]
        if mode == "circular":  # what is cut off does not come back at the other end
            node = _cropped(node, axis, before, after)
        if before > 0 or after > 0:
            node = _wrapped_pad(node, axis, max(before, 0), max(after, 0), mode)
        if mode != "circular":
            node = _cropped(node, axis, before, after)
    return wrap(node)
