"""Convolutions over spread-out inputs, taken apart by phase.

In: a conv whose left operand is dilated by D, as in a transposed convolution and in the gradient of
a strided one.  Out: convs without that, D an axis, and their results put in turn.  Between the
elements of the input there is nothing, so output elements of one phase (equal modulo D) meet only
every D-th tap of the kernel: together the phases do D times less arithmetic an axis than a conv
over the gaps.  (Known as sub-pixel convolution, Shi et al. 2016, section 3.)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Node, node

MOST_PHASES = 256
"""Phases of a conv that is taken apart, 16 x 16 patches among them; each is a kernel to compile."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One axis of one phase: the taps first, first + step, …, as a convolution with this padding,
    stride and dilation.
    """

    first: int
    step: int
    padding: tuple[int, int]
    stride: int
    dilation: int


def phases_of(
    size: int, length: int, kernel: int, low: int, stride: int, spread: int, dilation: int
) -> list[Phase | None]:
    """The phases along one axis, None for one that meets no tap.

    size, length: of input and output.  low: padding in front.  spread, dilation: of the input and
    of the kernel.  Output o reads the spread-out input at o * stride + tap * dilation - low.
    """
    count = phase_count(stride, spread)
    step = spread // math.gcd(spread, dilation)
    found: list[Phase | None] = []
    for phase in range(count):
        begin = phase * stride - low
        meeting = [tap for tap in range(kernel) if (begin + tap * dilation) % spread == 0]
        if not meeting:
            found.append(None)
            continue
        first = meeting[0]
        wide, narrow = stride * count // spread, step * dilation // spread
        before = -(begin + first * dilation) // spread
        reach = (-(-length // count) - 1) * wide + (len(meeting) - 1) * narrow + 1
        found.append(Phase(first, step, (before, reach - size - before), wide, narrow))
    return found


def phase_count(stride: int, spread: int) -> int:
    """After how many results the taps meet the input's elements as they did at the first."""
    return spread // math.gcd(spread, stride)


def takes_phases(conv: Node) -> bool:
    """Whether the conv is one to take apart: few enough phases, each of which is a kernel."""
    strides, _, spread, _, _ = conv.attrs
    count = math.prod(phase_count(s, d) for s, d in zip(strides, spread, strict=True))
    return max(spread) > 1 and count <= MOST_PHASES and all(
        value.size for value in (conv, *conv.inputs)
    )


def by_phases(conv: Node) -> Node:
    """The conv as one for each phase."""
    value, weight = conv.inputs
    strides, padding, spread, dilation, groups = conv.attrs
    where, rank = conv.location, len(spread)
    axes = [
        phases_of(
            value.shape[2 + k], conv.shape[2 + k], weight.shape[2 + k], padding[k][0], strides[k],
            spread[k], dilation[k],
        )
        for k in range(rank)
    ]  # fmt: skip
    lengths = [-(-size // len(axis)) for size, axis in zip(conv.shape[2:], axes, strict=True)]
    results: list[Node] = []
    for chosen in itertools.product(*axes):
        kept = [phase for phase in chosen if phase is not None]
        if len(kept) < rank:
            shape = (*conv.shape[:2], *lengths)
            results.append(node("const", value=0, dtype=conv.dtype, shape=shape, location=where))
            continue
        taps = node(
            "slice",
            weight,
            starts=(0, 0, *(phase.first for phase in kept)),
            stops=weight.shape,
            steps=(1, 1, *(phase.step for phase in kept)),
            location=where,
        )
        results.append(
            node(
                "conv",
                value,
                taps,
                strides=tuple(phase.stride for phase in kept),
                padding=tuple(phase.padding for phase in kept),
                left_dilation=(1,) * rank,
                right_dilation=tuple(phase.dilation for phase in kept),
                groups=groups,
                location=where,
            )
        )
    for axis in reversed(range(2, 2 + rank)):
        turns = len(axes[axis - 2])
        results = [
            _in_turn(results[k : k + turns], axis) for k in range(0, len(results), turns)
        ]
    (whole,) = results
    if whole.shape != conv.shape:
        whole = node("slice", whole, starts=(0,) * whole.ndim, stops=conv.shape,
                     steps=(1,) * whole.ndim, location=where)  # fmt: skip
    return whole


def _in_turn(values: list[Node], axis: int) -> Node:
    """Elements of the values along the axis, one of each in turn."""
    if len(values) == 1:
        return values[0]
    first = values[0]
    shape, where = first.shape, first.location
    lone = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    pieces = [node("reshape", value, shape=lone, location=where) for value in values]
    stacked = node("concat", *pieces, axis=axis + 1, location=where)
    merged = (*shape[:axis], shape[axis] * len(values), *shape[axis + 1 :])
    return node("reshape", stacked, shape=merged, location=where)
