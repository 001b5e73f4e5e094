"""Gradients of the ops built on order: the positions have none, the values go where they came from.
"""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node


def sort_values(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    """Each cotangent back to the place that its value was taken from."""
    value, order = forward.inputs
    places = [
        order
        if axis == value.ndim - 1
        else at.op("iota", attrs=(axis, dtypes.int64, value.shape))
        for axis in range(value.ndim)
    ]
    axes = tuple(range(value.ndim))
    return at.op("scatter", at.zeros(value), g, *places, attrs=(axes, "add")), None


RULES: dict[str, Rule] = {"sort_values": sort_values}
