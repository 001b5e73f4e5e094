"""Checks that the contestants agree, then times them in turn.

In: benchmarks and the contestants wanted.  Out: a `Result` per row.  All contestants of a row live
in one process and take turns, another one first in each round, so that a change of the machine's
mood meets them all alike: its peaks, too, have a turn in each round.  Figures are medians over
rounds, a time that of the mean time of a call.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from lazygrad_runtime.peak import Limits, Peak, median_peak
from tests.benchmarks.contestants import missing, to_numpy
from tests.benchmarks.registry import Benchmark, Run

PAUSE_SECONDS = 0.005  # the last contestant's threads stop spinning meanwhile
MOST_CALLS = 20_000
UNSTEADY = 0.3


@dataclass(frozen=True, slots=True)
class Effort:
    """rounds: medians are over so many.  seconds: about how long a contestant's turn lasts."""

    rounds: int
    seconds: float


FULL = Effort(rounds=9, seconds=0.06)
QUICK = Effort(rounds=3, seconds=0.01)


@dataclass(slots=True)
class Result:
    """seconds: median time of one unit of work, by contestant; absent where nothing was timed.
    unsteady: contestants whose quartiles over the rounds lie further apart than UNSTEADY medians.
    notes: what went wrong, by contestant.  disagreed: contestants whose values are not lazygrad's.
    peak: of the machine in these rounds, where it was asked for.
    """

    benchmark: Benchmark
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    disagreed: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)
    peak: Peak | None = None

    def ratio(self, peer: str) -> float | None:
        """How many times as long the peer takes; above 1 lazygrad is faster."""
        if peer not in self.seconds or "lazygrad" not in self.seconds:
            return None
        return self.seconds[peer] / self.seconds["lazygrad"]


def run_benchmark(
    benchmark: Benchmark, contestants: Sequence[str], effort: Effort, limits: Limits | None = None
) -> Result:
    """One row.  A contestant that fails gets a note; one that computes something else as well.
    limits: measures the machine's peak in turns with the contestants.
    """
    result = Result(benchmark)
    taking_part = []
    for contestant in benchmark.contestants:
        if contestant in contestants:
            reason = missing(contestant)
            if reason is None:
                taking_part.append(contestant)
            else:
                result.notes[contestant] = reason
    if benchmark.measure is not None:
        for contestant in taking_part:
            with _noted(result, contestant):
                result.seconds[contestant] = benchmark.measure(contestant, effort is QUICK)
        return result
    assert benchmark.make is not None
    runs: dict[str, Run] = {}
    values: dict[str, list[Any]] = {}
    for contestant in taking_part:
        with _noted(result, contestant):
            run = benchmark.make(contestant)
            values[contestant] = _first_values(benchmark, contestant, run)
            runs[contestant] = run
    _compare(result, values)
    for contestant in result.disagreed:
        del runs[contestant]
    del values
    calls: dict[str, int] = {}
    for contestant, run in list(runs.items()):
        with _noted(result, contestant):
            calls[contestant] = _calls(run, effort.seconds)
    turns: dict[str, Callable[[], float]] = {
        contestant: partial(_turn, runs[contestant], count) for contestant, count in calls.items()
    }
    peaks: list[Peak] = []
    if limits is not None and (benchmark.flops or benchmark.nbytes):
        turns[""] = partial(_peak_turn, limits, effort.seconds, peaks)
    times = _rounds(turns, effort.rounds)
    if peaks:
        del times[""]
        result.peak = median_peak(peaks)
    for contestant, samples in times.items():
        median = statistics.median(samples)
        result.seconds[contestant] = median / benchmark.units
        if len(samples) > 2:
            low, _, high = statistics.quantiles(samples, method="inclusive")
            if high - low > UNSTEADY * median:
                result.unsteady.append(contestant)
    return result


@contextmanager
def _noted(result: Result, contestant: str) -> Iterator[None]:
    """Turns an exception into a note, so that one contestant cannot end the whole table."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        result.notes[contestant] = f"{type(error).__name__}: {lines[0][:200]}"


def _first_values(benchmark: Benchmark, contestant: str, run: Run) -> list[Any]:
    """The first results.  Where lazygrad should compute, each call must have run a program."""
    values: list[Any] = []
    with _programs_run(contestant == "lazygrad" and benchmark.runs_programs) as count:
        for number in range(max(benchmark.checked_calls, 2)):
            value = run()
            if value is not None and number < benchmark.checked_calls:
                parts = value if isinstance(value, (tuple, list)) else (value,)
                values += [to_numpy(contestant, part) for part in parts]
            del value  # a value that is still held would be found again, not computed
            count.append(_programs)
    if any(later <= earlier for earlier, later in pairwise(count)):
        raise RuntimeError("a call ran no program: the benchmark would time nothing")
    return values


_programs = 0


@contextmanager
def _programs_run(watch: bool) -> Iterator[list[int]]:
    """Counts in `_programs` the programs that lazygrad runs."""
    counts: list[int] = []
    if not watch:
        yield counts
        counts.clear()
        return
    from lazygrad_runtime.program import run_callbacks

    def count(_: Any) -> None:
        global _programs
        _programs += 1

    run_callbacks.append(count)
    counts.append(_programs)
    try:
        yield counts
    finally:
        run_callbacks.remove(count)


def _compare(result: Result, values: dict[str, list[Any]]) -> None:
    """Compares everyone with lazygrad, and looks at lazygrad's values alone for what is no number.

    Where a peer disagrees, neither that peer nor, where all peers disagree, lazygrad is timed.
    """
    ours = values.get("lazygrad")
    if ours is None:
        return
    if not all(np.isfinite(value).all() for value in ours):
        result.disagreed.append("lazygrad")
        result.notes["lazygrad"] = "WRONG: values that are not finite"
        return
    peers = [name for name in values if name != "lazygrad"]
    for peer in peers:
        for number, (value, expected) in enumerate(zip(ours, values[peer], strict=True), 1):
            difference = _difference(value, expected)
            if not difference <= result.benchmark.tolerance:
                result.disagreed.append(peer)
                result.notes[peer] = (f"WRONG: result {number} differs from lazygrad by "
                                      f"{difference:.2g} of the largest value")
                break
    if peers and set(peers) == set(result.disagreed):
        result.disagreed.append("lazygrad")
        result.notes["lazygrad"] = "WRONG: no peer agrees"


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype == bool:
        ours, theirs = ours.astype(np.int8), theirs.astype(np.int8)
    return float(np.abs(ours - theirs).max(initial=0) / max(np.abs(theirs).max(initial=0), 1e-30))


def _calls(run: Callable[[], Any], seconds: float) -> int:
    """How many calls take about so long, after warming up."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    if once < seconds / 10:
        start = time.perf_counter()
        for _ in range(10):
            run()
        once = (time.perf_counter() - start) / 10
    return max(1, min(MOST_CALLS, round(seconds / max(once, 1e-9))))


def _turn(run: Run, calls: int) -> float:
    """Seconds per call, after a tenth as many that are not counted: threads wake, clocks rise."""
    for _ in range(calls // 10 + 1):
        run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _peak_turn(limits: Limits, seconds: float, peaks: list[Peak]) -> float:
    """The same for the machine's peak, and as long; its seconds are of no interest."""
    limits.measure()
    peaks.append(limits.measure(seconds))
    return 0.0


def _rounds(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each turn gave, one sample for each round."""
    times: dict[str, list[float]] = {contestant: [] for contestant in turns}
    order = list(turns)
    for _ in range(rounds):
        for contestant in order:
            gc.collect()
            time.sleep(PAUSE_SECONDS)
            times[contestant].append(turns[contestant]())
        order = order[1:] + order[:1]
    return times
