"""`lazygrad tune` and `lg.compile(fn, tune=True)`: what they say, and that nothing else changes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import lazygrad as lg
from lazygrad.explain import tuning
from lazygrad_compiler.artifact import Tuned
from lazygrad_runtime import store, tune
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import forget_programs
from lazygrad_runtime.timed import TimedProgram
from lazygrad_runtime.tuned_schedules import Winner
from tests.lazygrad.cli_tools import caller

SCRIPT = """\
import lazygrad as lg

x = lg.ones(300, 200)
x.numpy()
for _ in range(2):
    print(lg.exp(-x * 2).tanh().sum().item())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCache]:
    own = CompileCache(tmp_path / "cache")
    own.enabled = True
    monkeypatch.setattr(store, "disk", lambda: own)
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LAZYGRAD_CACHE", raising=False)
    monkeypatch.delenv("LAZYGRAD_TUNED", raising=False)
    forget_programs()
    yield own
    forget_programs()


@pytest.fixture
def third_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which whatever is not the default takes half the time."""

    defaults: set[str] = set()

    def timer(program: TimedProgram, inputs: Sequence[Buffer]) -> tuple[list[Buffer], list[float]]:
        outputs = program.run(inputs)
        names = {name for name in program.artifact.objects if name != "program"}
        if not program.artifact.tuning and not defaults:
            defaults.update(names)
        step = 0.002 if names <= defaults else 0.001
        return outputs, [step * number for number in range(len(program.times))]

    ordinary = tune._Search.__init__

    def init(self, stages, kernels, inputs, observer, _timer, seconds):
        defaults.clear()
        ordinary(self, stages, kernels, inputs, observer, timer, seconds)

    monkeypatch.setattr(tune._Search, "__init__", init)


def test_a_script_is_tuned_once(
    tmp_path: Path, third_wins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(capsys)
    script = tmp_path / "net.py"
    script.write_text(SCRIPT)
    code, out, err = call("tune", script)
    assert code == 0
    assert "with another schedule than the default; all programs once take" in out
    assert " 2.00x" in err and "net.py:6" in err and "\r" not in err
    assert call("tune", script)[1].startswith("0 kernels tuned")
    found = json.loads(call("tune", script, "--again", "--json")[1])
    assert any(each["speedup"] == 2.0 and each["tuned"] for each in found["kernels"])
    listed = json.loads(call("cache", "ls", "--json")[1])["entries"]
    assert {"program", "tuned program", "schedule"} == {each["kind"] for each in listed}
    assert ", net.py:" in call("cache", "ls", "--filter", "schedule")[1]
    key = next(each["key"] for each in listed if each["kind"] == "schedule")
    code, out, _ = call("cache", "show", key)
    assert code == 0 and "that were timed" in out
    assert json.loads(call("cache", "show", key, "--json")[1])["winner"]["tried"] > 0
    assert call("cache", "verify", "--recompile")[0] == 0
    code, out, _ = call("dump-ir", script, "--stage", "loops")
    assert code == 0 and "; schedule: tuned, 2.00x over the default" in out


def test_tuned_programs_stay_at_home(
    tmp_path: Path, third_wins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(capsys)
    script = tmp_path / "net.py"
    script.write_text(SCRIPT)
    call("tune", script)
    archive = tmp_path / "programs.zip"
    assert call("cache", "export", archive)[0] == 0
    listed = json.loads(call("cache", "ls", "--json")[1])["entries"]
    tuned = next(each["key"] for each in listed if each["kind"] == "tuned program")
    assert call("cache", "export", tmp_path / "tuned.zip", tuned)[0] == 0
    call("cache", "clear")
    assert "timed on another machine" in call("cache", "import", tmp_path / "tuned.zip")[1]
    assert call("cache", "import", archive)[0] == 0
    listed = json.loads(call("cache", "ls", "--json")[1])["entries"]
    assert {each["kind"] for each in listed} == {"program"}


def test_a_compiled_function_is_tuned_before_its_first_replay(
    third_wins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    x = lg.rand(300, 200)
    lg.synchronize()

    def step(x):
        return lg.exp(-x).tanh(), x.sum(dim=1)

    plain, tuned = lg.compile(step), lg.compile(step, tune=True)
    expected = [each.numpy().tobytes() for each in plain(x)]
    assert not capsys.readouterr().err
    assert [each.numpy().tobytes() for each in tuned(x)] == expected
    assert " 2.00x" in capsys.readouterr().err
    (entry,), = tuned._entries.values()
    assert entry.program.artifact.tuning and not entry.tuning_seconds
    assert [each.numpy().tobytes() for each in tuned(x)] == expected
    assert not capsys.readouterr().err
    later = lg.compile(step, tune=True)
    assert [each.numpy().tobytes() for each in later(x)] == expected
    assert not capsys.readouterr().err  # known by then


@pytest.mark.parametrize("tune", ["yes", None, 0, -1.0, float("nan")])
def test_what_is_no_time_to_tune_is_refused(tune: object) -> None:
    with pytest.raises((TypeError, ValueError), match="tune"):
        lg.compile(lambda x: x, tune=tune)


def test_a_script_is_tuned_for_some_seconds(
    tmp_path: Path, third_wins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(capsys)
    script = tmp_path / "net.py"
    script.write_text(
        "import lazygrad as lg\nprint((lg.ones(90, 70) @ lg.ones(70, 80)).tolist()[0])")
    code, out, _ = call("tune", script, "--seconds", "0.000001")
    assert code == 0 and out.endswith("; time was up before all schedules were timed, the next "
                                      "run goes on\n")
    again = call("tune", script, "--again", "--seconds", "0.000001", "--json")[1]
    assert not json.loads(again)["complete"]
    code, out, _ = call("tune", script)
    assert code == 0 and "time was up" not in out
    assert json.loads(call("tune", script, "--json")[1]) == {
        "schema_version": 1, "kernels": [], "complete": True}
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        code, _, told = call("tune", script, "--seconds", wrong)
        assert code == 2 and "seconds above 0" in told


def test_explain_schedule_says_where_schedules_are_from(
    tmp_path: Path, third_wins: None, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = caller(capsys)
    script = tmp_path / "net.py"
    script.write_text(SCRIPT)
    assert "the default, not yet tuned" in call("explain", "schedule", script)[1]
    call("tune", script)
    code, out, _ = call("explain", "schedule", script)
    assert code == 0 and "tuned, 2.00x over the default: " in out and "not used" not in out
    found = json.loads(call("explain", "schedule", script, "--json")[1])["programs"]
    tuned = [kernel for program in found for kernel in program["kernels"] if kernel["tuned"]]
    assert tuned and all("lines" in kernel and kernel["unused"] == [] for kernel in tuned)
    monkeypatch.setenv("LAZYGRAD_TUNED", "0")
    forget_programs()
    out = call("explain", "schedule", script)[1]
    assert "  not used: tuned, 2.00x over the default (LAZYGRAD_TUNED=0): " in out


def test_tuning_draws_no_random_numbers_and_steps_no_optimiser() -> None:
    def trained(**options) -> list[bytes]:
        lg.manual_seed(3)
        w = lg.randn(40, 30, requires_grad=True)
        optimizer = lg.optim.Adam([w], lr=0.1)

        @lg.compile(**options)
        def step(x):
            loss = lg.nn.functional.dropout(x @ w, 0.5).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        x = lg.randn(20, 40)
        return [step(x).numpy().tobytes() for _ in range(3)] + [w.detach().numpy().tobytes()]

    assert trained(tune=True) == trained()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def outcome(gain: float) -> tune.Outcome:
    graph_kernel = '["LoopSchedule", {"lanes": [16], "grain": %d}]'
    texts = [graph_kernel % grain for grain in (1, 4)]
    winner = Winner(Tuned(texts[gain > 1], gain), texts[0], (0.002 * gain, 0.002), 9)
    return tune.Outcome("k_1", "exp", (("/a/net.py", 6),), winner)


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    for stream in (_Terminal(), io.StringIO()):
        progress = tuning.Progress(stream)
        progress.advanced(5, 10, "compiling")
        progress.decided(outcome(1.5))
        progress.decided(outcome(1.0))
        progress.clear()
        text = stream.getvalue()
        assert ("\r[###############" in text) is stream.isatty()
        lines = [line.split("\r")[-1] for line in text.split("\n") if line.strip("\r ")]
        assert lines == [
            " 1.50x     3 ms -> 2 ms  exp (net.py:6): grain 1 -> 4, of 9 schedules",
            "   -       2 ms  exp (net.py:6): the default, of 9 schedules",
        ]


def test_knobs_that_differ() -> None:
    assert tuning.knobs('["A", {"x": 1, "y": "b"}]', '["A", {"x": 2, "y": "b"}]') == ["x 1 -> 2"]
    assert tuning.knobs('["A", {}]', '["B", {}]') == ["A -> B"]
