"""Rearrangements of images: unfold and fold, pixel and channel shuffles."""

from __future__ import annotations

import math
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, wrap
from lazygrad.functional._operands import as_node
from lazygrad.functional._windows import Sizes, each_axis, overlapped
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["unfold", "fold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
           "native_channel_shuffle"]


def _block_counts(name: str, space: Sizes, kernel: Sizes, gaps: Sizes, cuts: Sizes,
                  steps: Sizes) -> Sizes:
    if min(*kernel, *gaps, *steps) < 1 or min(cuts) < 0:
        raise fail(name, f"kernel_size {kernel}, dilation {gaps} and stride {steps} are at least "
                   f"1, padding {cuts} at least 0")
    counts = tuple((size + 2 * cut - gap * (width - 1) - 1) // step + 1 for size, cut, gap, width,
                   step in zip(space, cuts, gaps, kernel, steps, strict=True))
    if min(counts) < 1:
        raise fail(name, f"blocks of {kernel} do not fit into {listed(space)} with padding {cuts}")
    return counts


def _settings(name: str, *values: Any) -> tuple[Sizes, ...]:
    names = ("kernel_size", "dilation", "padding", "stride")
    return tuple(each_axis(name, value, 2, what) for value, what in zip(values, names, strict=True))


@operation
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Tensor:
    """Sliding blocks as columns: (N, C, H, W) gives (N, C * kernel, blocks)."""
    name = "unfold"
    node = as_node(name, input)
    if node.ndim not in (3, 4) or 0 in node.shape[-3:]:
        raise fail(name, f"takes (N, C, H, W) or (C, H, W), not {listed(node.shape)}")
    kernel, gaps, cuts, steps = _settings(name, kernel_size, dilation, padding, stride)
    batched = node.ndim == 4
    node = node if batched else graph.unsqueeze(node, 0)
    rows, columns = _block_counts(name, node.shape[2:], kernel, gaps, cuts, steps)
    node = graph.pad(node, (0, 0, *cuts), (0, 0, *cuts))
    windows = graph.make("window", node, attrs=((2, 3), kernel, steps, gaps))
    windows = graph.permute(windows, (0, 1, 4, 5, 2, 3))
    shape = (node.shape[1] * math.prod(kernel), rows * columns)
    return wrap(graph.reshape(windows, (node.shape[0], *shape) if batched else shape))


@operation
def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Tensor:
    """Columns back to an image, overlapping values added: (N, C * kernel, blocks) gives
    (N, C, *output_size).
    """
    name = "fold"
    node = as_node(name, input)
    if node.ndim not in (2, 3):
        raise fail(name, f"takes (N, C * kernel, blocks) or (C * kernel, blocks), not "
                   f"{listed(node.shape)}")
    space = each_axis(name, output_size, 2, "output_size")
    kernel, gaps, cuts, steps = _settings(name, kernel_size, dilation, padding, stride)
    batched = node.ndim == 3
    node = node if batched else graph.unsqueeze(node, 0)
    counts = _block_counts(name, space, kernel, gaps, cuts, steps)
    batch, columns, blocks = node.shape
    if columns % math.prod(kernel) or blocks != math.prod(counts):
        raise fail(name, f"the input {listed(node.shape)} should have a multiple of "
                   f"{math.prod(kernel)} channels and {math.prod(counts)} blocks",
                   "Take the sizes that unfold was given.")
    channels = columns // math.prod(kernel)
    windows = graph.permute(graph.reshape(node, (batch, channels, *kernel, *counts)),
                            (0, 1, 4, 5, 2, 3))
    wide = tuple(size + 2 * cut for size, cut in zip(space, cuts, strict=True))
    image = overlapped(windows, wide, kernel, steps, gaps)
    image = graph.pad(image, (0, 0, *(-cut for cut in cuts)), (0, 0, *(-cut for cut in cuts)))
    return wrap(image if batched else graph.reshape(image, image.shape[1:]))


def _factor(name: str, value: Any) -> int:
    factor = value.__index__()
    if factor < 1:
        raise fail(name, f"takes a factor of at least 1, not {factor}")
    return factor


def _at_least_3d(name: str, node: Node) -> None:
    if node.ndim < 3:
        raise fail(name, f"takes (..., C, H, W), not {listed(node.shape)}")


@operation
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) to (..., C, H * r, W * r) (Shi et al. 2016)."""
    name = "pixel_shuffle"
    node, r = as_node(name, input), _factor(name, upscale_factor)
    _at_least_3d(name, node)
    *lead, channels, height, width = node.shape
    if channels % (r * r):
        raise fail(name, f"the {channels} channels of {listed(node.shape)} are no multiple of "
                   f"{r} squared")
    n = len(lead)
    node = graph.reshape(node, (*lead, channels // (r * r), r, r, height, width))
    node = graph.permute(node, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return wrap(graph.reshape(node, (*lead, channels // (r * r), height * r, width * r)))


@operation
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`: (..., C, H * r, W * r) to (..., C * r * r, H, W)."""
    name = "pixel_unshuffle"
    node, r = as_node(name, input), _factor(name, downscale_factor)
    _at_least_3d(name, node)
    *lead, channels, height, width = node.shape
    if height % r or width % r:
        raise fail(name, f"height and width of {listed(node.shape)} are no multiples of {r}")
    n = len(lead)
    node = graph.reshape(node, (*lead, channels, height // r, r, width // r, r))
    node = graph.permute(node, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return wrap(graph.reshape(node, (*lead, channels * r * r, height // r, width // r)))


@operation
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels (axis 1) as a (groups, C / groups) matrix, transposed (Zhang et al. 2018)."""
    name = "channel_shuffle"
    node, count = as_node(name, input), _factor(name, groups)
    if node.ndim < 3 or node.shape[1] % count:
        raise fail(name, f"the channels of {listed(node.shape)} do not split into {count} groups",
                   "It takes (N, C, *space).")
    shape = node.shape
    parts = graph.reshape(node, (shape[0], count, shape[1] // count, *shape[2:]))
    parts = graph.permute(parts, (0, 2, 1, *range(3, parts.ndim)))
    return wrap(graph.reshape(parts, shape))


native_channel_shuffle = channel_shuffle
