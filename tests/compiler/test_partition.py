"""The partition: what must share a kernel does, what does not says why, and the order is legal."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.fusion.partition import (
    MOST_ROOTS,
    Partition,
    Reason,
    is_free,
    partition,
    reordered_operands,
    turned_images,
)
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.passes.optimize import optimize
from lazygrad_compiler.passes.outputs import separate_outputs
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_compiled import check, run_compiled, with_gradients


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def number(value: float, like: Node) -> Node:
    return node("const", value=value, dtype=like.dtype, shape=like.shape)


def kept(value: Node, op: str, axis: int) -> Node:
    """A reduction broadcast back to the shape of its input."""
    shape = tuple(1 if k == axis else size for k, size in enumerate(value.shape))
    result = node("reshape", node(op, value, axes=(axis,)), shape=shape)
    return node("expand", result, shape=value.shape)


def softmax(value: Node, axis: int = 1) -> Node:
    powers = node("exp", node("sub", value, kept(value, "max", axis)))
    return node("div", powers, kept(powers, "sum", axis))


def matmul(left: Node, right: Node) -> Node:
    return node(
        "dot", left, right, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)
    )


def parts_of(*outputs: Node) -> Partition:
    return partition(separate_outputs(prepare(optimize(Graph(outputs)))))


def prepared(seed: int, size: int = 30) -> tuple[Graph, Partition]:
    graph = separate_outputs(prepare(optimize(random_graph(seed, size=size)[0])))
    return graph, partition(graph)


# ---- what must be one kernel


def test_softmax_is_one_kernel() -> None:
    (group,) = parts_of(softmax(leaf(0, 64, 100))).groups
    assert group.kind == "loops"
    assert len(group.outputs) == 1, "the maximum and the sum stay inside"


def test_softmax_of_scaled_masked_scores_is_one_kernel() -> None:
    scores = leaf(0, 64, 100)
    scaled = node("mul", scores, number(0.125, scores))
    masked = node("where", leaf(1, 64, 100, dtype="bool"), scaled, number(-1e9, scores))
    assert len(parts_of(softmax(masked)).groups) == 1


def test_layer_norm_is_one_kernel() -> None:
    value = leaf(0, 64, 100)
    centred = node("sub", value, node("div", kept(value, "sum", 1), number(100.0, value)))
    variance = node("div", kept(node("mul", centred, centred), "sum", 1), number(100.0, value))
    deviation = node("sqrt", node("add", variance, number(1e-5, value)))
    scale = node("expand", leaf(1, 1, 100), shape=value.shape)
    (group,) = parts_of(node("mul", node("div", centred, deviation), scale)).groups
    assert len(group.outputs) == 1


def test_bias_and_relu_fuse_into_the_dot() -> None:
    product = matmul(leaf(0, 33, 64), leaf(1, 64, 40))
    bias = node("expand", leaf(2, 1, 40), shape=product.shape)
    shifted = node("add", product, bias)
    (group,) = parts_of(node("maximum", shifted, number(0.0, shifted))).groups
    assert group.kind == "contraction" and len(group.outputs) == 1
    assert next(iter(group.outputs)).op == "maximum"


def test_an_optimizer_update_fuses_into_its_weight_gradient() -> None:
    """SGD with momentum: one kernel computes the gradient and writes velocity and weight."""
    activations, gradient = leaf(0, 48, 64), leaf(1, 48, 40)
    weight, velocity = leaf(2, 64, 40), leaf(3, 64, 40)
    slope = node(
        "dot",
        activations,
        gradient,
        left_batch=(),
        right_batch=(),
        left_contract=(0,),
        right_contract=(0,),
    )
    moved = node("add", node("mul", velocity, number(0.9, velocity)), slope)
    updated = node("sub", weight, node("mul", moved, number(0.1, moved)))
    (group,) = parts_of(updated, moved).groups
    assert group.kind == "contraction" and len(group.outputs) == 2
    assert all(root.op != "dot" for root in group.outputs), "the gradient itself is not stored"


def test_a_transposed_update_fuses_too() -> None:
    slope = matmul(leaf(0, 40, 48), leaf(1, 48, 64))
    turned = node("permute", slope, order=(1, 0))
    updated = node("sub", leaf(2, 64, 40), turned)
    assert len(parts_of(updated).groups) == 1


def test_maps_of_one_input_share_a_kernel() -> None:
    value = leaf(0, 1000)
    (group,) = parts_of(node("exp", value), node("sin", value), node("neg", value)).groups
    assert len(group.outputs) == 3


def test_cheap_values_are_computed_again_rather_than_stored() -> None:
    cheap = node("add", leaf(0, 64, 40), leaf(1, 64, 40))
    rows, columns = node("sum", cheap, axes=(1,)), node("sum", cheap, axes=(0,))
    parts = parts_of(rows, columns)
    assert parts.stored == {n for group in parts.groups for n in group.outputs}
    assert {n.op for n in parts.stored} == {"sum"}


def test_an_operand_of_a_dot_is_computed_once_not_per_tile() -> None:
    dear = node("exp", leaf(0, 33, 64))
    parts = parts_of(matmul(dear, leaf(1, 64, 40)))
    assert [group.kind for group in parts.groups] == ["loops", "contraction"]


# ---- what must not, and why


def reasons(parts: Partition) -> dict[tuple[str, str], Reason]:
    return {(a.op, b.op): reason for a, b, reason in parts.refused}


def test_reason_kind() -> None:
    first = matmul(leaf(0, 33, 64), leaf(1, 64, 40))
    assert reasons(parts_of(matmul(first, leaf(2, 40, 20)))) == {("dot", "dot"): Reason.KIND}


def test_reason_size() -> None:
    total = node("sum", softmax(leaf(0, 64, 100)), axes=(1,))
    outer = node("sum", node("exp", node("reshape", total, shape=(8, 8))), axes=(1,))
    found = reasons(parts_of(outer))
    assert set(found.values()) <= {Reason.SIZE, Reason.NOT_ALIGNED} and found


def test_reason_serial() -> None:
    value = leaf(0, 8000)
    total = node(
        "expand", node("reshape", node("sum", value, axes=(0,)), shape=(1,)), shape=(8000,)
    )
    long = node("exp", leaf(0, 8000))
    parts = parts_of(node("sum", long, axes=(0,)), long, total)
    assert Reason.SERIAL in reasons(parts).values()


def test_reason_not_aligned() -> None:
    value = node("exp", leaf(0, 50, 50))
    turned = node("permute", value, order=(1, 0))
    assert Reason.NOT_ALIGNED in reasons(parts_of(value, node("sin", turned))).values()


def test_reason_limit() -> None:
    value = leaf(0, 100)
    outputs = [node("exp", node("mul", value, number(float(k), value))) for k in range(40)]
    parts = parts_of(*outputs)
    assert all(len(group.roots) <= MOST_ROOTS for group in parts.groups)
    assert len(parts.groups) == 2


def test_reason_cycle() -> None:
    """a -> dot -> c, and c reads a too: a and c cannot be one kernel."""
    first = node("exp", leaf(0, 40, 40))
    through = matmul(first, leaf(1, 40, 40))
    rows = node("sum", node("mul", first, through), axes=(1,))
    assert Reason.CYCLE in {
        reason for _, _, reason in parts_of(first, rows, node("max", first, axes=(1,))).refused
    }


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_partitions(first: int) -> None:
    """Every root is computed once, after what it reads; every refusal gives two roots and why."""
    for seed in range(first, first + 50):
        graph, parts = prepared(seed)
        roots = [root for group in parts.groups for root in group.roots]
        assert len(roots) == len(set(roots)), f"seed {seed}: computed twice"
        computed = set(roots)
        for output in graph.outputs:
            assert output in computed and output in parts.stored
        done: set[Node] = set()
        for group in parts.groups:
            members = set(group.roots)
            assert group.outputs <= members and group.outputs
            for root in group.roots:
                for value in reads(root, computed):
                    assert value in members or value in done, f"seed {seed}: {value!r} too late"
                    assert value in members or value in parts.stored, f"{value!r} is not stored"
            done |= group.outputs
        for producer, consumer, reason in parts.refused:
            assert isinstance(reason, Reason)
            assert producer in computed and consumer in computed
            assert producer in reads(consumer, computed)


def reads(root: Node, computed: set[Node]) -> set[Node]:
    """The nearest roots that a root is made from."""
    order = topological(root.inputs, stop=lambda n: n in computed)
    return {n for n in order if n in computed}


def group_numbers(parts: Partition) -> dict[Node, int]:
    return {root: k for k, group in enumerate(parts.groups) for root in group.roots}


def test_every_pair_that_is_not_fused_has_a_reason() -> None:
    missing = []
    for seed in range(200):
        _, parts = prepared(seed)
        home = group_numbers(parts)
        given = {(producer, consumer) for producer, consumer, _ in parts.refused}
        for consumer in home:
            for producer in reads(consumer, set(home)):
                if home[producer] != home[consumer] and (producer, consumer) not in given:
                    missing.append((seed, producer, consumer))
    assert not missing, f"{len(missing)} pairs without a reason, the first {missing[0]}"


def test_a_pair_in_one_kernel_was_not_refused() -> None:
    for seed in range(100):
        _, parts = prepared(seed)
        home = group_numbers(parts)
        for producer, consumer, _ in parts.refused:
            assert home[producer] != home[consumer]


def test_index_maps_are_roots_only_where_their_order_is_wanted() -> None:
    for seed in range(100):
        graph, parts = prepared(seed)
        forced = reordered_operands(graph.nodes()) | turned_images(graph.nodes())
        for group in parts.groups:
            for root in group.roots:
                assert not is_free(root) or root in graph.outputs or root in forced
            if group.kind == "contraction":
                assert OPS[group.roots[0].op].kind == "contraction"
                assert group.anchor is group.roots[0]


def test_the_partition_is_the_same_every_time() -> None:
    for seed in range(20):
        first, second = prepared(seed)[1], prepared(seed)[1]
        assert [g.roots for g in first.groups] == [g.roots for g in second.groups]
        assert first.refused == second.refused


def test_a_long_chain_of_layers_is_linear_in_kernels() -> None:
    value = leaf(0, 32, 64)
    for layer in range(20):
        value = matmul(value, leaf(1 + layer, 64, 64))
        value = node("maximum", value, number(0.0, value))
    assert len(parts_of(value).groups) == 20


def test_fused_programs_run() -> None:
    """The shapes of fusion above, once through to numbers: an attention block's two products."""
    query, key, content = leaf(0, 33, 16), leaf(1, 16, 40), leaf(2, 40, 16)
    weights = softmax(matmul(query, key))
    inputs = [
        numpy.random.default_rng(k).standard_normal(n.shape).astype(numpy.float32)
        for k, n in enumerate((query, key, content))
    ]
    (got,) = run_compiled(Graph((matmul(weights, content),)), inputs)
    scores = inputs[0].astype(numpy.float64) @ inputs[1]
    powers = numpy.exp(scores - scores.max(1, keepdims=True))
    expected = powers / powers.sum(1, keepdims=True) @ inputs[2]
    numpy.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [4, 12])
def test_taps_of_each_phase_are_put_in_order(side: int) -> None:
    """For the gradient of a strided convolution's input; parts of a product's operand are not."""
    x, weight = leaf(0, 2, 3, side, side), leaf(1, 4, 3, 3, 3)
    conv = node("conv", x, weight, strides=(2, 2), padding=((1, 1), (1, 1)),
                left_dilation=(1, 1), right_dilation=(1, 1), groups=1)
    graph = with_gradients(Graph((node("mul", conv, conv),)))
    assert graph is not None
    roots = [root for group in parts_of(*graph.outputs).groups for root in group.roots]
    assert sum(root.op == "slice" and root.shape[:2] == (3, 4) for root in roots) == 4
    generator = numpy.random.default_rng(0)
    check(graph, [generator.standard_normal(leaf.shape).astype("float32")
                  for leaf in (x, weight)])
    heads = node("permute", leaf(0, 8, 2, 16), order=(1, 0, 2))
    head = node("slice", heads, starts=(1, 0, 0), stops=(2, 8, 16), steps=(1, 1, 1))
    (group,) = parts_of(matmul(node("reshape", head, shape=(8, 16)), leaf(1, 16, 8))).groups
    assert group.kind == "contraction"


def test_convolutions_read_joined_images_from_memory() -> None:
    """Forward and for the weights' gradient; a small product joins as it packs."""
    left, right, weight = leaf(0, 2, 3, 9, 9), leaf(1, 2, 5, 9, 9), leaf(2, 4, 8, 3, 3)
    joined = node("concat", left, right, axis=1)
    conv = node("conv", joined, weight, strides=(1, 1), padding=((1, 1), (1, 1)),
                left_dilation=(1, 1), right_dilation=(1, 1), groups=1)
    graph = with_gradients(Graph((node("mul", conv, conv),)))
    assert graph is not None
    parts = parts_of(*graph.outputs)
    assert sum(root.op == "concat" for group in parts.groups for root in group.roots) == 1
    generator = numpy.random.default_rng(0)
    check(graph, [generator.standard_normal(leaf.shape).astype("float32")
                  for leaf in (left, right, weight)])
    rows = node("concat", leaf(0, 8, 3), leaf(1, 8, 5), axis=1)
    (group,) = parts_of(matmul(rows, leaf(2, 8, 4))).groups
    assert group.kind == "contraction"
