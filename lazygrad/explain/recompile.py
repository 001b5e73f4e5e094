"""`explain recompile`: why a program, or a recording of `lg.compile`, was not one that existed.

A new program is compared with the earlier ones: first with one of the same operations wired alike,
where the difference must be in sizes, dtypes or constants; else with the one that shares most of
its source lines, where the operations differ.  A program whose lines were not seen before is none
that was compiled again.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lazygrad._core import capture
from lazygrad._core.context import line
from lazygrad._core.tensor import Tensor
from lazygrad.explain.lines import place, variable_at
from lazygrad.explain.watch import Seen
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import TYPE_ATTRIBUTES, format_value

MOST_CHANGES = 6
LEAVES = ("input", "const", "iota")
SHARED_LINES = 0.7
"""Of the lines of two programs, from here on they count as one piece of work."""
SHARED_OPERATIONS = 0.5
"""Of the operations of two such programs, by line: with fewer in common one is a training step and
the other an evaluation of the same model, say, and neither is compiled again for the other.
"""


@dataclass(frozen=True, slots=True)
class Recompile:
    """what: `program 3: exp+sum` or `step(...)`.  earlier: what it is compared with.  changes: the
    fields that differ, in words.
    """

    what: str
    earlier: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.what}, unlike {self.earlier}:",
                          *(f"    {change}" for change in self.changes)])


# ---- programs


def structure(graph: Graph) -> tuple:
    """The operations and how they are wired, without sizes, dtypes and constants."""
    numbers: dict[Node, int] = {}
    for node in graph.nodes():
        numbers[node] = len(numbers)
    return (*[(node.op, *[numbers[value] for value in node.inputs]) for node in numbers],
            tuple(numbers[output] for output in graph.outputs))


def explain_program(new: Seen, earlier: Sequence[Seen]) -> Recompile | None:
    """Why the program is new, compared with the nearest earlier one; None where none is near."""
    wanted = structure(new.graph)
    for other in reversed(earlier):
        if structure(other.graph) == wanted:
            changes = field_changes(other.graph, new.graph)
            return _recompile(new, other, changes)
    ours = _lines(new.graph)
    best, shared = None, 0.0
    for other in reversed(earlier):
        theirs = _lines(other.graph)
        overlap = len(ours & theirs) / max(len(ours | theirs), 1)
        if overlap > shared:
            best, shared = other, overlap
    if best is None or shared < SHARED_LINES:
        return None
    have, had = operations_by_line(new.graph), operations_by_line(best.graph)
    if (have & had).total() < SHARED_OPERATIONS * (have | had).total():
        return None
    return _recompile(new, best, input_changes_by_line(best.graph, new.graph)
                      + operation_changes(best.graph, new.graph))


def _recompile(new: Seen, other: Seen, changes: list[str]) -> Recompile:
    shown = list(dict.fromkeys(changes)) or ["another order of the same operations"]
    if len(shown) > MOST_CHANGES:
        shown = [*shown[:MOST_CHANGES], f"and {len(shown) - MOST_CHANGES} more"]
    return Recompile(f"program {new.number:03}: {new.about}",
                     f"program {other.number:03}", tuple(shown))


def _lines(graph: Graph) -> set[tuple[str, int]]:
    return {line for node in graph.nodes() for line in node.location if node.op != "input"}


def type_changes(name: str, before: Any, after: Any, where: str) -> list[str]:
    """Differences of two values with dtype and shape, as `dim 0 of x: 32 -> 33, train.py:40`."""
    changes = []
    if before.dtype is not after.dtype:
        changes.append(f"dtype of {name}: {before.dtype.name} -> {after.dtype.name}, {where}")
    old, new = tuple(before.shape), tuple(after.shape)
    if len(old) != len(new):
        changes.append(f"dimensions of {name}: {list(old)} -> {list(new)}, {where}")
    else:
        changes += [f"dim {axis} of {name}: {a} -> {b}, {where}"
                    for axis, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    return changes


def leaf_name(leaf: Node) -> str:
    """The variable that a value was made for; else what it is."""
    named = variable_at(leaf.location)
    return named or (f"input {leaf.attrs[0]}" if leaf.op == "input" else leaf.op)


def field_changes(before: Graph, after: Graph) -> list[str]:
    """What differs between two graphs of one structure.

    Sizes and dtypes of what the user made (inputs, and constants that have a line to themselves);
    where these are alike, the first value of another size, which the rest follows from; else
    numbers and other attributes.
    """
    pairs = list(zip(before.nodes(), after.nodes(), strict=True))
    computing = {line for _, new in pairs if new.op not in LEAVES for line in new.location}
    made: list[str] = []
    numbers: list[str] = []
    first: list[str] = []
    for old, new in pairs:
        where = place(new.location)
        changes = type_changes(leaf_name(new), old, new, where)
        if new.op == "input" or (new.op in LEAVES and not computing & set(new.location)):
            made += changes
        first = first or changes
        for name, was, now in zip(OPS[new.op].attributes, old.attrs, new.attrs, strict=True):
            if repr(was) != repr(now) and name not in TYPE_ATTRIBUTES and new.op != "input":
                what = "constant" if new.op == "const" else f"{name} of {new.op}"
                numbers.append(f"{what}: {_shown(was)} -> {_shown(now)}, {where}")
    return made or first or numbers


def _shown(value: Any) -> str:
    try:
        return format_value(value, {})
    except (TypeError, ValueError):
        return repr(value)


def input_changes_by_line(before: Graph, after: Graph) -> list[str]:
    """Differences of inputs that stand alone on their line in both graphs."""
    def alone(graph: Graph) -> dict[Any, Node]:
        count = Counter(leaf.location for leaf in graph.inputs())
        return {leaf.location: leaf for leaf in graph.inputs()
                if leaf.location and count[leaf.location] == 1}

    old, new = alone(before), alone(after)
    return [change for location, leaf in new.items() if location in old
            for change in type_changes(leaf_name(leaf), old[location], leaf, place(location))]


def operations_by_line(graph: Graph) -> Counter[tuple[str, str]]:
    """How often each operation is there, by name and lines."""
    return Counter((node.op, place(node.location)) for node in graph.nodes()
                   if node.op not in ("input", "const"))


def operation_changes(before: Graph, after: Graph) -> list[str]:
    """Operations by line that one graph has more of than the other, and the number of results."""
    old, new = operations_by_line(before), operations_by_line(after)
    changes = [f"more: {count} x {op}, {where}" for (op, where), count in (new - old).items()]
    changes += [f"fewer: {count} x {op}, {where}" for (op, where), count in (old - new).items()]
    if len(before.outputs) != len(after.outputs):
        changes.append(f"values wanted: {len(before.outputs)} -> {len(after.outputs)}, "
                       f"{place(after.outputs[-1].location)}")
    return changes


# ---- lg.compile


class Recordings:
    """Between `install` and `remove`, notes each function that `lg.compile` records anew."""

    def __init__(self, note: Any) -> None:
        self.note = note
        self.functions: list[capture.CompiledFunction] = []
        self._keys: dict[int, list[Any]] = {}

    def install(self) -> Recordings:
        capture.recorded_callbacks.append(self._recorded)
        return self

    def remove(self) -> None:
        capture.recorded_callbacks.remove(self._recorded)

    def _recorded(self, function: capture.CompiledFunction, key: Any,
                  tensors: Sequence[Tensor]) -> None:
        if all(known is not function for known in self.functions):
            self.functions.append(function)
        keys = self._keys.setdefault(id(function), [])
        where = line()
        name = getattr(function, "__name__", "function")
        if key in keys:
            changes = _failed_guards(function._entries.get(key, ()), where)
            self.note(Recompile(f"{name}(...) recorded anew", "its recording", tuple(changes)))
        elif keys:
            changes = min((key_changes(function._function, known, key, where)
                           for known in reversed(keys)), key=_distance)
            self.note(Recompile(f"{name}(...) recorded anew", "its recording", tuple(changes)))
        keys.append(key)


def _distance(changes: list[str]) -> tuple[bool, int]:
    return any(change.startswith("arguments given") for change in changes), len(changes)


def _failed_guards(entries: Sequence[Any], where: str) -> list[str]:
    """The guards of the latest recording that fail."""
    for entry in reversed(entries):
        failed = [guard for guard in entry.guards if not guard()]
        if failed:
            return [f"{getattr(guard, 'changed', lambda: 'state that is made anew each time')()}, "
                    f"{where}" for guard in failed]
        return [f"an argument is a view of a tensor that the function changes, {where}"]
    return [f"the recording was given up to make room, {where}"]


@dataclass(frozen=True, slots=True)
class _Typed:
    dtype: DType
    shape: tuple[int, ...]


def key_changes(function: Any, before: Any, after: Any, where: str) -> list[str]:
    """What differs between two signatures of a compiled function."""
    changes: list[str] = []
    old, new = _arguments(function, before[0]), _arguments(function, after[0])
    if old.keys() != new.keys():
        return [f"arguments given: {', '.join(old) or 'none'} -> {', '.join(new) or 'none'}, "
                f"{where}"]
    for name in new:
        changes += _part_changes(name, old[name], new[name], where)
    for what, first, second in list(zip(capture.KEY_PARTS, before, after, strict=True))[1:]:
        if first != second:
            nested = isinstance(first, tuple) or isinstance(second, tuple)
            changes.append(f"{what}, {where}" if nested
                           else f"{what}: {first} -> {second}, {where}")
    return changes or [f"the arguments' structure, {where}"]


def _arguments(function: Any, key: Any) -> dict[str, Any]:
    """A call's signature by the names of parameters."""
    keywords: dict[str, Any] = {}
    if len(key) == 2 and isinstance(key[1], tuple) and key[1][:1] == (dict,) and (
            isinstance(key[0], tuple) and all(isinstance(part, tuple) for part in key[0])):
        key, (_, names, *items) = key
        keywords = dict(zip(names, items, strict=True))
    try:
        names = [name for name in inspect.signature(function).parameters]
    except (TypeError, ValueError):
        names = []
    positional = {names[number] if number < len(names) else f"argument {number}": part
                  for number, part in enumerate(key)}
    return {**positional, **keywords}


def _is_tensor(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) == 3 and isinstance(part[0], DType)


def _part_changes(name: str, old: Any, new: Any, where: str) -> list[str]:
    if old == new:
        return []
    if _is_tensor(old) and _is_tensor(new):
        changes = type_changes(name, _Typed(*old[:2]), _Typed(*new[:2]), where)
        if old[2] != new[2]:
            changes.append(f"requires_grad of {name}: {old[2]} -> {new[2]}, {where}")
        return changes
    nested = [part for part in (old, new) if isinstance(part, tuple) and len(part) >= 2
              and isinstance(part[0], type) and isinstance(part[1], tuple)]
    if len(nested) == 2 and old[:2] == new[:2] and len(old) == len(new):
        labels = new[1] or range(len(new) - 2)
        return [change for label, first, second in zip(labels, old[2:], new[2:], strict=True)
                for change in _part_changes(f"{name}[{label!r}]", first, second, where)]
    return [f"{name}: {_described(old)} -> {_described(new)}, {where}"]


def _described(part: Any) -> str:
    if _is_tensor(part):
        return f"tensor {part[0].name}{list(part[1])}"
    if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], type):
        return part[1] if part[0] in (float, complex) else repr(part[1])
    if isinstance(part, tuple) and len(part) > 2 and isinstance(part[0], type):
        return f"{part[0].__name__} of {len(part) - 2}"
    return repr(part)
