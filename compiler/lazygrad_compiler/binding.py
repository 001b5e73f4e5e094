"""Bindings: where in the program's memory a launch finds its buffers, in whichever round of the
loops that it is part of.

In: places of values (`loops/repeat.py`) and homes of arrays.  Out: a `BoundLaunch` with bindings
over the slots of the program's table, which the entry turns into code (`llvm/entry.py`), or which
`fixed` gives for one round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.loops.repeat import At, InTurn, Place, Repeat, Row


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a kernel's buffer is: slot of the table, plus an offset in bytes."""

    slot: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Advancing:
    """A place that moves by so many bytes with every round of the loop of that depth."""

    start: AnyBinding
    stride: int
    depth: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One place in some rounds of the loop of that depth, another in all others.

    rounds: "first", "last" or "odd".
    """

    rounds: str
    chosen: AnyBinding
    other: AnyBinding
    depth: int


AnyBinding = Binding | Advancing | Choice


@dataclass(frozen=True, slots=True)
class BoundLaunch:
    """kernel: function name.  tasks, grain: for the pool; a grain below zero has chunks taken in
    turn.  checks: whether it can report an error.  library: a library call rather than a kernel.
    repeats: the loops that it is part of, the outermost first, each a number of its own and how
    many rounds it has.
    """

    kernel: str
    arguments: tuple[AnyBinding, ...]
    tasks: int
    grain: int
    checks: bool
    library: bool = False
    repeats: tuple[tuple[int, int], ...] = ()


def slots_of(binding: AnyBinding) -> tuple[int, ...]:
    """The slots of the table that a binding reads."""
    if isinstance(binding, Binding):
        return (binding.slot,)
    if isinstance(binding, Advancing):
        return slots_of(binding.start)
    return (*slots_of(binding.chosen), *slots_of(binding.other))


def binding_of(
    value: Node, repeats: tuple[Repeat, ...], homes: Mapping[Node, Binding], offset: int = 0
) -> AnyBinding:
    """Where a value lies, so many bytes after its beginning, for a launch within those loops."""
    for depth in reversed(range(len(repeats))):
        place = repeats[depth].places.get(value)
        if place is not None:
            return _bound(place, repeats[: depth + 1], homes, offset)
    home = homes[value]
    return Binding(home.slot, home.offset + offset)


def _bound(
    place: Place, repeats: tuple[Repeat, ...], homes: Mapping[Node, Binding], offset: int
) -> AnyBinding:
    """A place in the innermost of the loops; its arrays are bound outside of it."""
    repeat, around = repeats[-1], repeats[:-1]
    if isinstance(place, At):
        return binding_of(place.array, around, homes, offset)
    if isinstance(place, Row):
        stride = place.array.nbytes // repeat.length
        start = stride * (repeat.length - 1) if repeat.reverse else 0
        stride = -stride if repeat.reverse else stride
        start -= stride if place.previous else 0
        base = binding_of(place.array, around, homes, offset + start)
        return Advancing(base, stride, len(around))
    if isinstance(place, InTurn):
        even, odd = (
            binding_of(array, around, homes, offset) for array in (place.even, place.odd)
        )
        if place.previous:
            even, odd = odd, even
        return Choice("odd", odd, even, len(around))
    chosen = binding_of(place.array, around, homes, offset)
    return Choice(place.step, chosen, _bound(place.other, repeats, homes, offset), len(around))


def fixed(
    binding: AnyBinding, repeats: Sequence[tuple[int, int]], rounds: Sequence[int]
) -> Binding:
    """Where a binding is in those rounds of the loops around it."""
    if isinstance(binding, Binding):
        return binding
    current = rounds[binding.depth]
    if isinstance(binding, Advancing):
        start = fixed(binding.start, repeats, rounds)
        return Binding(start.slot, start.offset + current * binding.stride)
    if binding.rounds == "odd":
        chosen = current % 2 == 1
    else:
        length = repeats[binding.depth][1]
        chosen = current == (0 if binding.rounds == "first" else length - 1)
    return fixed(binding.chosen if chosen else binding.other, repeats, rounds)


def in_order(
    launches: Sequence[BoundLaunch], rounds: tuple[int, ...] = (), first: int = 0
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(number of the launch, rounds of the loops around it) in the order in which they run."""
    depth = len(rounds)
    number = 0
    while number < len(launches):
        repeats = launches[number].repeats
        if len(repeats) == depth:
            yield first + number, rounds
            number += 1
            continue
        end = end_of_loop(launches, number, depth)
        for current in range(repeats[depth][1]):
            yield from in_order(launches[number:end], (*rounds, current), first + number)
        number = end


def end_of_loop(launches: Sequence[BoundLaunch], begin: int, depth: int) -> int:
    """The number of the launch after the loop of that depth that begins with a launch."""
    repeat = launches[begin].repeats[depth]
    end = begin
    while end < len(launches) and launches[end].repeats[depth : depth + 1] == (repeat,):
        end += 1
    return end
