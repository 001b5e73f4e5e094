"""Running totals along an axis, differences of neighbours, and the trapezoidal rule."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, method, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad._core.types import as_dtype
from lazygrad.functional._operands import as_node, axis_of
from lazygrad.functional.elementwise import INPLACE, log_of_sum
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = [
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "cumulative_trapezoid",
    "diff",
    "logcumsumexp",
    "trapezoid",
    "trapz",
]

cummax_result = namedtuple("cummax", ["values", "indices"])  # type: ignore[name-match]
cummin_result = namedtuple("cummin", ["values", "indices"])  # type: ignore[name-match]

INPLACE += ["cumsum", "cumprod"]


def scan_node(node: Node, axis: int, combine: str, reverse: bool = False) -> Node:
    """The running total along an axis; a 0-d value is its own."""
    return graph.make("scan", node, attrs=(axis, combine, reverse)) if node.ndim else node


def _running(name: str, input: Tensor, dim: int, dtype: Any, combine: str) -> Tensor:
    node = as_node(name, input)
    axis = axis_of(name, dim, node.ndim)
    if dtype is not None:
        node = graph.cast(node, as_dtype(dtype))
        if node.dtype is dtypes.bool_:
            raise fail(name, "a running total cannot be bool", "Give an integer dtype.")
    elif not node.dtype.is_differentiable:
        node = graph.cast(node, dtypes.int64)
    return wrap(scan_node(node, axis, combine))


@method
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along an axis; integers and bools as int64 unless `dtype` is given.

    16-bit floats add up in float32, and each element is rounded once.  Long lines are summed in
    chunks of fixed size, so the result does not depend on the number of threads.
    """
    return _running("cumsum", input, dim, dtype, "add")


@method
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running products along an axis; dtypes as of `cumsum`.  Gradients are right for zeros."""
    return _running("cumprod", input, dim, dtype, "mul")


def _running_extremum(name: str, input: Tensor, dim: int, combine: str, result: Any) -> Any:
    node = as_node(name, input)
    if node.dtype.is_complex:
        raise fail(name, f"is not defined for {node.dtype.name}: complex numbers have no order",
                   kind=TensorTypeError)
    axis = axis_of(name, dim, node.ndim)
    if not node.ndim:
        return result(wrap(node), wrap(graph.const(0, dtypes.int64)))
    values = scan_node(node, axis, combine)
    # An element is where the extremum comes from if it equals it; the latest such so far.
    plain, extremes = graph.stop_gradient(node), graph.stop_gradient(values)
    won = graph.binary("eq", plain, extremes)
    if node.dtype.is_floating:
        won = graph.binary("or", won, graph.binary("ne", plain, plain))
    places = graph.where(won, graph.iota(axis, node.shape), 0)
    return result(wrap(values), wrap(scan_node(places, axis, "max")))


@method
def cummax(input: Tensor, dim: int) -> Any:
    """(values, indices): the largest so far, and where it is (of equal ones the latest).

    A NaN is largest of all from where it stands on.  Gradients go to the elements at `indices`.
    """
    return _running_extremum("cummax", input, dim, "max", cummax_result)


@method
def cummin(input: Tensor, dim: int) -> Any:
    """(values, indices): the smallest so far, and where it is (of equal ones the latest).

    A NaN is smallest of all from where it stands on.  Gradients go to the elements at `indices`.
    """
    return _running_extremum("cummin", input, dim, "min", cummin_result)


@method
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sums of exp(x) along an axis, without overflow; of floats."""
    node = as_node("logcumsumexp", input)
    axis = axis_of("logcumsumexp", dim, node.ndim)
    if node.dtype.is_complex:
        return wrap(_doubled(node, axis, log_of_sum("exp", 1.0), -math.inf))
    if not node.dtype.is_floating:
        raise fail("logcumsumexp", f"needs a floating dtype, not {node.dtype.name}",
                   "Convert first, with .float().")
    return wrap(scan_node(node, axis, "logaddexp"))


def _doubled(node: Node, axis: int, combine: Callable[[Node, Node], Node], neutral: Any) -> Node:
    """A scan by doubling: each element takes in the one 1, 2, 4, … before it."""
    length, distance = node.shape[axis] if node.ndim else 0, 1
    nothing = [0] * node.ndim
    while distance < length:
        low = nothing.copy()
        low[axis] = distance
        earlier = graph.slice_axis(node, axis, 0, length - distance)
        node = combine(node, graph.pad(earlier, low, nothing, neutral))
        distance *= 2
    return node


# ---- differences


def _difference(node: Node, axis: int) -> Node:
    size = node.shape[axis]
    later = graph.slice_axis(node, axis, 1, size)
    earlier = graph.slice_axis(node, axis, 0, size - 1)
    return graph.binary("ne" if node.dtype is dtypes.bool_ else "sub", later, earlier)


@method
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along an axis, n times over; of bools, whether they differ.

    prepend, append: put before and after the input first; their other axes have its sizes.
    """
    if input.ndim == 0:
        raise fail("diff", "needs at least one axis, and the input has none")
    if n < 0:
        raise fail("diff", f"cannot be taken {n} times", "n is at least 0.")
    axis = axis_of("diff", dim, input.ndim)
    pieces = [each for each in (prepend, input, append) if each is not None]
    if len(pieces) > 1 and n:
        from lazygrad.functional.joining import cat
        for piece in pieces:
            if piece.ndim != input.ndim:
                raise fail("diff", f"prepend and append have the axes of the input: "
                           f"{listed(piece.shape)} and {listed(input.shape)}")
        input = cat(pieces, axis)
    node = node_of(input)
    for _ in range(min(n, node.shape[axis])):
        node = _difference(node, axis)
    return wrap(node)


# ---- the trapezoidal rule


def _spacing(name: str, y: Tensor, x: Any, dx: Any, dim: int, axis: int) -> Any:
    """The widths of the intervals: a number, or a tensor that fits y's neighbours."""
    if x is None:
        if isinstance(dx, (bool, complex)) or not isinstance(dx, (int, float)):
            raise fail(name, f"dx is a real number, not {dx!r}", kind=TypeError)
        return dx
    if x.dtype is dtypes.bool_:
        raise fail(name, "x cannot be bool")
    size = y.shape[axis]
    if x.ndim == 1:
        if x.shape[0] != size:
            raise fail(name, f"there is one x for each y along dim {dim}: {x.shape[0]} and {size}")
        widths = diff(x)
        return widths.reshape([-1 if k == axis else 1 for k in range(y.ndim)])
    if x.ndim < y.ndim:
        x = x.reshape([1] * (y.ndim - x.ndim) + list(x.shape))
    return diff(x, 1, axis - y.ndim)


def _areas(name: str, y: Any, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """Twice the area of each interval, and the axis."""
    if not isinstance(y, Tensor):
        raise fail(name, f"takes a tensor, not {type(y).__name__}", kind=TypeError)
    if y.dtype is dtypes.bool_:
        raise fail(name, "y cannot be bool", "Convert with .float().")
    if not y.ndim:
        raise fail(name, "needs at least one axis, and y has none")
    axis = axis_of(name, dim, y.ndim)
    size = y.shape[axis]
    y = y.long() if y.dtype.is_integer else y  # sums of neighbours do not fit into narrow ones
    both = y.narrow(axis, 1, max(size - 1, 0)) if size else y
    if size:
        both = both + y.narrow(axis, 0, size - 1)
    return both * _spacing(name, y, x, dx, dim, axis), axis


@operation
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of y along an axis by the trapezoidal rule.

    x: where y was taken, one for each along the axis, or of a shape that broadcasts with y's; dx:
    the distance where they are evenly spaced.
    """
    areas, axis = _areas("trapezoid", y, x, dx, dim)
    return areas.sum(axis - y.ndim) / 2.0


@operation
def trapz(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """`trapezoid` under its older name."""
    return trapezoid(y, x, dx=dx, dim=dim)


@operation
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1,
                         dim: int = -1) -> Tensor:
    """The integrals of y from the first place to each of the others, by the trapezoidal rule."""
    areas, axis = _areas("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, axis - y.ndim) / 2.0
