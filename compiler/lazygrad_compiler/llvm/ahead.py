"""What a stage of a row kernel asks memory for while it computes: the same elements, one row on.

A load that steps from row to row by a fixed distance is asked for there.  Of one whose row is read
at run time (an embedding's), the number of the next row is read and computed beforehand, without
its check: a fetch may go anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from lazygrad_compiler.llvm.builder import Value
from lazygrad_compiler.llvm.points import Points
from lazygrad_compiler.loops.index import Affine, Dyn, Var
from lazygrad_compiler.loops.kernel import Instr, LoopKernel, Stage
from lazygrad_compiler.loops.schedule import LoopSchedule

Fetch = tuple[int, Affine, int | Value]
"""Buffer, index, and so many elements on."""


def loads_ahead(
    kernel: LoopKernel, schedule: LoopSchedule, stage: Stage, axis: Var, here: Points, next_: Points
) -> list[Fetch]:
    """What the stage reads along the axis that the next row reads elsewhere, or what is fetched
    ahead within the row.  here: where the row is computed.  next_: points of their own, which are
    put on the next row.
    """
    if not kernel.row_axes:
        return []
    following = kernel.row_axes[schedule.row_order[-1]]
    found: dict[tuple[int, Affine, int], None] = {}
    picked: dict[tuple[int, Affine], None] = {}
    for number in stage.values:
        instr = kernel.values[number]
        if instr.op != "load" or instr.data[1].coefficient(axis) != 1:
            continue
        buffer, index = instr.data
        step = index.coefficient(following)
        if step and all(isinstance(term, Var) for term, _ in index.terms):
            found[buffer, index, schedule.ahead or step] = None
        row = Affine(index.constant, tuple(term for term in index.terms if term[0] != axis))
        if _is_picked(kernel, row, following):
            picked[buffer, row] = None
    if picked:
        next_.bindings.update(here.bindings)
        after = here.f.add(here.bindings[following], 1)
        inside = here.f.icmp("slt", after, following.extent)
        next_.bindings[following] = here.f.select(inside, after, here.bindings[following])
    along = Affine(0, ((axis, 1),))
    return [*found, *((buffer, along, _start(next_, row)) for buffer, row in picked)]


def _is_picked(kernel: LoopKernel, row: Affine, following: Var) -> bool:
    """Whether where a row begins is a number that is read at run time, another for each row."""
    numbers = [term for term, _ in row.terms if isinstance(term, Dyn)]
    return (
        len(numbers) == 1
        and all(isinstance(term, Dyn) or term in kernel.row_axes for term, _ in row.terms)
        and _is_plain(kernel.values, kernel.values[numbers[0].value].args[0], following)
    )


def _start(points: Points, row: Affine) -> Value:
    """Where the row begins at which the points stand."""
    f = points.f
    for term, _ in row.terms:
        if isinstance(term, Dyn) and term.value not in points.computed:
            number = points.values[term.value].args[0]
            points.emit(_needed(points.values, number))
            raw = points.computed[number]
            wrapped = f.select(f.icmp("slt", raw, 0), f.add(raw, term.extent), raw)
            points.computed[term.value] = wrapped
    return points.scalar_index(row)


def _needed(values: Sequence[Instr], number: int) -> list[int]:
    """A value and all that it is computed from, operands first."""
    found: dict[int, None] = {}
    stack = [number]
    while stack:
        current = stack.pop()
        found.pop(current, None)
        found[current] = None
        stack += values[current].args
    return list(reversed(found))


def _is_plain(values: Sequence[Instr], number: int, following: Var) -> bool:
    """Whether a number is computed from loads, one of which goes from row to row, and from nothing
    that is checked or belongs to the row at hand.
    """
    moves = False
    for place in _needed(values, number):
        instr = values[place]
        if instr.op in ("dynamic", "checked", "row", "kept", "bounds"):
            return False
        for item in instr.data:
            if isinstance(item, Affine):
                if not all(isinstance(term, Var) for term, _ in item.terms):
                    return False
                moves |= item.coefficient(following) != 0
    return moves
