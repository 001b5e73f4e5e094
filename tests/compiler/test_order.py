"""The order of kernels: what each reads is there, and memory is given back soon."""

from __future__ import annotations

import random

import pytest

from lazygrad_compiler.fusion import order
from lazygrad_compiler.fusion.order import in_order
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_partition import leaf, matmul


@pytest.mark.parametrize("seed", range(30))
def test_nothing_runs_before_what_it_needs(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randrange(1, 40)
    shuffled = draw.sample(range(count), count)
    values = [node("input", index=n, dtype=DTYPES["float32"], shape=(draw.choice([1, 9_000]),))
              for n in range(count)]
    before = [0] * count
    readers: dict[Node, set[int]] = {}
    for place, number in enumerate(shuffled):
        for other in draw.sample(shuffled[:place], min(place, draw.randrange(4))):
            before[number] |= before[other] | 1 << other
            readers.setdefault(values[other], set()).add(number)
    found = in_order([{value} for value in values], before, readers, {})
    assert sorted(found) == list(range(count))
    done = 0
    for number in found:
        assert not before[number] & ~done
        done |= 1 << number


def backward(layers: int, rows: int, width: int) -> Graph:
    """The gradients of a stack of products, the first layer's first, as optimisers list them."""
    kept = [leaf(n, rows, width) for n in range(layers)]
    weights = [leaf(layers + n, width, width) for n in range(layers)]
    current = leaf(2 * layers, rows, width)
    gradients = []
    for hidden, weight in zip(reversed(kept), reversed(weights), strict=True):
        current = node("mul", matmul(current, weight), hidden)
        turned = node("permute", hidden, order=(1, 0))
        gradients.append(matmul(turned, current))
    return Graph(tuple(reversed(gradients)))


def test_gradients_of_weights_do_not_wait_for_those_of_all_activations(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = backward(8, 512, 64)
    one = 512 * 64 * 4
    assert lower(graph, host()).plan.arena_bytes <= 3 * one
    monkeypatch.setattr(order, "SMALL", -(1 << 40))  # nothing gives back as much as it takes
    assert lower(graph, host()).plan.arena_bytes >= 8 * one


def test_an_update_waits_for_the_other_readers_of_what_it_replaces() -> None:
    """Else it could not be written over it: 0 makes, 1 replaces an input, 2 reads that input."""
    made, old = leaf(0, 9_000), leaf(1, 9_000)
    readers = {made: {1, 2}, old: {1, 2}}
    written = [{made}, set(), {leaf(2, 90_000)}]
    assert in_order(written, [0, 1, 1], readers, {}) == [0, 1, 2]
    assert in_order(written, [0, 1, 1], readers, {1: {old}})[0] == 0
    last = in_order([{made}, {leaf(2, 90_000)}, set()], [0, 1, 1], {made: {1, 2}, old: {1, 2}},
                    {2: {old}})
    assert last == [0, 1, 2], "the update, which gives back most, still waits"
