"""`profile`: what ran when, in the trace format that Chrome (chrome://tracing) and Perfetto read.

One row for programs, one for the kernels in them, one for compiling; microseconds from the start of
the script.  Format: "Trace Event Format", the `X` (complete) events of its JSON object form.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from lazygrad.explain.lines import place
from lazygrad.explain.watch import Seen
from lazygrad_compiler.binding import in_order
from lazygrad_compiler.loops.cost import cost_of

ROWS = {1: "programs", 2: "kernels", 3: "compiler"}


class Trace:
    """Events since it was made; the `on_times` of a `Timing` and the `on_program` of a `Watch`."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.events: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": name}}
            for number, name in ROWS.items()]

    def add(self, row: int, name: str, begin: float, end: float, **details: Any) -> None:
        self.events.append({"ph": "X", "name": name, "pid": 1, "tid": row,
                            "ts": (begin - self.start) * 1e6,
                            "dur": max(end - begin, 0.0) * 1e6, "args": details})

    def program(self, seen: Seen) -> None:
        """A program that is new: it was compiled, or read from the disk, just now."""
        if seen.from_disk:
            return
        now = time.monotonic()
        self.add(3, f"compile {seen.number:03} {seen.about}", now - seen.artifact.seconds, now,
                 stages={name: round(seconds * 1e3, 3)
                         for name, seconds in seen.stages.times.items()})

    def times(self, seen: Seen, times: list[float]) -> None:
        """A run."""
        self.add(1, f"{seen.number:03} {seen.about}", times[0], times[-1], run=seen.runs)
        launched = in_order(seen.stages.bound)
        for (number, _), (begin, end) in zip(launched, itertools.pairwise(times), strict=True):
            launch = seen.stages.launches[number]
            cost = cost_of(launch.kernel)
            self.add(2, launch.about, begin, end, lines=place(launch.location),
                     flops=cost.flops, bytes=cost.nbytes)

    def json(self) -> dict[str, Any]:
        return {"traceEvents": self.events, "displayTimeUnit": "ms"}

    def totals(self) -> list[tuple[str, str, int, float]]:
        """(kernel, lines, calls, seconds), the dearest first."""
        sums: dict[tuple[str, str], tuple[int, float]] = {}
        for event in self.events:
            if event["ph"] == "X" and event["tid"] == 2:
                key = event["name"], event["args"]["lines"]
                calls, spent = sums.get(key, (0, 0.0))
                sums[key] = calls + 1, spent + event["dur"] / 1e6
        return sorted(((name, lines, calls, spent)
                       for (name, lines), (calls, spent) in sums.items()),
                      key=lambda row: -row[3])
