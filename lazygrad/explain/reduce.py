"""`reduce`: a failing graph made small, the class of its failure kept.

Three moves, each kept if the graph still fails in the same way: fewer outputs; a value in the
middle becomes the only output (what comes after it goes); values become inputs that hold what the
interpreter computes for them (what comes before goes).  They are tried on many values at once, then
on half as many, down to one (Zeller, Hildebrandt: Simplifying and isolating failure-inducing input,
2002).  Last, an operation gives way to an operand of its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from lazygrad.explain.failures import Failure, failure
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node, substitute

LEAVES = ("input", "const", "iota")


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
    """tests: how often a candidate was tried so far.  most: where to stop."""

    def __init__(self, kind: str, tolerance: float | None, most: int,
                 fails: Callable[..., Failure | None] = failure) -> None:
        self.kind = kind
        self.tolerance = tolerance
        self.most = most
        self.fails = fails
        self.tests = 0

    def same(self, case: Case) -> bool:
        """Whether the case fails in the class that is kept."""
        self.tests += 1
        try:
            found = self.fails(case.graph, case.inputs, self.tolerance)
        except Exception:  # the interpreter does not run it: no case at all
            return False
        return found is not None and found.kind == self.kind

    def run(self, case: Case) -> Case:
        """The case reduced until no move makes it smaller."""
        while self.tests < self.most:
            before = _size(case)
            for move in (self.fewer_outputs, self.earlier_output, self.cut_inputs, self.bypass):
                case = move(case)
            if _size(case) >= before:
                break
        return case

    def fewer_outputs(self, case: Case) -> Case:
        outputs = case.graph.outputs
        for output in dict.fromkeys(outputs) if len(outputs) > 1 else ():
            candidate = _case(Graph((output,)), case.inputs)
            if self.same(candidate):
                return candidate
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


def reduce_case(case: Case, tolerance: float | None = None, most: int = 2000,
                fails: Callable[..., Failure | None] = failure) -> tuple[Case, Failure, int] | None:
    """The smallest case found with a failure of the same class, that failure, and how many
    candidates were tried; None where the case does not fail.
    """
    found = fails(case.graph, case.inputs, tolerance)
    if found is None:
        return None
    reducer = Reducer(found.kind, tolerance, most, fails)
    small = reducer.run(_case(case.graph, case.inputs))
    last = fails(small.graph, small.inputs, tolerance)
    return small, last or found, reducer.tests
