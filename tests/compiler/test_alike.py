"""Groups that are alike: what lowering made of one, moved to the others, is what lowering makes of
those.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lazygrad_compiler import pipeline
from lazygrad_compiler.backend import backend_of
from lazygrad_compiler.fusion import partition as fusion
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.ir.node import Graph, Node, build, node, separate_input, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.loops.alike import moved, structure
from lazygrad_compiler.loops.kernel import Launch, text
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.target import host
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_columns import norm_backward
from tests.compiler.test_schedule import leaf


def twice(graph: Graph) -> Graph:
    """The graph, and beside it the same on other inputs, each with lines of its own."""
    outputs: list[Node] = []
    for copy in range(2):
        made: dict[Node, Node] = {}
        for number, each in enumerate(topological(graph.outputs)):
            line = ((f"copy{copy}.py", number),)
            if each.op == "input":
                index = 2 * each.attrs[0] + copy
                made[each] = separate_input(index, each.dtype, each.shape, line)
            else:
                inputs = tuple(made[value] for value in each.inputs)
                made[each] = build(OPS[each.op], inputs, each.attrs, line)
        outputs += [made[output] for output in graph.outputs]
    return Graph(tuple(outputs))


def lowered(graph: Graph) -> tuple[list[Launch], list[object]]:
    parts = partition(pipeline.optimized(graph))
    return (pipeline.lower_groups(parts, backend_of(host())),
            [reason for _, _, reason in parts.refused])


def one_by_one(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Launch], list[object]]:
    """The same with no two groups taken for alike."""
    numbers = itertools.count()

    def unlike(group: Group, stored: Callable[[Node], bool]) -> tuple[tuple, list[Node]]:
        return (next(numbers),), structure(group, stored)[1]

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "structure", unlike)
        patch.setattr(fusion, "structure", unlike)
        return lowered(graph)


def described(launches: Sequence[Launch]) -> list[tuple]:
    """All that launches say; what they read and write by where it is met first."""
    numbers: dict[Node, int] = {}
    return [
        (text(launch.kernel), launch.about, launch.location, launch.checks, launch.offsets,
         [(value.dtype, value.shape, value.location, numbers.setdefault(value, len(numbers)))
          for value in launch.arguments],
         [root.location for root in launch.group.roots])
        for launch in launches
    ]


def moves(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many groups were not lowered on their own; with the same launches as if all had been."""
    calls = []

    def counting(*parts: Any) -> list[Launch]:
        calls.append(parts)
        return moved(*parts)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "moved", counting)
        have, refused = lowered(graph)
    want, all_refused = one_by_one(graph, monkeypatch)
    assert described(have) == described(want)
    assert refused == all_refused
    return len(calls)


def test_random_programs_are_lowered_as_if_nothing_were_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sum(moves(twice(random_graph(seed)[0]), monkeypatch) for seed in range(80)) > 80


def test_blocks_of_rows_have_temporaries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = twice(norm_backward(512, 256))
    assert moves(graph, monkeypatch) == 1
    launches = lowered(graph)[0]
    partials = [{argument for argument in launch.arguments if argument.op == "input"
                 and argument.attrs[0] not in range(6)} for launch in launches]
    assert len(launches) == 4 and all(partials)
    assert not (partials[0] | partials[1]) & (partials[2] | partials[3])
    assert [{file for file, _ in launch.location} for launch in launches] == [
        {"copy0.py"}, {"copy0.py"}, {"copy1.py"}, {"copy1.py"}]


def test_an_index_out_of_range_is_reported_at_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    index = leaf(1, 8, dtype="int64")
    graph = twice(Graph((node("gather", leaf(0, 5, 3), index, axes=(0,)),)))
    assert moves(graph, monkeypatch) == 1
    first, second = lowered(graph)[0]
    assert first.kernel is second.kernel
    assert [launch.checks[0][0][0] for launch in (first, second)] == ["copy0.py", "copy1.py"]


def test_what_lowering_looks_at_tells_groups_apart() -> None:
    x, y = leaf(0, 4, 6), leaf(1, 6, 4)

    def key(root: Node, *memory: Node, **settings) -> tuple:
        group = Group("loops", [root], **{"rows": root.size, **settings})
        return structure(group, lambda each: each.op == "input" or each in memory)[0]

    total = node("add", x, node("permute", y, order=(1, 0)))
    keys = [
        key(total), key(total, node("permute", y, order=(1, 0))), key(node("add", x, x)),
        key(node("add", x, leaf(2, 4, 6))), key(node("add", x, leaf(2, 4, 6, dtype="float32"))),
        key(total, outputs={total}), key(total, rows=4, inner=6),
        key(node("sub", x, node("permute", y, order=(1, 0)))),
        key(node("add", leaf(0, 6, 4), node("permute", x, order=(1, 0)))),
    ]
    assert keys[1] == keys[3] == keys[4]  # whatever a value in memory was made from
    assert len(set(keys)) == len(keys) - 2
    assert key(total) == key(node("add", leaf(5, 4, 6), node("permute", leaf(3, 6, 4),
                                                            order=(1, 0))))
