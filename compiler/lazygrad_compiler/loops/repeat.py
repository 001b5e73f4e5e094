"""Lowering of loops: the body's launches, and where each of their buffers lies in which step.

In: a group of the results of one `loop`.  Out: the launches of its body, once, each marked as part
of a `Repeat`.  The program's entry runs them so many times (`llvm/entry.py`).  Nothing is copied
from step to step: a step of a series is a row of the array, what a step gives is stored where the
stacked result has it, and a state is read where the step before stored it, that is, in one of two
buffers in turn, or in a row of the result if the steps give the state as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lazygrad_compiler.ir.loop import Loop
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.arrays import temporary
from lazygrad_compiler.loops.kernel import Launch
from lazygrad_compiler.loops.lower import Group


@dataclass(frozen=True, slots=True)
class At:
    """The whole array."""

    array: Node


@dataclass(frozen=True, slots=True)
class Row:
    """The part of the array that is of this step; of the step before, if previous."""

    array: Node
    previous: bool = False


@dataclass(frozen=True, slots=True)
class InTurn:
    """One array in even steps, another in odd ones; that of the step before, if previous."""

    even: Node
    odd: Node
    previous: bool = False


@dataclass(frozen=True, slots=True)
class Unless:
    """In the first step (or in the last one) that array, else the other place."""

    step: str  # "first" or "last"
    array: Node
    other: Row | InTurn


Place = At | Row | InTurn | Unless


def arrays_of(place: Place) -> tuple[Node, ...]:
    """The arrays that a place may be in."""
    if isinstance(place, Unless):
        return (place.array, *arrays_of(place.other))
    if isinstance(place, InTurn):
        return place.even, place.odd
    return (place.array,)


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """A loop around launches; each is an object of its own.

    places: of values of the body that lie in arrays from outside of it.
    """

    name: str
    length: int
    reverse: bool
    places: Mapping[Node, Place]


def lower_loop(group: Group, lower_body: Callable[[Graph], list[Launch]]) -> list[Launch]:
    """The launches of one step.  lower_body: makes launches of a graph."""
    anchor = group.anchor
    assert anchor is not None
    loop, line = Loop.of(anchor), anchor.location
    if not loop.length:
        return []
    body = loop.opened()
    results = {root.attr("part"): root for root in group.roots if root in group.outputs}
    places: dict[Node, Place] = {}
    places.update(zip(body.constants, map(At, loop.constants), strict=True))
    places.update(zip(body.series, map(Row, loop.series), strict=True))
    outputs: list[Node] = []

    def output(value: Node) -> Node:
        """The value as a node that is computed for this place alone."""
        while value.op == "input" or value in places:
            location = value.location or line
            value = node("reshape", value, shape=value.shape, location=location)
        outputs.append(value)
        return value

    given: dict[Node, Row] = {}
    for number, value in enumerate(body.given):
        result = results.get(loop.carried + number)
        if result is not None:
            places[output(value)] = row = Row(result)
            given.setdefault(value, row)
    for number, (inside, first, later) in enumerate(
        zip(body.states, loop.states, body.next_states, strict=True)
    ):
        result = results.get(number)
        stored: Row | InTurn | None = given.get(later)
        if stored is None or result is not None:
            even, odd = (temporary(later.dtype, later.shape) for _ in range(2))
            stored = InTurn(even, odd)
            places[output(later)] = (
                stored if result is None else Unless("last", result, stored)
            )
        places[inside] = Unless("first", first, replace(stored, previous=True))
    repeat = Repeat(loop.body.name, loop.length, loop.reverse, places)
    return [
        replace(launch, repeats=(repeat, *launch.repeats))
        for launch in lower_body(Graph(tuple(outputs)))
    ]


def spans(launches: Sequence[Launch]) -> dict[Repeat, tuple[int, int]]:
    """The first and the last launch of every loop."""
    found: dict[Repeat, tuple[int, int]] = {}
    for number, launch in enumerate(launches):
        for repeat in launch.repeats:
            first, _ = found.get(repeat, (number, number))
            found[repeat] = first, number
    return found


def touched(launches: Sequence[Launch]) -> Iterator[tuple[int, Node]]:
    """(launch, array) for all that launches read and write, in order.

    Launches of a loop touch what lies outside of it from the loop's first launch to its last, since
    every step does it again.
    """
    limits = spans(launches)
    events: list[dict[Node, None]] = [{} for _ in launches]
    for number, launch in enumerate(launches):
        waiting = [(number, value, launch.repeats) for value in reversed(launch.arguments)]
        while waiting:
            at, value, repeats = waiting.pop()
            inner = next((k for k in reversed(range(len(repeats))) if value in repeats[k].places),
                         None)
            if inner is None:
                events[at][value] = None
                continue
            waiting += [
                (end, array, repeats[:inner])
                for array in arrays_of(repeats[inner].places[value])
                for end in limits[repeats[inner]]
            ]
    for number, values in enumerate(events):
        for value in values:
            yield number, value
