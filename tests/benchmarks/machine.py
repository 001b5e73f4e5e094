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
STATISTICS = Path("/proc/stat")
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


class Others:
    """How busy other processes and other guests of the host keep the machine, from now on.

    Work that is split evenly waits for the slower half, so a neighbour on one core can make it many
    times slower: figures count only where the share is near zero.
    """

    def __init__(self) -> None:
        self._start = self._ticks()

    def share(self) -> float | None:
        """Part of all processors' time that others took so far; None where it cannot be told."""
        if self._start is None or (now := self._ticks()) is None:
            return None
        total, busy = (new - old for new, old in zip(now, self._start, strict=True))
        return max(busy / total, 0.0) if total > 0 else None

    @staticmethod
    def _ticks() -> tuple[float, float] | None:
        """Clock ticks of all processors, and those spent neither idle nor by us or our children."""
        try:
            fields = [int(word) for word in STATISTICS.read_text().split("\n", 1)[0].split()[1:9]]
            ours = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return None
        idle = fields[3] + fields[4]
        return sum(fields), sum(fields) - idle - ours


def describe(contestants: Sequence[str], processors: int, others: float | None = None) -> str:
    """The line that says where figures come from.  others: from `Others.share`."""
    busy = "" if others is None else f", {others:.0%} of the machine taken by other work"
    return (f"{processor_name()}, {processors} processors used{busy}, {platform.system()}; "
            f"{versions(contestants)}; {datetime.date.today().isoformat()}")
