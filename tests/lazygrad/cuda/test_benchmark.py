"""The GPU benchmark runs through, over the interpreter with tiny sizes; no speed is asserted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import lazygrad as lg
from lazygrad_runtime.cuda import driver as drivers
from tests.benchmarks import cuda
from tests.ptx.driver import FakeDriver


@pytest.mark.parametrize("names", [
    "replay,chain,row-sum,softmax,matmul-bf16", pytest.param("gpt-step", marks=pytest.mark.slow)
])
def test_rows_make_a_table(
    names: str, fake: FakeDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "contestants", lambda: [cuda.Contestant("lazygrad", lg)])
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- cuda -->\nold\n<!-- end of cuda -->\n")
    assert cuda.main(["--no-tests", "--small", "--only", names, "--page", str(page)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(names.split(","))
    for name, line in zip(names.split(","), lines[2:], strict=True):
        assert re.match(rf"\| {name} \| [\d.e+-]+ (s|ms|us) \|", line), line
    assert "old" not in page.read_text() and names.split(",")[-1] in page.read_text()


def test_a_wrong_result_is_not_timed(fake: FakeDriver) -> None:
    row = cuda.Row("wrong", "x + 1, but one more on the device", 8, 8,
                   lambda n: (np.ones(n, np.float32),),
                   lambda library, t: lambda: t[0] + 1 + t[0].is_cuda)
    result = cuda.measure(row, 8, [], 1, 0.0)
    assert result.problem.startswith("not measured: wrong at size 8: off by")


def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    drivers.install(None)
    if drivers.device_count():
        pytest.skip("there is a device")
    assert cuda.main(["--no-tests"]) == 2
    assert "no NVIDIA driver" in capsys.readouterr().err
