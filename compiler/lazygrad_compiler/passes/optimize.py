"""The stage `opt`: the graph passes, in order.

Every pass is a function from graph to graph that keeps the outputs' order, dtypes, shapes and bits.
Dead code is what outputs do not reach; common subexpressions cannot exist (`ir/node.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lazygrad_compiler import decisions
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.passes import (
    canonicalise,
    fold,
    markers,
    movement,
    reductions,
    simplify,
    sink,
)
from lazygrad_compiler.passes.rewrite import RewriteRules, apply

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph, Graph, float], None]

RULE_SETS: tuple[RewriteRules, ...] = (
    markers.rules, canonicalise.rules, movement.rules, fold.rules, simplify.rules, reductions.rules,
    sink.rules,
)
"""Every rule there is."""


def by_rules(*sets: RewriteRules) -> Pass:
    """The pass that applies sets of rules to the fixpoint."""
    return lambda graph: apply(graph, *sets)


PASSES: list[tuple[str, Pass]] = [
    ("strip-markers", by_rules(markers.rules)),
    ("canonicalise", by_rules(canonicalise.rules, movement.rules)),
    ("fold-constants", by_rules(fold.rules)),
    ("simplify", by_rules(simplify.rules, reductions.rules)),
    ("sink-movement", by_rules(sink.rules)),
    ("settle", by_rules(*RULE_SETS)),  # each pass makes room for others: all together at the end
]


def optimize(graph: Graph, observer: Observer | None = None,
             passes: Sequence[tuple[str, Pass]] | None = None) -> Graph:
    """The graph after all passes (PASSES, unless others are given).

    observer: called after each pass as observer(name, before, after, seconds): to dump, to verify.
    """
    book = decisions.ledger()
    for name, run in PASSES if passes is None else passes:
        if book is not None:
            book.step = name
        before, started = graph, time.perf_counter()
        graph = run(before)
        if observer is not None:
            observer(name, before, graph, time.perf_counter() - started)
    return graph
