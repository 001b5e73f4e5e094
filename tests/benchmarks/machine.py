"""Which machine, which versions; and giving all contestants the same two processors."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")
TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def prepare(count: int) -> int:
    """Runs this process and its children on so many processors; returns how many it got.  Call it
    before a framework is imported.

    torch.compile gets no worker processes: while they start up, they take the processors from torch
    itself (measured: 230 ms instead of 3 ms for the MLP's step).  `startup` lets it have them.
    """
    processors = _hold_to(count)
    os.environ["NPROC"] = os.environ["OMP_NUM_THREADS"] = str(processors)  # NPROC: for XLA's pool
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ.pop("LAZYGRAD_NUM_THREADS", None)
    return processors


def _hold_to(count: int) -> int:
    """Processors of different cores first, where the system tells them apart."""
    if not hasattr(os, "sched_getaffinity"):
        return min(count, os.cpu_count() or 1)
    allowed = sorted(os.sched_getaffinity(0))
    firsts: dict[str, int] = {}
    for processor in allowed:
        firsts.setdefault(_core(processor), processor)
    kept = list(firsts.values())
    kept = (kept + [processor for processor in allowed if processor not in kept])[:count]
    os.sched_setaffinity(0, kept)
    return len(kept)


def _core(processor: int) -> str:
    try:
        return Path(TOPOLOGY.format(processor)).read_text()
    except OSError:
        return str(processor)


def processor_name() -> str:
    """The model as the processor states it, with LLVM's name for its kind."""
    import llvmlite.binding as llvm

    try:
        found = re.search(r"^model name\s*:\s*(.+)$", PROCESSORS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name} ({llvm.get_host_cpu_name()})"


def versions(contestants: Sequence[str]) -> str:
    """Python's version and those of the contestants' packages."""
    import llvmlite.binding as llvm

    parts = [f"Python {platform.python_version()}",
             f"LLVM {'.'.join(map(str, llvm.llvm_version_info))}"]
    for package in dict.fromkeys(name.partition(".")[0] for name in contestants):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            if package == "lazygrad":
                parts.append("lazygrad from the checkout")
    return ", ".join(parts)


def describe(contestants: Sequence[str], processors: int) -> str:
    """The line that says where figures come from."""
    return (f"{processor_name()}, {processors} processors used, {platform.system()}; "
            f"{versions(contestants)}; {datetime.date.today().isoformat()}")
