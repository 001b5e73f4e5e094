"""The verifier accepts what can be built, and names the node of every kind of damage."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.verify import VerifyError, verify
from tests.compiler.random_graphs import random_graph


def leaf(index: int = 0, dtype: dtypes.DType = dtypes.float32, shape: tuple = (2, 3)) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def damaged(original: Node, **changes: Any) -> Node:
    """A copy with some fields changed, past the checks of `node`."""
    copy = Node.__new__(Node)
    for name in Node.__slots__:
        if name in ("__weakref__", "serial", "device") or not hasattr(original, name):
            continue  # a place that only other kinds of nodes fill
        setattr(copy, name, changes.get(name, getattr(original, name)))
    return copy


@pytest.mark.parametrize("seed", range(60))
def test_what_was_built_is_legal(seed: int) -> None:
    verify(random_graph(seed)[0])


X = leaf()
SUM = node("add", X, X)
PADDED = node("pad", X, low=(1, 0), high=(0, 0), interior=(0, 0), value=0.0)


def constant(value: Any, dtype: dtypes.DType) -> Node:
    legal = node("const", value=0, dtype=dtype, shape=(2,))
    return damaged(legal, attrs=(value, dtype, (2,)))


@pytest.mark.parametrize("broken, message", [
    (damaged(SUM, op="plus"), "no operation 'plus'"),
    (damaged(SUM, inputs=(X,)), r"\[add\] has 1 operands and takes 2"),
    (damaged(node("concat", X, axis=0), inputs=()),
     r"\[concat\] has 0 operands and takes at least 1"),
    (damaged(SUM, attrs=(1,)), r"\[add\] has 1 attributes"),
    (damaged(SUM, shape=(3, 2)), r"\[add\] is marked float32\[3, 2\], .* infers float32\[2, 3\]"),
    (damaged(SUM, shape=[2, 3]), r"\[add\] is marked"),
    (damaged(SUM, dtype=dtypes.float64), r"\[add\] is marked float64"),
    (damaged(SUM, inputs=(X, leaf(1, shape=(2, 1)))), "shapes differ"),
    (damaged(SUM, inputs=(X, leaf(1, dtypes.int32))), "dtypes differ"),
    (damaged(SUM, differentiable=True), "differentiable=True"),
    (damaged(node("variable", X, uid=1), differentiable=False), "differentiable=False"),
    (damaged(node("sum", X, axes=(0,)), attrs=(3,)), "malformed"),
    (damaged(node("sum", X, axes=(0,)), attrs=((1, 0),)), "give each once, ascending"),
    (damaged(X, attrs=(-1, X.dtype, X.shape)), "is numbered -1"),
    (damaged(X, attrs=(True, X.dtype, X.shape)), "is numbered True"),
    (damaged(X, attrs=(0, X.dtype, (2, -3)), shape=(2, -3)), "at least 0"),
    (constant(300, dtypes.uint8), "holds 300, which uint8 cannot represent"),
    (constant(-1, dtypes.uint32), "cannot represent"),
    (constant(1.0, dtypes.int32), "cannot represent"),
    (constant(2, dtypes.bool_), "cannot represent"),
    (constant(1j, dtypes.float32), "cannot represent"),
    (constant(numpy.float32(1), dtypes.float32), "must hold a Python number"),
    (constant("1", dtypes.float32), "must hold a Python number"),
    (damaged(PADDED, attrs=((1, 0), (0, 0), (0, 0), None)), "must hold a Python number"),
])
def test_damage_is_named(broken: Node, message: str) -> None:
    graph = Graph((node("neg", X), damaged(node("abs", SUM), inputs=(broken,))))
    with pytest.raises(VerifyError, match=message) as caught:
        verify(graph)
    assert caught.value.node is broken
    assert f"{broken!r}" in str(caught.value)


def test_the_users_line_is_named() -> None:
    broken = damaged(SUM, shape=(1,), location=(("train.py", 12),))
    with pytest.raises(VerifyError, match=r"node %1 <add float32\[1\]> \(train.py:12\)"):
        verify(Graph((broken,)))


def test_circles() -> None:
    first = damaged(node("neg", X))
    second = damaged(node("abs", X), inputs=(first,))
    first.inputs = (second,)
    with pytest.raises(VerifyError, match="reaches itself"):
        verify(Graph((second,)))


def test_a_diamond_is_no_circle() -> None:
    current = X
    for _ in range(60):  # 2**60 paths
        current = node("add", node("neg", current), current)
    verify(Graph((current,)))


def test_inputs_are_dense_and_unique() -> None:
    gap = Graph((node("neg", leaf(0)), node("neg", leaf(2))))
    with pytest.raises(VerifyError, match=r"without gaps, and here \[0, 2\]"):
        verify(gap)
    verify(gap, dense_inputs=False)
    twice = Graph((node("neg", leaf(0)), node("neg", leaf(0, shape=(3,)))))
    with pytest.raises(VerifyError, match="input 0 is also"):
        verify(twice, dense_inputs=False)


def test_outputs_are_nodes() -> None:
    with pytest.raises(VerifyError, match="a tuple, not a list"):
        verify(Graph([X]))  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="no node"):
        verify(Graph((3,)))  # type: ignore[arg-type]


def test_numbers_that_fit() -> None:
    for value, dtype in [(1, dtypes.bool_), (True, dtypes.bool_), (-128, dtypes.int8),
                         (1, dtypes.float32),
                         (math.nan, dtypes.float16), (0.1, dtypes.bfloat16),
                         (1e-3j, dtypes.complex64),
                         (2**64 - 1, dtypes.uint64)]:
        verify(Graph((node("const", value=value, dtype=dtype, shape=()),)))
