"""Residuals: what is kept suffices for backward, no costly work is done again, and it is the least
possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.residuals import COSTLY_KINDS, known, residuals
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Node, node, substitute, topological
from lazygrad_compiler.ir.ops import OPS
from tests.compiler.random_graphs import random_graph


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def parameter(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("variable", leaf(index, *shape, dtype=dtype), uid=index + 1)


def number(value: float, like: Node) -> Node:
    return node("const", value=value, dtype=like.dtype, shape=like.shape)


def matmul(left: Node, right: Node) -> Node:
    return node(
        "dot", left, right, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)
    )


def costly_again(outputs: Sequence[Node], kept: Iterable[Node]) -> list[Node]:
    """The costly forward values that backward computes again when these are kept."""
    outputs = [output for output in outputs if output.differentiable]
    forward = set(topological(outputs, stop=known))
    wanted = [n for n in topological(outputs) if n.op == "variable"]
    seeds = [
        node("input", index=-1 - k, dtype=output.dtype, shape=output.shape)
        for k, output in enumerate(outputs)
    ]
    gradients = [g for g in backward(outputs, seeds, wanted) if g is not None]
    there = {*kept, *outputs}
    done = topological(gradients, stop=lambda n: n in there or known(n))
    return [n for n in done if n in forward and n not in there and OPS[n.op].kind in COSTLY_KINDS]


def mlp() -> tuple[Node, dict[str, Node]]:
    values = {"x": leaf(0, 32, 64), "a": parameter(1, 64, 128), "b": parameter(2, 128, 10)}
    values["first"] = matmul(values["x"], values["a"])
    values["hidden"] = node("maximum", values["first"], number(0.0, values["first"]))
    values["last"] = matmul(values["hidden"], values["b"])
    return values["last"], values


def test_nothing_is_kept_when_nothing_requires_grad() -> None:
    product = matmul(leaf(0, 8, 16), leaf(1, 16, 4))
    assert residuals([node("exp", product)]) == []
    assert residuals([]) == []


def test_stop_gradient_keeps_nothing() -> None:
    last, _ = mlp()
    assert residuals([node("stop_gradient", last)]) == []


def test_a_linear_layer_keeps_nothing_but_its_inputs() -> None:
    product = matmul(leaf(0, 8, 16), parameter(1, 16, 4))
    assert residuals([product]) == []
    assert costly_again([product], []) == []


def test_an_mlp_keeps_one_hidden_value() -> None:
    last, values = mlp()
    kept = residuals([last])
    assert kept == [values["first"]] or kept == [values["hidden"]]
    assert costly_again([last], kept) == []
    assert costly_again([last], []) == [values["first"]], "the check itself can tell"


def test_outputs_are_there_already() -> None:
    last, values = mlp()
    assert residuals([last, values["first"]]) == []
    kept = residuals([node("exp", last)])
    assert last not in kept, "exp's own result serves its gradient"


def test_the_narrower_of_two_equivalent_values_is_kept() -> None:
    """A wide product, cast down: keeping the narrow copy is half the bytes."""
    wide = matmul(leaf(0, 32, 64, dtype="float64"), parameter(1, 64, 128, dtype="float64"))
    narrow = node("cast", wide, dtype=DTYPES["float32"])
    last = matmul(narrow, parameter(2, 128, 10))
    assert residuals([last]) == [narrow]


def test_the_reduction_is_kept_rather_than_what_it_reduces() -> None:
    """x * sum(exp(dot)): both are costly, and the dot is needed too, once."""
    product = matmul(leaf(0, 32, 64), parameter(1, 64, 16))
    total = node("reshape", node("sum", product, axes=(1,)), shape=(32, 1))
    scaled = node("exp", node("expand", total, shape=(32, 16)))
    kept = residuals([node("mul", scaled, scaled)])
    assert kept and sum(n.nbytes for n in kept) <= 32 * 4
    assert costly_again([node("mul", scaled, scaled)], kept) == []


def test_gathers_are_not_done_again() -> None:
    table = parameter(0, 100, 16)
    rows = node("gather", table, leaf(1, 20, dtype="int64"), axes=(0,))
    last = matmul(node("exp", rows), parameter(2, 16, 4))
    kept = residuals([last])
    assert costly_again([last], kept) == []
    assert len(kept) == 1 and kept[0].shape == (20, 16)


def test_known_values_cost_nothing_and_hide_what_made_them() -> None:
    last, values = mlp()
    values["first"].payload = object()
    try:
        assert residuals([last]) == []
    finally:
        values["first"].payload = None
    assert residuals([last]) != []


def test_residuals_come_in_topological_order_and_each_once() -> None:
    value: Node = leaf(0, 16, 32)
    for layer in range(6):
        value = matmul(value, parameter(1 + layer, 32, 32))
        value = node("maximum", value, number(0.0, value))
    kept = residuals([value, value])
    order = topological([value])
    assert [n for n in order if n in kept] == kept
    assert len(kept) == 6 and costly_again([value], kept) == []


def test_a_deep_chain_is_no_recursion() -> None:
    value = matmul(leaf(0, 4, 8), parameter(1, 8, 8))
    for _ in range(3000):
        value = node("neg", node("exp", value))
    assert costly_again([value], residuals([value])) == []


def tracked(seed: int, size: int) -> list[Node]:
    """Outputs of a random graph whose floating inputs are variables."""
    graph, _ = random_graph(seed, size=size, dtypes=("float32", "float64"))
    marked = {
        n: node("variable", n, uid=k + 1)
        for k, n in enumerate(graph.inputs())
        if n.dtype.is_floating
    }
    outputs = substitute(graph.outputs, dict(marked))
    return [n for n in dict.fromkeys(outputs) if n.differentiable]


@pytest.mark.parametrize("first", range(0, 120, 40))
def test_random_graphs_need_no_costly_work_again(first: int) -> None:
    kept_somewhere = 0
    for seed in range(first, first + 40):
        outputs = tracked(seed, 16)
        kept = residuals(outputs)
        assert costly_again(outputs, kept) == [], f"seed {seed}"
        assert not set(kept) & set(outputs)
        assert not any(known(n) for n in kept)
        kept_somewhere += bool(kept)
    assert kept_somewhere > 3


def test_the_cut_is_the_least() -> None:
    """Against all subsets, where there are few enough of them."""
    compared = 0
    for seed in range(200):
        outputs = tracked(seed, 7)
        forward = [n for n in topological(outputs, stop=known) if not known(n) and n not in outputs]
        kept = residuals(outputs)
        if not kept or len(forward) > 9:
            continue
        size = sum(max(n.nbytes, 1) for n in kept)
        for count in range(len(forward) + 1):
            for subset in itertools.combinations(forward, count):
                if sum(max(n.nbytes, 1) for n in subset) < size:
                    assert costly_again(outputs, subset), f"seed {seed}: {subset} suffices"
        compared += 1
    assert compared >= 5, compared
