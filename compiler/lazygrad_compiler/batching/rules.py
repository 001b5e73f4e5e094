"""Batching rules of elementwise ops, movement, reductions, contractions, scans, sorts and library
calls.

A rule `(at, node, inputs, flags, size) -> node` builds the op for all items: `inputs` are its
operands, with the batch as axis 0 where the flag says so; the result has it as axis 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.ir.library import LIBRARY
from lazygrad_compiler.ir.node import IRError, Node
from lazygrad_compiler.ir.ops import OPS

Inputs = tuple[Node, ...]
Flags = tuple[bool, ...]
Rule = Callable[[Builder, Node, Inputs, Flags, int], Node]


def repeated(at: Builder, value: Node, size: int) -> Node:
    """A value that is the same for all items, with a batch axis."""
    if value.op == "const":
        return at.op("const", attrs=(value.attrs[0], value.dtype, (size, *value.shape)))
    widened = at.op("reshape", value, attrs=((1, *value.shape),))
    return at.op("expand", widened, attrs=((size, *value.shape),)) if size != 1 else widened


def all_batched(at: Builder, inputs: Inputs, flags: Flags, size: int) -> Inputs:
    return tuple(
        value if flag else repeated(at, value, size)
        for value, flag in zip(inputs, flags, strict=True)
    )


def moved(axes: Any) -> tuple[int, ...]:
    """Axes of an item as axes of the batch."""
    return tuple(axis + 1 for axis in axes)


def front(at: Builder, value: Node, axis: int) -> Node:
    """The value with an axis moved to the front."""
    if axis == 0:
        return value
    order = (axis, *(k for k in range(value.ndim) if k != axis))
    return at.op("permute", value, attrs=(order,))


# ---- elementwise, markers


def pointwise(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    return at.op(node.op, *all_batched(at, inputs, flags, size), attrs=node.attrs)


def unmarked(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """A variable inside the function: whoever asked for its gradient has it by now."""
    return inputs[0]


# ---- movement


def reshape(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    return at.op("reshape", inputs[0], attrs=((size, *node.shape),))


def expand(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    return at.op("expand", inputs[0], attrs=((size, *node.shape),))


def permute(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    return at.op("permute", inputs[0], attrs=((0, *moved(node.attrs[0])),))


def slice_(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    starts, stops, steps = node.attrs
    return at.op("slice", inputs[0], attrs=((0, *starts), (size, *stops), (1, *steps)))


def pad(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    low, high, interior, value = node.attrs
    return at.op("pad", inputs[0], attrs=((0, *low), (0, *high), (0, *interior), value))


def over_axes(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Ops whose first attribute is a list of axes: flips, windows, reductions."""
    return at.op(node.op, inputs[0], attrs=(moved(node.attrs[0]), *node.attrs[1:]))


def over_axis(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Ops whose first attribute is one axis: concatenations, scans."""
    operands = all_batched(at, inputs, flags, size)
    return at.op(node.op, *operands, attrs=(node.attrs[0] + 1, *node.attrs[1:]))


# ---- contractions


def dot(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Both operands batched: one more batch axis.  One batched: its batch is a free axis."""
    left_batch, right_batch, left_contract, right_contract = node.attrs
    on_left, on_right = flags
    if on_left:
        left_batch, left_contract = moved(left_batch), moved(left_contract)
    if on_right:
        right_batch, right_contract = moved(right_batch), moved(right_contract)
    if on_left and on_right:
        attrs = ((0, *left_batch), (0, *right_batch), left_contract, right_contract)
        return at.op("dot", *inputs, attrs=attrs)
    result = at.op("dot", *inputs, attrs=(left_batch, right_batch, left_contract, right_contract))
    if on_left:
        return front(at, result, len(left_batch))
    left_free = inputs[0].ndim - len(left_batch) - len(left_contract)
    return front(at, result, len(left_batch) + left_free)


def conv(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """A batched input joins the images; batched weights are groups of their own."""
    value, weight = inputs
    strides, padding, left_dilation, right_dilation, groups = node.attrs
    images, channels = node.inputs[0].shape[:2]
    outputs = node.shape[1]
    if not flags[1]:
        value = at.op("reshape", value, attrs=((size * images, *value.shape[2:]),))
        result = at.op("conv", value, weight, attrs=node.attrs)
        return at.op("reshape", result, attrs=((size, *node.shape),))
    if not flags[0]:
        value = repeated(at, value, size)
    value = at.op("permute", value, attrs=((1, 0, *range(2, value.ndim)),))
    value = at.op("reshape", value, attrs=((images, size * channels, *value.shape[3:]),))
    weight = at.op("reshape", weight, attrs=((size * outputs, *weight.shape[2:]),))
    attrs = (strides, padding, left_dilation, right_dilation, groups * size)
    result = at.op("conv", value, weight, attrs=attrs)
    result = at.op("reshape", result, attrs=((images, size, *node.shape[1:]),))
    return front(at, result, 1)


# ---- arrays


def along_last(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Ops that work along the last axis of operands with the same axes before it."""
    return at.op(node.op, *all_batched(at, inputs, flags, size), attrs=node.attrs)


def searchsorted(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Rows and values with the same axes, or one row for all values."""
    rows, values = inputs
    if rows.ndim == 1 and not flags[0]:
        return at.op("searchsorted", rows, values, attrs=node.attrs)
    rows, values = all_batched(at, inputs, flags, size)
    if node.inputs[0].ndim > 1 or node.inputs[1].ndim == 1:
        return at.op("searchsorted", rows, values, attrs=node.attrs)
    flat = at.op("reshape", values, attrs=((size, node.inputs[1].size),))
    found = at.op("searchsorted", rows, flat, attrs=node.attrs)
    return at.op("reshape", found, attrs=((size, *node.shape),))


def library(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    """Calls on batches of items take one more axis; transforms have their axes moved."""
    name, options, part = node.attrs
    operands = all_batched(at, inputs, flags, size)
    if LIBRARY[name].cores:
        return at.op("library", *operands, attrs=node.attrs)
    if not name.startswith("fft."):
        raise IRError(f"[{name}] cannot be batched")
    return at.op("library", *operands, attrs=(name, (moved(options[0]), *options[1:]), part))


RULES: dict[str, Rule] = {
    **{name: pointwise for name, entry in OPS.items() if entry.kind == "elementwise"},
    **{name: over_axes for name, entry in OPS.items() if entry.kind == "reduction"},
    "stop_gradient": pointwise,
    "transfer": pointwise,
    "variable": unmarked,
    "reshape": reshape,
    "expand": expand,
    "permute": permute,
    "slice": slice_,
    "pad": pad,
    "flip": over_axes,
    "window": over_axes,
    "concat": over_axis,
    "scan": over_axis,
    "dot": dot,
    "conv": conv,
    "argsort": along_last,
    "sort_values": along_last,
    "top_k": along_last,
    "select_rank": along_last,
    "searchsorted": searchsorted,
    "library": library,
    "view_as_real": along_last,
    "view_as_complex": along_last,
}
