"""Loops: interpreted, differentiated, batched, rewritten and compiled, against the same steps
written out (`unrolled`) and against the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pytest

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.batching.batch import batch
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.loop import Loop, body_of, make_loop, unrolled
from lazygrad_compiler.ir.node import Graph, IRError, Node, fresh_input, node, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import ParseError, parse_graph, print_graph
from lazygrad_compiler.ir.verify import VerifyError, verify
from lazygrad_compiler.pipeline import compile_graph, lower, optimized
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import IndexOutOfRange, Program

AT = Builder()
F64 = dtypes.float64


def leaf(index: int, *shape: int, dtype: Any = F64) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def inside(value: Node, *, step: bool = False) -> Node:
    """What stands for a value in a body."""
    return fresh_input(value.dtype, value.shape[1:] if step else value.shape, ())


def matmul(left: Node, right: Node) -> Node:
    return AT.op("dot", left, right, attrs=((), (), (left.ndim - 1,), (0,)))


def total(values: Sequence[Node]) -> Node:
    """A number that all values have a part in."""
    result = AT.const(0, F64, ())
    for value in values:
        axes = tuple(range(value.ndim))
        result = AT.add(result, AT.sum(AT.mul(value, AT.op("sin", value)), axes))
    return result


def memory_cell(length: int, reverse: bool) -> tuple[Loop, list[Node]]:
    """Two states, a series, a weight, a bias, and a factor; the steps give one state."""
    leaves = [leaf(0, 3, 4), leaf(1, 3, 4), leaf(2, length, 3, 8), leaf(3, 4, 8), leaf(4, 8),
              leaf(5, 3, 4)]
    h, c = inside(leaves[0]), inside(leaves[1])
    x = inside(leaves[2], step=True)
    w, b, scale = (inside(value) for value in leaves[3:])
    gates = AT.add(AT.add(x, matmul(h, w)), AT.expand(AT.reshape(b, (1, 8)), (3, 8)))
    gate, new = (AT.slice_axis(gates, 1, 4 * k, 4 * k + 4) for k in range(2))
    kept = AT.add(AT.mul(AT.op("sigmoid", gate), c), AT.op("tanh", AT.mul(new, scale)))
    shown = AT.mul(AT.op("tanh", kept), AT.op("sigmoid", gate))
    loop = make_loop(
        "cell", [(h, leaves[0], shown), (c, leaves[1], kept)], [(x, leaves[2])],
        list(zip((w, b, scale), leaves[3:], strict=True)), [shown, matmul(shown, w)], length,
        reverse)
    return loop, leaves


def decay(length: int, reverse: bool) -> tuple[Loop, list[Node]]:
    """Two series, used apart from the state and with it; a state that never changes, and one that
    takes over another; an integer count; results that are a series, a constant, an old state.
    """
    leaves = [leaf(0, 5), leaf(1, 5), leaf(2, length, 5, 6), leaf(3, length, 6), leaf(4, 6)]
    a, before, fixed = inside(leaves[0]), inside(leaves[0]), inside(leaves[1])
    count = inside(node("const", value=0, dtype=dtypes.int64, shape=()))
    x, y, w = inside(leaves[2], step=True), inside(leaves[3], step=True), inside(leaves[4])
    product = matmul(x, AT.mul(y, AT.op("exp", w)))  # needs no state
    number = AT.cast(count, F64)
    a_next = AT.add(AT.mul(AT.add(a, AT.mul(before, fixed)), AT.op("cos", product)),
                    AT.expand(AT.reshape(number, (1,)), (5,)))
    outer = AT.mul(AT.expand(AT.reshape(a_next, (5, 1)), (5, 6)), x)
    loop = make_loop(
        "decay",
        [(a, leaves[0], a_next), (before, leaves[1], a), (fixed, leaves[1], fixed),
         (count, AT.const(0, dtypes.int64, ()), AT.shift(count, 1))],
        [(x, leaves[2]), (y, leaves[3])], [(w, leaves[4])],
        [a, y, AT.op("exp", w), AT.sum(outer, (0,)), matmul(AT.reshape(a_next, (1, 5)), x)],
        length, reverse)
    return loop, leaves


def nested(length: int, reverse: bool) -> tuple[Loop, list[Node]]:
    """A loop whose steps are loops over a row of the series, which read the outer state."""
    leaves = [leaf(0, 3), leaf(1, length, 4, 3), leaf(2, 3, 3)]
    outer, row, w = inside(leaves[0]), inside(leaves[1], step=True), inside(leaves[2])
    inner, x = fresh_input(F64, (3,), ()), fresh_input(F64, (3,), ())
    w_again, o_again = inside(w), inside(outer)
    mixed = AT.op("tanh", AT.add(AT.add(matmul(inner, w_again), x), o_again))
    made = make_loop("inner", [(inner, outer, mixed)], [(x, row)], [(w_again, w), (o_again, outer)],
                     [AT.mul(mixed, mixed)], 4, not reverse)
    last, squares = made.parts()
    loop = make_loop("outer", [(outer, leaves[0], last)], [(row, leaves[1])], [(w, leaves[2])],
                     [AT.sum(squares, (0,))], length, reverse)
    return loop, leaves


CASES = [memory_cell, decay, nested]


def values_of(leaves: Sequence[Node], seed: int = 0) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(seed)
    return [generator.standard_normal(value.shape) for value in leaves]


def compiled(graph: Graph, values: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    program = Program(compile_graph(graph, host()))
    buffers = [Buffer.from_numpy(value) for value in values[:program.input_count]]
    results = program.run(buffers)
    return [result.as_numpy(output.dtype.numpy, output.shape).copy()
            for result, output in zip(results, graph.outputs, strict=True)]


def assert_close(have: Sequence[Any], want: Sequence[Any]) -> None:
    assert len(have) == len(want)
    for one, other in zip(have, want, strict=True):
        largest = numpy.abs(other).max(initial=1.0)
        numpy.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * largest)


def gradients(outputs: Sequence[Node], leaves: Sequence[Node]) -> list[Node]:
    shown = [output for output in outputs if output.dtype is F64]
    found = backward([total(shown)], [AT.const(1, F64, ())], leaves)
    return [AT.zeros(value) if each is None else each
            for each, value in zip(found, leaves, strict=True)]


# ---- meaning


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_loop_is_its_steps(case: Any, length: int, reverse: bool) -> None:
    loop, leaves = case(length, reverse)
    values = values_of(leaves)
    graph = Graph(tuple(loop.parts()))
    verify(graph, dense_inputs=False)
    want = interpret(Graph(tuple(unrolled(loop))), values)
    assert_close(interpret(graph, values), want)
    assert_close(interpret(optimized(graph), values), want)
    assert_close(compiled(graph, values), want)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_first_and_second_order(case: Any, length: int, reverse: bool) -> None:
    loop, leaves = case(length, reverse)
    values = values_of(leaves)
    first = gradients(loop.parts(), leaves)
    second = gradients(first, leaves)
    want_first = gradients(unrolled(loop), leaves)
    want_second = gradients(want_first, leaves)
    want = interpret(Graph((*want_first, *want_second)), values)
    graph = Graph((*loop.parts(), *first, *second))
    verify(graph, dense_inputs=False)
    assert_close(interpret(graph, values)[-2 * len(leaves):], want)
    verify(optimized(graph), dense_inputs=False)
    assert_close(compiled(graph, values)[-2 * len(leaves):], want)


def test_the_gradient_of_a_weight_is_one_contraction_over_all_steps() -> None:
    loop, leaves = memory_cell(6, False)
    weight = gradients(loop.parts()[:1], leaves)[3]
    products = [n for n in topological([weight]) if n.op == "dot" and n.shape == weight.shape]
    assert [n.attrs[2] for n in products] == [(0, 1)]  # steps and batch
    for value in topological([weight]):
        if value.op == "loop":  # no state of a loop adds the weight's gradient up
            assert all(shape != weight.shape for _, shape in value.attrs[0].inputs[:value.attrs[1]])


@pytest.mark.parametrize(("product", "uses"), [(AT.mul, 1500), (matmul, 5000)])
def test_a_constant_used_thousands_of_times_in_a_step(product: Any, uses: int) -> None:
    length = 3
    leaves = [leaf(0, 2, 2), leaf(1, length, 2, 2), leaf(2, 2, 2)]
    h, x, w = inside(leaves[0]), inside(leaves[1], step=True), inside(leaves[2])
    after = h
    for number in range(uses):
        after = AT.add(after, product(AT.mul(x, AT.const(1 / (1 + number), F64, (2, 2))), w))
    loop = make_loop("uses", [(h, leaves[0], after)], [(x, leaves[1])], [(w, leaves[2])], [],
                     length, False)
    cotangent = numpy.array([[1.0, 2.0], [3.0, 4.0]])
    found = backward([loop.part(0)], [leaf(3, 2, 2)], [leaves[2]])
    values = values_of(leaves)
    have = interpret(Graph(found), [*values, cotangent])
    steps = values[1] * cotangent if product is not matmul else values[1].mT @ cotangent
    assert_close(have, [steps.sum(0) * (1 / numpy.arange(1, uses + 1)).sum()])


@pytest.mark.parametrize("case", CASES)
def test_batching(case: Any) -> None:
    loop, leaves = case(3, True)
    outputs = [part for part in loop.parts() if part.dtype is F64]
    outputs += gradients(outputs, leaves)
    plain = [part for part in unrolled(loop) if part.dtype is F64]
    plain += gradients(plain, leaves)
    for chosen in ([0], [1], [2], list(range(len(leaves)))):
        values = values_of(leaves)
        items = {}
        for number in chosen:
            items[leaves[number]] = leaf(number, 4, *leaves[number].shape)
            values[number] = values_of([items[leaves[number]]], 7)[0]
        have, want = batch(outputs, items, 4), batch(plain, items, 4)
        verify(Graph(tuple(each for each, _ in have)), dense_inputs=False)
        assert all(one or not other for (_, one), (_, other) in zip(have, want, strict=True))
        arrays, expected = (interpret(Graph(tuple(each for each, _ in made)), values)
                            for made in (have, want))
        assert_close(arrays, [numpy.broadcast_to(one, other.shape)
                              for one, other in zip(expected, arrays, strict=True)])


def test_complex_states_are_split() -> None:
    turn, count = leaf(0, 2), leaf(1, 2)
    state = AT.op("complex", turn, count)
    z, factor = inside(state), inside(turn)
    power = AT.mul(z, AT.op("complex", factor, AT.zeros(factor)))
    loop = make_loop("spiral", [(z, state, power)], [], [(factor, turn)],
                     [AT.op("imag", power), AT.op("conj", power)], 5)
    graph = Graph(tuple(loop.parts()))
    values = values_of([turn, count])
    assert_close(compiled(graph, values), interpret(graph, values))
    # complex numbers in the body alone
    length = make_loop("size", [(factor, turn, AT.op("abs", AT.op("complex", factor, factor)))], [],
                       [], [], 3)
    graph = Graph(tuple(length.parts()))
    assert_close(compiled(graph, values), interpret(graph, values))


# ---- text, verifier


@pytest.mark.parametrize("case", CASES)
def test_text_parses_back(case: Any) -> None:
    loop, leaves = case(3, True)
    graph = Graph(tuple(loop.parts() + gradients(loop.parts(), leaves)))
    assert parse_graph(print_graph(graph)) == graph
    assert parse_graph(print_graph(optimized(graph))) == optimized(graph)


def test_text_of_a_small_loop() -> None:
    start = leaf(0, 3)
    state = inside(start)
    loop = make_loop("doubled", [(state, start, AT.add(state, state))], [], [], [], 4)
    assert print_graph(Graph((loop.part(0),))) == (
        "graph()\n"
        'body @0 "doubled"(float64[3])\n'
        "  %0 = input(0) : float64[3]\n"
        "  %1 = add(%0, %0) : float64[3]\n"
        "  return %1\n"
        "%0 = input(0) : float64[3]\n"
        "%1 = loop(%0, body=@0, carried=1, stepped=0, length=4, reverse=False, part=0)"
        " : float64[3]\n"
        "return %1\n")


@pytest.mark.parametrize("text, message", [
    ('graph()\nbody @0 "x"(float32[3])\n%0 = input(1) : float32[3]', "none of number 1"),
    ('graph()\nbody @0 "x"(float31[3])', "no dtype float31"),
    ("graph()\n%0 = input(0) : float32[3]\n"
     "%1 = loop(%0, body=@4, carried=1, stepped=0, length=4, reverse=False, part=0) : float32[3]",
     "@4 is not defined above"),
    ('graph()\nbody @0 "x"(float32[3])\nreturn\nbody @0 "x"(float32[3])', "@0 is defined twice"),
])
def test_malformed_bodies(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_graph(text)


def test_what_does_not_fit_is_refused() -> None:
    start, series = leaf(0, 3), leaf(1, 4, 3)
    state, step = inside(start), inside(series, step=True)
    with pytest.raises(IRError, match="state 0 is float64"):
        make_loop("s", [(state, start, AT.sum(state, (0,)))], [], [], [], 4).part(0)
    with pytest.raises(IRError, match="as input 1"):
        make_loop("s", [(state, start, AT.add(state, step))], [(step, series)], [], [], 5).part(0)
    with pytest.raises(IRError, match="no input of it"):
        make_loop("s", [(state, start, AT.add(state, step))], [], [], [], 4)
    with pytest.raises(IRError, match="no result 1"):
        make_loop("s", [(state, start, state)], [], [], [], 4).part(1)


def test_the_verifier_looks_into_bodies() -> None:
    start = leaf(0, 3)
    state = inside(start)
    good = make_loop("s", [(state, start, AT.op("exp", state))], [], [], [], 4)
    verify(Graph((good.part(0),)))
    foreign = body_of("s", (AT.op("exp", leaf(9, 3)),), good.body.inputs)
    bad = Loop(good.inputs, foreign, 1, 0, 4, False, ())
    with pytest.raises(VerifyError, match="has a body that is not legal"):
        verify(Graph((bad.part(0),)))


# ---- rewriting


def loops_of(graph: Graph) -> list[Loop]:
    bodies: dict[Any, Loop] = {}
    for value in graph.nodes():
        if value.op == "loop":
            bodies.setdefault((value.attrs[0], value.inputs), Loop.of(value))
    return list(bodies.values())


def ops_in(loop: Loop) -> set[str]:
    return {value.op for value in topological(loop.body.outputs)}


def test_work_without_the_state_leaves_the_body() -> None:
    loop, _ = decay(6, False)
    (before,) = loops_of(Graph(tuple(loop.parts())))
    assert {"dot", "exp", "sum"} <= ops_in(before)
    (after,) = loops_of(optimized(Graph(tuple(loop.parts()))))
    assert not {"dot", "exp"} & ops_in(after)
    assert after.carried == 3  # what never changes is no state
    products = [n for n in topological(optimized(Graph(tuple(loop.parts()))).outputs)
                if OPS[n.op].kind in ("contraction", "reduction")]
    assert products and all(6 in n.shape for n in products)  # for all steps at once


def test_what_nobody_reads_is_dropped() -> None:
    loop, _ = memory_cell(6, False)
    (after,) = loops_of(optimized(Graph((loop.part(0),))))
    assert len(after.given) == 0
    assert "dot" in ops_in(after)


def test_equal_recurrences_are_one_loop() -> None:
    loop, leaves = memory_cell(6, False)
    other = loop.with_given([AT.neg(loop.next_states[0])])
    graph = Graph((loop.part(2), other.part(4)))
    assert len(loops_of(graph)) == 2
    assert len(loops_of(optimized(graph))) == 1
    values = values_of(leaves)
    assert_close(compiled(graph, values), interpret(graph, values))


# ---- compiled


def test_launches_do_not_grow_with_the_length() -> None:
    counts = []
    for length in (3, 300):
        loop, leaves = memory_cell(length, False)
        graph = Graph(tuple(loop.parts() + gradients(loop.parts(), leaves)))
        stages = lower(graph, host())
        counts.append((len(stages.launches), len(stages.kernels)))
    assert counts[0] == counts[1]


def test_values_of_every_round_share_the_arena() -> None:
    sizes = []
    for length in (10, 1000):
        state = inside(leaf(0, 64))
        middle = AT.sum(AT.mul(AT.expand(AT.reshape(state, (64, 1)), (64, 64)),
                               AT.expand(AT.reshape(AT.op("sin", state), (1, 64)), (64, 64))), (1,))
        loop = make_loop("s", [(state, leaf(0, 64), AT.op("tanh", middle))], [], [], [], length)
        sizes.append(lower(Graph((loop.part(0),)), host()).plan.arena_bytes)
    assert sizes[0] == sizes[1]


def test_an_index_out_of_range_within_a_loop_is_reported() -> None:
    table, indices = leaf(0, 4, 3), leaf(1, 6, dtype=dtypes.int64)
    state, rows = inside(leaf(2, 3)), inside(table)
    index = inside(indices, step=True)
    where = (("model.py", 12),)
    row = node("gather", AT.mul(rows, AT.expand(AT.reshape(state, (1, 3)), (4, 3))), index,
               axes=(0,), location=where)
    loop = make_loop("s", [(state, leaf(2, 3), AT.add(state, row))], [(index, indices)],
                     [(rows, table)], [], 6)
    graph = Graph((loop.part(0),))
    program = Program(compile_graph(graph, host()))
    good = [numpy.ones((4, 3)), numpy.array([0, 3, -1, 2, -4, 1]), numpy.ones(3)]
    bad = [good[0], numpy.array([0, 1, 2, 9, 0, 0]), good[2]]
    for values, fails in ((good, False), (bad, True), (good, False)):
        buffers = [Buffer.from_numpy(value) for value in values]
        if fails:
            message = r"index 9 .* axis 0 of size 4 \(model.py:12\)"
            with pytest.raises(IndexOutOfRange, match=message):
                program.run(buffers)
        else:
            have = program.run(buffers)[0].as_numpy(numpy.float64, (3,))
            assert_close([have], interpret(graph, values))


def test_inputs_that_a_loop_reads_are_donated_only_after_it() -> None:
    start, series = leaf(0, 8), leaf(1, 5, 8)
    state, step = inside(start), inside(series, step=True)
    loop = make_loop("s", [(state, start, AT.add(AT.op("sin", state), step))], [(step, series)], [],
                     [AT.mul(state, step)], 5)
    afterwards = AT.add(loop.part(1), series)
    artifact = compile_graph(Graph((loop.part(0), loop.part(1), afterwards)), host())
    # the steps' results may not lie over the series, which later steps read
    assert not artifact.donations.allowed(1, 1)
    assert not artifact.donations.allowed(0, 0)
    assert artifact.donations.allowed(1, 2)


@pytest.mark.parametrize("seed", range(12))
def test_random_bodies(seed: int) -> None:
    """Random states, series, constants and steps; compiled as interpreted."""
    generator = numpy.random.default_rng(seed)
    batch_size, size = int(generator.integers(1, 6)), int(generator.integers(1, 20))
    length = int(generator.integers(2, 7))
    shape = (batch_size, size)
    leaves: list[Node] = []

    def fresh(*extents: int) -> Node:
        leaves.append(leaf(len(leaves), *extents))
        return leaves[-1]

    states = [fresh(*shape) for _ in range(generator.integers(1, 4))]
    series = [fresh(length, *shape) for _ in range(generator.integers(0, 3))]
    constants = [fresh(*shape), fresh(size, size)]
    pool = [inside(value) for value in states] + [inside(value, step=True) for value in series]
    pool += [inside(constants[0])]
    weight = inside(constants[1])
    inputs = list(pool)
    for _ in range(int(generator.integers(3, 14))):
        first, second = (pool[int(k)] for k in generator.integers(0, len(pool), 2))
        made = [
            lambda a, b: AT.add(a, b),
            lambda a, b: AT.mul(a, AT.op("sin", b)),
            lambda a, b: matmul(a, weight),
            lambda a, b: AT.op("tanh", AT.sub(a, b)),
            lambda a, b: AT.spread(AT.op("max", a, attrs=((1,),)), (1,), shape),
            lambda a, b: AT.add(AT.flip(a, (1,)), b),
            lambda a, b: AT.op("scan", a, attrs=(1, "add", False)),
        ][int(generator.integers(0, 7))](first, second)
        pool.append(made)
    chosen = [pool[int(k)] for k in generator.integers(0, len(pool), len(states) + 3)]
    following = [AT.op("tanh", value) if generator.random() < 0.7 else value
                 for value in chosen[:len(states)]]
    loop = make_loop(
        "random", list(zip(inputs, states, following, strict=False)),
        list(zip(inputs[len(states):], series, strict=False)),
        [(inputs[-1], constants[0]), (weight, constants[1])], chosen[len(states):], length,
        bool(generator.random() < 0.5))
    values = values_of(leaves, seed)
    outputs = loop.parts()
    outputs = outputs + gradients(outputs, leaves)
    plain = unrolled(loop)
    plain = plain + gradients(plain, leaves)
    graph = Graph(tuple(outputs))
    want = interpret(Graph(tuple(plain)), values)
    assert_close(interpret(graph, values), want)
    assert_close(compiled(graph, values), want)


def test_constant_factors_are_brought_into_order_before_the_loop() -> None:
    start, weight = leaf(0, 4, 8), leaf(1, 8, 8)
    state, w = inside(start), inside(weight)
    product = AT.op("dot", state, w, attrs=((), (), (1,), (1,)))  # state @ weight.T
    loop = make_loop("s", [(state, start, AT.op("tanh", product))], [], [(w, weight)], [], 6)
    graph = optimized(Graph((loop.part(0),)))
    (after,) = loops_of(graph)
    (inner,) = [n for n in topological(after.body.outputs) if n.op == "dot"]
    assert inner.inputs[1].op == "input" and inner.attrs[3] == (0,)
    assert [n.op for n in after.constants] == ["permute"]
    values = values_of([start, weight])
    assert_close(compiled(Graph((loop.part(0),)), values),
                 interpret(Graph(tuple(unrolled(loop))), values))
