"""`reduce`: a failing graph made small, the class of its failure kept.

A program of thousands of operations is halved first: its first half alone (every value that the
second one reads is wanted), or the second alone (those values are inputs that hold what the
interpreter computes).  So all halvings together cost as much as trying the whole a few times.

Then four moves, each kept if the graph still fails in the same way: fewer outputs; a value in the
middle becomes the only output (what comes after it goes); values become inputs (what comes before
goes).  They are tried on many values at once, then on half as many, down to one (Zeller,
Hildebrandt: Simplifying and isolating failure-inducing input, 2002).  Last, an operation gives way
to an operand of its type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy

from lazygrad.explain.failures import Failure, failure, failure_of_kind
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node, substitute

LEAVES = ("input", "const", "iota")

HALVED = 40
"""Operations above which a program is halved first."""
CUTS = (0.5, 0.25, 0.75)
"""Where it is cut, as a share of its operations: at the next place where neither half fails."""


@dataclass(frozen=True, slots=True)
class Case:
    """A graph with the arrays for its inputs."""

    graph: Graph
    inputs: tuple[numpy.ndarray, ...]

    @property
    def operations(self) -> int:
        """How many nodes compute something."""
        return sum(each.op not in LEAVES for each in self.graph.nodes())


class Reducer:
    """tests: how often a candidate was tried so far.  most: where to stop.  fails(kind, graph,
    inputs, tolerance): the failure, if it is of that kind.
    """

    def __init__(self, kind: str, tolerance: float | None, most: int,
                 fails: Callable[..., Failure | None] = failure_of_kind) -> None:
        self.kind = kind
        self.tolerance = tolerance
        self.most = most
        self.fails = fails
        self.tests = 0

    def same(self, case: Case) -> bool:
        """Whether the case fails in the class that is kept."""
        self.tests += 1
        try:
            return self.fails(self.kind, case.graph, case.inputs, self.tolerance) is not None
        except Exception:  # the interpreter does not run it: no case at all
            return False

    def run(self, case: Case) -> Case:
        """The case reduced until no move makes it smaller."""
        case = self.halves(case)
        while self.tests < self.most:
            before = _size(case)
            for move in (self.fewer_outputs, self.earlier_output, self.cut_inputs, self.bypass):
                case = move(case)
            if _size(case) >= before:
                break
        return case

    def halves(self, case: Case) -> Case:
        """A part of the program between two places in its order, as long as one half fails alone.
        """
        while case.operations > HALVED and self.tests < self.most:
            order = [each for each in case.graph.nodes() if each.op not in LEAVES]
            parts = (part for share in CUTS for part in _parts(case, order, int(share * len(order)))
                     if part is not None and part.operations < case.operations)
            smaller = next((part for part in parts if self.same(part)), None)
            if smaller is None:
                break
            case = smaller
        return case

    def fewer_outputs(self, case: Case) -> Case:
        """One output, or a few: halves of them are tried, then quarters, down to single ones."""
        outputs = list(dict.fromkeys(case.graph.outputs))
        size = len(outputs) // 2
        while size >= 1 and self.tests < self.most:
            for start in range(0, len(outputs), size):
                candidate = _case(Graph(tuple(outputs[start:start + size])), case.inputs)
                if self.same(candidate):
                    case, outputs = candidate, list(candidate.graph.outputs)
                    break
            size = min(size, len(outputs)) // 2
        return case

    def earlier_output(self, case: Case) -> Case:
        """The first value, in order, that is wrong by itself; halving finds it where being wrong
        spreads, and neighbours are tried where it does not.
        """
        if len(case.graph.outputs) != 1:
            return case
        order = [each for each in case.graph.nodes() if each.op not in LEAVES]
        low, high = 0, len(order) - 1
        best = case
        while low < high and self.tests < self.most:
            middle = (low + high) // 2
            candidate = _case(Graph((order[middle],)), case.inputs)
            if self.same(candidate):
                best, high = candidate, middle
            else:
                low = middle + 1
        for operand in best.graph.outputs[0].inputs:
            if operand.op not in LEAVES:
                candidate = _case(Graph((operand,)), best.inputs)
                if self.same(candidate):
                    return candidate
        return best

    def cut_inputs(self, case: Case) -> Case:
        """Values become inputs, many at once, then fewer."""
        order = [each for each in case.graph.nodes() if each.op not in LEAVES
                 and each not in case.graph.outputs]
        size = len(order)
        while size >= 1 and self.tests < self.most:
            start = 0
            while start < len(order) and self.tests < self.most:
                candidate = cut(case, order[start:start + size])
                if candidate is not None and _size(candidate) < _size(case) \
                        and self.same(candidate):
                    case = candidate
                    order = [each for each in case.graph.nodes() if each.op not in LEAVES
                             and each not in case.graph.outputs]
                else:
                    start += size
            size //= 2
        return case

    def bypass(self, case: Case) -> Case:
        """An operation gives way to one of its operands of the same type."""
        for current in reversed(case.graph.nodes()):
            for operand in current.inputs:
                if self.tests >= self.most:
                    return case
                if operand.dtype is current.dtype and operand.shape == current.shape:
                    outputs = substitute(case.graph.outputs, {current: operand})
                    candidate = _case(Graph(outputs), case.inputs)
                    if _size(candidate) < _size(case) and self.same(candidate):
                        return self.bypass(candidate)
        return case


def _parts(case: Case, order: Sequence[Node], place: int) -> Iterator[Case | None]:
    """The operations before a place in the order, and those from there on."""
    first, second = order[:place], set(order[place:])
    outputs = dict.fromkeys(case.graph.outputs)
    read = {value for each in second for value in each.inputs}.union(outputs)
    across = [each for each in first if each in read]
    behind = tuple(each for each in outputs if each in second)
    if across and behind:
        yield _case(Graph(tuple(across)), case.inputs)
        yield cut(Case(Graph(behind), case.inputs), across)


def _size(case: Case) -> tuple[int, int, int]:
    return case.operations, len(case.graph.outputs), len(case.graph.nodes())


def _case(graph: Graph, inputs: Sequence[numpy.ndarray]) -> Case:
    """The graph with its inputs numbered without gaps."""
    leaves = graph.inputs()
    fresh = {leaf: node("input", index=number, dtype=leaf.dtype, shape=leaf.shape,
                        location=leaf.location)
             for number, leaf in enumerate(leaves)}
    arrays = tuple(inputs[leaf.attrs[0]] for leaf in leaves)
    return Case(Graph(substitute(graph.outputs, fresh)), arrays)


def cut(case: Case, values: Sequence[Node]) -> Case | None:
    """The case with the values as inputs that hold what the interpreter computes for them."""
    values = list(values)
    if not values:
        return None
    arrays = interpret(Graph(tuple(values)), case.inputs)
    count = len(case.inputs)
    leaves = {value: node("input", index=count + number, dtype=value.dtype, shape=value.shape,
                          location=value.location)
              for number, value in enumerate(values)}
    return _case(Graph(substitute(case.graph.outputs, leaves)), (*case.inputs, *arrays))


def reduce_case(case: Case, tolerance: float | None = None,
                most: int = 2000) -> tuple[Case, Failure, int] | None:
    """The smallest case found with a failure of the same class, that failure, and how many
    candidates were tried; None where the case does not fail.
    """
    found = failure(case.graph, case.inputs, tolerance)
    if found is None:
        return None
    reducer = Reducer(found.kind, tolerance, most)
    small = reducer.run(_case(case.graph, case.inputs))
    last = failure(small.graph, small.inputs, tolerance)
    return small, last or found, reducer.tests
