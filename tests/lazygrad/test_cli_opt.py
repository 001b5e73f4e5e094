"""`lazygrad opt`, `run` and `verify`: dumped graphs are read back, optimised, run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy
import pytest

from lazygrad.explain.graphs import first_graph, made_up_inputs, write_inputs
from lazygrad_compiler import pipeline
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.passes.optimize import PASSES, optimize
from tests.compiler.random_graphs import random_graph
from tests.lazygrad.cli_tools import GRAPH, Call, graph_file, plant_rewrite, replace_passes

SCRIPT = """\
import numpy
import lazygrad as lg

x = lg.tensor(numpy.linspace(-1, 1, 12, dtype="float32").reshape(3, 4), requires_grad=True)
loss = (lg.tanh(x) * 2 + 0).sum()
loss.backward()
numpy.savez("live.npz", loss=loss.detach().numpy(), grad=x.grad.numpy(),
            input0=x.detach().numpy())
"""


pytestmark = pytest.mark.usefixtures("fresh_cache")


# ---- opt


def test_opt_prints_a_graph_that_parses_back(tmp_path: Path, call: Call) -> None:
    code, shown, told = call("opt", graph_file(tmp_path), "--verify-each", "--check-each")
    assert code == 0, told
    made = parse_graph(shown)
    assert made == pipeline.optimized(parse_graph(GRAPH))
    assert "mul" not in shown and "net.py:12" in shown


def test_opt_runs_the_passes_that_are_named(tmp_path: Path, call: Call) -> None:
    path = graph_file(tmp_path)
    code, shown, _ = call("opt", path, "--passes=", "--no-locations")
    assert code == 0
    assert shown == print_graph(parse_graph(GRAPH), locations=False)
    code, shown, _ = call("opt", path, "--passes=simplify")
    assert code == 0
    assert parse_graph(shown) == optimize(
        parse_graph(GRAPH), passes=[each for each in PASSES if each[0] == "simplify"])
    code, shown, _ = call("opt", "--list")
    assert shown.split() == [name for name, _ in pipeline.opt_passes()]


def test_opt_reads_standard_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(GRAPH))
    code, shown, _ = call("opt", "-")
    assert code == 0
    assert shown.startswith("graph()\n")


@pytest.mark.parametrize("name", [name for name, _ in PASSES])
def test_check_each_names_the_wrong_pass(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_rewrite(monkeypatch, name)
    code, shown, told = call("opt", graph_file(tmp_path), "--check-each")
    assert (code, shown) == (1, "")
    assert told.startswith(f"lazygrad opt: pass {name} changed the result: output 0[")
    code, shown, _ = call("opt", graph_file(tmp_path))
    assert code == 0, "unchecked, it goes through"


def test_verify_each_names_the_pass_that_made_an_illegal_graph(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(graph: Graph) -> Graph:
        old = graph.outputs[0]
        bad = Node.__new__(Node)
        for slot in ("op", "inputs", "attrs", "identity", "dtype", "location", "differentiable",
                     "payload", "serial"):
            setattr(bad, slot, getattr(old, slot))
        bad.shape = (99,)
        return Graph((bad, *graph.outputs[1:]))

    replace_passes(monkeypatch, [*pipeline.opt_passes(), ("breaks", breaks)])
    code, _, told = call("opt", graph_file(tmp_path), "--verify-each")
    assert code == 1
    assert "pass breaks made an illegal graph" in told


@pytest.mark.parametrize("seed", range(10))
def test_check_each_passes_on_random_graphs(seed: int, tmp_path: Path, call: Call) -> None:
    graph, arrays = random_graph(seed, size=15)
    path, inputs = tmp_path / "random.txt", tmp_path / "random.npz"
    path.write_text(print_graph(graph))
    write_inputs(str(inputs), arrays)
    code, _, told = call("opt", path, "--verify-each", "--check-each", "--inputs", inputs)
    assert code == 0, told


def test_check_each_follows_complex_numbers_through_their_pairs(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ("graph()\n%0 = input(0) : complex64[5]\n%1 = mul(%0, %0) : complex64[5]\n"
            "%2 = exp(%1) : complex64[5]\nreturn %2\n")
    code, _, told = call("opt", graph_file(tmp_path, text), "--check-each", "--verify-each")
    assert code == 0, told


# ---- run


def test_run_of_a_dumped_graph_equals_the_live_program(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    code, _, told = call("dump-ir", "train.py", "--stage", "graph,opt", "-o", "dump")
    assert code == 0, told
    folder, = sorted((tmp_path / "dump").glob("0*-*"))
    with numpy.load("live.npz") as live:
        expected = {name: live[name] for name in ("loss", "grad")}
    for stage in ("graph", "opt"):
        code, _, told = call("run", folder / f"{stage}.txt", "--inputs", "live.npz",
                             "-o", "out.npz")
        assert code == 0, told
        with numpy.load("out.npz") as stored:
            results = {stored[name].shape: stored[name] for name in stored.files}
        assert sorted(results) == [(), (3, 4)]
        for value in expected.values():
            numpy.testing.assert_array_equal(results[value.shape], value)


def test_run_prints_or_gives_json_and_interprets(tmp_path: Path, call: Call) -> None:
    path = graph_file(tmp_path)
    graph = parse_graph(GRAPH)
    expected = interpret(graph, made_up_inputs(graph, 7))
    code, shown, _ = call("run", path, "--seed", "7")
    assert code == 0
    assert shown.startswith("output 0: float32[6]\n[")
    for option in ((), ("--interpret",)):
        code, shown, _ = call("run", path, "--seed", "7", "--json", *option)
        found = json.loads(shown)["outputs"]
        assert code == 0
        assert [each["type"] for each in found] == ["float32[6]", "float32[]"]
        for each, value in zip(found, expected, strict=True):
            numpy.testing.assert_allclose(each["values"], value, rtol=1e-5)


def test_run_keeps_bfloat16_through_an_npz_file(tmp_path: Path, call: Call) -> None:
    path = graph_file(tmp_path, "graph()\n%0 = input(0) : bfloat16[3]\n"
                                "%1 = add(%0, %0) : bfloat16[3]\nreturn %1\n")
    import ml_dtypes
    inputs = tmp_path / "in.npz"
    write_inputs(str(inputs), [numpy.array([1, 2, 3], ml_dtypes.bfloat16)])
    code, shown, told = call("run", path, "--inputs", inputs)
    assert code == 0, told
    assert shown == "output 0: bfloat16[3]\n[2 4 6]\n"


@pytest.mark.parametrize("stored, problem", [
    ({}, "no array for input 0 (float32[6, 8]); it holds nothing"),
    ({"input0": numpy.zeros((6, 8), "f")}, "no array for input 1 (float32[8, 5]); it holds input0"),
    ({"a": numpy.zeros(3)}, "no array for input 0 (float32[6, 8]); it holds a"),
    ({"0": numpy.zeros((6, 8)), "1": numpy.zeros((8, 5), "f")},
     "input 0 is float32[6, 8], and the array float64[6, 8]"),
])
def test_arrays_that_do_not_fit_are_refused(stored: dict, problem: str, tmp_path: Path,
                                            call: Call) -> None:
    numpy.savez(tmp_path / "in.npz", **stored)
    code, _, told = call("run", graph_file(tmp_path), "--inputs", tmp_path / "in.npz")
    assert code == 2
    assert problem in told


def test_made_up_inputs_stay_in_range() -> None:
    graph = parse_graph("graph()\n%0 = input(0) : float32[2, 3]\n%1 = input(1) : int64[5]\n"
                        "%2 = gather(%0, %1, axes=(0,)) : float32[5, 3]\nreturn %2\n")
    assert interpret(graph, made_up_inputs(graph))[0].shape == (5, 3)


# ---- verify


def test_verify(tmp_path: Path, call: Call) -> None:
    path = graph_file(tmp_path)
    code, shown, _ = call("verify", path)
    assert code == 0
    assert shown == f"{path}: legal; 14 nodes, 2 inputs, 2 outputs\n"
    path.write_text(GRAPH.replace("sqrt(%9) : float32[6, 5]", "sqrt(%9) : float32[6, 4]"))
    code, _, told = call("verify", path)
    assert code == 1
    assert f"{path}: line 14, column " in told
    assert "[sqrt] gives float32[6, 5] here" in told


def test_a_dump_of_several_stages_is_read_up_to_its_first_graph(
    tmp_path: Path, call: Call
) -> None:
    text = f"==== program 000 ====\n\n# ---- graph ----\n{GRAPH}\n; ---- loops ----\nloops kernel\n"
    path = graph_file(tmp_path, text)
    assert call("verify", path)[0] == 0
    assert first_graph(text).splitlines()[3] == "graph()", "lines keep their numbers"


@pytest.mark.parametrize("arguments", [
    ("opt",), ("opt", "nowhere.txt"), ("opt", "nowhere.txt", "--passes=nonsense"), ("run",),
    ("run", "nowhere.txt"), ("verify",), ("verify", "nowhere.txt"), ("bisect",),
    ("bisect", "nowhere.txt"), ("bisect", "nowhere.py"), ("reduce", "nowhere.txt"),
    ("repro", "nowhere.py"), ("run", "x", "y")])
def test_wrong_command_lines(arguments: tuple[str, ...], call: Call) -> None:
    code, _, told = call(*arguments)
    assert code == 2
    assert told


def test_a_device_without_end_is_no_graph(call: Call) -> None:
    code, _, told = call("verify", "/dev/zero")
    assert code == 2 and told == (
        "lazygrad: /dev/zero is a device; name a file, or - for standard input\n")
