"""Batching rules of gather and scatter: the number of the item is one more index."""

from __future__ import annotations

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.rules import Flags, Inputs, Rule, all_batched, front, moved
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Node


def gather(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    value, *indices = inputs
    axes = node.attrs[0]
    if not any(flags[1:]):
        # the batch stays among the axes that are not indexed, and is the first of them
        result = at.op("gather", value, *indices, attrs=(moved(axes),))
        return front(at, result, indices[0].ndim)
    indices = list(all_batched(at, tuple(indices), flags[1:], size))
    if not flags[0]:
        return at.op("gather", value, *indices, attrs=(axes,))
    items = at.op("iota", attrs=(0, dtypes.int64, indices[0].shape))
    return at.op("gather", value, items, *indices, attrs=((0, *moved(axes)),))


def scatter(at: Builder, node: Node, inputs: Inputs, flags: Flags, size: int) -> Node:
    base, updates, *indices = all_batched(at, inputs, flags, size)
    axes, mode = node.attrs
    items = at.op("iota", attrs=(0, dtypes.int64, indices[0].shape))
    return at.op("scatter", base, updates, items, *indices, attrs=((0, *moved(axes)), mode))


RULES: dict[str, Rule] = {"gather": gather, "scatter": scatter}
