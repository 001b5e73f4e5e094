"""Pooling over sliding windows, adaptive pooling, resizing."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional.convolution import per_axis
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
           "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
           "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "interpolate",
           "upsample", "unfold"]


def _positions(size: int, kernel: int, step: int, padding: int, gap: int, ceil_mode: bool) -> int:
    """How many windows fit; with ceil_mode also one that starts inside but ends outside."""
    span = size + 2 * padding - gap * (kernel - 1) - 1
    count = (-(-span // step) if ceil_mode else span // step) + 1
    if ceil_mode and (count - 1) * step >= size + padding:
        count -= 1
    return count


def _windows(name: str, node: Node, rank: int, kernel: tuple[int, ...], steps: tuple[int, ...],
             padding: tuple[int, ...], gaps: tuple[int, ...], ceil_mode: bool, fill: Any) -> Node:
    """All windows of the last axes, as new last axes; outside is `fill`."""
    first = node.ndim - rank
    low, high = [0] * node.ndim, [0] * node.ndim
    for k in range(rank):
        if min(kernel[k], steps[k], gaps[k]) < 1 or padding[k] < 0:
            raise fail(name, f"kernel {kernel}, stride {steps} and dilation {gaps} are at least 1, "
                       f"padding {padding} at least 0")
        if 2 * padding[k] > kernel[k]:
            raise fail(name, f"padding {padding[k]} is more than half of the kernel {kernel[k]}")
        size = node.shape[first + k]
        count = _positions(size, kernel[k], steps[k], padding[k], gaps[k], ceil_mode)
        if count < 1:
            raise fail(name, f"a kernel of {kernel} does not fit into {listed(node.shape)}")
        low[first + k] = padding[k]
        high[first + k] = (count - 1) * steps[k] + gaps[k] * (kernel[k] - 1) + 1 - size - padding[k]
    node = graph.pad(node, low, high, fill)
    return graph.make(
        "window", node, attrs=(tuple(range(first, first + rank)), kernel, steps, gaps)
    )


def _last(node: Node, count: int) -> tuple[int, ...]:
    return tuple(range(node.ndim - count, node.ndim))


def _check_rank(name: str, node: Node, rank: int) -> None:
    if node.ndim not in (rank + 1, rank + 2):
        raise fail(name, f"takes (N, C, {rank} axes) or (C, {rank} axes), not {listed(node.shape)}")


def _lowest(node: Node) -> Any:
    return node.dtype.limits()[0]


def _largest(windows: Node, rank: int) -> Node:
    """The largest of each window; the gradient goes to the first of equals, as in PyTorch.

    (The gradient of a `max` reduction is shared among equals, and after a ReLU many are equal.)
    """
    axes = _last(windows, rank)
    if not windows.differentiable:
        return graph.reduce("max", windows, axes)
    best = graph.make("argmax", windows, attrs=(axes,))
    best = graph.reshape(best, (*best.shape, *(1,) * rank))
    place = graph.const(0, dtypes.int64, windows.shape)
    for axis in axes:
        place = graph.add(graph.mul(place, windows.shape[axis]), graph.iota(axis, windows.shape))
    picked = graph.make("eq", place, graph.broadcast(best, windows.shape))
    return graph.reduce("sum", graph.where(picked, windows, 0), axes)


def _max_pool(rank: int) -> Any:
    name = f"max_pool{rank}d"

    def apply(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        node = as_node(name, input)
        _check_rank(name, node, rank)
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        steps = kernel if stride is None or stride == [] else per_axis(name, stride, rank, "stride")
        cuts = per_axis(name, padding, rank, "padding")
        gaps = per_axis(name, dilation, rank, "dilation")
        windows = _windows(name, node, rank, kernel, steps, cuts, gaps, ceil_mode, _lowest(node))
        result = wrap(_largest(windows, rank))
        if not return_indices:
            return result
        best = graph.make("argmax", windows, attrs=(_last(windows, rank),))
        place = graph.const(0, dtypes.int64, best.shape)
        first = node.ndim - rank
        for k in range(rank):
            inner = math.prod(kernel[k + 1:])
            within = graph.make(
                "rem", graph.binary("idiv", best, inner), graph.like(kernel[k], best)
            )
            start = graph.sub(graph.mul(graph.iota(first + k, best.shape), steps[k]), cuts[k])
            at = graph.add(start, graph.mul(within, gaps[k]))
            place = graph.add(graph.mul(place, node.shape[first + k]), at)
        return result, wrap(place)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = "The largest value of every window."
    return operation(apply)


max_pool1d, max_pool2d, max_pool3d = (_max_pool(rank) for rank in (1, 2, 3))


def _avg_pool(rank: int) -> Any:
    name = f"avg_pool{rank}d"

    def apply(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
              ceil_mode: bool = False, count_include_pad: bool = True,
              divisor_override: int | None = None) -> Tensor:
        node = as_node(name, input)
        _check_rank(name, node, rank)
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        steps = kernel if stride is None or stride == [] else per_axis(name, stride, rank, "stride")
        cuts = per_axis(name, padding, rank, "padding")
        ones = (1,) * rank
        windows = _windows(name, node, rank, kernel, steps, cuts, ones, ceil_mode, 0)
        total = graph.reduce("sum", windows, _last(windows, rank))
        if divisor_override is not None:
            return wrap(graph.div(total, divisor_override))
        if (not any(cuts) and not ceil_mode) or (count_include_pad and not ceil_mode):
            return wrap(graph.div(total, math.prod(kernel)))
        return wrap(graph.div(total, _window_sizes(node, rank, total, kernel, steps, cuts,
                                                   count_include_pad)))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = "The mean of every window."
    return operation(apply)


def _window_sizes(
    node: Node,
    rank: int,
    total: Node,
    kernel: tuple[int, ...],
    steps: tuple[int, ...],
    cuts: tuple[int, ...],
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


avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool(rank) for rank in (1, 2, 3))


def _adaptive(rank: int, kind: str) -> Any:
    name = f"adaptive_{kind}_pool{rank}d"

    def apply(input: Tensor, output_size: Any) -> Tensor:
        node = as_node(name, input)
        _check_rank(name, node, rank)
        wanted = (output_size,) * rank if isinstance(output_size, int) else tuple(output_size)
        first = node.ndim - rank
        for k in range(rank):
            count = node.shape[first + k] if wanted[k] is None else int(wanted[k])
            node = _adaptive_axis(node, first + k, count, kind)
        return wrap(node)
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = "Pooling to a size: window i runs from floor(i n / k) to ceil((i + 1) n / k)."
    return operation(apply)


def _adaptive_axis(node: Node, axis: int, count: int, kind: str) -> Node:
    size = node.shape[axis]
    if count == size:
        return node
    if size % count == 0:
        shape = (*node.shape[:axis], count, size // count, *node.shape[axis + 1:])
        parts = graph.reshape(node, shape)
        return graph.mean(parts, (axis + 1,)) if kind == "avg" else \
            graph.reduce("max", parts, (axis + 1,))
    pieces = []
    for k in range(count):
        start, stop = k * size // count, -(-(k + 1) * size // count)
        part = graph.slice_axis(node, axis, start, stop)
        pieces.append(graph.mean(part, (axis,), True) if kind == "avg"
                      else graph.reduce("max", part, (axis,), True))
    return graph.concat(pieces, axis)


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _adaptive(rank, "avg") for rank in (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _adaptive(rank, "max") for rank in (1, 2, 3))


@operation
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Tensor:
    """Windows of (N, C, H, W) as columns: (N, C * kernel, positions)."""
    node = as_node("unfold", input)
    kernel, gaps, cuts, steps = (per_axis("unfold", value, 2, "argument")
                                 for value in (kernel_size, dilation, padding, stride))
    node = graph.pad(node, (0, 0, *cuts), (0, 0, *cuts))
    windows = graph.make("window", node, attrs=((2, 3), kernel, steps, gaps))
    batch, channels, rows, columns = windows.shape[:4]
    windows = graph.permute(windows, (0, 1, 4, 5, 2, 3))
    return wrap(graph.reshape(windows, (batch, channels * math.prod(kernel), rows * columns)))


@operation
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resizing of the axes after (N, C): "nearest", or "linear", "bilinear", "trilinear"."""
    node = as_node("interpolate", input)
    rank = node.ndim - 2
    space = node.shape[2:]
    if size is not None:
        wanted = per_axis("interpolate", size, rank, "size")
        scales = [old / new for old, new in zip(space, wanted, strict=True)]
    elif scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else [scale_factor] * rank
        wanted = tuple(
            math.floor(old * factor) for old, factor in zip(space, factors, strict=True)
        )
        scales = [1.0 / factor for factor in factors]
    else:
        raise fail("interpolate", "needs size or scale_factor")
    if min(wanted, default=1) < 1 or math.prod(wanted) > 2**47:
        raise fail("interpolate", f"sizes {wanted} are at least 1 and fit into memory")
    for k, (new, scale) in enumerate(zip(wanted, scales, strict=True)):
        if mode == "nearest":
            node = _nearest(node, k + 2, new, scale)
        elif mode in ("linear", "bilinear", "trilinear"):
            node = _linear(node, k + 2, new, scale, bool(align_corners))
        else:
            raise fail("interpolate", f"mode {mode!r} is not there yet", kind=NotImplementedError)
    return wrap(node)


upsample = interpolate


def _pick(node: Node, axis: int, places: list[int]) -> Node:
    """The given places of an axis: by repetition where that is all it is, else by gather."""
    import numpy

    from lazygrad.functional.gathering import _known, gather_rows
    size = node.shape[axis]
    times, rest = divmod(len(places), size)
    if rest == 0 and places == [k // times for k in range(len(places))]:
        shape = node.shape
        wide = graph.broadcast(graph.unsqueeze(node, axis + 1),
                               (*shape[:axis + 1], times, *shape[axis + 1:]))
        return graph.reshape(wide, (*shape[:axis], len(places), *shape[axis + 1:]))
    return gather_rows(node, axis, _known(numpy.array(places)))


def _nearest(node: Node, axis: int, count: int, scale: float) -> Node:
    size = node.shape[axis]
    return _pick(node, axis, [min(int(k * scale), size - 1) for k in range(count)])


def _linear(node: Node, axis: int, count: int, scale: float, align_corners: bool) -> Node:
    size = node.shape[axis]
    if align_corners:
        sources = [k * (size - 1) / (count - 1) if count > 1 else 0.0 for k in range(count)]
    else:
        sources = [max((k + 0.5) * scale - 0.5, 0.0) for k in range(count)]
    low = [min(int(at), size - 1) for at in sources]
    high = [min(at + 1, size - 1) for at in low]
    shares = [at - below for at, below in zip(sources, low, strict=True)]
    from lazygrad._core.tensor import node_of
    from lazygrad.functional.creation import tensor
    share = graph.cast(node_of(tensor(shares, dtype=dtypes.float64)), node.dtype)
    share = graph.reshape(share, (count, *(1,) * (node.ndim - axis - 1)))
    first, second = _pick(node, axis, low), _pick(node, axis, high)
    return graph.add(first, graph.mul(share, graph.sub(second, first)))
