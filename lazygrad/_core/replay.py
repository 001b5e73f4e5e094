"""Replaying a recording: where a program's inputs come from, and where its outputs go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import ref

import numpy

from lazygrad._core import cell as cells
from lazygrad._core.cell import Cell
from lazygrad._core.guards import Recording
from lazygrad._core.nests import parts_of, rebuild
from lazygrad._core.tensor import Tensor, raw_node, wrap, write
from lazygrad_compiler.ir.node import Node
from lazygrad_runtime import program as programs
from lazygrad_runtime.memory import Buffer

Source = Callable[[Sequence[Tensor]], Buffer]
Target = Callable[[Sequence[Tensor], Node], None]


class Entry:
    """One recording: the program, where its inputs come from, where its outputs go."""

    def __init__(
        self,
        program: programs.Program | None,
        sources: list[Source],
        result: Callable[[Sequence[Tensor], list[Node]], Any],
        kinds: list[tuple[Any, Any]],
        effects: list[tuple[int, Target]],
        recorded: Recording,
        conflicting: Iterable[Cell],
    ) -> None:
        self.program = program
        self.sources = sources
        self.result = result
        self.kinds = kinds  # (dtype, shape) of each output
        self.effects = effects
        self.guards = recorded.guards
        self.before = recorded.before
        self.after = recorded.after
        # Weak, but checked: the identity of a dead cell is given out again.
        self.conflicting = {id(cell): ref(cell) for cell in conflicting}

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether everything that was taken for granted is so still."""
        conflicting = self.conflicting
        if conflicting:
            for tensor in tensors:
                found = conflicting.get(id(tensor._cell))
                if found is not None and found() is tensor._cell:
                    return False
        return all(guard() for guard in self.guards)

    def replay(self, tensors: Sequence[Tensor]) -> Any:
        with cells._lock:
            for refresh in self.before:
                refresh()
            leaves = []
            if self.program is not None:
                made = self.program.run([source(tensors) for source in self.sources])
                leaves = [
                    cells.leaf(buffer, *kind) for buffer, kind in zip(made, self.kinds, strict=True)
                ]
            for number, target in self.effects:
                target(tensors, leaves[number])
            for notice in self.after:
                notice()
            return self.result(tensors, leaves)


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
        return buffer_of(tensor._cell)
    return payload(cells._value_node(raw_node(tensor)))


def set_cell(reference: Any) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        cell = reference()
        if cell is not None:
            cell.node, cell.tracked, cell.cache, cell.settled = leaf, False, None, None
            cell.version += 1

    return put


def set_argument(position: int) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        write(tensors[position], "compile", leaf)

    return put


def set_gradient(owner: Any) -> Target:
    def put(tensors: Sequence[Tensor], leaf: Node) -> None:
        tensor = owner()
        if tensor is not None:
            set_cell(ref(tensor._grad._cell))(tensors, leaf)

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


class Same:
    """A tensor outside that the function gives back as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def builder(shaped: Any) -> Callable[[Sequence[Tensor], list[Node]], Any]:
    """Makes a function from arguments and output leaves to the result's nest."""

    def build(tensors: Sequence[Tensor], leaves: list[Node]) -> Any:
        made: dict[int, Tensor] = {}

        def fill(part: Any) -> Any:
            if part.__class__ is Output:
                if part.identity not in made:
                    made[part.identity] = wrap(leaves[part.number])
                return made[part.identity]
            if part.__class__ is Argument:
                return tensors[part.position]
            if part.__class__ is Same:
                return part.tensor
            items = parts_of(part)
            return part if items is None else rebuild(part, [fill(item) for item in items])

        return fill(shaped)

    return build
