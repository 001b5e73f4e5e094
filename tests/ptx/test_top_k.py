"""`top_k` of long rows on a GPU (`ptx/top_k.py`): the stable sort's first k, whichever way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import select, sort, top_k
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET
from tests.ptx.support import in_turn, some
from tests.ptx.test_order import ORDERED, leaf, same
from tests.ptx.test_programs import special

TILE = 16
CASES = (((300,), 1), ((2, 120), 11), ((1, 3, 97), 16), ((200,), 55))
"""Shape and k."""


def first(dtype: dtypes.DType, shape: tuple[int, ...], k: int, largest: bool) -> Graph:
    return Graph((node("top_k", leaf(0, dtype, *shape), k=k, largest=largest),))


def steps(graph: Graph) -> list[str]:
    return [launch.kernel.step.split()[0] for launch in lower(graph, TARGET).launches]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of some hundred elements are long ones, of several chunks, where launches cost nothing.
    """
    monkeypatch.setattr(sort, "TILE", TILE)
    monkeypatch.setattr(select, "CHUNK", 90)
    monkeypatch.setattr(top_k, "LAUNCH", 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name, largest, case", some(
    itertools.product(ORDERED, (False, True), range(len(CASES))),
    lambda name, largest, case: 2 * case + largest == ORDERED.index(name) % (2 * len(CASES)),
))  # fmt: skip
def test_the_first_k(name: str, largest: bool, case: int) -> None:
    """Several chunks of a row, the last one short; NaN, infinities, zeros of both signs; ties that
    are cut anywhere, among them rows of one value.
    """
    (shape, k), dtype = CASES[case], dtypes.dtype_named(name)
    generator = np.random.default_rng(len(name))
    graph = first(dtype, shape, k, largest)
    assert steps(graph)[0] == "digits" and "gather" in steps(graph)
    same(graph, [special(generator, dtype, shape)])
    same(graph, [generator.integers(0, 2, shape).astype(dtype.numpy)])
    same(graph, [np.ones(shape, dtype.numpy)])


@pytest.mark.usefixtures("small")
def test_every_k_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item, a tile, one more, several merges, all; ties that are cut anywhere."""
    monkeypatch.setattr(top_k, "method_of", lambda *_: "gather")
    values = np.random.default_rng(5).integers(0, 9, (2, 100)).astype(np.float32)
    for k in (1, 16, 17, 65, 100):
        graph = first(dtypes.float32, (2, 100), k, True)
        assert ("merge" in steps(graph)) is (k > TILE)
        same(graph, [values])


@pytest.mark.parametrize("shape, k, method", [
    ((50_000,), 50, "best"),  # some launches more would take longer than 25 tiles
    ((1 << 22,), 50, "gather"),
    ((1 << 22,), 2_000, "gather"),
    ((1 << 22,), 1 << 16, "gather"),
    ((1 << 22,), 4_000_000, "order"),
    ((4096,), 1_500, "order"),
    ((64, 50_000), 1_500, "gather"),
])  # fmt: skip
def test_which_way_is_taken(shape: tuple[int, ...], k: int, method: str) -> None:
    graph = first(dtypes.float32, shape, k, True)
    assert top_k.method_of(graph.outputs[0].inputs[0], k, sort.TILE) == method
    found = steps(graph)
    assert ("gather" in found) is (method == "gather")
    assert ("pick" in found) is (method == "order")


@pytest.mark.parametrize("name, arch", in_turn(("float32", "float64", "bfloat16"), ARCHITECTURES))
def test_machine_code(name: str, arch: str) -> None:
    graph = first(dtypes.dtype_named(name), (2, 1 << 21), 5_000, True)
    assert "gather" in steps(graph)
    for text in compile_graph(graph, cuda_target(arch)).objects.values():
        assembled(text.decode(), arch)
