"""What a recording takes for granted: `Recording`, and guards on Python state.

A guard is a callable that gives True as long as nothing has changed.  Guards hold on to the objects
that they compare by identity, so that no identity is given out twice.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Container, Sequence
from operator import attrgetter, is_, itemgetter
from typing import Any

from lazygrad._core import cell as cells
from lazygrad._core.context import fail, line, now
from lazygrad._core.tensor import Tensor
from lazygrad_compiler.ir.node import Node
from lazygrad_runtime.memory import Buffer


class NotCapturable(Exception):
    """Something in the function needs a value, or a result carries history; the function then runs
    without replay.
    """


class Recording:
    """What a function under capture reports, and what replays must look at again.

    guards: callables that must give True for a recording to be replayed.  before, after: called
    around each replay, to refresh tensors that mirror Python state (an optimiser's learning rate).
    parameters: tensors whose gradients decide what was recorded.  made: cells made meanwhile.
    mirrors: tensors that stand for Python values.  draws: leaves that hold a random generator's
    state, each with the blocks drawn before it; a replay moves the generator on by `blocks`.
    apart: whether flushes, which other threads may ask for, leave what is made out.
    """

    def __init__(self) -> None:
        self.guards: list[Callable[[], bool]] = []
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        self.parameters: list[Tensor] = []
        self.made: list[Any] = []
        self.mirrors: dict[Any, Tensor] = {}
        self.watched: dict[int, Any] = {}
        self.draws: dict[Node, tuple[Any, int]] = {}
        self.blocks: dict[Any, int] = {}
        self.first_block: dict[Any, int] = {}
        self.apart = False

    def draw(self, generator: Any, blocks: int) -> Node:
        """A generator's state for one random call, as an input of the program."""
        leaf = cells.leaf_of_array(generator._state())
        drawn = self.blocks.get(generator, 0)
        self.draws[leaf] = generator, drawn
        self.blocks[generator] = drawn + blocks
        return leaf

    def reserve(self) -> None:
        """Ahead of a replay: takes the random numbers that it will use."""
        for generator, blocks in self.blocks.items():
            with generator._lock:
                self.first_block[generator] = generator._offset
                generator._offset += blocks

    def drawn(self, generator: Any, earlier: int) -> Buffer:
        state = generator._state()
        state[1] = self.first_block[generator] + earlier
        return Buffer.from_numpy(state)

    def mirror(self, name: Any, refresh: Callable[[], Tensor]) -> Tensor:
        """The tensor that stands for a Python value under `name`: `refresh` brings it up to date
        and gives it, now and ahead of each replay.
        """
        if name not in self.mirrors:
            now.recording = None
            try:
                self.mirrors[name] = refresh()
            finally:
                now.recording = self
            self.before.append(refresh)  # type: ignore[arg-type]
        return self.mirrors[name]

    def watch(self, thing: Any, names: Container[str] | None = None) -> None:
        """Numbers, tensors and parts among the attributes of `thing` (or those of the names) must
        stay as they are.
        """
        if id(thing) not in self.watched:
            self.watched[id(thing)] = thing
            self.guards.append(watch_attributes(thing, names))

    def refuse(self, what: str) -> None:
        """For operations that cannot be replayed."""
        if self.apart:
            raise fail("cuda.graph", what, "Take it out of the block.")
        raise NotCapturable(f"{what}, at {line()}")


_PLAIN = (int, float, bool, str, complex, type(None))
_HOLDERS = (dict, list, tuple)


def _seen(value: Any, kept: list[Any]) -> Any:
    """What is compared of a value: itself where it is plain, else its identity (and, of a tensor,
    that of its cell).
    """
    if type(value) in _PLAIN:
        return repr(value) if type(value) is float else (type(value), value)
    kept.append(value)
    if isinstance(value, Tensor):
        kept.append(value._cell)
        return (id(value), id(value._cell))
    return id(value)


_EMPTY = object()
"""Stands for a variable of a closure that has no value yet."""


def _same_plain(left: Any, right: Any) -> bool:
    """Whether two different objects are the same number, string or None."""
    return type(left) in _PLAIN and _seen(left, []) == _seen(right, [])


def _is_short(value: Any) -> bool:
    return type(value) in _PLAIN


def watch_attributes(thing: Any, names: Container[str] | None = None) -> Callable[[], bool]:
    """A guard on the attributes of an object: plain values, tensors, and what the dicts, lists and
    tuples among them hold (a module's parameters, buffers, parts and hooks).  Lists may grow.
    """
    attributes = thing.__dict__
    watched = {name: value for name, value in attributes.items() if names is None or name in names}
    plain = [name for name, value in watched.items() if type(value) in _PLAIN]
    tensors = [name for name, value in watched.items() if isinstance(value, Tensor)]
    holders = [value for value in watched.values() if isinstance(value, _HOLDERS)]
    pick: Callable[[Any], Any] = itemgetter(*plain) if plain else lambda attributes: None
    before = pick(attributes)
    kept: list[Any] = []
    seen_tensors = [_seen(attributes[name], kept) for name in tensors]

    def contents(holder: Any) -> list[int]:
        return [id(value._cell) if isinstance(value, Tensor) else id(value)
                for value in (holder.values() if isinstance(holder, dict) else holder)]

    held = []
    for holder in holders:
        values = list(holder.values() if isinstance(holder, dict) else holder)
        kept += [value._cell for value in values if isinstance(value, Tensor)]
        kept += values
        held.append((holder, contents(holder)))

    def holds() -> bool:
        try:
            if pick(attributes) != before:
                return False
            for name, seen in zip(tensors, seen_tensors, strict=True):
                if _seen(attributes[name], []) != seen:
                    return False
        except KeyError:
            return False
        return all(contents(holder) == seen if isinstance(holder, dict)
                   else contents(holder[: len(seen)]) == seen for holder, seen in held)

    def changed() -> str:
        """What does not hold any more, for people."""
        kind = type(thing).__name__
        now_there = [name for name in plain if name not in attributes
                     or _seen(attributes[name], []) != _seen(watched[name], [])]
        moved = [name for name, seen in zip(tensors, seen_tensors, strict=True)
                 if name not in attributes or _seen(attributes[name], []) != seen]
        parts = [f"{kind}.{name}: {watched[name]!r} -> {attributes.get(name)!r}"
                 for name in now_there]
        parts += [f"{kind}.{name} is another tensor" for name in moved]
        return "; ".join(parts) or f"what a list or dict of {kind} holds"

    holds.kept = kept  # type: ignore[attr-defined]
    holds.changed = changed  # type: ignore[attr-defined]
    holds.watched = _Watched(attributes, plain, tensors, holders)  # type: ignore[attr-defined]
    holds.checks = holds.watched.checks(plain)  # type: ignore[attr-defined]
    return holds


class _Watched:
    """The attributes of one object as they were: those of plain values, those that are tensors, and
    dicts, lists and tuples.
    """

    def __init__(self, attributes: dict[str, Any], plain: list[str], tensors: list[str],
                 holders: list[Any]) -> None:
        self.attributes = attributes
        self.pick = itemgetter(*plain) if plain else None
        self.before = None if self.pick is None else self.pick(attributes)
        self.tensors = [(name, attributes[name]) for name in tensors]
        self.empty = [holder for holder in holders if isinstance(holder, dict) and not holder]
        self.dicts = [(holder, list(map(id, holder.values())))
                      for holder in holders if isinstance(holder, dict) and holder]
        self.lists = [(holder, list(map(id, holder)))
                      for holder in holders if isinstance(holder, list) and holder]
        values = [value for holder in holders
                  for value in (holder.values() if isinstance(holder, dict) else holder)]
        self.handles = [value for value in (*values, *[tensor for _, tensor in self.tensors])
                        if isinstance(value, Tensor)]
        self.cells = list(map(_cell_of, self.handles))

    def checks(self, plain: Sequence[str]) -> list[tuple[Any, ...]]:
        """The same for native code, which compares by identity (`_core.plans`)."""
        return [
            *[("item", self.attributes, name, self.attributes[name]) for name in plain],
            *[("item", self.attributes, name, tensor) for name, tensor in self.tensors],
            *[("handle", tensor, cell)
              for tensor, cell in zip(self.handles, self.cells, strict=True)],
            *[("empty", holder) for holder in self.empty],
            *[("values", holder, list(holder.values())) for holder, _ in self.dicts],
            *[("list", holder, list(holder)) for holder, _ in self.lists],
        ]


_cell_of = attrgetter("_cell")


def merged(guards: Sequence[Callable[[], bool]]) -> Callable[[], bool]:
    """One guard for all: those on attributes are looked at together, mostly by loops of the
    interpreter's own, and one by one only if something is not the very object that it was.

    (Guards on a model of five modules took 11 us of a replay, and take 2.)
    """
    watched = [guard.watched for guard in guards  # type: ignore[attr-defined]
               if hasattr(guard, "watched")]
    others = [guard for guard in guards if not hasattr(guard, "watched")]
    picks = [(each.pick, each.attributes, each.before) for each in watched if each.pick]
    tensors = [(each.attributes, name, tensor) for each in watched
               for name, tensor in each.tensors]
    empty = [holder for each in watched for holder in each.empty]
    dicts = [entry for each in watched for entry in each.dicts]
    lists = [entry for each in watched for entry in each.lists]
    handles = [handle for each in watched for handle in each.handles]
    cells_before = [cell for each in watched for cell in each.cells]

    def unchanged() -> bool:
        for pick, attributes, before in picks:
            if pick(attributes) != before:
                return False
        for attributes, name, tensor in tensors:
            if attributes[name] is not tensor:
                return False
        for holder, seen in dicts:
            if list(map(id, holder.values())) != seen:
                return False
        for holder, seen in lists:
            if list(map(id, holder)) != seen:
                return False
        return not any(empty) and list(map(_cell_of, handles)) == cells_before

    def holds() -> bool:
        for guard in others:
            if not guard():
                return False
        try:
            if unchanged():
                return True
        except KeyError:
            return False
        return all(guard() for guard in guards)

    return holds if watched else lambda: all(guard() for guard in others)


def _names_read(function: Any, kind: type) -> set[str]:
    """Attribute names in the code of a method, and in that of the methods that it names."""
    names: set[str] = set()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for name in set(code.co_names) - names:
            names.add(name)
            found: Any = getattr(kind, name, None)
            found = getattr(found, "fget", found)
            if hasattr(found, "__code__"):
                waiting.append(found.__code__)
    return names


def watch_function(function: Any, recorded: Recording) -> None:
    """Guards on what a function reads besides its arguments: its closure, the global variables that
    it names, and the attributes of the object that it is bound to.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        owner, function = function.__self__, function.__func__
        if hasattr(owner, "__dict__") and hasattr(function, "__code__"):
            recorded.watch(owner, _names_read(function, type(owner))
                           - getattr(type(owner), "moved_by_replays", frozenset()))
    code = getattr(function, "__code__", None)
    if code is None:
        return
    variables = function.__globals__
    names = [name for name in code.co_names if name in variables]
    closure = function.__closure__ or ()

    def look() -> list[Any]:
        found = list(map(variables.get, names))
        for enclosed in closure:
            try:
                found.append(enclosed.cell_contents)
            except ValueError:
                found.append(_EMPTY)
        return found

    before = look()
    tensors = [(value, value._cell) for value in before if isinstance(value, Tensor)]

    def holds() -> bool:
        found = look()
        if not all(map(is_, found, before)):
            for value, expected in zip(found, before, strict=True):
                if value is not expected and not _same_plain(value, expected):
                    return False
        for tensor, cell in tensors:  # noqa: SIM110 - on the path of every replay
            if tensor._cell is not cell:
                return False
        return True

    enclosed_names = [*names, *code.co_freevars]

    def changed() -> str:
        return "; ".join(
            f"{name}: {expected!r} -> {value!r}" if _is_short(value) and _is_short(expected)
            else f"{name} is another {type(value).__name__}"
            for name, value, expected in zip(enclosed_names, look(), before, strict=False)
            if value is not expected and not _same_plain(value, expected)
        ) or "a tensor that the function names was replaced"

    holds.changed = changed  # type: ignore[attr-defined]
    if _EMPTY not in before:
        holds.checks = [  # type: ignore[attr-defined]
            *[("item", variables, name, variables[name]) for name in names],
            *[("enclosed", enclosed, enclosed.cell_contents) for enclosed in closure],
            *[("handle", tensor, cell) for tensor, cell in tensors],
        ]
    recorded.guards.append(holds)
