"""Resizing by interpolation: nearest, linear, cubic, area; with and without antialiasing.

Every mode but "area" is, axis by axis, a weighted sum of a few places (taps) known while
recording: a gather for each tap, all fused into one kernel.  Positions are computed in the
precision of the data, as PyTorch does, so that both pick the same places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import Sizes, along, check_listed, each_axis, known
from lazygrad.functional.gathering import gather_rows
from lazygrad.functional.pooling import adaptive_average
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["interpolate", "upsample", "upsample_nearest", "upsample_bilinear"]

RANKS = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,),
         "bilinear": (2,), "bicubic": (2,), "trilinear": (3,)}
"""The numbers of resized axes that each mode takes."""

MOST_TERMS = 4
"""Up to so many taps are written out as a sum; more are a gathered axis that is reduced."""

Filter = Callable[[numpy.ndarray], numpy.ndarray]


def triangle_filter(x: numpy.ndarray) -> numpy.ndarray:
    """Linear interpolation as a function of the distance."""
    return numpy.maximum(1 - numpy.abs(x), 0)


def cubic_filter(x: numpy.ndarray, a: float) -> numpy.ndarray:
    """Keys's cubic convolution kernel (1981) with parameter a."""
    x = numpy.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return numpy.where(x < 1, near, numpy.where(x < 2, far, 0))


def _scale(size: int, count: int, factor: float | None, align_corners: bool,
           precision: Any) -> Any:
    """Input places for one place of the output."""
    if align_corners:
        return precision((size - 1) / (count - 1)) if count > 1 else precision(0)
    if factor is not None and factor > 0:
        return precision(1.0 / factor)
    return precision(size) / precision(count)


def _centers(count: int, scale: Any, align_corners: bool, precision: Any) -> numpy.ndarray:
    number = numpy.arange(count).astype(precision)
    if align_corners:
        return number * scale
    return scale * (number + precision(0.5)) - precision(0.5)


def _nearest_places(size: int, count: int, factor: float | None, exact: bool,
                    precision: Any) -> numpy.ndarray:
    if size == count:
        return numpy.arange(size)
    scale = _scale(size, count, factor, False, precision)
    number = numpy.arange(count).astype(precision) + precision(0.5 if exact else 0)
    return numpy.minimum(numpy.floor(number * scale).astype(numpy.int64), size - 1)


def _linear_taps(size: int, count: int, factor: float | None, align_corners: bool,
                 precision: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
    scale = _scale(size, count, factor, align_corners, precision)
    center = numpy.maximum(_centers(count, scale, align_corners, precision), 0)
    low = numpy.minimum(center.astype(numpy.int64), size - 1)
    share = numpy.clip(center - low, 0, 1)
    return (numpy.stack([low, numpy.minimum(low + 1, size - 1)], 1),
            numpy.stack([1 - share, share], 1))


def _cubic_taps(size: int, count: int, factor: float | None, align_corners: bool,
                precision: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
    scale = _scale(size, count, factor, align_corners, precision)
    center = _centers(count, scale, align_corners, precision)
    low = numpy.floor(center)
    offsets = numpy.arange(-1, 3)
    weights = cubic_filter((center - low)[:, None] - offsets, -0.75)
    return numpy.clip(low[:, None].astype(numpy.int64) + offsets, 0, size - 1), weights


def _antialias_taps(size: int, count: int, factor: float | None, align_corners: bool,
                    precision: Any, kernel: Filter,
                    width: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """A filter stretched by the scale where that is above 1, its weights summing to 1."""
    scale = _scale(size, count, factor, align_corners, precision)
    stretch = max(float(scale), 1.0)
    support = precision(width / 2) * precision(stretch)
    center = scale * (numpy.arange(count).astype(precision) + precision(0.5))
    first = numpy.maximum((center - support + precision(0.5)).astype(numpy.int64), 0)
    after = numpy.minimum((center + support + precision(0.5)).astype(numpy.int64), size)
    most = max(int((after - first).max()), 1)
    places = first[:, None] + numpy.arange(most)
    weights = kernel((places - center[:, None] + 0.5) / stretch)
    weights = numpy.where(places < after[:, None], weights, 0)
    total = weights.sum(1, keepdims=True)
    weights = weights / numpy.where(total == 0, 1, total)
    return numpy.minimum(places, numpy.maximum(after[:, None] - 1, 0)), weights


def _pick(node: Node, axis: int, places: numpy.ndarray) -> Node:
    """Places of an axis: by repetition where that is all it is, else by gather."""
    size = node.shape[axis]
    if len(places) == size and (places == numpy.arange(size)).all():
        return node
    times, rest = divmod(len(places), size)
    if rest == 0 and (places == numpy.arange(len(places)) // times).all():
        shape = node.shape
        wide = graph.broadcast(graph.unsqueeze(node, axis + 1),
                               (*shape[:axis + 1], times, *shape[axis + 1:]))
        return graph.reshape(wide, (*shape[:axis], len(places), *shape[axis + 1:]))
    return gather_rows(node, axis, known(places))


def weighted_taps(node: Node, axis: int, places: numpy.ndarray, weights: numpy.ndarray) -> Node:
    """The sum over taps k of weights[i, k] * x[places[i, k]], along one axis."""
    taps = places.shape[1]
    if taps <= MOST_TERMS:
        total = None
        for k in range(taps):
            term = _pick(node, axis, places[:, k])
            if not (weights[:, k] == 1).all():
                weight = along(known(weights[:, k], node.dtype), axis, node.ndim)
                term = graph.mul(term, weight)
            total = term if total is None else graph.add(total, term)
        assert total is not None
        return total
    parts = gather_rows(node, axis, known(places))
    weight = graph.broadcast(along(known(weights, node.dtype), axis, parts.ndim), parts.shape)
    # Taps outside a filter repeat its last place; what is there must not count, even if infinite.
    terms = graph.where(graph.binary("eq", weight, 0), 0, graph.mul(parts, weight))
    return graph.reduce("sum", terms, (axis + 1,))


def _sizes(name: str, node: Node, size: Any, scale_factor: Any,
           recompute: bool | None) -> tuple[Sizes, list[float | None]]:
    """The output's sizes, and the scale factors that positions are computed with (or None)."""
    rank = node.ndim - 2
    space = node.shape[2:]
    if (size is None) == (scale_factor is None):
        raise fail(name, "needs one of size and scale_factor" if size is None
                   else "takes one of size and scale_factor, not both", kind=ValueError)
    if size is not None:
        if recompute:
            raise fail(name, "recompute_scale_factor is for scale_factor, not for size",
                       kind=ValueError)
        wanted = each_axis(name, size, rank, "size")
        factors: list[float | None] = [None] * rank
    else:
        given = list(scale_factor) if isinstance(scale_factor, (tuple, list)) \
            else [scale_factor] * rank
        if len(given) != rank:
            raise fail(name, f"scale_factor {tuple(given)} for an input {listed(node.shape)}, "
                       f"which has {rank} axes to resize", kind=ValueError)
        if not all(math.isfinite(each) and each > 0 for each in given):
            raise fail(name, f"scale_factor {scale_factor} is not above 0 and finite")
        wanted = tuple(math.floor(float(old * factor))
                       for old, factor in zip(space, given, strict=True))
        factors = [None] * rank if recompute else [float(each) for each in given]
    if min(wanted, default=1) < 1 or math.prod(wanted) > 2**47:
        raise fail(name, f"sizes {wanted} are at least 1 and fit into memory")
    check_listed(name, wanted)
    return wanted, factors


def _check(name: str, node: Node, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode not in RANKS:
        raise fail(name, f"mode {mode!r}; there are {', '.join(map(repr, RANKS))}",
                   kind=NotImplementedError)
    if node.ndim - 2 not in RANKS[mode]:
        fitting = [each for each in RANKS if node.ndim - 2 in RANKS[each]]
        raise fail(name, f"mode {mode!r} takes {' or '.join(str(k + 2) for k in RANKS[mode])} "
                   f"axes, not {listed(node.shape)}", f"Modes for it: {', '.join(fitting)}."
                   if fitting else "It must be (N, C, *space) with one to three axes of space.",
                   kind=NotImplementedError)
    if 0 in node.shape[1:]:
        raise fail(name, f"the input {listed(node.shape)} has an empty axis",
                   "Only the batch axis may be empty.")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise fail(name, "align_corners is for the modes linear, bilinear, bicubic and trilinear, "
                   f"not {mode!r}", kind=ValueError)
    if antialias and mode not in ("bilinear", "bicubic"):
        raise fail(name, f"antialias is for the modes bilinear and bicubic, not {mode!r}",
                   kind=ValueError)
    if mode not in ("nearest", "nearest-exact") and not node.dtype.is_floating:
        raise fail(name, f"mode {mode!r} needs a floating dtype, not {node.dtype.name}",
                   "Convert with .float().")


@operation
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resizes the axes after (N, C) to `size`, or by `scale_factor`.

    mode: "nearest", "nearest-exact", "area" for 3 to 5 axes, "linear" for 3, "bilinear" and
    "bicubic" for 4, "trilinear" for 5.  align_corners: corner elements keep their values.
    antialias: the filter widens where the size shrinks, as in Pillow.  recompute_scale_factor:
    positions follow from the sizes and not from scale_factor.
    """
    name = "interpolate"
    node = as_node(name, input)
    _check(name, node, mode, align_corners, antialias)
    wanted, factors = _sizes(name, node, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return wrap(adaptive_average(node, 2, wanted))
    precision: Any = numpy.float64 if node.dtype.name == "float64" else numpy.float32
    corners = bool(align_corners)
    for k, (count, factor) in enumerate(zip(wanted, factors, strict=True)):
        old = node.shape[k + 2]
        if mode.startswith("nearest"):
            places = _nearest_places(old, count, factor, mode == "nearest-exact", precision)
            node = _pick(node, k + 2, places)
            continue
        if old == count and (factor is None or factor == 1):
            continue
        if antialias and mode == "bilinear":
            taps = _antialias_taps(old, count, factor, corners, precision, triangle_filter, 2)
        elif antialias:
            taps = _antialias_taps(old, count, factor, corners, precision,
                                   lambda x: cubic_filter(x, -0.5), 4)
        elif mode == "bicubic":
            taps = _cubic_taps(old, count, factor, corners, precision)
        else:
            taps = _linear_taps(old, count, factor, corners, precision)
        node = weighted_taps(node, k + 2, *taps)
    return wrap(node)


@operation
def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """The old name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@operation
def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


@operation
def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and align_corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)
