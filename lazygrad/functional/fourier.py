"""Discrete Fourier transforms (`lg.fft`), as library calls.

Three primitives do it all: complex to complex, real to half a spectrum, half a spectrum to real.
`n` and `s` cut or pad with zeros before the transform; `norm` says which direction carries the
factor 1 / n.  Single precision stays single.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad._core.types import as_dtype, default, float_of
from lazygrad._core.values import check_device
from lazygrad.functional._linalg import call, conj
from lazygrad.functional._operands import as_node, axes_of, axis_of
from lazygrad.functional.creation import finish
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2",
           "ifftn", "ifftshift", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft",
           "rfft2", "rfftfreq", "rfftn"]

SCALES = {
    False: {None: "none", "backward": "none", "ortho": "root", "forward": "all"},
    True: {None: "all", "backward": "all", "ortho": "root", "forward": "none"},
}
"""By direction (inverse or not) and `norm`: the factor of the library call."""


def scale_of(name: str, norm: Any, inverse: bool) -> str:
    if norm not in SCALES[inverse]:
        raise fail(name, f"there is no norm {norm!r}", "Use 'forward', 'backward' or 'ortho'.")
    return SCALES[inverse][norm]


def _operand(name: str, input: Any, real: bool = False) -> Node:
    node = as_node(name, input)
    node = graph.cast(node, float_of(node.dtype))
    if node.dtype.bits == 16:
        raise fail(name, f"is not defined for {node.dtype.name}", "Convert with .float() first.")
    if real and node.dtype.is_complex:
        raise fail(name, f"takes real numbers, not {node.dtype.name}", "Take .real first.")
    if not node.ndim:
        raise fail(name, "takes at least 1 axis, not a single number")
    return node


def resized(name: str, node: Node, axes: Sequence[int], sizes: Sequence[int]) -> Node:
    """Cut, or padded with zeros, to sizes along axes; -1 keeps a size."""
    low, high = [0] * node.ndim, [0] * node.ndim
    for axis, size in zip(axes, sizes, strict=True):
        if size == -1:
            size = node.shape[axis]
        if size < 1:
            raise fail(name, f"a transform has at least 1 point, not {size}")
        high[axis] = size - node.shape[axis]
    if any(high):
        node = graph.pad(node, low, high)
    return node


def _one_axis(name: str, node: Node, n: int | None, dim: int) -> tuple[tuple[int, ...], list[int]]:
    axis = axis_of(name, dim, node.ndim)
    if n is None:
        return (axis,), [-1]
    if _whole(name, n) < 1:
        raise fail(name, f"a transform has at least 1 point, not {n}")
    return (axis,), [_whole(name, n)]


def _whole(name: str, size: Any) -> int:
    try:
        return size.__index__()
    except AttributeError:
        raise fail(name, f"sizes are whole numbers, not {size!r}", kind=TypeError) from None


def _many_axes(name: str, node: Node, s: Any, dim: Any) -> tuple[tuple[int, ...], list[int]]:
    """Axes in the order given, and a size for each (-1: as it is)."""
    if dim is None:
        if hasattr(s, "__index__"):
            s = (s,)
        count = node.ndim if s is None else len(s)
        if count > node.ndim:
            raise fail(name, f"{count} sizes for {listed(node.shape)}")
        axes: Sequence[int] = range(node.ndim - count, node.ndim)
    else:
        axes = [axis_of(name, each, node.ndim)
                for each in ([dim] if hasattr(dim, "__index__") else dim)]
        if len(set(axes)) != len(axes):
            raise fail(name, f"dim {dim} names an axis twice")
    sizes = [-1] * len(axes) if s is None else [
        _whole(name, each) for each in ([s] if hasattr(s, "__index__") else s)]
    if len(sizes) != len(axes):
        raise fail(name, f"{len(sizes)} sizes for {len(axes)} axes")
    return tuple(axes), sizes


# ---- the three primitives


def c2c(name: str, node: Node, axes: tuple[int, ...], sizes: Sequence[int], norm: Any,
        inverse: bool) -> Node:
    scale = scale_of(name, norm, inverse)
    node = resized(name, node, axes, sizes)
    if not axes:
        return node if node.dtype.is_complex else graph.cast(node, _complex(node))
    return call("fft.c2c", node, options=(axes, scale, int(inverse)))


def r2c(name: str, node: Node, axes: tuple[int, ...], sizes: Sequence[int], norm: Any,
        inverse: bool) -> Node:
    """The first half of the spectrum along the last of the axes; of the inverse transform, its
    conjugate.
    """
    if not axes:
        raise fail(name, "takes at least 1 axis to transform")
    scale = scale_of(name, norm, inverse)
    node = call("fft.r2c", resized(name, node, axes, sizes), options=(axes, scale))
    return conj(node) if inverse else node


def c2r(name: str, node: Node, axes: tuple[int, ...], sizes: Sequence[int], norm: Any,
        inverse: bool) -> Node:
    """Real values from half a spectrum along the last of the axes; sizes are those of the result.
    """
    if not axes:
        raise fail(name, "takes at least 1 axis to transform")
    scale = scale_of(name, norm, inverse)
    last = sizes[-1]
    if last == -1:
        last = 2 * (node.shape[axes[-1]] - 1)
    if last < 1:
        raise fail(name, f"a transform has at least 1 point, not {last}",
                   "Give the size of the result.")
    node = resized(name, node, axes, [*sizes[:-1], last // 2 + 1])
    if not node.dtype.is_complex:
        node = graph.cast(node, _complex(node))
    node = node if inverse else conj(node)
    return call("fft.c2r", node, options=(axes, scale, last))


def _complex(node: Node) -> Any:
    return dtypes.complex128 if node.dtype is dtypes.float64 else dtypes.complex64


# ---- along one axis


@operation
def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """X[k] = sum_j x[j] exp(-2 pi i j k / n), complex."""
    node = _operand("fft.fft", input)
    return wrap(c2c("fft.fft", node, *_one_axis("fft.fft", node, n, dim), norm, False))


@operation
def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `fft`."""
    node = _operand("fft.ifft", input)
    return wrap(c2c("fft.ifft", node, *_one_axis("fft.ifft", node, n, dim), norm, True))


@operation
def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`fft` of real values: the first n // 2 + 1 frequencies, the others are their conjugates."""
    node = _operand("fft.rfft", input, real=True)
    return wrap(r2c("fft.rfft", node, *_one_axis("fft.rfft", node, n, dim), norm, False))


@operation
def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `rfft`: n real values (2 (frequencies - 1) unless given)."""
    node = _operand("fft.irfft", input)
    return wrap(c2r("fft.irfft", node, *_one_axis("fft.irfft", node, n, dim), norm, True))


@operation
def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`fft` of a Hermitian signal given by its first half: n real frequencies."""
    node = _operand("fft.hfft", input)
    return wrap(c2r("fft.hfft", node, *_one_axis("fft.hfft", node, n, dim), norm, False))


@operation
def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `hfft`: the first half of a Hermitian signal."""
    node = _operand("fft.ihfft", input, real=True)
    return wrap(r2c("fft.ihfft", node, *_one_axis("fft.ihfft", node, n, dim), norm, True))


# ---- along several axes


@operation
def fftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fft` along several axes (all unless given; the last len(s) where only sizes are given)."""
    node = _operand("fft.fftn", input)
    return wrap(c2c("fft.fftn", node, *_many_axes("fft.fftn", node, s, dim), norm, False))


@operation
def ifftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `fftn`."""
    node = _operand("fft.ifftn", input)
    return wrap(c2c("fft.ifftn", node, *_many_axes("fft.ifftn", node, s, dim), norm, True))


@operation
def rfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fftn` of real values: half of the frequencies along the last of the axes."""
    node = _operand("fft.rfftn", input, real=True)
    return wrap(r2c("fft.rfftn", node, *_many_axes("fft.rfftn", node, s, dim), norm, False))


@operation
def irfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `rfftn`."""
    node = _operand("fft.irfftn", input)
    return wrap(c2r("fft.irfftn", node, *_many_axes("fft.irfftn", node, s, dim), norm, True))


@operation
def hfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`fftn` of a Hermitian signal given by half of it along the last of the axes; real."""
    node = _operand("fft.hfftn", input)
    return wrap(c2r("fft.hfftn", node, *_many_axes("fft.hfftn", node, s, dim), norm, False))


@operation
def ihfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `hfftn`."""
    node = _operand("fft.ihfftn", input, real=True)
    return wrap(r2c("fft.ihfftn", node, *_many_axes("fft.ihfftn", node, s, dim), norm, True))


def _of_two_axes(name: str, many: Any) -> Any:
    def transform(input: Tensor, s: Any = None, dim: Any = (-2, -1),
                  norm: str | None = None) -> Tensor:
        return many(input, s, dim, norm)

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"`{many.__name__}` along two axes, the last ones unless given."
    return operation(transform)


fft2 = _of_two_axes("fft2", fftn)
ifft2 = _of_two_axes("ifft2", ifftn)
rfft2 = _of_two_axes("rfft2", rfftn)
irfft2 = _of_two_axes("irfft2", irfftn)
hfft2 = _of_two_axes("hfft2", hfftn)
ihfft2 = _of_two_axes("ihfft2", ihfftn)


# ---- frequencies


def _frequencies(name: str, n: int, count: int, d: float, dtype: Any, wrapped: bool) -> Node:
    target = default.dtype if dtype is None else as_dtype(dtype)
    if not target.is_differentiable:
        raise fail(name, f"needs a floating dtype, not {target.name}")
    if n < 0:
        raise fail(name, f"n is a number of points, not {n}")
    line = graph.iota(0, (count,))
    if wrapped:
        line = graph.where(graph.binary("lt", line, (n + 1) // 2), line, graph.sub(line, n))
    step = 1 / (n * d) if n and d else math.inf
    return graph.mul(graph.cast(line, target), step)


@operation
def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, layout: Any = None,
            requires_grad: bool = False) -> Tensor:
    """The frequencies of `fft` with n points at distance d: 0, 1, …, -2, -1 times 1 / (n d)."""
    check_device(device, "fft.fftfreq")
    return finish(_frequencies("fft.fftfreq", n, n, d, dtype, True), requires_grad)


@operation
def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, layout: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The frequencies of `rfft` with n points at distance d: 0, 1, …, n // 2 times 1 / (n d)."""
    check_device(device, "fft.rfftfreq")
    node = _frequencies("fft.rfftfreq", n, max(n, 0) // 2 + 1, d, dtype, False)
    return finish(node, requires_grad)


def _rolled(name: str, input: Any, dim: Any, inverse: bool) -> Tensor:
    node = as_node(name, input)
    for axis in axes_of(name, dim, node.ndim):
        size = node.shape[axis]
        cut = size // 2 if inverse else (size + 1) // 2
        if 0 < cut < size:
            parts = [graph.slice_axis(node, axis, cut, size), graph.slice_axis(node, axis, 0, cut)]
            node = graph.concat(parts, axis)
    return wrap(node)


@operation
def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Moves frequency 0 to the middle of the axes (all unless given)."""
    return _rolled("fft.fftshift", input, dim, False)


@operation
def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Undoes `fftshift`."""
    return _rolled("fft.ifftshift", input, dim, True)
