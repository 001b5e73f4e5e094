"""Operands of `wgmma` that are computed by the producer (`ptx/computed_operand.py`)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import contraction_wgmma
from lazygrad_compiler.ptx.warpgroup import GROUP
from tests.ptx.assembled import assembled
from tests.ptx.programs import TARGET
from tests.ptx.test_contraction import TOLERANCES, leaf
from tests.ptx.test_wgmma import check, with_tile

BF16 = dtypes.bfloat16


def product(m: int, n: int, k: int, computed: str, left_turned: bool = False,
            right_turned: bool = False, op: str = "abs") -> Graph:
    """op of one operand, times the other; or of both."""
    x = leaf(0, BF16, *((k, m) if left_turned else (m, k)))
    y = leaf(1, BF16, *((n, k) if right_turned else (k, n)))
    left: Node = x if computed == "right" else node(op, x)
    right: Node = y if computed == "left" else node(op, y)
    return Graph((node("dot", left, right, left_batch=(), right_batch=(),
                       left_contract=(0 if left_turned else 1,),
                       right_contract=(1 if right_turned else 0,)),))  # fmt: skip


OPERANDS = {"left": "the left operand", "right": "the right operand", "both": "both operands"}


@pytest.mark.parametrize("computed", OPERANDS)
@pytest.mark.parametrize("turned", [(False, False), (True, True), (True, False), (False, True)])
def test_either_operand_lying_either_way(
    computed: str, turned: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the edges of all axes, several tiles for one block, more slices than buffers."""
    with_tile(replace(contraction_wgmma.WgmmaTile(128, 128), stages=2), monkeypatch)
    graph = product(136, 136, 200, computed, *turned)
    (kernel,) = lower(graph, TARGET).kernels
    assert kernel.schedule.why == f"bfloat16, {OPERANDS[computed]} computed by the producer"
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


def test_casts_of_both_and_a_mask() -> None:
    """Weights and activations in float32, some of which are dropped."""
    x, w = leaf(0, dtypes.float32, 72, 80), leaf(1, dtypes.float32, 80, 64)
    kept = leaf(2, dtypes.bool_, 72, 80)
    dropped = node("where", kept, x, node("const", value=0.0, dtype=x.dtype, shape=x.shape))
    left, right = (node("cast", value, dtype=BF16) for value in (dropped, w))
    graph = Graph((node("dot", left, right, left_batch=(), right_batch=(), left_contract=(1,),
                        right_contract=(0,)),))  # fmt: skip
    (kernel,) = lower(graph, TARGET).kernels
    assert kernel.schedule.why == "bfloat16, both operands computed by the producer"
    check(graph, TOLERANCES["bfloat16"])


@pytest.mark.parametrize("strides, padding", [
    ((1, 1), ((1, 1), (1, 1))), ((2, 2), ((1, 0), (2, 1))), ((1, 1), ((0, 0), (1, 1))),
])  # fmt: skip
def test_windows_of_a_convolution(
    strides: tuple[int, int], padding: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements one by one, some of them padding, in several parts of a tile."""
    with_tile(replace(contraction_wgmma.WgmmaTile(64, 128), stages=2), monkeypatch)
    rows, columns = (8 * stride - sum(pad) + 2 for stride, pad in zip(strides, padding))
    x, w = leaf(0, BF16, 2, 8, rows + (strides[0] == 1), columns), leaf(1, BF16, 64, 8, 3, 3)
    graph = Graph((node(
        "conv", x, w, strides=strides, padding=padding, left_dilation=(1, 1),
        right_dilation=(1, 1), groups=1,
    ),))  # fmt: skip
    (kernel,) = lower(graph, TARGET).kernels
    assert kernel.schedule.why == ("bfloat16, the right operand computed by the producer, the "
                                   "right one element by element")
    check(graph, TOLERANCES["bfloat16"])


def test_steps_along_an_operand() -> None:
    """Each second column of one, the other one backwards: no vector lies in memory."""
    x, y = leaf(0, BF16, 72, 160), leaf(1, BF16, 80, 72)
    left = node("slice", x, starts=(0, 0), stops=(72, 160), steps=(1, 2))
    graph = Graph((node("dot", left, node("flip", y, axes=(0, 1)), left_batch=(), right_batch=(),
                        left_contract=(1,), right_contract=(0,)),))  # fmt: skip
    (kernel,) = lower(graph, TARGET).kernels
    assert kernel.schedule.why.endswith("the left and the right one element by element")
    check(graph, TOLERANCES["bfloat16"])


def test_two_arrays_make_one_operand() -> None:
    """(x * gate + x) @ y, two loads for each element."""
    x, gate, y = leaf(0, BF16, 72, 64), leaf(1, BF16, 72, 64), leaf(2, BF16, 64, 72)
    left = node("add", node("mul", x, gate), x)
    graph = Graph((node("dot", left, y, left_batch=(), right_batch=(), left_contract=(1,),
                        right_contract=(0,)),))  # fmt: skip
    check(graph, TOLERANCES["bfloat16"])


@pytest.mark.parametrize("tile", [tile for tile, _ in contraction_wgmma.TILES], ids=str)
@pytest.mark.parametrize("computed", OPERANDS)
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
    giving, taking = contraction_wgmma.COMPUTING_REGISTERS[tile.consumers]
    assert giving <= made.registers <= taking and made.registers * tile.threads <= 1 << 16
    code = made.sass()
    for instruction in ("HGMMA", "USETMAXREG", "SYNCS"):
        assert instruction in code, instruction
    assert ("UTMALDG" in code) is (computed != "both")
    stored = re.search(
        r"st\.shared\.v4[^;]*;(?:(?!mbarrier).)*fence\.proxy\.async\.shared::cta;"
        r"(?:(?!st\.shared).)*mbarrier\.arrive\.shared::cta", text.decode(), re.DOTALL
    )
    assert stored


@pytest.mark.parametrize("tile", [
    pytest.param(tile, marks=() if tile.n == 256 else pytest.mark.slow)
    for tile, _ in contraction_wgmma.TILES
], ids=str)
def test_machine_code_of_windows(
    tile: contraction_wgmma.WgmmaTile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loads of single elements, many of them under way, within the producer's registers."""
    with_tile(tile, monkeypatch)
    x, w = leaf(0, BF16, 64, 256, 56, 56), leaf(1, BF16, 256, 256, 3, 3)
    graph = Graph((node(
        "conv", x, w, strides=(1, 1), padding=((1, 1), (1, 1)), left_dilation=(1, 1),
        right_dilation=(1, 1), groups=1,
    ),))  # fmt: skip
    (text,) = compile_graph(graph, TARGET).objects.values()
    made = assembled(text.decode(), "sm_90a")
    assert "setmaxnreg" not in made.report and "HGMMA" in made.sass()


def test_registers_that_are_traded_are_those_that_there_are() -> None:
    copying = contraction_wgmma.PRODUCER_REGISTERS, contraction_wgmma.CONSUMER_REGISTERS
    for consumers, (producer, consumer) in (
        (2, copying), *contraction_wgmma.COMPUTING_REGISTERS.items()
    ):
        assert GROUP * (producer + consumers * consumer) <= 1 << 16
        assert not producer % 8 and not consumer % 8 and 24 <= producer <= 168 <= consumer <= 256
