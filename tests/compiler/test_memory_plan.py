"""The memory plan: values alive together never overlap, and reuse makes the arena small."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazygrad_compiler.in_place import in_place
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.index import ZERO
from lazygrad_compiler.loops.kernel import Launch, ScatterKernel
from lazygrad_compiler.memory_plan import ALIGNMENT, Lifetime, MemoryPlan, plan_memory
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.random_graphs import random_graph

NOTHING = ScatterKernel((), (), 0, ZERO, 0, "set", (), ())
"""A kernel that writes nothing in place."""


def value(number: int, size: int) -> Node:
    return node("input", index=number, dtype=dtypes.float32, shape=(size,))


def launches(*arguments: list[Node]) -> list[Launch]:
    return [Launch(NOTHING, tuple(nodes), (), "test") for nodes in arguments]


def rounded(nbytes: int) -> int:
    return max(-(-nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)


def takes_over(made: list[Launch], earlier: Lifetime, later: Lifetime) -> bool:
    """Whether `later` is written in place over `earlier` by the last launch that reads it."""
    if earlier.last != later.first or earlier.offset != later.offset:
        return False
    launch = made[earlier.last]
    return in_place(launch, launch.arguments.index(earlier.node),
                    launch.arguments.index(later.node))


def check(plan: MemoryPlan, made: list[Launch]) -> None:
    for a, b in itertools.combinations(plan.lifetimes, 2):
        together = a.first <= b.last and b.first <= a.last
        apart = a.offset + a.node.nbytes <= b.offset or b.offset + b.node.nbytes <= a.offset
        assert not together or apart or takes_over(made, a, b) or takes_over(made, b, a), \
            f"{a} and {b} overlap"
    for lifetime in plan.lifetimes:
        assert lifetime.offset % ALIGNMENT == 0 and lifetime.offset >= 0
        assert lifetime.nbytes >= lifetime.node.nbytes
        assert lifetime.offset + lifetime.nbytes <= plan.arena_bytes
    alive = [
        sum({v.offset: v.nbytes for v in plan.lifetimes if v.first <= moment <= v.last}.values())
        for moment in range(1 + max((v.last for v in plan.lifetimes), default=0))
    ]
    total = sum(rounded(v.node.nbytes) for v in plan.lifetimes)
    assert max(alive) <= plan.arena_bytes <= total


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Launch], set[Node], list[Node]]:
    """Values, each touched by some launches from its first on; some belong to the program."""
    count = draw(st.integers(1, 12))
    moments = draw(st.integers(1, 10))
    arguments: list[list[Node]] = [[] for _ in range(moments)]
    external, inside = set(), []
    for number in range(count):
        made = value(number, draw(st.sampled_from([0, 1, 15, 16, 17, 100, 1000, 4096])))
        for moment in draw(st.sets(st.integers(0, moments - 1), min_size=1)):
            arguments[moment].append(made)
        if draw(st.integers(0, 4)) == 0:
            external.add(made)
        else:
            inside.append(made)
    return launches(*arguments), external, inside


@settings(max_examples=300, deadline=None)
@given(schedules())
def test_random_lifetimes(case: tuple[list[Launch], set[Node], list[Node]]) -> None:
    made, external, inside = case
    plan = plan_memory(made, external)
    check(plan, made)
    assert set(plan.offsets()) == set(inside)
    for lifetime in plan.lifetimes:
        used = [k for k, launch in enumerate(made) if lifetime.node in launch.arguments]
        assert (lifetime.first, lifetime.last) == (min(used), max(used))


def test_the_check_can_fail() -> None:
    a, b = value(0, 64), value(1, 64)
    plan = plan_memory(launches([a, b]), set())
    broken = MemoryPlan(
        tuple(type(v)(v.node, v.first, v.last, v.nbytes, 0) for v in plan.lifetimes), 256
    )
    with pytest.raises(AssertionError, match="overlap"):
        check(broken, launches([a, b]))


def test_a_chain_needs_two_places() -> None:
    chain = [value(number, 1000) for number in range(10)]
    plan = plan_memory(launches(*([a, b] for a, b in itertools.pairwise(chain))), set())
    assert plan.arena_bytes == 2 * rounded(4000)


def test_a_value_read_at_the_end_keeps_its_place() -> None:
    early, middle, late = value(0, 16), value(1, 16), value(2, 16)
    plan = plan_memory(launches([early], [middle], [early, late]), set())
    assert plan.arena_bytes == 2 * ALIGNMENT
    assert plan.offsets()[middle] == plan.offsets()[late] != plan.offsets()[early]


def test_small_values_fill_the_gaps_of_large_ones() -> None:
    large, small, other = value(0, 1000), value(1, 10), value(2, 10)
    plan = plan_memory(launches([large, small], [small, other]), set())
    assert plan.arena_bytes == rounded(4000) + ALIGNMENT
    assert plan.offsets()[other] < plan.offsets()[small]


def test_inputs_and_outputs_take_no_arena() -> None:
    a, b = value(0, 100), value(1, 100)
    plan = plan_memory(launches([a, b]), {a, b})
    assert plan.lifetimes == () and plan.arena_bytes == 0


def test_the_plan_is_the_same_every_time() -> None:
    generator = random.Random(3)
    nodes = [value(number, generator.randrange(500)) for number in range(20)]
    made = launches(*(generator.sample(nodes, 4) for _ in range(12)))
    assert plan_memory(made, set()) == plan_memory(made, set())


def test_plans_of_real_programs() -> None:
    placed = 0
    for seed in range(60):
        stages = lower(random_graph(seed, size=40)[0], host())
        check(stages.plan, stages.launches)
        placed += len(stages.plan.lifetimes)
        # every argument has a place: the program's own, or in the arena
        own = {*stages.opt.inputs(), *stages.opt.outputs}
        for launch in stages.launches:
            assert all(v in own or v in stages.plan.offsets() for v in launch.arguments)
    assert placed > 20


def test_activations_of_a_deep_chain_are_reused() -> None:
    """Softmax after softmax, each a kernel of its own: two rows of memory, not twenty."""
    x = node("input", index=0, dtype=dtypes.float32, shape=(512, 512))
    weight = node("input", index=1, dtype=dtypes.float32, shape=(512, 512))
    for _ in range(10):
        x = node(
            "dot", x, weight, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)
        )
    plan = lower(Graph((node("neg", x),)), host()).plan
    assert len(plan.lifetimes) == 9
    assert plan.arena_bytes == 2 * 512 * 512 * 4
