"""Loops: a body, which is a graph, repeated over the leading axis of its series.

The node `loop(states…, series…, constants…, body, carried, stepped, length, reverse, part)` runs
the body `length` times.  The body (a `Body`) is a graph over placeholders: first the `carried`
states, then one step of each of the `stepped` series (which have the steps as axis 0), then values
that are the same in every step.  Its outputs are the next states, then what each step gives.  The
node's value is its result number `part`: below `carried` the last state, from there on what the
steps gave, stacked along a new axis 0.  All results of one loop are nodes that differ in `part`
only, and are computed together.  reverse: the last step comes first; steps stay at their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from lazygrad_compiler.ir.composite import FIRST_PLACEHOLDER, placeholder
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import (
    Dim,
    IRError,
    Location,
    Node,
    Shape,
    build,
    fresh_input,
    merge_locations,
    named,
    node,
    rebuild,
    topological,
)

Key = tuple[Any, ...]

Signature = tuple[tuple[DType, Shape], ...]


class Body:
    """A graph to be repeated.  Make it with `body(...)`.

    outputs: its results, over placeholders.  inputs: dtype and shape of each of those.  lines: of
    all loops that had it, or what it was made from: its nodes name those of the first one.
    """

    __slots__ = ("__weakref__", "inputs", "lines", "name", "outputs")

    def __init__(
        self,
        name: str,
        outputs: tuple[Node, ...],
        inputs: Signature,
        lines: set[tuple[str, int]],
    ) -> None:
        self.name = name
        self.outputs = outputs
        self.inputs = inputs
        self.lines = lines

    def __repr__(self) -> str:
        return self.name


_bodies: WeakValueDictionary[Any, Body] = WeakValueDictionary()


def body_of(
    name: str, outputs: Sequence[Node], inputs: Signature, source: Body | None = None
) -> Body:
    """The one body of that name and graph.  source: what it was made from."""
    key = (name, tuple(outputs), inputs)
    found = _bodies.get(key)
    if found is None:
        lines = set() if source is None else source.lines
        found = _bodies.setdefault(key, Body(*key, lines))
    elif source is not None:
        found.lines |= source.lines
    return found


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop, whatever of its results is looked at."""

    inputs: tuple[Node, ...]
    body: Body
    carried: int
    stepped: int
    length: int
    reverse: bool
    location: Location

    @staticmethod
    def of(value: Node) -> Loop:
        """The loop that a `loop` node is a result of."""
        body, carried, stepped, length, reverse, _ = value.attrs
        return Loop(value.inputs, body, carried, stepped, length, reverse, value.location)

    @property
    def states(self) -> tuple[Node, ...]:
        return self.inputs[: self.carried]

    @property
    def series(self) -> tuple[Node, ...]:
        return self.inputs[self.carried : self.carried + self.stepped]

    @property
    def constants(self) -> tuple[Node, ...]:
        return self.inputs[self.carried + self.stepped :]

    @property
    def placeholders(self) -> tuple[Node, ...]:
        """The body's inputs, in order."""
        return placeholders(self.body)

    @property
    def next_states(self) -> tuple[Node, ...]:
        return self.body.outputs[: self.carried]

    @property
    def given(self) -> tuple[Node, ...]:
        """What each step gives, as nodes of the body."""
        return self.body.outputs[self.carried :]

    def part(self, number: int) -> Node:
        return node(
            "loop",
            *self.inputs,
            body=self.body,
            carried=self.carried,
            stepped=self.stepped,
            length=self.length,
            reverse=self.reverse,
            part=number,
            location=self.location,
        )

    def parts(self) -> list[Node]:
        return [self.part(number) for number in range(len(self.body.outputs))]

    def opened(self) -> Opened:
        """The body over inputs that occur nowhere else.  Its nodes name this loop's lines where
        they named those of another loop with such a body.
        """
        inside = tuple(fresh_input(each.dtype, each.shape, ()) for each in self.placeholders)
        outputs = copied(self.body.outputs, dict(zip(self.placeholders, inside, strict=True)))
        others = self.body.lines.difference(self.location)
        for each in reached(outputs, inside).difference(inside):
            if not each.location:
                each.location = self.location
            elif not others.isdisjoint(each.location):
                lines = [self.location if line in others else (line,) for line in each.location]
                moved = merge_locations(*lines)
                operation = getattr(each.location, "operation", None)
                each.location = named(moved, operation) if operation else moved
        return Opened(self, inside, outputs)

    def with_given(self, more: Sequence[Node]) -> Loop:
        """The loop whose steps also give these nodes of the body, after all others."""
        if not more:
            return self
        body = self.body
        body = body_of(body.name, (*body.outputs, *more), body.inputs, body)
        return replace(self, body=body)


@dataclass(frozen=True, slots=True)
class Opened:
    """A body to work on: its nodes are in no other graph, whatever graph the loop is a part of.

    inputs: what stands for the loop's inputs.  outputs: as of the body.
    """

    loop: Loop
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @property
    def states(self) -> tuple[Node, ...]:
        return self.inputs[: self.loop.carried]

    @property
    def series(self) -> tuple[Node, ...]:
        return self.inputs[self.loop.carried : self.loop.carried + self.loop.stepped]

    @property
    def constants(self) -> tuple[Node, ...]:
        return self.inputs[self.loop.carried + self.loop.stepped :]

    @property
    def next_states(self) -> tuple[Node, ...]:
        return self.outputs[: self.loop.carried]

    @property
    def given(self) -> tuple[Node, ...]:
        return self.outputs[self.loop.carried :]

    def closed(self, values: Sequence[Node]) -> tuple[Node, ...]:
        """Nodes of the opened body as nodes of the body."""
        return copied(values, dict(zip(self.inputs, self.loop.placeholders, strict=True)))


def siblings(value: Node) -> Key:
    """What all results of one loop have in common, and nothing else has."""
    return value.inputs, value.attrs[:5]


def placeholders(body: Body) -> tuple[Node, ...]:
    return tuple(placeholder(k, dtype, shape) for k, (dtype, shape) in enumerate(body.inputs))


def make_loop(
    name: str,
    states: Sequence[tuple[Node, Node, Node]],
    series: Sequence[tuple[Node, Node]],
    constants: Sequence[tuple[Node, Node]],
    given: Sequence[Node],
    length: int,
    reverse: bool = False,
    location: Location = (),
    source: Body | None = None,
) -> Loop:
    """A loop from a body over any nodes.

    states: (what stands for the state in the body, its first value, the next state).  series,
    constants: (what stands for a step of it, or for it; its value).  given: what each step gives.
    source: a body that this one was made from.
    Raises IRError where a next state differs from the state in dtype or shape, or the body reads
    an `input` that nothing is said about.
    """
    inside = [stand_in for stand_in, *_ in (*states, *series, *constants)]
    mapping: dict[Node, Node] = {}
    for stand_in in inside:
        mapping[stand_in] = placeholder(len(mapping), stand_in.dtype, stand_in.shape)
    if len(mapping) != len(inside):
        raise IRError(f"[loop] {name}: one node stands for two inputs of the body")
    outputs = copied((*(state[2] for state in states), *given), mapping)
    signature = tuple((stand_in.dtype, stand_in.shape) for stand_in in inside)
    body = body_of(name, outputs, signature, source)
    body.lines.update(location)
    return Loop(
        tuple(each[1] for each in (*states, *series, *constants)),
        body,
        len(states),
        len(series),
        length,
        reverse,
        location,
    )


def copied(outputs: Sequence[Node], mapping: Mapping[Node, Node]) -> tuple[Node, ...]:
    """The outputs over other nodes; IRError where an `input` has no entry in the mapping."""
    result: dict[Node, Node] = dict(mapping)
    for current in topological(outputs, stop=lambda n: n in mapping):
        if current in result:
            continue
        if current.op == "input":
            raise IRError(f"[loop] the body reads {current!r}, which is no input of it")
        result[current] = rebuild(current, [result[value] for value in current.inputs])
    return tuple(result[output] for output in outputs)


def reached(outputs: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """The nodes below the outputs that depend on a source, sources included."""
    found = set(sources)
    for current in topological(outputs):
        if not found.isdisjoint(current.inputs):
            found.add(current)
    return found


# ---- inference


def infer_loop(definition: Any, inputs: tuple[Node, ...], attrs: tuple) -> tuple[DType, Shape]:
    body, carried, stepped, length, reverse, part = attrs
    if not isinstance(body, Body):
        raise IRError(f"[loop] the body is a graph, not {body!r}")
    if not isinstance(length, (int, Dim)) or (isinstance(length, int) and length < 0):
        raise IRError(f"[loop] runs a number of times, not {length!r}")
    if not isinstance(reverse, bool):
        raise IRError(f"[loop] reverse is True or False, not {reverse!r}")
    if len(inputs) != len(body.inputs) or carried + stepped > len(inputs) or carried < 0:
        raise IRError(
            f"[loop] {body.name} takes {len(body.inputs)} inputs, {carried} of them states and "
            f"{stepped} series, and got {len(inputs)}"
        )
    if not 0 <= part < len(body.outputs):
        raise IRError(f"[loop] {body.name} has no result {part}")
    for number, (value, (dtype, shape)) in enumerate(zip(inputs, body.inputs, strict=True)):
        if carried <= number < carried + stepped:
            shape = (length, *shape)
        if value.dtype is not dtype or value.shape != shape:
            raise IRError(
                f"[loop] {body.name} takes {dtype.name}{list(shape)} as input {number}, "
                f"not {value.dtype.name}{list(value.shape)}"
            )
    for number in range(carried):
        output, (dtype, shape) = body.outputs[number], body.inputs[number]
        if output.dtype is not dtype or output.shape != shape:
            raise IRError(
                f"[loop] {body.name}: state {number} is {dtype.name}{list(shape)}, the next one "
                f"{output.dtype.name}{list(output.shape)}"
            )
    output = body.outputs[part]
    return output.dtype, output.shape if part < carried else (length, *output.shape)


def check_body(body: Body) -> None:
    """Raises IRError where the body reads something else than its placeholders."""
    known = set(placeholders(body))
    for current in topological(body.outputs):
        if current.op in ("input", "variable") and current not in known:
            number = current.attrs[0] if current.op == "input" else 0
            what = f"input {number - FIRST_PLACEHOLDER}" if number >= FIRST_PLACEHOLDER else ""
            raise IRError(f"[loop] {body.name} reads {what or repr(current)}, which is no input")


# ---- expansion: the loop as plain nodes of its steps


def unrolled(loop: Loop) -> list[Node]:
    """Every result of the loop without a loop: what the interpreter and tests compare with."""
    from lazygrad_compiler.ir.ops import OPS

    def step_of(value: Node, number: int) -> Node:
        starts = (number, *(0 for _ in value.shape[1:]))
        stops = (number + 1, *value.shape[1:])
        cut = build(OPS["slice"], (value,), (starts, stops, (1,) * value.ndim), loop.location)
        return build(OPS["reshape"], (cut,), (value.shape[1:],), loop.location)

    states = list(loop.states)
    rows: list[list[Node]] = [[] for _ in loop.given]
    order = range(loop.length)
    for number in reversed(order) if loop.reverse else order:
        steps = [step_of(value, number) for value in loop.series]
        mapping = dict(zip(loop.placeholders, (*states, *steps, *loop.constants), strict=True))
        outputs = copied(loop.body.outputs, mapping)
        states = list(outputs[: loop.carried])
        for row, value in zip(rows, outputs[loop.carried :], strict=True):
            shape = (1, *value.shape)
            row.append(build(OPS["reshape"], (value,), (shape,), loop.location))
    results = states
    for row, value in zip(rows, loop.given, strict=True):
        if not row:
            shape = (0, *value.shape)
            zeros: dict[str, complex] = {"float": 0.0, "bool": False, "complex": 0j}
            zero = zeros.get(value.dtype.kind, 0)
            results.append(build(OPS["const"], (), (zero, value.dtype, shape), loop.location))
            continue
        ordered = tuple(reversed(row)) if loop.reverse else tuple(row)
        results.append(build(OPS["concat"], ordered, (0,), loop.location))
    return results
