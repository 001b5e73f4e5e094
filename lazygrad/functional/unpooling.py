"""Max unpooling, and max pooling over bins of random size."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import check_rank, each_axis, per_axis
from lazygrad.functional.gathering import index_node
from lazygrad.functional.pooling import digits, largest, steps_of
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d", "fractional_max_pool2d",
           "fractional_max_pool3d", "fractional_max_pool2d_with_indices",
           "fractional_max_pool3d_with_indices"]


def _max_unpool(rank: int) -> Any:
    name = f"max_unpool{rank}d"

    def apply(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
              padding: Any = 0, output_size: Any = None) -> Tensor:
        node, places = as_node(name, input), index_node(name, indices)
        check_rank(name, node, rank)
        if node.shape != places.shape:
            raise fail(name, f"input {listed(node.shape)} and indices {listed(places.shape)} "
                       "differ", f"Take both from max_pool{rank}d(..., return_indices=True).")
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        steps = steps_of(name, stride, kernel)
        cuts = per_axis(name, padding, rank, "padding")
        lead, space = node.shape[:node.ndim - rank], node.shape[node.ndim - rank:]
        usual = tuple((size - 1) * step - 2 * cut + width for size, step, cut, width
                      in zip(space, steps, cuts, kernel, strict=True))
        wanted = usual
        if output_size is not None:
            wanted = tuple(size.__index__() for size in output_size)[-rank:]
            if len(wanted) != rank or len(tuple(output_size)) not in (rank, rank + 2, rank + 1):
                raise fail(name, f"output_size {tuple(output_size)} does not have {rank} numbers")
            for size, want, step in zip(usual, wanted, steps, strict=True):
                if not size - step < want < size + step:
                    raise fail(name, f"output_size {wanted} is not within a stride of {usual}",
                               kind=ValueError)
        rows, inner = math.prod(lead), math.prod(space)
        flat = graph.reshape(places, (rows, inner))
        base = graph.const(0, node.dtype, (rows, math.prod(wanted)))
        result = graph.make("scatter", base, graph.reshape(node, (rows, inner)),
                            graph.iota(0, flat.shape), flat, attrs=((0, 1), "set"))
        return wrap(graph.reshape(result, (*lead, *wanted)))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"""The inverse of max_pool{rank}d: values at their indices, zeros elsewhere.

    input and indices: (N, C, *space) or (C, *space), the results of max_pool{rank}d with
    return_indices.  An index outside of the result is an IndexError when the value is computed.
    """
    return operation(apply)


max_unpool1d, max_unpool2d, max_unpool3d = (_max_unpool(rank) for rank in (1, 2, 3))


def _random_starts(draw: Node, size: int, count: int, width: int) -> Node:
    """Where each of `count` bins starts (Graham 2014, pseudo-random bins): (N, C, count).

    floor((i + u) alpha) - floor(u alpha) with alpha = (size - width) / (count - 1); the last one
    ends with the input.
    """
    shape = (*draw.shape, count)
    last = graph.const(size - width, dtypes.int64, shape)
    if count == 1:
        return last
    alpha = (size - width) / (count - 1)
    wide = graph.broadcast(graph.unsqueeze(draw, draw.ndim), shape)
    number = graph.iota(draw.ndim, shape)

    def whole(value: Node) -> Node:
        return graph.cast(graph.mul(value, alpha), dtypes.int64)

    start = graph.sub(whole(graph.add(graph.cast(number, wide.dtype), wide)), whole(wide))
    return graph.where(graph.binary("lt", number, count - 1), start, last)


def _fractional(rank: int, with_indices: bool) -> Any:
    name = f"fractional_max_pool{rank}d" + ("_with_indices" if with_indices else "")

    def apply(input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
              return_indices: bool = with_indices, _random_samples: Tensor | None = None) -> Any:
        node = as_node(name, input)
        check_rank(name, node, rank)
        batched = node.ndim == rank + 2
        node = node if batched else graph.unsqueeze(node, 0)
        space = node.shape[2:]
        kernel = per_axis(name, kernel_size, rank, "kernel_size")
        if (output_size is None) == (output_ratio is None):
            raise fail(name, "needs one of output_size and output_ratio", kind=ValueError)
        if output_size is not None:
            wanted = each_axis(name, output_size, rank, "output_size")
        else:
            ratios = output_ratio if isinstance(output_ratio, (tuple, list)) \
                else (output_ratio,) * rank
            if not all(0 < ratio < 1 for ratio in ratios):
                raise fail(name, f"output_ratio must be between 0 and 1, and is {output_ratio}",
                           kind=ValueError)
            wanted = tuple(int(size * ratio) for size, ratio in zip(space, ratios, strict=True))
        for size, width, count in zip(space, kernel, wanted, strict=True):
            if count < 1 or width < 1 or count + width - 1 > size:
                raise fail(name, f"bins of {kernel} for an output of {wanted} do not fit into "
                           f"{listed(input.shape)}")
        draws = _draws(name, node, rank, _random_samples)
        # Samples are (width, height) in two dimensions and (time, height, width) in three.
        order = (1, 0) if rank == 2 else (0, 1, 2)
        starts = [_random_starts(
            graph.reshape(graph.slice_axis(draws, 2, number, number + 1), draws.shape[:2]),
            size, count, width)
            for number, size, count, width in zip(order, space, wanted, kernel, strict=True)]
        shape = (*node.shape[:2], *wanted, *kernel)
        indices = [graph.iota(0, shape), graph.iota(1, shape)]
        for k, start in enumerate(starts):
            view = [*node.shape[:2], *(1,) * (2 * rank)]
            view[2 + k] = wanted[k]
            spread = graph.broadcast(graph.reshape(start, tuple(view)), shape)
            indices.append(graph.add(spread, graph.iota(2 + rank + k, shape)))
        windows = graph.make("gather", node, *indices, attrs=(tuple(range(node.ndim)),))
        values, best = largest(windows, rank)
        place = graph.const(0, dtypes.int64, best.shape)
        for k, within in enumerate(digits(best, kernel)):
            view = [*node.shape[:2], *(1,) * rank]
            view[2 + k] = wanted[k]
            start = graph.broadcast(graph.reshape(starts[k], tuple(view)), best.shape)
            place = graph.add(graph.mul(place, space[k]), graph.add(start, within))
        results = [each if batched else graph.reshape(each, each.shape[1:])
                   for each in (values, place)]
        if return_indices or with_indices:
            return wrap(results[0]), wrap(results[1])
        return wrap(results[0])
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = """The largest of bins whose borders are random (Graham 2014).

    Give output_size, or output_ratio within 0..1.  _random_samples: (N, C, rank) numbers in 0..1.
    """
    return operation(apply)


def _draws(name: str, node: Node, rank: int, samples: Tensor | None) -> Node:
    """One number in 0..1 for each sample, channel and axis."""
    from lazygrad.functional.random import uniform_node
    shape = (*node.shape[:2], rank)
    if samples is None:
        return uniform_node(shape, node.dtype if node.dtype.is_floating else dtypes.float32)
    given = graph.stop_gradient(node_of(samples))
    if given.shape != shape:
        raise fail(name, f"_random_samples {listed(given.shape)} are not {listed(shape)}")
    if not given.dtype.is_floating:
        raise fail(name, f"_random_samples are floating, not {given.dtype.name}")
    return given


fractional_max_pool2d, fractional_max_pool3d = (_fractional(rank, False) for rank in (2, 3))
fractional_max_pool2d_with_indices, fractional_max_pool3d_with_indices = (
    _fractional(rank, True) for rank in (2, 3))
