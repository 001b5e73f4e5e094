"""Writing in place: where a kernel may put a result over one of its operands.

A kernel computes element by element.  If it reads an operand only at the very element that it is
about to store, and the operand is not wanted afterwards, both can be one piece of memory.  The
memory plan uses this inside the arena; for inputs and outputs of a program `donations` says which
input's memory an output may take over, should the caller not need the input any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad_compiler.artifact import NEVER, Donations
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.index import Affine, Dyn, Var, variable
from lazygrad_compiler.loops.kernel import (
    ContractionKernel,
    Instr,
    Kernel,
    Launch,
    LoopKernel,
    Stage,
)
from lazygrad_compiler.loops.repeat import touched


def donations(
    launches: Sequence[Launch], inputs: Sequence[Node | None], outputs: Sequence[Node]
) -> Donations:
    """What outputs may take over.

    inputs: the node of each input, None where the program does not read it.  A launch that may fail
    (an index out of range) must leave the inputs as they are: outputs written before the last such
    launch take over nothing.
    """
    last_check = max(
        (number for number, launch in enumerate(launches) if may_fail(launch.kernel)), default=-1
    )
    reads = [-1] * len(inputs)
    writes = [NEVER] * len(outputs)
    input_number = {node: number for number, node in enumerate(inputs) if node is not None}
    output_number = {node: number for number, node in enumerate(outputs)}
    pairs = set()
    written_early = set()
    for number, node in touched(launches):
        if node in input_number:
            reads[input_number[node]] = number
        output = output_number.get(node)
        if output is not None:
            if number <= last_check:
                written_early.add(output)
            if writes[output] == NEVER:
                writes[output] = number
    for number, launch in enumerate(launches):
        for place, node in enumerate(launch.arguments):
            output = output_number.get(node)
            if output is None or writes[output] != number:
                continue
            for other, operand in enumerate(launch.arguments):
                taken = input_number.get(operand)
                if taken is not None and reads[taken] == number and in_place(launch, other, place):
                    pairs.add((taken, output))
    for output in written_early:
        writes[output] = NEVER
    return Donations(tuple(reads), tuple(writes), frozenset(pairs))


def may_fail(kernel: Kernel) -> bool:
    """Whether a launch may end the program: it checks indices, or calls a library."""
    return kernel.kind == "library" or any(value.op == "dynamic" for value in kernel.values)


def in_place(launch: Launch, read: int, written: int) -> bool:
    """Whether the launch may store buffer number `written` over buffer number `read`."""
    kernel = launch.kernel
    if isinstance(kernel, LoopKernel):
        rows: tuple[Var, ...] = kernel.row_axes
        stages: tuple[Stage, ...] = kernel.stages
        early: tuple[int, ...] = ()
    elif isinstance(kernel, ContractionKernel):
        # the epilogue comes after all reads of the operands of an element, not of its neighbours
        rows, stages = (), (kernel.epilogue,)
        early = (*kernel.left_values, *kernel.right_values)
    else:
        return False
    operand, result = kernel.buffers[read], kernel.buffers[written]
    if operand.written or not result.written or operand.size != result.size:
        return False
    if operand.dtype.itemsize != result.dtype.itemsize:
        return False
    if launch.offset_of(read) != launch.offset_of(written):
        return False
    if launch.arguments.count(launch.arguments[read]) > 1:
        return False
    if any(_loads(kernel.values[value], read) for value in early):
        return False
    stored = [
        (number, store.index)
        for number, stage in enumerate(stages)
        for store in stage.stores
        if store.buffer == written
    ]
    if len(stored) != 1:
        return False
    last, index = stored[0]
    axes = (*rows, *stages[last].axes)
    place = _place(rows, stages[last].axes, index)
    if place is None or any(axis.extent > 1 and not index.coefficient(axis) for axis in axes):
        return False  # not every point of the loops stores another element
    for number, stage in enumerate(stages):
        for value in stage.values:
            instr = kernel.values[value]
            if not _loads(instr, read):
                continue
            if number < last and _picks(rows, instr.data[1], place):
                continue
            if number > last or _place(rows, stage.axes, instr.data[1]) != place:
                return False
    return True


def _picks(rows: Sequence[Var], index: Affine, place: Any) -> bool:
    """Whether the index is the place but for one inner position, which is known at run time only:
    an element of the same row, which a later stage writes.
    """
    constant, terms = place
    inner = [term for term in terms if term[0][0] == "inner"]
    if len(inner) != 1:
        return False
    (_, coefficient, extent), = inner
    at_run_time = [term for term, _ in index.terms if isinstance(term, Dyn)]
    if len(at_run_time) != 1 or at_run_time[0].extent > extent:
        return False
    if index.coefficient(at_run_time[0]) != coefficient:
        return False
    fixed = index + variable(at_run_time[0]) * -coefficient
    return _place(rows, (), fixed) == (constant, terms - set(inner))


def _loads(instr: Instr, buffer: int) -> bool:
    return instr.op == "load" and instr.data[0] == buffer


def _place(rows: Sequence[Var], inner: Sequence[Var], index: Affine) -> Any:
    """An index in terms of the axes' positions, so that stages can be compared; None where it is
    more than a sum of axes.
    """
    names = {axis: ("row", position) for position, axis in enumerate(rows)}
    names.update({axis: ("inner", position) for position, axis in enumerate(inner)})
    terms = set()
    for term, coefficient in index.terms:
        if not isinstance(term, Var) or term not in names:
            return None
        terms.add((names[term], coefficient, term.extent))
    return index.constant, frozenset(terms)
