"""The GPU benchmark runs through, over the interpreter with tiny sizes; no speed is asserted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lazygrad as lg
from lazygrad_compiler.cuda_target import cuda_target
from lazygrad_runtime.cuda import driver as drivers
from tests.benchmarks import cuda, cuda_ceilings, cuda_measure
from tests.benchmarks.cuda_rows import ROWS, Row
from tests.ptx.assembled import assembled
from tests.ptx.driver import FakeDriver

OURS = [cuda_measure.Contestant("lazygrad", lg)]


@pytest.mark.parametrize("names", [
    "matmul-bf16-mma,softmax,histogram,matmul-tf32",
    pytest.param(",".join(row.name for row in ROWS), marks=pytest.mark.slow),
])
def test_rows_are_measured(names: str, fake: FakeDriver) -> None:
    for row in ROWS:
        if row.name in names.split(","):
            result = cuda_measure.measure(row, row.small, OURS, 1, 0.0)
            assert not result.problem and result.device["lazygrad"] > 0


@pytest.fixture
def worker() -> Iterator[cuda.Worker]:
    started = cuda.Worker(dry=True)
    yield started
    started.stop()


@pytest.mark.slow
def test_a_process_that_ends_costs_one_row(
    worker: cuda.Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the table has all rows."""
    assert "KeyError" in worker.ask("no such row", 60)["problem"]
    assert worker.process is not None
    worker.process.kill()
    assert worker.ask("replay", 60)["problem"].startswith("the process ended with status")
    assert "within 0 s" in worker.ask("replay", 0.0)["problem"]
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- cuda -->\nold\n<!-- end of cuda -->\n")
    assert cuda.main(["--dry-run", "--only", "chain,softmax", "--page", str(page)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    for name in ("chain", "softmax"):
        assert any(re.match(rf"\| {name} \| [\d.]+ (s|ms|us) \|", line) for line in lines), lines
    assert "old" not in page.read_text() and "softmax" in page.read_text()


def test_what_is_not_begun_in_time_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text, complete = cuda.measured(ROWS[:1], True, 0.0, lambda row: row.small)
    assert not complete and "not measured: the time was up" in text


def test_a_wrong_result_is_not_timed(fake: FakeDriver) -> None:
    row = Row("wrong", "x + 1, but one more on the device", 8, 8,
              lambda n: (np.ones(n, np.float32),),
              lambda library, t: lambda: t[0] + 1 + t[0].is_cuda)
    result = cuda_measure.measure(row, 8, [], 1, 0.0)
    assert result.problem.startswith("wrong at size 8: off by") and not result.device


def test_a_contestant_that_cannot_costs_its_own_cell(fake: FakeDriver) -> None:
    """It takes part in the rows that name a mode only; ours is still timed."""

    class Library:
        def compile(self, function: object, mode: str) -> object:
            raise RuntimeError(f"no compiler for {mode}")

        def __getattr__(self, name: str) -> object:
            return getattr(lg, name)

    other = cuda_measure.Contestant("torch.compile", Library(), compiles=True)
    rows = {row.name: row for row in ROWS}
    row = rows["chain"]
    result = cuda_measure.measure(row, row.small, [*OURS, other], 1, 0.0)
    assert not result.problem and list(result.device) == ["lazygrad"]
    assert result.absent == {"torch.compile": "RuntimeError: no compiler for default"}
    shown = cuda.cells(row, dataclasses.asdict(result), ["lazygrad", "torch.compile"], 1000, {})
    assert "none: RuntimeError: no compiler for default" in shown
    assert not other.plays(rows["matmul-bf16"]) and other.plays(rows["gpt-step"])


@pytest.mark.parametrize("ceiling, machine", [
    ("FMA, float32", "FFMA"), ("mma.sync, bfloat16", "HMMA"),
    pytest.param("wgmma, bfloat16", "HGMMA", marks=pytest.mark.slow)])
def test_ceilings_are_what_they_say(ceiling: str, machine: str) -> None:
    found = next(each for each in cuda_ceilings.CEILINGS if each.name == ceiling)
    text, _ = cuda_ceilings.ptx_of(found, cuda_target("sm_90a"), 1000)
    assert machine in assembled(text, "sm_90a").sass()


def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    drivers.install(None)
    if drivers.device_count():
        pytest.skip("there is a device")
    assert cuda.main(["--no-tests"]) == 2
    assert "no NVIDIA driver" in capsys.readouterr().err
