"""What `ptxas` makes of a kernel: registers, spills, stack, shared memory.

Kernels of this compiler use no local memory and call nothing; `assembled` fails where one does.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ptx.support import ptxas_path

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a")


@dataclass(frozen=True, slots=True)
class Assembled:
    """What ptxas reports of one kernel.  stack, spills: bytes."""

    registers: int
    stack: int
    spills: int
    report: str


@functools.cache
def ptxas() -> str:
    """Its path; the test is skipped where there is none that knows PTX 9.0."""
    path = ptxas_path()
    if path is None:
        pytest.skip("no ptxas on this machine")
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    release = version.partition("release ")[2].partition(",")[0]
    if not release or int(release.split(".")[0]) < 13:
        pytest.skip(f"ptxas of CUDA {release or 'unknown'}: 13 or later is needed for PTX 9.0")
    return path


def assembled(text: str, arch: str) -> Assembled:
    """Assembles the PTX text of one kernel; AssertionError with the reason where ptxas refuses it,
    where it spills, has a stack or calls something.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text)
        run = subprocess.run(
            [ptxas(), f"-arch={arch}", "-v", str(source), "-o", str(Path(folder) / "kernel.cubin")],
            capture_output=True, text=True,
        )  # fmt: skip
    report = run.stdout + run.stderr
    assert run.returncode == 0, f"{report}\n{text}"
    stack, stores, loads = (
        sum(map(int, re.findall(rf"(\d+) bytes {what}", report)))
        for what in ("stack frame", "spill stores", "spill loads")
    )
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)), default=0)
    made = Assembled(registers, stack, stores + loads, report)
    assert not made.stack and not made.spills, f"local memory on {arch}:\n{report}\n{text}"
    assert not re.search(r"^\s*call[\s.]", text, re.MULTILINE), text
    assert ".local" not in text, text
    return made
