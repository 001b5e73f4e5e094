"""Loops recorded from a Python function: it runs once, on stand-ins, and becomes a loop's body.

In: a step as a function of nodes, first states, series.  Out: the last states, and what the steps
gave, stacked.  Whatever else the function reads is the same in every step: values from outside are
found in what it recorded, and become operands of the loop.  Random numbers that it draws are drawn
for all steps at once, so that each step has its own.

Where gradients may be asked for later, the steps also give what the gradient will want
(`autodiff/vjp_loop.py`); what of that nobody reads, the compiler drops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lazygrad._core.context import fail, now
from lazygrad._core.traced import trace
from lazygrad_compiler.ir.loop import Body, Loop, make_loop
from lazygrad_compiler.ir.node import IRError, Node, fresh_input, rebuild, topological
from lazygrad_compiler.ir.ops import OPS, listed

Step = Callable[[list[Node], list[Node]], tuple[Sequence[Node], Sequence[Node]]]
"""(states, one step of each series) to (next states, what the step gives)."""


def loop(
    name: str,
    step: Step,
    states: Sequence[Node],
    series: Sequence[Node],
    length: int,
    reverse: bool = False,
) -> tuple[list[Node], list[Node]]:
    """The last states, and what the steps gave, along a new first axis.

    series: the steps along axis 0, `length` of them.  reverse: from the last step to the first.
    Raises TensorError where a next state differs from the state in dtype or shape.
    """
    from lazygrad.functional.random import bits_node

    with trace(name) as room:

        def stand_in(value: Node, shape: tuple[int, ...]) -> Node:
            made = room.stand_in(value, shape)
            made.differentiable = value.dtype.is_differentiable  # detach() has to leave its mark
            return made

        inside = [stand_in(value, value.shape) for value in states]
        steps = [stand_in(value, value.shape[1:]) for value in series]
        following, given = step(inside, steps)
        _check_states(name, states, following)
        drawn = _drawn([*following, *given], [*inside, *steps])
        outputs, constants = _closed([*following, *given], [*inside, *steps, *drawn])
    made = make_loop(
        name,
        list(zip(inside, states, outputs[: len(states)], strict=True)),
        [*zip(steps, series, strict=True),
         *((bits, bits_node((length, *bits.shape))) for bits in drawn)],
        list(constants.items()),
        outputs[len(states) :],
        length,
        reverse,
        now.location,
    )
    parts = [_with_kept(made).part(number) for number in range(len(outputs))]
    return parts[: len(states)], parts[len(states) :]


def _check_states(name: str, states: Sequence[Node], following: Sequence[Node]) -> None:
    if len(states) != len(following):
        raise fail(name, f"there are {len(states)} states, and a step makes {len(following)}")
    for number, (state, later) in enumerate(zip(states, following, strict=True)):
        if state.dtype is not later.dtype or state.shape != later.shape:
            raise fail(
                name,
                f"state {number} begins as {state.dtype.name} {listed(state.shape)}, and a step "
                f"makes it {later.dtype.name} {listed(later.shape)}",
                "A state keeps dtype and shape: convert the first one, or the next one.")


def _closed(
    outputs: Sequence[Node], stand_ins: Sequence[Node]
) -> tuple[list[Node], dict[Node, Node]]:
    """The outputs with values from outside replaced, and (what replaces one -> the value).

    Markers on values that depend on a stand-in are taken out.
    """
    from lazygrad._core.engine import boundaries

    own = set(stand_ins)
    depending = _depending(outputs, stand_ins)
    result: dict[Node, Node] = {stand_in: stand_in for stand_in in stand_ins}
    constants: dict[Node, Node] = {}
    lifted: dict[Node, Node] = {}

    def from_outside(value: Node) -> Node:
        """A value that no stand-in is part of, in the body: constants and movement as they are,
        anything else by a stand-in of its own.
        """
        chain = [value]
        while chain[-1].payload is None and OPS[chain[-1].op].kind == "movement" \
                and len(chain[-1].inputs) == 1:
            chain.append(chain[-1].inputs[0])
        base = chain.pop()
        if base.op not in ("const", "iota"):
            if base not in lifted:
                lifted[base] = fresh_input(base.dtype, base.shape, base.location)
                constants[lifted[base]] = base
            base = lifted[base]
        for movement in reversed(chain):
            base = rebuild(movement, [base])
        return base

    for current in topological(outputs, stop=lambda n: n in own or n not in depending):
        if current in result:
            continue
        if current not in depending:
            result[current] = from_outside(current)
        elif current.op == "variable":
            if current in boundaries:
                raise fail("scan", "a hook or a custom Function inside of a step has no gradient",
                           "Write the step in operations on tensors.")
            result[current] = result[current.inputs[0]]
        else:
            result[current] = rebuild(current, [result[value] for value in current.inputs])
    return [result[output] for output in outputs], constants


def _depending(outputs: Sequence[Node], stand_ins: Sequence[Node]) -> set[Node]:
    """The nodes that depend on a stand-in; known values end the search."""
    first = min((node.serial for node in stand_ins), default=0)
    found = set(stand_ins)
    for current in topological(outputs, stop=lambda n: n in found or n.serial < first):
        if current.serial >= first and not found.isdisjoint(current.inputs):
            found.add(current)
    return found


def _drawn(outputs: Sequence[Node], stand_ins: Sequence[Node]) -> list[Node]:
    """Random bits that the step draws: those younger than the stand-ins."""
    first = min((node.serial for node in stand_ins), default=0)
    return [node for node in topological(outputs, stop=lambda n: n.serial < first)
            if node.op == "random_bits" and node.serial >= first and node.payload is None]


MOST_BODIES = 512

_kept: dict[tuple, Body] = {}
"""Bodies that give what their gradient wants, by the body and what is differentiated."""


def _with_kept(made: Loop) -> Loop:
    """The loop that is prepared for being differentiated, should that be possible."""
    needed = tuple(value.differentiable for value in made.inputs)
    if not any(needed):
        return made
    from lazygrad_compiler.autodiff.backward import derive
    from lazygrad_compiler.autodiff.vjp_loop import with_kept

    key = made.body, needed, made.carried, made.stepped
    found = _kept.get(key)
    if found is None:
        try:
            found = with_kept(made, needed, derive).body
        except IRError:  # something has no gradient: backward says so, if it is ever called
            found = made.body
        if len(_kept) >= MOST_BODIES:
            _kept.clear()
        _kept[key] = found
    return replace(made, body=found)
