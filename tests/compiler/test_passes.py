"""The passes: every rule fires where it should and nowhere near, and no pass changes a bit.

The cases of the rules are in `rule_cases.py`; each is also run through the interpreter, with
special values in its inputs.  Whole passes run on random graphs, and must keep what it says.
"""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES, DType
from lazygrad_compiler.ir.interpret import evaluate, interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.ir.verify import verify
from lazygrad_compiler.passes import canonicalise, optimize, rewrite, simplify
from lazygrad_compiler.passes.rewrite import Op, RewriteError, RewriteRules, apply
from tests.compiler.error_bounds import assert_close, check
from tests.compiler.random_graphs import random_array, random_graph
from tests.compiler.rule_cases import INF, NAN, RULE_CASES, cast, const, leaf, op, reshape, x, y

RULES = {rule.name: rules for rules in optimize.RULE_SETS for rule in rules.rules}


def values_of(output: Node, seed: int) -> list[numpy.ndarray]:
    """Arrays for the inputs, by index; floats full of special values, indices within 0 and 1."""
    leaves = Graph((output,)).inputs()
    rng = random.Random(seed)
    arrays: list[Any] = [None] * (max((leaf.attrs[0] for leaf in leaves), default=-1) + 1)
    specials = [NAN, INF, -INF, -0.0, 0.0, 1e-40, 3e38, 1.0, -1.5, 2.5]
    for given in leaves:
        if given.dtype is dtypes.int64:
            arrays[given.attrs[0]] = numpy.array([rng.randrange(2) for _ in range(given.size)],
                                                 numpy.int64).reshape(given.shape)
        elif given.dtype.is_floating and seed % 2:
            with numpy.errstate(over="ignore"):
                arrays[given.attrs[0]] = numpy.array(rng.choices(specials, k=given.size)).reshape(
                    given.shape).astype(given.dtype.numpy)
        else:
            arrays[given.attrs[0]] = random_array(rng, given.dtype, given.shape)
    return arrays


ROUNDS_DIFFERENTLY = {"square", "dot_of_permuted_left", "dot_of_permuted_right"}
"""NumPy's float32 pow is not correctly rounded; its einsum adds in the order of memory."""


@pytest.mark.parametrize("rule, before, after", RULE_CASES, ids=[
    f"{rule}-{'stays' if after is None else before.op}" for rule, before, after in RULE_CASES])
def test_rule(rule: str, before: Node, after: Node | None) -> None:
    result = apply(Graph((before,)), RULES[rule].only(rule), strict=True)
    assert result.outputs[0] is (before if after is None else after), print_graph(result)
    if after is None:
        return
    verify(result, dense_inputs=False)
    for seed in range(4):
        arrays = values_of(before, seed)
        expected, got = interpret(Graph((before,)), arrays), interpret(result, arrays)
        error = None if rule in ROUNDS_DIFFERENTLY else numpy.zeros(after.shape)
        assert_close(after, got[0], expected[0], error)


def test_every_rule_has_a_case_and_a_near_miss() -> None:
    assert {rule for rule, _, after in RULE_CASES if after is not None} == set(RULES)
    assert {rule for rule, _, after in RULE_CASES if after is None} == set(RULES)


@functools.cache
def all_values(dtype: DType) -> numpy.ndarray:
    """Every 8- and 16-bit value; of wider types the ends, powers of two and their neighbours."""
    if dtype.kind == "bool":
        return numpy.array([False, True])
    if dtype.bits <= 16:
        return numpy.arange(2**dtype.bits).astype(f"uint{dtype.bits}").view(dtype.numpy)
    if dtype.is_integer:
        low, high = dtype.limits()
        near = {sign * 2**power + step for power in range(64) for sign in (1, -1) for step in (-1,
                                                                                               0,
                                                                                               1)}
        return numpy.array(sorted(v for v in {*near, low, high} if low <= v <= high), dtype.numpy)
    generator = numpy.random.default_rng(0)
    words = generator.integers(0, 2**dtype.bits, 20_000, numpy.uint64).astype(f"uint{dtype.bits}")
    ordinary = generator.standard_normal(5_000) * 10.0 ** generator.integers(-12, 12, 5_000)
    return numpy.concatenate([words.view(dtype.numpy), ordinary.astype(dtype.numpy)])


REALS = [dtype for dtype in DTYPES.values() if not dtype.is_complex]


@pytest.mark.parametrize("source", REALS, ids=str)
def test_lossless_conversions_are_lossless(source: DType) -> None:
    """For every pair of conversions that is merged: the interpreter agrees on every value."""
    values = all_values(source)
    given = node("input", index=0, dtype=source, shape=values.shape)
    merged = 0
    for through in REALS:
        for target in REALS:
            if not canonicalise.converts_directly(source, through, target):
                continue
            twice, once = cast(given, through.name, target.name), cast(given, target.name)
            expected, got = evaluate([twice, once], {given: values})
            assert_close(once, got, expected, numpy.zeros(values.shape))
            merged += 1
    assert merged >= len(REALS)


def test_represents() -> None:
    yes = [("bool", "float16"), ("uint8", "bfloat16"), ("int8", "bfloat16"), ("int16", "float32"),
           ("uint8", "int16"), ("float16", "float32"), ("float32", "complex64"),
           ("int32", "float64")]
    no = [("uint8", "bool"), ("uint8", "int8"), ("int8", "uint16"), ("int32", "float32"),
          ("float16", "bfloat16"),
          ("bfloat16", "float16"), ("float64", "complex64"), ("uint16", "float16"),
          ("float16", "int64")]
    for expected, pairs in ((True, yes), (False, no)):
        for source, target in pairs:
            got = canonicalise.represents(DTYPES[target], DTYPES[source])
            assert got is expected, (source, target)


# ---- the passes on random graphs


def check_passes(seed: int, **choices: Any) -> None:
    graph, arrays = random_graph(seed, **choices)

    def observe(name: str, before: Graph, after: Graph, seconds: float) -> None:
        verify(after, dense_inputs=False)
        for old, new in zip(before.outputs, after.outputs, strict=True):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
        assert seconds >= 0
        check(graph, arrays, interpret(after, arrays))

    optimized = optimize.optimize(graph, observe)
    assert apply(optimized, *optimize.RULE_SETS, strict=True) == optimized, "not at the fixpoint"


@pytest.mark.parametrize("seed", range(150))
def test_passes_keep_values(seed: int) -> None:
    check_passes(seed)


@pytest.mark.parametrize("seed", range(60))
def test_passes_keep_values_of_dense_algebra(seed: int) -> None:
    check_passes(seed, size=30, dtypes=("int32", "bool"), kinds=("elementwise",))


@pytest.mark.parametrize("seed", range(60))
def test_passes_keep_values_of_movement(seed: int) -> None:
    check_passes(seed, size=25, dtypes=("float32",), kinds=("movement", "reduction", "contraction"))


@pytest.mark.slow
def test_passes_keep_values_of_thousands() -> None:
    for seed in range(1000, 6000):
        check_passes(seed, size=seed % 50 + 1)


def test_circles_never_arise() -> None:
    """The rules all together, from graphs that no pass has touched."""
    fired: Counter[str] = Counter()
    for seed in range(100):
        graph, _ = random_graph(seed, size=30)
        apply(graph, *optimize.RULE_SETS, strict=True, fired=fired)
    assert len(fired) > 30


# ---- the driver


def test_observer_sees_each_pass() -> None:
    graph = Graph((op("neg", op("neg", node("variable", x, uid=1))),))
    seen: list[str] = []
    last = graph

    def observe(name: str, before: Graph, after: Graph, seconds: float) -> None:
        nonlocal last
        assert before == last
        seen.append(name)
        last = after

    assert optimize.optimize(graph, observe) == last == Graph((x,))
    assert seen == [name for name, _ in optimize.PASSES]


def test_softmax_of_scaled_scores() -> None:
    """The scale becomes a factor, and adding the negative becomes a difference."""
    graph = parse_graph("""graph()
        %x = input(0) : float32[4, 5]
        %eight = const(8) : float32[4, 5]
        %scores = div(%x, %eight) : float32[4, 5]
        %top = max(%scores, axes=(1,)) : float32[4]
        %top1 = reshape(%top) : float32[4, 1]
        %tops = expand(%top1) : float32[4, 5]
        %low = neg(%tops) : float32[4, 5]
        %shifted = add(%scores, %low) : float32[4, 5]
        return %shifted""")
    assert print_graph(optimize.optimize(graph)) == (
        "graph()\n"
        "%0 = input(0) : float32[4, 5]\n"
        "%1 = const(0.125) : float32[4, 5]\n"
        "%2 = mul(%0, %1) : float32[4, 5]\n"
        "%3 = max(%2, axes=(1,)) : float32[4]\n"
        "%4 = reshape(%3) : float32[4, 1]\n"
        "%5 = expand(%4) : float32[4, 5]\n"
        "%6 = sub(%2, %5) : float32[4, 5]\n"
        "return %6\n"
    )


# ---- the engine


def rules_of(pattern: Op, function: Any) -> RewriteRules:
    rules = RewriteRules("test")
    rules.add(pattern)(function)
    return rules


def test_locations_are_merged() -> None:
    inner = node("neg", leaf(0, shape=(5, 5)), location=(("a.py", 1),))
    outer = node("abs", inner, location=(("a.py", 2),))
    rules = rules_of(Op("abs", Op("neg", rewrite.Any("x"))), lambda x: op("exp", op("floor", x)))
    result, = apply(Graph((outer,)), rules).outputs
    assert result.op == "exp"
    assert result.location == result.inputs[0].location == (("a.py", 2), ("a.py", 1))
    assert result.inputs[0].inputs[0].location == ()


def test_known_nodes_keep_their_location() -> None:
    kept = node("floor", leaf(0, shape=(6, 5)), location=(("a.py", 1),))
    outer = node("abs", node("neg", kept), location=(("a.py", 2),))
    rules = rules_of(Op("abs", Op("neg", rewrite.Any("x"))), lambda x: x)
    result, = apply(Graph((outer,)), rules).outputs
    assert result is kept
    assert kept.location == (("a.py", 1),)


def test_rules_must_keep_dtype_and_shape() -> None:
    rules = rules_of(Op("neg", rewrite.Any("x")), lambda x: reshape(x, 6))
    with pytest.raises(RewriteError, match="rule <lambda> made"):
        apply(Graph((op("neg", x),)), rules)


def test_rules_that_undo_one_another_are_noticed() -> None:
    rules = RewriteRules("circle")
    rules.add(Op("exp", rewrite.Any("x")))(lambda x: op("log", x))
    rules.add(Op("log", rewrite.Any("x")))(lambda x: op("exp", x))
    with pytest.raises(RewriteError, match="in circles"):
        apply(Graph((op("exp", x),)), rules, strict=True)
    assert apply(Graph((op("abs", op("exp", x)),)), rules).outputs[0].op == "abs"


def test_a_rule_that_wraps_what_it_matched_is_noticed() -> None:
    rules = rules_of(Op("exp", rewrite.Any("x"), name="root"), lambda root, x: op("abs", root))
    with pytest.raises(RewriteError, match="in circles"):
        apply(Graph((op("exp", x),)), rules, strict=True)
    assert apply(Graph((op("exp", x),)), rules).outputs[0].op in ("abs", "exp")


def test_rules_that_grow_without_end_are_noticed() -> None:
    rules = rules_of(Op("exp", rewrite.Any("x")), lambda x: op("exp", op("neg", x)))
    with pytest.raises(RewriteError, match="without end"):
        apply(Graph((op("exp", x),)), rules, strict=True)
    assert apply(Graph((op("exp", x),)), rules).outputs[0].op == "exp"


def test_patterns_name_known_operations() -> None:
    with pytest.raises(ValueError, match="no operation plus"):
        Op("plus", rewrite.Any("x"))
    with pytest.raises(KeyError, match="has no rule fold_everything"):
        simplify.rules.only("fold_everything")


def test_same_name_means_same_node() -> None:
    rules = rules_of(Op("add", rewrite.Any("x"), rewrite.Any("x")), lambda x: op("neg", x))
    both = Graph((op("add", x, x), op("add", x, y)))
    assert apply(both, rules).outputs == (op("neg", x), op("add", x, y))


def test_numbers_are_compared_by_sign_and_nan() -> None:
    same = rewrite.same_number
    assert same(NAN, math.nan) and same(1, 1.0) and same(-0.0, -0.0)
    assert same(0, 0.0) and same(True, 1)
    assert not same(0.0, -0.0) and not same(0, -0.0) and not same(NAN, 1.0) and not same(1, 2)


@pytest.mark.parametrize("length", [3_000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_long_chains(length: int) -> None:
    """Deep graphs need no recursion; -(c + -(c' + x)) leaves one difference a link and one neg."""
    current = x
    for number in range(length):
        current = op("neg", op("mul", op("add", current, const(float(number), x)), const(1.0, x)))
    fired: Counter[str] = Counter()
    result = apply(Graph((current,)), *optimize.RULE_SETS, strict=True, fired=fired)
    assert fired["times_one"] == length
    assert len(result.nodes()) == 2 * length + 2
