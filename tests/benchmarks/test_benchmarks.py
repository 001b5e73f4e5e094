"""The harness gives a whole table, and refuses to time what is wrong.  No speed is asserted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lazygrad_runtime.peak import Limits, Peak, median_peak
from tests.benchmarks import aims, harness, recording, registry, table
from tests.benchmarks.__main__ import main
from tests.benchmarks.registry import Benchmark

pytestmark = pytest.mark.benchmark

TINY = harness.Effort(rounds=1, seconds=1e-4)
PEAK = Peak(flops=1e12, read=1e10, copy=2e10, threads=2)
TIME = re.compile(r"~?\d+(\.\d+)? (s|ms|us)")


def test_two_rows_make_a_table():
    rows = registry.chosen("record-one-op,replay-mlp-64")
    assert [row.name for row in rows] == ["record-one-op", "replay-mlp-64"]
    results = [harness.run_benchmark(row, ["lazygrad"], TINY, Limits()) for row in rows]
    assert not any(result.notes for result in results)
    head = table.header(["lazygrad"])
    assert head == ["benchmark", "lazygrad", "flops", "bytes", "of peak"]
    assert results[0].peak is None and results[1].peak is not None
    cells = [table.cells(result, ["lazygrad"]) for result in results]
    for row, line in zip(rows, cells, strict=True):
        assert line[0] == row.name
        assert TIME.fullmatch(line[1])
    assert cells[0][2:] == ["–", "–", "–"]
    assert cells[1][2:4] == ["1.05 M", "–"]
    assert re.fullmatch(r"\d+% FMA", cells[1][4])
    lines = table.render([head, *cells]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    page = table.document(results, ["lazygrad"], "a machine", "a command")
    assert [line.count("|") for line in page.splitlines() if line.startswith("|")] == [6] * 4
    assert "a machine" in page and "a command" in page


def test_shares_and_ratios():
    assert PEAK.share(10**12, 10**9, 2.0) == (0.5, "FMA")
    assert PEAK.share(10**9, 10**10, 1.0) == (0.5, "memory")
    assert PEAK.share(0, 0, 1.0) is None
    row = Benchmark(name="row", about="", make=lambda contestant: lambda: None)
    result = harness.Result(row, {"lazygrad": 2e-3, "torch": 5e-3})
    assert table.cells(result, ["lazygrad", "torch", "jax"]) == [
        "row", "2.00 ms", "5.00 ms", "–", "2.50", "–", "–", "–", "–"]


def test_counts_are_short():
    counts = {0: "–", 7: "7", 999: "999", 1000: "1.00 k", 9_996: "10.0 k", 99_960: "100 k",
              999_600: "1.00 M", 48 * 48 * 96: "221 k", 2 * 2048**3: "17.2 G",
              9_999_000_000_000: "9999 G"}
    assert {count: table.show_count(count) for count in counts} == counts


def test_peaks_of_a_run():
    row = Benchmark(name="row", about="", make=lambda contestant: lambda: None)
    measured = [Peak(flops * 1e9, read * 1e9, 3e9, 2) for flops, read in ((5, 2), (9, 1), (6, 4))]
    assert median_peak(measured) == Peak(6e9, 2e9, 3e9, 2)
    assert table.peaks([harness.Result(row, peak=peak) for peak in measured]) == (
        "FMA 6 GFLOP/s (5 to 9), read 2 GB/s (1 to 4), copy 3 GB/s (3 to 3) on 2 threads")
    assert table.peaks([harness.Result(row)]) == "not measured"


def test_aims_are_for_rows_that_exist():
    """Each is one figure, for a row of the table."""
    names = {row.name for row in registry.all_benchmarks()}
    assert {aim.row for aim in aims.AIMS} <= names
    with pytest.raises(ValueError, match="an aim is one figure"):
        aims.Aim("row", seconds=1.0, ratio=1.0)


def test_aims_against_a_run():
    def result(name: str, seconds: dict[str, float], **work: int) -> harness.Result:
        row = Benchmark(name=name, about="", make=lambda contestant: lambda: None, **work)
        return harness.Result(row, seconds, peak=PEAK)

    results = [result("products", {"lazygrad": 2e-3, "torch": 5e-3, "jax": 3e-3}, flops=10**9),
               result("reading", {"lazygrad": 1e-3}, nbytes=9 * 10**6),
               result("failed", {"torch": 1.0})]
    wanted = [aims.Aim("products", seconds=1.5e-3), aims.Aim("products", seconds=0.5e-3),
              aims.Aim("products", ratio=1.5), aims.Aim("products", ratio=2.0),
              aims.Aim("products", ratio=4.0), aims.Aim("products", share=0.6),
              aims.Aim("reading", read=0.8), aims.Aim("reading", ratio=1.0),
              aims.Aim("failed", seconds=1.0), aims.Aim("not run", seconds=1.0)]
    assert aims.lines(results, wanted) == [
        list(aims.HEADER),
        ["products", "1.50 ms", "2.00 ms", "3.00 ms", "1.00 ms", "missed"],
        ["products", "500 us", "2.00 ms", "3.00 ms", "1.00 ms", "missed; below the floor"],
        ["products", "1.5x the best peer", "1.50x", "3.00 ms", "1.00 ms", "met"],
        ["products", "2.0x the best peer", "1.50x", "3.00 ms", "1.00 ms",
         "missed; needs 67% of the peak"],
        ["products", "4.0x the best peer", "1.50x", "3.00 ms", "1.00 ms",
         "missed; below the floor"],
        ["products", "60% of FMA", "50% of FMA", "3.00 ms", "1.00 ms", "missed"],
        ["reading", "80% of read", "90% of read", "–", "450 us", "met"]]


def test_wrong_values_are_not_timed():
    """A peer that computes something else gets no time, and leaves lazygrad none to compare."""
    torch = pytest.importorskip("torch")

    def make(contestant: str) -> registry.Run:
        value = torch.ones(3) if contestant == "torch" else np.full(3, 1.5)
        return lambda: value

    row = Benchmark(name="wrong", about="", make=make, runs_programs=False)
    result = harness.run_benchmark(row, ["lazygrad", "torch"], TINY)
    assert result.disagreed == ["torch", "lazygrad"] and not result.seconds
    assert table.cells(result, ["lazygrad", "torch"])[1:3] == ["WRONG", "WRONG"]


def test_a_call_that_computes_nothing_is_refused():
    row = Benchmark(name="idle", about="", make=lambda contestant: lambda: None)
    result = harness.run_benchmark(row, ["lazygrad"], TINY)
    assert "ran no program" in result.notes["lazygrad"] and not result.seconds


def test_a_contestant_that_fails_does_not_end_the_table():
    def make(contestant: str) -> registry.Run:
        raise NotImplementedError("not yet")

    row = Benchmark(name="broken", about="", make=make)
    result = harness.run_benchmark(row, ["lazygrad"], TINY)
    assert table.cells(result, ["lazygrad"]) == ["broken", "failed", "–", "–", "–"]
    assert table.notes([result]) == ["broken, lazygrad: NotImplementedError: not yet"]


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--peers", "numpy"])
    assert "unknown peers: numpy" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no benchmark is called 'nonsense'"):
        registry.chosen("nonsense")


@pytest.mark.parametrize("name", ["MLP", "DIGITS", "RESNET18", "GPT", "VIT", "UNET", "DLRM"])
def test_flops_of_steps_are_those_that_torch_counts(name):
    """torch counts products and convolutions; its attention on the CPU counts as nothing."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from tests.benchmarks import training

    task = getattr(training, name)
    model = task.model(torch)
    batch = [torch.from_numpy(array.copy()) for array in task.data()]
    with FlopCounterMode(display=False) as counter:
        task.loss(torch, model, *batch).backward()
    attention = {"GPT": training._attention_flops(8, 6, 256, 64, 6) // 2,
                 "VIT": training._attention_flops(8, 3, 197, 64, 12)}.get(name, 0)
    assert counter.get_total_flops() + attention == task.flops


def test_every_operation_of_the_recording_table_records():
    import lazygrad
    import lazygrad.nn

    for requires_grad in (False, True):
        inputs = recording.Inputs(lazygrad, requires_grad)
        for operation in recording.OPERATIONS:
            assert operation.call(lazygrad, inputs) is not None, operation.name
