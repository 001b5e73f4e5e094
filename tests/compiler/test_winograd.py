"""Winograd's convolution: its parts against NumPy, the whole against a direct sum in float64."""

from __future__ import annotations

import random

import numpy
import pytest

from lazygrad_compiler.fusion import winograd as rewrite
from lazygrad_compiler.fusion.winograd import with_winograd
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, IRError, Node, node, topological
from tests.compiler.test_compiled import run_compiled, with_gradients

TOLERANCE = 1e-5
"""Of the root mean square of the results, for their errors' (measured: 1.2e-6 to 3e-6)."""


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def normal(value: Node, seed: int = 0) -> numpy.ndarray:
    made = numpy.random.default_rng(seed).standard_normal(value.shape)
    return made.astype(value.dtype.numpy)


def conv(x: Node, w: Node, padding: int = 1, stride: int = 1, dilation: int = 1) -> Node:
    return node("conv", x, w, strides=(stride,) * 2, padding=((padding,) * 2,) * 2,
                left_dilation=(1, 1), right_dilation=(dilation,) * 2, groups=1)


def parts_in(*outputs: Node) -> list[str]:
    return sorted(n.attrs[0] for n in topological(outputs) if n.op == "winograd")


PARTS = [
    ("windows", (2, 16, 12, 12), (1, 1, 3, 3, 19)),
    ("windows", (1, 32, 8, 8), (1, 1, 2, 2, 5)),
    ("windows", (3, 16, 4, 4), (1, 1, 1, 1, 3)),
    ("windows", (2, 16, 7, 30), (2, 0, 2, 7, 28)),
    ("windows", (1, 48, 57, 61), (1, 2, 15, 16, 241)),
    ("windows", (1, 16, 2, 1), (0, 1, 1, 1, 4)),
    ("tiles", (2, 16, 12, 12), (0, 0, 3, 3, 19)),
    ("tiles", (2, 32, 5, 33), (0, 0, 2, 9, 37)),
    ("tiles", (1, 16, 8, 4), (0, 0, 2, 1, 2)),
    ("weights", (32, 20, 3, 3), (0,)),
    ("weights", (5, 48, 3, 3), (1,)),
    ("image", (36, 19, 16), (2, 12, 12)),
    ("image", (36, 8, 48), (2, 8, 8)),
    ("image", (36, 5, 16), (5, 4, 4)),
    ("image", (36, 40, 32), (2, 13, 19)),
    ("image", (36, 256, 16), (1, 62, 61)),
    ("taps", (36, 7, 32), ()),
]


@pytest.mark.parametrize("part, shape, geometry", PARTS)
def test_a_part_equals_numpy(part, shape, geometry):
    made = node("winograd", leaf(0, *shape), part=part, geometry=geometry)
    arrays = [normal(made.inputs[0])]
    (wanted,), (got,) = (run(Graph((made,)), arrays) for run in (interpret, run_compiled))
    numpy.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-4)
    if part in ("windows", "tiles"):
        tiles = shape[0] * geometry[2] * geometry[3]
        assert not got[:, tiles:].any(), "rows beyond the tiles are zeros"


def test_parts_that_do_not_fit_are_refused():
    for part, shape, geometry in [
        ("windows", (1, 16, 9, 4), (1, 1, 1, 1, 1)), ("windows", (1, 16, 4, 4), (1, 1, 1, 1, 0)),
        ("image", (35, 4, 16), (1, 8, 8)), ("image", (36, 3, 16), (1, 8, 8)),
        ("weights", (4, 4, 3, 2), (0,)), ("taps", (9, 4, 16), ()), ("tile", (1, 1, 1, 1), ()),
    ]:  # fmt: skip
        with pytest.raises(IRError, match="winograd"):
            node("winograd", leaf(0, *shape), part=part, geometry=geometry)
    with pytest.raises(IRError, match="float64"):
        node("winograd", leaf(0, 36, 2, 16, dtype="float64"), part="taps", geometry=())


@pytest.mark.parametrize("seed", range(6))
def test_whole_convolutions_and_their_gradients(seed, monkeypatch):
    """Errors stay within the tolerance; and the bits do not depend on the threads."""
    draw = random.Random(seed)
    monkeypatch.setattr(rewrite, "gains", lambda *sizes, **_: sizes[1] % 16 == sizes[2] % 16 == 0)
    padding = draw.choice([0, 1, 1, 2])
    side = [draw.choice([4, 8, 9, 13, 16, 22]) for _ in range(2)]
    x = leaf(0, draw.choice([1, 2, 3]), draw.choice([16, 32, 48]), *side)
    w = leaf(1, draw.choice([16, 32, 64]), x.shape[1], 3, 3)
    made = conv(x, w, padding)
    graph = with_gradients(Graph((node("mul", made, made),)))
    assert graph is not None
    arrays = [normal(x, seed), normal(w, seed + 100)]
    narrow = with_winograd(graph)
    assert parts_in(*narrow.outputs).count("windows") >= 2
    wide = [leaf(k, *value.shape, dtype="float64") for k, value in enumerate((x, w))]
    exact = conv(*wide, padding)
    double = with_gradients(Graph((node("mul", exact, exact),)))
    assert double is not None
    wanted = interpret(double, [array.astype("float64") for array in arrays])
    first = run_compiled(graph, arrays)
    for got, right in zip(first, wanted, strict=True):
        error = numpy.sqrt(numpy.mean((got - right) ** 2))
        assert error <= TOLERANCE * numpy.sqrt(numpy.mean(right**2))
    again = run_compiled(graph, arrays)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_only_what_gains_is_rewritten():
    x, w = leaf(0, 8, 64, 32, 32), leaf(1, 64, 64, 3, 3)
    assert parts_in(*with_winograd(Graph((conv(x, w),))).outputs) == ["image", "weights", "windows"]
    for other in (
        conv(x, w, stride=2), conv(x, w, dilation=2), conv(x, leaf(1, 64, 64, 5, 5), 2),
        conv(leaf(0, 8, 60, 32, 32), leaf(1, 64, 60, 3, 3)), conv(leaf(0, 1, 64, 2, 2), w),
        conv(leaf(0, 8, 64, 32, 32, dtype="float64"), leaf(1, 64, 64, 3, 3, dtype="float64")),
        conv(leaf(0, 8, 16, 32, 32), leaf(1, 16, 16, 3, 3)),
    ):  # fmt: skip
        assert not parts_in(*with_winograd(Graph((other,))).outputs)


def test_weights_of_an_input_gradient_are_read_as_they_lie():
    x, w = leaf(0, 8, 64, 32, 32), leaf(1, 64, 64, 3, 3)
    made = conv(x, w)
    graph = with_gradients(Graph((node("mul", made, made),)))
    assert graph is not None
    rewritten = with_winograd(graph)
    nodes = list(topological(rewritten.outputs))
    assert not [n for n in nodes if n.op in ("flip", "conv")]
    assert [n.attrs[1] for n in nodes if n.op == "winograd" and n.attrs[0] == "weights"] == [
        (0,), (1,),
    ]  # fmt: skip
