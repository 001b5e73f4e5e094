"""Candidate schedules: all of a kernel give the same bits, and each is text that reads back."""

from __future__ import annotations

import dataclasses
import random

import numpy
import pytest

from lazygrad_compiler.artifact import Tuned
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.loops import candidates
from lazygrad_compiler.loops.schedule import LoopSchedule, schedule_loops
from lazygrad_compiler.loops.schedule_arrays import (
    AttentionSchedule,
    ScanSchedule,
    TaskSchedule,
)
from lazygrad_compiler.loops.schedule_contraction import ContractionSchedule
from lazygrad_compiler.loops.schedule_tiles import TileSchedule
from lazygrad_compiler.pipeline import candidates_of, compile_graph, kernel_name, lower
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.every_kind import (
    convolution,
    drawn,
    leaf,
    pointwise,
    product,
    scans,
    scatter,
    sorts,
    winograd,
)
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_attention import Shape
from tests.compiler.test_attention import graph_of as attention_of
from tests.compiler.test_columns import norm_backward
from tests.compiler.test_row_buffers import softmax


def total(dtype: str) -> Graph:
    return Graph((node("sum", leaf(0, 40, 500, dtype=dtype), axes=(1,)),))


def transposed() -> Graph:
    return Graph((node("exp", node("permute", leaf(0, 130, 70), order=(1, 0))),))


GRAPHS = {
    "product": lambda: product(67, 300, 53),
    "product of doubles": lambda: product(30, 41, 70, "float64"),
    "transposed product": lambda: Graph((node(
        "dot", leaf(0, 90, 33), leaf(1, 47, 90), left_batch=(), right_batch=(),
        left_contract=(0,), right_contract=(1,)),)),
    "convolution": lambda: convolution(5, 9, 1),
    "windows": lambda: convolution(6, 6, 6),
    "softmax": lambda: Graph((softmax(leaf(0, 33, 210), 1),)),
    "norm": lambda: norm_backward(200, 130),
    "pointwise": pointwise,
    "transposed": transposed,
    "sum of integers": lambda: total("int32"),
    "sum of floats": lambda: total("float32"),
    "scans": scans,
    "sorts": sorts,
    "scatter": scatter,
    "winograd": winograd,
}
ATTENTION = {
    "attention": (Shape(1, 2, 2, 150, 130, 24, 16), True),
    "attention of groups": (Shape(4, 4, 2, 70, 200, 16, 16), False),
    "decoding": (Shape(1, 4, 2, 3, 1100, 16, 16), False),
}


def case(name: str) -> tuple[Graph, list[numpy.ndarray]]:
    if name in ATTENTION:
        return attention_of(*ATTENTION[name])
    graph = GRAPHS[name]()
    return graph, drawn(graph)


def bits(graph: Graph, inputs: list[numpy.ndarray], tuning: dict[str, Tuned]) -> list[bytes]:
    artifact = compile_graph(graph, host(), tuning=tuning)
    assert artifact.tuning == tuning
    outputs = Program(artifact).run([Buffer.from_numpy(numpy.asarray(array)) for array in inputs])
    return [output.as_numpy(numpy.uint8, (output.nbytes,)).tobytes() for output in outputs]


def check(graph: Graph, inputs: list[numpy.ndarray], most: int, rng: random.Random) -> int:
    """Runs the graph with candidates of all its kernels at once; gives how many of one."""
    kernels = lower(graph, host()).kernels
    choices = {kernel.name: candidates_of(kernel, host()) for kernel in kernels}
    for kernel in kernels:
        assert choices[kernel.name][0] == kernel.schedule
        assert len(set(choices[kernel.name])) == len(choices[kernel.name])
        rng.shuffle(choices[kernel.name])
    expected = bits(graph, inputs, {})
    longest = max(map(len, choices.values()), default=0)
    for place in range(min(longest, most)):
        tuning = {name: Tuned(candidates.written(found[place % len(found)]), 1.0)
                  for name, found in choices.items()}
        assert bits(graph, inputs, tuning) == expected, tuning
    return longest


@pytest.mark.parametrize("name", [*GRAPHS, *ATTENTION])
def test_candidates_give_the_bits_of_the_default(name: str) -> None:
    assert check(*case(name), 4, random.Random(name)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GRAPHS, *ATTENTION])
def test_all_candidates_give_the_bits_of_the_default(name: str) -> None:
    check(*case(name), 1000, random.Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_candidates_of_random_programs(seed: int) -> None:
    graph, inputs = random_graph(seed, size=12)
    check(graph, inputs, 6, random.Random(seed))


def kernel_of(graph: Graph):
    (kernel,) = lower(graph, host()).kernels
    return kernel


def test_lanes_along_a_sum_of_floats_are_fixed() -> None:
    floats, whole = (
        {s.lanes for s in candidates_of(kernel_of(total(dtype)), host())}
        for dtype in ("float32", "int32")
    )
    assert len(floats) == 1
    assert len(whole) > 1


def test_knobs_of_each_kind_vary() -> None:
    seen: dict[type, set[str]] = {}
    for name in [*GRAPHS, *ATTENTION]:
        for kernel in lower(case(name)[0], host()).kernels:
            found = candidates_of(kernel, host())
            for schedule in found[1:]:
                if type(schedule) is type(found[0]):
                    seen.setdefault(type(schedule), set()).update(
                        field.name for field in dataclasses.fields(schedule)
                        if getattr(schedule, field.name) != getattr(found[0], field.name))
    assert seen[ContractionSchedule] >= {"strips", "vectors", "block", "nc", "left", "right"}
    assert seen[LoopSchedule] >= {"lanes", "chunk", "grain", "vector", "row_order"}
    assert seen[TileSchedule] >= {"tile", "grain"}
    assert seen[AttentionSchedule] == {"pairs", "block", "grain"}
    assert seen[ScanSchedule] == {"vectors", "grain"}
    assert seen[TaskSchedule] == {"grain"}


def test_what_would_add_in_another_order_is_not_tried() -> None:
    """Blocks of keys of attention forward; strips of backward where tasks share a head."""
    (forward, *_), (backward, *_) = (
        [kernel for kernel in lower(case("attention")[0], host()).kernels
         if getattr(kernel.kernel, "step", "").startswith(step)]
        for step in ("forward", "backward"))
    assert len({schedule.block for schedule in candidates_of(forward, host())}) == 1
    assert len({schedule.pairs for schedule in candidates_of(forward, host())}) > 1
    assert len({schedule.pairs for schedule in candidates_of(backward, host())}) == 1
    assert len({schedule.block for schedule in candidates_of(backward, host())}) > 1


def test_large_kernels_try_stores_past_the_caches() -> None:
    large = Graph((node("exp", leaf(0, 1 << 20)),))
    found = candidates_of(kernel_of(large), host())
    assert {schedule.stream for schedule in found} == {True, False}


def test_what_is_written_is_read() -> None:
    for name in [*GRAPHS, *ATTENTION]:
        for kernel in lower(case(name)[0], host()).kernels:
            for schedule in candidates_of(kernel, host()):
                assert candidates.read(candidates.written(schedule)) == schedule


@pytest.mark.parametrize("text", [
    "", "{}", "[]", '["LoopSchedule", {}]', '["object", {}]', '["LoopSchedule", 3]', "[[[",
    '["TileSchedule", {"vector": "row", "lanes": 16, "vector_axis": 0, "chunk": 1.5, '
    '"tile_axis": 0, "tile": 1, "grain": 1}]',
    '["TileSchedule", {"vector": "row", "lanes": true, "vector_axis": 0, "chunk": 1, '
    '"tile_axis": 0, "tile": 1, "grain": 1}]',
    '["TileSchedule", {"vector": "row", "lanes": [16], "vector_axis": 0, "chunk": 1, '
    '"tile_axis": 0, "tile": 1, "grain": 1}]',
])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        candidates.read(text)


def test_a_tuned_kernel_has_a_name_of_its_own_and_says_so() -> None:
    graph = pointwise()
    before = lower(graph, host())
    kernel = before.kernels[0]
    default = schedule_loops(kernel.kernel, host())
    other = Tuned(candidates.written(dataclasses.replace(default, grain=default.grain + 1)), 1.234)
    after = lower(graph, host(), {kernel.name: other})
    assert after.kernels[0].name != kernel.name
    assert after.names[0] == kernel_name(kernel.kernel, host(), other.schedule)
    assert "; schedule: tuned, 1.23x over the default\n" in after.render("loops")
    assert "tuned" not in before.render("loops")


def test_a_schedule_for_another_kernel_changes_nothing() -> None:
    graph = pointwise()
    text = candidates.written(schedule_loops(lower(graph, host()).kernels[0].kernel, host()))
    tuning = {"k_0123456789abcdef": Tuned(text, 2.0)}
    assert lower(graph, host(), tuning).names == lower(graph, host()).names


