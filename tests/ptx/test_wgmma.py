"""The template for Hopper: tensor maps, barriers, products of warpgroups; what it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import CudaTarget, cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import contraction_wgmma, warpgroup
from tests.ptx import KernelFault
from tests.ptx.assembled import assembled
from tests.ptx.programs import TARGET, run_graph
from tests.ptx.test_contraction import TOLERANCES, leaf, matmul, random_inputs

FEW = replace(TARGET, multiprocessors=2)
"""So that each block takes several tiles."""


def check(graph: Graph, tolerance: float, target: CudaTarget = FEW) -> None:
    assert "wgmma" in [template(kernel) for kernel in lower(graph, target).kernels]
    inputs = random_inputs(graph)
    for got, wanted in zip(run_graph(graph, inputs, target), interpret(graph, inputs), strict=True):
        a, b = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * abs(b).max())


def template(kernel) -> str:
    return getattr(kernel.schedule, "template", "")


def with_tile(tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction_wgmma, "choose_tile", lambda kernel, target: tile)


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_wgmma.TILES], ids=str)
def test_tiles(tile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the edges of all three; more slices than buffers; four tiles for one block."""
    with_tile(replace(tile, stages=2), monkeypatch)
    graph = Graph((matmul(dtypes.bfloat16, tile.m + 8, tile.n + 8, 136),))
    check(graph, TOLERANCES["bfloat16"], replace(TARGET, multiprocessors=1))


@pytest.mark.parametrize("left, right", [(False, True), (True, False), (True, True)])
def test_transpositions(left: bool, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tile(contraction_wgmma.WgmmaTile(128, 128), monkeypatch)
    graph = Graph((matmul(dtypes.float16, 136, 80, 72, left, right),))
    check(graph, TOLERANCES["float16"])


def test_batches_and_epilogues() -> None:
    """relu(x @ w + bias) of several x with one w, beside its transpose; w is one for all."""
    dtype = dtypes.bfloat16
    x, w, bias = leaf(0, dtype, 3, 72, 64), leaf(1, dtype, 64, 72), leaf(2, dtype, 72)
    every = node("expand", node("reshape", w, shape=(1, 64, 72)), shape=(3, 64, 72))
    product = node("dot", x, every, left_batch=(0,), right_batch=(0,), left_contract=(2,),
                   right_contract=(1,))  # fmt: skip
    row = node("expand", node("reshape", bias, shape=(1, 1, 72)), shape=(3, 72, 72))
    zero = node("const", value=0.0, dtype=dtype, shape=(3, 72, 72))
    result = node("maximum", node("add", product, row), zero)
    turned = node("permute", result, order=(0, 2, 1))
    check(Graph((result, node("neg", turned))), TOLERANCES["bfloat16"])


def test_parts_of_arrays_are_read_where_they_lie() -> None:
    """Columns 64 to 128 of one operand, from row 8 on; sums in float32."""
    x, y = leaf(0, dtypes.float16, 80, 192), leaf(1, dtypes.float16, 64, 64)
    part = node("slice", x, starts=(8, 64), stops=(80, 128), steps=(1, 1))
    wide = [node("cast", value, dtype=dtypes.float32) for value in (part, y)]
    product = node("dot", *wide, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))  # fmt: skip
    check(Graph((product,)), 1e-5)


def test_another_swizzle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warpgroup, "SWIZZLE_128", 2 << 62 & (1 << 64) - 1)
    with pytest.raises((AssertionError, KernelFault), match="Not equal|nobody wrote"):
        check(Graph((matmul(dtypes.float16, 64, 64, 64),)), TOLERANCES["float16"])


def why(graph: Graph, target: CudaTarget = TARGET) -> str:
    (kernel,) = lower(graph, target).kernels
    assert template(kernel) == "mma.sync"
    return kernel.schedule.why


def test_what_takes_another_template_says_why() -> None:
    def square(left: Node, right: Node) -> Graph:
        return Graph((node("dot", left, right, left_batch=(), right_batch=(), left_contract=(1,),
                           right_contract=(0,)),))  # fmt: skip

    dtype = dtypes.bfloat16
    x, y = leaf(0, dtype, 256, 256), leaf(1, dtype, 256, 256)
    assert template(lower(square(x, y), TARGET).kernels[0]) == "wgmma"
    assert why(square(x, y), cuda_target("sm_90")) == "no wgmma: sm_90 has no wgmma"
    assert why(square(x, y), cuda_target("sm_100a")) == "no wgmma: sm_100a has no wgmma"
    uneven = node("neg", leaf(0, dtype, 256, 255))
    assert "left operand has 255 elements along memory, not whole steps of 16 bytes" in why(
        square(uneven, leaf(1, dtype, 255, 256)))
    odd = leaf(1, dtype, 256, 255)
    assert "right operand has 255 elements along memory" in why(square(x, odd))
    assert "fewer than 64" in why(square(leaf(0, dtype, 256, 63), leaf(1, dtype, 63, 256)))
    (kernel,) = lower(square(leaf(0, dtypes.float32, 64, 64), leaf(1, dtypes.float32, 64, 64)),
                      TARGET).kernels  # fmt: skip
    assert template(kernel) == "ffma" and kernel.schedule.why == "float32 is multiplied strictly"


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_wgmma.TILES], ids=str)
def test_machine_code(tile, monkeypatch: pytest.MonkeyPatch) -> None:
    """No spills, products not serialised, registers traded, tiles brought by the copy engine."""
    with_tile(tile, monkeypatch)
    assert tile.shared_bytes <= TARGET.shared_bytes
    left = tile.n == 256
    graph = Graph((matmul(dtypes.bfloat16, 4096, 4096, 4096, left, left),))
    (text,) = compile_graph(graph, TARGET).objects.values()
    made = assembled(text.decode(), "sm_90a")
    assert "setmaxnreg" not in made.report
    code = made.sass()
    for instruction in ("HGMMA", "UTMALDG", "USETMAXREG", "SYNCS"):
        assert instruction in code, instruction
    assert "HMMA.16816" not in code
