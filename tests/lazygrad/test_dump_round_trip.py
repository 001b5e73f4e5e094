"""Dumped stages that some parser reads come back from it as they were: graph and opt from our own,
llvm and llvm-opt from LLVM's; and what pictures and JSON are read by is in the tests of formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import llvmlite.binding as llvm
import pytest

import lazygrad as lg
from lazygrad import debug
from lazygrad.dump.stages import heading
from lazygrad_compiler.ir.node import Graph, node, substitute
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.llvm.compile import optimize_text
from lazygrad_compiler.pipeline import Stages, lower
from lazygrad_compiler.target import host
from tests.compiler.random_graphs import random_graph


def network() -> Graph:
    """A kernel of nearly every kind: contraction, convolution, attention, scan, sort, scatter."""
    x, w = lg.rand(24, 32), lg.rand(32, 48, requires_grad=True)
    images, filters = lg.rand(2, 3, 9, 9), lg.rand(4, 3, 3, 3)
    query = lg.rand(1, 2, 16, 8)
    product = lg.tanh(x @ w)
    return debug.recorded_graph([
        lg.softmax(product, dim=1), product.sum(), x.cumsum(0), lg.sort(x, dim=1).values,
        lg.nn.functional.conv2d(images, filters),
        lg.nn.functional.scaled_dot_product_attention(query, query, query),
        lg.zeros(5).index_add(0, lg.tensor([1, 3]), lg.rand(2))])[0]


def programs() -> Iterator[Stages]:
    yield lower(network(), host())
    for seed in range(12):
        yield lower(random_graph(seed, size=15)[0], host())


def on_interned_inputs(graph: Graph) -> Graph:
    """The same graph on inputs that are the one node of their kind, as the parser makes them.

    Those of a recorded program are nodes of their own (`separate_input`), and so is all above them.
    """
    leaves = {leaf: node("input", index=leaf.attrs[0], dtype=leaf.dtype, shape=leaf.shape)
              for leaf in graph.inputs()}
    return Graph(substitute(graph.outputs, leaves))


def test_equal_constants_of_several_lines_are_one_in_a_program() -> None:
    """Results among them, and those in bodies of loops: else `cache verify` calls a program damaged
    whose text comes back with fewer nodes.
    """
    def decayed(total: lg.Tensor, x: lg.Tensor) -> tuple[lg.Tensor, lg.Tensor]:
        total = total * lg.full((), 0.5) + x
        return total, total

    def decayed_elsewhere(total: lg.Tensor, x: lg.Tensor) -> tuple[lg.Tensor, lg.Tensor]:
        total = total * lg.full((), 0.5) + x
        return total, total

    x = lg.tensor([1.0, 2.0, 3.0])
    first, last = lg.arange(3), lg.arange(3)
    results = [first, x * lg.arange(3), last]
    for function in (decayed, decayed_elsewhere):
        results.append(lg.scan(function, lg.tensor(0.0), x * len(results))[1])
    graph = debug.recorded_graph(results)[0]
    text = print_graph(graph, locations=False)
    assert print_graph(parse_graph(text), locations=False) == text
    assert text.count("iota(") == 1 and text.count("body @") == 1
    assert len(graph.outputs) == 5
    assert [value.tolist() for value in results] == [
        [0, 1, 2], [0.0, 2.0, 6.0], [0, 1, 2], [3.0, 7.5, 12.75], [4.0, 10.0, 17.0]]
    first.add_(1)
    assert last.tolist() == [0, 1, 2], "equal results are two tensors all the same"


@pytest.mark.usefixtures("own_nodes")
def test_the_graphs_of_a_dump_come_back_from_their_text() -> None:
    for stages in programs():
        for stage, graph in (("graph", stages.graph), ("opt", stages.opt)):
            text = stages.render(stage)
            back = parse_graph(f"{heading(stage)}\n{text}")  # as the file of the dump holds it
            assert print_graph(back) == text
            assert back == on_interned_inputs(graph)


def through_llvm(text: str) -> str:
    module = llvm.parse_assembly(text)
    module.verify()
    return without_comments(str(module))


def without_comments(text: str) -> str:
    """LLVM notes which blocks lead to one, in no fixed order."""
    return re.sub(r"\s+; preds = .*", "", text)


@pytest.mark.parametrize("optimized", [False, True], ids=["llvm", "llvm-opt"])
def test_the_llvm_of_a_dump_comes_back_from_its_text(optimized: bool) -> None:
    """LLVM prints what we wrote in words of its own, and from then on always the same."""
    for stages in programs():
        texts = [kernel.llvm for kernel in stages.kernels]
        if optimized:
            texts = [optimize_text(text, stages.target) for text in texts]
        else:
            texts.append(stages.entry)
        for text in texts:
            once = through_llvm(text)
            assert through_llvm(once) == once
            if optimized:
                assert once == without_comments(text), "this text is LLVM's own"
