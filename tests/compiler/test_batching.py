"""Batching rules: a batched graph is the graph on each item, for every op and which inputs vary."""

from __future__ import annotations

import itertools

import numpy
import pytest

from lazygrad_compiler.batching.batch import RULES, batch
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import IRError, Node, node
from lazygrad_compiler.ir.ops import OPS
from tests.compiler.random_graphs import random_graph

SIZE = 3
random = numpy.random.default_rng(0)


def given(number: int, *shape: int, dtype=dtypes.float64) -> Node:
    return node("input", index=number, dtype=dtype, shape=shape)


def indices(number: int, *shape: int) -> Node:
    return given(number, *shape, dtype=dtypes.int64)


x, y, z = given(0, 2, 3, 4), given(1, 2, 3, 4), given(2, 2, 3, 4)
mask = given(3, 2, 3, 4, dtype=dtypes.bool_)
i, j = indices(4, 5), indices(5, 5)
image, kernel = given(6, 2, 4, 5, 5), given(7, 6, 2, 3, 3)
square = given(8, 2, 3, 3)

CASES: dict[str, Node] = {
    "add": node("add", x, y),
    "where": node("where", mask, x, y),
    "cast": node("cast", x, dtype=dtypes.float32),
    "stop_gradient": node("stop_gradient", x),
    "reshape": node("reshape", x, shape=(6, 4)),
    "expand": node("expand", node("reshape", x, shape=(1, 24)), shape=(5, 24)),
    "permute": node("permute", x, order=(2, 0, 1)),
    "slice": node("slice", x, starts=(0, 1, 0), stops=(2, 3, 4), steps=(1, 1, 2)),
    "pad": node("pad", x, low=(0, 1, 0), high=(1, 0, 0), interior=(0, 0, 1), value=2.0),
    "flip": node("flip", x, axes=(0, 2)),
    "concat": node("concat", x, y, axis=1),
    "window": node("window", x, axes=(2,), sizes=(2,), strides=(2,), dilations=(1,)),
    "sum": node("sum", x, axes=(0, 2)),
    "argmax": node("argmax", x, axes=(1,)),
    "scan": node("scan", x, axis=1, combine="add", reverse=True),
    "dot": node("dot", x, y, left_batch=(0,), right_batch=(0,), left_contract=(2,),
                right_contract=(2,)),
    "dot without a batch": node("dot", x, y, left_batch=(), right_batch=(), left_contract=(1, 2),
                                right_contract=(1, 2)),
    "dot with the batch inside": node("dot", x, y, left_batch=(2, 1), right_batch=(2, 1),
                                      left_contract=(), right_contract=()),
    "conv": node("conv", image, kernel, strides=(2, 1), padding=((1, 0), (0, 2)),
                 left_dilation=(1, 2), right_dilation=(1, 1), groups=2),
    "gather": node("gather", x, i, axes=(1,)),
    "gather of two": node("gather", x, i, j, axes=(0, 2)),
    "scatter": node("scatter", x, node("gather", y, i, axes=(1,)), i, axes=(1,), mode="add"),
    "argsort": node("argsort", x, descending=True),
    "sort_values": node("sort_values", x, node("argsort", x, descending=False)),
    "top_k": node("top_k", x, k=2, largest=True),
    "searchsorted": node("searchsorted", node("sort_values", x, node("argsort", x,
                                              descending=False)), y, side="left"),
    "searchsorted in one row": node(
        "searchsorted", node("slice", given(9, 4), starts=(0,), stops=(4,), steps=(1,)), y,
        side="right"),
    "library": node("library", square, call="linalg.inv", options=(), part=0),
    "fft": node("library", x, call="fft.r2c", options=((1,), "none"), part=0),
}
LEAVES = [x, y, z, mask, i, j, image, kernel, square, given(9, 4)]


def values(leaf: Node, *batch_axis: int) -> numpy.ndarray:
    shape = (*batch_axis, *leaf.shape)
    if leaf.dtype is dtypes.bool_:
        return random.random(shape) < 0.5
    if leaf.dtype is dtypes.int64:
        return random.integers(0, 2, shape)
    made = random.standard_normal(shape)
    return numpy.sort(made, axis=-1) if leaf.attrs[0] == 9 else made


def check(outputs: list[Node], leaves: list[Node], varying: set[Node]) -> None:
    stacked = {leaf: given(100 + k, SIZE, *leaf.shape, dtype=leaf.dtype)
               for k, leaf in enumerate(leaves) if leaf in varying}
    data = {leaf: values(leaf, SIZE) if leaf in varying else values(leaf) for leaf in leaves}
    made = batch(outputs, stacked, SIZE)
    together = evaluate([output for output, _ in made],
                        {stacked.get(leaf, leaf): array for leaf, array in data.items()})
    for item in range(SIZE):
        alone = evaluate(outputs, {leaf: array[item] if leaf in varying else array
                                   for leaf, array in data.items()})
        for (output, flag), whole, expected in zip(made, together, alone, strict=True):
            got = whole[item] if flag else whole
            assert output.shape == ((SIZE,) if flag else ()) + expected.shape
            numpy.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_each_op_for_every_choice_of_what_varies(name: str) -> None:
    output = CASES[name]
    used = [leaf for leaf in LEAVES if leaf in _below(output)]
    for count in range(1, len(used) + 1):
        for varying in itertools.combinations(used, count):
            check([output], used, set(varying))


def _below(output: Node) -> set[Node]:
    from lazygrad_compiler.ir.node import topological
    return set(topological([output]))


def test_what_no_item_reaches_stays() -> None:
    untouched = node("exp", y)
    (made, flag), = batch([untouched], {x: given(100, SIZE, 2, 3, 4)}, SIZE)
    assert made is untouched and not flag


def test_every_op_has_a_rule_or_cannot_depend_on_an_item() -> None:
    leaves = {name for name, entry in OPS.items() if entry.kind in ("leaf", "composite")}
    assert set(OPS) - leaves - set(RULES) == {"compact", "winograd", "again"}


def test_an_op_without_a_rule_is_refused() -> None:
    flags = given(0, 5, dtype=dtypes.bool_)
    with pytest.raises(IRError, match=r"\[compact\] cannot be batched"):
        batch([node("compact", flags, count=2)], {flags: given(1, 2, 5, dtype=dtypes.bool_)}, 2)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int) -> None:
    graph, inputs = random_graph(seed, size=20)
    leaves = graph.inputs()
    chooser = numpy.random.default_rng(seed)
    varying = [leaf for leaf in leaves if chooser.random() < 0.6] or leaves[:1]
    stacked = {leaf: given(100 + k, SIZE, *leaf.shape, dtype=leaf.dtype)
               for k, leaf in enumerate(varying)}
    arrays = dict(zip(leaves, inputs, strict=True))
    data = {leaf: numpy.stack([arrays[leaf]] * SIZE) for leaf in varying}
    known = {stacked.get(leaf, leaf): data.get(leaf, arrays[leaf]) for leaf in leaves}
    made = batch(graph.outputs, stacked, SIZE)
    together = evaluate([output for output, _ in made], known)
    alone = evaluate(graph.outputs, arrays)
    for (_, flag), whole, expected in zip(made, together, alone, strict=True):
        for item in range(SIZE if flag else 1):
            numpy.testing.assert_allclose(
                numpy.asarray(whole[item] if flag else whole, "complex128"),
                numpy.asarray(expected, "complex128"), rtol=1e-4, atol=1e-5)
