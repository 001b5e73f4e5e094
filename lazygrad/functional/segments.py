"""`segment_reduce`: neighbours along an axis joined, by lengths that are values of a tensor."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node, axis_of
from lazygrad.functional.scans import scan_node
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["segment_reduce"]

REDUCTIONS: dict[str, tuple[str, float]] = {
    "sum": ("add", 0.0), "mean": ("add", 0.0), "max": ("max", -math.inf),
    "min": ("min", math.inf), "prod": ("mul", 1.0),
}
"""name -> (mode of the scatter, what a segment starts from)."""


@operation
def segment_reduce(data: Tensor, reduce: str, *, lengths: Tensor | None = None,
                   indices: Tensor | None = None, offsets: Tensor | None = None, axis: int = 0,
                   unsafe: bool = False, initial: Any = None) -> Tensor:
    """Sum, mean, max, min or prod of consecutive segments along an axis.

    lengths: (*data.shape[:axis], segments), how long each is; they have to add up to the size of
    the axis, which is checked when values are computed.  offsets: where each starts, and the end,
    in their place.  initial: what each segment starts from; without it an empty mean is NaN.
    """
    name = "segment_reduce"
    node = as_node(name, data)
    if not node.dtype.is_floating:
        raise fail(name, f"needs a floating dtype, not {node.dtype.name}", "Convert with .float().")
    if reduce not in REDUCTIONS:
        raise fail(name, f"there is no reduction {reduce!r}",
                   f"It is one of {', '.join(REDUCTIONS)}.")
    if indices is not None or (lengths is None) == (offsets is None):
        raise fail(name, "takes either lengths or offsets")
    axis = axis_of(name, axis, node.ndim)
    ends, counts = _ends(name, lengths, offsets)
    lead, size, rest = node.shape[:axis], node.shape[axis], node.shape[axis + 1:]
    if ends.shape[:-1] != lead:
        raise fail(name, f"segments {listed(ends.shape)} for data {listed(node.shape)} along axis "
                   f"{axis}", "Their shape is that of the data up to the axis, then the number.")
    segments, batch = ends.shape[-1], math.prod(lead)
    mode, start = REDUCTIONS[reduce]
    start = start if initial is None else float(initial)
    total = graph.const(start, node.dtype, (batch, segments, *rest))
    if not size and segments:
        zero = graph.reshape(_zero_if_empty(ends, node.dtype), (batch, 1, *(1,) * len(rest)))
        total = graph.add(total, graph.broadcast(zero, total.shape))
    elif node.size and segments:
        total = graph.make(
            "scatter", total, graph.reshape(node, (batch, size, *rest)),
            graph.iota(0, (batch, size)),
            _numbers(graph.reshape(ends, (batch, segments)), size), attrs=((0, 1), mode))
    total = graph.reshape(total, (*lead, segments, *rest))
    if reduce == "mean":
        shape = (*counts.shape, *(1,) * len(rest))
        count = graph.cast(graph.reshape(counts, shape), node.dtype)
        if initial is not None:
            count = graph.binary("maximum", count, 1)
        total = graph.div(total, graph.broadcast(count, total.shape))
    return wrap(total)


def _ends(name: str, lengths: Any, offsets: Any) -> tuple[Node, Node]:
    """(where each segment ends, how long it is), int64."""
    given = as_node(name, offsets if lengths is None else lengths)
    if not given.dtype.is_integer:
        raise fail(name, f"lengths and offsets are integers, not {given.dtype.name}",
                   "Convert with .long().")
    given = graph.cast(given, dtypes.int64)
    if not given.ndim:
        raise fail(name, "lengths and offsets have at least one axis")
    last = given.ndim - 1
    if lengths is not None:
        return scan_node(given, last, "add"), given
    if not given.shape[last]:
        raise fail(name, "offsets hold at least one number, the end of the last segment")
    ends = graph.slice_axis(given, last, 1, given.shape[last])
    return ends, graph.sub(ends, graph.slice_axis(given, last, 0, given.shape[last] - 1))


def _zero_if_empty(ends: Node, dtype: DType) -> Node:
    """0 where the segments of an empty axis are empty; an index out of range where one is not."""
    last = ends.ndim - 1
    reached = graph.slice_axis(ends, last, ends.shape[last] - 1, ends.shape[last])
    wrong = graph.cast(graph.binary("ne", reached, 0), dtypes.int64)
    return graph.make("gather", graph.const(0, dtype, (1,)), wrong, attrs=((0,),))


def _numbers(ends: Node, size: int) -> Node:
    """The segment of each place; where the segments do not end at the end of the axis, a number
    that none has, which the scatter reports.
    """
    batch, segments = ends.shape
    found = graph.make("searchsorted", ends, graph.iota(1, (batch, size)), attrs=("right",))
    reached = graph.slice_axis(ends, 1, segments - 1, segments)
    fits = graph.broadcast(graph.binary("eq", reached, size), (batch, size))
    return graph.where(fits, found, segments)
