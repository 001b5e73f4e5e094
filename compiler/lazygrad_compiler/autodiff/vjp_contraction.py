"""Gradients of dot and conv: again a dot and a conv, with the roles of the axes exchanged."""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed, Rule
from lazygrad_compiler.autodiff.vjp_movement import inverse
from lazygrad_compiler.ir.node import Node


def free_axes(value: Node, used: Sequence[int]) -> list[int]:
    return [axis for axis in range(value.ndim) if axis not in used]


def dot_gradient(at: Builder, g: Node, other: Node, batch: Sequence[int],
                 other_batch: Sequence[int], contract: Sequence[int],
                 other_contract: Sequence[int], free: Sequence[int],
                 g_contract: Sequence[int]) -> Node:
    """The gradient of one operand of a dot, given the other.

    batch, contract, free: the operand's axes by role.  g_contract: g's axes that are the other's
    free ones.  Which of g and other comes first decides the order of the result's axes: the
    one that needs no permute, where there is one.
    """
    g_batch = tuple(range(len(batch)))
    other_free = free_axes(other, (*other_batch, *other_contract))
    partner = dict(zip(other_contract, contract, strict=True))
    contracted = [partner[axis] for axis in sorted(other_contract)]
    g_first = (*batch, *free, *contracted)
    other_first = (*batch, *contracted, *free)
    if other_first == tuple(range(len(other_first))) != g_first:
        return at.op("dot", other, g, attrs=(
            tuple(other_batch), g_batch, tuple(other_free), tuple(g_contract)))
    result = at.op("dot", g, other, attrs=(
        g_batch, tuple(other_batch), tuple(g_contract), tuple(other_free)))
    return at.permute(result, inverse(g_first))


def dot(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    left, right = forward.inputs
    left_batch, right_batch, left_contract, right_contract = forward.attrs
    left_free = free_axes(left, (*left_batch, *left_contract))
    right_free = free_axes(right, (*right_batch, *right_contract))
    border = len(left_batch) + len(left_free)
    g_left, g_right = range(len(left_batch), border), range(border, g.ndim)
    of_left = dot_gradient(at, g, right, left_batch, right_batch, left_contract, right_contract,
                           left_free, g_right) if needed[0] else None
    of_right = dot_gradient(at, g, left, right_batch, left_batch, right_contract, left_contract,
                            right_free, g_left) if needed[1] else None
    return of_left, of_right


# ---- conv


def transposed_kernel(at: Builder, weight: Node, groups: int) -> Node:
    """(out, in/groups, *kernel) as (in, out/groups, *kernel), each kernel axis reversed."""
    outputs, inputs, *kernel = weight.shape
    split = at.reshape(weight, (groups, outputs // groups, inputs, *kernel))
    swapped = at.permute(split, (0, 2, 1, *range(3, split.ndim)))
    merged = at.reshape(swapped, (groups * inputs, outputs // groups, *kernel))
    if groups == 1:
        merged = at.permute(weight, (1, 0, *range(2, weight.ndim)))
    return at.flip(merged, range(2, weight.ndim))


def conv_input(at: Builder, forward: Node, g: Node) -> Node:
    """The full correlation of the strided cotangent with the reversed kernel, cut to the input."""
    value, weight = forward.inputs
    strides, padding, left_dilation, right_dilation, groups = forward.attrs
    if 0 in value.shape:
        return at.zeros(value)
    pairs = []
    for k, (low, _) in enumerate(padding):
        reach = (weight.shape[k + 2] - 1) * right_dilation[k]
        covered = (g.shape[k + 2] - 1) * strides[k] + 1
        wanted = (value.shape[k + 2] - 1) * left_dilation[k] + 1 + reach
        pairs.append((reach - low, wanted - covered - (reach - low)))
    return at.op("conv", g, transposed_kernel(at, weight, groups),
                 attrs=(left_dilation, tuple(pairs), strides, right_dilation, groups))


def conv_weight(at: Builder, forward: Node, g: Node) -> Node:
    """The input correlated with the cotangent over the batch; strides and dilations swap."""
    value, weight = forward.inputs
    strides, padding, left_dilation, right_dilation, groups = forward.attrs
    if 0 in weight.shape or 0 in value.shape:
        return at.zeros(weight)
    batch, channels, *space = value.shape
    space_axes = range(2, value.ndim)
    if groups == 1:
        moved = at.permute(value, (1, 0, *space_axes))
    else:
        split = at.reshape(value, (batch, groups, channels // groups, *space))
        split = at.permute(split, (2, 1, 0, *range(3, split.ndim)))
        moved = at.reshape(split, (channels // groups, groups * batch, *space))
    pairs = []
    for k, (low, _) in enumerate(padding):
        spread = (space[k] - 1) * left_dilation[k] + 1
        wanted = ((weight.shape[k + 2] - 1) * right_dilation[k]
                  + (g.shape[k + 2] - 1) * strides[k] + 1)
        pairs.append((low, wanted - spread - low))
    result = at.op("conv", moved, at.permute(g, (1, 0, *space_axes)),
                   attrs=(right_dilation, tuple(pairs), left_dilation, strides, groups))
    return at.permute(result, (1, 0, *space_axes))


def conv(at: Builder, forward: Node, g: Node, needed: Needed) -> Gradients:
    return (conv_input(at, forward, g) if needed[0] else None,
            conv_weight(at, forward, g) if needed[1] else None)


RULES: dict[str, Rule] = {"dot": dot, "conv": conv}
