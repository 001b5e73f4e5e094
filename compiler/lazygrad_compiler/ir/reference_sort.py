"""The meaning of the ops built on order, in NumPy: rows of the table in `reference.py`.

The order of all of them is that of `argsort`: ascending or descending along the last axis, NaN
largest, zeros of either sign equal, equal elements in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.node import Node

Array = numpy.ndarray


def _comparable(value: Array) -> Array:
    """bfloat16 as float32, in which NumPy knows how to compare."""
    return value.astype(numpy.float32) if value.dtype.kind == "V" else value


def argsort_rows(value: Array, descending: bool) -> Array:
    """Positions in order along the last axis; stable in both directions."""
    value = _comparable(value)
    if not descending:
        return numpy.argsort(value, axis=-1, kind="stable").astype(numpy.int64)
    # a stable descending order is the ascending one of the mirrored row, mirrored back
    mirrored = numpy.argsort(value[..., ::-1], axis=-1, kind="stable")
    return (value.shape[-1] - 1 - mirrored[..., ::-1]).astype(numpy.int64)


def _argsort(node: Node, inputs: Sequence[Array]) -> Array:
    return argsort_rows(inputs[0], node.attrs[0])


def _sort_values(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.take_along_axis(inputs[0], inputs[1], axis=-1)


def _top_k(node: Node, inputs: Sequence[Array]) -> Array:
    k, largest = node.attrs
    return argsort_rows(inputs[0], largest)[..., :k]


def _select_rank(node: Node, inputs: Sequence[Array]) -> Array:
    value, ranks = inputs
    if not ranks.size:
        return numpy.zeros(node.shape, numpy.int64)
    inside = numpy.clip(ranks, 0, value.shape[-1] - 1)
    return numpy.take_along_axis(argsort_rows(value, False), inside, axis=-1)


def _searchsorted(node: Node, inputs: Sequence[Array]) -> Array:
    """Bisection as the kernel does it, so that rows that are not sorted give the same, too."""
    rows, values = (_comparable(array) for array in inputs)
    length = rows.shape[-1]
    before = numpy.less if node.attrs[0] == "left" else numpy.less_equal
    below = numpy.zeros(values.shape, numpy.int64)
    count = numpy.full(values.shape, length, numpy.int64)
    while length and (count > 0).any():
        half = count // 2
        middle = numpy.minimum(below + half, length - 1)
        found = rows[middle] if rows.ndim == 1 else numpy.take_along_axis(rows, middle, axis=-1)
        # NaN is last: every number comes before it, and it before nothing
        go_on = before(found, values) | (values != values)
        active = count > 0
        below = numpy.where(active & go_on, below + half + 1, below)
        count = numpy.where(active & go_on, count - half - 1, numpy.where(active, half, 0))
    return below


RULES: dict[str, Callable[[Node, Sequence[Array]], Any]] = {
    "argsort": _argsort,
    "sort_values": _sort_values,
    "top_k": _top_k,
    "select_rank": _select_rank,
    "searchsorted": _searchsorted,
}
