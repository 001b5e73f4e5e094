"""Updates taken in the order of their places (`ptx/scatter_ordered.py`): the CPU's bits."""

from __future__ import annotations

import numpy as np
import pytest

from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.loops.kernel import ScatterKernel, text
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.ptx import scatter_ordered
from tests.ptx.assembled import ARCHITECTURES, assembled
from tests.ptx.programs import TARGET, ReportedError, run_graph
from tests.ptx.support import in_turn
from tests.ptx.test_programs import leaf, scattered
from tests.ptx.test_scatter_private import draw


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is slow: what pays for thousands of positions is tried on some."""
    monkeypatch.setattr(scatter_ordered, "FEWEST_POSITIONS", 1)


def is_ordered(graph: Graph) -> bool:
    kernels = [launch.kernel for launch in lower(graph, TARGET).launches]
    return any(isinstance(each, ScatterKernel) and each.order is not None for each in kernels)


def sequential(base: np.ndarray, updates: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums in row-major order, each rounded to the dtype."""
    result = base.copy()
    for place, update in zip(index, updates, strict=True):
        result[place] = result[place] + update
    return result


@pytest.mark.parametrize("mode, name, shape", in_turn(
    ("add", "set", "mul", "max", "min"),
    ("float32", "bfloat16", "int8", "float64", "bool", "float16"),
    (((40,), 300), ((9, 5), 67), ((300,), 290), ((7, 2, 3), 41), ((1,), 50)),
))  # fmt: skip
def test_the_order_is_kept(any_size: None, mode: str, name: str, shape: tuple) -> None:
    base, count = shape
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(count)
    if dtype.kind == "bool" and mode == "mul":
        pytest.skip("not an op")
    graph = scattered(mode, dtype, base, count)
    assert is_ordered(graph)
    index = generator.integers(-base[0], base[0], count)
    values = [draw(generator, dtype, each) for each in (base, (count, *base[1:]))]
    (got,), (wanted,) = run_graph(graph, [*values, index]), interpret(graph, [*values, index])
    assert got.tobytes() == wanted.tobytes()
    if mode == "add" and name == "float32":
        assert got.tobytes() == sequential(*values, index).tobytes()


def test_several_indices_and_axes_of_positions(any_size: None) -> None:
    """base[i, :, j] += updates for i, j of shape (6, 11), some from the end."""
    base, updates = leaf(0, dtypes.float32, 5, 3, 4), leaf(1, dtypes.float32, 6, 11, 3)
    rows, columns = leaf(2, dtypes.int64, 6, 11), leaf(3, dtypes.int64, 6, 11)
    graph = Graph((node("scatter", base, updates, rows, columns, axes=(0, 2), mode="add"),))
    assert is_ordered(graph)
    generator = np.random.default_rng(5)
    inputs = [*(draw(generator, dtypes.float32, s) for s in ((5, 3, 4), (6, 11, 3))),
              generator.integers(-5, 5, (6, 11)), generator.integers(-4, 4, (6, 11))]
    (got,), (wanted,) = run_graph(graph, inputs), interpret(graph, inputs)
    assert got.tobytes() == wanted.tobytes()


def test_an_index_that_is_computed(any_size: None) -> None:
    """It is pulled into both kernels that need it."""
    base, updates, raw = (leaf(0, dtypes.float32, 30), leaf(1, dtypes.float32, 200),
                          leaf(2, dtypes.int64, 200))  # fmt: skip
    index = node("add", raw, raw)
    graph = Graph((node("scatter", base, node("exp", updates), index, axes=(0,), mode="add"),))
    assert is_ordered(graph)
    generator = np.random.default_rng(6)
    inputs = [draw(generator, dtypes.float32, (30,)), draw(generator, dtypes.float32, (200,)),
              generator.integers(-15, 15, 200)]
    (got,), (wanted,) = run_graph(graph, inputs), interpret(graph, inputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("wrong", [30, -31, 2**40])
def test_an_index_out_of_range_is_reported(any_size: None, wrong: int) -> None:
    graph = scattered("add", dtypes.float32, (30,), 100)
    index = np.arange(100) % 30
    index[57] = wrong
    inputs = [np.zeros(30, np.float32), np.ones(100, np.float32), index]
    with pytest.raises(ReportedError) as raised:
        run_graph(graph, inputs)
    assert raised.value.args[:3] == (wrong, 30, 0)


def test_values_that_are_no_numbers(any_size: None) -> None:
    graph = scattered("max", dtypes.float32, (6,), 100)
    updates = np.full(100, -0.0, np.float32)
    updates[[7, 40, 41]] = np.nan, np.inf, -np.inf
    inputs = [np.zeros(6, np.float32), updates, np.arange(100) % 6]
    (got,), (wanted,) = run_graph(graph, inputs), interpret(graph, inputs)
    assert got.tobytes() == wanted.tobytes()


def test_which_scatters_are_ordered() -> None:
    many = scatter_ordered.FEWEST_POSITIONS
    assert is_ordered(scattered("add", dtypes.float32, (50_000,), many))
    assert is_ordered(scattered("add", dtypes.bfloat16, (50_257, 768), many))
    assert not is_ordered(scattered("add", dtypes.float32, (50_000,), many - 1))
    assert not is_ordered(scattered("add", dtypes.int64, (50_000,), many))  # atomics
    assert not is_ordered(scattered("add", dtypes.float32, (64,), many))  # copies of the target
    launches = lower(scattered("add", dtypes.float32, (50_000,), many), TARGET).launches
    assert "positions in the order of b3, by place in b4:" in text(launches[-1].kernel)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_machine_code(arch: str, name: str) -> None:
    graph = scattered("add", dtypes.dtype_named(name), (50_257, 768), 1 << 14)
    for ptx in compile_graph(graph, cuda_target(arch)).objects.values():
        assembled(ptx.decode(), arch)
