"""Radix selection on a GPU (`ptx/select.py`): the sort's answers, ties by position."""

from __future__ import annotations

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import select, sort
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET
from tests.ptx.support import in_turn
from tests.ptx.test_order import ORDERED, leaf, same
from tests.ptx.test_programs import special


def selected(dtype: dtypes.DType, *shape: int, ranks: int = 2) -> Graph:
    chosen = leaf(1, dtypes.int64, *shape[:-1], ranks)
    return Graph((node("select_rank", leaf(0, dtype, *shape), chosen),))


def steps(graph: Graph) -> list[str]:
    return [launch.kernel.step.split()[0] for launch in lower(graph, TARGET).launches]


@pytest.mark.parametrize("name, shape", [
    (name, ((700,), (2, 300), (1, 3, 97))[number % 3]) for number, name in enumerate(ORDERED)
])  # fmt: skip
def test_ranks(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of a row, the last one short; NaN, infinities, zeros of both signs, ties, and
    ranks out of range.
    """
    monkeypatch.setattr(sort, "TILE", 64)
    monkeypatch.setattr(select, "CHUNK", 90)
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(len(name))
    graph = selected(dtype, *shape, ranks=3)
    assert steps(graph)[0] == "digits" and steps(graph)[-1] == "find"
    ranks = generator.integers(-3, shape[-1] + 3, (*shape[:-1], 3))
    same(graph, [special(generator, dtype, shape), ranks])
    same(graph, [generator.integers(0, 2, shape).astype(dtype.numpy), ranks])


@pytest.mark.parametrize("name", ["float32", "int64"])
def test_every_rank_of_a_row_is_its_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "TILE", 16)
    monkeypatch.setattr(select, "CHUNK", 20)
    monkeypatch.setattr(select, "MOST_RANKS", 70)
    dtype = dtypes.dtype_named(name)
    values = np.random.default_rng(2).integers(-300, 300, (1, 70)).astype(dtype.numpy)
    same(selected(dtype, 1, 70, ranks=70), [values, np.arange(70)[None]])


def test_a_row_has_no_more_chunks_than_a_block_has_threads() -> None:
    for length in (1, 8192, 8193, 1 << 21, (1 << 21) + 1, 2**31 - 1):
        assert -(-length // select.chunk_of(length)) <= select.THREADS


def test_short_rows_and_many_ranks_are_sorted() -> None:
    float32 = dtypes.float32
    assert "digits" in steps(selected(float32, 2, sort.TILE + 1))
    assert "digits" not in steps(selected(float32, 2, sort.TILE))
    assert "digits" not in steps(selected(float32, 2, 9000, ranks=select.MOST_RANKS + 1))


@pytest.mark.parametrize("name, arch", in_turn(("float32", "float64", "bfloat16"), ARCHITECTURES))
def test_machine_code(name: str, arch: str) -> None:
    graph = selected(dtypes.dtype_named(name), 8, 1 << 20)
    for text in compile_graph(graph, cuda_target(arch)).objects.values():
        assembled(text.decode(), arch)
