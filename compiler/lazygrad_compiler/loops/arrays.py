"""Lowering of the ops on whole arrays (`ARRAY_KINDS`): one launch a step.

In: a group whose anchor is the op.  Out: its launches in order.  Most ops take one launch; an op
that needs the threads to wait for each other takes several, which share `temporary` buffers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, node
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


LOWERINGS: dict[str, Callable[[Group], list[Launch]]] = {}
"""By kind of op; `lower_whole` where there is no row."""


def lower_array(group: Group) -> list[Launch]:
    return LOWERINGS.get(group.kind, lower_whole)(group)
