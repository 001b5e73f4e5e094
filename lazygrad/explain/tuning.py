"""`tune`: what tuning found, for people, and its progress on standard error."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from lazygrad.cli import INTERRUPTED
from lazygrad.explain.lines import place
from lazygrad.explain.roofline import duration
from lazygrad.explain.watch import Seen
from lazygrad_runtime import store
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import FAILURES, Program
from lazygrad_runtime.tune import Interrupted, Observer, Outcome, Report, tune

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
    if winner.tried == 1 and not winner.complete:
        return f"   -   {duration(before):>8}  {kernel}: not yet, time was up{refused}"
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
    """The `on_run` of a watch that tunes each program before its first run.

    seconds: to spend on all programs together; those that come after it run as they are (`left`
    counts them).  After Ctrl-C while tuning the script ends by SystemExit(130).
    """

    def __init__(
        self, observer: Observer, again: bool = False, seconds: float = math.inf
    ) -> None:
        self.observer, self.again, self.seconds = observer, again, seconds
        self.reports: list[tuple[Seen, Report]] = []
        self.left = 0
        self.interrupted = False

    def __call__(self, seen: Seen, program: Program, inputs: Sequence[Buffer],
                 donated: Mapping[int, Buffer] | None, run: Any) -> list[Buffer]:
        if seen.runs == 1 and seen.artifact.device == "cpu" and self.seconds <= 0:
            self.left += 1
        elif seen.runs == 1 and seen.artifact.device == "cpu":
            begun = time.perf_counter()
            try:
                report = tune(
                    seen.graph, inputs, self.observer, self.again, seconds=self.seconds)
            except FAILURES:  # the run below says it better
                report = Report()
            except KeyboardInterrupt as error:
                report = error.report if isinstance(error, Interrupted) else Report()
                self.interrupted = True
            self.seconds -= time.perf_counter() - begun
            self.reports.append((seen, report))
            if self.interrupted:
                raise SystemExit(INTERRUPTED) from None
            if any(outcome.winner.is_better for outcome in report.outcomes):
                store.find(seen.graph)  # compiled and kept for the next process
        return run(inputs, donated)

    @property
    def complete(self) -> bool:
        """Whether there was time for all programs, and all schedules of their kernels."""
        return not self.left and all(report.complete for _, report in self.reports)

    @property
    def outcomes(self) -> list[tuple[Seen, Outcome]]:
        return [(seen, outcome) for seen, report in self.reports for outcome in report.outcomes]


def summary(tuner: Tuner) -> str:
    """What came of it, in a line."""
    outcomes = [outcome for _, outcome in tuner.outcomes]
    better = sum(outcome.winner.is_better for outcome in outcomes)
    before = sum(report.before for _, report in tuner.reports)
    after = sum(report.after for _, report in tuner.reports)
    found = (f"{len(outcomes)} kernel{'s' * (len(outcomes) != 1)} tuned, {better} with another "
             f"schedule than the default")
    if better and before:
        found += f"; all programs once take {duration(after)} instead of {duration(before)}"
    if tuner.interrupted:
        return f"interrupted; {found}"
    if not tuner.complete:
        found += "; time was up before all schedules were timed, the next run goes on"
    return found


def described(seen: Seen, outcome: Outcome) -> dict[str, Any]:
    """For JSON."""
    winner = outcome.winner
    return {
        "program": seen.number, "kernel": outcome.name, "about": outcome.about,
        "lines": place(outcome.location), "default": json.loads(winner.default),
        "tuned": json.loads(winner.tuned.schedule) if winner.is_better else None,
        "speedup": winner.tuned.speedup if winner.is_better else 1.0,
        "default_seconds": winner.seconds[0], "seconds": winner.seconds[1],
        "tried": winner.tried, "complete": winner.complete, "refused": outcome.refused,
    }
