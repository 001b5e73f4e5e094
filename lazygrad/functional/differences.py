"""Numerical gradients: `gradient`, by central differences inside and one-sided ones at the ends.

On unevenly spaced points the three-point formula of B. Fornberg ("Generation of finite difference
formulas on arbitrarily spaced grids", 1988) for the first derivative is used, which is exact for
parabolas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node, axis_of, floating
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["gradient"]


@operation
def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None,
             edge_order: int = 1) -> tuple[Tensor, ...]:
    """Estimates of the partial derivatives of a function given by its values on a grid.

    spacing: the distance of neighbours (a number, or one for each axis), or for each axis the
    coordinates as a tensor of one axis.  dim: the axes (all).  edge_order: 1 or 2, the order of
    the estimate at both ends.  One tensor of the shape of `input` for each axis.
    """
    node = floating(as_node("gradient", input))
    if edge_order not in (1, 2):
        raise fail("gradient", f"edge_order is 1 or 2, not {edge_order!r}")
    axes = _axes(node, spacing, dim)
    spacings = _spacings(node, axes, spacing)
    for axis in axes:
        if node.shape[axis] <= edge_order:
            raise fail("gradient", f"axis {axis} of {listed(node.shape)} has too few points for "
                       f"edge_order {edge_order}", f"It needs at least {edge_order + 1}.")
    return tuple(wrap(_along(node, axis, step, edge_order))
                 for axis, step in zip(axes, spacings, strict=True))


def _axes(node: Node, spacing: Any, dim: Any) -> list[int]:
    if dim is None:
        given = isinstance(spacing, Sequence) and len(spacing) != node.ndim
        if given:
            raise fail("gradient", f"{len(spacing)} spacings for {node.ndim} axes",
                       "Give one for each axis, or say which axes with dim.")
        return list(range(node.ndim))
    axes = [axis_of("gradient", each, node.ndim)
            for each in ([dim] if isinstance(dim, int) else dim)]
    if len(set(axes)) != len(axes):
        raise fail("gradient", f"dim {tuple(dim)} names an axis twice")
    return axes


def _spacings(node: Node, axes: list[int], spacing: Any) -> list[Any]:
    """For each axis a number, or a node with the coordinates."""
    if not isinstance(spacing, (list, tuple)):
        return [spacing] * len(axes)
    if len(spacing) != len(axes):
        raise fail("gradient", f"{len(spacing)} spacings for {len(axes)} axes")
    found: list[Any] = []
    for axis, each in zip(axes, spacing, strict=True):
        if isinstance(each, Tensor) and each.ndim:
            if tuple(each.shape) != (node.shape[axis],):
                raise fail("gradient", f"coordinates {listed(tuple(each.shape))} for axis {axis} of"
                           f" {listed(node.shape)}")
            each = graph.cast(node_of(each), node.dtype)
        elif isinstance(each, Tensor):
            each = graph.cast(node_of(each), node.dtype)
        found.append(each)
    return found


def _along(node: Node, axis: int, step: Any, edge_order: int) -> Node:
    """The derivative along one axis."""
    size = node.shape[axis]

    def part(start: int, stop: int) -> Node:
        return graph.slice_axis(node, axis, start, stop)

    difference = graph.sub(part(1, size), part(0, size - 1))
    if isinstance(step, Node) and step.ndim:
        widths = graph.sub(graph.slice_axis(step, 0, 1, size),
                           graph.slice_axis(step, 0, 0, size - 1))
        widths = graph.reshape(widths, (size - 1, *(1,) * (node.ndim - axis - 1)))
        widths = graph.broadcast(widths, difference.shape)
    else:
        widths = step if isinstance(step, Node) else graph.like(step, difference)
        widths = graph.broadcast(widths, difference.shape)
    slopes = graph.div(difference, widths)

    def at(which: Node, start: int, stop: int) -> Node:
        return graph.slice_axis(which, axis, start, stop)

    first, last = at(slopes, 0, 1), at(slopes, size - 2, size - 1)
    if edge_order == 2:
        first = _beyond(first, at(slopes, 1, 2), at(widths, 0, 1), at(widths, 1, 2))
        last = _beyond(last, at(slopes, size - 3, size - 2), at(widths, size - 2, size - 1),
                       at(widths, size - 3, size - 2))
    parts = [first]
    if size > 2:
        before, after = at(widths, 0, size - 2), at(widths, 1, size - 1)
        weighted = graph.add(graph.mul(at(slopes, 0, size - 2), after),
                             graph.mul(at(slopes, 1, size - 1), before))
        parts.append(graph.div(weighted, graph.add(before, after)))
    return graph.concat([*parts, last], axis)


def _beyond(near: Node, far: Node, near_width: Node, far_width: Node) -> Node:
    """The slope at the outer end of an interval, from its own slope and that of the next one."""
    share = graph.div(near_width, graph.add(near_width, far_width))
    return graph.add(near, graph.mul(graph.sub(near, far), share))
