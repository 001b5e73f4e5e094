"""Replaying a recording: where a program's inputs come from, and where its outputs go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import ref

import numpy

from lazygrad._core import cell as cells
from lazygrad._core.cell import Cell, View
from lazygrad._core.guards import Recording, merged
from lazygrad._core.nests import parts_of, rebuild
from lazygrad._core.tensor import Tensor, known_tensor, make_views, raw_node, wrap, write
from lazygrad_compiler.ir.node import Graph, Node, fresh_input
from lazygrad_runtime import program as programs
from lazygrad_runtime.memory import Buffer

Source = Cell | Callable[[Sequence[Tensor]], Buffer]
"""Where an input comes from: the present value of a cell, or a function of the arguments."""

Target = Callable[[Sequence[Tensor], Node], None]


class Entry:
    """One recording: the program, where its inputs come from, where its outputs go."""

    def __init__(
        self,
        program: programs.Program | None,
        graph: Graph | None,
        sources: list[Source],
        result: Callable[[Sequence[Tensor], list[Node]], Any],
        kinds: list[tuple[Any, Any, Any]],
        effects: list[tuple[int, Target]],
        recorded: Recording,
        conflicting: Iterable[Cell],
    ) -> None:
        self.program = program
        self.graph = graph  # of the program, canonical: its lines are for errors
        self.sources = sources
        self.result = result
        self.output = getattr(result, "number", -1)  # where the result is an output, which
        self.kinds = kinds  # dtype, shape and line of each output
        self.effects = effects
        self.guards = recorded.guards
        self.unchanged = merged(recorded.guards)
        self.before = recorded.before
        self.after = recorded.after
        self.tuning_seconds = 0.0  # to spend on tuning the program before it first runs
        self.donors = donors(program, sources, kinds, effects)
        # Weak, but checked: the identity of a dead cell is given out again.
        self.conflicting = {id(cell): ref(cell) for cell in conflicting}
        self.replays = 0

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether everything that was taken for granted is so still."""
        conflicting = self.conflicting
        if conflicting:
            for tensor in tensors:
                found = conflicting.get(id(tensor._cell))
                if found is not None and found() is tensor._cell:
                    return False
        return self.unchanged()

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        return cells.alone(self._replay, tensors)

    def _replay(self, tensors: Sequence[Tensor]) -> Any:
        for refresh in self.before:
            refresh()
        leaves = []
        if self.program is not None:
            donated = self._donated() if self.donors else None
            made = self._run(self._inputs(tensors), donated)
            for buffer, kind in zip(made, self.kinds):
                leaf = fresh_input(*kind)
                leaf.payload = buffer
                if buffer.device is not None:
                    leaf.device = buffer.device.label
                leaves.append(leaf)
        for number, target in self.effects:
            target(tensors, leaves[number])
        for notice in self.after:
            notice()
        return self.result(tensors, leaves)

    def _run(self, inputs: list[Buffer], donated: dict[int, Buffer] | None) -> list[Buffer]:
        assert self.program is not None and self.graph is not None
        if self.tuning_seconds:
            self._tune(inputs)
        try:
            return self.program.run(inputs, donated)
        except programs.FAILED_LAUNCHES as error:
            raise programs.recorded(error, self.program, self.graph) from None
        except MemoryError as error:
            raise programs.out_of_memory(error, self.graph) from None

    def _tune(self, inputs: list[Buffer]) -> None:
        from lazygrad.explain.tuning import Progress
        from lazygrad_runtime.tune import tuned_program

        assert self.program is not None and self.graph is not None
        progress = Progress()
        try:
            self.program = tuned_program(
                self.program, self.graph, inputs, progress, self.tuning_seconds
            )
        finally:
            progress.clear()
        self.tuning_seconds = 0.0

    def _donated(self) -> dict[int, Buffer]:
        """The buffers of cells that this replay writes, where nobody else holds their values."""
        found = {}
        for cell, number in self.donors:
            node = cell.node
            buffer = node.payload
            if (
                buffer is not None
                and buffer.owner is None
                and sys.getrefcount(node) == _HELD_BY_CELL
                and sys.getrefcount(buffer) == _HELD_BY_CELL
                and (buffer.device is None or buffer.there)
            ):
                found[number] = buffer
        return found

    def _inputs(self, tensors: Sequence[Tensor]) -> list[Buffer]:
        found = []
        for source in self.sources:
            if source.__class__ is Cell:
                buffer = source.node.payload
                found.append(buffer_of(source) if buffer is None else buffer)
            else:
                found.append(source(tensors))  # type: ignore[operator]
        return found


_HELD_BY_CELL = 3
"""References to what only its cell (or node) holds, counted while it is a local variable: the
holder's, the variable's, and the argument of `getrefcount`.
"""


def donors(
    program: programs.Program | None,
    sources: Sequence[Source],
    kinds: Sequence[tuple[Any, Any, Any]],
    effects: Sequence[tuple[int, Target]],
) -> list[tuple[Cell, int]]:
    """Cells that a replay reads and then writes, with the number of the output that they take,
    where that may be written over the old value.
    """
    if program is None:
        return []
    places = {id(source): number for number, source in enumerate(sources)
              if source.__class__ is Cell}
    written = [number for number, _ in effects]
    found = []
    for number, target in effects:
        cell = target.reference() if isinstance(target, SetCell) else None
        if cell is None or id(cell) not in places or written.count(number) > 1:
            continue
        dtype, shape, _ = kinds[number]
        if (cell.node.dtype, cell.node.shape) == (dtype, shape) and \
                program.artifact.donations.allowed(places[id(cell)], number):
            found.append((cell, number))
    return found


def buffer_of(cell: Cell) -> Buffer:
    """The present value of a cell, computed if it is pending."""
    node = cells._value_node(cell.node)
    if node.op != "const" and node.payload is None:
        cells.flush()
        node = cells._value_node(cell.node)
    return payload(node)


def payload(node: Node) -> Buffer:
    if node.payload is None and node.op == "const":
        return Buffer.from_numpy(numpy.full(node.shape, node.attrs[0], node.dtype.numpy))
    if node.payload is None:
        cells.flush(node)
    return node.payload


def argument_buffer(tensor: Tensor) -> Buffer:
    """The present value of a tensor, row-major."""
    if tensor._view is None or not tensor._view.steps:
        buffer = tensor._cell.node.payload
        return buffer_of(tensor._cell) if buffer is None else buffer
    return payload(cells._value_node(raw_node(tensor)))


class ArgumentSource:
    """An input that is an argument of the call."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position

    def __call__(self, tensors: Sequence[Tensor]) -> Buffer:
        return argument_buffer(tensors[self.position])


class KnownSource:
    """An input that is the same each time: data that the function made while it was recorded."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer

    def __call__(self, tensors: Sequence[Tensor]) -> Buffer:
        return self.buffer


class SetCell:
    """Puts an output into a cell, if that still lives."""

    __slots__ = ("reference",)

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def __call__(self, tensors: Sequence[Tensor], leaf: Node) -> None:
        cell = self.reference()
        if cell is not None:
            cell.node, cell.tracked, cell.cache, cell.settled = leaf, False, None, None
            cell.version += 1


def set_argument(position: int) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        write(tensors[position], "compile", leaf)

    return put


def set_gradient(owner: Any) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        tensor = owner()
        if tensor is not None:
            SetCell(ref(tensor._grad._cell))(tensors, leaf)

    return put


def new_gradient(owner: Any) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        tensor = owner()
        if tensor is not None:
            tensor._grad = wrap(leaf)

    return put


def drop_gradient(owner: Any) -> Callable[[], None]:
    def drop() -> None:
        tensor = owner()
        if tensor is not None:
            tensor._grad = None

    return drop


class Output:
    """A result computed by the program; tensors returned twice are one tensor again."""

    def __init__(self, number: int, identity: int) -> None:
        self.number, self.identity = number, identity


class Argument:
    def __init__(self, position: int) -> None:
        self.position = position


class ArgumentView:
    """A view of an argument (or another handle on its memory), so that writes to one reach the
    other, as where the function is not compiled.
    """

    def __init__(self, position: int, view: View | None) -> None:
        self.position, self.view = position, view

    def of(self, argument: Tensor) -> Tensor:
        view = self.view
        if view is None:
            return argument.detach()
        # the strides that were recorded are those on an argument that lies row by row
        strides = view.strides if argument.is_contiguous() else None
        result = make_views(argument, view.steps, view.shape, strides)  # type: ignore[arg-type]
        made = result._view
        if view.dtype is not None and made is not None:
            made.dtype = view.dtype
        return result


class Same:
    """A tensor outside that the function gives back as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class OneOutput:
    """Gives a tensor for one of the outputs."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, tensors: Sequence[Tensor], leaves: list[Node]) -> Tensor:
        return known_tensor(leaves[self.number])


def builder(shaped: Any) -> Callable[[Sequence[Tensor], list[Node]], Any]:
    """Makes a function from arguments and output leaves to the result's nest."""
    if shaped.__class__ is Output:
        return OneOutput(shaped.number)

    def build(tensors: Sequence[Tensor], leaves: list[Node]) -> Any:
        return _filled(shaped, tensors, leaves, {})

    return build


def _filled(
    part: Any, tensors: Sequence[Tensor], leaves: list[Node], made: dict[int, Tensor]
) -> Any:
    """A nest with tensors where places for them are.  (Not a closure that calls itself: such a
    cycle would keep the leaves, and the memory behind them, until the garbage is collected.)
    """
    if part.__class__ is Output:
        if part.identity not in made:
            made[part.identity] = known_tensor(leaves[part.number])
        return made[part.identity]
    if part.__class__ is Argument:
        return tensors[part.position]
    if part.__class__ is ArgumentView:
        return part.of(tensors[part.position])
    if part.__class__ is Same:
        return part.tensor
    items = parts_of(part)
    if items is None:
        return part
    return rebuild(part, [_filled(item, tensors, leaves, made) for item in items])
