"""Pooling over sliding windows: largest, mean, p-norm; adaptive pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import (
    Sizes,
    along,
    check_listed,
    check_rank,
    known,
    last_axes,
    lowest,
    per_axis,
    windows_of,
)
from lazygrad.functional.gathering import gather_rows
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node

__all__ = ["max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices",
           "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d",
           "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "adaptive_avg_pool1d",
           "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
           "adaptive_max_pool2d", "adaptive_max_pool3d", "adaptive_max_pool1d_with_indices",
           "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d_with_indices"]


def steps_of(name: str, stride: Any, kernel: Sizes) -> Sizes:
    """The stride; the kernel where none is given (None or an empty list)."""
    if stride is None or (not hasattr(stride, "__index__") and not len(stride)):
        return kernel
    return per_axis(name, stride, len(kernel), "stride")


# ---- largest


def largest(windows: Node, rank: int) -> tuple[Node, Node]:
    """The largest of each window and its row-major number in it.

    The gradient goes to the first of equals, as in PyTorch.  (The gradient of a `max` reduction is
    shared among equals, and after a ReLU many are equal.)
    """
    axes = last_axes(windows, rank)
    best = graph.make("argmax", windows, attrs=(axes,))
    if not windows.differentiable:
        return graph.reduce("max", windows, axes), best
    wide = graph.reshape(best, (*best.shape, *(1,) * rank))
    place = graph.const(0, dtypes.int64, windows.shape)
    for axis in axes:
        place = graph.add(graph.mul(place, windows.shape[axis]), graph.iota(axis, windows.shape))
    picked = graph.make("eq", place, graph.broadcast(wide, windows.shape))
    return graph.reduce("sum", graph.where(picked, windows, 0), axes), best


def digits(number: Node, sizes: Sizes) -> list[Node]:
    """A row-major number as one index an axis."""
    result = []
    for k, size in enumerate(sizes):
        place = graph.binary("idiv", number, math.prod(sizes[k + 1:]))
        result.append(graph.binary("rem", place, size) if k else place)
    return result


def _max_pool(rank: int, with_indices: bool) -> Any:
    name = f"max_pool{rank}d" + ("_with_indices" if with_indices else "")

    def apply(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = with_indices,
    ) -> Any:
        node = as_node(name, input)
        check_rank(name, node, rank)
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        steps = steps_of(name, stride, kernel)
        cuts = per_axis(name, padding, rank, "padding")
        gaps = per_axis(name, dilation, rank, "dilation")
        windows = windows_of(name, node, rank, kernel, steps, cuts, gaps, ceil_mode,
                             lowest(node.dtype))
        values, best = largest(windows, rank)
        if not (return_indices or with_indices):
            return wrap(values)
        place = graph.const(0, dtypes.int64, best.shape)
        first = node.ndim - rank
        for k, within in enumerate(digits(best, kernel)):
            start = graph.sub(graph.mul(graph.iota(first + k, best.shape), steps[k]), cuts[k])
            at = graph.add(start, graph.mul(within, gaps[k]))
            # A window of lowest values only: its first place within the input, not in the padding.
            inside = graph.binary("rem", graph.add(at, gaps[k] * cuts[k]), gaps[k])
            at = graph.where(graph.binary("lt", at, 0), inside, at)
            place = graph.add(graph.mul(place, node.shape[first + k]), at)
        return wrap(values), wrap(place)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"""The largest value of every window of the last {rank} axes.

    input: (N, C, *space) or (C, *space).  With return_indices also where it is: a row-major number
    within the space of the input.
    """
    return operation(apply)


max_pool1d, max_pool2d, max_pool3d = (_max_pool(rank, False) for rank in (1, 2, 3))
max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = (
    _max_pool(rank, True) for rank in (1, 2, 3))


# ---- mean and p-norm


def _floating(name: str, node: Node) -> None:
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")


def _average(name: str, node: Node, rank: int, kernel: Sizes, steps: Sizes, cuts: Sizes,
             ceil_mode: bool, count_include_pad: bool, divisor: int | None) -> Node:
    _floating(name, node)
    check_rank(name, node, rank)
    if divisor == 0:
        raise fail(name, "divisor_override must not be zero")
    windows = windows_of(name, node, rank, kernel, steps, cuts, (1,) * rank, ceil_mode, 0)
    total = graph.reduce("sum", windows, last_axes(windows, rank))
    if divisor is not None:
        return graph.div(total, divisor)
    if not ceil_mode and (count_include_pad or not any(cuts)):
        return graph.div(total, math.prod(kernel))
    return graph.div(total, _window_sizes(node, rank, total, kernel, steps, cuts,
                                          count_include_pad))


def _window_sizes(
    node: Node,
    rank: int,
    total: Node,
    kernel: Sizes,
    steps: Sizes,
    cuts: Sizes,
    with_padding: bool,
) -> Node:
    """How many places of each window count: within the input, or within the padded input."""
    first = node.ndim - rank
    result = graph.like(1, total)
    for k in range(rank):
        start = graph.sub(graph.mul(graph.iota(first + k, total.shape), steps[k]), cuts[k])
        size = node.shape[first + k]
        stop = graph.binary("minimum", graph.add(start, kernel[k]),
                            size + cuts[k] if with_padding else size)
        if not with_padding:
            start = graph.binary("maximum", start, 0)
        result = graph.mul(result, graph.cast(graph.sub(stop, start), node.dtype))
    return result


def _avg_pool(rank: int) -> Any:
    name = f"avg_pool{rank}d"

    def pooled(input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
               count_include_pad: bool, divisor_override: int | None) -> Tensor:
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        return wrap(_average(name, as_node(name, input), rank, kernel,
                             steps_of(name, stride, kernel),
                             per_axis(name, padding, rank, "padding"), ceil_mode,
                             count_include_pad, divisor_override))

    def with_divisor(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                     ceil_mode: bool = False, count_include_pad: bool = True,
                     divisor_override: int | None = None) -> Tensor:
        return pooled(input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                      divisor_override)

    def plain(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
              ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
        return pooled(input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)

    apply: Any = plain if rank == 1 else with_divisor
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"""The mean of every window of the last {rank} axes.

    input: (N, C, *space) or (C, *space).  count_include_pad: padding counts as zeros.
    """
    return operation(apply)


avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool(rank) for rank in (1, 2, 3))


def _lp_pool(rank: int) -> Any:
    name = f"lp_pool{rank}d"

    def apply(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Tensor:
        node = as_node(name, input)
        _floating(name, node)
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        steps = steps_of(name, stride, kernel)
        zeros, ones = (0,) * rank, (1,) * rank
        power = float(norm_type)
        if math.isinf(power):
            check_rank(name, node, rank)
            size = graph.unary("abs", node)
            size = size if power > 0 else graph.unary("neg", size)
            windows = windows_of(name, size, rank, kernel, steps, zeros, ones, ceil_mode,
                                 lowest(node.dtype))
            best, _ = largest(windows, rank)
            return wrap(best if power > 0 else graph.unary("neg", best))
        total = graph.mul(
            _average(name, graph.binary("pow", node, power), rank, kernel, steps, zeros, ceil_mode,
                     True, None), math.prod(kernel))
        # PyTorch's sign(total) * relu(|total|), which is the total, its slope at 0 apart.
        return wrap(graph.binary("pow", total, 1.0 / power))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = "The p-norm of every window: (sum of x ** p) ** (1 / p)."
    return operation(apply)


lp_pool1d, lp_pool2d, lp_pool3d = (_lp_pool(rank) for rank in (1, 2, 3))


# ---- adaptive


def _wanted(name: str, node: Node, rank: int, output_size: Any) -> Sizes:
    """The output size; None keeps the input's."""
    check_rank(name, node, rank)
    given = (output_size,) * rank if hasattr(output_size, "__index__") else tuple(output_size)
    given = given * rank if len(given) == 1 else given
    if len(given) != rank:
        raise fail(name, f"output_size {output_size} does not have {rank} numbers")
    space = node.shape[node.ndim - rank:]
    sizes = tuple(size if want is None else want.__index__()
                  for size, want in zip(space, given, strict=True))
    if min(sizes) < 0:
        raise fail(name, f"output_size {output_size} is below 0")
    check_listed(name, sizes)
    return sizes


def bins(size: int, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Where each of `count` bins starts and stops: floor(i n / k) to ceil((i + 1) n / k)."""
    number = numpy.arange(count)
    return number * size // max(count, 1), -(-(number + 1) * size // max(count, 1))


def _binned(node: Node, axis: int, count: int) -> tuple[Node, Node | None, Any]:
    """The bins of an axis as (count, longest) in its place.

    Also the bins' lengths (None where all are equal), and their starts.  Shorter bins repeat their
    last element.
    """
    size = node.shape[axis]
    start, stop = bins(size, count)
    if count and size % count == 0:
        shape = (*node.shape[:axis], count, size // count, *node.shape[axis + 1:])
        return graph.reshape(node, shape), None, start
    longest = int((stop - start).max(initial=1))
    places = numpy.minimum(start[:, None] + numpy.arange(longest), stop[:, None] - 1)
    return gather_rows(node, axis, known(places)), known(stop - start), start


def _mean_of_bins(node: Node, axis: int, count: int) -> Node:
    if count == node.shape[axis]:
        return node
    parts, lengths, _ = _binned(node, axis, count)
    if lengths is None:
        return graph.mean(parts, (axis + 1,))
    length = along(lengths, axis, parts.ndim)
    inside = graph.binary("lt", graph.iota(axis + 1, parts.shape),
                          graph.broadcast(length, parts.shape))
    total = graph.reduce("sum", graph.where(inside, parts, 0), (axis + 1,))
    return graph.div(total, graph.cast(along(lengths, axis, total.ndim), total.dtype))


def adaptive_average(node: Node, first: int, wanted: Sizes) -> Node:
    """The mean of every bin; axes first, first + 1, ... get the wanted sizes."""
    for k, count in enumerate(wanted):
        node = _mean_of_bins(node, first + k, count)
    return node


def _adaptive_avg(rank: int) -> Any:
    name = f"adaptive_avg_pool{rank}d"

    def apply(input: Tensor, output_size: Any) -> Tensor:
        node = as_node(name, input)
        _floating(name, node)
        return wrap(adaptive_average(node, node.ndim - rank,
                                     _wanted(name, node, rank, output_size)))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = """The mean of bins: bin i of k runs from floor(i n / k) to ceil((i + 1) n / k).

    output_size: a number, or one for each axis; None keeps the size of the input.
    """
    return operation(apply)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _adaptive_avg(rank) for rank in (1, 2, 3))


def _adaptive_max(rank: int, with_indices: bool) -> Any:
    name = f"adaptive_max_pool{rank}d" + ("_with_indices" if with_indices else "")

    def apply(input: Tensor, output_size: Any, return_indices: bool = with_indices) -> Any:
        node = as_node(name, input)
        wanted = _wanted(name, node, rank, output_size)
        first = node.ndim - rank
        space = node.shape[first:]
        starts: list[Any] = []
        parts = node
        for k in reversed(range(rank)):
            parts, _, start = _binned(parts, first + k, wanted[k])
            starts.insert(0, start)
        # (..., k1, long1, k2, long2) to (..., k1, k2, long1, long2)
        counts = [first + 2 * k for k in range(rank)]
        parts = graph.permute(parts, (*range(first), *counts, *(axis + 1 for axis in counts)))
        longest = parts.shape[parts.ndim - rank:]
        values, best = largest(parts, rank)
        if not (return_indices or with_indices):
            return wrap(values)
        place = graph.const(0, dtypes.int64, best.shape)
        for k, within in enumerate(digits(best, longest)):
            start = graph.broadcast(along(known(starts[k]), first + k, best.ndim), best.shape)
            place = graph.add(graph.mul(place, space[k]), graph.add(start, within))
        return wrap(values), wrap(place)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = """The largest of bins; bin i of k runs from i n / k to (i + 1) n / k.

    With return_indices also where it is: a row-major number within the space of the input.
    """
    return operation(apply)


adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _adaptive_max(rank, False) for rank in (1, 2, 3))
(adaptive_max_pool1d_with_indices, adaptive_max_pool2d_with_indices,
 adaptive_max_pool3d_with_indices) = (_adaptive_max(rank, True) for rank in (1, 2, 3))
