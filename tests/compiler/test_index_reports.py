"""An index out of range is reported whole: threads that fail different checks of one kernel at once
do not mix what they say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy
import pytest

from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.pool import get_num_threads, set_num_threads
from lazygrad_runtime.program import IndexOutOfRange, Program
from tests.compiler.test_lower import gather, leaf

COUNT = 1 << 17
SIZES, AXES, SIGNS = (5, 7, 11), (0, 1, 0), (1, -1, 1)
"""Of the three checks of the kernel: what an index out of range is compared with, and its sign."""


def lookups() -> Graph:
    table, line = leaf(0, 5, 7), leaf(1, 11)
    row, column, place = (leaf(number, COUNT, dtype="int64") for number in (2, 3, 4))
    return Graph((node("add", gather(table, (0, 1), row, column), gather(line, (0,), place)),))


def wrong_in_turns() -> list[numpy.ndarray]:
    """Indices of which one in each place is out of range: its last digit is the check's number."""
    numbers = numpy.arange(COUNT)
    check = numbers // 16 % 3  # all lanes of a vector fail the same check
    wrong = [sign * (1000 + 10 * numbers + k) for k, sign in enumerate(SIGNS)]
    return [numpy.where(check == k, wrong[k], 0) for k in range(3)]


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(4)
    yield
    set_num_threads(before)


def program_and_buffers() -> tuple[Program, list[Buffer]]:
    arrays = [numpy.zeros((5, 7), numpy.float32), numpy.zeros(11, numpy.float32), *wrong_in_turns()]
    return (Program(compile_graph(lookups(), host())),
            [Buffer.from_numpy(array) for array in arrays])


def test_a_block_that_is_claimed_is_left_alone() -> None:
    """As a thread finds it that fails while another one writes."""
    program, buffers = program_and_buffers()
    words = program._error
    words[:] = [1, *range(-1, -len(words), -1)]
    before = list(words)
    with pytest.raises(IndexOutOfRange) as caught:
        program.run(buffers)
    before[4] = 0  # the launch, from the entry
    assert caught.value.report == before


def test_every_report_is_of_one_check(four_threads: None) -> None:
    program, buffers = program_and_buffers()
    for _ in range(2000):
        with pytest.raises(IndexOutOfRange) as caught:
            program.run(buffers)
        reported, index, size, axis, _, check = caught.value.report[:6]
        assert reported == 1
        assert (size, axis) == (SIZES[check], AXES[check]), caught.value.report
        assert index * SIGNS[check] >= 1000 and abs(index) % 10 == check, caught.value.report


def test_only_who_claims_the_block_writes_to_it() -> None:
    """In the code: one compare-and-swap a check, and all stores to the block behind its branch."""
    (kernel,) = lower(lookups(), host()).kernels
    claims = re.findall(r"= cmpxchg ptr (%\w+), i64 0, i64 1 ", kernel.llvm)
    assert len(claims) == 3 and len(set(claims)) == 1
    block = re.escape(claims[0])
    for part in re.split(r"\n(?=[\w.]+:)", kernel.llvm):
        assert not re.search(rf"store [^,]+, ptr {block}\b", part)
        if re.search(rf"getelementptr \w+, ptr {block}\b", part):
            assert part.startswith("first.then"), part
