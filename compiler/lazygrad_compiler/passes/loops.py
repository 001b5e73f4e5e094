"""loops: what need not be done step after step leaves the body of its loop.

In: a graph.  Out: an equal graph whose loops

- are one where they differ only in what their steps give;
- have simplified bodies (the passes given), with no state, series or result that nobody reads;
- compute nothing that is the same in every step: that is done once, before the loop;
- leave products, reductions and the like of the series alone to one operation for all steps,
  before the loop (the input projections of a recurrent layer become one large contraction);
- leave those of results that no state depends on to one operation after the loop;
- read the constant factors of their products in the order in which they lie in memory: a weight
  whose rows are summed over is transposed once, before the loop, and never packed in a step.

All steps at once is what batching makes of a body's nodes, with the steps as the items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.batch import batch
from lazygrad_compiler.batching.rules import repeated
from lazygrad_compiler.ir.loop import Key, Loop, body_of, make_loop, reached, siblings, unrolled
from lazygrad_compiler.ir.node import (
    Graph,
    IRError,
    Node,
    fresh_input,
    rebuild,
    substitute,
    topological,
)
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes.optimize import Pass, optimize

LIGHT_KINDS = frozenset({"elementwise", "movement", "marker", "leaf", "indexed"})
"""Kinds of ops that stay in a body though they need no state: they fuse with those that do."""

FREE_KINDS = frozenset({"movement", "marker", "leaf"})

MOST_GROWTH = 2
"""Results leave a loop if what its steps have to give for that is at most so many times as large.
"""


def rewrite_loops(graph: Graph, simplify: Pass) -> Graph:
    """The graph with its loops rewritten.  simplify: the passes for a body."""
    order = topological(graph.outputs)
    joined: dict[Key, dict[Node, int]] = {}
    for current in order:
        if current.op == "loop":
            joined.setdefault(_recurrence(current), {})[current] = current.attr("part")
    if not joined:
        return graph
    result: dict[Node, Node] = {}
    for current in order:
        if current in result:
            continue
        inputs = [result[value] for value in current.inputs]
        if current.op == "loop":
            alike = joined[_recurrence(current)]
            wanted = [(Loop.of(each), part) for each, part in alike.items()]
            result.update(zip(alike, rewrite_loop(inputs, wanted, simplify), strict=True))
        else:
            result[current] = rebuild(current, inputs)
    return Graph(tuple(result[output] for output in graph.outputs))


def loops_pass(*before: Pass) -> Pass:
    """The pass.  before: what bodies go through ahead of the passes of `optimize`."""

    def simplify(body: Graph) -> Graph:
        for run in before:
            body = run(body)
        return optimize(rewrite_loops(body, simplify))

    return lambda graph: rewrite_loops(graph, simplify)


def _recurrence(value: Node) -> Key:
    """What loops have in common that can be one: all but what their steps give."""
    loop = Loop.of(value)
    key, _ = siblings(value)
    return key, loop.body.inputs, loop.next_states, loop.stepped, loop.length, loop.reverse


def rewrite_loop(
    inputs: Sequence[Node], wanted: Sequence[tuple[Loop, int]], simplify: Pass
) -> list[Node]:
    """The wanted results, (a loop of the recurrence, number of its result) each, on new inputs."""
    first = wanted[0][0]
    extra = [
        loop.body.outputs[part] if part >= loop.carried else loop.next_states[part]
        for loop, part in wanted
    ]
    loop = Loop(
        tuple(inputs), first.body, first.carried, first.stepped, first.length, first.reverse,
        first.location,
    ).with_given(extra)
    given = loop.carried + len(first.given)
    parts = [
        part if part < loop.carried else given + place
        for place, (_, part) in enumerate(wanted)
    ]
    if loop.length <= 1:
        outputs = simplify(Graph(loop.body.outputs)).outputs
        body = body_of(loop.body.name, outputs, loop.body.inputs, loop.body)
        results = unrolled(replace(loop, body=body))
        return [results[part] for part in parts]
    return _Rewriting(loop, parts, simplify).run()


@dataclass(slots=True)
class _Rewriting:
    """One loop under rewriting.

    states: what stands for a state in the body, its first value and the next state.  series,
    constants: what stands for them, and their values.  given: the results that are asked for by
    their number, as nodes of the body; outside: those that are computed outside by now.  numbers:
    of the states, as the loop has them.  later: what stands, outside, for results of the loop that
    is yet to be made, by their number.
    """

    loop: Loop
    parts: Sequence[int]
    simplify: Pass
    states: list[tuple[Node, Node, Node]] = field(default_factory=list)
    series: dict[Node, Node] = field(default_factory=dict)
    constants: dict[Node, Node] = field(default_factory=dict)
    given: dict[int, Node] = field(default_factory=dict)
    outside: dict[int, Node] = field(default_factory=dict)
    numbers: dict[Node, int] = field(default_factory=dict)
    later: dict[Node, int] = field(default_factory=dict)

    def run(self) -> list[Node]:
        self.open()
        self.drop_states()
        self.lift_constants()
        self.lift_series()
        self.leave_results()
        self.drop_states()
        self.order_constants()
        return self.close()

    @property
    def at(self) -> Builder:
        return Builder(self.loop.location)

    def open(self) -> None:
        """The body, simplified, on inputs of its own; equal inputs are one."""
        loop = self.loop
        body = loop.opened()
        once: dict[Node, Node] = {}
        same: dict[Node, Node] = {}
        for inside, values in ((body.series, loop.series), (body.constants, loop.constants)):
            once.clear()
            for inner, value in zip(inside, values, strict=True):
                same[inner] = once.setdefault(value, inner)
        wanted = sorted(set(self.parts))
        given = [part for part in wanted if part >= loop.carried]
        outputs = [*body.next_states, *(body.outputs[part] for part in given)]
        outputs = list(self.simplify(Graph(substitute(outputs, same))).outputs)
        self.states = list(
            zip(body.states, loop.states, outputs[: loop.carried], strict=True)
        )
        self.numbers = {inner: number for number, inner in enumerate(body.states)}
        self.series = {
            same[inner]: value for inner, value in zip(body.series, loop.series, strict=True)
        }
        self.constants = {
            same[inner]: value for inner, value in zip(body.constants, loop.constants, strict=True)
        }
        self.given = dict(zip(given, outputs[loop.carried :], strict=True))

    def _replace(self, replaced: Mapping[Node, Node]) -> None:
        """Nodes of the body by others, everywhere."""
        outputs = substitute(
            [*(later for _, _, later in self.states), *self.given.values()], dict(replaced)
        )
        count = len(self.states)
        self.states = [
            (inner, first, later)
            for (inner, first, _), later in zip(self.states, outputs[:count], strict=True)
        ]
        self.given = dict(zip(self.given, outputs[count:], strict=True))

    def drop_states(self) -> None:
        """Without states that nobody reads; what never changes is a constant."""
        wanted_states = {part for part in self.parts if part < self.loop.carried}
        names = {state[0]: number for number, state in enumerate(self.states)}
        numbers = self.numbers
        live: set[Node] = set()
        waiting = [*self.given.values()]
        for inner, _, later in self.states:
            if numbers[inner] in wanted_states and numbers[inner] not in self.outside:
                live.add(inner)
                waiting.append(later)
        while waiting:
            found = {n for n in topological(waiting) if n in names} - live
            live |= found
            waiting = [self.states[names[inner]][2] for inner in found]
        kept = []
        for inner, first, later in self.states:
            if inner not in live:
                continue
            if later is inner:
                self.constants[inner] = first
                if numbers[inner] in wanted_states:
                    self.outside[numbers[inner]] = first
            else:
                kept.append((inner, first, later))
        self.states = kept

    def _body(self) -> list[Node]:
        return topological([*(later for _, _, later in self.states), *self.given.values()])

    def _outside(self, values: Sequence[Node], items: Mapping[Node, Node]) -> list[Node]:
        """Values of the body for all steps at once; IRError where an op cannot be batched."""
        found = batch(values, items, self.loop.length)
        whole = [
            value if flag else repeated(self.at, value, self.loop.length) for value, flag in found
        ]
        return list(substitute(whole, dict(self.constants)))

    def lift_constants(self) -> None:
        """What is the same in every step, if it takes any work, is done once."""
        order = self._body()
        moving = reached(self._outputs(), [*(state[0] for state in self.states), *self.series])
        fixed = {n for n in order if n not in moving and n.op not in ("input", "const", "iota")}
        replaced: dict[Node, Node] = {}
        for value in self._edge(order, fixed, lambda n: OPS[n.op].kind not in FREE_KINDS):
            stand_in = fresh_input(value.dtype, value.shape, value.location)
            made, = substitute([value], dict(self.constants))
            self.constants[stand_in] = made
            replaced[value] = stand_in
        self._replace(replaced)

    def lift_series(self) -> None:
        """What depends on the series alone, if it takes more than elementwise work, is done for all
        steps before the loop.
        """
        order = self._body()
        varying = reached(self._outputs(), [state[0] for state in self.states])
        moving = reached(self._outputs(), self.series)
        early = {n for n in order if n in moving and n not in varying and n not in self.series}
        replaced: dict[Node, Node] = {}
        made: dict[Node, Node] = {}
        for value in self._edge(order, early, lambda n: OPS[n.op].kind not in LIGHT_KINDS):
            stand_in = fresh_input(value.dtype, value.shape, value.location)
            try:
                made[stand_in], = self._outside([value], self.series)
            except IRError:  # an op that cannot be batched stays
                continue
            replaced[value] = stand_in
        self.series.update(made)
        self._replace(replaced)

    def order_constants(self) -> None:
        """Right factors that are the same in every step, with the summed axes ahead of the others,
        in memory.
        """
        replaced: dict[Node, Node] = {}
        for product in self._body():
            if product.op != "dot":
                continue
            left, right = product.inputs
            left_batch, right_batch, left_contract, right_contract = product.attrs
            free = [k for k in range(right.ndim) if k not in (*right_batch, *right_contract)]
            base = right
            while base.op in ("permute", "reshape"):
                base = base.inputs[0]
            order = (*right_batch, *right_contract, *free)
            in_order = right is base and order == tuple(range(right.ndim))
            if base not in self.constants or in_order or not free:
                continue
            made, = substitute([right], dict(self.constants))
            stand_in = fresh_input(
                right.dtype, tuple(right.shape[k] for k in order), right.location
            )
            self.constants[stand_in] = self.at.permute(made, order)
            count = len(right_batch)
            attrs = (
                left_batch, tuple(range(count)), left_contract,
                tuple(range(count, count + len(right_contract))),
            )
            replaced[product] = Builder(product.location).op("dot", left, stand_in, attrs=attrs)
        self._replace(replaced)

    def _outputs(self) -> list[Node]:
        return [*(later for _, _, later in self.states), *self.given.values()]

    def _edge(
        self, order: Iterable[Node], inside: set[Node], counts: Callable[[Node], bool]
    ) -> list[Node]:
        """The last nodes of a part of the body that hold work that counts; movement at the end of
        them stays in the body.
        """
        working: set[Node] = set()
        edge: dict[Node, None] = {}
        outputs = set(self._outputs())

        def note(value: Node) -> None:
            while value in working and OPS[value.op].kind == "movement" and len(value.inputs) == 1:
                value = value.inputs[0]
            if value in working:
                edge[value] = None

        for current in order:
            if current in inside:
                if counts(current) or not working.isdisjoint(current.inputs):
                    working.add(current)
            else:
                for value in current.inputs:
                    note(value)
            if current in outputs:
                note(current)
        return list(edge)

    def leave_results(self) -> None:
        """Results computed outside: those that are there anyway, and those that no state depends on
        and that take more than elementwise work.
        """
        for part, value in list(self.given.items()):
            if value in self.series:
                self._settle(part, self.series[value])
            elif not (reached([value], [*self.series, *(s[0] for s in self.states)]) & {value}):
                self._settle(part, *self._outside([value], {}))
        moving = reached(self._outputs(), [*(state[0] for state in self.states), *self.series])
        core = set(topological([later for _, _, later in self.states]))
        late = {n for n in self._body() if n not in core and n.op != "input"}
        for part, value in list(self.given.items()):
            if value not in late:
                continue
            own = [n for n in topological([value], stop=lambda n: n not in late) if n in late]
            if all(OPS[n.op].kind in LIGHT_KINDS for n in own):
                continue
            sources = [
                n for n in dict.fromkeys(v for each in own for v in each.inputs)
                if n not in late and n in moving
            ]
            there = {n for other, n in self.given.items() if other != part}
            more = [n for n in sources if n not in self.series and n not in there]
            if sum(n.nbytes for n in more) > MOST_GROWTH * value.nbytes:
                continue
            self._move_out(part, value, sources)

    def _move_out(self, part: int, value: Node, sources: Sequence[Node]) -> None:
        numbers: dict[Node, int] = {n: number for number, n in self.given.items()}
        items: dict[Node, Node] = {}
        added: dict[int, Node] = {}
        pending: dict[Node, int] = {}
        for source in sources:
            if source in self.series:
                items[source] = self.series[source]
                continue
            stand_in = fresh_input(
                source.dtype, (self.loop.length, *source.shape), source.location
            )
            items[source] = stand_in
            number = numbers.get(source)
            if number is None:
                number = max((*self.given, *self.outside, *added, *self.parts)) + 1
                added[number] = source
            pending[stand_in] = number
        try:
            made, = self._outside([value], items)
        except IRError:
            return
        self.given.update(added)
        self._settle(part, made)
        self.later.update(pending)

    def _settle(self, part: int, value: Node) -> None:
        self.outside[part] = value
        del self.given[part]

    def close(self) -> list[Node]:
        """The loop made anew, and the results."""
        numbers = self.numbers
        given = list(dict.fromkeys(self.given.values()))
        read = set(topological([*(state[2] for state in self.states), *given]))
        made = make_loop(
            self.loop.body.name,
            self.states,
            [(inner, value) for inner, value in self.series.items() if inner in read],
            [(inner, value) for inner, value in self.constants.items() if inner in read],
            given,
            self.loop.length,
            self.loop.reverse,
            self.loop.location,
            self.loop.body,
        )
        results: dict[int, Node] = {}
        for place, (inner, _, later) in enumerate(self.states):
            if later in given:
                results[numbers[inner]] = self._last_row(
                    made.part(len(self.states) + given.index(later))
                )
            else:
                results[numbers[inner]] = made.part(place)
        for part, value in self.given.items():
            results[part] = made.part(len(self.states) + given.index(value))
        replaced = {stand_in: results[number] for stand_in, number in self.later.items()}
        outside = substitute(list(self.outside.values()), replaced)
        results.update(zip(self.outside, outside, strict=True))
        return [results[part] for part in self.parts]

    def _last_row(self, rows: Node) -> Node:
        at, place = self.at, 0 if self.loop.reverse else self.loop.length - 1
        return at.reshape(at.slice_axis(rows, 0, place, place + 1), rows.shape[1:])
