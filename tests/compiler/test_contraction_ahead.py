"""What tiles of a contraction fetch ahead: every address that they ask for, as the kernel runs.

Kernels are compiled with each prefetch replaced by a call that writes its address down.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, replace

import numpy
import pytest

from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm import contraction
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import CACHE_LINE
from lazygrad_compiler.loops.products import plain, words_of
from lazygrad_compiler.loops.rounding import round_up
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    Strips,
    schedule_contraction,
)
from lazygrad_compiler.target import host
from tests.compiler.test_contraction import TARGETS, kernel_of, leaf, matmul
from tests.compiler.test_schedule import Entry, emit, launches_of, load

MOST = 1 << 18
"""Addresses that are written down."""
RECORDER = """
define internal void @asked(ptr %line) noinline {{
  %count = load i64, ptr inttoptr (i64 {count} to ptr)
  %next = add i64 %count, 1
  store i64 %next, ptr inttoptr (i64 {count} to ptr)
  %slot = getelementptr i64, ptr inttoptr (i64 {list} to ptr), i64 %count
  %address = ptrtoint ptr %line to i64
  store i64 %address, ptr %slot
  ret void
}}
"""


def test_strips_out_of_long_rows_are_fetched_ahead() -> None:
    """Of a weight's gradient: strips are cut out of rows of 768; packed, and asked for before."""
    graph = Graph((matmul(1, 768, 192, 1576, layout=(True, False)),))
    kernel, target = kernel_of(graph), TARGETS["avx512"]
    schedule = schedule_contraction(kernel, target)
    assert schedule.left == "columns" and schedule.ahead and schedule.kc < 1576

    def fetches(schedule: ContractionSchedule, kernel: ContractionKernel = kernel) -> int:
        module = Module()
        contraction.emit_contraction(module, "kernel", kernel, schedule, "")
        return module.text().count("call void @llvm.prefetch")

    assert fetches(schedule) > 0
    assert fetches(replace(schedule, ahead=False)) == 0
    assert fetches(replace(schedule, kc=round_up(1576, schedule.lanes))) == 0  # no part is next
    # rows of 576 are read where they lie: each tile fetches of the strip beside its own
    beside = kernel_of(Graph((matmul(1, 576, 192, 1576, layout=(True, False)),)))
    in_place = schedule_contraction(beside, target)
    assert in_place.left == "direct" and in_place.ahead
    assert fetches(in_place, beside) > 0 and fetches(replace(in_place, ahead=False), beside) == 0
    # along k, rows are streams by themselves
    along_k = kernel_of(Graph((matmul(1, 768, 192, 1576),)))
    assert not schedule_contraction(along_k, target).ahead


@dataclass
class Asked:
    """The addresses that a kernel asked for, and the arrays that it ran on."""

    addresses: numpy.ndarray
    arrays: list[numpy.ndarray]
    scratch: numpy.ndarray

    def inside(self, array: numpy.ndarray) -> numpy.ndarray:
        """Those within an array, in bytes from its beginning."""
        begin = array.ctypes.data
        within = (begin <= self.addresses) & (self.addresses < begin + array.nbytes)
        return self.addresses[within] - begin


def run(graph: Graph, schedule: ContractionSchedule) -> Asked:
    """Runs the graph's one kernel, task by task in order."""
    (launch,) = launches_of(graph)[1]
    text, tasks, scratch_bytes = emit("kernel", launch.kernel, schedule, host())
    count, addresses = numpy.zeros(1, numpy.int64), numpy.zeros(MOST, numpy.int64)
    text, calls = re.subn(r"call void @llvm\.prefetch\.p0\((ptr [^,]+),[^)]*\)",
                          r"call void @asked(\1)", text)
    assert calls
    text += RECORDER.format(count=count.ctypes.data, list=addresses.ctypes.data)
    code = load(text, "kernel")
    arrays = [numpy.ones(value.shape, value.dtype.numpy) for value in launch.arguments]
    error, scratch = numpy.zeros(8, numpy.int64), numpy.zeros(scratch_bytes, numpy.uint8)
    table = (ctypes.c_void_p * (len(arrays) + 1))(
        *(array.ctypes.data for array in arrays), error.ctypes.data
    )
    Entry(code.address("kernel"))(ctypes.addressof(table), 0, tasks, scratch.ctypes.data)
    assert not error.any() and 0 < count[0] <= MOST
    return Asked(addresses[: count[0]], arrays, scratch)


def cut(kernel: ContractionKernel, rows: int, block: int, parts: int) -> ContractionSchedule:
    """Strips of some `rows` out of long rows, `block` of them a task, k in so many parts."""
    form = words_of(kernel, host(), False) or plain(kernel)
    lanes = host().lanes(32)
    strips = -(-kernel.m.extent // rows)
    along = lanes * form.group
    return ContractionSchedule(
        swapped=False, lanes=lanes, strips=strips, vectors=1, block=block, blocks=strips // block,
        tail=max(strips % block, 1), nc=round_up(kernel.n.extent, lanes),
        kc=round_up(-(-kernel.k.extent // parts), along), left="columns", right="columns", grain=1,
        instruction=form.instruction, ahead=True,
    )  # fmt: skip


def squared(b: int, m: int, n: int, k: int) -> Node:
    """A product whose left operand is made of two arrays, element by element."""
    left = node("mul", leaf(0, b, k, m), leaf(2, b, k, m))
    return node("dot", left, leaf(1, b, k, n), left_batch=(0,), right_batch=(0,),
                left_contract=(1,), right_contract=(1,))


@pytest.mark.parametrize(("dtype", "b", "m", "n", "k", "rows", "block", "parts"), [
    ("float32", 1, 67, 97, 173, 8, 3, 3),
    ("float32", 2, 61, 131, 301, 7, 2, 4),
    ("float32", 3, 33, 61, 97, 5, 7, 2),
    ("bfloat16", 1, 69, 97, 263, 6, 4, 3),
    ("int8", 2, 71, 97, 517, 6, 4, 3),
    ("two arrays", 2, 53, 211, 173, 8, 3, 3),
])  # fmt: skip
def test_tiles_ask_for_the_next_part_and_for_nothing_else(
    dtype: str, b: int, m: int, n: int, k: int, rows: int, block: int, parts: int
) -> None:
    """Of rows of odd lengths, the last part of k shorter than those before it, the last task too:
    all lines of the left operand that a later part of k reads, and no address outside of it.
    """
    product = (
        squared(b, m, n, k) if dtype == "two arrays"
        else matmul(b, m, n, k, dtype, layout=(True, False))
    )
    graph = Graph((product,))
    kernel = kernel_of(graph)
    schedule = cut(kernel, rows, block, parts)
    assert kernel.m.extent == m and k % schedule.kc
    asked = run(graph, schedule)
    left = [array for array in asked.arrays if array.shape == (b, k, m)]
    assert len(left) == (2 if dtype == "two arrays" else 1)
    found = [asked.inside(array) for array in left]
    idle = asked.inside(asked.scratch)  # tiles that have nothing to ask for
    assert sum(map(len, found)) + len(idle) == len(asked.addresses)
    for array, offsets in zip(left, found, strict=True):
        first = array.ctypes.data
        lines = numpy.unique((first + offsets) // CACHE_LINE)
        places = first + numpy.arange(array.size).reshape(b, k, m) * array.itemsize
        later = numpy.unique(places[:, schedule.kc :] // CACHE_LINE)
        assert numpy.isin(later, lines).all()
        # nothing of the first part, which was packed before; neighbouring rows may share a line
        passed = places[:, 1 : min(schedule.kc, k - schedule.kc) - 1]
        assert passed.size and not numpy.isin(passed // CACHE_LINE, lines).any()


def test_strips_read_in_place_ask_for_the_one_beside() -> None:
    """Each row of each strip; at a row's end for the next row's beginning."""
    graph = Graph((matmul(1, 66, 35, 40, layout=(True, False)),))
    kernel = kernel_of(graph)
    schedule = replace(cut(kernel, 6, 11, 1), left="direct", instruction="")
    assert Strips.of(66, schedule.strips).rows == 6
    asked = run(graph, schedule)
    (left,) = [array for array in asked.arrays if array.shape == (1, 40, 66)]
    offsets = (asked.addresses - left.ctypes.data).tolist()
    vectors = -(-35 // schedule.nr)
    beside = [(row * 66 + strip * 6) * 4 for row in range(40) for strip in range(1, 12)]
    assert sorted(offsets) == sorted(beside * vectors)
