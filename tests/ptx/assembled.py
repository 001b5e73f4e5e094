"""What `ptxas` makes of a kernel: registers, spills, stack, shared memory.

Kernels of this compiler use no local memory and call nothing; `assembled` fails where one does.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.ptx.support import ptxas

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a")


@dataclass(frozen=True, slots=True)
class Assembled:
    """What ptxas reports of one kernel.  stack, spills: bytes."""

    registers: int
    stack: int
    spills: int
    report: str


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
