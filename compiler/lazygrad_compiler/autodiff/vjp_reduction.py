"""Gradients of reductions.

sum spreads the cotangent; max and min share it evenly among the elements that the result came
from; prod multiplies it by the product of the other elements, computed without a division, so
that zeros are nothing special and every further derivative is right as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.autodiff.vjp_movement import inverse
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node


def sum_(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (at.spread(g, forward.attrs[0], forward.inputs[0].shape),)


def counting_dtype(dtype: DType) -> DType:
    """A float dtype that counts ties exactly: 16 bits would not."""
    return dtypes.float32 if dtype.bits == 16 else dtype


def came_from(at: Builder, value: Node, result: Node) -> Node:
    """Where an element is the extremum (NaN is the extremum of what holds a NaN)."""
    return at.op("or", at.compare("eq", value, result), at.compare("ne", value, value))


def extremum(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    value, axes = forward.inputs[0], forward.attrs[0]
    chosen = came_from(at, value, at.spread(forward, axes, value.shape))
    counting = counting_dtype(g.dtype)
    ties = at.sum(at.cast(chosen, counting), axes)
    share = at.cast(at.div(at.cast(g, counting), ties), g.dtype)
    return (at.where(chosen, at.spread(share, axes, value.shape), at.zeros(value)),)


def products_of_others(at: Builder, value: Node, g: Node) -> Node:
    """g[...] times the product of all other elements of the last axis, for each element.

    Multiplies halves pairwise up to one product, then hands the cotangent down the same tree: every
    element of a half is owed what the other half came to.  3 n multiplications, no division.
    """
    axis = value.ndim - 1
    levels: list[tuple[Node, Node, int]] = []
    while value.shape[axis] > 1:
        count = value.shape[axis]
        half = -(-count // 2)
        first = at.slice_axis(value, axis, 0, half)
        second = at.slice_axis(value, axis, half, count)
        second = at.pad_axis(second, axis, 0, 2 * half - count, fill=1)
        levels.append((first, second, count))
        value = at.mul(first, second)
    for first, second, count in reversed(levels):
        both = at.concat([at.mul(g, second), at.mul(g, first)], axis)
        g = at.slice_axis(both, axis, 0, count)
    return g


def prod(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    value = forward.inputs[0]
    axes: Sequence[int] = forward.attrs[0]
    if 0 in value.shape:
        return (at.zeros(value),)
    kept = [axis for axis in range(value.ndim) if axis not in axes]
    order = (*kept, *axes)
    moved = at.permute(value, order)
    count = 1
    for axis in axes:
        count *= value.shape[axis]
    flat = at.reshape(moved, (*forward.shape, count))
    others = products_of_others(at, flat, at.reshape(g, (*forward.shape, 1)))
    return (at.permute(at.reshape(others, moved.shape), inverse(order)),)


RULES: dict[str, Rule] = {"sum": sum_, "prod": prod, "max": extremum, "min": extremum}
