"""Operands of `wgmma` that are computed by the producer (`ptx/computed_operand.py`)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import contraction_wgmma
from tests.ptx.assembled import assembled
from tests.ptx.programs import TARGET
from tests.ptx.test_contraction import TOLERANCES, leaf
from tests.ptx.test_wgmma import check, with_tile

BF16 = dtypes.bfloat16


def product(m: int, n: int, k: int, computed: str, left_turned: bool = False,
            right_turned: bool = False, op: str = "abs") -> Graph:
    """op of one operand, times the other."""
    x = leaf(0, BF16, *((k, m) if left_turned else (m, k)))
    y = leaf(1, BF16, *((n, k) if right_turned else (k, n)))
    left: Node = node(op, x) if computed == "left" else x
    right: Node = node(op, y) if computed == "right" else y
    return Graph((node("dot", left, right, left_batch=(), right_batch=(),
                       left_contract=(0 if left_turned else 1,),
                       right_contract=(1 if right_turned else 0,)),))  # fmt: skip


@pytest.mark.parametrize("computed", ["left", "right"])
@pytest.mark.parametrize("turned", [(False, False), (True, True), (True, False), (False, True)])
def test_either_operand_lying_either_way(
    computed: str, turned: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the edges of all axes, several tiles for one block, more slices than buffers."""
    with_tile(replace(contraction_wgmma.WgmmaTile(128, 128), stages=2), monkeypatch)
    graph = product(136, 136, 200, computed, *turned)
    (kernel,) = lower(graph, TARGET).kernels
    assert f"the {computed} operand computed by the producer" in kernel.schedule.why
    check(graph, TOLERANCES["bfloat16"], replace(TARGET, multiprocessors=1))


@pytest.mark.parametrize("tile", [(64, 256), (128, 256)])
def test_tiles_whose_rows_come_in_parts(
    tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tile(replace(contraction_wgmma.WgmmaTile(*tile), stages=2), monkeypatch)
    check(product(72, 264, 72, "right"), TOLERANCES["bfloat16"])


def test_weights_in_float32_and_batches() -> None:
    """x @ w.to(bfloat16) for several x, each with a w of its own: autocast's products."""
    x, w = leaf(0, BF16, 3, 72, 80), leaf(1, dtypes.float32, 3, 80, 64)
    narrow = node("cast", w, dtype=BF16)
    graph = Graph((node("dot", x, narrow, left_batch=(0,), right_batch=(0,), left_contract=(2,),
                        right_contract=(1,)),))  # fmt: skip
    check(graph, TOLERANCES["bfloat16"])


def test_two_arrays_make_one_operand() -> None:
    """(x * gate + x) @ y, two loads for each element."""
    x, gate, y = leaf(0, BF16, 72, 64), leaf(1, BF16, 72, 64), leaf(2, BF16, 64, 72)
    left = node("add", node("mul", x, gate), x)
    graph = Graph((node("dot", left, y, left_batch=(), right_batch=(), left_contract=(1,),
                        right_contract=(0,)),))  # fmt: skip
    check(graph, TOLERANCES["bfloat16"])


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_wgmma.TILES], ids=str)
@pytest.mark.parametrize("computed", ["left", "right"])
def test_machine_code(
    tile: contraction_wgmma.WgmmaTile, computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No spills, products not serialised, registers traded; a fence before each arrival."""
    with_tile(tile, monkeypatch)
    turned = tile.n == 256
    graph = product(4096, 4096, 4096, computed, turned, turned)
    (text,) = compile_graph(graph, TARGET).objects.values()
    made = assembled(text.decode(), "sm_90a")
    assert "setmaxnreg" not in made.report
    giving, taking = contraction_wgmma.COMPUTING_REGISTERS
    assert giving <= made.registers <= taking and made.registers * tile.threads <= 1 << 16
    code = made.sass()
    for instruction in ("HGMMA", "UTMALDG", "USETMAXREG", "SYNCS"):
        assert instruction in code, instruction
    stored = re.search(
        r"st\.shared\.v4[^;]*;(?:(?!mbarrier).)*fence\.proxy\.async\.shared::cta;"
        r"(?:(?!st\.shared).)*mbarrier\.arrive\.shared::cta", text.decode(), re.DOTALL
    )
    assert stored


def test_registers_that_are_traded_are_those_that_there_are() -> None:
    for producer, consumer in (contraction_wgmma.COMPUTING_REGISTERS,
                               (contraction_wgmma.PRODUCER_REGISTERS,
                                contraction_wgmma.CONSUMER_REGISTERS)):  # fmt: skip
        assert producer + 2 * consumer == 3 * 168 and not producer % 8 and not consumer % 8
        assert 24 <= producer <= 168 <= consumer <= 256
