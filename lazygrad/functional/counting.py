"""How often values occur: bincount and histograms.

Counts are integer scatters, which threads share (integer sums have no order), and become floats at
the end.
"""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from collections.abc import Sequence
from operator import index as whole_number
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import TensorTypeError, fail, method, operation
from lazygrad._core.folding import folded
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["bincount", "histc", "histogram", "histogramdd"]

histogram_result = namedtuple("histogram", ["hist", "bin_edges"])  # type: ignore[name-match]
histogramdd_result = namedtuple("histogramdd", ["hist", "bin_edges"])  # type: ignore[name-match]


def _added_up(updates: Node, places: Node, size: int) -> Node:
    """The totals of the updates at each of the places 0..size-1."""
    return graph.make("scatter", graph.const(0, updates.dtype, (size,)), updates, places,
                      attrs=((0,), "add"))


@folded
def _smallest_and_largest(input: Tensor) -> Tensor:
    """As two numbers.  (This and `_counts` are one node each, so that both programs are found, and
    for few numbers run, without a walk over the graph.)
    """
    places = graph.cast(node_of(input), dtypes.int64)
    return wrap(graph.concat([graph.reshape(graph.reduce(name, places, (0,)), (1,))
                              for name in ("min", "max")], 0))


@folded
def _counts(input: Tensor, size: int) -> Tensor:
    places = graph.cast(node_of(input), dtypes.int64)
    return wrap(_added_up(graph.const(1, dtypes.int64, places.shape), places, size))


@method
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 to the largest occurs, or the total of its weights.

    Looks at the largest number for the length, which is at least minlength.  Counts are int64;
    totals are float32 for float32 weights, float64 for others.
    """
    node = as_node("bincount", input)
    if node.ndim != 1 or not node.dtype.is_integer:
        raise fail("bincount", f"counts whole numbers in one axis, not {node.dtype.name} "
                   f"{listed(node.shape)}", "Use .flatten() and .long().")
    if whole_number(minlength) < 0:
        raise fail("bincount", f"minlength is {minlength}", "It is at least 0.")
    if weights is not None and weights.shape != node.shape:
        raise fail("bincount", f"{listed(node.shape)} numbers with {listed(weights.shape)} weights")
    if not node.size:
        return wrap(graph.const(0, dtypes.int64, (minlength,)))
    numbers = input if isinstance(input, Tensor) else wrap(node)
    low, high = _smallest_and_largest(numbers).tolist()
    if low < 0:
        raise fail("bincount", f"counts numbers from 0, and there is {low}")
    size = max(high + 1, minlength)
    if weights is None:
        return _counts(numbers, size)
    given = graph.stop_gradient(node_of(weights))
    updates = graph.cast(given, given.dtype if given.dtype is dtypes.float32 else dtypes.float64)
    return wrap(_added_up(updates, graph.cast(node, dtypes.int64), size))


# ---- histograms


def _ends(name: str, values: Node, low: float, high: float, given: bool, widen: float
          ) -> tuple[Node, Node]:
    """The outer edges as 0-d nodes: the given ones, or the smallest and largest value; apart by
    twice `widen` where they are equal.
    """
    if given:
        if not (math.isfinite(low) and math.isfinite(high)):
            raise fail(name, f"the range from {low} to {high} is not finite")
        if low > high:
            raise fail(name, f"the range starts at {low}, above its end {high}")
        if low == high:
            low, high = low - widen, high + widen
        return graph.const(low, values.dtype), graph.const(high, values.dtype)
    if not values.size:
        return graph.const(0.0, values.dtype), graph.const(1.0, values.dtype)
    axes = builtins.range(values.ndim)
    first, last = (_finite(graph.reduce(which, values, axes)) for which in ("min", "max"))
    same = graph.binary("eq", first, last)
    return (graph.where(same, graph.sub(first, widen), first),
            graph.where(same, graph.add(last, widen), last))


def _finite(end: Node) -> Node:
    """An end of a range, with an error where it is infinite or NaN."""
    return graph.required(end, (graph.binary("lt", graph.unary("abs", end), math.inf),
                                requirements.RANGE))


def _inside(values: Node, low: Node, high: Node) -> Node:
    """Whether a value lies in the range, both ends included; NaN does not."""
    low, high = graph.broadcast(low, values.shape), graph.broadcast(high, values.shape)
    return graph.binary("and", graph.binary("le", low, values), graph.binary("le", values, high))


def _bin_by_division(values: Node, low: Node, high: Node, bins: int) -> Node:
    """The number of the bin, of evenly spaced ones, by proportion."""
    distance = graph.mul(graph.sub(values, low), float(bins))
    place = graph.cast(graph.div(distance, graph.sub(high, low)), dtypes.int64)
    return graph.binary("minimum", graph.binary("maximum", place, 0), bins - 1)


def _bin_by_search(values: Node, edges: Node) -> Node:
    """The number of the bin between ascending edges; the last bin contains its end."""
    found = graph.make("searchsorted", edges, graph.reshape(values, (values.size,)),
                       attrs=("right",))
    place = graph.reshape(graph.binary("sub", found, 1), values.shape)
    return graph.binary("minimum", graph.binary("maximum", place, 0), edges.size - 2)


def _bins_given(name: str, bins: Any) -> int:
    if isinstance(bins, bool) or not hasattr(bins, "__index__"):
        raise fail(name, f"bins is a whole number, not {bins!r}", kind=TypeError)
    if bins.__index__() < 1:
        raise fail(name, f"bins is {bins}", "There is at least one.")
    return int(bins.__index__())


def _floats(name: str, input: Any) -> Node:
    node = graph.stop_gradient(as_node(name, input))
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}",
                   "Convert with .float().", TensorTypeError)
    return node


@method
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many values fall into each of `bins` equal parts of the range from min to max.

    Values outside count nowhere, nor does NaN.  Where min and max are equal, the range is that of
    the values, which has to be finite.
    """
    values = _floats("histc", input)
    bins = _bins_given("histc", bins)
    values = graph.reshape(values, (values.size,))
    low, high = _ends("histc", values, float(min), float(max), min != max, 1.0)
    counted = _inside(values, low, high)
    places = graph.where(counted, _bin_by_division(values, low, high, bins), 0)
    counts = _added_up(graph.cast(counted, dtypes.int64), places, bins)
    return wrap(graph.cast(counts, values.dtype))


def _edges(name: str, values: Node, bins: Any, ends: Sequence[float] | None) -> Node:
    """The edges of the bins along one coordinate."""
    if isinstance(bins, Tensor):
        if bins.ndim != 1 or bins.shape[0] < 2:
            raise fail(name, f"edges are a vector of at least two, not {listed(bins.shape)}")
        if ends is not None:
            raise fail(name, "the range follows from the edges", "Give one of the two.")
        return graph.cast(graph.stop_gradient(node_of(bins)), values.dtype)
    count = _bins_given(name, bins)
    given = ends is not None
    if given and len(tuple(ends or ())) != 2:
        raise fail(name, f"a range has two ends, not {ends!r}")
    lowest, highest = map(float, ends if ends is not None else (0.0, 0.0))
    low, high = _ends(name, values, lowest, highest, given, 0.5)
    # as `linspace` counts: from either end to the middle
    wide = values.dtype
    numbers = graph.iota(0, (count + 1,), wide)
    step = graph.div(graph.sub(high, low), float(count))
    upwards = graph.add(low, graph.mul(numbers, step))
    left = graph.sub(graph.like(float(count), numbers), numbers)
    backwards = graph.sub(high, graph.mul(left, step))
    return graph.where(graph.binary("lt", numbers, (count + 1) // 2), upwards, backwards)


def _histogram(name: str, columns: Sequence[Node], bins: Sequence[Any],
               ranges: Sequence[Any], weight: Any, density: bool) -> tuple[Node, list[Node]]:
    dtype = columns[0].dtype
    edges = [_edges(name, column, each, ends)
             for column, each, ends in zip(columns, bins, ranges, strict=True)]
    counts = [edge.size - 1 for edge in edges]
    counted = place = None
    for column, edge, count in zip(columns, edges, counts, strict=True):
        low = graph.reshape(graph.slice_axis(edge, 0, 0, 1), ())
        high = graph.reshape(graph.slice_axis(edge, 0, count, count + 1), ())
        inside = _inside(column, low, high)
        counted = inside if counted is None else graph.binary("and", counted, inside)
        found = _bin_by_search(column, edge)
        place = found if place is None else graph.add(graph.mul(place, count), found)
    assert counted is not None and place is not None
    place = graph.where(counted, place, 0)
    if weight is None:
        updates = graph.cast(counted, dtypes.int64)
    else:
        updates = graph.stop_gradient(as_node(name, weight))
        if updates.size != place.size:
            raise fail(name, f"{listed(updates.shape)} weights for {place.size} values")
        if updates.dtype is not dtype:
            raise fail(name, f"input is {dtype.name}, weight {updates.dtype.name}",
                       "Convert one with .to(...).")
        updates = graph.where(counted, graph.reshape(updates, place.shape), 0)
    total = graph.cast(_added_up(updates, place, math.prod(counts)), dtype)
    result = graph.reshape(total, tuple(counts))
    if density:
        result = graph.div(result, graph.reduce("sum", total, (0,)))
        for axis, (edge, count) in enumerate(zip(edges, counts, strict=True)):
            widths = graph.sub(graph.slice_axis(edge, 0, 1, count + 1),
                               graph.slice_axis(edge, 0, 0, count))
            shape = tuple(count if k == axis else 1 for k in range(len(counts)))
            result = graph.div(result, graph.reshape(widths, shape))
    return result, edges


@method
def histogram(input: Tensor, bins: Any, *, range: Sequence[float] | None = None,
              weight: Tensor | None = None, density: bool = False) -> Any:
    """(hist, bin_edges): how many values, or how much weight, fall between neighbouring edges.

    bins: a number of equal parts of the range (that of the values unless given), or the ascending
    edges.  The last bin contains its end; values outside count nowhere.  density: divided by the
    total and the widths.
    """
    node = _floats("histogram", input)
    values = graph.reshape(node, (node.size,))
    result, edges = _histogram("histogram", [values], [bins], [range], weight, density)
    return histogram_result(wrap(result), wrap(edges[0]))


@operation
def histogramdd(input: Tensor, bins: Any, *, range: Sequence[float] | None = None,
                weight: Tensor | None = None, density: bool = False) -> Any:
    """(hist, bin_edges): a histogram over points, the last axis of the input.

    bins: a number for all coordinates, a number for each, or a vector of edges for each.  range:
    low and high of each coordinate, one after the other.
    """
    node = _floats("histogramdd", input)
    if node.ndim < 2:
        raise fail("histogramdd", f"takes points along the last axis, not {listed(node.shape)}")
    rank = node.shape[-1]
    points = graph.reshape(node, (node.size // rank if rank else 0, rank))
    each = [bins] * rank if not isinstance(bins, (list, tuple)) else list(bins)
    if len(each) != rank:
        raise fail("histogramdd", f"{len(each)} bins for {rank} coordinates")
    if range is not None and len(range) != 2 * rank:
        raise fail("histogramdd", f"{len(range)} ends for {rank} coordinates: two for each")
    ranges = [None if range is None else tuple(range[2 * k : 2 * k + 2])
              for k in builtins.range(rank)]
    columns = [graph.reshape(graph.slice_axis(points, 1, k, k + 1), (points.shape[0],))
               for k in builtins.range(rank)]
    result, edges = _histogram("histogramdd", columns, each, ranges, weight, density)
    return histogramdd_result(wrap(result), tuple(wrap(edge) for edge in edges))

