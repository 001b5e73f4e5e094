"""Minimum cuts, against networkx."""

from __future__ import annotations

import random

import networkx
import pytest

from lazygrad_compiler.ir.minimum_cut import Network


@pytest.mark.parametrize("seed", range(60))
def test_the_same_cut_as_networkx(seed: int) -> None:
    """The value and, since it is the cut closest to the sink, the very nodes."""
    draw = random.Random(seed)
    names = ["source", "sink", *range(draw.randrange(0, 12))]
    flow, network = networkx.DiGraph(), Network()
    flow.add_nodes_from(["source", "sink"])
    capacities: dict[tuple, int] = {}
    for _ in range(draw.randrange(0, 50)):
        tail, head = draw.sample(names, 2)
        capacity = draw.choice([0, 1, 1, 2, 5, 1 << 40])
        capacities[tail, head] = capacities.get((tail, head), 0) + capacity
        network.edge(tail, head, capacity)
    for (tail, head), capacity in capacities.items():
        flow.add_edge(tail, head, capacity=capacity)
    value, (expected, _) = networkx.minimum_cut(flow, "source", "sink")
    before = network.before()
    assert before == expected
    assert value == sum(capacity for (tail, head), capacity in capacities.items()
                        if tail in before and head not in before)


def test_a_cut_that_must_not_be_made() -> None:
    network = Network()
    network.edge("source", "a")
    network.edge("a", "sink")
    with pytest.raises(ValueError, match="unlimited"):
        network.before()


def test_a_long_chain() -> None:
    network = Network()
    for number in range(20_000):
        network.edge(number or "source", number + 1, 7 if number != 9_999 else 5)
    network.edge(20_000, "sink")
    assert {9_999, 5_000} <= network.before()
    assert 10_000 not in network.before()
