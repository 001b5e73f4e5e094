"""Products of narrow numbers, which are multiplied in words of neighbours along k: right for every
dtype, layout and odd length, and as accurate as sums in float32 are.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.products import words_of
from lazygrad_compiler.loops.schedule_contraction import schedule_contraction
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import Target, host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_compiled import run_compiled
from tests.compiler.test_contraction import draw, kernel_of, leaf, matmul, random_schedule
from tests.compiler.test_contraction_runs import weight_gradient
from tests.compiler.test_schedule import run_scheduled

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
AVX512 = "+avx512f,+avx512vl,+avx512bw,+avx512dq,+avx2,+fma,+f16c"
MACHINES = {
    "zen5": Target(X86, "znver5", AVX512 + ",+avx512bf16,+avx512vnni,+avxvnni", 64, 32),
    "skylake": Target(X86, "skylake-avx512", AVX512 + ",-avx512bf16", 64, 32),
    "alderlake": Target(X86, "alderlake", "+avx2,+fma,+f16c,+avxvnni", 32, 16),
    "haswell": Target(X86, "haswell", "+avx2,+fma,+f16c", 32, 16),
    "sse2": Target(X86, "x86-64", "+sse2", 16, 16),
    "neoverse-v1": Target(ARM, "neoverse-v1", "+neon,+fullfp16,+bf16,+dotprod", 16, 32),
    "neoverse-n1": Target(ARM, "neoverse-n1", "+neon,+fullfp16", 16, 32),
}


def cast(value: Node, dtype: str) -> Node:
    return node("cast", value, dtype=DTYPES[dtype])


def wide_product(m: int, n: int, k: int, left: str, right: str, turned: bool = False) -> Node:
    """Bytes in, int32 out."""
    a = cast(leaf(0, m, k, dtype=left), "int32")
    b = cast(leaf(1, *((n, k) if turned else (k, n)), dtype=right), "int32")
    return node("dot", a, b, left_batch=(), right_batch=(), left_contract=(1,),
                right_contract=(1 if turned else 0,))


def axes(product: Node) -> dict[str, Any]:
    names = ("left_batch", "right_batch", "left_contract", "right_contract")
    return {name: product.attr(name) for name in names}


# ---- which instruction


@pytest.mark.parametrize(
    "machine, bfloat16, int8, uint8, mixed, int16",
    [
        ("zen5", "vdpbf16ps", "vpdpbusd", "vpdpwssd", "vpdpbusd", "vpdpwssd"),
        ("skylake", "", "vpmaddwd", "vpmaddwd", "vpmaddwd", "vpmaddwd"),
        ("alderlake", "", "vpdpbusd", "vpdpwssd", "vpdpbusd", "vpdpwssd"),
        ("haswell", "", "vpmaddwd", "vpmaddwd", "vpmaddwd", "vpmaddwd"),
        ("sse2", "", "vpmaddwd", "vpmaddwd", "vpmaddwd", "vpmaddwd"),
        ("neoverse-v1", "bfdot", "sdot", "udot", "", ""),
        ("neoverse-n1", "", "", "", "", ""),
    ],
)  # fmt: skip
def test_the_target_decides(machine, bfloat16, int8, uint8, mixed, int16):
    """The code has the instruction in its loops, and nothing is spilt there."""
    target = MACHINES[machine]
    graphs = {
        bfloat16: matmul(1, 64, 96, 128, "bfloat16"), int8: matmul(1, 64, 96, 128, "int8"),
        uint8: wide_product(64, 96, 128, "uint8", "uint8"),
        mixed: wide_product(64, 96, 128, "uint8", "int8"),
        int16: matmul(1, 64, 96, 128, "int16"),
    }
    for instruction, product in graphs.items():
        schedule = schedule_contraction(kernel_of(Graph((product,))), target)
        assert schedule.instruction == instruction
        if instruction:
            code = lower(Graph((product,)), target).render("asm")
            spelled = instruction if "86" in target.triple else f"{instruction}\t"
            if machine == "sse2":
                spelled = "pmaddwd"
            assert code.count(spelled) >= 8


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint64"])
def test_wide_numbers_have_no_words(dtype):
    kernel = kernel_of(Graph((matmul(1, 9, 8, 7, dtype),)))
    for target in MACHINES.values():
        assert words_of(kernel, target, False) is None


def test_a_cast_that_loses_values_is_not_skipped():
    """int32 cut to int8 and made wide again: what is summed are the bytes."""
    a = cast(cast(leaf(0, 20, 33, dtype="int32"), "int8"), "int32")
    b = cast(leaf(1, 33, 40, dtype="int16"), "int32")
    product = node("dot", a, b, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))
    graph, generator = Graph((product,)), numpy.random.default_rng(0)
    inputs = [generator.integers(-(2**31), 2**31, (20, 33)).astype("int32"),
              generator.integers(-(2**15), 2**15, (33, 40)).astype("int16")]
    compare(graph, inputs, run_compiled(graph, inputs))


# ---- integers: every bit


@pytest.mark.parametrize("k", [1, 3, 67, 2050])
@pytest.mark.parametrize(
    "left, right",
    [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8"), ("bool", "int8"),
     ("int8", "bool"), ("int16", "int8"), ("int16", "int16"), ("uint16", "int8")],
)  # fmt: skip
def test_integers_are_exact(left, right, k):
    """Random bits, and the extremes, where a sum of two products or of saturated ones would
    show.
    """
    generator = numpy.random.default_rng(k)
    graph = Graph((wide_product(19, 37, k, left, right, turned=k % 3 == 0),))
    inputs = []
    for each in graph.inputs():
        low, high = each.dtype.limits()
        inputs.append(generator.integers(low, high, each.shape, endpoint=True)
                      .astype(each.dtype.numpy))
    inputs[0][3:9] = graph.inputs()[0].dtype.limits()[0]
    inputs[0][9:12] = graph.inputs()[0].dtype.limits()[1]
    columns = inputs[1] if inputs[1].shape[0] == k else inputs[1].T
    columns[:, 5:20] = graph.inputs()[1].dtype.limits()[0]
    columns[:, 20:29] = graph.inputs()[1].dtype.limits()[1]
    compare(graph, inputs, run_compiled(graph, inputs))


@pytest.mark.parametrize("seed", range(10))
def test_any_schedule_of_bytes(seed):
    """Scales and an activation behind them, as in quantised layers."""
    draw_from = random.Random(seed)
    m, n, k = (draw_from.choice([2, 5, 17, 33, 64, 130]) for _ in range(3))
    left, right = draw_from.choice([("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")])
    product = wide_product(m, n, k, left, right, turned=seed % 2 == 0)
    scale = node("expand", leaf(2, 1, n), shape=product.shape)
    graph = Graph((node("mul", cast(product, "float32"), scale), product))
    inputs = draw(graph, seed)
    got = run_scheduled(graph, inputs, lambda kernel: random_schedule(kernel, draw_from), seed)
    compare(graph, inputs, got)


# ---- bfloat16


def bfloat16(array: numpy.ndarray) -> numpy.ndarray:
    return array.astype(DTYPES["bfloat16"].numpy)


@pytest.mark.parametrize("k", [1, 7, 1000, 6007])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("widened", [False, True])
def test_bfloat16_adds_as_float32_does(k, turned, widened):
    """Against float64: k roundings of float32 of the sum of sizes, and the result's own."""
    generator = numpy.random.default_rng(k)
    a = bfloat16(generator.standard_normal((1, 23, k)) * 10.0 ** generator.integers(-6, 6, k))
    b = bfloat16(generator.standard_normal((1, k, 35)))
    product = matmul(1, 23, 35, k, "bfloat16", (False, turned))
    if widened:
        product = node("dot", *(cast(each, "float32") for each in product.inputs), **axes(product))
    graph = Graph((product,))
    if k > 1:
        words = words_of(kernel_of(graph), MACHINES["zen5"], False)
        assert words is not None and words.instruction == "vdpbf16ps"
    given = numpy.ascontiguousarray(b.swapaxes(1, 2)) if turned else b
    (got,) = run_compiled(graph, [a, given])
    wide_a, wide_b = a.astype("float64"), b.astype("float64")
    want, sizes = wide_a @ wide_b, abs(wide_a) @ abs(wide_b)
    error = abs(got.astype("float64") - want)
    own = 2.0 ** (-24 if widened else -8)
    assert (error <= k * 2.0**-24 * sizes + own * abs(want)).all()


def test_numbers_below_the_normal_range_count_as_zero_or_as_themselves():
    """The instruction takes them for zero, plain multiply-adds do not: what is promised is that no
    other number comes out wrong.
    """
    tiny, k = 2.0**-130, 40
    a, b = bfloat16(numpy.full((1, 9, k), tiny)), bfloat16(numpy.full((1, k, 21), 2.0**100))
    a[0, 4], b[0, :, 7] = 1.5, 2.0**-127
    graph = Graph((matmul(1, 9, 21, k, "bfloat16"),))
    (got,) = run_compiled(graph, [a, b])
    got = got[0].astype("float64")
    assert (got[4, :7] == bfloat16(numpy.array(k * 1.5 * 2.0**100)).astype("float64")).all()
    for sums in (got[:4, :7], got[5:, 8:]):
        assert numpy.isin(sums, [0, k * 2.0**-30]).all()
    assert (abs(got[:, 7]) <= k * 1.5 * 2.0**-127).all()


@pytest.mark.parametrize("k", [3, 33, 64])
@pytest.mark.parametrize("layout", [(a, b) for a in (False, True) for b in (False, True)])
def test_nothing_leaks_out_of_a_row(k, layout):
    """NaN and infinity in some rows and columns: nowhere else, though words end beyond a row."""
    a, b = numpy.ones((2, 21, k)), numpy.ones((2, k, 37))
    a[0, 5, -1], a[1, 0, 0], b[0, -1, 11], b[1, 0, 36] = numpy.nan, numpy.inf, numpy.inf, numpy.nan
    graph = Graph((matmul(2, 21, 37, k, "bfloat16", layout),))
    given = [a.swapaxes(1, 2) if layout[0] else a, b.swapaxes(1, 2) if layout[1] else b]
    (got,) = run_compiled(graph, [bfloat16(numpy.ascontiguousarray(x)) for x in given])
    with numpy.errstate(invalid="ignore"):
        want = numpy.stack([(a[i, :, None] * b[i].T[None]).sum(-1) for i in range(2)])
    numpy.testing.assert_array_equal(got.astype("float64"), want)


@pytest.mark.parametrize("turned", [False, True])
def test_a_prologue_that_gives_no_zero_beyond_the_end(turned):
    """Zeros, as are read beyond the end of k, become infinite; there are none within."""
    product = matmul(1, 30, 50, 33, "bfloat16", (turned, False))
    x, y = product.inputs
    zero, infinity = (node("const", value=value, dtype=x.dtype, shape=x.shape)
                      for value in (0.0, numpy.inf))
    graph = Graph((node("dot", node("where", node("eq", x, zero), infinity, x), y,
                        **axes(product)),))
    assert len(lower(graph, host()).kernels) == 1
    inputs = draw(graph)
    compare(graph, inputs, run_compiled(graph, inputs))


# ---- through index maps


@pytest.mark.parametrize(
    "image, weight, options",
    [
        ((2, 16, 14, 14), (24, 16, 3, 3), {}),
        ((3, 6, 11, 9), (10, 3, 3, 2), {"groups": 2}),
        ((1, 3, 20, 20), (8, 3, 5, 5), {"strides": (2, 2)}),
        ((2, 32, 9, 9), (40, 32, 1, 1), {"padding": 0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_convolutions(image, weight, options, dtype):
    padding = options.get("padding", 1)
    made = node("conv", leaf(0, *image, dtype=dtype), leaf(1, *weight, dtype=dtype),
                strides=options.get("strides", (1, 1)), padding=((padding, padding),) * 2,
                left_dilation=(1, 1), right_dilation=(1, 1), groups=options.get("groups", 1))
    graph = Graph((made,))
    inputs = draw(graph)
    compare(graph, inputs, run_compiled(graph, inputs))


@pytest.mark.parametrize("side", [(24, 24), (16, 33), (23, 40)])
def test_weight_gradients_in_runs(side):
    graph, arrays = weight_gradient(2, 6, 20, side, (3, 3), dtype="bfloat16")
    assert max(kernel.schedule.run for kernel in lower(graph, host()).kernels
               if hasattr(kernel.schedule, "run")) >= 16
    compare(graph, arrays, run_compiled(graph, arrays))


@pytest.mark.parametrize("k", [3, 32, 61])
@pytest.mark.parametrize("layout", [(a, b) for a in (False, True) for b in (False, True)])
def test_operands_are_rounded_as_they_are_packed(k, layout):
    """float32 weights and inputs under autocast: to nearest even, ties included."""
    product = matmul(1, 37, 50, k, "float32", layout)
    a, b = (cast(each, "bfloat16") for each in product.inputs)
    graph = Graph((node("dot", a, b, **axes(product)),))
    generator = numpy.random.default_rng(k)
    inputs = [generator.standard_normal(each.shape).astype("float32") for each in graph.inputs()]
    ties = inputs[0].view("uint32")
    ties[...] = ties & 0xFFFF0000 | generator.choice([0, 0x8000, 0x7FFF, 0x8001], ties.shape)
    compare(graph, inputs, run_compiled(graph, inputs))
