"""Window functions of signal processing under the names and arguments of torch.signal.windows.

Each takes the number of points M and, as a keyword, `sym`: whether the window is symmetric; if not,
it is periodic, that is, the first M values of the symmetric one of M + 1.  Values are computed in
float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import leaf_of_array
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor
from lazygrad.functional.creation import finish
from lazygrad.functional.windows import checked_length, cosine_sum
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
           "general_hamming", "hamming", "hann", "kaiser", "nuttall"]


def _line(size: int) -> Node:
    return graph.cast(graph.iota(0, (size,)), dtypes.float64)


def _finished(node: Node, target: DType, requires_grad: bool) -> Tensor:
    if node.shape == (1,):
        node = graph.like(1, node)  # a window of one point is 1, wherever its middle lies
    return finish(graph.cast(node, target), requires_grad)


def _cosines(name: str, points: int, terms: Iterable[float], sym: bool, dtype: Any, device: Any,
             requires_grad: bool) -> Tensor:
    """sum_k (-1)^k terms[k] cos(2 pi k j / N)."""
    size, target = checked_length(name, points, dtype, device)
    try:
        given = [float(term) for term in terms]
    except TypeError:
        raise fail(name, f"coefficients are numbers, not {terms!r}", kind=TypeError) from None
    if not given:
        raise fail(name, "there are no coefficients", kind=TypeError)
    signed = tuple(-term if order % 2 else term for order, term in enumerate(given))
    return finish(cosine_sum(size, not sym, signed, target), requires_grad)


@operation
def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, dtype: Any = None,
                   layout: Any = None, device: Any = None,
                   requires_grad: bool = False) -> Tensor:
    """a[0] - a[1] cos(2 pi j / N) + a[2] cos(4 pi j / N) - …"""
    return _cosines("general_cosine", M, a, sym, dtype, device, requires_grad)


@operation
def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None,
                    layout: Any = None, device: Any = None,
                    requires_grad: bool = False) -> Tensor:
    """alpha - (1 - alpha) cos(2 pi j / N)."""
    return _cosines("general_hamming", M, (alpha, 1.0 - alpha), sym, dtype, device, requires_grad)


@operation
def hamming(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.54 - 0.46 cos(2 pi j / N)."""
    return _cosines("hamming", M, (0.54, 0.46), sym, dtype, device, requires_grad)


@operation
def hann(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """0.5 - 0.5 cos(2 pi j / N)."""
    return _cosines("hann", M, (0.5, 0.5), sym, dtype, device, requires_grad)


@operation
def blackman(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos(2 pi j / N) + 0.08 cos(4 pi j / N)."""
    return _cosines("blackman", M, (0.42, 0.5, 0.08), sym, dtype, device, requires_grad)


@operation
def nuttall(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Tensor:
    """The four-term window of least side lobes (A. H. Nuttall, "Some windows with very good
    sidelobe behavior", 1981).
    """
    terms = (0.3635819, 0.4891775, 0.1365995, 0.0106411)
    return _cosines("nuttall", M, terms, sym, dtype, device, requires_grad)


@operation
def bartlett(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """A triangle: 1 - |2 j / N - 1|."""
    size, target = checked_length("bartlett", M, dtype, device)
    if size == 1:
        return finish(graph.const(1, target, (1,)), requires_grad)
    centred = graph.sub(graph.mul(_line(size), 2 / max(size - 1 if sym else size, 1)), 1)
    height = graph.sub(graph.like(1, centred), graph.unary("abs", centred))
    return _finished(height, target, requires_grad)


@operation
def cosine(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Half a wave: sin(pi (j + 1/2) / N)."""
    size, target = checked_length("cosine", M, dtype, device)
    angle = graph.mul(graph.add(_line(size), 0.5), math.pi / max(size if sym else size + 1, 1))
    return _finished(graph.unary("sin", angle), target, requires_grad)


@operation
def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
                dtype: Any = None, layout: Any = None, device: Any = None,
                requires_grad: bool = False) -> Tensor:
    """exp(-|j - center| / tau); the centre is the middle, and has to be for a symmetric window."""
    size, target = checked_length("exponential", M, dtype, device)
    if tau <= 0:
        raise fail("exponential", f"tau is {tau}", "It must be positive.")
    if sym and center is not None:
        raise fail("exponential", "a symmetric window has its centre in the middle",
                   "Leave out center, or say sym=False.")
    if center is None:
        center = (size - 1 if sym else size) / 2
    distance = graph.unary("abs", graph.sub(_line(size), float(center)))
    return _finished(graph.unary("exp", graph.mul(distance, -1.0 / tau)), target, requires_grad)


@operation
def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """exp(-(j - middle)² / (2 std²))."""
    size, target = checked_length("gaussian", M, dtype, device)
    if std <= 0:
        raise fail("gaussian", f"std is {std}", "It must be positive.")
    centred = graph.sub(_line(size), (size - 1 if sym else size) / 2)
    exponent = graph.mul(graph.mul(centred, centred), -0.5 / (std * std))
    return _finished(graph.unary("exp", exponent), target, requires_grad)


@operation
def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None,
           layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - (2 j / N - 1)²)) / I0(beta), with the Bessel function I0.

    A table of numbers that depend on Python numbers only, so NumPy fills it.
    """
    size, target = checked_length("kaiser", M, dtype, device)
    if beta < 0:
        raise fail("kaiser", f"beta is {beta}", "It is at least 0.")
    whole = numpy.kaiser(size if sym or size == 1 else size + 1, float(beta))[:size]
    return finish(leaf_of_array(whole.astype(target.numpy)), requires_grad)
