"""The text form: it says what the graph is, reads back as that graph, and errors have a place."""

from __future__ import annotations

import math

import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Dim, Graph, Node, node
from lazygrad_compiler.ir.text import ParseError, parse_graph, print_graph
from tests.compiler.random_graphs import random_graph


def leaf(index: int = 0, dtype: dtypes.DType = dtypes.float32, shape: tuple = (2, 3)) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def test_reads_like_this() -> None:
    x = leaf()
    total = node("sum", node("mul", x, x), axes=(0, 1), location=(("/home/me/train.py", 12),))
    both = (("/home/me/train.py", 12), ("/home/me/model.py", 3))
    half = node("const", value=0.5, dtype=dtypes.float32, shape=())
    out = node("mul", total, half, location=both)
    parts = node("slice", x, starts=(0, 1), stops=(2, 3), steps=(1, 2))
    assert print_graph(Graph((out, parts))) == (
        "graph()\n"
        "%0 = input(0) : float32[2, 3]\n"
        "%1 = mul(%0, %0) : float32[2, 3]\n"
        "%2 = sum(%1, axes=(0, 1)) : float32[]    # train.py:12\n"
        "%3 = const(0.5) : float32[]\n"
        "%4 = mul(%2, %3) : float32[]    # train.py:12, model.py:3\n"
        "%5 = slice(%0, starts=(0, 1), stops=(2, 3), steps=(1, 2)) : float32[2, 1]\n"
        "return %4, %5\n"
    )
    assert "#" not in print_graph(Graph((out,)), locations=False)
    assert "# /home/me/train.py:12" in print_graph(Graph((out,)), paths="full")


@pytest.mark.parametrize("seed", range(300))
def test_round_trip(seed: int) -> None:
    graph, _ = random_graph(seed)
    assert parse_graph(print_graph(graph)) == graph


@pytest.mark.slow
def test_round_trip_of_ten_thousand() -> None:
    for seed in range(10_000):
        graph, _ = random_graph(seed, size=seed % 40 + 1)
        assert parse_graph(print_graph(graph)) == graph, seed


@pytest.mark.parametrize("value, dtype", [
    (-0.0, dtypes.float32), (0.0, dtypes.float32), (math.nan, dtypes.float64),
    (math.inf, dtypes.bfloat16), (-math.inf, dtypes.float16), (0.1, dtypes.float64),
    (5e-324, dtypes.float64), (1.7976931348623157e308, dtypes.float64), (3, dtypes.float32),
    (True, dtypes.bool_), (-128, dtypes.int8), (2**64 - 1, dtypes.uint64),
    (complex(-0.0, math.nan), dtypes.complex64), (complex(1.5, -math.inf), dtypes.complex128),
])
def test_numbers_survive(value: object, dtype: dtypes.DType) -> None:
    constant = node("const", value=value, dtype=dtype, shape=(2,))
    text = print_graph(Graph((constant,)))
    back, = parse_graph(text).outputs
    assert back is constant
    assert repr(back.attrs[0]) == repr(value)


@pytest.mark.parametrize("value", [-0.0, 0.0, math.nan, 1.0])
def test_numbers_in_attributes_survive(value: float) -> None:
    padded = node("pad", leaf(), low=(1, 0), high=(0, 0), interior=(0, 2), value=value)
    back, = parse_graph(print_graph(Graph((padded,)))).outputs
    assert repr(back.attr("value")) == repr(value)


def test_symbolic_sizes_are_declared() -> None:
    batch = Dim("batch", 1, 128)
    graph = Graph((node("neg", leaf(shape=(batch, 3))),))
    text = print_graph(graph)
    assert text.startswith("graph(batch: 1..128)\n%0 = input(0) : float32[batch, 3]\n")
    assert parse_graph(text) == graph


def test_symbolic_sizes_that_cannot_be_told_apart_are_refused() -> None:
    two = Graph((leaf(0, shape=(Dim("n", 1, 5),)), leaf(1, shape=(Dim("n", 1, 6),))))
    with pytest.raises(ValueError, match="different bounds are called 'n'"):
        print_graph(two)
    with pytest.raises(ValueError, match="'float32' needs a name"):
        print_graph(Graph((leaf(shape=(Dim("float32"),)),)))


@pytest.mark.parametrize("file", ["train.py", "a b, c.py", 'quo"te.py', "<stdin>", "C:\\x\\m.py",
                                  "tab\there.py", "line\nbreak.py", "ünï.py", "x.py:7"])
def test_locations_survive(file: str) -> None:
    location = ((file, 12), ("other.py", 7))
    fresh = node("variable", leaf(), uid=hash(file), location=location)
    text = print_graph(Graph((fresh,)), paths="full")
    del fresh  # else parsing finds this very node
    back, = parse_graph(text).outputs
    assert back.location == location


def test_hand_written_text() -> None:
    graph = parse_graph("""
        # names, blank lines and remarks are free
        graph(n: 0..10)

        %x = input(0): float32[n,3]
        %y = neg ( %x ) : float32[ n, 3 ]   # just a remark: not a location
        return %y, %x,
    """)
    assert [output.op for output in graph.outputs] == ["neg", "input"]
    assert graph.outputs[0].location == ()


def test_no_outputs() -> None:
    assert parse_graph(print_graph(Graph(()))) == Graph(())


HEAD = "graph()\n%0 = input(0) : float32[2, 3]\n"


@pytest.mark.parametrize("text, line, column, message", [
    ("", 1, 1, "without `return`"),
    (HEAD, 3, 1, "without `return`"),
    ("%0 = input(0) : float32[]", 1, 1, "begins with `graph"),
    (HEAD + "%1 = neg(%7) : float32[2, 3]", 3, 10, "%7 is not defined above"),
    (HEAD + "%0 = neg(%0) : float32[2, 3]", 3, 1, "%0 is defined twice"),
    (HEAD + "%1 = nag(%0) : float32[2, 3]", 3, 6, "no operation nag"),
    (HEAD + "%1 = add(%0) : float32[2, 3]", 3, 6, "takes 2 operands, not 1"),
    (HEAD + "%1 = neg(%0) : float32[3, 2]", 3, 16, "gives float32[2, 3] here"),
    (HEAD + "%1 = neg(%0) : float64[2, 3]", 3, 16, "gives float32[2, 3] here"),
    (HEAD + "%1 = neg(%0) : float31[2, 3]", 3, 16, "no dtype float31"),
    (HEAD + "%1 = neg(%0) : float32[2, m]", 3, 27, "expected a value, found m"),
    (HEAD + "%1 = neg(%0 : float32[2, 3]", 3, 13, "expected `)`"),
    (HEAD + "%1 = sum(%0) : float32[]", 3, 6, "needs the attribute axes"),
    (HEAD + "%1 = sum(%0, axis=(0,)) : float32[3]", 3, 14, "is not given axis"),
    (HEAD + "%1 = sum(%0, axes=(2,)) : float32[3]", 3, 6, "axes (2,) of (2, 3)"),
    (HEAD + "%1 = sum(%0, axes=0) : float32[3]", 3, 6, "int"),
    (HEAD + "%1 = sum(%0, 0) : float32[3]", 3, 14, "expected %node or name=value"),
    (HEAD + "%1 = $", 3, 6, "unexpected character '$'"),
    (HEAD + "return %0 %0", 3, 11, "unexpected %0"),
    (HEAD + "return %0\n%1 = neg(%0) : float32[2, 3]", 4, 1, "nothing may follow"),
    ("graph(n: 1..2, n: 1..3)\n", 1, 16, "n already means"),
    ("graph(n: 1..2.5)\n", 1, 13, "not a whole number"),
    ("graph()\n%0 = const(complex(1)) : complex64[]", 2, 12, "takes two numbers"),
])
def test_errors_have_a_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)


def long_chain(length: int) -> Graph:
    x = current = leaf()
    for _ in range(length):
        current = node("add", current, x)
    return Graph((current,))


@pytest.mark.parametrize("length", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_long_graphs(length: int) -> None:
    graph = long_chain(length)
    assert parse_graph(print_graph(graph)) == graph
