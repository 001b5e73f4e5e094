"""Compiled programs equal the interpreter: random graphs, forward and backward, through the whole
pipeline.
"""

from __future__ import annotations

import contextlib
import random

import numpy
import pytest

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node, topological
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.error_bounds import IllConditioned
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import random_graph


def run_compiled(graph: Graph, inputs: list[numpy.ndarray]) -> list[numpy.ndarray]:
    program = Program(compile_graph(graph, host()))
    given = inputs[: program.input_count]  # gradients may not need the last ones
    buffers = program.run([Buffer.from_numpy(numpy.ascontiguousarray(array)) for array in given])
    return [
        buffer.as_numpy(output.dtype.numpy, output.shape)
        for buffer, output in zip(buffers, graph.outputs, strict=True)
    ]


def check(graph: Graph, inputs: list[numpy.ndarray]) -> None:
    compare(graph, inputs, run_compiled(graph, inputs))


def with_gradients(graph: Graph) -> Graph | None:
    """The graph with the gradients of its floating outputs' weighted sum as further outputs."""
    outputs = [output for output in graph.outputs if output.dtype.name in ("float32", "float64")]
    leaves = [leaf for leaf in graph.inputs() if leaf.dtype.is_floating]
    if not outputs or not leaves:
        return None
    seeds = [node("const", value=0.5, dtype=output.dtype, shape=output.shape) for output in outputs]
    # `variable` markers make the inputs differentiable
    marked = {leaf: node("variable", leaf, uid=number + 1) for number, leaf in enumerate(leaves)}
    from lazygrad_compiler.ir.node import substitute

    live = substitute(outputs, dict(marked))
    gradients = [g for g in backward(live, seeds, list(marked.values())) if g is not None]
    return Graph((*live, *gradients)) if gradients else None


def sane(values: list[numpy.ndarray]) -> bool:
    """Gradients of random graphs can overflow or cancel to nothing; those say little."""
    return all(
        bool(numpy.isfinite(v.astype(numpy.float64)).all())
        and bool((abs(v.astype(numpy.float64)) < 1e6).all())
        for v in values
        if v.dtype.kind == "f"
    )


DEFAULT, ALL = 200, 2000


@pytest.mark.parametrize("first", range(0, DEFAULT, 50))
def test_forward(first: int) -> None:
    for seed in range(first, first + 50):
        check(*random_graph(seed))


def test_a_group_whose_split_loops_look_unaligned_stays_in_one_loop() -> None:
    check(*random_graph(922))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(DEFAULT, ALL, 50))
def test_forward_many(first: int) -> None:
    for seed in range(first, first + 50):
        check(*random_graph(seed))


def backward_case(seed: int) -> tuple[Graph, list[numpy.ndarray]] | None:
    graph, inputs = random_graph(seed, size=8, dtypes=("float32", "float64"))
    joint = with_gradients(graph)
    if joint is None:
        return None
    used = {leaf.attrs[0] for leaf in joint.inputs()}
    if not used or not sane(interpret(joint, inputs)):
        return None
    return joint, inputs[: 1 + max(used)]


def run_backward(first: int, count: int) -> int:
    checked = 0
    for seed in range(first, first + count):
        case = backward_case(seed)
        if case is not None:
            with contextlib.suppress(IllConditioned):
                check(*case)
                checked += 1
    return checked


@pytest.mark.parametrize("first", range(0, DEFAULT, 50))
def test_backward(first: int) -> None:
    assert run_backward(first, 50) > 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(DEFAULT, ALL, 50))
def test_backward_many(first: int) -> None:
    assert run_backward(first, 50) > 10


def test_same_program_gives_the_same_bits() -> None:
    graph, inputs = random_graph(7, size=30)
    first, second = run_compiled(graph, inputs), run_compiled(graph, inputs)
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_contractions_of_random_shapes(seed: int) -> None:
    generator = random.Random(seed)
    m, n, k = (generator.choice([2, 3, 7, 16, 31, 64, 97, 150, 257]) for _ in range(3))
    batch = generator.choice([1, 1, 2, 5])
    left_k_first, right_k_last = generator.random() < 0.5, generator.random() < 0.5
    from lazygrad_compiler.ir import dtypes

    dtype = generator.choice([dtypes.float32, dtypes.float64, dtypes.int32, dtypes.bfloat16])
    left = node(
        "input", index=0, dtype=dtype, shape=(batch, k, m) if left_k_first else (batch, m, k)
    )
    right = node(
        "input", index=1, dtype=dtype, shape=(batch, n, k) if right_k_last else (batch, k, n)
    )
    product = node(
        "dot",
        left,
        right,
        left_batch=(0,),
        right_batch=(0,),
        left_contract=(1 if left_k_first else 2,),
        right_contract=(2 if right_k_last else 1,),
    )
    bias = node("input", index=2, dtype=dtype, shape=(1, 1, n))
    shifted = node("add", product, node("expand", bias, shape=product.shape))
    clipped = node("maximum", shifted, node("const", value=0, dtype=dtype, shape=product.shape))
    random_numbers = numpy.random.default_rng(seed)

    def draw(leaf: Node) -> numpy.ndarray:
        if dtype.is_integer:
            return random_numbers.integers(-9, 9, leaf.shape).astype(dtype.numpy)
        return random_numbers.standard_normal(leaf.shape).astype(dtype.numpy)

    inputs = [draw(left), draw(right), draw(bias)]
    got = run_compiled(Graph((clipped, product)), inputs)
    wide = [array.astype(numpy.float64) for array in inputs]
    exact = (numpy.swapaxes(wide[0], 1, 2) if left_k_first else wide[0]) @ (
        numpy.swapaxes(wide[1], 1, 2) if right_k_last else wide[1]
    )
    scale = numpy.sqrt(k) * 9
    tolerance = {"float32": 1e-6, "float64": 1e-14, "int32": 0, "bfloat16": 8e-3}[
        dtype.name
    ] * scale
    assert abs(got[1].astype(numpy.float64) - exact).max() <= tolerance
    assert (
        abs(got[0].astype(numpy.float64) - numpy.maximum(exact + wide[2], 0)).max() <= 2 * tolerance
    )
    assert len(topological((clipped,))) > 3


def test_padding_of_a_concat_that_only_padding_is_read_of() -> None:
    """A slice of padding next to a concat: no piece of it is ever read."""
    x = node("input", index=0, dtype=dtypes.float64, shape=(3, 2))
    both = node("concat", x, node("neg", x), axis=1)
    padded = node("pad", both, low=(0, 2), high=(0, 0), interior=(0, 0), value=0.0)
    cut = node("slice", padded, starts=(0, 0), stops=(3, 2), steps=(1, 1))
    check(Graph((node("add", x, cut),)), [numpy.arange(6.0).reshape(3, 2)])
