"""Programs compiled for CUDA and run by the interpreter equal the IR's interpreter."""

from __future__ import annotations

import contextlib
import json
import random

import numpy as np
import pytest

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.cuda_target import ARCHITECTURES, UnknownArchitecture, cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower, stages_of
from tests.compiler.error_bounds import IllConditioned
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import KINDS, random_graph
from tests.compiler.test_compiled import sane, with_gradients
from tests.ptx.programs import TARGET, ReportedError, run_graph
from tests.ptx.support import in_turn


def check(graph: Graph, inputs: list[np.ndarray]) -> None:
    compare(graph, inputs, run_graph(graph, inputs))


def leaf(index: int, dtype: dtypes.DType, *shape: int) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def softmax(rows: int, columns: int) -> Graph:
    x = leaf(0, dtypes.float32, rows, columns)

    def along(value: Node) -> Node:
        return node("expand", node("reshape", value, shape=(rows, 1)), shape=x.shape)

    raised = node("exp", node("sub", x, along(node("max", x, axes=(1,)))))
    return Graph((node("div", raised, along(node("sum", raised, axes=(1,)))),))


def test_targets_are_found_by_name():
    assert cuda_target("cuda:sm_90a") is cuda_target("sm_90a") is ARCHITECTURES["sm_90a"]
    assert cuda_target("cuda:sm_90a").has("wgmma")
    assert not cuda_target("cuda:sm_80").has("wgmma")
    with pytest.raises(UnknownArchitecture, match=r"no CUDA target 'cuda:sm_7'; there are .*sm_80"):
        cuda_target("cuda:sm_7")


def test_an_artifact_survives_json():
    artifact = compile_graph(softmax(3, 5), TARGET)
    described = json.loads(json.dumps(artifact.description()))
    assert Artifact.from_description(described, artifact.objects) == artifact
    assert artifact.device == "cuda" and len(artifact.grid) == len(artifact.launches) == 1


def test_every_stage_can_be_read():
    stages = lower(softmax(3, 5), TARGET)
    texts = {name: stages.render(name) for name in stages_of(TARGET)}
    assert "ptx_kernel" in texts["llvm"] and "ptx_kernel" in texts["llvm-opt"]
    assert ".visible .entry" in texts["ptx"]


# ---- random graphs

DEFAULT, ALL = 60, 3000


@pytest.mark.parametrize("first", range(0, DEFAULT, 20))
def test_random_graphs(first):
    for seed in range(first, first + 20):
        check(*random_graph(seed))


def gradients_of(seed: int) -> tuple[Graph, list[np.ndarray]] | None:
    graph, inputs = random_graph(seed, size=12)
    joined = with_gradients(graph)
    with contextlib.suppress(Exception):
        if joined is not None and sane(interpret(joined, inputs)):
            return joined, inputs
    return None


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_random_gradients(first):
    for seed in range(first, first + 20):
        found = gradients_of(seed)
        if found is not None:
            with contextlib.suppress(IllConditioned):
                check(*found)


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_random_graphs_of_narrow_floats(first):
    for seed in range(first, first + 20):
        check(*random_graph(seed, dtypes=("float16", "bfloat16", "float32", "bool", "int16")))


def test_random_graphs_with_scans():
    for seed in range(10):
        check(*random_graph(seed, kinds=(*KINDS, "scan"), size=12))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(DEFAULT, ALL, 60))
def test_many_random_graphs(first):
    for seed in range(first, first + 60):
        check(*random_graph(seed))
        check(*random_graph(seed, kinds=(*KINDS, "scan"), size=12))


@pytest.mark.parametrize("name", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_shifts_by_any_number(name):
    """Counts past the width, negative ones, and such whose low 32 bits are small."""
    dtype = dtypes.DTYPES[name]
    counts = [0, 1, 7, 8, 31, 32, 63, 64, 127, -1, 2**32, 2**32 + 3, 2**62, -(2**63), 256]
    y = np.array(counts, np.int64).astype(dtype.numpy)
    x = np.full(len(counts), -77, np.int64).astype(dtype.numpy)
    a, b = (leaf(number, dtype, len(counts)) for number in range(2))
    check(Graph((node("shl", a, b), node("shr", a, b), node("shl", b, b))), [x, y])


# ---- rows

TEAMS = [1, 2, 7, 32, 100, 129, 1024, 1027, 9001]
"""One thread a row, part of a warp, a warp, a block, a block in a loop."""


@pytest.mark.parametrize("columns", TEAMS)
def test_softmax(columns):
    x = np.random.default_rng(columns).standard_normal((5, columns)).astype(np.float32)
    check(softmax(5, columns), [x])


def special(generator: np.random.Generator, dtype: dtypes.DType, shape: tuple[int, ...]):
    """Values with ties, and for floats some NaN, infinities and zeros of both signs."""
    if dtype.kind == "bool":
        return generator.random(shape) < 0.9
    if dtype.is_integer:
        return generator.integers(0 if dtype.kind == "unsigned" else -3, 4, shape).astype(
            dtype.numpy
        )
    values = np.round(generator.standard_normal(shape) * 2) / 2
    chosen = generator.random(shape)
    values[chosen < 0.01] = np.nan
    values[(chosen >= 0.01) & (chosen < 0.02)] = np.inf
    values[(chosen >= 0.02) & (chosen < 0.1)] = -0.0
    return values.astype(dtype.numpy)


REDUCTIONS = ("sum", "prod", "max", "min", "argmax", "argmin")
REDUCED = [name for name, dtype in dtypes.DTYPES.items() if not dtype.is_complex]


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions(name, axis):
    """Rows and columns, short and long, of every dtype."""
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(axis)
    for shape in ((5, 3), (40, 67), (3, 1500), (300, 33), (1, 1)):
        x = leaf(0, dtype, *shape)
        outputs = []
        for op in REDUCTIONS:
            if dtype.kind == "bool" and op in ("sum", "prod"):
                continue
            attributes = {"axes": (axis,)}
            outputs.append(node(op, x, **attributes))
        graph, inputs = Graph(tuple(outputs)), [special(generator, dtype, shape)]
        for got, wanted in zip(run_graph(graph, inputs), interpret(graph, inputs), strict=True):
            assert got.dtype == wanted.dtype
            if dtype.is_floating and got.dtype == dtype.numpy:
                got, wanted = got.astype(np.float64), wanted.astype(np.float64)
                np.testing.assert_allclose(got, wanted, rtol=1e-5 if dtype.bits > 16 else 2e-2)
            else:
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5)])
def test_nothing(shape):
    x = leaf(0, dtypes.float32, *shape)
    check(Graph((node("exp", x), node("sum", x, axes=(len(shape) - 1,)))),
          [np.zeros(shape, np.float32)])


def test_a_number():
    x = leaf(0, dtypes.float64)
    check(Graph((node("exp", x),)), [np.array(0.5)])


@pytest.mark.parametrize("size", [1, 31, 1000, 4097, 300_007])
def test_a_map_ends_where_it_should(size):
    x = leaf(0, dtypes.float32, size)
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    (got,) = run_graph(Graph((node("mul", x, x),)), [values])
    np.testing.assert_array_equal(got, values * values)


# ---- indices

def gathered(count: int, width: int) -> Graph:
    x = leaf(0, dtypes.float32, count, width)
    index = leaf(1, dtypes.int64, 70)
    return Graph((node("gather", x, index, axes=(0,)),))


def test_an_index_out_of_range_is_reported():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    index = np.arange(70) % 8 - 4
    check(gathered(4, 3), [x, index])
    index[33] = 4
    with pytest.raises(ReportedError) as failed:
        run_graph(gathered(4, 3), [x, index])
    assert failed.value.args == (4, 4, 0, 0)


def scattered(mode: str, dtype: dtypes.DType, base: tuple[int, ...], count: int) -> Graph:
    target = leaf(0, dtype, *base)
    updates = leaf(1, dtype, count, *base[1:])
    index = leaf(2, dtypes.int64, count)
    return Graph((node("scatter", target, updates, index, axes=(0,), mode=mode),))


@pytest.mark.parametrize("mode, name, shape", in_turn(
    ("set", "add", "mul", "max", "min"),
    ("float32", "int32", "bool", "bfloat16", "int8", "uint64"),
    (((5,), 300), ((9, 3), 40), ((4, 200), 33), ((50, 2, 3), 7)),
))  # fmt: skip
def test_updates_keep_their_order(mode, name, shape):
    base, count = shape
    dtype, generator = dtypes.dtype_named(name), random.Random(count)
    numbers = np.random.default_rng(count)
    if dtype.kind == "bool" and mode == "mul":
        pytest.skip("not an op")
    shapes = (base, (count, *base[1:]))
    values = [numbers.integers(0, 3, shape).astype(dtype.numpy) for shape in shapes]
    index = np.array([generator.randrange(-base[0], base[0]) for _ in range(count)])
    graph = scattered(mode, dtype, base, count)
    inputs = [*values, index]
    np.testing.assert_array_equal(run_graph(graph, inputs)[0], interpret(graph, inputs)[0])


def test_loops_are_launched_round_by_round():
    """Their gradients, and a loop within a loop, too; rounds have the number of their launch."""
    from tests.compiler.test_loop import gradients, memory_cell, nested, values_of

    for case in (memory_cell, nested):
        loop, leaves = case(3, True)
        graph = Graph(tuple(loop.parts() + gradients(loop.parts(), leaves)))
        values = values_of(leaves)
        for have, want in zip(run_graph(graph, values), interpret(graph, values), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-10)
        artifact = compile_graph(graph, TARGET)
        numbers = [launch.number for launch in artifact.grid]
        assert len(numbers) > len(artifact.launches) == len(set(numbers)) == max(numbers) + 1
