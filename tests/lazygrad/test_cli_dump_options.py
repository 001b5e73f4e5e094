"""`lazygrad dump-ir`: passes, selection, formats, and the same words in LAZYGRAD_DUMP."""

from __future__ import annotations

import filecmp
import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lazygrad as lg
from lazygrad import debug
from lazygrad.__main__ import main
from lazygrad.dump.changes import pass_changes
from lazygrad.dump.layout import layered
from lazygrad.dump.options import make_selection, parse_words
from lazygrad.dump.picture import graph_picture, kernel_picture
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.passes import optimize
from lazygrad_compiler.pipeline import lower, optimized
from lazygrad_compiler.target import host
from tests.lazygrad.processes import python

SCRIPT = """\
import lazygrad as lg

x = lg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
w = lg.tensor([[0.5], [-1.0], [2.0]], requires_grad=True)
hidden = x @ w
loss = lg.exp(-hidden * 1.0).sum()
loss.backward()
print("loss", loss.item())
print(lg.sort(w.detach().reshape(3)).values.sum().item())
"""


pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["dump-ir", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def patched(text: str, diff: str) -> str:
    """The text with a unified diff applied; every line that the diff names must be as it says."""
    old, new, at = text.splitlines(), [], 0
    for line in diff.splitlines()[2:]:
        hunk = re.match(r"@@ -(\d+)(?:,(\d+))? \+", line)
        if hunk:
            start = int(hunk[1]) - (hunk[2] != "0")
            new += old[at:start]
            at = start
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[at] == line[1:]
            new += [line[1:]] * (line[0] == " ")
            at += 1
    return "\n".join(new + old[at:]) + "\n"


# ---- passes


def programs_with_work() -> list[lg.Tensor]:
    x, w = lg.randn(8, 5), lg.randn(5, 4, requires_grad=True)
    normal = lg.nn.functional.layer_norm(x @ w, (4,))
    signal = lg.fft.fft(x[0]).abs()
    return [lg.softmax(normal, dim=1).log().sum(), (x * 1 + 0).T.T[::2].cumsum(0), signal,
            lg.nn.functional.conv2d(lg.randn(1, 2, 6, 6), lg.randn(3, 2, 3, 3))]


@pytest.mark.usefixtures("own_nodes")
def test_the_diffs_of_the_passes_rebuild_the_final_graph() -> None:
    """Acceptance: the per-pass diffs, applied in order to stage graph, give stage opt."""
    graph, _ = debug.recorded_graph(programs_with_work())
    changes = pass_changes(graph)
    text = print_graph(graph)
    assert changes[0].before == text, "the first text is that of stage graph"
    worked = [change for change in changes if change.changed]
    assert len(worked) >= 3
    for change in worked:
        text = patched(text, change.diff())
        assert len(parse_graph(text).nodes()) == change.operations[1]
    assert print_graph(parse_graph(text)) == print_graph(lower(graph, host()).opt)
    assert print_graph(parse_graph(text)) == print_graph(optimized(graph))


def test_a_pass_that_removes_one_operation_has_a_short_diff() -> None:
    """Names stay: what is below a removed operation is no change."""
    x = lg.tensor([1.0, 2.0])
    y = lg.exp(x.neg().neg())
    for _ in range(20):
        y = lg.sin(y)
    graph, _ = debug.recorded_graph([y])
    (change,) = [change for change in pass_changes(graph) if change.changed]
    lines = change.diff().splitlines()[2:]
    assert sum(line.startswith("-%") for line in lines) == 3, "both neg, and exp on other inputs"
    assert sum(line.startswith("+%") for line in lines) == 1


def test_print_changed_names_each_pass_with_its_time_and_counts(
        script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--print-changed=diff", script)
    heads = re.findall(r"# ---- pass \d+ ([\w-]+): (\d+) -> (\d+) operations, [\d.]+ ms --", out)
    assert all(int(after) < int(before) for name, before, after in heads if name == "simplify")
    assert "prepare" in [name for name, _, _ in heads], "a matrix of one column becomes mul and sum"
    assert "---- graph ----" not in out, "no stage was asked for"
    assert out.count("\n+++ b/") == len(heads)
    first = out.split("==== program 001")[0]
    (idle,) = re.findall(r"# ---- passes that changed nothing: (.*) ----", first)
    passes = [change.name for change in pass_changes(debug.recorded_graph([lg.ones(2)])[0])]
    assert {name for name, _ in optimize.PASSES} < set(passes)
    changed = re.findall(r"# ---- pass \d+ ([\w-]+):", first)
    assert sorted([*idle.split(", "), *changed]) == sorted(passes)
    whole = shown(capsys, "--print-changed", script)
    assert "graph(" in whole and "+++ " not in whole
    assert main(["dump-ir", str(script), "--print-changed=nothing"]) == 2


def test_the_files_of_passes_differ_only_in_the_times(script: Path, tmp_path: Path) -> None:
    for number in "12":
        main(["dump-ir", str(script), "--stage", "all", "--print-changed=diff",
              "-o", str(tmp_path / number)])
    first = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*.*"))
    second = sorted(p.relative_to(tmp_path / "2") for p in (tmp_path / "2").rglob("*.*"))
    assert first == second and any(path.suffix == ".diff" for path in first)
    for path in first:
        if path.name != "times.txt":
            assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes()
    main(["dump-ir", str(script), "--stage", "graph", "-o", str(tmp_path / "1")])
    assert not list((tmp_path / "1").rglob("*.diff")), "an older dump's files are deleted"


# ---- other targets


def test_a_gpu_can_be_compiled_for_anywhere(script: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, script, "--target", "cuda:sm_90a", "--stage", "all")
    assert ".visible .entry k_" in out and ".target sm_90a" in out and "---- ptx ----" in out
    assert "---- asm ----" not in out and "for a in" not in out
    again = shown(capsys, script, "--target", "cuda:sm_80", "--stage", "ptx")
    assert ".target sm_80" in again and "sm_90a" not in again
    text = str(lg.dump_ir(lg.exp(lg.ones(3)), stage="ptx", target="cuda:sm_80"))
    assert ".target sm_80" in text


def test_a_target_that_is_none(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump-ir", str(script), "--target", "cuda:sm_7"]) == 2
    assert "--target: no CUDA target 'cuda:sm_7'; there are cuda:sm_100a" in capsys.readouterr().err
    assert main(["dump-ir", str(script), "--target", "cuda:sm_80", "--stage", "asm"]) == 2
    assert "there is no stage 'asm'; the stages are graph" in capsys.readouterr().err


# ---- selection


def test_at_shows_what_came_from_a_line(script: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, script, "--at", "train.py:9", "--stage", "graph,fused,loops,asm")
    assert "==== program 000" not in out and "==== program 001" in out, "the sort is the second"
    assert "an excerpt" in out
    kernels = re.findall(r"^kernel .*$", out, re.MULTILINE)
    assert any("sort" in line for line in kernels)
    assert all(line.endswith("train.py:9") for line in kernels)
    operations = [line for line in out.splitlines() if line.startswith("%")]
    assert operations and all(line.endswith("train.py:9") for line in operations)
    first = shown(capsys, script, "--at", str(script.parent.name + "/train.py:5"))
    assert "dot(" in first and "exp(" not in first.split("---- fused")[0]
    gradients = shown(capsys, script, "--at", f"{script.parent.name}/train.py:6", "--stage", "grad")
    assert "forward exp" in gradients and "dot(" not in gradients
    assert "==== program 001" not in first
    assert "shown" not in first
    assert shown(capsys, script, "--at", "other.py:5") == ""
    main(["dump-ir", str(script), "--at", "train.py:9", "--stage", "graph"])
    assert "2 programs, 2 from the compile cache, 1 shown" in capsys.readouterr().err


def test_filter_takes_operations_and_kernels_and_keeps_their_numbers(
        script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = shown(capsys, script, "--stage", "opt,fused")
    out = shown(capsys, script, "--filter", r"= argsort\(", "--stage", "opt,fused")
    matching = [line for line in everything.splitlines() if "= argsort(" in line]
    assert [line for line in out.splitlines() if line.startswith("%")] == matching != []
    (kernel,) = re.findall(r"^kernel \d+: .*$", out, re.MULTILINE)
    assert kernel in everything.splitlines() and not kernel.startswith("kernel 0")
    assert main(["dump-ir", str(script), "--filter", "("]) == 2
    assert "no regular expression" in capsys.readouterr().err


@pytest.mark.parametrize(("at", "file", "line", "takes"), [
    ("train.py:3", "/home/u/train.py", 3, True),
    ("train.py:3", "/home/u/train.py", 4, False),
    ("train.py:3", "/home/u/mytrain.py", 3, False),
    ("u/train.py:3", "/home/u/train.py", 3, True),
    ("v/train.py:3", "/home/u/train.py", 3, False),
    ("./train.py:3", "train.py", 3, True),
])
def test_at_names_the_end_of_a_path(at: str, file: str, line: int, takes: bool) -> None:
    assert make_selection(None, at).takes("", ((file, line),)) == takes


# ---- formats


def test_json_has_a_schema_and_says_what_the_text_says(
        script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cold = shown(capsys, script, "--format", "json", "--stage", "all")
    assert cold == shown(capsys, script, "--format", "json", "--stage", "all"), "warm as cold"
    document = json.loads(cold)
    assert document["schema"] == 1 and len(document["programs"]) == 2
    for program in document["programs"]:
        assert list(program["stages"]) == ["graph", "grad", "opt", "fused", "loops", "llvm",
                                           "llvm-opt", "asm"]
        graph = parse_graph(program["stages"]["graph"])
        assert [node.op for node in graph.nodes()] == [
            operation["op"] for operation in program["graph"]["operations"]]
        assert len(program["kernels"]) == program["stages"]["fused"].count("\nkernel ") + 1
        for kernel in program["kernels"]:
            assert kernel["lines"][0]["file"] == "train.py"
            assert kernel["operations"] and kernel["bytes_written"] > 0
        assert all(seam["lines"] if "lines" in seam else seam["reason"]
                   for seam in program["seams"])
    assert "/" not in json.dumps(document["programs"][0]["graph"]), "no folders"


def test_figures_of_a_kernel_are_those_counted_by_hand() -> None:
    x, w = lg.zeros(16, 32) + lg.rand(16, 32).detach(), lg.tensor([[1.0] * 8] * 32)
    x.tolist()
    (kernel,) = json.loads(debug.dump_ir(x @ w, format="json"))["programs"][0]["kernels"]
    assert kernel["flops"] == 2 * 16 * 32 * 8
    assert kernel["bytes_read"] == 4 * (16 * 32 + 32 * 8) and kernel["bytes_written"] == 4 * 16 * 8


def test_pictures_parse_and_show_every_operation_in_its_kernel(
        script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, script, "--format", "svg", "--stage", "graph,fused")
    root = ElementTree.fromstring(out)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    said = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "kernel 0: dot+exp+sum" in said or any(
        text.startswith("kernel 0:") for text in said if text)
    assert "dot" in said and "train.py:5" in said
    assert "href" not in out, "a picture alone has nothing to link to"
    assert main(["dump-ir", str(script), "--format", "svg", "-o", str(tmp_path / "p")]) == 0
    names = sorted(path.name for path in (tmp_path / "p").rglob("*.svg"))
    assert names == ["fused.svg", "fused.svg", "graph.svg", "graph.svg"]
    for path in (tmp_path / "p").rglob("*.svg"):
        ElementTree.parse(path)
    capsys.readouterr()
    assert main(["dump-ir", str(script), "--format", "svg", "--stage", "asm"]) == 2
    assert "there is no picture of stage asm; there is of graph" in capsys.readouterr().err


def test_dot_has_a_cluster_for_each_kernel(script: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, script, "--format", "dot", "--stage", "fused")
    assert out.count("digraph ") == 2
    assert out.count("{") == out.count("}") >= 4
    names = set(re.findall(r"^\s+(\w+) \[label", out, re.MULTILINE))
    for start, end in re.findall(r"^  (\w+) -> (\w+);$", out, re.MULTILINE):
        assert start in names and end in names


def test_what_readers_compute_for_themselves_is_drawn_in_each_kernel() -> None:
    graph, _ = debug.recorded_graph(programs_with_work())
    stages = lower(graph, host())
    picture = kernel_picture(stages, tuple(range(len(stages.launches))))
    keys = [item.key for item in picture.items]
    assert len(keys) == len(set(keys))
    assert {key for edge in picture.edges for key in edge} <= set(keys)
    assert len(picture.boxes) == len({id(launch.group) for launch in stages.launches})
    roots = [root for launch in stages.launches for root in launch.group.roots]
    inside = [item for item in picture.items if item.box >= 0]
    assert len(inside) >= len(dict.fromkeys(roots))


@pytest.mark.parametrize("seed", range(4))
def test_layout_puts_nothing_over_something_else(seed: int) -> None:
    import random

    chance = random.Random(seed)
    sizes = {number: (chance.uniform(20, 120), chance.uniform(20, 60)) for number in range(40)}
    edges = [(a, b) for a in sizes for b in sizes if a < b and chance.random() < 0.06]
    layout = layered(sizes, edges)
    assert layout == layered(sizes, edges), "the same each time"
    assert all(0 <= x <= layout.width for stops in layout.stops.values() for x, _ in stops)
    boxes = {key: (x - sizes[key][0] / 2, x + sizes[key][0] / 2,
                   y - sizes[key][1] / 2, y + sizes[key][1] / 2)
             for key, (x, y) in layout.places.items()}
    for a in boxes:
        left, right, top, bottom = boxes[a]
        assert left >= -1e-6 and right <= layout.width + 1e-6
        assert top >= -1e-6 and bottom <= layout.height + 1e-6
        for b in boxes:
            other = boxes[b]
            assert a == b or right <= other[0] + 1e-6 or other[1] <= left + 1e-6 \
                or bottom <= other[2] + 1e-6 or other[3] <= top + 1e-6
    for a, b in edges:
        assert layout.places[a][1] < layout.places[b][1], "edges run down"


def test_layout_of_a_long_chain_and_of_a_circle() -> None:
    chain = layered({n: (10.0, 10.0) for n in range(3000)}, [(n, n + 1) for n in range(2999)])
    assert len(chain.places) == 3000
    circle = layered({n: (10.0, 10.0) for n in range(3)}, [(0, 1), (1, 2), (2, 0)])
    assert len(circle.places) == 3


# ---- the same everywhere


IN_EVERY_FORMAT = """\
import os, sys
from lazygrad.__main__ import main
from lazygrad_runtime import store

for format in ("text", "json", "html"):
    os.environ["LAZYGRAD_CACHE_DIR"] = f"cache-{format}"
    store.disk.cache_clear()
    folder = os.path.join(sys.argv[2], format)
    assert main(["dump-ir", sys.argv[1], "--stage", "all", "--format", format, "-o", folder]) == 0
"""


def test_two_processes_write_the_same_files(script: Path, tmp_path: Path) -> None:
    """Acceptance: cold and warm, with different hash seeds, `diff -r` is empty, in each format."""
    driver = tmp_path / "driver.py"
    driver.write_text(IN_EVERY_FORMAT)
    for seed, found in (("1", 0), ("2", 2)):
        done = python(driver, script, tmp_path / seed, folder=tmp_path,
                      changes={"PYTHONHASHSEED": seed})
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f"2 programs, {found} from the compile cache") == 3, done.stderr
    waiting = [filecmp.dircmp(tmp_path / "1", tmp_path / "2")]
    files = []
    while waiting:
        compared = waiting.pop()
        assert not compared.left_only and not compared.right_only
        for name in compared.common_files:
            files.append(name)
            assert Path(compared.left, name).read_bytes() == Path(compared.right,
                                                                  name).read_bytes()
        waiting += compared.subdirs.values()
    assert {"asm.txt", "program.json", "index.html"} <= set(files)


def test_the_environment_takes_the_same_words(script: Path, tmp_path: Path) -> None:
    def run(wanted: str) -> subprocess.CompletedProcess[str]:
        return python(script, folder=tmp_path, changes={
            "LAZYGRAD_DUMP": wanted, "LAZYGRAD_CACHE_DIR": str(tmp_path / "cache")})

    done = run("--stage graph --format json --at train.py:9")
    assert done.returncode == 0 and done.stdout.startswith("loss")
    assert [p["number"] for p in json.loads(done.stderr)["programs"]] == [1]
    folder = tmp_path / "report"
    done = run(f"graph --format html -o {folder}")
    assert done.stderr == "" and (folder / "index.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(("wanted", "message"), [
    ("graph --format pdf", "--format: there is no format 'pdf'"),
    ("graph -o {file}", "{file} cannot be written: File exists"),
    ("graf", "there is no stage 'graf'"),
])
def test_wrong_words_in_the_environment(wanted: str, message: str, script: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYGRAD_DUMP", wanted.format(file=script))
    debug.install_from_environment.cache_clear()
    with pytest.raises(debug.OptionError) as raised:
        debug.install_from_environment()
    assert str(raised.value).startswith(f"[LAZYGRAD_DUMP] {message.format(file=script)}")


def test_words() -> None:
    assert parse_words("graph,asm").stages == ("graph", "asm")
    options = parse_words("--print-changed=diff --filter 'a b' -o out")
    assert (options.changed, options.output, options.stages) == ("diff", "out", ())
    assert options.selection.pattern is not None and options.selection.pattern.pattern == "a b"
    for wrong in ("--frobnicate", "graph extra", "--at 12", "'open", "--format pdf", "graf"):
        with pytest.raises(debug.OptionError):
            parse_words(wrong)


# ---- the library


def test_dump_ir_takes_format_and_line() -> None:
    x = lg.tensor([1.0, 2.0])
    y = lg.exp(x)
    z = y.sum() * 3
    number = test_dump_ir_takes_format_and_line.__code__.co_firstlineno + 2
    text = lg.dump_ir(z, stage="graph", at=f"test_cli_dump_options.py:{number}")
    assert "exp(" in text and "sum(" not in text and "an excerpt: 1 of" in text
    assert json.loads(lg.dump_ir(z, format="json"))["schema"] == 1
    assert lg.dump_ir(z, format="dot").startswith("digraph ")
    ElementTree.fromstring(lg.dump_ir(z, format="svg"))
    assert lg.dump_ir(z, format="html").startswith("<!DOCTYPE html>")
    assert "# ---- pass" in lg.dump_ir(x.neg().neg(), print_changed="diff")
    with pytest.raises(ValueError, match="there is no format 'pdf'; the formats are text, json"):
        lg.dump_ir(z, format="pdf")
    assert z.item() == pytest.approx(30.32, abs=0.01), "nothing was disturbed"


def test_a_notebook_shows_the_report() -> None:
    dump = lg.dump_ir(lg.exp(lg.tensor([1.0, 2.0])).sum(), stage="graph")
    assert repr(dump) == dump and isinstance(dump, str)
    shown = dump._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "sandbox" in shown
    assert "&lt;svg" in shown and "<svg" not in shown, "a page of its own, escaped"


def test_constants_stand_in_the_operations_that_read_them() -> None:
    stages = lower(debug.recorded_graph([lg.tensor([1.0, 2.0]) * 0.25 + 3])[0], host())
    said = [item.lines[0] for item in kernel_picture(stages, (0,)).items]
    assert said == ["input 0", "mul(·, 0.25)", "add(·, 3)", "result 0"]
    assert not any(item.kind == "const" for item in graph_picture(stages.graph).items)
    only = lower(debug.recorded_graph([lg.full((2,), 0.5)])[0], host())
    assert [item.lines[0] for item in graph_picture(only.graph).items] == ["const 0.5", "result 0"]
