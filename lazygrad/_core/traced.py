"""Tracing a function on stand-ins: `trace()` is the room in which `lg.func` runs it.

A stand-in is an `input` node that never gets a value.  Inside the room nothing that depends on one
can be looked at, and pending tensors made there are not registered for the next flush before it is
known that they do not depend on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

from lazygrad._core.context import fail, here, now
from lazygrad_compiler.ir.node import Node, device_of, fresh_input, topological


class Trace:
    """name: the transform, for messages.  stand_ins: nodes without a value.  made: cells that were
    made or written inside, weakly.  outer: the trace around this one.
    """

    def __init__(self, name: str, outer: Trace | None) -> None:
        self.name = name
        self.outer = outer
        self.stand_ins: set[Node] = set()
        self.made: list[Any] = []

    def stand_in(self, value: Node, shape: tuple[int, ...]) -> Node:
        """A node for one item of `value`."""
        made = fresh_input(value.dtype, shape, now.location or here())
        made.differentiable = value.differentiable
        if (device := device_of(value)) is not None:
            made.device = device
        self.stand_ins.add(made)
        return made

    def register(self, cell: Any) -> None:
        self.made.append(ref(cell))

    def depends(self, nodes: Iterable[Node]) -> bool:
        """Whether one of the nodes is made from a stand-in of this room or of one around it."""
        all_stand_ins: set[Node] = set()
        trace: Trace | None = self
        while trace is not None:
            all_stand_ins |= trace.stand_ins
            trace = trace.outer
        return any(node in all_stand_ins
                   for node in topological(nodes, stop=lambda node: node.payload is not None))

    def warned(self) -> None:
        """Warnings are given as elsewhere."""

    def draws(self) -> None:
        """Random numbers are drawn as elsewhere."""

    def observed(self, required: Sequence[Node]) -> None:
        """Computes what is looked at inside, by itself; refuses what has no value here."""
        if self.depends(required):
            raise fail(self.name, "a value of the function's arguments is looked at inside, where "
                       "they stand for many or for any",
                       "Use where(), and operations on tensors instead of Python conditions; "
                       "look at values outside.")
        from lazygrad_runtime import program
        program.execute(required)

    def leave(self) -> None:
        """Hands cells that live on to the room outside; refuses writes that escape."""
        escaped = None
        for reference in self.made:
            cell = reference()
            if cell is None or cell.node.payload is not None:
                continue
            if not self.depends([cell.node]):
                from lazygrad._core import cell as cells
                cells.register(cell)
            elif cell.settled is not None:
                cell.node, cell.tracked = cell.settled
                cell.settled, cell.cache = None, None
                cell.version += 1
                escaped = cell.node
        if escaped is not None:
            raise fail(self.name, "a tensor from outside was changed in place, by values that "
                       "exist for each item only",
                       "Return the new value from the function (batch norm: use eval mode, or "
                       "track_running_stats=False).")


@contextmanager
def trace(name: str) -> Iterator[Trace]:
    """The room; errors inside leave no pending tensor behind."""
    room = Trace(name, now.traced)
    now.traced = room
    try:
        yield room
    except BaseException:
        now.traced = room.outer
        room.made = [each for each in room.made
                     if (cell := each()) is not None and cell.settled is not None]
        with suppress_escape():
            room.leave()
        raise
    now.traced = room.outer
    room.leave()


@contextmanager
def suppress_escape() -> Iterator[None]:
    """While an error of the function is under way, it is the one to report."""
    try:
        yield
    except RuntimeError:
        return
