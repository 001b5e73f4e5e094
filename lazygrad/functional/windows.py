"""Window functions of signal processing: vectors that fade in and out.

`periodic`: a window of length L is the first L values of the symmetric one of length L + 1, as
the Fourier transform wants it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from lazygrad._core import cell as cells
from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor
from lazygrad._core.types import as_dtype, default
from lazygrad._core.values import check_device
from lazygrad.functional.creation import finish
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def checked_length(name: str, length: Any, dtype: Any, device: Any) -> tuple[int, DType]:
    """The number of points and the dtype of a window."""
    check_device(device, name)
    target = default.dtype if dtype is None else as_dtype(dtype)
    if not target.is_floating:
        raise fail(name, f"needs a floating dtype, not {target.name}")
    try:
        size = length.__index__()
    except AttributeError:
        raise fail(name, f"the length is a whole number, not {length!r}", kind=TypeError) from None
    if size < 0:
        raise fail(name, f"the length is at least 0, not {size}")
    return size, target


def cosine_sum(size: int, periodic: bool, terms: tuple[float, ...], target: DType) -> Node:
    """sum_k terms[k] cos(2 pi k j / N), computed in float64 and rounded once."""
    if size == 1:
        return graph.const(1, target, (1,))
    points = size if periodic else size - 1
    line = graph.cast(graph.iota(0, (size,)), dtypes.float64)
    total = graph.like(terms[0], line)
    for order, factor in enumerate(terms[1:], start=1):
        angle = graph.mul(line, 2 * math.pi * order / max(points, 1))
        total = graph.add(total, graph.mul(graph.unary("cos", angle), factor))
    return graph.cast(total, target)


@operation
def hann_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                layout: Any = None, device: Any = None, pin_memory: bool = False,
                requires_grad: bool = False) -> Tensor:
    """0.5 - 0.5 cos(2 pi j / N)."""
    size, target = checked_length("hann_window", window_length, dtype, device)
    return finish(cosine_sum(size, periodic, (0.5, -0.5), target), requires_grad)


@operation
def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, *, dtype: Any = None, layout: Any = None,
                   device: Any = None, pin_memory: bool = False,
                   requires_grad: bool = False) -> Tensor:
    """alpha - beta cos(2 pi j / N)."""
    size, target = checked_length("hamming_window", window_length, dtype, device)
    return finish(cosine_sum(size, periodic, (alpha, -beta), target), requires_grad)


@operation
def blackman_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos(2 pi j / N) + 0.08 cos(4 pi j / N)."""
    size, target = checked_length("blackman_window", window_length, dtype, device)
    return finish(cosine_sum(size, periodic, (0.42, -0.5, 0.08), target), requires_grad)


@operation
def bartlett_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Tensor:
    """A triangle: 1 - |2 j / N - 1|."""
    size, target = checked_length("bartlett_window", window_length, dtype, device)
    if size == 1:
        return finish(graph.const(1, target, (1,)), requires_grad)
    points = max(size if periodic else size - 1, 1)
    line = graph.cast(graph.iota(0, (size,)), dtypes.float64)
    centred = graph.sub(graph.mul(line, 2 / points), 1)
    triangle = graph.sub(graph.like(1, line), graph.unary("abs", centred))
    return finish(graph.cast(triangle, target), requires_grad)


@operation
def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *,
                  dtype: Any = None, layout: Any = None, device: Any = None,
                  pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - (2 j / N - 1)^2)) / I0(beta), with the Bessel function I0.

    A table of numbers that depend on Python numbers only, so NumPy fills it.
    """
    size, target = checked_length("kaiser_window", window_length, dtype, device)
    graph.const(0, target, (size,))  # refuses what no memory holds
    if size > 1 << 32:
        raise fail("kaiser_window", f"a table of {size} numbers", "It has at most 2 ** 32.",
                   MemoryError)
    whole = numpy.kaiser(size + 1 if periodic and size > 1 else size, float(beta))[:size]
    return finish(cells.leaf_of_array(whole.astype(target.numpy)), requires_grad)
