"""A schedule never changes what is computed: kernels run under random legal schedules, their tasks
in any order, agree with the interpreter, and touch no byte outside their buffers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import mmap
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest

from lazygrad_compiler.backend import backend_of
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm import contraction, loops, scatter
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.loops.kernel import ContractionKernel, Kernel, Launch, LoopKernel
from lazygrad_compiler.loops.online import online_sum
from lazygrad_compiler.loops.schedule import STRIDED_CHUNK, LoopSchedule, schedule_loops
from lazygrad_compiler.loops.schedule_contraction import (
    schedule_contraction,
    scratch_bytes,
)
from lazygrad_compiler.passes.optimize import optimize
from lazygrad_compiler.passes.outputs import separate_outputs
from lazygrad_compiler.pipeline import lower_groups
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.loader import LoadedCode, load_object
from tests.compiler.error_bounds import IllConditioned
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import random_graph

Array = numpy.ndarray
Chooser = Callable[[Kernel], Any]
"""A schedule for a kernel."""

GUARD = 256
CANARY = 0xA5
Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def launches_of(graph: Graph) -> tuple[Graph, list[Launch]]:
    separate = separate_outputs(prepare(optimize(graph)))
    return separate, lower_groups(partition(separate), backend_of(host()))


def default_schedule(kernel: Kernel) -> Any:
    if isinstance(kernel, LoopKernel):
        return schedule_loops(kernel, host())
    if isinstance(kernel, ContractionKernel):
        return schedule_contraction(kernel, host())
    return None


def emit(name: str, kernel: Kernel, schedule: Any, target: Target) -> tuple[str, int, int]:
    """(LLVM text, tasks, bytes of scratch) of the kernel under the schedule."""
    module = Module(function_attributes=target.function_attributes, target_features=target.features)
    if isinstance(kernel, LoopKernel):
        loops.emit_loops(module, name, kernel, schedule, target.function_attributes)
        scratch = loops.scratch_bytes(kernel, schedule)
        return module.text(), loops.task_count(kernel, schedule), scratch
    if isinstance(kernel, ContractionKernel):
        contraction.emit_contraction(module, name, kernel, schedule, target.function_attributes)
        tasks = contraction.task_count(kernel, schedule)
        return module.text(), tasks, scratch_bytes(kernel, schedule)
    scatter.emit_scatter(module, name, kernel, target)
    return module.text(), scatter.task_count(kernel, target), 0


@functools.lru_cache(64)
def load(text: str, name: str) -> LoadedCode:
    return load_object(compile_text(text, host()).object_code)


class Guarded:
    """Bytes between canaries, which `check` finds damaged if something wrote past the ends."""

    def __init__(self, nbytes: int, fill: int) -> None:
        self.nbytes = nbytes
        self.memory = numpy.full(nbytes + 2 * GUARD + 64, CANARY, numpy.uint8)
        self.start = GUARD + -(self.memory.ctypes.data + GUARD) % 64
        self.memory[self.start : self.start + nbytes] = fill

    @property
    def address(self) -> int:
        return self.memory.ctypes.data + self.start

    def array(self, like: Node) -> Array:
        inside = self.memory[self.start : self.start + self.nbytes]
        return inside.view(like.dtype.numpy).reshape(like.shape)

    def check(self, what: str) -> None:
        before = self.memory[: self.start]
        after = self.memory[self.start + self.nbytes :]
        assert (before == CANARY).all(), f"{what}: written before its begin"
        assert (after == CANARY).all(), f"{what}: written past its end"


def argument_addresses(launch: Launch, memory: dict[Node, Guarded]) -> list[int]:
    """Where each buffer of the kernel begins."""
    return [
        memory[value].address + launch.offset_of(place) * value.dtype.itemsize
        for place, value in enumerate(launch.arguments)
    ]


def run_scheduled(
    graph: Graph, inputs: Sequence[Array], choose: Chooser, seed: int = 0
) -> list[Array]:
    """The graph's outputs, every kernel under the chosen schedule and its tasks shuffled."""
    generator = random.Random(seed)
    separate, launches = launches_of(graph)
    memory: dict[Node, Guarded] = {}
    for leaf in separate.inputs():
        memory[leaf] = Guarded(leaf.nbytes, 0)
        memory[leaf].array(leaf)[...] = inputs[leaf.attrs[0]]
    error = Guarded(64, 0)
    for launch in launches:
        schedule = choose(launch.kernel)
        text, tasks, scratch_size = emit("kernel", launch.kernel, schedule, host())
        code = load(text, "kernel")
        call = Entry(code.address("kernel"))
        for value, buffer in zip(launch.arguments, launch.kernel.buffers, strict=True):
            if value not in memory:
                assert buffer.written, f"{launch.about} reads {value!r} before it is written"
                memory[value] = Guarded(value.nbytes, 0xFF)
        table = (ctypes.c_void_p * (len(launch.arguments) + 1))(
            *argument_addresses(launch, memory), error.address
        )
        scratch = Guarded(scratch_size, 0xFF)
        cuts = sorted({0, tasks, *(generator.randrange(tasks + 1) for _ in range(3))})
        parts = list(itertools.pairwise(cuts))
        generator.shuffle(parts)
        for begin, end in parts:
            call(ctypes.addressof(table), begin, end, scratch.address)
        scratch.check(f"scratch of {launch.about} under {schedule}")
        for value in launch.arguments:
            memory[value].check(f"{value!r} in {launch.about} under {schedule}")
    error.check("the error block")
    assert not error.array(node("input", index=0, dtype=DTYPES["int64"], shape=(8,))).any()
    for leaf in separate.inputs():
        kept = memory[leaf].array(leaf)
        assert kept.tobytes() == numpy.ascontiguousarray(inputs[leaf.attrs[0]]).tobytes()
    return [
        memory[output].array(output)
        if output in memory
        else numpy.empty(output.shape, output.dtype.numpy)
        for output in separate.outputs
    ]


def random_loop_schedule(kernel: LoopKernel, generator: random.Random) -> LoopSchedule:
    """Any schedule that the class allows."""
    lanes = generator.choice([2, 4, 8, 16, 32])
    inner = any(stage.axes for stage in kernel.stages)
    rows_apart = kernel.row_axes and not kernel.block
    kinds = ["none", *(["row"] if rows_apart else []), *(["inner"] if inner else [])]
    vector = generator.choice(kinds)
    order = list(range(len(kernel.row_axes)))
    generator.shuffle(order)
    inner_order = []
    for stage in kernel.stages:
        axes = list(range(len(stage.axes)))
        generator.shuffle(axes)
        inner_order.append(tuple(axes))
    chunk = generator.choice([1, 2, 3, 8]) * lanes if vector == "row" else 1
    each = [1 if vector == "none" else lanes] * len(kernel.stages)
    if vector == "inner":
        each = [generator.choice([2, 4, 8, 16, 32]) for _ in kernel.stages]
    return LoopSchedule(
        vector,
        tuple(each),
        chunk,
        vector == "row" and generator.random() < 0.5,
        generator.choice([1, 3]),
        tuple(order),
        tuple(inner_order),
        generator.random() < 0.5,
        generator.randrange(-1, len(kernel.stages)),
        generator.choice([1, 2, 3, 4]) if kernel.block else 1,
        random_online(kernel, generator),
        generator.choice([0, 8]),
    )


def random_online(kernel: LoopKernel, generator: random.Random) -> tuple[int, ...]:
    """Some of the stages that can go in one pass with the one after them."""
    able = [k for k in range(len(kernel.stages)) if online_sum(kernel, k) is not None]
    return tuple(number for number in able if generator.random() < 0.7)


def spread(value: Node, shape: tuple[int, ...], axis: int) -> Node:
    """Values without the axis, the same all along it."""
    kept = tuple(1 if k == axis else size for k, size in enumerate(shape))
    return node("expand", node("reshape", value, shape=kept), shape=shape)


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_random_schedules_of_random_graphs(first: int) -> None:
    for seed in range(first, first + 25):
        generator = random.Random(seed)
        graph, inputs = random_graph(seed + 10_000, size=12)

        def choose(kernel: Kernel, generator: random.Random = generator) -> Any:
            if isinstance(kernel, LoopKernel):
                return random_loop_schedule(kernel, generator)
            return default_schedule(kernel)

        with contextlib.suppress(IllConditioned):
            compare(graph, inputs, run_scheduled(graph, inputs, choose, seed))


def softmax_and_sums(rows: int, length: int) -> Graph:
    value = leaf(0, rows, length)
    highest = node("reshape", node("max", value, axes=(1,)), shape=(rows, 1))
    powers = node("exp", node("sub", value, node("expand", highest, shape=value.shape)))
    total = node("reshape", node("sum", powers, axes=(1,)), shape=(rows, 1))
    result = node("div", powers, node("expand", total, shape=value.shape))
    return Graph((result, node("argmax", value, axes=(1,))))


@pytest.mark.parametrize("seed", range(16))
def test_random_schedules_of_softmax(seed: int) -> None:
    generator = random.Random(seed)
    rows, length = generator.choice([1, 5, 33]), generator.choice([3, 31, 64, 101])
    graph = softmax_and_sums(rows, length)
    array = numpy.random.default_rng(seed).standard_normal((rows, length)).astype(numpy.float32)
    compare(
        graph,
        [array],
        run_scheduled(graph, [array], lambda k: random_loop_schedule(k, generator), seed),
    )


@pytest.mark.parametrize("lanes", [2, 8, 16, 64])
@pytest.mark.parametrize("chunks_outermost", [False, True])
@pytest.mark.parametrize("shape", [(37, 67), (16, 64), (1, 130)])
def test_chunks_of_a_transposition_cover_every_element_once(
    lanes: int, chunks_outermost: bool, shape: tuple[int, int]
) -> None:
    graph = Graph((node("neg", node("permute", leaf(0, *shape), order=(1, 0))),))
    array = numpy.arange(math.prod(shape), dtype=numpy.float32).reshape(shape)

    def choose(kernel: Kernel) -> LoopSchedule:
        usual = default_schedule(kernel)
        return replace(
            usual, vector="row", lanes=(lanes,), chunk=lanes, chunks_outermost=chunks_outermost
        )

    compare(graph, [array], run_scheduled(graph, [array], choose))


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_remainders_of_quotients_that_all_lanes_share(lanes: int) -> None:
    """(x // 4) % 2 along x: for two or four lanes the quotient is one number already."""
    weight = node("reshape", leaf(1, 16), shape=(1, 2, 2, 2, 2))
    image = node("expand", leaf(0, 1, 1, 1, 1, 1), shape=(2, 2, 4, 2, 5))
    made = node(
        "conv",
        image,
        weight,
        strides=(1, 2, 1),
        padding=((1, 1), (2, 0), (-1, 1)),
        left_dilation=(2, 1, 1),
        right_dilation=(2, 1, 1),
        groups=1,
    )
    graph = Graph((made,))

    def choose(kernel: Kernel) -> Any:
        usual = default_schedule(kernel)
        if not isinstance(kernel, LoopKernel):
            return usual
        each = (lanes,) * len(kernel.stages)
        return replace(usual, vector="inner", lanes=each, chunk=1, chunks_outermost=False)

    inputs = [
        numpy.full((1,) * 5, 3, numpy.float32),
        numpy.arange(16, dtype=numpy.float32),
    ]
    compare(graph, inputs, run_scheduled(graph, inputs, choose))


# ---- what the default schedule promises

NARROW = Target("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma,+f16c", 32, 16)
WIDE = Target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f", 64, 32)
SMALL = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)


def kernels_of(graph: Graph, kind: type) -> list:
    return [launch.kernel for launch in launches_of(graph)[1] if isinstance(launch.kernel, kind)]


@pytest.mark.parametrize("target", [NARROW, WIDE, SMALL], ids=["avx2", "avx512", "neon"])
def test_default_schedules_are_legal(target: Target) -> None:
    seen = set()
    for seed in range(60):
        for kernel in kernels_of(random_graph(seed)[0], LoopKernel):
            s = schedule_loops(kernel, target)
            seen.add(s.vector)
            assert s.vector in ("row", "inner", "none") and s.grain >= 1
            assert all(lanes & (lanes - 1) == 0 for lanes in s.lanes)
            assert len(s.lanes) == len(kernel.stages) > s.prefetch >= -1
            assert sorted(s.row_order) == list(range(len(kernel.row_axes)))
            assert len(s.inner_order) == len(kernel.stages)
            for order, stage in zip(s.inner_order, kernel.stages, strict=True):
                assert sorted(order) == list(range(len(stage.axes)))
            if s.vector == "row":
                assert len(set(s.lanes)) == 1
                assert s.chunk % s.lanes[0] == 0 and s.chunk > 0
            tasks = loops.task_count(kernel, s)
            assert tasks >= (1 if all(v.extent for v in kernel.row_axes) else 0)
    assert seen == {"row", "inner", "none"}


def test_elementwise_kernels_vectorise_the_contiguous_axis() -> None:
    (kernel,) = kernels_of(Graph((node("exp", leaf(0, 300, 200)),)), LoopKernel)
    s = schedule_loops(kernel, WIDE)
    assert (s.vector, s.lanes) == ("row", (16,))
    assert schedule_loops(kernel, NARROW).lanes == (8,)
    assert not s.chunks_outermost


def test_short_rows_go_in_one_vector() -> None:
    shifted = node("slice", leaf(0, 90, 80), starts=(1, 2), stops=(90, 63), steps=(1, 1))
    lanes = {}
    for name in ("neg", "tanh"):
        (kernel,) = kernels_of(Graph((node(name, shifted),)), LoopKernel)
        lanes[name] = [schedule_loops(kernel, target).lanes[0] for target in (WIDE, NARROW)]
    assert lanes == {"neg": [64, 8], "tanh": [16, 8]}  # 61 are 4 vectors, and 8


def test_rows_beyond_the_second_cache_are_fetched_ahead() -> None:
    def fetching(count: int, side: int, channels: int = 64) -> int:
        value = leaf(0, count, channels, side, side)
        squares = node("sum", node("mul", value, value), axes=(0, 2, 3))
        (kernel, *_) = kernels_of(Graph((squares,)), LoopKernel)
        return schedule_loops(kernel, WIDE).prefetch

    assert fetching(32, 16) == 0  # pieces of 1 KiB
    assert fetching(1, 120) == 0  # a channel of one image lies in one piece
    assert fetching(32, 16, 4) == -1  # all stays in the second cache
    assert fetching(64, 40) == -1  # a row of 400 KiB is too long


def test_row_reductions_vectorise_inside_and_column_sums_across() -> None:
    value = leaf(0, 300, 200)
    (rows,) = kernels_of(Graph((node("sum", value, axes=(1,)),)), LoopKernel)
    (columns,) = kernels_of(Graph((node("sum", value, axes=(0,)),)), LoopKernel)
    assert schedule_loops(rows, WIDE).vector == "inner"
    assert schedule_loops(columns, WIDE).vector == "row"


def test_transpositions_go_in_short_chunks() -> None:
    turned = node("permute", leaf(0, 500, 700), order=(1, 0))
    (kernel,) = kernels_of(Graph((node("neg", turned),)), LoopKernel)
    s = schedule_loops(kernel, WIDE)
    assert s.vector == "row" and s.chunks_outermost and s.chunk <= max(STRIDED_CHUNK, s.lanes[0])


def test_small_arrays_take_one_task_and_few_lanes() -> None:
    (kernel,) = kernels_of(Graph((node("neg", leaf(0, 3)),)), LoopKernel)
    s = schedule_loops(kernel, WIDE)
    assert s.lanes[0] < 8 and loops.task_count(kernel, s) == 1


def test_a_schedule_is_plain_data() -> None:
    (kernel,) = kernels_of(Graph((node("neg", leaf(0, 300)),)), LoopKernel)
    s = schedule_loops(kernel, WIDE)
    assert eval(repr(s), {"LoopSchedule": LoopSchedule}) == s


# ---- reads

PROT_NONE = 0


class AtPageEnd:
    """An array whose last byte is the last before a page that nobody may touch."""

    def __init__(self, nbytes: int) -> None:
        pages = -(-max(nbytes, 1) // mmap.PAGESIZE)
        self.memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        last = ctypes.c_void_p(base + pages * mmap.PAGESIZE)
        assert libc.mprotect(last, ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE) == 0
        self.address = base + pages * mmap.PAGESIZE - nbytes


def read_at_page_ends(first: int, count: int) -> None:
    """Runs random graphs with every buffer at a page's end: a read past it kills the process."""
    for seed in range(first, first + count):
        graph, inputs = random_graph(seed, size=12)
        separate, launches = launches_of(graph)
        memory: dict[Node, AtPageEnd] = {}
        for leaf in separate.inputs():
            memory[leaf] = AtPageEnd(leaf.nbytes)
            array = numpy.ascontiguousarray(inputs[leaf.attrs[0]])
            ctypes.memmove(memory[leaf].address, array.ctypes.data, array.nbytes)
        error = AtPageEnd(64)
        for launch in launches:
            text, tasks, size = emit("k", launch.kernel, default_schedule(launch.kernel), host())
            call = Entry(load(text, "k").address("k"))
            for value in launch.arguments:
                memory.setdefault(value, AtPageEnd(value.nbytes))
            addresses = argument_addresses(launch, memory)
            table = (ctypes.c_void_p * (len(launch.arguments) + 1))(*addresses, error.address)
            scratch = AtPageEnd(size)
            call(ctypes.addressof(table), 0, tasks, scratch.address)
        assert not any(ctypes.string_at(error.address, 8))


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect with Linux's constants")
def test_kernels_read_nothing_past_their_buffers() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from tests.compiler.test_schedule import read_at_page_ends\n"
        "read_at_page_ends(20_000, 80)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-2000:]}"
