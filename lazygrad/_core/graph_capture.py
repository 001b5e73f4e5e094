"""What `cuda.graph` captures: the work of a `with` block, to be done again on the same tensors.

PyTorch's meaning: nothing is computed while the block is captured; a replay reads what the tensors
outside hold by then, and puts results into the tensors that the block made or wrote, gradients
included.  Nothing else is looked at again: Python's part happened once.

The block is recorded as a function of no arguments is for `compile` (`recorder.py`).  What it made
and what still lives is *awaited* afterwards: until the first replay, looking at it is an error.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any
from weakref import ref

from lazygrad._core import cell as cells
from lazygrad._core.cell import Cell
from lazygrad._core.context import fail, now
from lazygrad._core.guards import NotCapturable
from lazygrad._core.recorder import Recorder
from lazygrad._core.replay import Entry, SetCell, Source, Target
from lazygrad._core.tensor import Tensor, variables
from lazygrad_compiler.artifact import NEVER
from lazygrad_compiler.ir.node import Node, device_of, topological
from lazygrad_runtime.cuda.memory import DeviceBuffer

NAME = "cuda.graph"


class Awaited(DeviceBuffer):
    """Stands for the memory of a result that no replay has computed yet.  line: of its operation.
    """

    __slots__ = ("line",)

    def __init__(self, device: Any, nbytes: int, line: str) -> None:
        super().__init__(device, 0, nbytes, owner=self.__class__)
        self.era = -1  # of no context: whoever reads it asks `check`
        self.line = line

    there = True

    def check(self) -> None:
        raise fail(NAME, f"the result of {self.line} is computed by a replay, and there was none",
                   "Call graph.replay() before looking at it.")


class SetStatic(SetCell):
    """Puts an output into a cell, which stays as differentiable as it was."""

    __slots__ = ()

    def __call__(self, tensors: Sequence[Tensor], leaf: Node) -> None:
        cell = self.reference()
        if cell is not None:
            freed = cells.is_freed(cell.node)
            cell.node = cells.mark(leaf, cells.FREED) if freed else leaf
            cell.cache = cell.settled = None
            cell.version += 1


class GraphCapture(Recorder):
    """A capture under way: from its making on this thread records, until `finish` or `restore`.

    Raises TensorError where a block wants what a replay could not do.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        cells.alone(super().__init__, ())
        self.gradient_owner = {}  # gradients are tensors like others, which replays read and write
        self.recorded.apart = True
        self.begin_listening()

    def on_observation(self, where: str) -> None:
        if now.recording is self.recorded:
            raise fail(NAME, "a value is looked at while the graph is captured, and none is "
                       "computed", "Look at it after graph.replay(), or take it out of the block.")

    def finish(self) -> Entry:
        """The entry whose `replay(())` does the block's work again.  The capture is over."""
        kept: dict[Cell, Awaited] = {}
        try:
            now.recording = None
            entry = cells.alone(self._captured, kept)
        except NotCapturable as reason:
            self.restore()
            raise fail(NAME, f"the block cannot be captured: {reason}") from None
        except BaseException:
            self.restore()
            raise
        gradients = {uid: tensor._grad for uid, tensor in list(variables.items())}
        self.restore()
        for uid, gradient in gradients.items():
            tensor = variables.get(uid)
            if tensor is not None:
                tensor._grad = gradient
        for cell, awaited in kept.items():
            _await(cell, awaited)
        return entry

    def _captured(self, kept: dict[Cell, Awaited]) -> Entry:
        """The entry; `kept` is told the cells whose values replays will bring first."""
        effects: list[tuple[int, Target]] = []
        for cell in self._living():
            made = id(cell) not in self.outside
            if made and not self._adopt(cell):
                continue
            value = cells._value_node(cell.node)
            if device_of(value) in (None, "cpu"):
                if not made or _reads_device(value):
                    raise self._of_the_cpu("is written", value)
                cells.register(cell)  # of the CPU alone: computed when it is looked at
                continue
            effects.append((self.number(cell.node), SetStatic(ref(cell))))
            if made:
                kept[cell] = Awaited(self.device, value.nbytes, _line(value))
        for tensor in self.recorded.mirrors.values():
            self.owners[tensor._cell.node] = tensor._cell
        if self.recorded.blocks:
            self.recorded.before.append(self.recorded.reserve)
        program, graph, leaves = self._program()
        sources = [self._source(leaf) for leaf in leaves]
        entry = Entry(program, graph, sources, _nothing, self._kinds(), effects, self.recorded, ())
        if program is not None:
            entry.donors += _overwritten(entry, sources)
            if hasattr(program, "graph_at_once"):
                program.graph_at_once()
        return entry

    def _living(self) -> list[Cell]:
        """Cells that the block wrote or made, those that nobody has any more left out."""
        gc.collect()
        references = [saved.reference for saved in self.written.values()] + self.recorded.made
        return list({id(cell): cell for reference in references
                     if (cell := reference()) is not None}.values())

    def _source(self, leaf: Node) -> Source:
        cell = self.owners.get(leaf)
        mirrored = any(tensor._cell is cell for tensor in self.recorded.mirrors.values())
        if cell is not None and id(cell) in self.outside and not mirrored \
                and device_of(leaf) in (None, "cpu"):
            raise self._of_the_cpu("is read", leaf)
        return super()._source(leaf)

    def _of_the_cpu(self, what: str, node: Node) -> Exception:
        return fail(NAME, f"a tensor of the CPU, {node.dtype.name}{list(node.shape)} of "
                    f"{_line(node)}, {what} in the block; a replay reads and writes "
                    f"{self.device.label} alone",
                    "Move it to the device before the block, or out of it after graph.replay().")


def _nothing(tensors: Sequence[Tensor], leaves: list[Node]) -> None:
    """A block has no result of its own."""


def _line(node: Node) -> str:
    for file, number in node.location[:1]:
        return f"{os.path.basename(file)}:{number}"
    return "an unknown line"


def _reads_device(node: Node) -> bool:
    """Whether a value follows from one on a device."""
    return any(device_of(each) not in (None, "cpu") for each in topological([node]))


def _await(cell: Cell, awaited: Awaited) -> None:
    """What the block made has no value until a replay."""
    value = cells._value_node(cell.node)
    leaf = cells.leaf(awaited, value.dtype, value.shape, value.location)
    history = cell.tracked and cell.node.differentiable
    cell.node = cells.mark(leaf, cells.FREED) if history else leaf
    cell.cache = cell.settled = None


def _overwritten(entry: Entry, sources: Sequence[Source]) -> list[tuple[Cell, int]]:
    """Cells that replays write and do not read, with their outputs: those may lie where the last
    replay put them, so that addresses stay, and a replay is the launch of its graph alone.
    """
    assert entry.program is not None
    written = [number for number, _ in entry.effects]
    read = {id(source) for source in sources}
    found = []
    for number, target in entry.effects:
        cell = target.reference() if isinstance(target, SetStatic) else None
        if cell is not None and id(cell) not in read and written.count(number) == 1 \
                and entry.program.artifact.donations.writes[number] != NEVER:
            found.append((cell, number))
    return found
