"""`bisect`: the one decision of the compiler that makes a program wrong.

With the first k decisions taken and no later ones (`lazygrad_compiler.decisions`), the program is
right for small k and wrong for all of them; halving finds the smallest k that is wrong, and
decision k is the culprit.  First the optimised graph is interpreted: a wrong rewrite shows there
already, and finding it compiles nothing.  Else the fault is in fusion or code generation, and each
step of the search is a compile: at most ceil(log2 n) + 1 for n candidates (the decisions, and code
generation without any).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from lazygrad.explain.compare import (
    difference,
    interpret_rewritten,
    interpreted,
    rewritten_inputs,
)
from lazygrad.explain.failures import (
    Failure,
    compiled_failure,
    rewriting_failure,
)
from lazygrad_compiler import pipeline
from lazygrad_compiler.decisions import Decision, Ledger, under
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.fusion.prepare import RULES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node, rebuild


@dataclass(frozen=True, slots=True)
class Culprit:
    """failure: what is wrong.  step: the pass, `fuse`, or `code generation`.  decision: the one
    decision, None where the step takes none.  candidates, compiles: what the search went through.
    """

    failure: Failure
    step: str
    what: str
    decision: Decision | None
    candidates: int
    compiles: int


def find_culprit(graph: Graph, inputs: Sequence[numpy.ndarray],
                 tolerance: float | None = None) -> Culprit | None:
    """The culprit, or None where compiled and interpreted agree.

    Raises what the interpreter raises where the inputs are not for this graph.
    """
    expected = interpreted(graph, inputs)
    with under(Ledger()) as everything:
        found = rewriting_failure(graph, inputs, expected, tolerance)
    if found is not None:
        return _wrong_rewrite(graph, inputs, everything, found, tolerance)
    compiles = 1
    found = compiled_failure(graph, inputs, expected, tolerance)
    if found is None:
        return None
    with under(Ledger()) as everything:
        partition(pipeline.optimized(graph))
    failures = {len(everything.taken): found}

    def fails(limit: int) -> bool:
        nonlocal compiles
        compiles += 1
        with under(Ledger(limit)):
            now = compiled_failure(graph, inputs, expected, tolerance)
        if now is None or now.kind != found.kind:  # another failure: of half-optimised graphs
            return False
        failures[limit] = now
        return True

    first = _smallest(fails, len(everything.taken))
    return _culprit(failures[first], everything, first, compiles, "code generation",
                    "wrong with no rewrite and no fusion: lowering or code generation")


def _smallest(fails: Callable[[int], bool], wrong: int) -> int:
    """The smallest limit from 0 to `wrong` that fails; `wrong` does."""
    low, high = 0, wrong
    while low < high:
        middle = (low + high) // 2
        if fails(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _culprit(failure: Failure, everything: Ledger, first: int, compiles: int, step: str,
             what: str) -> Culprit:
    candidates = len(everything.taken) + 1
    if first == 0:
        return Culprit(failure, step, what, None, candidates, compiles)
    decision = everything.taken[first - 1]
    return Culprit(failure, decision.step, decision.what, decision, candidates, compiles)


def _wrong_rewrite(graph: Graph, inputs: Sequence[numpy.ndarray], everything: Ledger,
                   found: Failure, tolerance: float | None) -> Culprit:
    expected = interpreted(graph, inputs)
    failures = {len(everything.taken): found}

    def fails(limit: int) -> bool:
        with under(Ledger(limit)):
            now = rewriting_failure(graph, inputs, expected, tolerance)
        if now is None or now.kind != found.kind:
            return False
        failures[limit] = now
        return True

    first = _smallest(fails, len(everything.taken))
    step, what = "", ""
    if first == 0:
        step, what = _fixed_step(graph, inputs, tolerance)
    return _culprit(failures[first], everything, first, 0, step, what)


def _fixed_step(graph: Graph, inputs: Sequence[numpy.ndarray],
                tolerance: float | None) -> tuple[str, str]:
    """Which of the passes that are always run is wrong, and at which operation where it is known.
    """
    expected = interpreted(graph, inputs)
    dtypes = [output.dtype for output in graph.outputs]
    with under(Ledger(0)):
        made = graph
        for name, run in pipeline.opt_passes():
            before = made
            try:
                made = run(before)
                values = interpret_rewritten(made, graph, inputs)
            except Exception as error:
                return name, f"{type(error).__name__}: {error}"
            if difference(values, expected, dtypes, tolerance):
                break
        else:
            return "opt", "a step that is always taken"
    what = _wrong_rule(before, rewritten_inputs(before, inputs)) if name == "prepare" else ""
    return name, what or "a step that is always taken"


def _wrong_rule(graph: Graph, inputs: Sequence[numpy.ndarray]) -> str:
    """The first operation that its rule of `prepare` makes something else of; "" for none."""
    order = graph.nodes()
    known = dict(zip(order, interpret(Graph(tuple(order)), inputs), strict=True))
    for current in order:
        rule = RULES.get(current.op)
        if rule is None:
            continue
        alone, values = _on_inputs(current, known)
        made = interpret(Graph((rule(alone),)), values)
        if difference(made, interpreted(Graph((alone,)), values), [current.dtype]):
            return f"{rule.__name__} on {current!r}"
    return ""


def _on_inputs(current: Node, known: dict[Node, numpy.ndarray]) -> tuple[Node, list]:
    """The operation on inputs that hold the values of its operands."""
    leaves = [node("input", index=number, dtype=value.dtype, shape=value.shape)
              for number, value in enumerate(current.inputs)]
    return rebuild(current, leaves), [known[value] for value in current.inputs]
