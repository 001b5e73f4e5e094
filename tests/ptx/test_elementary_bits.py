"""Elementwise ops give the CPU's very bits."""

from __future__ import annotations

import numpy as np
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY
from tests.compiler.test_compiled import run_compiled
from tests.ptx.programs import run_graph

BINARY = ("pow", "atan2", "rem", "nextafter", "copysign", "maximum", "div")
FLOATS = ("float32", "float64", "float16", "bfloat16")


def samples(name: str, seed: int) -> np.ndarray:
    """Of every size, with the special ones."""
    dtype = dtypes.dtype_named(name)
    generator = np.random.default_rng(seed)
    spread = 4 if dtype.bits == 16 else 30
    values = generator.standard_normal(700) * 10.0 ** generator.uniform(-spread, spread / 4, 700)
    given = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e-40, 88.0, -104.0, 700.0]
    with np.errstate(over="ignore"):
        return np.concatenate([values, given]).astype(dtype.numpy)


def same_bits(graph: Graph, inputs: list[np.ndarray]) -> None:
    for ours, cpu in zip(run_graph(graph, inputs), run_compiled(graph, inputs), strict=True):
        unsigned = f"u{ours.dtype.itemsize}"
        nan = np.isnan(ours.astype(np.float64))
        np.testing.assert_array_equal(nan, np.isnan(cpu.astype(np.float64)))
        np.testing.assert_array_equal(ours.view(unsigned)[~nan], cpu.view(unsigned)[~nan])


def leaf(index: int, name: str, size: int) -> Node:
    return node("input", index=index, dtype=dtypes.dtype_named(name), shape=(size,))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("op", [*ELEMENTARY_UNARY, "sqrt", "floor", "round", "sign", "abs"])
def test_functions_of_one_number(op, name):
    values = samples(name, 1)
    same_bits(Graph((node(op, leaf(0, name, values.size)),)), [values])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("op", BINARY)
def test_functions_of_two_numbers(op, name):
    x, y = samples(name, 2), samples(name, 3)[::-1].copy()
    graph = Graph((node(op, leaf(0, name, x.size), leaf(1, name, y.size)),))
    same_bits(graph, [x, y])


def test_random_words():
    bits = node("random_bits", leaf(0, "int64", 2), shape=(1003,))
    given = [np.array([1234567890123, 77])]
    (ours,), (cpu,) = run_graph(Graph((bits,)), given), run_compiled(Graph((bits,)), given)
    np.testing.assert_array_equal(ours, cpu)
