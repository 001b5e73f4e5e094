"""Attention: compiled equals interpreted, and float64; threads change no bit."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.autodiff.attention_parts import composed
from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.batching.batch import batch
from lazygrad_compiler.fusion.attention import reshaped_strides, strided, take_apart
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, IRError, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.loops.attention import backward_chunks, decode_chunks
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.pool import get_num_threads, set_num_threads
from tests.compiler.attention_cases import (
    ODD,
    TOLERANCE,
    Shape,
    assert_close,
    check,
    leaf,
    outputs_of,
    run,
)


@pytest.mark.parametrize("shape", [
    Shape(1, 1, 1, 32, 112, 16, 16),
    ODD,
    Shape(1, 2, 1, 33, 31, 8, 256),
    Shape(1, 1, 1, 131, 257, 64, 64),
    Shape(2, 6, 2, 40, 40, 5, 3),
    Shape(1, 1, 1, 1100, 3, 1, 1),
    Shape(3, 7, 7, 64, 64, 80, 40),
], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_shapes(shape: Shape, causal: bool) -> None:
    check(shape, causal=causal)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
def test_dtypes(dtype: str, causal: bool) -> None:
    check(Shape(1, 4, 2, 67, 133, 40, 8), dtype, causal)


@pytest.mark.parametrize("seed", range(4))
def test_random_shapes(seed: int) -> None:
    random = numpy.random.default_rng(seed)
    groups = int(random.integers(1, 4))
    sizes = [int(random.integers(1, high)) for high in (200, 200, 70, 70)]
    shape = Shape(int(random.integers(1, 3)), groups * int(random.integers(1, 3)), groups, *sizes)
    check(shape, causal=bool(random.integers(2)))


MASKS = {
    "full": (2, 3, 45, 77),
    "one for all": (1, 1, 45, 77),
    "of heads": (1, 3, 45, 77),
    "of keys": (2, 1, 1, 77),
    "of queries": (2, 1, 45, 1),
    "one": (1, 1, 1, 1),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("zero", [False, True])
def test_masks(name: str, kind: str, zero: bool) -> None:
    """Also rows where nothing is allowed: 0, or NaN, in output and gradients."""
    random = numpy.random.default_rng(3)
    mask = random.random(MASKS[name]) < 0.5
    if name in ("full", "one for all", "of heads"):
        mask[:, :, 3] = False
        mask[:, :, 44] = False
        mask[0, 0, :, :66] &= numpy.arange(45)[:, None] % 2 == 0
    if kind == "added":
        mask = numpy.where(mask, random.standard_normal(mask.shape), -numpy.inf)
    check(ODD, mask=mask, zero=zero)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_masks_of_other_dtypes(dtype: str) -> None:
    mask = numpy.random.default_rng(3).standard_normal((2, 1, 45, 77))
    check(ODD, dtype, mask=mask)
    check(ODD, dtype, mask=mask < 0.2)


def test_mask_and_causal_together() -> None:
    check(Shape(1, 2, 2, 45, 45, 8, 8), causal=True,
          mask=numpy.random.default_rng(3).random((1, 1, 45, 45)) < 0.7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_without_keys_reaches_the_gradient_of_all_values(dtype: str) -> None:
    """Its weights are NaN: those of keys that causality leaves out for it, too."""
    mask = numpy.random.default_rng(3).random((1, 2, 46, 190)) < 0.7
    mask[:, :, 3] = False
    check(Shape(1, 2, 2, 46, 190, 16, 8), dtype, causal=True, mask=mask, zero=False)
    check(Shape(1, 2, 2, 46, 190, 16, 8), dtype, causal=True, mask=mask, zero=True)


def test_nan_stays_in_its_row() -> None:
    def change(arrays: list[numpy.ndarray]) -> None:
        arrays[0][1, 2, 17, 3] = numpy.nan

    check(ODD, change=change, parts="q")
    check(ODD, change=change, parts="kv")
    check(ODD, change=change, parts="q", causal=True)


def test_infinite_and_huge_scores() -> None:
    def change(arrays: list[numpy.ndarray]) -> None:
        arrays[0][0] *= 16
        arrays[1][0] *= 16

    # scores of some thousands, rounded to float32: weights are off by as much as those are
    check(ODD, change=change, scale=1.0, parts="v", tolerance=1e-3)

    def far(arrays: list[numpy.ndarray]) -> None:
        arrays[0][0, 0, 5] = 1e30
        arrays[1][0, 0, 6] = -1e30

    with numpy.errstate(all="ignore"):
        check(ODD, change=far, parts="")


@pytest.mark.parametrize("parts", ["q", "k", "v", "kv", "qv"])
def test_some_gradients(parts: str) -> None:
    check(Shape(2, 2, 1, 45, 77, 20, 24), parts=parts)
    check(Shape(20, 1, 1, 45, 37, 20, 24), parts=parts)


def graph_of(shape: Shape, causal: bool = False, parts: str = "qkv") -> tuple[Graph, list]:
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s).astype(numpy.float32) for s in shape.operands]
    leaves = [leaf(n, array, "float32") for n, array in enumerate(arrays)]
    return Graph(outputs_of(leaves, 0.3, causal, False, parts)), arrays


@pytest.mark.parametrize("shape", [Shape(1, 1, 1, 300, 200, 24, 16), Shape(3, 6, 6, 70, 70, 24, 8)])
def test_threads_change_no_bit(shape: Shape) -> None:
    graph, arrays = graph_of(shape, causal=True)
    results = []
    before = get_num_threads()
    try:
        for count in (1, 2, 3):
            set_num_threads(count)
            results.append(run(graph, arrays))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for have, want in zip(other, results[0], strict=True):
            numpy.testing.assert_array_equal(have, want)


def test_few_heads_are_cut() -> None:
    """One head: its strips are shared out, in two launches; many heads: one launch."""
    assert backward_chunks(1, 1, 4096) == 16
    assert backward_chunks(8, 8, 4096) == 1
    assert backward_chunks(1, 1, 32) == 1
    names = [launch.about for launch in lower(graph_of(Shape(1, 1, 1, 300, 64, 8, 8))[0],
                                              host()).launches]
    assert names.count("attention_grad sum") == 2


def test_one_kernel_each_way() -> None:
    """Output and statistics are one group, all gradients another."""
    graph, _ = graph_of(Shape(2, 3, 3, 64, 64, 8, 8))
    kinds = [[root.op for root in group.roots] for group in partition(graph).groups]
    assert sorted(len(roots) for roots in kinds if roots[0].startswith("attention")) == [2, 3]


@pytest.mark.parametrize("causal", [False, True])
def test_parts_mean_the_same(causal: bool) -> None:
    """The composition that gradients of gradients are taken of."""
    shape = Shape(2, 4, 2, 9, 13, 5, 6)
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s) for s in shape.operands]
    for mask in (None, random.random((1, 4, 9, 13)) < 0.5, random.standard_normal((2, 1, 1, 13))):
        given = [*arrays, *([] if mask is None else [mask])]
        names = ["float64"] * 4 + ["bool" if mask is not None and mask.dtype == bool else "float64"]
        leaves = [leaf(n, a, name) for n, (a, name) in enumerate(zip(given, names, strict=False))]
        outputs = outputs_of(leaves, 0.3, causal, True, "qkv")
        parts = Graph(tuple(composed(output, output.inputs) for output in outputs))
        for have, want in zip(interpret(parts, given), interpret(Graph(outputs), given),
                              strict=True):
            assert_close(have, want, 1e-12)


def test_gradient_of_a_mask() -> None:
    shape = Shape(1, 2, 2, 40, 50, 8, 8)
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s) for s in (*shape.operands, (1, 2, 1, 50))]
    leaves = [leaf(n, array, "float64") for n, array in enumerate(arrays)]
    output = outputs_of(leaves, 0.3, False, True, "")[0]
    (gradient,) = backward([output], [leaves[3]], [leaves[4]])
    assert gradient is not None
    (found,) = run(Graph((gradient,)), arrays)
    step = 1e-6
    for place in ((0, 0, 0, 3), (0, 1, 0, 49)):
        values = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[4][place] += sign * step
            values.append((interpret(Graph((output,)), moved)[0] * arrays[3]).sum())
        assert found[place] == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_batching() -> None:
    random = numpy.random.default_rng(7)
    q, k, v, m = (random.standard_normal(s) for s in
                  ((3, 2, 4, 20, 8), (2, 2, 60, 8), (3, 2, 2, 60, 5), (2, 1, 20, 60)))
    items = [leaf(0, q[0], "float64"), leaf(1, k, "float64"), leaf(2, v[0], "float64"),
             leaf(3, m, "float64")]
    output = node("attention", *items, scale=0.5, causal=False, empty_is_zero=False, views=(),
                  dropout=())
    whole = {items[0]: leaf(0, q, "float64"), items[2]: leaf(2, v, "float64")}
    ((batched, flag),) = batch([output], whole, 3)
    assert flag
    (found,) = interpret(Graph((batched,)), [q, k, v, m])
    for number in range(3):
        (want,) = interpret(Graph((output,)), [q[number], k, v[number], m])
        assert_close(found[number], want, 1e-12)


# ---- operands in place, small ones taken apart


def heads_of(joint: Node, heads: int) -> list[Node]:
    """q, k and v as parts of a joint projection."""
    batches, rows, columns = joint.shape
    own, parts = columns // 3, []
    for number in range(3):
        part = node("slice", joint, starts=(0, 0, number * own),
                    stops=(batches, rows, (number + 1) * own), steps=(1, 1, 1))
        part = node("reshape", part, shape=(batches, rows, heads, own // heads))
        parts.append(node("permute", part, order=(0, 2, 1, 3)))
    return parts


def test_projections_are_not_copied() -> None:
    """Heads of a joint projection are read where they lie: no kernel but the one."""
    rows, heads, width = 50, 3, 8
    array = numpy.random.default_rng(7).standard_normal((2, rows, 3 * heads * width))
    joint = leaf(0, array, "float64")
    parts = heads_of(joint, heads)
    output = node("attention", *parts, scale=0.3, causal=True, empty_is_zero=False, views=(),
                  dropout=())
    graph = Graph((output,))
    stages = lower(graph, host())
    assert [launch.kernel.kind for launch in stages.launches] == ["attention"]
    again = parse_graph(print_graph(stages.opt))
    assert print_graph(again) == print_graph(stages.opt)
    (found,), (want,) = run(graph, [array]), interpret(graph, [array])
    assert_close(found, want, 1e-12)
    assert_close(interpret(stages.opt, [array])[0], want, 1e-12)


def test_strides() -> None:
    assert reshaped_strides((2, 6, 5), (30, 5, 1), (12, 5)) == (5, 1)
    assert reshaped_strides((6, 5), (10, 1), (2, 3, 5)) == (30, 10, 1)
    assert reshaped_strides((6, 5), (10, 1), (30,)) is None
    assert reshaped_strides((4, 1, 5), (0, 7, 1), (2, 2, 5)) == (0, 0, 1)
    value = node("input", index=0, dtype=dtypes.float32, shape=(4, 6))
    turned = node("permute", value, order=(1, 0))
    assert strided(turned) == (value, 0, (1, 6))
    assert strided(node("flip", turned, axes=(0,)))[0].op == "flip"


def test_small_attention_is_taken_apart() -> None:
    small, _ = graph_of(Shape(1, 2, 2, 4, 8, 8, 8))
    assert not any(o.op.startswith("attention") for o in take_apart(small).outputs)
    large, _ = graph_of(Shape(1, 2, 2, 64, 64, 8, 8))
    assert take_apart(large) is large
    check(Shape(1, 2, 1, 1, 300, 8, 8))  # decoding: one query


# ---- few queries to many keys


def decode(
    shape: Shape, dtype: str = "float32", mask: numpy.ndarray | None = None, zero: bool = False
) -> tuple[Graph, list[numpy.ndarray]]:
    """Attention alone, and its operands."""
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s).astype(DTYPES[dtype].numpy) for s in shape.operands[:3]]
    names = [dtype] * 3
    if mask is not None:
        names.append("bool" if mask.dtype == bool else dtype)
        arrays.append(mask if mask.dtype == bool else mask.astype(DTYPES[dtype].numpy))
    leaves = [leaf(n, a, name) for n, (a, name) in enumerate(zip(arrays, names, strict=True))]
    attrs = {"scale": 0.3, "causal": False, "empty_is_zero": zero, "views": (), "dropout": ()}
    return Graph((node("attention", *leaves, **attrs),)), arrays


def check_decode(graph: Graph, arrays: list[numpy.ndarray], tolerance: float) -> numpy.ndarray:
    """Against the interpreter in float64; one pass over keys and values, no scores in memory."""
    steps = [launch.about for launch in lower(graph, host()).launches]
    assert steps in (["attention decode"], ["attention decode", "attention combine"])
    wide = [a if a.dtype == bool else a.astype(numpy.float64) for a in arrays]
    leaves = [leaf(n, a, "bool" if a.dtype == bool else "float64") for n, a in enumerate(wide)]
    scale, causal, zero, views, _ = graph.outputs[0].attrs
    attrs = {"scale": scale, "causal": causal, "empty_is_zero": zero, "views": views, "dropout": ()}
    with numpy.errstate(all="ignore"):
        (want,) = interpret(Graph((node("attention", *leaves, **attrs),)), wide)
    (found,) = run(graph, arrays)
    assert_close(found, want, tolerance)
    return found


DECODES = [
    Shape(1, 1, 1, 1, 256, 64, 64),
    Shape(2, 3, 3, 1, 1031, 20, 24),
    Shape(1, 1, 1, 13, 2053, 7, 1),
    Shape(1, 12, 3, 2, 521, 64, 37),
    Shape(3, 8, 1, 1, 1100, 1, 100),
    Shape(17, 2, 1, 5, 257, 16, 130),
    Shape(2, 21, 1, 3, 129, 20, 40),
    Shape(1, 12, 4, 1, 301, 128, 128),
    Shape(2, 16, 2, 1, 131, 130, 200),
]


@pytest.mark.parametrize("shape", DECODES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_decoding(shape: Shape, dtype: str) -> None:
    check_decode(*decode(shape, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("mask_shape", [
    (2, 4, 3, 1031), (1, 1, 1, 1031), (2, 1, 3, 1), (1, 4, 1, 1031), (1, 1, 1, 1)
])
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("zero", [False, True])
def test_decoding_with_masks(mask_shape: tuple[int, ...], kind: str, zero: bool) -> None:
    """Also chunks and rows where nothing is allowed: 0, or NaN."""
    random = numpy.random.default_rng(3)
    mask = random.random(mask_shape) < 0.5
    mask[..., :600] = False
    mask[:, :, -1:] &= mask_shape[2] == 1
    if kind == "added":
        mask = numpy.where(mask, random.standard_normal(mask.shape), -numpy.inf)
    check_decode(*decode(Shape(2, 4, 2, 3, 1031, 20, 24), "float32", mask, zero), 2e-5)


@pytest.mark.parametrize("heads", [1, 3, 17])
def test_masks_of_each_row(heads: int) -> None:
    """One row, rows that leave lanes of a vector empty, rows of more than one vector."""
    random = numpy.random.default_rng(heads)
    mask = random.random((1, heads, 1, 259)) < 0.5
    check_decode(*decode(Shape(1, heads, 1, 1, 259, 20, 24), "float32", mask), 2e-5)


def test_decoding_with_nan_and_infinities() -> None:
    """A NaN query spoils its row alone, an infinite score leaves NaN; the rest is as ever."""
    graph, arrays = decode(Shape(1, 4, 2, 2, 1031, 20, 24))
    arrays[0][0, 1, 1, 3] = numpy.nan
    arrays[2][0, 1, 700, 5] = numpy.nan
    found = check_decode(graph, arrays, 2e-5)
    assert numpy.isnan(found[0, 1, 1]).all()
    assert numpy.isnan(found[0, 2:, :, 5]).all()
    assert numpy.isnan(found).sum() == 24 + 4
    graph, arrays = decode(Shape(1, 1, 1, 2, 1031, 20, 24))
    arrays[0] *= 1e4
    check_decode(graph, arrays, 2e-2)


def test_threads_change_no_bit_of_decoding() -> None:
    before = get_num_threads()
    for shape in (Shape(1, 2, 1, 3, 5003, 24, 24), Shape(5, 4, 4, 1, 700, 24, 24)):
        graph, arrays = decode(shape)
        results = []
        try:
            for count in (1, 2, 4):
                set_num_threads(count)
                results.append(run(graph, arrays)[0])
        finally:
            set_num_threads(before)
        for other in results[1:]:
            numpy.testing.assert_array_equal(other, results[0])


def test_few_heads_of_keys_are_cut_for_decoding() -> None:
    assert decode_chunks(1, 1, 1 << 20) == 16
    assert decode_chunks(8, 8, 4096) == 1
    assert decode_chunks(1, 1, 700) == 1
    assert decode_chunks(1, 1, 1025) == 2


def test_what_is_no_decoding() -> None:
    """Many rows, few keys, causal, or with statistics for a gradient: taken apart."""
    for shape, causal in ((Shape(1, 65, 1, 1, 999, 8, 8), False),
                          (Shape(1, 2, 2, 1, 127, 8, 8), False),
                          (Shape(1, 2, 2, 1, 999, 8, 8), True)):
        graph, _ = graph_of(shape, causal)
        assert take_apart(Graph(graph.outputs[:1])).outputs[0].op != "attention"
    graph, _ = graph_of(Shape(1, 2, 2, 1, 999, 8, 8))
    assert take_apart(Graph(graph.outputs[:1])).outputs[0].op == "attention"
    assert not any(o.op.startswith("attention") for o in take_apart(graph).outputs)


def test_decoding_from_a_cache_is_not_copied() -> None:
    """Keys and values that are the filled part of a cache laid out (batch, rows, heads, width)."""
    random = numpy.random.default_rng(7)
    arrays = [random.standard_normal(s) for s in
              ((2, 4, 1, 8), (2, 700, 2, 8), (2, 700, 2, 8))]
    q, *caches = [leaf(n, array, "float64") for n, array in enumerate(arrays)]
    parts = [node("permute", node("slice", cache, starts=(0, 0, 0, 0), stops=(2, 531, 2, 8),
                                  steps=(1, 1, 1, 1)), order=(0, 2, 1, 3)) for cache in caches]
    graph = Graph((node("attention", q, *parts, scale=0.3, causal=False, empty_is_zero=False,
                        views=(), dropout=()),))
    assert [launch.kernel.kind for launch in lower(graph, host()).launches] == ["attention"]
    (found,), (want,) = run(graph, arrays), interpret(graph, arrays)
    assert_close(found, want, 1e-12)


def test_scores_that_are_wanted_anyway() -> None:
    """A program that reads the scores elsewhere does not compute them twice."""
    graph, _ = graph_of(Shape(1, 2, 2, 64, 64, 8, 8))
    q, k = graph.outputs[0].inputs[:2]
    scores = node("dot", q, k, left_batch=(0, 1), right_batch=(0, 1), left_contract=(3,),
                  right_contract=(3,))
    both = Graph((graph.outputs[0], scores))
    assert take_apart(both).outputs[0].op != "attention"


def test_empty() -> None:
    check(Shape(1, 2, 2, 0, 5, 8, 8), parts="")
    check(Shape(1, 2, 2, 20, 60, 0, 8), parts="v")


OTHER_TARGETS = {
    "avx2": Target("x86_64-unknown-linux-gnu", "haswell", "+avx,+avx2,+fma", 32, 16),
    "neon": Target("aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32),
}


@pytest.mark.parametrize("name", OTHER_TARGETS)
def test_other_targets_get_code(name: str) -> None:
    """LLVM accepts the kernels of machines that this one is not."""
    from lazygrad_compiler.llvm.compile import assembly, optimize_text

    target = OTHER_TARGETS[name]
    stages = lower(graph_of(Shape(1, 2, 2, 70, 70, 24, 8), causal=True)[0], target)
    kernels = [each for each in stages.kernels if each.kernel.kind == "attention"]
    for kernel in kernels:
        code = assembly(optimize_text(kernel.llvm, target), target)
        assert ("vfmadd" if name == "avx2" else "fmla") in code
    assert len(kernels) == 2
    for kernel in lower(decode(Shape(1, 1, 1, 2, 1100, 24, 7))[0], target).kernels:
        assembly(optimize_text(kernel.llvm, target), target)


def test_what_does_not_fit_is_refused() -> None:
    q = node("input", index=0, dtype=dtypes.float32, shape=(1, 4, 5, 6))
    k = node("input", index=1, dtype=dtypes.float32, shape=(1, 3, 5, 6))
    attrs = {"scale": 1.0, "causal": False, "empty_is_zero": False, "views": (), "dropout": ()}
    with pytest.raises(IRError, match="do not fit"):
        node("attention", q, k, k, **attrs)
    mask = node("input", index=2, dtype=dtypes.float32, shape=(1, 4, 5, 7))
    with pytest.raises(IRError, match="mask"):
        node("attention", q, q, q, mask, **attrs)
    attrs["dropout"] = (0.1, 1 / 0.9, 1)
    with pytest.raises(IRError, match="seed, offset"):
        node("attention", q, q, q, mask, **attrs)
    state = node("input", index=3, dtype=dtypes.int64, shape=(2,))
    with pytest.raises(IRError, match="operands"):
        node("attention", q, q, state, **attrs)
    attrs["dropout"] = (0.1, 1 / 0.9, 2)
    with pytest.raises(IRError, match="2 batch entries"):
        node("attention", q, q, q, state, **attrs)
