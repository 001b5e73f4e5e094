"""The meaning of scans, in NumPy: rows of the table in `reference.py`.

16-bit floats combine in float32; each element of the result is rounded once.  A running total of
floats starts from 0.0, so that it is never -0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from lazygrad_compiler.ir.node import Node

Array = numpy.ndarray

UFUNCS: dict[str, Any] = {
    "add": numpy.add,
    "mul": numpy.multiply,
    "max": numpy.maximum,
    "min": numpy.minimum,
    "logaddexp": numpy.logaddexp,
}


def scan(node: Node, inputs: Sequence[Array]) -> Array:
    axis, combine, reverse = node.attrs
    value = inputs[0]
    if value.dtype.itemsize == 2 and value.dtype.kind not in "iu":
        value = value.astype(numpy.float32)
    if reverse:
        value = numpy.flip(value, axis)
    result = UFUNCS[combine].accumulate(value, axis=axis, dtype=value.dtype)
    if combine == "add" and value.dtype.kind in "fc":
        result = result + 0.0
    return numpy.flip(result, axis) if reverse else result


def compact(node: Node, inputs: Sequence[Array]) -> Array:
    return numpy.flatnonzero(inputs[0])[: node.attrs[0]]


RULES: dict[str, Callable[[Node, Sequence[Array]], Any]] = {"scan": scan, "compact": compact}
