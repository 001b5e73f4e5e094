"""Dropout inside attention: every kernel draws the bits that a dropout of stored weights would."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.autodiff.attention_parts import composed
from lazygrad_compiler.batching.batch import batch
from lazygrad_compiler.fusion.attention import take_apart
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.pool import get_num_threads, set_num_threads
from tests.compiler.attention_cases import ODD, Shape, assert_close, check, leaf, outputs_of, run

STATE = numpy.array([123456789012345, 7])


def chance(p: float, draws: int) -> tuple[float, float, int]:
    return p, 1 / (1 - p), draws


@pytest.mark.parametrize("shape", [
    Shape(2, 3, 3, 45, 76, 20, 24),
    ODD,
    Shape(1, 4, 2, 70, 130, 16, 8),
    Shape(1, 1, 1, 33, 1, 8, 8),
    Shape(4, 2, 1, 64, 64, 64, 64),
], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_shapes(shape: Shape, causal: bool) -> None:
    """Rows that begin with a block of words, and rows that do not; own draws and shared ones."""
    for draws in {1, shape.batch}:
        check(shape, causal=causal, dropout=chance(0.4, draws))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(dtype: str) -> None:
    check(Shape(1, 4, 2, 67, 133, 40, 8), dtype, True, dropout=chance(0.3, 1))


@pytest.mark.parametrize("p", [1e-9, 0.999999, 1 - 1e-9])
def test_chances_near_the_ends(p: float) -> None:
    check(ODD, dropout=(p, 1.5, 2))


@pytest.mark.parametrize("parts", ["", "q", "v", "kv"])
def test_some_gradients(parts: str) -> None:
    check(Shape(20, 2, 1, 45, 37, 20, 24), parts=parts, dropout=chance(0.5, 20))


@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("zero", [False, True])
def test_masks(kind: str, zero: bool) -> None:
    random = numpy.random.default_rng(3)
    mask = random.random((2, 1, 45, 77)) < 0.5
    mask[:, :, 3] = False
    if kind == "added":
        mask = numpy.where(mask, random.standard_normal(mask.shape), -numpy.inf)
    check(ODD, mask=mask, zero=zero, dropout=chance(0.4, 2))


@pytest.mark.parametrize(("batches", "draws"), [(2, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("keys", [64, 67])
def test_the_very_bits(batches: int, draws: int, keys: int) -> None:
    """Scores of 0 and values of 1: what comes out is where `random_bits` keeps."""
    p, heads, queries = 0.3, 3, 41
    state = leaf(0, STATE, "int64")
    bits = node("random_bits", state, shape=(draws, heads, queries, keys))
    shifted = node("shr", bits, node("const", value=8, dtype=dtypes.uint32, shape=bits.shape))
    number = node("cast", shifted, dtype=dtypes.float32)
    (drawn,) = run(Graph((number,)), [STATE])
    kept = numpy.tile(drawn * numpy.float32(2**-24) >= numpy.float32(p),
                      (batches // draws, 1, 1, 1))
    q = numpy.zeros((batches, heads, queries, 8), numpy.float32)
    k = numpy.ones((batches, heads, keys, 8), numpy.float32)
    v = numpy.broadcast_to(numpy.eye(keys, dtype=numpy.float32), (batches, heads, keys, keys))
    leaves = [leaf(n, a, "float32") for n, a in enumerate((q, k, v))]
    made = node("attention", *leaves, leaf(3, STATE, "int64"), scale=1.0, causal=False,
                empty_is_zero=False, views=(), dropout=(p, 1.0, draws))
    (found,) = run(Graph((made,)), [q, k, v, STATE])
    numpy.testing.assert_array_equal(found != 0, kept)


def test_kernels_hold_no_scores() -> None:
    """One kernel each way: what the program stores is linear in the length."""
    for length in (256, 512):
        graph, _ = graph_of(Shape(1, 2, 2, length, length, 16, 16))
        stages = lower(graph, host())
        kinds = [launch.kernel.kind for launch in stages.launches]
        assert kinds.count("attention") == 4  # gradients of keys and values are summed by two
        assert all(buffer.size <= 16 * 2 * length * 16
                   for launch in stages.launches for buffer in launch.kernel.buffers)


def graph_of(shape: Shape, dtype: str = "float32") -> tuple[Graph, list[numpy.ndarray]]:
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s).astype(dtype) for s in shape.operands]
    leaves = [leaf(n, array, dtype) for n, array in enumerate(arrays)]
    leaves.append(leaf(4, STATE, "int64"))
    outputs = outputs_of(leaves, 0.3, True, False, "qkv", chance(0.25, shape.batch))
    return Graph(outputs), [*arrays, STATE]


def test_threads_change_no_bit() -> None:
    graph, arrays = graph_of(Shape(1, 2, 1, 131, 203, 24, 16))
    results = []
    before = get_num_threads()
    try:
        for count in (1, 3):
            set_num_threads(count)
            results.append(run(graph, arrays))
    finally:
        set_num_threads(before)
    for have, want in zip(*results, strict=True):
        numpy.testing.assert_array_equal(have, want)


def test_parts_mean_the_same() -> None:
    """Taken apart it draws the same bits: forward, and all gradients."""
    graph, arrays = graph_of(Shape(6, 4, 2, 9, 13, 5, 6), "float64")
    small = take_apart(graph)
    assert not any(output.op.startswith("attention") for output in small.outputs)
    for draws in (6, 3):
        outputs = tuple(_with_draws(output, draws) for output in graph.outputs)
        parts = Graph(tuple(composed(output, output.inputs) for output in outputs))
        for have, want in zip(interpret(parts, arrays), interpret(Graph(outputs), arrays),
                              strict=True):
            assert_close(have, want, 1e-12)


def _with_draws(output: Node, draws: int) -> Node:
    scale, causal, zero, views, (p, factor, _), *part = output.attrs
    attrs = {"part": part[0]} if part else {}
    return node(output.op, *output.inputs, scale=scale, causal=causal, empty_is_zero=zero,
                views=views, dropout=(p, factor, draws), **attrs)


def test_text_parses_back() -> None:
    graph, _ = graph_of(Shape(2, 2, 2, 40, 64, 8, 8))
    stages = lower(graph, host())
    assert print_graph(parse_graph(print_graph(stages.opt))) == print_graph(stages.opt)


@pytest.mark.parametrize("same", [True, False])
def test_batching(same: bool) -> None:
    """Items share the bits of one, or go on drawing one after the other."""
    random = numpy.random.default_rng(7)
    q, k, v = (random.standard_normal(s) for s in ((3, 2, 4, 20, 8), (2, 2, 61, 8), (2, 2, 61, 5)))
    items = [leaf(0, q[0], "float64"), leaf(1, k, "float64"), leaf(2, v, "float64")]
    state = leaf(3, STATE, "int64")
    attrs = {"scale": 0.5, "causal": False, "empty_is_zero": False, "views": ()}
    output = node("attention", *items, state, **attrs, dropout=chance(0.4, 2))
    whole = {items[0]: leaf(0, q, "float64")}
    if not same:
        line = node("reshape", state, shape=(1, 2))
        whole[state] = node("expand", line, shape=(3, 2))
    ((batched, flag),) = batch([output], whole, 3)
    assert flag
    (found,) = interpret(Graph((batched,)), [q, k, v, STATE])
    joined = [q.reshape(6, 4, 20, 8), *(numpy.tile(each, (3, 1, 1, 1)) for each in (k, v))]
    leaves = [leaf(n, a, "float64") for n, a in enumerate(joined)]
    alone = node("attention", *leaves, state, **attrs, dropout=chance(0.4, 2 if same else 6))
    (want,) = interpret(Graph((alone,)), [*joined, STATE])
    assert_close(found.reshape(want.shape), want, 1e-12)


@pytest.mark.parametrize(("cpu", "features", "width", "registers"), [
    ("haswell", "+avx,+avx2,+fma", 32, 16), ("x86-64", "+sse2", 16, 16)])
def test_other_targets_get_code(cpu: str, features: str, width: int, registers: int) -> None:
    from lazygrad_compiler.llvm.compile import assembly, optimize_text

    target = Target("x86_64-unknown-linux-gnu", cpu, features, width, registers)
    for dtype in ("float32", "float64"):
        graph, _ = graph_of(Shape(1, 1, 1, 40, 37, 8, 8), dtype)
        for kernel in lower(graph, target).kernels:
            assembly(optimize_text(kernel.llvm, target), target)
