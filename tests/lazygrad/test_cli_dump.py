"""`lazygrad dump-ir` and `lazygrad.debug`: every stage of every program, the same each time."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import lazygrad as lg
from lazygrad import debug
from lazygrad.__main__ import main
from lazygrad_compiler import pipeline
from lazygrad_compiler.fusion.partition import Reason
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.pipeline import STAGES
from lazygrad_runtime import store
from tests.lazygrad.processes import python

SCRIPT = """\
import sys
import lazygrad as lg

x = lg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
w = lg.tensor([[0.5], [-1.0], [2.0]], requires_grad=True)
loss = lg.relu(x @ w).sum()
loss.backward()
print("loss", loss.item(), sys.argv[1:])
print(lg.exp(w.detach()).sum().item())
"""

Run = Callable[..., subprocess.CompletedProcess]


pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run("dump-ir", …, environment) -> the finished process."""

    def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
        changes = {"LAZYGRAD_CACHE_DIR": str(tmp_path / "cache"), **environment}
        return python(*arguments, folder=tmp_path, changes=changes)

    return process


CLI = ("-m", "lazygrad", "dump-ir")


def section(text: str, stage: str) -> str:
    """The first program's text of a stage, headings included."""
    (start,) = [p for p in (text.find(f"{mark} ---- {stage} ----") for mark in "#;") if p >= 0]
    ends = [p for p in (text.find("---- ", start + 20), text.find("==== ", start)) if p >= 0]
    return text[start:min(ends) if ends else None].rstrip("#; \n") + "\n"


# ---- determinism


def test_cold_and_warm_dumps_are_identical(script: Path, run: Run) -> None:
    """Every stage, whether the program was compiled, or came from disk, or there is no cache."""
    cold = run(*CLI, script, "--stage", "all", PYTHONHASHSEED="1")
    warm = run(*CLI, script, "--stage", "all", PYTHONHASHSEED="2")
    uncached = run(*CLI, script, "--stage", "all", LAZYGRAD_CACHE="0")
    assert cold.returncode == warm.returncode == uncached.returncode == 0, cold.stderr
    assert "2 programs, 0 from the compile cache" in cold.stderr
    assert "2 programs, 2 from the compile cache" in warm.stderr
    assert cold.stdout == warm.stdout == uncached.stdout
    for stage in STAGES:
        assert cold.stdout.count(f"---- {stage} ----") == 2, stage
    assert str(script.parent) not in cold.stdout, "no folders: dumps of two machines compare"


def test_the_script_runs_the_same_and_its_output_stays_out_of_the_dump(
        script: Path, run: Run) -> None:
    plain = run(script, "--epochs", "3")
    dumped = run(*CLI, script, "--epochs", "3", "--stage", "graph", "--", "-o", "model.pt")
    assert plain.stdout.replace("['--epochs', '3']",
                                "['--epochs', '3', '-o', 'model.pt']") in dumped.stderr
    assert "loss 13.5" in dumped.stderr and "loss" not in dumped.stdout
    assert dumped.stdout.startswith("==== program 000: ")


# ---- what the stages say


@pytest.mark.usefixtures("own_nodes")
def test_stages_show_what_they_promise(script: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["dump-ir", str(script), "--stage", "all"]) == 0
    out = capsys.readouterr().out
    graph = section(out, "graph")
    assert "dot(" in graph and "# train.py:6" in graph
    assert print_graph(parse_graph(graph)) in graph, "the graph parses back, headings and all"
    assert parse_graph(section(out, "opt")).outputs
    assert section(out, "fused").count("kernel 0:") == 1
    assert "parallel for" in section(out, "loops") and "Schedule(" in section(out, "loops")
    assert "define " in section(out, "llvm") and "define " in section(out, "llvm-opt")
    assert "; entry" in section(out, "llvm")
    assert "ret" in section(out, "asm")
    gpu = str(lg.dump_ir(lg.ones(3) * 2, stage="ptx", target="cuda:sm_90a"))
    for stage, lines in debug.EXPLANATIONS.items():
        out = gpu if stage == "ptx" else out
        head = section(out, stage).splitlines()[1:3]
        assert [line[2:] for line in head] == list(lines)


def test_grad_shows_what_backward_added(script: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["dump-ir", str(script), "--stage", "grad"]) == 0
    out = capsys.readouterr().out
    first, second = out.split("==== program 001")
    assert "# 1 gradient of sum float32[]" in first
    assert "forward input : float32[2, 3]" in first, "x is used, not recomputed"
    assert "= dot(" in first and "relu" not in first
    assert first.count("dot(") == 1, "the dot of the forward pass is not part of it"
    assert "no backward pass was recorded for this program" in second


def test_default_stages_and_pipeline_order(script: Path, capsys: pytest.CaptureFixture) -> None:
    def shown() -> list[str]:
        text = capsys.readouterr().out.split("==== program 001")[0]
        return [word for word in text.split() if word in STAGES and f"---- {word} ----" in text]

    main(["dump-ir", str(script)])
    assert list(dict.fromkeys(shown())) == ["graph", "fused", "loops"]
    main(["dump-ir", str(script), "--stage", "asm,graph"])
    assert list(dict.fromkeys(shown())) == ["graph", "asm"]


def test_a_second_dump_in_one_process_shows_all_programs_again(
        script: Path, capsys: pytest.CaptureFixture) -> None:
    for _ in range(2):
        assert main(["dump-ir", str(script), "--stage", "fused"]) == 0
        assert capsys.readouterr().out.count("==== program") == 2
    assert not store.compile_callbacks, "nothing listens any more"


def test_a_stage_that_cannot_be_shown_is_a_finding_but_the_script_runs(
        script: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipeline._RENDER, "asm", lambda stages: 1 // 0)
    assert main(["dump-ir", str(script), "--stage", "asm,graph"]) == 1
    out, err = capsys.readouterr()
    assert "this stage cannot be shown: ZeroDivisionError" in out
    assert "loss 13.5" in err and "graph()" in out


# ---- files


def test_loops_are_shown_at_every_stage_and_every_kernel_has_a_line() -> None:
    layer = lg.nn.LSTM(3, 4)
    x = lg.rand(5, 2, 3)
    lg.synchronize()
    layer(x)[0].sum().backward()
    shown = lg.dump_ir([parameter.grad for parameter in layer.parameters()], stage="all")
    graph, opt, fused = (section(shown, stage) for stage in ("graph", "opt", "fused"))
    for text in (graph, opt):
        assert "= loop(" in text and print_graph(parse_graph(text)) in text
    kernels = re.findall(r"^kernel \d+:.*", fused, re.MULTILINE)
    steps = [line for line in kernels if ", in 5 steps of " in line]
    assert 0 < len(steps) < len(kernels)
    assert all("  # " in line for line in kernels)
    assert "repeat.head" in section(shown, "llvm"), "of the entry"
    assert "cannot be shown" not in shown


@pytest.mark.usefixtures("own_nodes")
@pytest.mark.parametrize("kind", [lg.nn.LSTM, lg.nn.GRU, lg.nn.RNN])
def test_loops_with_the_same_body_name_lines_of_their_own(kind: type) -> None:
    """Two layers of a size have one body; each time its kernels are those of the layer's line."""
    def steps(result: lg.Tensor) -> set[str]:
        shown = lg.dump_ir(result, stage="fused")
        return set(re.findall(r"^kernel .*, in 5 steps of .*  # (.*)$", shown, re.MULTILINE))

    first, second, x = kind(3, 6), kind(3, 6), lg.rand(5, 2, 3)
    lg.synchronize()
    line = inspect.getsourcelines(on_two_lines)[1]
    assert [steps(result) for result in on_two_lines(first, second, x)] == [
        {f"test_cli_dump.py:{line + 1}"}, {f"test_cli_dump.py:{line + 2}"}]


def on_two_lines(first: lg.nn.Module, second: lg.nn.Module, x: lg.Tensor) -> list[lg.Tensor]:
    one = first(x)[0]
    two = second(x)[0]
    return [one, two]


def test_kernels_of_a_loop_say_why_they_are_not_one() -> None:
    layer, x = lg.nn.LSTM(3, 4), lg.rand(5, 2, 3)
    lg.synchronize()
    fused = lg.dump_ir(layer(x)[0], stage="fused")
    refused = re.findall(r"^not fused: (\w+) .* -> (\w+) .*: (.*)$", fused, re.MULTILINE)
    inside = [(producer, why) for producer, reader, why in refused if reader != "loop"]
    assert inside and {producer for producer, _ in inside} == {"add"}, "a product's last operation"
    assert {why for _, why in inside} <= {reason.value for reason in Reason}


@pytest.mark.parametrize("format", ["html", "json"])
def test_a_dump_that_cannot_be_written_at_the_end_is_one_line(
        format: str, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    def broken(programs: object) -> str:
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(f"lazygrad.dump.write.{format}_text", broken)
    folder = ["-o", str(tmp_path / "report")] if format == "html" else []
    assert main(["dump-ir", str(script), "--format", format, *folder]) == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "written to" not in err and "loss" in out + err
    assert (f"lazygrad dump-ir: the {format} of the dump cannot be written: "
            "RuntimeError: no such thing\n") in err


def test_a_report_without_room_for_it_is_one_line(script: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "report" / "index.html").mkdir(parents=True)
    assert main(["dump-ir", str(script), "--format", "html", "-o", str(tmp_path / "report")]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert f"{tmp_path / 'report' / 'index.html'} cannot be written: Is a directory" in err


def test_files_go_where_they_were_asked_for(script: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "dump"
    stale, kept = folder / "007-old", folder / "notes"
    for each in (stale, kept):
        each.mkdir(parents=True)
        (each / "graph.txt").write_text("old")
    assert main(["dump-ir", str(script), "-o", str(folder), "--stage", "graph,asm"]) == 0
    out, err = capsys.readouterr()
    assert "loss 13.5" in out, "the script's output is not in the way"
    assert f"written to {folder}" in err
    assert not stale.exists() and (kept / "graph.txt").read_text() == "old"
    first, second = sorted(path for path in folder.iterdir() if path != kept)
    assert first.name.startswith("000-") and second.name.startswith("001-")
    assert sorted(path.name for path in first.iterdir()) == ["asm.txt", "graph.txt"]
    assert parse_graph((first / "graph.txt").read_text()).outputs


def test_below_a_long_dump_it_is_said_how_to_see_less(
        script: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*options: str) -> str:
        assert main(["dump-ir", str(script), *options]) == 0
        return capsys.readouterr().err

    assert "less of it" not in told(), "this one is short"
    monkeypatch.setattr("lazygrad.cli.dump.LONG", 40)
    hint = re.search(r"^\d+ lines; less of it: --at (train.py:\d+) is what came from one line; "
                     r"as pages with pictures: --format html -o report\n\Z", told(), re.M)
    assert hint
    assert "1 shown" in told("--at", hint[1]), "and that does show something"
    assert "less of it" not in told("--format", "json")


# ---- what goes wrong


def test_script_error_shows_the_traceback_and_what_was_compiled(script: Path, run: Run) -> None:
    script.write_text(SCRIPT + "\ndef broken():\n    raise KeyError('lost')\n\nbroken()\n")
    done = run(*CLI, script, "--stage", "graph")
    assert done.returncode == 1
    assert done.stdout.count("==== program") == 2, "the programs up to the error"
    assert "KeyError: 'lost'" in done.stderr and "in broken" in done.stderr
    assert "runpy" not in done.stderr and "lazygrad/cli" not in done.stderr


@pytest.mark.parametrize(("ending", "code"), [
    ("sys.exit()", 0), ("sys.exit(0)", 0), ("sys.exit(3)", 1), ("sys.exit('no data')", 1),
    ("1 +", 2),
])
def test_how_the_script_ends(script: Path, ending: str, code: int,
                             capsys: pytest.CaptureFixture) -> None:
    script.write_text(f"import sys\n{ending}\n")
    assert main(["dump-ir", str(script)]) == code
    err = capsys.readouterr().err
    assert "no data" in err if "no data" in ending else "no data" not in err
    assert ("SyntaxError" in err) == (ending == "1 +")


def test_a_script_that_looks_at_nothing_is_told_so(script: Path,
                                                   capsys: pytest.CaptureFixture) -> None:
    script.write_text("import lazygrad as lg\ny = lg.tensor([1.0]) + 1\n")
    assert main(["dump-ir", str(script)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "never looked at a value" in err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--stage", "graf"], "there is no stage 'graf'; the stages are graph, grad, opt, fused"),
    (["--stage", ","], "no stage is named; the stages are graph"),
])
def test_unknown_stage_is_a_usage_error(script: Path, arguments: list[str], message: str,
                                        capsys: pytest.CaptureFixture) -> None:
    assert main(["dump-ir", str(script), *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and ", or all" in err
    assert out == "" and "loss" not in err, "the script did not run"


@pytest.mark.parametrize("arguments", [
    [], ["dump-ir"], ["dump-ir", "absent.py"], ["frobnicate"], ["cache"], ["cache", "ls", "--jso"],
    ["cache", "ls", "extra"], ["doctor", "--fix"], ["dump-ir", "--unknown", __file__],
])
def test_wrong_command_lines_are_usage_errors(arguments: list[str],
                                              capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err


@pytest.mark.parametrize("arguments", [["--help"], ["dump-ir", "--help"], ["cache", "--help"],
                                       ["cache", "ls", "--help"], ["doctor", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: lazygrad") and not err
    assert max(map(len, out.splitlines())) <= 100


# ---- LAZYGRAD_DUMP


def test_dump_by_environment(script: Path, tmp_path: Path, run: Run) -> None:
    begin = "from lazygrad import debug; debug.install_from_environment()\n"
    script.write_text(begin + SCRIPT)
    dump, plain = run(script, LAZYGRAD_DUMP="fused,graph"), run(script)
    assert dump.returncode == 0, dump.stderr
    assert dump.stdout == plain.stdout and plain.stderr == ""
    assert "---- graph ----" in dump.stderr and "---- fused ----" in dump.stderr
    to_files = run(script, LAZYGRAD_DUMP="graph", LAZYGRAD_DUMP_DIR=str(tmp_path / "d"))
    assert to_files.stderr == "" and len(list((tmp_path / "d").glob("00?-*/graph.txt"))) == 2
    wrong = run(script, LAZYGRAD_DUMP="graf")
    assert wrong.returncode == 1 and "[LAZYGRAD_DUMP] there is no stage 'graf'" in wrong.stderr


# ---- dump_ir


def test_dump_ir_of_a_pending_tensor_runs_nothing() -> None:
    compiles, hits = store.counters.compiles, store.counters.disk_hits
    x = lg.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = (x @ x).sum()
    text = debug.dump_ir(y, stage="all")
    assert "= dot(" in section(text, "graph") and "test_cli_dump.py" in text
    assert "define " in section(text, "llvm")
    assert (store.counters.compiles, store.counters.disk_hits) == (compiles, hits)
    assert y.item() == 54.0, "and it still computes"


def test_dump_ir_shows_the_gradients_that_backward_would_record() -> None:
    x = lg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    text = debug.dump_ir(lg.sin(x).sum(), stage="grad")
    assert "forward variable" in text and "= cos(" in text and "sin(" not in text
    assert x.grad is None
    assert "no backward pass" in debug.dump_ir(lg.tensor([1.0]) + 1, stage="grad")


def test_dump_ir_of_a_function() -> None:
    w = lg.tensor([1.0, 2.0], requires_grad=True)

    def step(x: lg.Tensor, scale: float) -> None:
        (lg.exp(x * w) * scale).sum().backward()

    text = debug.dump_ir(step, lg.tensor([3.0, 4.0]), scale=2.0, stage=["grad", "graph"])
    number = step.__code__.co_firstlineno + 1
    assert f"test_cli_dump.py:{number}" in text, "the lines inside the function, not of the call"
    assert "= exp(" in section(text, "graph"), "the pending gradient is what it computes"
    assert "# 1 gradient of sum" in section(text, "grad")
    compiled = debug.dump_ir(lg.compile(lambda x: lg.tanh(x)), lg.tensor([1.0]), stage="graph")
    assert "= tanh(" in compiled, "a compiled function is looked into, not run"


def test_dump_ir_names_what_is_wrong() -> None:
    x = lg.tensor([1.0, 2.0]) * 2
    x.tolist()
    with pytest.raises(ValueError, match=r"\[dump_ir\] nothing is pending.*test_cli_dump.py"):
        debug.dump_ir(x)
    with pytest.raises(ValueError, match="there is no stage 'ptx'; the stages are graph"):
        debug.dump_ir(x + 1, stage="ptx")
