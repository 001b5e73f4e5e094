"""The loop IR: one kernel as data.

A kernel computes values element by element.  `Instr`s form one list in SSA order, addressed by
number; each is a scalar operation at one point of the iteration space, and its loads carry index
expressions over the loop variables.  The list is target-independent: tiles, vectors and threads are
the schedule's (`schedule.py`) and the emitter's.

Kinds:
  LoopKernel         for every row (parallel): stages in order; a stage runs over its inner axes,
                     stores and reduces.
  ContractionKernel  for every (batch, m, n): a sum over k of left * right, then an epilogue that
                     stores.
  ScatterKernel      updates applied in order to a buffer that already holds the base.
  ArrayKernel        one step of an op on whole arrays: a scan, a sort, a library call.

`text(kernel)` prints it; the text without names and locations is also what identifies a kernel: two
kernels of the same text are the same code.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Location
from lazygrad_compiler.loops.index import Affine, Dyn, Var


@dataclass(frozen=True, slots=True)
class Instr:
    """One scalar operation.

    op: an elementwise op of the op table (args: value numbers), or
      load         data (buffer number, Affine); args () or (mask,): where the mask fails nothing is
                   read and the value is 0
      index        data (Affine,): the expression as an integer
      bounds       data (Affine, low, high): low <= expression < high
      divides      data (Affine, divisor): expression % divisor == 0
      const        data (number,)
      polynomial   args (x,), data (coefficients,), lowest order first
      philox       args (seed, offset), data (Affine,): random word at that position
      dynamic      args (index,) or (index, mask), data (size, axis): wraps negatives; reports and
                   clamps what is out of range
      checked      args (value, dynamic, …): the value; the indices have been checked
      row          the result of a reduction of an earlier stage
      kept         data (number, Affine): what an earlier stage kept at that position of the row
      accumulator  the sum of a contraction
    """

    op: str
    dtype: DType
    args: tuple[int, ...] = ()
    data: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class BufferRef:
    """One argument of a kernel: a row-major array of so many elements."""

    dtype: DType
    size: int
    written: bool


@dataclass(frozen=True, slots=True)
class Reduction:
    """`result` (a `row` instr) becomes the reduction of `value` over the stage's axes; position: of
    argmax and argmin.
    """

    op: str
    value: int
    result: int
    position: Affine | None = None


@dataclass(frozen=True, slots=True)
class ColumnReduction:
    """The buffer takes in `value` at the index, over all rows of a block; the buffer holds the
    results of one block after the other.
    """

    op: str
    value: int
    buffer: int
    index: Affine


@dataclass(frozen=True, slots=True)
class Store:
    buffer: int
    index: Affine
    value: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass over the inner axes of a row.  `values` lists the instrs it needs, in order.
    keeps: stores into the kernel's row buffers, for later stages.  columns: what is reduced over
    rows.
    """

    axes: tuple[Var, ...]
    values: tuple[int, ...]
    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]
    keeps: tuple[Store, ...] = ()
    columns: tuple[ColumnReduction, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopKernel:
    """kept: the dtypes of the row buffers, each of one element for every position of a row; they
    lie in scratch memory.  block: how many rows, in their order, make one task; 0: any number.
    """

    row_axes: tuple[Var, ...]
    stages: tuple[Stage, ...]
    values: tuple[Instr, ...]
    buffers: tuple[BufferRef, ...]
    kind: str = "loops"
    kept: tuple[DType, ...] = ()
    block: int = 0


@dataclass(frozen=True, slots=True)
class ContractionKernel:
    """sum over k of left[b, m, k] * right[b, k, n].

    left and right name the values to multiply, over the variables b, m, k and b, k, n; the epilogue
    is a stage over b, m, n.
    """

    batch: Var
    m: Var
    n: Var
    k: Var
    left: int
    right: int
    left_values: tuple[int, ...]
    right_values: tuple[int, ...]
    epilogue: Stage
    values: tuple[Instr, ...]
    buffers: tuple[BufferRef, ...]
    dtype: DType
    kind: str = "contraction"


@dataclass(frozen=True, slots=True)
class ScatterKernel:
    """For each position (outer axes, in order), for each element (inner axes): target[place] =
    combine(target[place], update).

    apart: axes of positions that are themselves an index, so that no two of their values meet in
    one place: tasks are split over them.  block: where it is not 0, the last outer axis is such an
    axis, too, and a task takes so many of its values, neighbours in memory.  parts: into how many
    pieces the positions are cut, each of which combines into a copy of its own; the target holds
    the copies.  order: the buffers with the positions, stably ordered by the number of their place,
    and with those numbers in that order; None: positions are taken as they come.
    """

    outer: tuple[Var, ...]
    inner: tuple[Var, ...]
    update: int
    place: Affine
    target: int
    mode: str
    values: tuple[Instr, ...]
    buffers: tuple[BufferRef, ...]
    kind: str = "scatter"
    apart: tuple[Var, ...] = ()
    block: int = 0
    parts: int = 1
    order: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ArrayKernel:
    """One step of an op on whole arrays; its emitter knows the order of the work.

    op, attrs: the graph op's.  step: which launch of the op this is, where it takes several.
    shapes: of the buffers, in order.
    """

    op: str
    step: str
    attrs: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]
    buffers: tuple[BufferRef, ...]
    kind: str
    values: tuple[Instr, ...] = ()


Kernel = LoopKernel | ContractionKernel | ScatterKernel | ArrayKernel


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with its buffers bound to nodes of the graph.

    arguments: the nodes, in the order of the kernel's buffers.  group: what it was lowered from.
    offsets: the element of each argument at which the kernel's buffer begins; none given: at the
    first.  checks: for each `dynamic` instr, in order, the location of the op that reads by it.
    repeats: the loops that it is part of (`repeat.py`), the outermost first.  sources, checked: the
    nodes that location and checks are taken from, where another launch may have been made of this.
    """

    kernel: Kernel
    arguments: tuple[Any, ...]
    location: Location
    about: str
    group: Any = None
    offsets: tuple[int, ...] = ()
    checks: tuple[Location, ...] = ()
    repeats: tuple[Any, ...] = ()
    sources: tuple[Any, ...] = ()
    checked: tuple[Any, ...] = ()

    def located(self) -> Launch:
        """With the lines of its sources and of what it checks."""
        lines = dict.fromkeys(itertools.chain.from_iterable(
            [source.location for source in self.sources]))
        return replace(self, location=tuple(lines)[:8],
                       checks=tuple([reader.location for reader in self.checked]))

    def offset_of(self, place: int) -> int:
        return self.offsets[place] if self.offsets else 0


def needed(
    values: Sequence[Instr], wanted: Sequence[int], indices: Sequence[Affine] = ()
) -> tuple[int, ...]:
    """The instrs behind some values, in order."""
    stack = list(wanted)
    for index in indices:
        stack += [term.value for term in index.variables() if isinstance(term, Dyn)]
    found: set[int] = set()
    while stack:
        number = stack.pop()
        if number in found:
            continue
        found.add(number)
        stack += values[number].args
        for item in values[number].data:
            if isinstance(item, Affine):
                stack += [term.value for term in item.variables() if isinstance(term, Dyn)]
    return tuple(sorted(found))


def instr_text(number: int, instr: Instr) -> str:
    arguments = [f"%{arg}" for arg in instr.args]
    if instr.op == "load":
        buffer, index = instr.data
        masked = f" if %{instr.args[0]}" if instr.args else ""
        return f"%{number} = load b{buffer}[{index}]{masked} : {instr.dtype.name}"
    arguments += [repr(item) if isinstance(item, float) else str(item) for item in instr.data]
    return f"%{number} = {instr.op}({', '.join(arguments)}) : {instr.dtype.name}"


def _stage_lines(stage: Stage, values: tuple[Instr, ...], indent: str) -> list[str]:
    lines = []
    for axis in stage.axes:
        lines.append(f"{indent}for {axis.name} in {axis.extent}:")
        indent += "  "
    lines += [indent + instr_text(number, values[number]) for number in stage.values]
    for reduction in stage.reductions:
        where = f" at {reduction.position}" if reduction.position is not None else ""
        lines.append(f"{indent}%{reduction.result} {reduction.op}= %{reduction.value}{where}")
    lines += [f"{indent}b{store.buffer}[{store.index}] = %{store.value}" for store in stage.stores]
    for column in stage.columns:
        lines.append(f"{indent}b{column.buffer}[{column.index}] {column.op}= %{column.value}")
    lines += [f"{indent}keep {keep.buffer}[{keep.index}] = %{keep.value}" for keep in stage.keeps]
    return lines


def text(kernel: Kernel) -> str:
    """The kernel as indented text, the same in every process."""
    lines = [f"{kernel.kind} kernel"]
    for number, buffer in enumerate(kernel.buffers):
        lines.append(
            f"  b{number}: {buffer.dtype.name}[{buffer.size}]{' written' if buffer.written else ''}"
        )
    if isinstance(kernel, LoopKernel):
        indent = "  "
        if kernel.block:
            lines.append(f"{indent}parallel for blocks of {kernel.block} rows:")
            indent += "  "
        for axis in kernel.row_axes:
            each = "for" if kernel.block else "parallel for"
            lines.append(f"{indent}{each} {axis.name} in {axis.extent}:")
            indent += "  "
        for stage in kernel.stages:
            lines += _stage_lines(stage, kernel.values, indent)
    elif isinstance(kernel, ContractionKernel):
        sizes = ", ".join(
            f"{v.name} in {v.extent}" for v in (kernel.batch, kernel.m, kernel.n, kernel.k)
        )
        lines.append(f"  contraction over {sizes} in {kernel.dtype.name}")
        for what, numbers, result in (
            ("left", kernel.left_values, kernel.left),
            ("right", kernel.right_values, kernel.right),
        ):
            lines.append(f"    {what} = %{result}:")
            lines += ["      " + instr_text(number, kernel.values[number]) for number in numbers]
        lines.append("    epilogue:")
        lines += _stage_lines(kernel.epilogue, kernel.values, "      ")
    elif isinstance(kernel, ArrayKernel):
        attributes = ", ".join(str(item) for item in kernel.attrs)
        shapes = ", ".join(str(list(shape)) for shape in kernel.shapes)
        lines.append(f"  {kernel.op}({attributes}) {kernel.step} of {shapes}")
    else:
        indent = "  "
        if kernel.parts > 1:
            lines.append(f"{indent}parallel for {kernel.parts} parts, each into a copy:")
            indent += "  "
        if kernel.order is not None:
            positions, places = (f"b{number}" for number in kernel.order)
            lines.append(f"{indent}positions in the order of {positions}, by place in {places}:")
            indent += "  "
        if kernel.block:
            lines.append(f"{indent}parallel for {kernel.block} of {kernel.outer[-1].name} each:")
            indent += "  "
        for axis in kernel.apart:
            lines.append(f"{indent}parallel for {axis.name} in {axis.extent}:")
            indent += "  "
        for axis in (*kernel.outer, *kernel.inner):
            lines.append(f"{indent}for {axis.name} in {axis.extent}:")
            indent += "  "
        lines += [indent + instr_text(number, instr) for number, instr in enumerate(kernel.values)]
        lines.append(f"{indent}b{kernel.target}[{kernel.place}] {kernel.mode}= %{kernel.update}")
    return "\n".join(lines)
