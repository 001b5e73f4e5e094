"""Reductions over the rows of a row kernel: sums of columns.

A row kernel goes through its rows in memory's order.  What is to be summed over the rows (a bias's
gradient, those of a norm's weight) it takes in on the way, so that all of it is read once: each
task, a block of rows, has sums of its own, and a second, small launch adds those up.  How rows are
cut into blocks depends on the shape only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node, node
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.index import Div, Dyn, Mod
from lazygrad_compiler.loops.kernel import Launch, LoopKernel
from lazygrad_compiler.loops.lower import Group, block_rows, is_reduction, lower_rows
from lazygrad_compiler.loops.pull import NotAligned

LEAST_ROWS = 64
LEAST_COLUMNS = 64
MOST_COLUMNS = 1 << 17
LEAST_ELEMENTS = 1 << 16
"""Below these the columns' own loops are as good, or the rows' sums have no room in the cache."""


def rows_and_columns(root: Node) -> tuple[int, int]:
    """Of a reduction: how many elements make one result, and how many results there are."""
    return math.prod(root.inputs[0].shape[axis] for axis in root.attrs[0]), root.size


def column_group(root: Node, stored: Callable[[Node], bool]) -> Group | None:
    """The reduction as the columns of a row kernel, where that reads memory in its order and the
    sizes are worth it; else None.
    """
    if not is_reduction(root) or root.op in ("argmax", "argmin"):
        return None
    rows, columns = rows_and_columns(root)
    few = rows < LEAST_ROWS or columns < LEAST_COLUMNS or rows * columns < LEAST_ELEMENTS
    if few or columns > MOST_COLUMNS:
        return None
    group = Group("loops", [root], rows=rows, inner=columns, columns=frozenset((root,)))
    try:
        kernel = lower_rows(group, stored).kernel
    except NotAligned:
        return None
    assert isinstance(kernel, LoopKernel)
    return group if _rows_lie_apart(kernel) else None


def _rows_lie_apart(kernel: LoopKernel) -> bool:
    """Whether each row is a run of memory, and whole rows lie behind each other."""
    rows, columns = kernel.row_axes, kernel.stages[-1].axes
    found = False
    for instr in kernel.values:
        if instr.op != "load":
            continue
        index = instr.data[1]
        if any(isinstance(term, (Div, Mod, Dyn)) for term, _ in index.terms):
            return False
        span = sum(abs(index.coefficient(axis)) * (axis.extent - 1) for axis in columns)
        steps = [abs(index.coefficient(axis)) for axis in rows if index.coefficient(axis)]
        if span and steps:
            if min(steps) <= span:
                return False
            found = True
    return found


def statistics_of_columns(roots: Iterable[Node], users: dict[Node, list[Node]]) -> set[Node]:
    """Reductions whose results are wanted again at every element that they were made from, as
    those of a batch norm are: their passes belong together, column by column.
    """
    found = set()
    for root in roots:
        if not is_reduction(root):
            continue
        size, seen, stack = root.inputs[0].size, {root}, [root]
        while stack and root not in found:
            for user in users.get(stack.pop(), ()):
                if user.size == size:
                    found.add(root)
                elif user.size >= root.size and user not in seen:
                    seen.add(user)
                    stack.append(user)
    return found


def _wide(dtype: DType) -> DType:
    """What blocks are summed in: 16-bit floats in float32."""
    return dtypes.float32 if dtype.kind == "float" and dtype.bits == 16 else dtype


def lower_row_group(
    group: Group, stored: Callable[[Node], bool], keeps: bool = False
) -> list[Launch]:
    """The group's launch, and where it has columns one more, which puts the blocks together."""
    if not group.columns:
        return [lower_rows(group, stored, keeps=keeps)]
    blocks = -(-group.rows // block_rows(group.rows))
    columns = [root for root in group.roots if root in group.columns]
    partials = {root: temporary(_wide(root.dtype), (blocks, root.size)) for root in columns}
    launches = [lower_rows(group, stored, keeps=keeps, partials=partials)]
    whole: dict[Node, Node] = {}
    made: list[Node] = []
    for root in columns:
        total = node(root.op, partials[root], axes=(0,), location=root.location)
        made.append(total)
        if total.dtype is not root.dtype:
            total = node("cast", total, dtype=root.dtype, location=root.location)
            made.append(total)
        whole[total] = root
    together = Group("loops", made, set(whole), rows=group.inner, inner=blocks)
    joined = lower_rows(together, lambda value: value.op == "input")
    arguments = tuple(whole.get(argument, argument) for argument in joined.arguments)
    launches.append(replace(joined, arguments=arguments, about="blocks of " + joined.about,
                            sources=tuple(columns)))
    return launches
