"""What a value is computed from: the inputs and stored values that its kernel reads."""

from __future__ import annotations

from collections.abc import Callable

from lazygrad_compiler.ir.node import Node


def reads(root: Node, stored: Callable[[Node], bool]) -> list[Node]:
    """The stored values that `root` reads, each once, in the order of its operands.

    What an `again` waits for is not read.
    """
    return [value for value, read in _reached(root, stored).items() if read]


def waits_for(root: Node, stored: Callable[[Node], bool]) -> list[Node]:
    """The stored values that have to be there before `root` is computed: those that it reads, and
    those that it is put off for.
    """
    return list(_reached(root, stored))


def _reached(root: Node, stored: Callable[[Node], bool]) -> dict[Node, bool]:
    """The stored values, and whether they are read."""
    found: dict[Node, bool] = {}
    stack, seen = _operands(root, found), set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if stored(current):
            found[current] = True
        else:
            stack += _operands(current, found)
    return found


def _operands(value: Node, found: dict[Node, bool]) -> list[Node]:
    """The operands, the first last; what the value is put off for is noted."""
    if value.op != "again":
        return list(reversed(value.inputs))
    found.setdefault(value.inputs[1], False)
    return [value.inputs[0]]
