"""`roofline`: how near each kernel comes to what this machine can do.

A kernel's time is measured while the script runs, by programs that read the clock between launches
(`lazygrad_runtime.timed`); the best run counts, and the first is left out where there are others
(fresh memory).  Operations and bytes come from the loop IR (`lazygrad_compiler.loops.cost`).  The
roof is measured in the same process: a loop of multiply-adds, and passes over 256 MB
(`lazygrad_runtime.peak`).  See Williams, Waterman, Patterson, Roofline, CACM 52(4), 2009.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lazygrad.explain.lines import place
from lazygrad.explain.svg import PALETTE, Picture
from lazygrad.explain.watch import Seen
from lazygrad_compiler.binding import in_order
from lazygrad_compiler.ir.node import Location
from lazygrad_compiler.loops.cost import Cost, cost_of
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.peak import Peak
from lazygrad_runtime.program import Program
from lazygrad_runtime.timed import TimedProgram


class Timing:
    """The `on_run` of a watch that runs each program as its measured variant.

    on_times: called as on_times(seen, times) after each run, `times` as of `TimedProgram`.
    """

    def __init__(self, on_times: Callable[[Seen, list[float]], None]) -> None:
        self.on_times = on_times
        self._timed: dict[int, TimedProgram] = {}

    def __call__(self, seen: Seen, program: Program, inputs: Sequence[Buffer],
                 donated: Mapping[int, Buffer] | None, run: Any) -> list[Buffer]:
        timed = self._timed.get(seen.number)
        if timed is None:
            timed = self._timed[seen.number] = TimedProgram(seen.stages, seen.artifact)
        outputs = timed.run(inputs, donated)
        self.on_times(seen, timed.times)
        return outputs


@dataclass(slots=True)
class KernelTimes:
    """One launch of one program over all its runs, in seconds."""

    program: int
    launch: int
    kernel: str
    about: str
    location: Location
    cost: Cost
    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.seconds[1:] or self.seconds)

    def described(self, peak: Peak) -> dict[str, Any]:
        flops, nbytes, best = self.cost.flops, self.cost.nbytes, self.best
        share = peak.share(flops, nbytes, best)
        return {
            "program": self.program, "launch": self.launch, "kernel": self.kernel,
            "about": self.about, "lines": place(self.location), "flops": flops, "bytes": nbytes,
            "intensity": self.cost.intensity, "runs": len(self.seconds), "seconds": best,
            "total_seconds": sum(self.seconds), "gflops_per_second": flops / best / 1e9,
            "gbytes_per_second": nbytes / best / 1e9, "share_of_peak": flops / best / peak.flops,
            "share_of_bandwidth": nbytes / best / peak.bandwidth,
            "bound": share[1] if share else None,
        }


class Collector:
    """Times by program and launch."""

    def __init__(self) -> None:
        self.kernels: dict[tuple[int, int], KernelTimes] = {}

    def __call__(self, seen: Seen, times: list[float]) -> None:
        launched = in_order(seen.stages.bound)
        for (number, _), (begin, end) in zip(launched, itertools.pairwise(times), strict=True):
            found = self.kernels.get((seen.number, number))
            if found is None:
                launch = seen.stages.launches[number]
                found = self.kernels[seen.number, number] = KernelTimes(
                    seen.number, number, seen.stages.names[number], launch.about,
                    launch.location, cost_of(launch.kernel))
            found.seconds.append(max(end - begin, 1e-9))


def text(rows: Sequence[dict[str, Any]], peak: Peak) -> str:
    """The table, the kernels that took most time first."""
    head = ("time", "runs", "flops", "bytes", "flop/B", "GFLOP/s", "GB/s", "of peak", "of memory",
            "kernel")
    cells = [head]
    for row in rows:
        cells.append((
            duration(row["seconds"]), str(row["runs"]), count(row["flops"]), count(row["bytes"]),
            f"{row['intensity']:.2f}", f"{row['gflops_per_second']:.1f}",
            f"{row['gbytes_per_second']:.1f}", f"{row['share_of_peak']:.0%}",
            f"{row['share_of_bandwidth']:.0%}",
            f"{row['program']:03}.{row['launch']} {row['about']} ({row['lines']})"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(head) - 1)]
    lines = ["  ".join([*(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=False)),
                        line[-1]]) for line in cells]
    return "\n".join([f"peak of this machine: {peak}", *lines])


def duration(seconds: float) -> str:
    """0.00012 -> 120 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def count(number: float) -> str:
    """1234567 -> 1.23M; whole below 10,000."""
    if number < 10_000:
        return str(int(number))
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1e3:.3g}k"


def picture(rows: Sequence[dict[str, Any]], peak: Peak) -> str:
    """SVG: intensity to the right, speed upwards, both logarithmic; the roof; a dot a kernel, whose
    area says how much of the time it took.
    """
    dots = [row for row in rows if row["flops"] and row["bytes"]]
    left, top, width, height = 70.0, 40.0, 640.0, 380.0
    low_x, high_x = -4.0, 10.0  # powers of two, flop per byte
    roof = math.log2(peak.flops / 1e9)
    slowest = min((row["gflops_per_second"] for row in dots), default=1.0)
    low_y, high_y = min(math.floor(math.log2(max(slowest, 1e-6))) - 1.0, roof - 8), roof + 1
    low_x = min(low_x, *(math.log2(row["intensity"]) - 1 for row in dots), low_x)
    high_x = max(high_x, *(math.log2(row["intensity"]) + 1 for row in dots), high_x)
    image = Picture(left + width + 20, top + height + 60)

    def across(power: float) -> float:
        return left + (power - low_x) / (high_x - low_x) * width

    def up(power: float) -> float:
        return top + (high_y - power) / (high_y - low_y) * height

    image.text(left, 20, f"roofline: {peak}", 13)
    for power in range(math.ceil(low_x), math.floor(high_x) + 1, 2):
        image.line(across(power), top, across(power), top + height, "#eeeeee")
        image.text(across(power), top + height + 16, f"{2.0 ** power:g}", anchor="middle")
    for power in range(math.ceil(low_y), math.floor(high_y) + 1, 2):
        image.line(left, up(power), left + width, up(power), "#eeeeee")
        image.text(left - 6, up(power) + 4, f"{2.0 ** power:.3g}", anchor="end")
    slope = math.log2(peak.bandwidth / 1e9)
    ridge = roof - slope
    start = max(low_x, low_y - slope)
    image.line(across(start), up(start + slope), across(ridge), up(roof))
    image.line(across(ridge), up(roof), across(high_x), up(roof))
    image.text(left + width / 2, top + height + 40, "operations per byte", anchor="middle")
    image.text(left - 60, top - 8, "GFLOP/s")
    total = sum(row["total_seconds"] for row in rows) or 1.0
    for number, row in enumerate(dots):
        share = row["total_seconds"] / total
        image.circle(across(math.log2(row["intensity"])),
                     up(math.log2(max(row["gflops_per_second"], 1e-6))), 3 + 20 * math.sqrt(share),
                     PALETTE[number % len(PALETTE)],
                     f"{row['about']} ({row['lines']}): {row['gflops_per_second']:.1f} GFLOP/s, "
                     f"{share:.0%} of the time")
    return str(image)
