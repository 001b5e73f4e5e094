"""`lazygrad explain`, `roofline` and `profile`, and `tensor.explain()`: what they say is so."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy
import pytest

import lazygrad as lg
from lazygrad.explain import fusion, memory, recompile
from lazygrad.explain.watch import Watch
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.fusion.seams import seams
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.ir.text import parse_graph
from lazygrad_compiler.loops.attention import lower_attention
from lazygrad_compiler.loops.cost import cost_of
from lazygrad_compiler.loops.lower import Group
from lazygrad_compiler.pipeline import lower, optimized
from lazygrad_compiler.target import host
from lazygrad_runtime import peak, program, store
from lazygrad_runtime.program import Program
from tests.compiler.random_graphs import random_graph
from tests.lazygrad.cli_tools import Call, fake_peak
from tests.lazygrad.processes import python

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

SCRIPT = """\
import lazygrad as lg

w = lg.ones(8, 4, requires_grad=True)
for rows in (32, 33, 33):
    x = lg.ones(rows, 8)
    x.numpy()
    loss = lg.softmax(x @ w, 1).sum()
    loss.backward()
    print(rows, loss.item(), w.grad.sum().item())
    w.grad = None
"""

COMPILED = """\
import lazygrad as lg

factor = 2.0

@lg.compile
def step(x, scale, more=None):
    return (x * scale * factor).sum()

print(step(lg.ones(32, 3), 2.0).item())
print(step(lg.ones(33, 3), 2.0).item())
print(step(lg.ones(33, 3), 2.5).item())
factor = 4.0
print(step(lg.ones(33, 3), 2.5).item())
print(step(lg.ones(33, 3), 2.5, more=(lg.ones(2),)).item())
print(step(lg.ones(33, 3, dtype=lg.float64), 2.5, more=(lg.ones(3),)).item())
"""


pytestmark = pytest.mark.usefixtures("fresh_cache")


def write(folder: Path, text: str = SCRIPT) -> Path:
    path = folder / "train.py"
    path.write_text(text)
    return path


# ---- fusion


def test_fusion_names_both_lines_the_reason_and_the_bytes(tmp_path: Path, call: Call) -> None:
    code, shown, told = call("explain", "fusion", write(tmp_path))
    assert code == 0, told
    assert "32 32.0 256.0" not in told
    assert re.search(r"^dot float32\[32, 4\] \(train.py:7\) \| max float32\[32\] \(train.py:7\)\n"
                     r"    the kernel kinds do not combine; fusing would save ", shown, re.M)
    code, shown, _ = call("explain", "fusion", tmp_path / "train.py", "--json")
    found = json.loads(shown)
    assert found["schema_version"] == 1
    all_seams = [seam for program in found["programs"] for seam in program["seams"]]
    assert all_seams and all(seam["reason"] != "unknown" for seam in all_seams)
    assert all(seam["producer"]["kernel"] != seam["consumer"]["kernel"] for seam in all_seams)


def test_saved_bytes_count_the_write_where_nobody_else_reads() -> None:
    graph = parse_graph("""graph()
%0 = input(0) : float32[16, 8]
%1 = input(1) : float32[8, 8]
%2 = dot(%0, %1, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)) \
: float32[16, 8]
%3 = sum(%2, axes=(1,)) : float32[16]
%4 = sum(%2, axes=(0, 1)) : float32[]
return %3
""")
    found = seams(graph, partition(graph))
    assert [seam.saved_bytes for seam in found] == [2 * 16 * 8 * 4], "one reader: write and read"
    with_output = Graph((*graph.outputs, graph.outputs[0].inputs[0]))
    found = seams(with_output, partition(with_output))
    assert [seam.saved_bytes for seam in found] == [16 * 8 * 4], "an output is written anyway"


@pytest.mark.parametrize("seed", range(40))
def test_every_seam_of_random_graphs_has_a_reason(seed: int) -> None:
    graph, _ = random_graph(seed, size=25)
    made = optimized(graph)
    parts = partition(made)
    assert [seam for seam in seams(made, parts) if seam.reason is None] == []


EXPLAINED = """\
import contextlib, json, sys
from lazygrad.cli.running import run_script
from lazygrad.dump.describe import describe_program
from lazygrad.dump.listen import dumped
from lazygrad.dump.options import Options
from lazygrad.explain import fusion
from lazygrad.explain.watch import Watch

with Watch() as watch, contextlib.redirect_stdout(sys.stderr):
    assert run_script(sys.argv[1], sys.argv[2:])
json.dump([{"kernels": describe_program(dumped(seen.stages, Options(stages=("fused",)),
                                               seen.number))["kernels"],
            "seams": fusion.describe(seen.stages)} for seen in watch.programs], sys.stdout)
"""


@pytest.mark.parametrize("name, options", [
    ("tour.py", []), ("tutorial.py", []), ("train_digits.py", ["--epochs", "1"]),
    ("char_gpt.py", ["--steps", "1", "--batch-size", "2", "--sample", "1"])])
def test_over_the_examples_no_reason_is_unknown_and_each_kernel_has_a_line(
    name: str, options: list[str], tmp_path: Path
) -> None:
    """Acceptance: zero unknown reasons, and 100 % of kernels carry a user line."""
    (tmp_path / "driver.py").write_text(EXPLAINED)
    done = python("driver.py", EXAMPLES / name, *options, folder=tmp_path,
                  changes={"LAZYGRAD_CACHE_DIR": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    programs = json.loads(done.stdout)
    assert not [seam for program in programs for seam in program["seams"]
                if seam["reason"] == "unknown"]
    kernels = [kernel for program in programs for kernel in program["kernels"]]
    assert len(kernels) >= 5
    for kernel in kernels:
        assert kernel["lines"], kernel
        assert all(line["file"].endswith(".py") and line["line"] for line in kernel["lines"])


# ---- recompile


def test_recompile_names_the_dimension_and_the_line(tmp_path: Path, call: Call) -> None:
    code, shown, _ = call("explain", "recompile", write(tmp_path))
    assert code == 1
    assert "dim 0 of x: 32 -> 33, train.py:5\n" in shown
    assert shown.count("dim 0 of x: 32 -> 33") == shown.count("unlike")


def test_recompile_of_compiled_functions(tmp_path: Path, call: Call) -> None:
    code, shown, _ = call("explain", "recompile", write(tmp_path, COMPILED), "--json")
    found = json.loads(shown)
    assert code == 1
    recordings = [each["changes"] for each in found["recompiles"]
                  if each["what"].startswith("step(...)")]
    assert recordings[0] == ["dim 0 of x: 32 -> 33, train.py:10"]
    assert recordings[1] == ["scale: 2.0 -> 2.5, train.py:11"]
    assert recordings[2] == ["factor: 2.0 -> 4.0, train.py:13"]
    assert recordings[3] == ["arguments given: x, scale -> x, scale, more, train.py:14"]
    assert recordings[4] == ["dtype of x: float32 -> float64, train.py:15",
                             "dim 0 of more[0]: 2 -> 3, train.py:15"]


def test_recompile_names_what_a_guard_saw(tmp_path: Path, call: Call) -> None:
    code, shown, _ = call("explain", "recompile", write(tmp_path, """\
import lazygrad as lg
from lazygrad import nn

model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
optimizer = lg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

@lg.compile
def step(x):
    optimizer.zero_grad()
    loss = model(x).sum()
    loss.backward()
    optimizer.step()
    return loss

x = lg.ones(2, 4)
for _ in range(4):
    step(x).item()
optimizer.param_groups[0]["momentum"] = 0.5
step(x).item()
model[1].p = 0.25
step(x).item()
"""))
    assert code == 1
    assert "SGD's momentum: 0.9 -> 0.5, train.py:19" in shown
    assert "Dropout.p: 0.5 -> 0.25, train.py:21" in shown


def test_a_function_that_is_not_replayed_says_why(tmp_path: Path, call: Call) -> None:
    code, shown, _ = call("explain", "recompile", write(tmp_path, """\
import lazygrad as lg

@lg.compile
def step(x):
    return x * x.sum().item()

print(step(lg.ones(3)).sum().item())
"""))
    assert code == 0
    assert "step(...) is not replayed: a value is needed" in shown


def test_programs_of_other_lines_are_no_recompiles(tmp_path: Path, call: Call) -> None:
    code, shown, told = call("explain", "recompile", write(tmp_path, """\
import lazygrad as lg
print(lg.ones(3).exp().sum().item())
print(lg.ones(4, 4).tanh().sum().item())
"""))
    assert (code, shown) == (0, "")
    assert "2 programs, 0 of them like an earlier one" in told


def test_training_and_evaluating_a_model_are_no_recompiles(tmp_path: Path, call: Call) -> None:
    script = tmp_path / "train.py"
    script.write_text("""\
import lazygrad as lg

w = lg.tensor([[0.5, 1.0], [2.0, 0.25]], requires_grad=True)
for training in (True, False):
    x = lg.ones(3, 2)
    y = lg.softmax(lg.tanh(x @ w), 1).square().sum()
    y.backward() if training else None
    print(y.item(), w.grad.tolist() if training else "")
""")
    code, shown, told = call("explain", "recompile", script)
    assert (code, shown) == (0, "")
    assert "2 programs, 0 of them like an earlier one" in told


def test_differing_operations_are_told_by_line() -> None:
    before = parse_graph("graph()\n%0 = input(0) : float32[41]  # a.py:1\n"
                         "%1 = exp(%0) : float32[41]  # a.py:2\nreturn %1")
    after = parse_graph("graph()\n%0 = input(0) : float32[51]  # a.py:1\n"
                        "%1 = exp(%0) : float32[51]  # a.py:2\n"
                        "%2 = sin(%1) : float32[51]  # a.py:2\nreturn %2, %1")
    assert recompile.operation_changes(before, after) == [
        "more: 1 x sin, a.py:2", "values wanted: 1 -> 2, a.py:2"]
    assert recompile.input_changes_by_line(before, after) == [
        "dim 0 of input 0: 41 -> 51, a.py:1"]


# ---- memory


def test_memory_peak_is_what_a_hand_count_gives() -> None:
    """Two products of 64 KB each and one of 64 KB from them, inputs 3 x 64 KB."""
    graph = parse_graph("""graph()
%0 = input(0) : float32[128, 128]    # a.py:1
%1 = input(1) : float32[128, 128]    # a.py:2
%2 = dot(%0, %1, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)) \
: float32[128, 128]    # a.py:3
%3 = dot(%2, %1, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)) \
: float32[128, 128]    # a.py:4
%4 = dot(%2, %3, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)) \
: float32[128, 128]    # a.py:5
return %4
""")
    described = memory.describe(lower(graph, host()))
    block = 128 * 128 * 4
    assert described["inputs_bytes"] == 2 * block
    assert described["outputs_bytes"] == block
    assert described["arena_bytes"] == 2 * block
    assert described["peak"] == {"kernel": 1, "bytes": 5 * block}
    assert [step["arena_live_bytes"] for step in described["steps"]] == [
        block, 2 * block, 2 * block]
    assert {owner["lines"] for owner in described["owners"]} == {f"a.py:{n}" for n in range(1, 6)}


def test_memory_text_and_picture(tmp_path: Path, call: Call) -> None:
    picture = tmp_path / "memory.svg"
    code, shown, told = call("explain", "memory", write(tmp_path), "--svg", picture)
    assert code == 0, told
    assert re.search(r"^peak [\d.]+ (B|KiB) in kernel \d+; held for the run: ", shown, re.M)
    assert "train.py:7" in shown
    root = ElementTree.fromstring(picture.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("train.py:7" in title for title in titles)


# ---- roofline and profile


def costs(tensor: lg.Tensor) -> list[tuple[int, int]]:
    from lazygrad.dump.tensors import recorded_graph
    stages = lower(recorded_graph([tensor])[0], host())
    return [(cost.flops, cost.nbytes) for cost in
            (cost_of(launch.kernel) for launch in stages.launches)]


def test_flops_and_bytes_equal_hand_counts() -> None:
    m, k, n = 48, 64, 32
    x, w = lg.rand(m, k), lg.rand(k, n)
    x.numpy(), w.numpy()
    assert costs(x @ w) == [(2 * m * k * n, 4 * (m * k + k * n + m * n))]
    assert costs(x.sum()) == [(m * k, 4 * (m * k + 1))]
    assert costs(x.sum(dim=1)) == [(m * k, 4 * (m * k + m))]
    # softmax: maximum, difference, exponential, sum, quotient: five for each element
    assert costs(lg.softmax(x, 1)) == [(5 * m * k, 4 * 2 * m * k)]
    assert costs(x + 1.0) == [(m * k, 4 * 2 * m * k)]
    assert costs(x.T + x.T) == [(m * k, 4 * 2 * m * k)]
    assert costs(x[:8] * 2.0) == [(8 * k, 4 * 2 * 8 * k)], "a slice reads its part only"
    assert costs(lg.relu(x @ w)) == [(2 * m * k * n + costs(lg.relu(x))[0][0] * n // k,
                                      4 * (m * k + k * n + m * n))]


def test_flops_of_attention() -> None:
    operands = [node("input", index=k, dtype=DTYPES["float32"], shape=(2, 3, 16, 8))
                for k in range(3)]
    for causal, scores in ((False, 16 * 16), (True, 16 * 17 // 2)):
        made = node("attention", *operands, scale=0.5, causal=causal, empty_is_zero=False, views=(),
                    dropout=())
        launch, = lower_attention(Group("attention", [made], anchor=made, outputs={made}))
        cost = cost_of(launch.kernel)
        assert cost.flops == 2 * 3 * scores * (2 * 8 + 2 * 8 + 5)
        assert cost.nbytes == 4 * (4 * 2 * 3 * 16 * 8)


def test_roofline_measures_each_kernel(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, "measure_peak", fake_peak)
    picture = tmp_path / "roof.svg"
    script = write(tmp_path)
    code, shown, told = call("roofline", script, "--json", "--svg", picture)
    assert code == 0, told
    assert "33 33.0" in told, "the script computes the same when it is measured"
    found = json.loads(shown)
    for kernel in found["kernels"]:
        assert 0 < kernel["seconds"] <= kernel["total_seconds"] < 3600
        assert kernel["share_of_peak"] == pytest.approx(
            kernel["flops"] / kernel["seconds"] / 1e11)
        assert kernel["share_of_bandwidth"] == pytest.approx(
            kernel["bytes"] / kernel["seconds"] / 2e10)
        assert "train.py:" in kernel["lines"]
    assert {kernel["runs"] for kernel in found["kernels"]} >= {1, 2}, "32 rows once, 33 twice"
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")
    code, shown, _ = call("roofline", script, "--top", "1")
    assert code == 0
    assert shown.startswith("peak of this machine: FMA 100 GFLOP/s")
    assert len(shown.splitlines()) == 4
    assert "kernels more" in shown


def test_profile_writes_a_trace_that_nests(tmp_path: Path, call: Call) -> None:
    trace = tmp_path / "trace.json"
    code, shown, told = call("profile", write(tmp_path), "-o", trace)
    assert code == 0, told
    assert re.search(r"^ *\d+%  +[\d.]+ (us|ms|ns) +\d+ calls  .*train.py:7", shown, re.M)
    found = json.loads(trace.read_text())
    events = [event for event in found["traceEvents"] if event["ph"] == "X"]
    rows: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        assert event["dur"] >= 0
        rows.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    programs, kernels, compiles = rows[1], rows[2], rows[3]
    assert compiles and len(kernels) > len(programs) >= 6
    slack = 1e-3
    for begin, end in kernels:
        assert any(b - slack <= begin and end <= e + slack for b, e in programs)
    for (_, end), (begin, _) in itertools.pairwise(programs):
        assert end <= begin + slack, "programs run one after the other"


def test_the_clock_of_the_entry_is_python_s(tmp_path: Path) -> None:
    """Times lie between readings of time.monotonic around the run."""
    import time

    from lazygrad_runtime.memory import Buffer
    from lazygrad_runtime.timed import TimedProgram
    graph = parse_graph("graph()\n%0 = input(0) : float32[1000]\n%1 = exp(%0) : float32[1000]\n"
                        "%2 = sum(%1, axes=(0,)) : float32[]\nreturn %2, %1")
    from lazygrad_compiler.pipeline import emit_objects, make_artifact
    stages = lower(graph, host())
    program = TimedProgram(stages, make_artifact(stages, emit_objects(stages), 0.0))
    array = numpy.linspace(0, 1, 1000, dtype=numpy.float32)
    before = time.monotonic()
    total, _ = program.run([Buffer.from_numpy(array)])
    after = time.monotonic()
    assert before <= program.times[0] <= program.times[-1] <= after
    assert len(program.times) == len(stages.launches) + 1
    assert program.times == sorted(program.times)
    assert total.as_numpy(numpy.float32, ()) == pytest.approx(float(numpy.exp(array).sum()), 1e-5)


def test_watching_leaves_no_trace() -> None:
    ordinary, callbacks = Program.run, [*store.compile_callbacks, *program.run_callbacks]
    with Watch() as watch:
        assert Program.run is not ordinary
        (lg.rand(5) + 1).numpy()
    assert Program.run is ordinary
    assert [*store.compile_callbacks, *program.run_callbacks] == callbacks
    assert sum(seen.runs for seen in watch.programs) >= 1


# ---- a tensor


def test_tensor_explain_computes_nothing() -> None:
    x = lg.rand(16, 8)
    x.numpy()
    y = lg.softmax(x @ x.T, 1)
    text = y.explain()
    assert y._cell.node.payload is None
    first, *rest = text.splitlines()
    assert re.fullmatch(r"float32\[16, 16\]: pending, \d+ operations in 2 kernels; peak .* KiB",
                        first)
    assert re.fullmatch(r"kernel 0: dot \(test_cli_explain.py:\d+\): 4096 flops, 1.5 KiB",
                        rest[0]), "x is read once"
    assert "the kernel kinds do not combine" in text
    y.numpy()
    assert y.explain() == "float32[16, 16]: the value is there; nothing is pending"


def test_a_graph_of_one_kernel_has_no_seam() -> None:
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(4,))
    stages = lower(Graph((node("exp", x),)), host())
    assert fusion.text(fusion.describe(stages)).startswith("no seam")


def test_code_for_a_gpu_that_is_not_there_is_explained(call, tmp_path):
    """Which template each product and attention takes, and why; tf32 where the script asks."""
    script = tmp_path / "products.py"
    script.write_text("""\
import lazygrad as lg

x, w = lg.randn(64, 128).bfloat16(), lg.randn(128, 64).bfloat16()
q = lg.randn(1, 1, 32, 20)
lg.synchronize()
print((x @ w).sum(), (x.float() @ w.float()[:, :5]).sum())
print(lg.nn.functional.scaled_dot_product_attention(q, q, q).sum())
lg.backends.cuda.matmul.allow_tf32 = True
print((q[0, 0] @ q[0, 0].T).sum())
lg.backends.cuda.matmul.allow_tf32 = False
""")
    code, shown, _ = call("explain", "schedule", script, "--target", "cuda:sm_90a")
    assert code == 0
    for why in ("WgmmaTile(m=64, n=64, why='bfloat16, both operands by tensor maps')",
                "no wgmma: fewer than 64 rows, columns or terms", "float32 is computed strictly",
                "tf32 was asked for"):
        assert why in shown, shown
    assert call("explain", "fusion", script, "--target", "cuda:sm_80")[0] == 0
    code, _, told = call("explain", "memory", script, "--target", "cuda:sm_9")
    assert code == 2 and "no CUDA target 'cuda:sm_9'" in told
