"""What this process may use of the machine: processors and memory, containers included.

A container sees all processors and all memory of its host; the limits that hold are in the control
group files. They nest, so the smallest limit from the process's group up to the root counts.
Every function takes the files' location, for tests.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

PROCESS_GROUPS = Path("/proc/self/cgroup")
GROUP_ROOT = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _group_folders(controller: str, groups: Path, root: Path) -> Iterator[Path]:
    """Folders that limit `controller` for this process, innermost first, version 2 then 1."""
    for line in _read(groups).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            mount = root
        elif controller in names.split(","):
            mount = root / controller
        else:
            continue
        folder = Path(path.lstrip("/"))
        if ".." in folder.parts:  # a group outside our namespace: only the root is visible
            folder = Path()
        for inner in (folder, *folder.parents):
            yield mount / inner


def cpu_quota(groups: Path = PROCESS_GROUPS, root: Path = GROUP_ROOT) -> float | None:
    """Processors' worth of time per second that the control groups allow; None when unlimited."""
    quotas = []
    for folder in _group_folders("cpu", groups, root):
        words = _read(folder / "cpu.max").split()
        if len(words) != 2:
            words = (
                _read(folder / "cpu.cfs_quota_us") + _read(folder / "cpu.cfs_period_us")
            ).split()
        try:
            quota, period = (int(word) for word in words)
        except ValueError:  # absent, or the word "max"
            continue
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def usable_cpus(groups: Path = PROCESS_GROUPS, root: Path = GROUP_ROOT) -> int:
    """Processors worth a thread each: the affinity mask, cut by the control groups' quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = cpu_quota(groups, root)
    if quota is not None:
        count = min(count, math.ceil(quota))
    return max(1, count)


def memory_limit(
    groups: Path = PROCESS_GROUPS, root: Path = GROUP_ROOT, info: Path = MEMORY_INFO
) -> int | None:
    """Bytes that this process can ever back: memory and swap, cut by the control groups' limit."""
    limits = []
    total = 0
    for line in _read(info).splitlines():
        if line.startswith(("MemTotal:", "SwapTotal:")):
            total += int(line.split()[1]) * 1024
    if total:
        limits.append(total)
    for folder in _group_folders("memory", groups, root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limit = int(_read(folder / name))
            except ValueError:  # absent, or the word "max"
                continue
            if limit > 0:
                limits.append(limit)
    return min(limits, default=None)


def memory_left(
    groups: Path = PROCESS_GROUPS, root: Path = GROUP_ROOT, info: Path = MEMORY_INFO
) -> int | None:
    """Bytes that may be touched now beyond what all processes hold, on the machine and in the
    control groups; pages that only cache files count as left.  None where nobody says.
    """
    left = []
    words = dict(line.split(":", 1) for line in _read(info).splitlines() if ":" in line)
    if "MemAvailable" in words:
        swap = words.get("SwapFree", "0 kB")
        left.append(sum(int(each.split()[0]) * 1024 for each in (words["MemAvailable"], swap)))
    for folder in _group_folders("memory", groups, root):
        for limit, used in (("memory.max", "memory.current"),
                            ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                bound, held = int(_read(folder / limit)), int(_read(folder / used))
            except ValueError:  # absent, or the word "max"
                continue
            if 0 < bound < 1 << 62:
                left.append(max(0, bound - held + _file_cache(folder)))
    return min(left, default=None)


def _file_cache(folder: Path) -> int:
    """Bytes of a control group that only cache files, those of the groups within included."""
    counts = dict(line.split() for line in _read(folder / "memory.stat").splitlines()
                  if len(line.split()) == 2)
    names = ("active_file", "inactive_file")
    return sum(int(counts.get(f"total_{name}", counts.get(name, "0"))) for name in names)
