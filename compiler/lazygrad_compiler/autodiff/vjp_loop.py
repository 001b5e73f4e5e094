"""Gradients of loops: a loop the other way over values that the steps left behind.

In: a loop, and cotangents of some of its results.  Out: cotangents of its inputs.  The body is
differentiated once, as a graph.  Its gradients make the body of the reverse loop, whose states are
the cotangents of the states, and whose series are the cotangents of what the steps gave and the
`kept` values: the forward loop gives them in addition, so that no product, reduction or elementary
function is computed again.

A value that is the same in every step gets the sum over all steps.  Where a step's share is a
product or a sum, that is one product or sum over steps and all, after the loop: the share of a
weight is `dot(input, cotangent)` in every step, and `total` writes it as one contraction over
(steps, batch).  Anything else is added up in a state of the reverse loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lazygrad_compiler.autodiff.vjp_build import Builder, Gradients, Needed
from lazygrad_compiler.batching.batch import batch
from lazygrad_compiler.ir.loop import Loop, Opened, make_loop, reached
from lazygrad_compiler.ir.node import Node, fresh_input, substitute, topological
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY, OPS, SPECIAL_BINARY, SPECIAL_UNARY

Derive = Callable[[Sequence[Node], Sequence[Node], Sequence[Node]], list[Node | None]]
"""The autodiff pass: (outputs, cotangents, wanted) to gradients."""

KEPT_OPS = frozenset(
    {*ELEMENTARY_UNARY, *SPECIAL_UNARY, *SPECIAL_BINARY, "sigmoid", "pow", "atan2", "random_bits"}
)
"""Elementwise ops dear enough to keep their results rather than to compute them again."""

LINEAR = frozenset({"permute", "reshape", "flip", "slice", "neg", "conj"})
"""Ops of one operand that may as well be applied to a sum over the steps."""

TRANSPARENT = frozenset({"permute", "reshape", "flip", "expand", "slice"})
"""Movement that is done again after the loop, rather than giving both."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A differentiated body.

    body: what was differentiated.  next_cotangents, given_cotangents: what stands for the cotangent
    of each next state (None: it has none) and of what a step gives, by number.  gradients: of each
    body input; None where none is wanted or none flows.  kept: the body's nodes that the gradients
    read from memory.
    """

    body: Opened
    next_cotangents: tuple[Node | None, ...]
    given_cotangents: dict[int, Node]
    gradients: tuple[Node | None, ...]
    kept: tuple[Node, ...]


def with_kept(loop: Loop, needed: Needed, derive: Derive) -> Loop:
    """The loop that also gives what its gradient will want, whatever results that is asked of."""
    given = [k for k, value in enumerate(loop.given) if value.dtype.is_differentiable]
    derived = differentiated(loop, given, needed, derive)
    return loop.with_given(_not_given(derived))


def _not_given(derived: Derived) -> list[Node]:
    """What is kept and not given yet, as nodes of the loop's body."""
    known = set(derived.body.given)
    return list(derived.body.closed([value for value in derived.kept if value not in known]))


def pull_back_loop(
    loop: Loop, cotangents: Mapping[int, Node], needed: Needed, derive: Derive
) -> Gradients:
    """Cotangents of the loop's inputs, for cotangents of its results by number."""
    at = Builder(loop.location)
    carried, stepped = loop.carried, loop.stepped
    received = [part - carried for part in cotangents if part >= carried]
    derived = differentiated(loop, received, needed, derive)
    body = derived.body
    forward = loop.with_given(_not_given(derived))
    given = [*body.given, *(value for value in derived.kept if value not in body.given)]
    series_of = {
        **dict(zip(body.series, loop.series, strict=True)),
        **{value: forward.part(carried + given.index(value)) for value in derived.kept},
        **{derived.given_cotangents[k]: cotangents[carried + k] for k in received},
    }
    constants = dict(zip(body.constants, loop.constants, strict=True))
    states: list[tuple[Node, Node, Node]] = []
    state_places: dict[int, int] = {}
    for number, stand_in in enumerate(derived.next_cotangents):
        if stand_in is None:
            continue
        first = cotangents.get(number)
        gradient = derived.gradients[number]
        state_places[number] = len(states)
        states.append((
            stand_in,
            at.zeros(stand_in) if first is None else first,
            at.zeros(stand_in) if gradient is None else gradient,
        ))
    totals = _Totals(at, loop.length, series_of, [state[0] for state in states])
    for gradient in derived.gradients[carried + stepped :]:
        if gradient is not None:
            totals.plan(gradient)
    totals.settle()
    per_step = [each for each in derived.gradients[carried : carried + stepped] if each is not None]
    asked = list(dict.fromkeys((*per_step, *totals.wanted)))
    states += totals.states
    read = _read_from((*(state[2] for state in states), *asked), (*series_of, *constants))
    reverse = make_loop(
        f"{loop.body.name} backward",
        states,
        [(stand_in, value) for stand_in, value in series_of.items() if stand_in in read],
        [(stand_in, value) for stand_in, value in constants.items() if stand_in in read],
        asked,
        loop.length,
        not loop.reverse,
        loop.location,
        loop.body,
    )
    stacked = {value: reverse.part(len(states) + k) for k, value in enumerate(asked)}
    before = len(states) - len(totals.states)
    accumulated = {
        state[2]: reverse.part(before + k) for k, state in enumerate(totals.states)
    }
    result: list[Node | None] = []
    for number, (wanted, gradient) in enumerate(zip(needed, derived.gradients, strict=True)):
        if not wanted or (gradient is None and number not in state_places):
            result.append(None)
        elif number < carried:
            result.append(reverse.part(state_places[number]))
        elif number < carried + stepped:
            assert gradient is not None
            result.append(stacked[gradient])
        else:
            assert gradient is not None
            result.append(totals.total(gradient, stacked, accumulated, constants))
    return tuple(result)


def differentiated(
    loop: Loop, received: Iterable[int], needed: Needed, derive: Derive
) -> Derived:
    """The body's gradients, where what the steps give has cotangents for the numbers received."""

    def stand_in(value: Node) -> Node:
        return fresh_input(value.dtype, value.shape, loop.location)

    body = loop.opened()
    wanted = [
        value
        for number, value in enumerate(body.inputs)
        if value.dtype.is_differentiable and (number < loop.carried or needed[number])
    ]
    next_cotangents = tuple(
        stand_in(value) if value.dtype.is_differentiable else None for value in body.next_states
    )
    given_cotangents = {number: stand_in(body.given[number]) for number in received}
    pairs = [
        (output, cotangent)
        for output, cotangent in zip(body.next_states, next_cotangents, strict=True)
        if cotangent is not None
    ]
    pairs += [(body.given[number], each) for number, each in given_cotangents.items()]
    found = derive([output for output, _ in pairs], [each for _, each in pairs], wanted)
    by_input = dict(zip(wanted, found, strict=True))
    gradients = tuple(by_input.get(value) for value in body.inputs)
    return Derived(
        body, next_cotangents, given_cotangents, gradients, tuple(_kept(body, gradients))
    )


def _kept(body: Opened, gradients: Sequence[Node | None]) -> list[Node]:
    """The body's nodes to keep, of each step, for the gradients to read.

    Series are there anyway, and values made of constants alone are made again.  What is dear to
    compute is kept where it is read; cheap values are computed again from what is kept, unless
    that means to keep more than the value itself.
    """
    forward = topological(body.outputs)
    inside = {*forward, *body.inputs}
    ends = topological([g for g in gradients if g is not None], stop=lambda n: n in inside)
    series = set(body.series)
    moving = reached(body.outputs, (*body.states, *body.series))

    def is_dear(value: Node) -> bool:
        kind = OPS[value.op].kind
        return kind not in ("elementwise", "movement", "marker") or value.op in KEPT_OPS

    def sources(value: Node) -> list[Node]:
        """What has to be kept so that the value can be computed again."""
        found = topological([value], stop=lambda n: n not in moving or n in series or is_dear(n))
        return [n for n in found if n in moving and n not in series and is_dear(n)]

    read = [value for value in ends if value in moving and value not in series]
    kept = dict.fromkeys(value for value in read if is_dear(value))
    for value in read:
        more = [source for source in sources(value) if source not in kept]
        if sum(source.nbytes for source in more) > value.nbytes:
            kept[value] = None
        else:
            kept.update(dict.fromkeys(more))
    return list(kept)


def _read_from(outputs: Sequence[Node], ends: Iterable[Node]) -> set[Node]:
    """Those of the ends that the outputs are computed from, without going through another end."""
    known = set(ends)
    return {value for value in topological(outputs, stop=lambda n: n in known) if value in known}


class _Totals:
    """Sums over all steps of what each step has for a constant.

    `plan` looks at the shares and notes which values the loop has to give (`wanted`) or add up
    (`states`); `total` writes the sum as nodes outside of the loop.
    """

    def __init__(
        self, at: Builder, length: int, series_of: Mapping[Node, Node], cotangents: Sequence[Node]
    ) -> None:
        self.at = at
        self.length = length
        self.series_of = dict(series_of)
        self.wanted: dict[Node, None] = {}
        self.states: list[tuple[Node, Node, Node]] = []
        self._added: dict[Node, Node] = {}
        self._sums: list[Node] = []
        self._planned: set[Node] = set()
        self._known_inside: dict[Node, bool] = {}
        self._known_moves: dict[Node, bool] = {}
        self._sources = frozenset(cotangents), frozenset((*series_of, *cotangents))

    def _inside(self, value: Node) -> bool:
        """Whether the value exists within the reverse loop only."""
        return self._depends(value, self._known_inside, self._sources[0])

    def _moves(self, value: Node) -> bool:
        """Whether the value differs from step to step."""
        return self._depends(value, self._known_moves, self._sources[1])

    def _depends(self, value: Node, known: dict[Node, bool], sources: frozenset[Node]) -> bool:
        """Whether the value is made of a source; what was found out is in `known`."""
        if value not in known:
            ends = self.series_of
            for node in topological([value], stop=lambda n: n in ends or n in known):
                if node not in known:
                    made_of = () if node in ends else node.inputs
                    known[node] = node in sources or any(known[each] for each in made_of)
        return known[value]

    def _base(self, value: Node) -> Node:
        while value.op in TRANSPARENT and value not in self.series_of:
            value = value.inputs[0]
        return value

    def _branch(self, share: Node) -> str:
        """How the sum of a share is written."""
        if share in self.series_of or not self._moves(share):
            return "sum"
        if share.op in LINEAR:
            return "linear"
        if share.op == "add":
            return "add"
        if share.op == "dot":
            return "dot"
        return "sum" if share.op == "sum" else "other"

    def plan(self, share: Node) -> None:
        """Notes what has to be there for the total of this share."""
        stack = [share]
        while stack:
            current = stack.pop()
            if current in self._planned:
                continue
            self._planned.add(current)
            parts = self._parts(current)
            if parts:
                stack += parts
            elif self._branch(current) == "dot":
                for value in current.inputs:
                    self._want(value)
            else:
                self._sums.append(current)

    def _parts(self, share: Node) -> tuple[Node, ...]:
        """The shares whose totals the total of this one is made of."""
        branch = self._branch(share)
        if branch in ("linear", "add"):
            return share.inputs
        moving = [value for value in share.inputs if self._moves(value)]
        return tuple(moving) if branch == "dot" and len(moving) == 1 else ()

    def _want(self, value: Node) -> None:
        if self._inside(value):
            self.wanted[self._base(value)] = None

    def settle(self) -> None:
        """Decides, once all shares were seen, which of the others are added up step by step."""
        for share in self._sums:
            if not self._inside(share):
                continue
            value = share.inputs[0] if share.op == "sum" else share
            if self._base(value) in self.wanted:
                continue
            if share not in self._added:
                stand_in = fresh_input(share.dtype, share.shape, self.at.location)
                total = self.at.add(stand_in, share)
                self._added[share] = total
                self.states.append((stand_in, self.at.zeros(share), total))

    def total(
        self,
        share: Node,
        stacked: Mapping[Node, Node],
        accumulated: Mapping[Node, Node],
        constants: Mapping[Node, Node],
    ) -> Node:
        """The sum over all steps, outside of the loop."""
        items = {**self.series_of, **stacked}
        totals: dict[Node, Node] = {}
        stack = [share]
        while stack:
            current = stack[-1]
            waiting = [part for part in self._parts(current) if part not in totals]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if current in totals:
                continue
            if current in self._added:
                totals[current] = accumulated[self._added[current]]
            else:
                totals[current] = self._total(current, totals, items, constants)
        return totals[share]

    def _total(
        self,
        share: Node,
        totals: Mapping[Node, Node],
        items: Mapping[Node, Node],
        constants: Mapping[Node, Node],
    ) -> Node:
        """The sum over all steps of a share, where the totals of its parts are there."""
        at = self.at
        branch = self._branch(share)
        parts = self._parts(share)
        if branch == "linear":
            return at.op(share.op, totals[share.inputs[0]], attrs=share.attrs)
        if branch == "add":
            return at.add(totals[share.inputs[0]], totals[share.inputs[1]])
        if branch == "dot" and not parts:
            (left, _), (right, _) = self._outside(share.inputs, items, constants)
            first, second, third, fourth = (
                tuple(axis + 1 for axis in axes) for axes in share.attrs
            )
            return at.op("dot", left, right, attrs=(first, second, (0, *third), (0, *fourth)))
        if branch == "dot":
            operands = [
                totals[value] if value in parts
                else self._outside((value,), items, constants)[0][0]
                for value in share.inputs
            ]
            return at.op("dot", *operands, attrs=share.attrs)
        value, axes = (share.inputs[0], share.attrs[0]) if share.op == "sum" else (share, ())
        (whole, moves), = self._outside((value,), items, constants)
        if not moves:
            whole = at.sum(whole, axes) if axes else whole
            return at.scale(whole, self.length)
        return at.sum(whole, (0, *(axis + 1 for axis in axes)))

    def _outside(
        self, values: Sequence[Node], items: Mapping[Node, Node], constants: Mapping[Node, Node]
    ) -> list[tuple[Node, bool]]:
        """Values of the body for all steps at once."""
        found = batch(values, items, self.length)
        replaced = substitute([value for value, _ in found], dict(constants))
        return [(value, flag) for value, (_, flag) in zip(replaced, found, strict=True)]
