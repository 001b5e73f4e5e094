"""Right operands that are packed in passing, by the first tile that multiplies by them: when, right
for every dtype, width and cut into tasks, and asked for ahead of time.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm.contraction_passing import AHEAD
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import CACHE_LINE
from lazygrad_compiler.loops.products import words_of
from lazygrad_compiler.loops.schedule_contraction import ContractionSchedule, schedule_contraction
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_contraction import draw, kernel_of, leaf, matmul, spills
from tests.compiler.test_contraction_ahead import run
from tests.compiler.test_products import MACHINES, axes, cast, wide_product
from tests.compiler.test_schedule import run_scheduled

ZEN5 = MACHINES["zen5"]
NEEDS_WORDS = pytest.mark.skipif(
    words_of(kernel_of(Graph((matmul(1, 8, 8, 8, "int16"),))), host(), False) is None,
    reason="no words on this processor",
)


def schedule_of(product: Node, machine: str = "zen5") -> ContractionSchedule:
    return schedule_contraction(kernel_of(Graph((product,))), MACHINES[machine])


def under_autocast(m: int, n: int, k: int) -> Node:
    product = matmul(1, m, n, k, "float32")
    return node("dot", *(cast(each, "bfloat16") for each in product.inputs), **axes(product))


def computed(m: int, n: int, k: int) -> Node:
    """By a weight that is a product itself."""
    product = matmul(1, m, n, k, "bfloat16")
    x, y = product.inputs
    return node("dot", x, node("mul", y, y), **axes(product))


def test_rows_of_whole_words_pass():
    for product in (matmul(1, 8, 2048, 2048, "bfloat16"), matmul(1, 512, 512, 512, "bfloat16"),
                    wide_product(8, 2048, 2048, "int8", "int8"), under_autocast(64, 768, 768)):
        assert schedule_of(product).right == "passing"
    assert schedule_of(matmul(1, 8, 2048, 2048, "bfloat16"), "neoverse-v1").right == "passing"


def test_what_is_packed_beforehand():
    """A last word that is not full, values that are computed, columns, few registers; and what
    meets strips that are packed out of long rows.
    """
    odd, square = matmul(1, 64, 512, 511, "bfloat16"), matmul(1, 64, 512, 512, "int16")
    assert schedule_of(odd).right == schedule_of(computed(64, 512, 512)).right == "columns"
    assert schedule_of(matmul(1, 64, 512, 512, "bfloat16", (False, True))).right == "transposed"
    assert schedule_of(square, "haswell").right == "columns"
    assert schedule_of(matmul(1, 64, 512, 512)).right != "passing"
    assert schedule_of(matmul(1, 768, 768, 4096, "bfloat16", (True, False))).right == "columns"


def test_a_panel_of_one_strip_is_not_kept():
    assert not schedule_of(matmul(1, 8, 2048, 2048, "bfloat16")).keeps_panels
    assert schedule_of(matmul(1, 64, 2048, 2048, "bfloat16")).keeps_panels


@pytest.mark.parametrize("rows", [8, 64, 600])
def test_rows_that_wait_for_memory_are_read_in_long_pieces(rows):
    """4 KiB apart, which crowds L2; a step from row to row costs more than a line."""
    assert schedule_of(matmul(1, rows, 2048, 2048, "bfloat16")).vectors >= 3


def test_sums_stay_in_registers_beside_what_is_woven():
    """Of bfloat16; bytes, four rows of which are woven at a time, take a few registers more."""
    kernel = kernel_of(Graph((matmul(1, 600, 600, 600, "bfloat16"),)))
    schedule = schedule_contraction(kernel, ZEN5)
    assert schedule.right == "passing" and spills(kernel, schedule, ZEN5) == 0


def passing(kernel: Any, draw_from: random.Random, vectors: int = 0) -> Any:
    """A schedule whose tasks begin with strips of both sizes, with several parts of k."""
    assert isinstance(kernel, ContractionKernel)
    form = words_of(kernel, host(), False)
    assert form is not None
    lanes, vectors = host().lanes(32), vectors or draw_from.choice([1, 2, 3])
    m = kernel.m.extent
    strips = draw_from.randint(1, m)
    block = draw_from.randint(1, strips)
    return replace(
        schedule_contraction(kernel, host()), swapped=False, lanes=lanes, strips=strips,
        vectors=vectors, block=block, blocks=draw_from.randint(0, strips // block),
        tail=draw_from.randint(1, block), nc=vectors * lanes * draw_from.choice([1, 2]),
        kc=lanes * form.group * draw_from.choice([1, 2, 50]), left="rows", right="passing",
        instruction=form.instruction, phases=1, run=1, ahead=False,
    )


@NEEDS_WORDS
@pytest.mark.parametrize("seed", range(16))
def test_any_cut_into_tasks(seed):
    draw_from = random.Random(seed)
    m, n = draw_from.choice([2, 7, 19, 40]), draw_from.choice([2, 15, 33, 64, 101])
    k = 4 * draw_from.choice([1, 8, 33])
    kinds = [lambda: wide_product(m, n, k, "int8", "int8"),
             lambda: wide_product(m, n, k, "uint8", "int8"),
             lambda: matmul(2, m, n, k, "int16")]
    if words_of(kernel_of(Graph((under_autocast(8, 8, 8),))), host(), False) is not None:
        kinds += [lambda: matmul(2, m, n, k, "bfloat16"), lambda: under_autocast(m, n, k)]
    product = kinds[seed % len(kinds)]()
    row = node("expand", leaf(2, *[1] * (product.ndim - 1), n, dtype=product.dtype.name),
               shape=product.shape)
    graph = Graph((node("add", product, row),))
    inputs = draw(graph, seed)
    got = run_scheduled(graph, inputs, lambda kernel: passing(kernel, draw_from), seed)
    compare(graph, inputs, got)


@NEEDS_WORDS
@pytest.mark.parametrize("n", [96, 100, 1000])
def test_rows_are_asked_for_ahead(n):
    """Every line of the rows behind the first ones, once for each task that packs them."""
    k = 4 * AHEAD
    graph = Graph((matmul(1, 4, n, k, "int16"),))
    asked = run(graph, replace(
        passing(kernel_of(graph), random.Random(0), vectors=2), strips=1, block=1, blocks=1,
        tail=1, kc=k,
    ))
    (right,) = [array for array in asked.arrays if array.shape == (1, k, n)]
    places = right.ctypes.data + numpy.arange(right.size).reshape(k, n) * right.itemsize
    wanted = numpy.unique(places[AHEAD:] // CACHE_LINE)
    assert numpy.isin(wanted, numpy.unique(asked.addresses // CACHE_LINE)).all()
