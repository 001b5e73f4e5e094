"""Attention of bfloat16, whose products go in words of two where the processor has them."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.llvm.compile import assembly, optimize_text
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import Target, host
from tests.compiler.attention_cases import Shape, check, leaf, outputs_of, run

WORDS = Target(
    "x86_64-unknown-linux-gnu", "znver4", "+avx512f,+avx512bw,+avx512vl,+avx512bf16,+fma", 64, 32
)


@pytest.mark.parametrize("shape", [
    Shape(2, 2, 2, 45, 77, 7, 5),  # neighbours are of two rows: words are put together
    Shape(1, 4, 2, 33, 113, 34, 66),
    Shape(1, 1, 1, 70, 1, 1, 1),
    Shape(1, 2, 1, 131, 225, 64, 33),
], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_shapes(shape: Shape, causal: bool) -> None:
    check(shape, "bfloat16", causal, dropout=(0.3, 1 / 0.7, 1) if causal else ())


@pytest.mark.parametrize("parts", ["k", "qv"])
def test_some_gradients(parts: str) -> None:
    check(Shape(20, 2, 1, 45, 37, 20, 24), "bfloat16", parts=parts)


@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("zero", [False, True])
def test_rows_that_see_nothing(kind: str, zero: bool) -> None:
    random = numpy.random.default_rng(3)
    mask = random.random((2, 1, 45, 77)) < 0.5
    mask[:, :, 3] = False
    if kind == "added":
        mask = numpy.where(mask, random.standard_normal(mask.shape), -numpy.inf)
    check(Shape(2, 2, 2, 45, 77, 8, 8), "bfloat16", mask=mask, zero=zero)


def test_what_lies_behind_a_row_does_not_matter() -> None:
    """Keys and values that are parts of rows, odd steps apart, with NaN around them."""
    random = numpy.random.default_rng(3)
    dtype = DTYPES["bfloat16"].numpy
    arrays = [random.standard_normal((1, 2, 40, 12)).astype(dtype)]
    for _ in range(2):
        array = numpy.full((1, 2, 55, 15), numpy.nan)
        array[:, :, :53, 1:13] = random.standard_normal((1, 2, 53, 12))
        arrays.append(array.astype(dtype))
    q, *whole = [leaf(n, array, "bfloat16") for n, array in enumerate(arrays)]
    parts = [node("slice", each, starts=(0, 0, 0, 1), stops=(1, 2, 53, 13), steps=(1, 1, 1, 1))
             for each in whole]
    graph = Graph(outputs_of([q, *parts, q], 0.3, False, False, "qkv"))
    stages = lower(graph, host())
    assert not any(launch.kernel.kind == "loops" and launch.kernel.buffers[-1].dtype.bits == 16
                   for launch in stages.launches)  # no part is copied
    for result in run(graph, arrays):
        assert numpy.isfinite(result.astype(numpy.float32)).all()


def test_instructions() -> None:
    """All seven products, and none where the processor lacks the instruction."""
    shape = Shape(1, 2, 2, 70, 70, 24, 8)
    leaves = [node("input", index=n, dtype=DTYPES["bfloat16"], shape=s)
              for n, s in enumerate(shape.operands)]
    graph = Graph(outputs_of(leaves, 0.3, True, False, "qkv"))
    without = replace(WORDS, features=WORDS.features.replace(",+avx512bf16", ""), cpu="x86-64")
    for target, has in ((WORDS, True), (without, False)):
        kernels = [each for each in lower(graph, target).kernels if each.kernel.kind == "attention"]
        code = [assembly(optimize_text(each.llvm, target), target)
                for each in kernels if each.kernel.step != "sum"]
        assert len(code) == 2
        assert all(("vdpbf16ps" in each) == has for each in code)
