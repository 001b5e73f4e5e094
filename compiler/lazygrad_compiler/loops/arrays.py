"""Lowering of the ops on whole arrays (`ARRAY_KINDS`): one launch a step.

In: a group whose anchor is the op.  Out: its launches in order.  Most ops take one launch; an op
that needs the threads to wait for each other takes several, which share `temporary` buffers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.library_pairs import PAIRED
from lazygrad_compiler.ir.node import Node, merge_locations, node
from lazygrad_compiler.loops.kernel import ArrayKernel, BufferRef, Launch
from lazygrad_compiler.loops.lower import Group

_numbers = itertools.count(-1, -1)


def temporary(dtype: DType, shape: tuple[int, ...]) -> Node:
    """A value that only the launches of one op know: memory for it comes from the arena."""
    return node("input", index=next(_numbers), dtype=dtype, shape=shape)


def array_launch(
    anchor: Node, reads: Sequence[Node], writes: Sequence[Node], kind: str, step: str = ""
) -> Launch:
    """One launch of the anchor's op; its buffers are `reads` (in order), then `writes`."""
    arguments = (*reads, *writes)
    kernel = ArrayKernel(
        anchor.op,
        step,
        anchor.attrs,
        tuple(value.shape for value in arguments),
        tuple(
            BufferRef(value.dtype, value.size, number >= len(reads))
            for number, value in enumerate(arguments)
        ),
        kind,
    )
    about = f"{anchor.op} {step}" if step else anchor.op
    return Launch(kernel, arguments, anchor.location, about)


def lower_whole(group: Group) -> list[Launch]:
    """The common case: one launch from the op's inputs to its result."""
    anchor = group.anchor
    assert anchor is not None
    return [array_launch(anchor, anchor.inputs, [anchor], group.kind)]


def lower_library(group: Group) -> list[Launch]:
    """One launch for all results of a call that are used; attrs are (call, options, parts)."""
    anchor = group.anchor
    assert anchor is not None
    name, options, _ = anchor.attrs
    results = [root for root in group.roots if root in group.outputs]
    parts = tuple(root.attrs[2] for root in results)
    launch = array_launch(anchor, anchor.inputs, results, group.kind)
    assert isinstance(launch.kernel, ArrayKernel)
    kernel = replace(launch.kernel, attrs=(name, options, parts))
    location = merge_locations(*(root.location for root in results))
    return [Launch(kernel, launch.arguments, location, name.removesuffix(PAIRED))]


Lowering = Callable[[Group], list[Launch]]


def lower_array(group: Group, lowerings: Mapping[str, Lowering]) -> list[Launch]:
    """lowerings: by kind of op; `lower_whole` where there is no row."""
    if group.kind == "library":
        return lower_library(group)
    return lowerings.get(group.kind, lower_whole)(group)
