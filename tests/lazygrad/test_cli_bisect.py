"""`lazygrad bisect`, `reduce`, `repro`: planted faults are found, made small, and written down."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

import lazygrad as lg
from lazygrad.dump.tensors import recorded_graph
from lazygrad.explain import bisect
from lazygrad.explain.compare import compiled, difference, interpreted
from lazygrad.explain.failures import failure
from lazygrad.explain.graphs import made_up_inputs
from lazygrad.explain.reduce import Case, reduce_case
from lazygrad_compiler import pipeline
from lazygrad_compiler.decisions import Ledger, ledger, under
from lazygrad_compiler.fusion import prepare
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.passes import complex as complex_pass
from lazygrad_compiler.passes.optimize import PASSES, optimize
from lazygrad_runtime import store
from tests.compiler.random_graphs import random_graph
from tests.lazygrad import cli_tools
from tests.lazygrad.cli_tools import (
    GRAPH,
    Call,
    graph_file,
    plant_in_kernels,
    plant_in_pass,
    plant_on_decision,
    plant_rewrite,
    plant_wrong_erf,
    replace_passes,
)
from tests.lazygrad.processes import python

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

SCRIPT = """\
import lazygrad as lg

x = lg.tensor([[0.5, 1.0], [1.5, 2.0]])
print(lg.exp(x).item() if x.numel() == 1 else (x * 2).sum().item())
y = lg.tanh(x * 3)
print(y.sum().item())
"""


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wrong code must not get into a cache that others read."""
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    store.disk.cache_clear()
    yield
    store.disk.cache_clear()
    store.forget_kernels()


def most_compiles(candidates: int) -> int:
    return math.ceil(math.log2(candidates)) + 1


# ---- bisect


@pytest.mark.parametrize("name", [name for name, _ in PASSES])
def test_a_wrong_rule_is_named_in_whichever_pass_it_is(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewrite(monkeypatch, name)
    code, shown, _ = call("bisect", graph_file(tmp_path), "--json")
    found = json.loads(shown)
    assert code == 1
    assert (found["step"], found["lines"]) == (name, "net.py:5")
    assert found["what"].startswith("planted on <tanh")
    assert found["failure"]["kind"] == "opt"
    assert found["compiles"] <= most_compiles(found["candidates"])


@pytest.mark.parametrize("by_rule", [True, False], ids=["rule", "step"])
@pytest.mark.parametrize("name", [name for name, _ in pipeline.opt_passes()])
def test_a_miscompile_in_any_pass_is_named_and_reduced(
    name: str, by_rule: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance: in each pass of the pipeline in turn, within ceil(log2 n) + 1 compiles; at most
    five operations of the same class are left.
    """
    plant_in_pass(monkeypatch, name, by_rule)
    graph = parse_graph(GRAPH)
    inputs = tuple(made_up_inputs(graph))
    found = bisect.find_culprit(graph, inputs)
    assert found is not None
    assert (found.step, found.failure.kind) == (name, "opt")
    assert (found.decision is not None) == by_rule
    assert found.compiles <= most_compiles(found.candidates)
    reduced = reduce_case(Case(graph, inputs))
    assert reduced is not None
    small, after, _ = reduced
    assert after.kind == found.failure.kind and small.operations <= 5


FUSIONS = 6
"""Decisions of the fusion on GRAPH: values computed inside their readers, and values merged."""


@pytest.mark.parametrize("fusion", range(FUSIONS))
def test_every_decision_of_the_fusion_can_be_the_culprit(
    fusion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance: the one decision is named, whichever it is, and nothing but it."""
    graph = parse_graph(GRAPH)
    inputs = tuple(made_up_inputs(graph))
    with under(Ledger()) as everything:
        partition(pipeline.optimized(graph))
    decisions = [each for each in everything.taken if each.step == "fuse"]
    assert len(decisions) == FUSIONS
    plant_on_decision(monkeypatch, decisions[fusion].number)
    found = bisect.find_culprit(graph, inputs)
    assert found is not None
    assert found.decision == decisions[fusion] and found.step == "fuse"
    assert 1 < found.compiles <= most_compiles(found.candidates)
    reduced = reduce_case(Case(graph, inputs))
    assert reduced is not None
    small, after, _ = reduced
    assert after.kind == "wrong" and small.operations <= 5


def test_a_wrong_merge_is_named(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_in_kernels(monkeypatch, together=True)
    code, shown, _ = call("bisect", graph_file(tmp_path), "--json")
    found = json.loads(shown)
    assert code == 1
    assert found["step"] == "fuse"
    assert re.match(r"<(sum|exp|sqrt) .* (into the kernel of|computed inside)", found["what"])
    assert found["lines"] in ("net.py:8", "net.py:9", "net.py:11", "net.py:12")
    assert 1 < found["compiles"] <= most_compiles(found["candidates"])


def test_wrong_code_is_not_blamed_on_a_decision(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_in_kernels(monkeypatch, together=False)
    code, shown, _ = call("bisect", graph_file(tmp_path), "--json")
    found = json.loads(shown)
    assert (code, found["step"], found["decision"]) == (1, "code generation", None)
    assert found["compiles"] <= most_compiles(found["candidates"])


def test_a_fault_in_prepare_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_conv(conv: object) -> object:
        made = right(conv)
        return node("neg", made)

    graph = parse_graph("""graph()
%0 = input(0) : float32[1, 2, 5]
%1 = input(1) : float32[3, 2, 3]
%2 = exp(%0) : float32[1, 2, 5]
%3 = conv(%2, %1, strides=(1,), padding=((1, 1),), left_dilation=(1,), right_dilation=(1,), \
groups=1) : float32[1, 3, 5]
return %3
""")
    inputs = made_up_inputs(graph)
    assert bisect.find_culprit(graph, inputs) is None
    right = prepare.RULES["conv"]
    monkeypatch.setitem(prepare.RULES, "conv", wrong_conv)
    found = bisect.find_culprit(graph, inputs)
    assert found is not None
    assert (found.step, found.compiles) == ("prepare", 0)
    assert "<conv float32[1, 3, 5]>" in found.what


def test_a_fault_in_split_complex_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parse_graph("""graph()
%0 = input(0) : complex64[4]
%1 = mul(%0, %0) : complex64[4]
return %1
""")
    inputs = made_up_inputs(graph)
    assert bisect.find_culprit(graph, inputs) is None
    monkeypatch.setitem(complex_pass.HANDLERS, "mul", lambda current, parts: parts[0])
    found = bisect.find_culprit(graph, inputs)
    assert found is not None
    assert (found.step, found.compiles) == ("split-complex", 0)


def test_a_right_graph_has_no_culprit(tmp_path: Path, call: Call) -> None:
    code, shown, told = call("bisect", graph_file(tmp_path))
    assert (code, shown) == (0, "")
    assert "agree" in told


def test_a_script_is_checked_on_its_own_values(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    code, _, told = call("bisect", script)
    assert code == 0
    assert "2 runs of 2 programs checked" in told
    plant_rewrite(monkeypatch, "simplify")
    code, shown, told = call("bisect", script)
    assert code == 1
    assert "program 001" in told
    assert shown.startswith("culprit: simplify: planted on <tanh float32[2, 2]> (train.py:5)\n")


def test_every_prefix_of_the_decisions_gives_a_right_program() -> None:
    """What the search rests on: the program is right, whichever decision is the last."""
    for seed in (1, 2, 3):
        graph, inputs = random_graph(seed, size=10)
        expected = interpreted(graph, inputs)
        with under(Ledger()) as everything:
            compiled(graph, inputs)
        for limit in {0, 1, len(everything.taken) // 2, len(everything.taken)}:
            with under(Ledger(limit)) as book:
                got = compiled(graph, inputs)
            assert len(book.taken) == limit
            assert book.taken == everything.taken[:limit]
            assert difference(got, expected, [o.dtype for o in graph.outputs]) is None


def test_without_a_ledger_nothing_is_counted_and_limits_hold_back() -> None:
    graph = parse_graph(GRAPH)
    assert ledger() is None
    whole = len(partition(optimize(graph)).groups)
    with under(Ledger(0)) as book:
        assert optimize(graph) == graph
        assert len(partition(graph).groups) > whole
    assert ledger() is None
    assert book.taken == [] and book.spent


# ---- reduce


def test_reduce_keeps_the_class_and_leaves_little(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewrite(monkeypatch, "canonicalise")
    small = tmp_path / "small.txt"
    code, _, told = call("reduce", graph_file(tmp_path), "-o", small)
    assert code == 1
    assert "-> 1," in told
    text = small.read_text()
    assert text.startswith("# opt: output 0")
    assert "tanh" in text
    assert len(parse_graph(text).nodes()) <= 2
    code, shown, _ = call("bisect", small, "--inputs", f"{small}.npz")
    assert code == 1
    assert "planted on <tanh" in shown


@pytest.mark.parametrize("seed", range(6))
def test_reduce_of_random_graphs_with_a_wrong_merge(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most five operations are left of twenty."""
    random_part, arrays = random_graph(seed, size=20, dtypes=("float32", "int32", "bool"))
    count = len(arrays)
    x = node("input", index=count, dtype=parse_graph(GRAPH).inputs()[0].dtype, shape=(6, 8))
    wrong = node("sum", node("exp", node("tanh", x)), axes=(1,))
    graph = Graph((*random_part.outputs, wrong))
    inputs = (*arrays, numpy.linspace(0, 1, 48, dtype=numpy.float32).reshape(6, 8))
    plant_in_kernels(monkeypatch, together=True)
    before = failure(graph, inputs)
    assert before is not None and before.kind == "wrong"
    reduced = reduce_case(Case(graph, inputs), most=150)
    assert reduced is not None
    small, after, _ = reduced
    assert after.kind == "wrong"
    assert small.operations <= 5, print_graph(small.graph)


def training_step() -> Graph:
    """Forward and backward of a small transformer: several hundred operations."""
    layers = [lg.nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, activation="gelu",
                                            batch_first=True) for _ in range(2)]
    model = lg.nn.Sequential(*layers, lg.nn.Linear(16, 5))
    x = lg.rand(2, 6, 16)
    lg.synchronize()
    loss = lg.log_softmax(model(x), -1)[..., 0].mean()
    gradients = lg.autograd.grad(loss, list(model.parameters()))
    return recorded_graph([loss, *gradients])[0]


def test_reduce_of_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acceptance: of a whole model's step a few operations are left, after few trials."""
    graph = training_step()
    case = Case(graph, tuple(made_up_inputs(graph)))
    assert case.operations > 300
    plant_wrong_erf(monkeypatch)
    reduced = reduce_case(case)
    assert reduced is not None
    small, found, tests = reduced
    assert found.kind == "opt" and small.operations <= 5 and tests < 60
    assert "erf" in [each.op for each in small.graph.nodes()]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["rule", "kernels", "large kernels"])
def test_reduce_of_the_example_s_training_step(
    where: str, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """1,310 operations: 21 to 40 candidates, 9 to 23 seconds on a machine with two cores."""
    if where == "rule":
        plant_wrong_erf(monkeypatch)
    else:
        monkeypatch.setattr(cli_tools, "WRONG_CODE", {"erf": "tanh"})
        plant_in_kernels(monkeypatch, together=where == "large kernels")
    small = tmp_path / "small.txt"
    code, _, told = call("reduce", EXAMPLES / "char_gpt.py", "-o", small, "--steps", "1",
                         "--batch-size", "2", "--sample", "1")
    assert code == 1, told
    left = [each.op for each in parse_graph(small.read_text()).nodes()]
    assert "erf" in left and sum(op != "input" for op in left) <= 5


def test_reduce_of_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    right = prepare.prepare

    def crashes(graph: Graph) -> Graph:
        if any(each.op == "cos" for each in graph.nodes()):
            raise RuntimeError("no cosines today")
        return right(graph)

    replace_passes(monkeypatch, [(name, crashes if name == "prepare" else run)
                                 for name, run in pipeline.opt_passes()])
    graph = parse_graph(GRAPH)
    reduced = reduce_case(Case(graph, tuple(made_up_inputs(graph))))
    assert reduced is not None
    small, found, _ = reduced
    assert (found.kind, small.operations) == ("crash:RuntimeError", 1)
    assert small.graph.outputs[0].op == "cos"


def test_there_is_nothing_to_reduce_in_a_right_graph(tmp_path: Path, call: Call) -> None:
    code, shown, told = call("reduce", graph_file(tmp_path))
    assert (code, shown) == (0, "")
    assert "nothing to reduce" in told


# ---- repro


def test_a_repro_stands_alone(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, repro = tmp_path / "train.py", tmp_path / "repro.py"
    script.write_text(SCRIPT)
    with monkeypatch.context() as faulty:
        plant_rewrite(faulty, "simplify")
        code, _, told = call("repro", script, "-o", repro, "--reduce")
        assert code == 1, told
        with pytest.raises(SystemExit) as ended:
            exec(compile(repro.read_text(), str(repro), "exec"), {})
        assert ended.value.code == 1
    done = python(repro, folder=tmp_path, changes={"LAZYGRAD_CACHE": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "compiled and interpreted results agree\n"


def test_a_program_that_does_not_compile_gets_a_repro(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashes(graph: Graph) -> Graph:
        if any(each.op == "tanh" for each in graph.nodes()):
            raise RuntimeError("no tanh today")
        return graph

    replace_passes(monkeypatch, [*pipeline.opt_passes(), ("crash", crashes)])
    script, repro = tmp_path / "train.py", tmp_path / "repro.py"
    script.write_text(SCRIPT)
    code, _, told = call("repro", script, "-o", repro)
    assert code == 1
    assert "crash:RuntimeError: no tanh today" in told
    assert "tanh" in repro.read_text()


# ---- comparing


def test_comparison_sees_wrong_values_and_not_rounding() -> None:
    graph = parse_graph(GRAPH)
    inputs = made_up_inputs(graph)
    dtypes = [output.dtype for output in graph.outputs]
    expected = interpreted(graph, inputs)
    values = [value.copy() for value in interpret(graph, inputs)]
    assert difference(values, expected, dtypes) is None
    values[0][3] *= numpy.float32(1 + 1e-6)
    assert difference(values, expected, dtypes) is None
    values[0][3] += 0.01
    found = difference(values, expected, dtypes)
    assert found is not None
    assert (found.output, found.place, found.elements) == (0, (3,), 1)
    values[0][3] = math.nan
    assert difference(values, expected, dtypes) is not None


def test_rounding_does_not_add_up_to_blindness() -> None:
    """What is allowed for rounding stays small through the layers of a model."""
    x = lg.rand(4, 16)
    weights = [lg.rand(16, 16) - 0.5 for _ in range(16)]
    lg.synchronize()
    for weight in weights:
        x = lg.nn.functional.gelu(lg.nn.functional.layer_norm(x, (16,)) @ weight)
    graph = recorded_graph([x])[0]
    (expected,) = interpreted(graph, made_up_inputs(graph))
    assert 0 < expected.slack < 1e-3 * numpy.abs(expected.value).max()


def test_what_cancels_is_allowed_for() -> None:
    """The sum in another order differs from this one by rounding alone, and from 0 by as much."""
    graph = parse_graph("""graph()
%0 = input(0) : float32[5000]
%1 = sum(%0, axes=(0,)) : float32[]
%2 = flip(%0, axes=(0,)) : float32[5000]
%3 = cos(%2) : float32[5000]
%4 = sum(%3, axes=(0,)) : float32[]
%5 = cos(%0) : float32[5000]
%6 = sum(%5, axes=(0,)) : float32[]
%7 = sub(%4, %6) : float32[]
return %7
""")
    (expected,) = interpreted(graph, made_up_inputs(graph))
    assert 1e-5 < expected.slack < 1
    assert difference([numpy.float32(3e-4)], [expected], [graph.outputs[0].dtype]) is None
    assert difference([numpy.float32(3)], [expected], [graph.outputs[0].dtype]) is not None
