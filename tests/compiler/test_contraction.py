"""Contractions: schedules keep their promises, any legal schedule gives the same result within its
scratch memory, and convolutions of every kind equal the interpreter.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from dataclasses import replace
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm import contraction
from lazygrad_compiler.llvm.builder import Module, Value
from lazygrad_compiler.llvm.compile import assembly, optimize_text
from lazygrad_compiler.llvm.transpose import transpose
from lazygrad_compiler.loops.kernel import ContractionKernel, Kernel
from lazygrad_compiler.loops.operands import (
    accumulator_dtype,
    direct,
    in_rows,
    is_plain,
    operands,
)
from lazygrad_compiler.loops.products import packed_operands, plain, words_of
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    Strips,
    schedule_contraction,
    scratch_bytes,
    scratch_parts,
)
from lazygrad_compiler.target import Target, host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_compiled import run_compiled
from tests.compiler.test_schedule import default_schedule, launches_of, run_scheduled

Array = numpy.ndarray
TARGETS = {
    "avx2": Target("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma", 32, 16),
    "avx512": Target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f", 64, 32),
    "neon": Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32),
    "tiny": Target("x86_64-unknown-linux-gnu", "haswell", "+avx2", 32, 16, 1024, 8192),
}


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def matmul(
    b: int, m: int, n: int, k: int, dtype: str = "float32", layout: tuple[bool, bool] = (False,) * 2
) -> Node:
    """(b, m, k) x (b, k, n); layout: whether left comes as (b, k, m), right as (b, n, k)."""
    turned, right_turned = layout
    left = leaf(0, b, *((k, m) if turned else (m, k)), dtype=dtype)
    right = leaf(1, b, *((n, k) if right_turned else (k, n)), dtype=dtype)
    return node(
        "dot",
        left,
        right,
        left_batch=(0,),
        right_batch=(0,),
        left_contract=(1 if turned else 2,),
        right_contract=(2 if right_turned else 1,),
    )


def draw(graph: Graph, seed: int = 0) -> list[Array]:
    generator = numpy.random.default_rng(seed)
    arrays = []
    for leaf in graph.inputs():
        if leaf.dtype.is_integer:
            low = 0 if leaf.dtype.kind == "unsigned" else -9
            arrays.append(generator.integers(low, 10, leaf.shape).astype(leaf.dtype.numpy))
        else:
            arrays.append(generator.standard_normal(leaf.shape).astype(leaf.dtype.numpy))
    return arrays


def agree(*outputs: Node) -> None:
    graph = Graph(outputs)
    inputs = draw(graph)
    compare(graph, inputs, run_compiled(graph, inputs))


def kernel_of(graph: Graph) -> ContractionKernel:
    (kernel,) = [
        launch.kernel
        for launch in launches_of(graph)[1]
        if isinstance(launch.kernel, ContractionKernel)
    ]
    return kernel


SIZES = [2, 3, 7, 16, 31, 64, 97, 130, 257, 1000, 1024, 5003]


def sizes(seed: int) -> tuple[int, int, int, int]:
    generator = random.Random(seed)
    m, n, k = (generator.choice(SIZES) for _ in range(3))
    return generator.choice([1, 1, 3]), m, n, k


# ---- invariants


def test_the_epilogue_counts_as_work_for_a_second_thread() -> None:
    def stretches(product: Node) -> list[int]:
        kernel = kernel_of(Graph((product,)))
        s = schedule_contraction(kernel, TARGETS["avx512"])
        tasks, most = contraction.task_count(kernel, s), s.grain
        return [min(most, tasks - first) for first in range(0, tasks, most)]

    small = matmul(1, 64, 64, 64)
    assert len(stretches(small)) == 1
    first, *others = stretches(node("tanh", small))
    assert others and max(first, *others) - min(first, *others) <= 1


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
def test_schedule_invariants(target: Target, dtype: str) -> None:
    for seed in range(60):
        layout = bool(seed & 1), bool(seed & 2)
        kernel = kernel_of(Graph((matmul(*sizes(seed), dtype, layout),)))
        s = schedule_contraction(kernel, target)
        left, right = operands(kernel, s.swapped)
        m, n = left.free.extent, right.free.extent
        wide = accumulator_dtype(kernel.dtype)
        assert s.lanes == target.lanes(wide.bits) and s.nr == s.lanes * s.vectors
        assert s.nc % s.nr == 0 and s.kc % s.lanes == 0
        words = s.words(s.kc)
        assert words % s.lanes == 0
        assert min(s.strips, s.vectors, s.block, s.tail, s.nc, s.kc, s.grain) >= 1
        assert s.tail <= s.block <= s.strips <= m and s.nc < n + s.nr
        rows = Strips.of(m, s.strips).rows
        # the accumulators, one column of vectors and a broadcast stay in registers
        assert rows * s.vectors + s.vectors + 1 <= target.registers
        panel, strips, tiles = scratch_parts(kernel, s)
        assert panel >= (round_up(words, s.lanes) * s.nr if s.right != "direct" else 0)
        assert strips >= (words * rows * s.block if s.left != "direct" else 0)
        assert tiles >= rows * (s.nr if kernel.k.extent <= s.kc else s.block * s.nc)
        assert scratch_bytes(kernel, s) >= (panel + strips + tiles) * wide.itemsize


@pytest.mark.parametrize(("m", "count"), [(1, 1), (7, 1), (7, 2), (7, 7), (1024, 74), (28, 2)])
def test_strips_cover_the_rows(m: int, count: int) -> None:
    strips = Strips.of(m, count)
    begins = [strips.begin(number) for number in range(count + 1)]
    lengths = [b - a for a, b in itertools.pairwise(begins)]
    assert begins[0] == 0 and begins[-1] == m and min(lengths) >= 1
    assert lengths == [strips.rows] * strips.large + [strips.rows - 1] * (count - strips.large)


def test_large_products_make_work_for_every_thread() -> None:
    kernel = kernel_of(Graph((matmul(1, 1024, 1024, 1024),)))
    for target in TARGETS.values():
        schedule = schedule_contraction(kernel, target)
        assert contraction.task_count(kernel, schedule) >= 8


def test_scratch_stays_near_the_caches() -> None:
    kernel = kernel_of(Graph((matmul(1, 5003, 5003, 5003),)))
    for name in ("avx2", "avx512", "neon"):
        target = TARGETS[name]
        assert scratch_bytes(kernel, schedule_contraction(kernel, target)) < 2 * target.l2_bytes


# ---- registers

MACHINES = {
    "avx512": Target(
        "x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512vl,+avx512bw,+fma", 64, 32
    ),
    "avx2": Target("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma", 32, 16),
    "neon": Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32),
}


def spills(kernel: ContractionKernel, schedule: ContractionSchedule, target: Target) -> int:
    """Registers that the micro-kernels' inner loops keep on the stack."""
    module = Module(function_attributes=target.function_attributes, target_features=target.features)
    contraction.emit_contraction(module, "kernel", kernel, schedule, target.function_attributes)
    code = assembly(optimize_text(module.text(), target), target)
    loops = [
        block
        for block in re.split(r"^[.\w]*BB\w*:|^[\w.\"]+:", code, flags=re.M)
        if len(re.findall(r"\b(?:vfmadd|fmla|vdpbf16ps|vpdpbusd)", block)) >= 24
    ]
    assert loops
    return sum(len(re.findall(r"\(%rsp|\[sp\b|\[x29\b|\(%rbp", loop)) for loop in loops)


@pytest.mark.parametrize("target", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", [(False, False), (True, True)])
def test_sums_stay_in_registers(target: Target, dtype: str, layout: tuple[bool, bool]) -> None:
    kernel = kernel_of(Graph((matmul(1, 600, 600, 600, dtype, layout),)))
    assert spills(kernel, schedule_contraction(kernel, target), target) == 0


def test_spills_would_be_seen() -> None:
    kernel = kernel_of(Graph((matmul(1, 600, 600, 600),)))
    target = MACHINES["avx2"]
    schedule = replace(schedule_contraction(kernel, target), strips=600 // 8, vectors=3, nc=24)
    assert spills(kernel, schedule, target) > 0


# ---- any legal schedule


def random_schedule(kernel: Kernel, generator: random.Random) -> Any:
    if not isinstance(kernel, ContractionKernel):
        return default_schedule(kernel)
    swapped = generator.random() < 0.5
    form = generator.choice([words_of(kernel, host(), swapped) or plain(kernel), plain(kernel)])
    lanes, vectors = generator.choice([2, 4, 8, 16]), generator.choice([1, 2, 3])
    if form.instruction:
        lanes = host().lanes(32)
    left, right = packed_operands(kernel, swapped, form)
    strips = generator.randint(1, left.free.extent)
    block = generator.randint(1, strips)
    lefts, rights = ["rows", "columns"], ["columns"]
    if direct(kernel, left, form.left, form.group) is not None:
        lefts.append("direct")
    place = direct(kernel, right, form.right, form.group)
    if place is not None and form.group == place.free_step == 1:
        rights.append("direct")
    if in_rows(kernel, right) and kernel.k.extent % form.group == 0:
        rights.append("passing")
    if is_plain(kernel, right):
        rights.append("transposed")
    return ContractionSchedule(
        swapped=swapped,
        lanes=lanes,
        strips=strips,
        vectors=vectors,
        block=block,
        blocks=generator.randint(0, strips // block),
        tail=generator.randint(1, block),
        nc=vectors * lanes * generator.choice([1, 2, 3]),
        kc=lanes * form.group * generator.choice([1, 2, 4, 50]),
        left=generator.choice(lefts),
        right=generator.choice(rights),
        grain=1,
        instruction=form.instruction,
        ahead=generator.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(24))
def test_any_schedule_stays_in_its_scratch_and_is_right(seed: int) -> None:
    generator = random.Random(seed)
    b, m, n, k = (generator.choice(choice) for choice in ([1, 2], *[[2, 5, 17, 33, 64]] * 3))
    dtype = generator.choice(["float32", "float64", "bfloat16", "int32", "int8", "uint8", "int16"])
    product = matmul(b, m, n, k, dtype, (seed % 2 == 0, seed % 3 == 0))
    row = node("expand", leaf(2, 1, 1, n, dtype=dtype), shape=product.shape)
    column = node("expand", leaf(3, 1, m, 1, dtype=dtype), shape=product.shape)
    graph = Graph((node("mul", node("add", product, row), column), product))
    inputs = draw(graph, seed)
    got = run_scheduled(graph, inputs, lambda kernel: random_schedule(kernel, generator), seed)
    compare(graph, inputs, got)


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule_of_a_convolution(seed: int) -> None:
    generator = random.Random(seed + 50)
    graph = Graph((conv((2, 4, 9, 11), (6, 2, 3, 2), (1, 2), ((1, 0), (2, 1)), groups=2),))
    inputs = draw(graph, seed)
    got = run_scheduled(graph, inputs, lambda kernel: random_schedule(kernel, generator), seed)
    compare(graph, inputs, got)


def test_default_schedules_stay_in_their_scratch() -> None:
    for seed in range(10):
        generator = random.Random(seed)
        m, n, k = (generator.choice([2, 31, 97, 130, 400]) for _ in range(3))
        graph = Graph((matmul(1, m, n, k, "float32", (bool(seed & 1), bool(seed & 2))),))
        inputs = draw(graph)
        compare(graph, inputs, run_scheduled(graph, inputs, default_schedule, seed))


def test_long_sums_rest_between_parts_of_k() -> None:
    """k beyond one block: tiles wait in scratch, and the epilogue runs once, after the last."""
    product = matmul(1, 20, 40, 3001)
    kernel = kernel_of(Graph((product,)))
    assert schedule_contraction(kernel, TARGETS["avx512"]).kc < 3001
    agree(
        node(
            "exp",
            node(
                "mul", product, node("const", value=0.01, dtype=product.dtype, shape=product.shape)
            ),
        )
    )


@pytest.mark.parametrize("m, n, k", [(2, 16, 8), (4, 8, 8), (3, 5, 7), (16, 4, 4)])
@pytest.mark.parametrize("axis", [1, 2])
def test_what_follows_a_small_product_may_read_by_index(m: int, n: int, k: int, axis: int) -> None:
    """(x @ w) * scale[index], by row or by column: it is another one at each place of a tile."""
    product = matmul(1, m, n, k)
    length = product.shape[axis]
    scale = node("gather", leaf(2, 9), leaf(3, length, dtype="int64"), axes=(0,))
    along = tuple(length if a == axis else 1 for a in range(3))
    wide = node("expand", node("reshape", scale, shape=along), shape=product.shape)
    graph = Graph((node("mul", product, wide),))
    inputs = [abs(array) % 9 if array.dtype.kind == "i" else array for array in draw(graph)]
    compare(graph, inputs, run_compiled(graph, inputs))


# ---- dtypes


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
@pytest.mark.parametrize("layout", [(False, False), (True, True)])
def test_dot_of_every_dtype(dtype: str, layout: tuple[bool, bool]) -> None:
    if DTYPES[dtype].is_complex:
        pytest.skip("complex numbers are lowered to pairs elsewhere")
    agree(matmul(2, 7, 19, 33, dtype, layout))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integer_sums_wrap_like_the_interpreter(dtype: str) -> None:
    graph = Graph((matmul(1, 5, 9, 300, dtype),))
    high = numpy.iinfo(DTYPES[dtype].numpy).max
    inputs = [numpy.full(leaf.shape, high, leaf.dtype.numpy) for leaf in graph.inputs()]
    compare(graph, inputs, run_compiled(graph, inputs))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_products_add_in_float32(dtype: str) -> None:
    """4096 ones: a 16-bit sum would stall long before."""
    graph = Graph((matmul(1, 3, 5, 4096, dtype),))
    inputs = [numpy.ones(leaf.shape, leaf.dtype.numpy) for leaf in graph.inputs()]
    assert (run_compiled(graph, inputs)[0].astype(numpy.float64) == 4096).all()


def test_accumulators() -> None:
    assert accumulator_dtype(dtypes.bfloat16) is dtypes.float32
    assert accumulator_dtype(dtypes.int8) is dtypes.int32
    assert accumulator_dtype(dtypes.float64) is dtypes.float64


def test_nan_and_infinity_of_padding_lanes_do_not_leak() -> None:
    graph = Graph((matmul(1, 3, 5, 7),))
    left, right = draw(graph)
    left[0, 1, 2], right[0, 3, 4] = numpy.inf, numpy.nan
    (got,) = run_compiled(graph, [left, right])
    expected = left @ right
    numpy.testing.assert_array_equal(numpy.isnan(got), numpy.isnan(expected))
    assert numpy.isinf(got[0, 1, :4]).all()


def test_several_axes_of_every_role() -> None:
    left, right = leaf(0, 3, 4, 2, 5, 6), leaf(1, 5, 2, 7, 4, 3)
    agree(
        node(
            "dot",
            left,
            right,
            left_batch=(2, 0),
            right_batch=(1, 4),
            left_contract=(3, 1),
            right_contract=(0, 3),
        )
    )


# ---- convolutions


def conv(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: tuple[tuple[int, int], ...] | None = None,
    left: tuple[int, ...] | None = None,
    right: tuple[int, ...] | None = None,
    groups: int = 1,
    dtype: str = "float64",
) -> Node:
    ones = (1,) * (len(shape) - 2)
    return node(
        "conv",
        leaf(0, *shape, dtype=dtype),
        leaf(1, *weight, dtype=dtype),
        strides=strides or ones,
        padding=padding or tuple((0, 0) for _ in ones),
        left_dilation=left or ones,
        right_dilation=right or ones,
        groups=groups,
    )


CONVOLUTIONS = {
    "plain": conv((2, 3, 9, 8), (5, 3, 3, 3)),
    "large image": conv((2, 3, 17, 19), (5, 3, 3, 3), padding=((1, 1), (1, 1))),
    "stride": conv((2, 3, 11, 13), (4, 3, 3, 2), strides=(2, 3)),
    "padding": conv((1, 2, 5, 6), (4, 2, 3, 3), padding=((2, 1), (0, 3))),
    "negative padding": conv((2, 3, 9, 8), (4, 3, 3, 3), padding=((-1, 2), (1, -2))),
    "both negative": conv((2, 3, 9, 8), (4, 3, 2, 2), padding=((-2, -1), (-1, -1))),
    "dilation": conv((2, 3, 11, 13), (4, 3, 3, 3), right=(2, 3)),
    "left dilation": conv((2, 3, 5, 4), (4, 3, 3, 3), padding=((2, 2), (1, 2)), left=(2, 3)),
    "left dilation, negative": conv(
        (2, 3, 5, 4), (4, 3, 2, 2), padding=((-1, 0), (2, -3)), left=(3, 2)
    ),
    "all": conv((2, 4, 7, 9), (6, 2, 3, 2), (2, 1), ((1, 2), (-1, 3)), (2, 1), (1, 2), groups=2),
    "groups": conv((2, 6, 7, 7), (9, 2, 3, 3), groups=3),
    "depthwise": conv((2, 5, 9, 9), (5, 1, 3, 3), padding=((1, 1), (1, 1)), groups=5),
    "depthwise multiplied": conv((1, 5, 9, 9), (15, 1, 3, 3), groups=5),
    "1 x 1": conv((2, 7, 9, 9), (5, 7, 1, 1)),
    "1 x 1, one pixel": conv((2, 7, 1, 1), (5, 7, 1, 1)),
    "one channel": conv((1, 1, 9, 9), (1, 1, 3, 3)),
    "kernel as large as the image": conv((3, 2, 5, 5), (4, 2, 5, 5)),
    "1d": conv((3, 4, 37), (5, 4, 5), strides=(2,), padding=((3, 1),)),
    "1d causal, dilated": conv((3, 4, 67), (5, 4, 3), padding=((8, 0),), right=(4,)),
    "3d": conv((2, 3, 5, 6, 7), (4, 3, 2, 3, 2), (1, 2, 1), ((1, 0), (1, 1), (0, 2))),
    "3d depthwise": conv((1, 4, 5, 5, 5), (4, 1, 3, 3, 3), groups=4),
    "empty batch": conv((0, 3, 9, 8), (5, 3, 3, 3)),
    "padding only": conv((1, 2, 1, 1), (3, 2, 3, 3), padding=((2, 2), (1, 1))),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    agree(CONVOLUTIONS[name])


@functools.cache
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["plain", "stride", "padding", "dilation", "groups", "1d", "3d"])
def test_convolutions_equal_pytorch(name: str) -> None:
    """A second oracle: the interpreter might misread an attribute in the same way."""
    made = CONVOLUTIONS[name]
    graph = Graph((made,))
    value, weight = draw(graph)
    strides, padding, _, dilation, groups = made.attrs
    rank = value.ndim - 2
    flat = [number for pair in reversed(padding) for number in pair]
    padded = torch().nn.functional.pad(torch().from_numpy(value), flat)
    function = getattr(torch().nn.functional, f"conv{rank}d")
    expected = function(
        padded, torch().from_numpy(weight), stride=strides, dilation=dilation, groups=groups
    )
    (got,) = run_compiled(graph, [value, weight])
    numpy.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_convolution_dtypes(dtype: str) -> None:
    agree(conv((2, 3, 9, 8), (5, 3, 3, 3), padding=((1, 1), (0, 2)), dtype=dtype))


@pytest.mark.parametrize("seed", range(10))
def test_random_convolutions(seed: int) -> None:
    generator = random.Random(seed)
    rank = generator.choice([1, 2, 2, 3])
    groups = generator.choice([1, 1, 2, 3])
    per_group, out = generator.choice([1, 2, 5]), groups * generator.choice([1, 3])
    space = tuple(generator.randint(6, 12 if rank < 3 else 7) for _ in range(rank))
    kernel = tuple(generator.randint(1, 3) for _ in range(rank))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(generator.randint(low, high) for _ in range(rank))

    padding = tuple(zip(each(-1, 3), each(-1, 3), strict=True))
    agree(
        conv(
            (generator.choice([1, 3]), per_group * groups, *space),
            (out, per_group, *kernel),
            each(1, 3),
            padding,
            each(1, 2),
            each(1, 2),
            groups,
        )
    )


def test_a_convolution_reads_the_image_itself() -> None:
    """No im2col: the contraction's operands are loads from image and weight."""
    kernel = kernel_of(Graph((CONVOLUTIONS["large image"],)))
    loads = [instr for instr in kernel.values if instr.op == "load"]
    read = {instr.data[0] for instr in loads}
    assert sorted(kernel.buffers[number].size for number in read) == [5 * 3 * 9, 2 * 3 * 17 * 19]


# ---- the transposition in registers


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_transpose_in_registers(size: int) -> None:
    """Runs the shuffles of the emitted text on numbers."""
    f = Module().function("f", "void", [])
    cells: dict[str, list[Any]] = {}
    rows = []
    for number in range(size):
        value = Value(f"<{size} x float>", f"%row{number}")
        cells[value.name] = [(number, lane) for lane in range(size)]
        rows.append(value)
    original = f.shuffle

    def shuffle(a: Value, b: Value | None, order: Any) -> Value:
        result = original(a, b, order)
        both = cells[a.name] + (cells[b.name] if b is not None else [None] * size)
        cells[result.name] = [both[lane] for lane in order]
        return result

    f.shuffle = shuffle  # type: ignore[method-assign]
    result = transpose(f, rows)
    for lane, row in enumerate(result):
        assert cells[row.name] == [(number, lane) for number in range(size)]
    shuffles = f.text().count("shufflevector")
    assert shuffles == size * int(math.log2(size))


@pytest.mark.parametrize(("kernel", "padding", "stride"),
                         [(3, 1, 1), (5, 2, 1), (3, 1, 2), (2, 1, 1)])
def test_taps_are_packed_in_phases(kernel: int, padding: int, stride: int) -> None:
    """Masks of a padded convolution depend on the tap, not on the channel: one phase a tap."""
    image = node("input", index=0, dtype=dtypes.float32, shape=(2, 48, 14, 14))
    weight = node("input", index=1, dtype=dtypes.float32, shape=(32, 48, kernel, kernel))
    graph = Graph((node("conv", image, weight, strides=(stride,) * 2,
                        padding=((padding, padding),) * 2, left_dilation=(1, 1),
                        right_dilation=(1, 1), groups=1),))
    _, launches = launches_of(graph)
    schedules = [schedule_contraction(launch.kernel, TARGETS["avx512"]) for launch in launches
                 if isinstance(launch.kernel, ContractionKernel)]
    assert [schedule.phases for schedule in schedules] == [kernel * kernel]
    assert schedules[0].kc % kernel**2 == 0 or schedules[0].kc >= 48 * kernel**2
    random = numpy.random.default_rng(0)
    arrays = [random.standard_normal(leaf.shape).astype("float32") for leaf in (image, weight)]
    compare(graph, arrays, run_compiled(graph, arrays))
