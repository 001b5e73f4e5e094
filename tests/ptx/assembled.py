"""What `ptxas` makes of a kernel: registers, spills, stack, shared memory.

Kernels of this compiler use no local memory and call nothing; `assembled` fails where one does.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ptx.support import ptxas

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a")


@dataclass(frozen=True, slots=True)
class Assembled:
    """What ptxas makes of one kernel, and says.  stack, spills: bytes."""

    registers: int
    stack: int
    spills: int
    report: str
    cubin: bytes

    def sass(self) -> str:
        """The machine code, as nvdisasm writes it."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            run = subprocess.run([nvdisasm(), "-c", file.name], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout


@functools.cache
def nvdisasm() -> str:
    """Its path: on PATH, or in the wheel of `[test-cuda]`; skips where there is none."""
    found = shutil.which("nvdisasm") or next(
        (str(each) for folder in sys.path for each in Path(folder).glob("nvidia/cu*/bin/nvdisasm")),
        None,
    )
    if found is None:
        pytest.skip("no nvdisasm on this machine")
    return found


def assembled(text: str, arch: str) -> Assembled:
    """Assembles the PTX text of one kernel; AssertionError with the reason where ptxas refuses it,
    where it spills, has a stack or calls something, or serialises products of a warpgroup.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, made_here = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(text)
        run = subprocess.run(
            [ptxas(), f"-arch={arch}", "-v", str(source), "-o", str(made_here)],
            capture_output=True, text=True,
        )  # fmt: skip
        cubin = made_here.read_bytes() if run.returncode == 0 else b""
    report = run.stdout + run.stderr
    assert run.returncode == 0, f"{report}\n{text}"
    stack, stores, loads = (
        sum(map(int, re.findall(rf"(\d+) bytes {what}", report)))
        for what in ("stack frame", "spill stores", "spill loads")
    )
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)), default=0)
    made = Assembled(registers, stack, stores + loads, report, cubin)
    assert not made.stack and not made.spills, f"local memory on {arch}:\n{report}\n{text}"
    assert "erialize" not in report, report
    assert not re.search(r"^\s*call[\s.]", text, re.MULTILINE), text
    assert ".local" not in text, text
    return made
