"""The autodiff pass: paths, sums, order, errors; random compositions against differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp import BLOCKING, VJP
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import IRError, Node, node, topological
from lazygrad_compiler.ir.ops import OPS
from tests.compiler.gradients import (
    against_differences,
    against_torch,
    agree,
    const,
    leaf,
    random,
)

# ---- the pass

def test_paths_that_block_and_paths_that_are_flat() -> None:
    x, y = leaf(0, random(3)), leaf(1, random(3))
    stopped = node("mul", x, node("stop_gradient", node("exp", x)))
    one = const(1.0, (3,))
    assert backward([stopped], [one], [x])[0] is node("stop_gradient", node("exp", x))
    assert backward([x], [one], [y]) == [None]
    assert backward([node("stop_gradient", x)], [one], [x]) == [None]
    assert backward([node("floor", x)], [one], [x]) == [const(0.0, (3,))]
    assert backward([node("cast", x, dtype=dtypes.int64)],
                    [const(1, (3,), dtypes.int64)], [x]) == [None]
    barrier = node("stop_gradient", x)
    both = node("mul", barrier, node("sin", x))
    of_barrier, of_x = backward([both], [one], [barrier, x])
    assert of_barrier is node("sin", x)
    assert of_x is node("mul", barrier, node("cos", x))


def test_variables_intermediates_and_outputs_can_be_wanted() -> None:
    x = leaf(0, random(3))
    parameter = node("variable", x, uid=1)
    middle = node("sin", parameter)
    y = node("exp", middle)
    g = leaf(1, random(3))
    of_x, of_parameter, of_middle, of_y = backward([y], [g], [x, parameter, middle, y])
    assert of_y is g
    assert of_middle is node("mul", g, y)
    assert of_x is of_parameter
    assert of_parameter is node("mul", of_middle, node("cos", parameter))


def test_several_outputs_and_users_are_summed() -> None:
    def total(x: Node) -> Node:
        a, b = node("sin", x), node("mul", x, x)
        g, h = const(2.0, (3,)), const(3.0, (3,))
        gradient, = backward([a, b, a], [g, h, h], [x])
        return gradient
    x = random(3)
    place = leaf(0, x)
    agree(evaluate([total(place)], {place: x})[0], 5 * np.cos(x) + 6 * x, "sum")
    assert total(place) is total(place)


def test_gradients_carry_the_forward_line() -> None:
    where = (("train.py", 12),)
    x = node("input", index=77, dtype=dtypes.float64, shape=(3,))
    y = node("tanh", x, location=where)
    gradient, = backward([y], [leaf(78, random(3))], [x])
    assert gradient.location == where


def test_only_what_is_wanted_is_computed() -> None:
    x, w = leaf(0, random(3, 4)), leaf(1, random(4, 5))
    y = node("dot", x, w, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,))
    gradient, = backward([y], [leaf(2, random(3, 5))], [w])
    assert w not in topological([gradient])


def test_a_seed_of_one_leaves_no_multiplication() -> None:
    x = leaf(0, random(3, 4))
    loss = node("sum", node("exp", x), axes=(0, 1))
    assert backward([loss], [const(1.0)], [x]) == [node("exp", x)]


def test_wrong_cotangents_are_refused() -> None:
    x = leaf(0, random(3))
    with pytest.raises(IRError, match=r"sin is float64 \(3,\), its cotangent float64 \(2,\)"):
        backward([node("sin", x)], [const(1.0, (2,))], [x])
    with pytest.raises(IRError, match="1 outputs, but 0 cotangents"):
        backward([x], [], [x])


def test_every_floating_op_has_a_rule_or_blocks() -> None:
    without = {name for name in OPS if name not in VJP} - BLOCKING
    assert without == {"input", "const", "iota", "random_bits", "not", "and", "or", "xor", "shl",
                       "shr", "idiv", "gcd", "lt", "le", "eq", "ne", "argmax", "argmin",
                       "argsort", "top_k", "select_rank", "searchsorted", "compact",
                       "winograd", "again",
                       "loop"}  # all results of a loop at once: `pull_back_loop`


def test_a_chain_of_fifty_thousand_nodes() -> None:
    start = leaf(0, np.ones(()))
    current = start
    for _ in range(25_000):
        current = node("neg", node("sin", current))
    gradient, = backward([current], [const(1.0)], [start])
    value, = evaluate([gradient], {start: np.zeros(())})
    assert value == 1.0


def test_as_torch_for_the_derivatives_of_a_small_network() -> None:
    def ours(x: Node, w: Node, v: Node) -> Node:
        def matmul(a: Node, b: Node) -> Node:
            return node("dot", a, b, left_batch=(), right_batch=(), left_contract=(1,),
                        right_contract=(0,))
        scores = matmul(node("tanh", matmul(x, w)), v)
        top = node("expand", node("reshape", node("max", scores, axes=(1,)), shape=(4, 1)),
                   shape=(4, 3))
        total = node("sum", node("exp", node("sub", scores, top)), axes=(1,))
        return node("log", total)

    def theirs(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.tanh(x @ w) @ v
        return (scores - scores.amax(1, keepdim=True)).exp().sum(1).log()
    against_torch(ours, theirs, random(4, 5), random(5, 6), random(6, 3))


# ---- random compositions against differences

def matrix(x: Node, y: Node) -> Node:
    return node("dot", x, y, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(1,))


def spread_rows(x: Node) -> Node:
    total = node("reshape", node("sum", x, axes=(0,)), shape=(1, 3))
    return node("expand", total, shape=(3, 3))


def neighbours(x: Node) -> Node:
    padded = node("pad", x, low=(1, 1), high=(1, 1), interior=(0, 0), value=0.5)
    windows = node("window", padded, axes=(0, 1), sizes=(3, 3), strides=(1, 1), dilations=(1, 1))
    return node("sum", windows, axes=(2, 3))


STEPS: list[Callable[[Node, Node], Node]] = [
    lambda x, y: node("sin", x), lambda x, y: node("tanh", node("add", x, y)),
    lambda x, y: node("mul", x, y), lambda x, y: node("erf", x),
    lambda x, y: node("div", x, node("add", node("mul", y, y), const(1.0, (3, 3)))),
    lambda x, y: node("tanh", matrix(x, y)), lambda x, y: spread_rows(x),
    lambda x, y: node("permute", x, order=(1, 0)), lambda x, y: neighbours(node("tanh", x)),
    lambda x, y: node("flip", x, axes=(1,)), lambda x, y: node("sub", node("atan", y), x),
    lambda x, y: node("reshape", node("prod", node("reshape", node("concat", x, y, axis=0),
                                                   shape=(3, 3, 2)), axes=(2,)), shape=(3, 3)),
    lambda x, y: node("sqrt", node("add", node("mul", x, x), const(0.5, (3, 3)))),
]


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 20), st.integers(0, 20)),
                min_size=1, max_size=8), st.integers(0, 1000))
def test_random_compositions(steps: list[tuple[int, int, int]], seed: int) -> None:
    def compose(x: Node, y: Node) -> Node:
        values = [x, y]
        for which, first, second in steps:
            values.append(STEPS[which](values[-1 - first % len(values)],
                                       values[-1 - second % len(values)]))
        return node("tanh", values[-1])
    against_differences(compose, random(3, 3, seed=seed, low=-1, high=1),
                        random(3, 3, seed=seed + 1, low=-1, high=1), tolerance=1e-5)
