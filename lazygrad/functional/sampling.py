"""Sampling an image at positions held in a tensor: grid_sample and affine_grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional.products import contract
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["grid_sample", "affine_grid"]


def _clipped(place: Node, size: int) -> Node:
    """Within 0..size-1; its slope is 0 at the bounds, too, and NaN becomes 0."""
    place = graph.where(graph.binary("lt", graph.like(0, place), place), place, 0)
    return graph.where(graph.binary("lt", place, size - 1), place, size - 1)


def _reflected(place: Node, low: float, high: float) -> Node:
    """Mirrored at low and high until it lies between them."""
    span = high - low
    if span == 0:
        return graph.mul(place, 0)
    apart = graph.unary("abs", graph.sub(place, low))
    within = graph.binary("rem", apart, span)
    turns = graph.unary("floor", graph.stop_gradient(graph.div(apart, span)))
    odd = graph.binary("ne", graph.binary("rem", turns, 2), 0)
    return graph.add(graph.where(odd, graph.sub(graph.like(span, within), within), within), low)


def _padded(place: Node, size: int, padding_mode: str, align_corners: bool) -> Node:
    """Positions outside the image brought into it; "zeros" leaves them."""
    if padding_mode == "border":
        return _clipped(place, size)
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        return _clipped(_reflected(place, low, high), size)
    return place


def _unnormalized(coordinate: Node, size: int, align_corners: bool) -> Node:
    """-1..1 to positions: the centres of the corner pixels, or their outer edges."""
    if align_corners:
        return graph.mul(graph.add(coordinate, 1), (size - 1) / 2)
    return graph.div(graph.sub(graph.mul(graph.add(coordinate, 1), size), 1), 2)


def _taken(node: Node, places: Sequence[Node]) -> Node:
    """Pixels (N, *out, C) at whole positions (N, *out); zeros outside."""
    inside, indices = None, []
    for place, size in zip(places, node.shape[2:], strict=True):
        within = graph.make("and", graph.binary("le", graph.like(0, place), place),
                            graph.binary("lt", place, size))
        inside = within if inside is None else graph.make("and", inside, within)
        indices.append(graph.cast(graph.where(within, place, 0), dtypes.int64))
    assert inside is not None
    batch = graph.iota(0, indices[0].shape)
    pixels = graph.make("gather", node, batch, *indices, attrs=((0, *range(2, node.ndim)),))
    keep = graph.broadcast(graph.unsqueeze(inside, inside.ndim), pixels.shape)
    return graph.where(keep, pixels, 0)


def _scaled(pixels: Node, weight: Node) -> Node:
    """Pixels times weights; a pixel that is 0 because it lies outside stays 0."""
    wide = graph.broadcast(graph.unsqueeze(weight, weight.ndim), pixels.shape)
    return graph.mul(pixels, wide)


def _finite(weight: Node) -> Node:
    """0 for NaN, so that a position that is NaN gives 0, as one far outside does."""
    return graph.where(graph.make("eq", weight, weight), weight, 0)


def _sampled(node: Node, taps: Sequence[Sequence[tuple[Node, Node]]]) -> Node:
    """The sum over all combinations of taps: (position, weight) for each axis."""
    total = None
    for combination in product(*taps):
        weight = combination[0][1]
        for _, factor in combination[1:]:
            weight = graph.mul(weight, factor)
        term = _scaled(_taken(node, [place for place, _ in combination]), weight)
        total = term if total is None else graph.add(total, term)
    assert total is not None
    return total


def _linear(place: Node) -> list[tuple[Node, Node]]:
    low = graph.unary("floor", graph.stop_gradient(place))
    share = _finite(graph.sub(place, low))
    return [(low, graph.sub(graph.like(1, share), share)), (graph.add(low, 1), share)]


def _cubic(place: Node, finish: Callable[[Node], Node]) -> list[tuple[Node, Node]]:
    """Keys's kernel with a = -0.75 at four positions."""
    a = -0.75
    low = graph.unary("floor", graph.stop_gradient(place))
    share = _finite(graph.sub(place, low))
    taps = []
    for offset in range(-1, 3):
        x = graph.sub(share, offset) if offset <= 0 else graph.sub(graph.like(offset, share), share)
        square = graph.mul(x, x)
        if offset in (0, 1):
            weight = graph.add(graph.mul(graph.sub(graph.mul(x, a + 2), a + 3), square), 1)
        else:
            weight = graph.sub(graph.mul(graph.add(graph.mul(graph.sub(
                graph.mul(x, a), 5 * a), x), 8 * a), x), 4 * a)
        taps.append((finish(graph.add(low, offset)), weight))
    return taps


@operation
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """Values of images at given positions: (N, C, *space) at (N, *out, rank) gives (N, C, *out).

    The last axis of grid counts x, y (and z): -1 and 1 are the image's borders, the centres of its
    corner pixels with align_corners.  mode: "bilinear", "nearest", and for two axes "bicubic".
    padding_mode: "zeros", "border" or "reflection".
    """
    name = "grid_sample"
    node, places = as_node(name, input), as_node(name, grid)
    rank = node.ndim - 2
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise fail(name, f"mode {mode!r}; there are 'bilinear', 'nearest' and 'bicubic'",
                   kind=ValueError)
    if padding_mode not in ("zeros", "border", "reflection"):
        raise fail(name, f"padding_mode {padding_mode!r}; there are 'zeros', 'border' and "
                   "'reflection'", kind=ValueError)
    if rank not in (2, 3) or places.ndim != node.ndim or places.shape[-1] != rank \
            or places.shape[0] != node.shape[0]:
        raise fail(name, f"input {listed(node.shape)} and grid {listed(places.shape)} do not fit",
                   "They are (N, C, H, W) and (N, H', W', 2), or (N, C, D, H, W) and "
                   "(N, D', H', W', 3).")
    if mode == "bicubic" and rank != 2:
        raise fail(name, "mode 'bicubic' takes an input of 4 axes", kind=NotImplementedError)
    if not node.dtype.is_floating or node.dtype is not places.dtype:
        raise fail(name, f"input is {node.dtype.name}, grid {places.dtype.name}",
                   "Both are of one floating dtype.")
    if 0 in node.shape[1:]:
        raise fail(name, f"the input {listed(node.shape)} has an empty axis")
    corners = bool(align_corners)
    taps = []
    for k, size in enumerate(node.shape[2:]):
        last = places.ndim - 1
        coordinate = graph.slice_axis(places, last, rank - 1 - k, rank - k)
        coordinate = graph.reshape(coordinate, places.shape[:-1])
        place = _unnormalized(coordinate, size, corners)

        def finish(each: Node, size: int = size) -> Node:
            return _padded(each, size, padding_mode, corners)

        if mode == "bilinear":
            taps.append(_linear(finish(place)))
        elif mode == "bicubic":
            taps.append(_cubic(place, finish))
        else:
            nearest = graph.unary("round", graph.stop_gradient(finish(place)))
            taps.append([(nearest, graph.like(1, nearest))])
    result = _sampled(node, taps)
    return wrap(graph.permute(result, (0, result.ndim - 1, *range(1, result.ndim - 1))))


@operation
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Positions for grid_sample: theta (N, rank, rank + 1) and size (N, C, *space) give
    (N, *space, rank).
    """
    name = "affine_grid"
    node = as_node(name, theta)
    sizes = tuple(each.__index__() for each in size)
    rank = len(sizes) - 2
    if rank not in (2, 3) or node.shape != (sizes[0], rank, rank + 1):
        raise fail(name, f"theta {listed(node.shape)} and size {sizes} do not fit",
                   "They are (N, 2, 3) and (N, C, H, W), or (N, 3, 4) and (N, C, D, H, W).",
                   ValueError)
    if not node.dtype.is_floating:
        raise fail(name, f"theta is floating, not {node.dtype.name}", kind=ValueError)
    if min(sizes) < 1:
        raise fail(name, f"size {sizes} is at least 1 in every axis", kind=ValueError)
    space = sizes[2:]
    shape = (*space, rank + 1)
    columns = [graph.unsqueeze(_ruler(space, rank - 1 - k, node, bool(align_corners)), rank)
               for k in range(rank)]
    base = graph.concat([*columns, graph.const(1, node.dtype, (*space, 1))], rank)
    assert base.shape == shape
    product_ = contract(base, node, (), (), (rank,), (2,))  # (*space, N, rank)
    return wrap(graph.permute(product_, (rank, *range(rank), rank + 1)))


def _ruler(space: tuple[int, ...], axis: int, example: Node, align_corners: bool) -> Node:
    """-1..1 along one axis of a space."""
    size: Any = space[axis]
    number = graph.cast(graph.iota(axis, space), example.dtype)
    if align_corners:
        return graph.sub(graph.mul(number, 2 / (size - 1)), 1) if size > 1 else graph.mul(number, 0)
    return graph.sub(graph.div(graph.add(graph.mul(number, 2), 1), size), 1)
