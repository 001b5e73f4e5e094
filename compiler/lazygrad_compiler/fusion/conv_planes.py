"""Strided convolutions over planes: images taken apart by phase, once, so that nothing jumps.

A convolution of stride S reads every S-th element of a row, for each tap anew.  In: a conv with a
stride, or the gradient of such a one's weights (which has the stride as a dilation).  Out: a
convolution of one tap over the elements that it reads, picked once; of the others the same sums
over planes, each of which holds the elements of one phase (equal modulo S, along every
axis) side by side; they are one array, which a kernel of its own writes.  Each tap then reads one
plane at steps of one, as a convolution without a stride does.  3x3 over 32x64x32x32 to 128
channels at a stride of 2 takes 2.8 ms instead of 3.6, with its gradients 11.5 instead of 13.9.

Along an axis, result o and tap t meet at element S o + t - low of an image.  With u = t + shift,
where shift = -low modulo S, that is element o + u // S - first of the plane u % S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lazygrad_compiler.fusion.prepare import padded, product_of_windows
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild, topological
from lazygrad_compiler.loops.schedule_tiles import LEAST_REUSE


@dataclass(frozen=True, slots=True)
class _Axis:
    """size: of the image.  near, far: lengths of what steps by one (taps forward, results in the
    gradient) and of what steps by the stride.
    """

    size: int
    low: int
    stride: int
    near: int
    far: int

    @property
    def length(self) -> int:
        """Of a plane."""
        return -(-self.size // self.stride)

    @property
    def shift(self) -> int:
        return -self.low % self.stride

    @property
    def first(self) -> int:
        return (self.low + self.shift) // self.stride

    @property
    def steps(self) -> int:
        """Elements of a plane that what steps by one extends over."""
        return -(-(self.near + self.shift) // self.stride)

    @property
    def padding(self) -> tuple[int, int]:
        """Of a plane, in front and behind; below zero elements are cut off."""
        return self.first, self.far + self.steps - 1 - self.length - self.first


def with_planes(graph: Graph) -> Graph:
    """The graph, its strided convolutions over planes."""
    result: dict[Node, Node] = {}
    for current in topological(graph.outputs):
        made = rebuild(current, [result[value] for value in current.inputs])
        result[current] = _over_planes(made) if made.op == "conv" else made
    return Graph(tuple(result[output] for output in graph.outputs))


def _over_planes(conv: Node) -> Node:
    value, weight = conv.inputs
    strides, padding, left_dilation, right_dilation, groups = conv.attrs
    kernel, space = weight.shape[2:], conv.shape[2:]
    if max(left_dilation) > 1 or not conv.size or not weight.size or not value.size:
        return conv
    if max(kernel) == 1 < max(strides) and _lies_inside(conv, strides, space):
        return _over_picked(conv, _picked(value, strides, space))
    if max(space) == 1 < max(right_dilation) and _lies_inside(conv, right_dilation, kernel):
        return _over_picked(conv, _picked(value, right_dilation, kernel))
    depthwise = conv.shape[1] // groups < FEWEST_ROWS
    sizes = list(zip(value.shape[2:], padding, kernel, space, strict=True))
    if not depthwise and _gains(strides, kernel, right_dilation):
        axes = [
            _Axis(size, low, stride, taps, results)
            for (size, (low, _), taps, results), stride in zip(sizes, strides, strict=True)
        ]
        return product_of_windows(conv, _windows(conv, value, axes, results_first=False))
    reads = math.prod(space) / math.prod(right_dilation)
    if _gains(right_dilation, space, strides) and (not depthwise or reads >= PLANES_FROM):
        axes = [
            _Axis(size, low, stride, results, taps)
            for (size, (low, _), taps, results), stride in zip(sizes, right_dilation, strict=True)
        ]
        return product_of_windows(conv, _windows(conv, value, axes, results_first=True))
    return conv


def _lies_inside(conv: Node, steps: Sequence[int], counts: Sequence[int]) -> bool:
    """Whether so many elements, at steps from the first on, are all that the conv reads."""
    return all(
        low == 0 and (count - 1) * step < size
        for size, (low, _), count, step in zip(
            conv.inputs[0].shape[2:], conv.attrs[1], counts, steps, strict=True)
    )  # fmt: skip


def _picked(value: Node, steps: Sequence[int], counts: Sequence[int]) -> Node:
    """So many elements of (N, C, *space), at steps: all that a kernel of one tap reads."""
    stops = [(count - 1) * step + 1 for step, count in zip(steps, counts, strict=True)]

    def slice_of(images: Node) -> Node:
        return node(
            "slice", images, starts=(0,) * images.ndim, stops=(*images.shape[:2], *stops),
            steps=(1, 1, *steps), location=value.location,
        )  # fmt: skip

    return _below_exchange(value, slice_of)


def _over_picked(conv: Node, picked: Node) -> Node:
    rank = picked.ndim - 2
    return node(
        "conv", picked, conv.inputs[1], strides=(1,) * rank, padding=((0, 0),) * rank,
        left_dilation=(1,) * rank, right_dilation=(1,) * rank, groups=conv.attrs[4],
        location=conv.location,
    )  # fmt: skip


def _gains(far: Sequence[int], near: Sequence[int], others: Sequence[int]) -> bool:
    """Whether elements are read several times, at steps of more than one.

    far: steps of what steps by the stride.  near: lengths of what should step by one.  others: its
    steps.
    """
    return (
        max(others) == 1
        and max(far) > 1
        and all(stride == 1 or length > stride for stride, length in zip(far, near, strict=True))
        and max(near) <= MOST_NEAR
    )


FEWEST_ROWS = 4
"""Channels of results that share what they read; a depthwise convolution takes 1.5 ms as it is and
2.8 over planes (3x3, 8x144x56x56).
"""
PLANES_FROM = LEAST_REUSE
"""Times that the gradient of a depthwise convolution's weights reads an element, from which on it
goes over planes: a tile of it then shares what it loads (5x5 at a stride of 2 over 8x144x28x28: 0.4
ms instead of 1.0; 3x3 over 8x144x112x112, which reads elements twice, 13.7 instead of 9.7).
"""
MOST_NEAR = 16
"""Taps along an axis; the gradient of weights has them as results, the atrous convolution, which
reads neighbours as it is, has not.
"""


def planes_of(value: Node, strides: Sequence[int]) -> Node:
    """(N, C, *space) as (N, C, *phases, *planes), filled up with zeros."""
    count, channels, *space = value.shape
    lengths = [-(-size // stride) for size, stride in zip(space, strides, strict=True)]
    filled = padded(
        value,
        [(0, length * stride - size)
         for length, stride, size in zip(lengths, strides, space, strict=True)],
    )  # fmt: skip
    pairs = [extent for pair in zip(lengths, strides, strict=True) for extent in pair]
    where, rank = value.location, len(space)
    apart = node("reshape", filled, shape=(count, channels, *pairs), location=where)
    order = (0, 1, *(3 + 2 * k for k in range(rank)), *(2 + 2 * k for k in range(rank)))
    return node("permute", apart, order=order, location=where)


def _windows(conv: Node, value: Node, axes: Sequence[_Axis], results_first: bool) -> Node:
    """The conv's windows, (N, C, *results, *taps), as a view of planes.

    results_first: whether results are what steps by one.
    """
    rank, where = len(axes), conv.location
    strides = [axis.stride for axis in axes]
    planes = _below_exchange(value, lambda images: planes_of(images, strides))
    planes = padded(planes, [axis.padding for axis in axes])
    spatial = range(2 + rank, 2 + 2 * rank)
    long, short = [axis.far for axis in axes], [axis.steps for axis in axes]
    made = node(
        "window", planes, axes=tuple(spatial), sizes=tuple(long if results_first else short),
        strides=(1,) * rank, dilations=(1,) * rank, location=where,
    )  # fmt: skip
    # axes: N, C, phases, results or their steps, taps or their steps
    phases = range(2, 2 + rank)
    results, taps = range(2 + rank, 2 + 2 * rank), range(2 + 2 * rank, 2 + 3 * rank)
    near = results if results_first else taps
    joined = [axis for pair in zip(near, phases, strict=True) for axis in pair]
    order = (0, 1, *joined, *taps) if results_first else (0, 1, *results, *joined)
    made = node("permute", made, order=order, location=where)
    whole = [axis.steps * axis.stride for axis in axes]
    count, channels = value.shape[:2]
    shape = (count, channels, *whole, *long) if results_first else (count, channels, *long, *whole)
    made = node("reshape", made, shape=shape, location=where)
    starts, stops = [0] * made.ndim, list(shape)
    for axis, place in zip(axes, near, strict=True):
        place -= rank  # without the phases
        starts[place], stops[place] = axis.shift, axis.shift + axis.near
    return node(
        "slice", made, starts=tuple(starts), stops=tuple(stops), steps=(1,) * made.ndim,
        location=where,
    )  # fmt: skip


def _below_exchange(value: Node, rule: Callable[[Node], Node]) -> Node:
    """What the rule makes of a value; below an exchange of images and channels, so that a
    convolution and the gradient of its weights share it.
    """
    order = (1, 0, *range(2, value.ndim))
    if value.op != "permute" or value.attrs != (order,):
        return rule(value)
    made = rule(value.inputs[0])
    return node(
        "permute", made, order=(1, 0, *range(2, made.ndim)), location=value.location
    )
