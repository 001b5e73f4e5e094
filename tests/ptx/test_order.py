"""Sorting, searching, scans and compaction on a GPU, by every way through them."""

from __future__ import annotations

import numpy as np
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference_scan import SCAN_COMBINES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.ptx import scan, sort
from tests.ptx.programs import TARGET, run_graph
from tests.ptx.support import in_turn
from tests.ptx.test_programs import special

ORDERED = [name for name, dtype in dtypes.DTYPES.items() if not dtype.is_complex]


def leaf(index: int, dtype: dtypes.DType, *shape: int) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def same(graph: Graph, inputs: list[np.ndarray]) -> None:
    for got, wanted in zip(run_graph(graph, inputs), interpret(graph, inputs), strict=True):
        if got.dtype.kind == "V" or got.dtype.itemsize == 2:  # NumPy's bfloat16 knows no equal NaN
            got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("shape, tile", [((3, 1), 2048), ((5, 77), 2048), ((2, 300), 64),
                                         ((1, 129), 32)])  # fmt: skip
@pytest.mark.parametrize("descending", [False, True])
def test_order_and_values(name, shape, tile, descending, monkeypatch):
    """In one tile, in tiles that are merged."""
    monkeypatch.setattr(sort, "TILE", tile)
    dtype = dtypes.dtype_named(name)
    x = leaf(0, dtype, *shape)
    order = node("argsort", x, descending=descending)
    values = special(np.random.default_rng(3), dtype, shape)
    same(Graph((order, node("sort_values", x, order))), [values])


@pytest.mark.parametrize("name", ["float32", "int64", "bfloat16"])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("tile", [2048, 32])
def test_some_of_an_order(name, largest, tile, monkeypatch):
    monkeypatch.setattr(sort, "TILE", tile)
    dtype = dtypes.dtype_named(name)
    x, ranks = leaf(0, dtype, 4, 90), leaf(1, dtypes.int64, 4, 3)
    values = special(np.random.default_rng(5), dtype, (4, 90))
    wanted = np.random.default_rng(6).integers(-5, 99, (4, 3))
    same(Graph((node("top_k", x, k=7, largest=largest), node("select_rank", x, ranks))),
         [values, wanted])


@pytest.mark.parametrize("name, case", in_turn(
    ("float32", "float64", "int64", "uint64", "float16", "int8"),
    (((2, 70), 16), ((900,), 1), ((1, 33), 15), ((3, 217), 9), ((2, 70), 17)),
))  # fmt: skip
def test_the_best_of_tiles(name, case, monkeypatch):
    """Ties, and tiles with fewer elements than are wanted; the last case takes more than half a
    tile, so a whole order.
    """
    shape, k = case
    monkeypatch.setattr(sort, "TILE", 32)
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(k)
    for largest in (False, True):
        graph = Graph((node("top_k", leaf(0, dtype, *shape), k=k, largest=largest),))
        steps = [launch.kernel.step for launch in lower(graph, TARGET).launches]
        assert all(step.startswith("best") for step in steps) == (k <= 16)
        same(graph, [special(generator, dtype, shape)])
        ends = np.full(shape, dtype.limits()[not largest]).astype(dtype.numpy)
        same(graph, [ends])


@pytest.mark.parametrize("name", ["float64", "uint8", "float16"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", [(), (3,)])
def test_search(name, side, rows):
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(8)
    lines = np.sort(special(generator, dtype, (*rows, 50)), axis=-1)
    graph = Graph((node("searchsorted", leaf(0, dtype, *rows, 50), leaf(1, dtype, *rows, 31),
                        side=side),))  # fmt: skip
    same(graph, [lines, special(generator, dtype, (*rows, 31))])


def close(graph: Graph, inputs: list[np.ndarray]) -> None:
    for got, wanted in zip(run_graph(graph, inputs), interpret(graph, inputs), strict=True):
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(got, wanted, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("combine", SCAN_COMBINES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_running_totals(combine, reverse, cut, monkeypatch):
    """Along lines and across them, whole lines and in chunks."""
    if cut:
        monkeypatch.setattr(scan, "CHUNK", 64)
        monkeypatch.setattr(scan, "CHUNK_ACROSS", 16)
    for name in ("float32", "int64", "bfloat16") if combine == "add" else ("float32",):
        dtype = dtypes.dtype_named(name)
        for shape, axis in (((3, 1100), 1), ((2, 70, 3), 1), ((90, 40), 0), ((1, 1), 0)):
            x = leaf(0, dtype, *shape)
            values = np.random.default_rng(axis).uniform(0.95, 1.05, shape)
            if dtype.is_integer:
                values = np.random.default_rng(axis).integers(-3, 4, shape)
            made = node("scan", x, axis=axis, combine=combine, reverse=reverse)
            close(Graph((made,)), [values.astype(dtype.numpy)])


@pytest.mark.parametrize("size", [1, 255, 256, 5000, scan.COMPACT_CHUNK + 1])
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_positions_of_a_mask(size, share):
    mask = np.random.default_rng(size).random(size) < share
    count = int(mask.sum())
    if count:
        x = leaf(0, dtypes.bool_, size)
        same(Graph((node("compact", x, count=count),)), [mask])
        # a count that is too small writes nothing beyond the result
        same(Graph((node("compact", x, count=(count + 1) // 2),)), [mask])
