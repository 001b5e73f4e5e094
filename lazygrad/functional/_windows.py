"""Sliding windows as extra axes, and their inverse: what pooling, unfold and fold share.

A window is an index map (the `window` op), so that none of this copies anything by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import leaf_of_array
from lazygrad._core.context import fail
from lazygrad._core.tensor import node_of
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

Sizes = tuple[int, ...]


def per_axis(name: str, value: Any, rank: int, what: str) -> Sizes:
    """One number for every axis, given as a number or a sequence."""
    if hasattr(value, "__index__"):
        return (value.__index__(),) * rank
    try:
        values = tuple(each.__index__() for each in value)
    except (TypeError, AttributeError):
        raise fail(name, f"{what} is a whole number or {rank} of them, not {value!r}",
                   kind=TypeError) from None
    if len(values) == 1:
        return values * rank
    if len(values) != rank:
        raise fail(name, f"{what} {values} does not have {rank} numbers",
                   f"Give one number, or one for each of the last {rank} axes.")
    return values


def each_axis(name: str, value: Any, rank: int, what: str) -> Sizes:
    """As `per_axis`, for what takes a number or exactly `rank` of them."""
    if isinstance(value, (tuple, list)) and len(value) != rank:
        raise fail(name, f"{what} {tuple(value)} does not have {rank} numbers",
                   f"Give one number, or one for each of the last {rank} axes.")
    return per_axis(name, value, rank, what)


MOST_LISTED = 1 << 26
"""Places of one axis whose sources are computed beforehand."""


def check_listed(name: str, sizes: Sizes) -> None:
    if max(sizes, default=0) > MOST_LISTED:
        raise fail(name, f"an output of {listed(sizes)} has an axis of more than {MOST_LISTED} "
                   "places", kind=MemoryError)


def check_rank(name: str, node: Node, rank: int) -> None:
    """An input of (N, C, *space) or (C, *space), with something in every axis but N."""
    if node.ndim not in (rank + 1, rank + 2):
        raise fail(name, f"takes (N, C, {rank} axes) or (C, {rank} axes), not {listed(node.shape)}",
                   "Add an axis with x.unsqueeze(0), or take the function for another rank.")
    if 0 in node.shape[-rank - 1:]:
        raise fail(name, f"the input {listed(node.shape)} has an empty axis",
                   "Only the batch axis may be empty.")


def positions(size: int, kernel: int, step: int, padding: int, gap: int, ceil_mode: bool) -> int:
    """How many windows fit; with ceil_mode also one that starts inside but ends outside."""
    span = size + 2 * padding - gap * (kernel - 1) - 1
    count = (-(-span // step) if ceil_mode else span // step) + 1
    if ceil_mode and (count - 1) * step >= size + padding:
        count -= 1
    return count


MOST_PLACES = 1 << 24
"""Of a window around an input that has fewer: going through its padding would take hours."""


def windows_of(name: str, node: Node, rank: int, kernel: Sizes, steps: Sizes, padding: Sizes,
               gaps: Sizes, ceil_mode: bool, fill: Any) -> Node:
    """All windows of the last axes, as new last axes; outside is `fill`."""
    first = node.ndim - rank
    low, high = [0] * node.ndim, [0] * node.ndim
    for k in range(rank):
        if math.prod(kernel) > MOST_PLACES > math.prod(node.shape[first:]):
            raise fail(name, f"windows of {kernel} are mostly padding around {listed(node.shape)}",
                       "Take a smaller kernel.")
        if min(kernel[k], steps[k], gaps[k]) < 1 or padding[k] < 0:
            raise fail(name, f"kernel {kernel}, stride {steps} and dilation {gaps} are at least 1, "
                       f"padding {padding} at least 0")
        if 2 * padding[k] > kernel[k]:
            raise fail(name, f"padding {padding[k]} is more than half of the kernel {kernel[k]}",
                       "Pad beforehand with nn.functional.pad.")
        size = node.shape[first + k]
        count = positions(size, kernel[k], steps[k], padding[k], gaps[k], ceil_mode)
        if count < 1:
            raise fail(name, f"a kernel of {kernel} does not fit into {listed(node.shape)}",
                       "Take a smaller kernel, or pad the input.")
        low[first + k] = padding[k]
        high[first + k] = (count - 1) * steps[k] + gaps[k] * (kernel[k] - 1) + 1 - size - padding[k]
    node = graph.pad(node, low, high, fill)
    return graph.make(
        "window", node, attrs=(tuple(range(first, first + rank)), kernel, steps, gaps)
    )


def overlapped(windows: Node, space: Sizes, kernel: Sizes, steps: Sizes, gaps: Sizes) -> Node:
    """The transpose of `window`: window values added up where they come from.

    windows: (..., *positions, *kernel); the result is (..., *space).
    """
    from lazygrad_compiler.autodiff.vjp import pull_back
    rank = len(kernel)
    lead = windows.shape[:windows.ndim - 2 * rank]
    target = graph.const(0, windows.dtype, (*lead, *space))
    axes = tuple(range(len(lead), len(lead) + rank))
    forward = graph.make("window", target, attrs=(axes, kernel, steps, gaps))
    result, = pull_back(forward, windows, (True,))
    assert result is not None
    return result


def last_axes(node: Node, count: int) -> Sizes:
    return tuple(range(node.ndim - count, node.ndim))


def lowest(dtype: DType) -> Any:
    """What a maximum ignores."""
    return -math.inf if dtype.is_floating else int(dtype.limits()[0])


def known(values: Sequence[Any] | numpy.ndarray, dtype: DType | None = None) -> Node:
    """Numbers known while recording: int64 positions, or floats of a dtype."""
    if dtype is None:
        return leaf_of_array(numpy.ascontiguousarray(values, dtype=numpy.int64))
    array = numpy.ascontiguousarray(values, dtype=numpy.float64)
    if dtype.numpy == numpy.float64:
        return leaf_of_array(array)
    if dtype.numpy == numpy.float32:
        return leaf_of_array(array.astype(numpy.float32))
    from lazygrad.functional.creation import from_numpy
    return graph.cast(node_of(from_numpy(array.astype(numpy.float32))), dtype)


def along(values: Node, axis: int, ndim: int) -> Node:
    """A vector (or an array) laid along axes `axis`, ... of a tensor of `ndim` axes."""
    return graph.reshape(values, (*values.shape, *(1,) * (ndim - axis - values.ndim)))
