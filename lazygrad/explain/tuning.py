"""`tune`: what tuning found, for people, and its progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from lazygrad.explain.lines import place
from lazygrad.explain.roofline import duration
from lazygrad.explain.watch import Seen
from lazygrad_runtime import store
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import FAILURES, Program
from lazygrad_runtime.tune import Observer, Outcome, Report, tune

BAR = 30


class Progress(Observer):
    """A bar where standard error is a terminal; else, and above it, one line a kernel."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.drawn = 0

    def advanced(self, done: int, total: int, what: str) -> None:
        if not self.stream.isatty():
            return
        filled = BAR * done // max(total, 1)
        bar = f"[{'#' * filled}{' ' * (BAR - filled)}] {done}/{total} {what}"[:78]
        self.stream.write("\r" + bar.ljust(self.drawn))
        self.stream.flush()
        self.drawn = len(bar)

    def decided(self, outcome: Outcome) -> None:
        self.clear()
        print(line_of(outcome), file=self.stream, flush=True)

    def clear(self) -> None:
        if self.drawn:
            self.stream.write("\r" + " " * self.drawn + "\r")
            self.drawn = 0


def line_of(outcome: Outcome) -> str:
    """One kernel: what was gained, the times, and the knobs that differ."""
    winner = outcome.winner
    before, after = winner.seconds
    kernel = f"{outcome.about} ({place(outcome.location)})"
    refused = f", {outcome.refused} of them gave other results" if outcome.refused else ""
    if not winner.is_better:
        return (f"   -   {duration(before):>8}  {kernel}: the default, of {winner.tried} schedules"
                f"{refused}")
    return (f"{winner.tuned.speedup:5.2f}x {duration(before):>8} -> {duration(after)}  {kernel}: "
            f"{', '.join(knobs(winner.default, winner.tuned.schedule))}, of {winner.tried} "
            f"schedules{refused}")


def knobs(default: str, tuned: str) -> list[str]:
    """In what two schedules differ."""
    (kind, before), (other, after) = json.loads(default), json.loads(tuned)
    if kind != other:
        return [f"{kind} -> {other}"]
    return [f"{name} {_plain(before[name])} -> {_plain(after[name])}"
            for name in before if before[name] != after[name]]


def _plain(value: Any) -> str:
    return str(value).replace("'", "")


class Tuner:
    """The `on_run` of a watch that tunes each program before its first run."""

    def __init__(self, observer: Observer, again: bool = False) -> None:
        self.observer, self.again = observer, again
        self.reports: list[tuple[Seen, Report]] = []

    def __call__(self, seen: Seen, program: Program, inputs: Sequence[Buffer],
                 donated: Mapping[int, Buffer] | None, run: Any) -> list[Buffer]:
        if seen.runs == 1 and seen.artifact.device == "cpu":
            try:
                report = tune(seen.graph, inputs, self.observer, self.again)
            except FAILURES:  # the run below says it better
                report = Report()
            self.reports.append((seen, report))
            if any(outcome.winner.is_better for outcome in report.outcomes):
                store.find(seen.graph)  # compiled and kept for the next process
        return run(inputs, donated)

    @property
    def outcomes(self) -> list[tuple[Seen, Outcome]]:
        return [(seen, outcome) for seen, report in self.reports for outcome in report.outcomes]


def described(seen: Seen, outcome: Outcome) -> dict[str, Any]:
    """For JSON."""
    winner = outcome.winner
    return {
        "program": seen.number, "kernel": outcome.name, "about": outcome.about,
        "lines": place(outcome.location), "default": json.loads(winner.default),
        "tuned": json.loads(winner.tuned.schedule) if winner.is_better else None,
        "speedup": winner.tuned.speedup if winner.is_better else 1.0,
        "default_seconds": winner.seconds[0], "seconds": winner.seconds[1],
        "tried": winner.tried, "refused": outcome.refused,
    }
