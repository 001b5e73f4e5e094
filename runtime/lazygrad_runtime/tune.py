"""Tuning: which schedule of each kernel is the fastest in its program, on this machine.

In: a program's graph and inputs.  Out: a `Report` with an `Outcome` for each kernel; winners are
kept in the compile cache (`tuned_schedules.py`).

Kernels are timed where they run: whole programs that read the clock between launches (`timed.py`)
are run on the program's own inputs, so that each kernel finds the buffers and the caches that it
finds otherwise.  One run times a candidate of every kernel at once.  After each round the slower
candidates are left out; at the end the winners together are compared with the defaults, in turns.

All candidates compute the same bits (`loops/candidates.py`).  That is not taken for granted: the
results of each run are compared, and a candidate that changes one is never used.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy

from lazygrad_compiler.artifact import Artifact, Tuned
from lazygrad_compiler.binding import in_order
from lazygrad_compiler.ir.node import Graph, Location
from lazygrad_compiler.llvm.entry import LIBRARY_SYMBOL
from lazygrad_compiler.loops import candidates
from lazygrad_compiler.loops.kernel import Kernel, text
from lazygrad_compiler.pipeline import (
    CompiledKernel,
    Stages,
    candidates_of,
    emit_kernel,
    kernel_name,
    library_launches,
    lower,
    with_kernels,
)
from lazygrad_compiler.target import host
from lazygrad_runtime import store, tuned_schedules
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import FAILURES, Program
from lazygrad_runtime.timed import TimedProgram
from lazygrad_runtime.tuned_schedules import Winner

ROUNDS = ((64, 2), (8, 3), (3, 5))
"""Candidates of a kernel that are still in a round, at most, and runs of each."""
WORTH_ANOTHER_ROUND = 1.3
"""A candidate that takes so many times as long as the best is left out."""
CONFIRMING_RUNS, LEAST_CONFIRMING_RUNS = 7, 3
LEAST_GAIN = 1.03
"""Of a winner over the default in those runs; below, the default stays."""
LEAST_GAIN_UNCONFIRMED = 1.15
"""Where tuning is interrupted before them."""
NEGLIGIBLE = 0.002, 1e-6
"""A kernel below this part of the program's time, or below so many seconds, is left as it is."""
PART_COMPILING, PART_SEARCHING = 0.5, 0.8
"""Of the time that there is: after the one no more candidates are compiled, after the other
the best so far are compared with the defaults.
"""
LEAST_VARIANTS = 2
"""That are compiled all the same: what was the best before, and a new one."""
ROUND_SECONDS = 0.02
"""Short programs run more often: at least so long for each choice of candidates and round."""
MOST_RUNS = 200

Choice = Mapping[str, candidates.Schedule]
"""Schedules by the name that a kernel has with its default one."""


@dataclass(slots=True)
class Subject:
    """A kernel that is tuned.  times: of all its launches in one run of the program, by candidate,
    one for each run.  left: the candidates that are still in.  before: how many were timed when
    it was tuned before, and are not among the candidates.
    """

    name: str
    kernel: Kernel
    about: str
    location: Location
    candidates: list[candidates.Schedule]
    times: dict[int, list[float]] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    before: int = 0

    def seconds(self, number: int, unknown: float = math.inf) -> float:
        """The best time of a candidate."""
        return min(self.times.get(number, [unknown]))

    def best(self) -> int:
        return min(self.left, key=self.seconds)

    def best_within_caches(self) -> int:
        """The best of those whose stores go past the caches only where the default's do."""
        streams = [getattr(schedule, "stream", False) for schedule in self.candidates]
        return min((n for n in self.times if streams[n] <= streams[0]), key=self.seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a kernel.  tried: how many schedules were timed.  seconds: with the default and the best
    schedule.  refused: candidates that gave other results.
    """

    name: str
    about: str
    location: Location
    winner: Winner
    refused: int = 0


@dataclass(slots=True)
class Report:
    """Of a program.  before, after: seconds of all its kernels, with the defaults and with the
    winners; 0 where nothing was left to tune.  complete: False where time was up, or somebody
    interrupted, before all candidates were timed.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    before: float = 0.0
    after: float = 0.0
    complete: bool = True


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while tuning.  report: what was found until then, and kept."""

    def __init__(self, report: Report) -> None:
        super().__init__("tuning was interrupted; what was found until then is kept")
        self.report = report


class Observer:
    """What tuning says while it goes on; does nothing."""

    def advanced(self, done: int, total: int, what: str) -> None:
        """done of total steps: compilations and runs."""

    def decided(self, outcome: Outcome) -> None:
        """A kernel's winner is known and kept."""


Timer = Callable[[TimedProgram, Sequence[Buffer]], tuple[list[Buffer], list[float]]]
"""(program, inputs) -> its results, and the readings of the clock; tests give other ones."""


def timed_run(
    program: TimedProgram, inputs: Sequence[Buffer]
) -> tuple[list[Buffer], list[float]]:
    outputs = program.run(inputs)
    return outputs, program.times


def tune(
    graph: Graph,
    inputs: Sequence[Buffer],
    observer: Observer | None = None,
    again: bool = False,
    timer: Timer = timed_run,
    seconds: float = math.inf,
) -> Report:
    """Tunes the kernels of a program that have not been tuned before, or all of them, and keeps the
    winners.  Inputs are left as they are.  seconds: to spend; it ends some runs of the program
    later at the latest.

    Raises what a run of the program raises, and `Interrupted` for Ctrl-C.
    """
    stages = lower(graph, host())
    environment = store.environment_fields(host())
    known = {
        kernel.name: None if again else tuned_schedules.lookup(
            store.disk(), kernel.name, environment)
        for kernel in stages.kernels
    }
    unknown = {name: winner for name, winner in known.items() if not (winner and winner.complete)}
    if not unknown:
        return Report()
    return _Search(stages, unknown, inputs, observer or Observer(), timer, seconds).run()


def tuned_program(
    program: Program,
    graph: Graph,
    inputs: Sequence[Buffer],
    observer: Observer | None = None,
    seconds: float = math.inf,
) -> Program:
    """The program with the best schedules; itself where they are the defaults, or where a run
    fails.
    """
    if type(program) is not Program:  # one for a GPU, or for several devices
        return program
    try:
        tune(graph, inputs, observer, seconds=seconds)
    except FAILURES:  # whoever runs the program is told
        return program
    artifact = store.artifact_for(graph)
    return program if artifact.tuning == program.artifact.tuning else Program(artifact)


class _Search:
    def __init__(
        self,
        stages: Stages,
        unknown: Mapping[str, Winner | None],
        inputs: Sequence[Buffer],
        observer: Observer,
        timer: Timer,
        seconds: float,
    ) -> None:
        self.stages, self.inputs, self.observer, self.timer = stages, inputs, observer, timer
        self.begun, self.limit = time.perf_counter(), seconds
        self.unknown = unknown  # the kernels to tune, with what an earlier search found that ended
        self.by_name = {kernel.name: kernel for kernel in stages.kernels}
        self.made: dict[str, CompiledKernel] = dict(self.by_name)
        self.objects: dict[str, bytes] = {}
        self.artifact = Artifact(
            {}, len(inputs),
            [(output.dtype.name, output.shape) for output in stages.graph.outputs],
            stages.plan.arena_bytes, 0,
            [(name, launch.about, launch.location)
             for name, launch in zip(stages.names, stages.launches, strict=True)],
            0.0, library=library_launches(stages.launches),
        )
        self.expected: list[Buffer] = []
        self.refused: dict[str, int] = {}
        self.done = self.total = 0
        self.subjects: list[Subject] = []
        self.report = Report()

    # ---- programs with other schedules

    def variant(self, choice: Choice) -> TimedProgram:
        """The program with those schedules, the default for all other kernels."""
        names = [
            self.kernel_with(name, choice[name]) if name in choice else name
            for name in self.stages.names
        ]
        kernels = [self.made[name] for name in dict.fromkeys(names) if name != LIBRARY_SYMBOL]
        for kernel in kernels:
            if kernel.name not in self.objects:
                self.objects[kernel.name] = store.kernel_object(
                    kernel.name, kernel.llvm, host()
                )
        stages = with_kernels(self.stages, kernels, names)
        objects = {kernel.name: self.objects[kernel.name] for kernel in kernels}
        scratch = max((kernel.scratch for kernel in kernels), default=0)
        return TimedProgram(stages, replace(self.artifact, objects=objects, scratch_bytes=scratch))

    def kernel_with(self, name: str, schedule: candidates.Schedule) -> str:
        """The name of a kernel with that schedule, which is emitted if need be."""
        default = self.by_name[name]
        if schedule == default.schedule:
            return name
        tuned = Tuned(candidates.written(schedule), 1.0)
        other = kernel_name(default.kernel, host(), tuned.schedule)
        if other not in self.made:
            self.made[other] = emit_kernel(other, default.kernel, host(), tuned=tuned)
        return other

    def measure(self, program: TimedProgram) -> tuple[list[Buffer], dict[str, float]]:
        """Results, and seconds of each kernel by its name with the default schedule."""
        outputs, times = self.timer(program, self.inputs)
        found: dict[str, float] = dict.fromkeys(self.by_name, 0.0)
        launched = in_order(self.stages.bound)
        for (number, _), (begin, end) in zip(launched, itertools.pairwise(times), strict=True):
            name = self.stages.names[number]
            if name in found:
                found[name] += end - begin
        return outputs, found

    def advance(self, what: str, steps: int = 1) -> None:
        self.done += steps
        self.observer.advanced(min(self.done, self.total), self.total, what)

    def is_late(self, part: float) -> bool:
        """Whether so much of the time is over."""
        return time.perf_counter() - self.begun > part * self.limit

    # ---- the search

    def run(self) -> Report:
        default = self.variant({})
        self.expected, _ = self.measure(default)
        runs = [self.measure(default) for _ in range(3)]
        if not all(self.is_same(outputs) for outputs, _ in runs):
            return self.report  # nothing to compare with
        seconds = {name: min(times[name] for _, times in runs) for name in self.by_name}
        self.find_subjects(seconds)
        most = max((len(subject.left) for subject in self.subjects), default=0)
        self.total = sum(min(most, limit) * runs for limit, runs in ROUNDS)
        self.total += sum(len(subject.left) - 1 for subject in self.subjects) + 3 * CONFIRMING_RUNS
        whole = max(sum(seconds.values()), 1e-7)
        longer = min(max(int(ROUND_SECONDS / whole), 1), MOST_RUNS)
        try:
            for limit, runs_of_each in ROUNDS:
                self.round(limit, max(runs_of_each, longer))
            self.confirm(default, max(CONFIRMING_RUNS, longer))
        except KeyboardInterrupt:
            self.report.complete = False
            self.keep_unconfirmed()
            raise Interrupted(self.report) from None
        return self.report

    def find_subjects(self, seconds: Mapping[str, float]) -> None:
        """The kernels that are worth it; all others stay as they are, which is kept, too."""
        whole = sum(seconds.values())
        part, least = NEGLIGIBLE
        described = dict(zip(self.stages.names, self.stages.launches, strict=True))
        for name, earlier in self.unknown.items():
            compiled, launch = self.by_name[name], described[name]
            subject = Subject(
                name, compiled.kernel, launch.about, launch.location, [compiled.schedule]
            )
            subject.times[0] = [seconds[name]]
            if seconds[name] >= max(part * whole, least):
                subject.candidates = candidates_of(compiled, host())
                if earlier is not None:
                    self.go_on(subject, earlier)
            subject.left = list(range(len(subject.candidates)))
            if len(subject.left) > 1:
                self.subjects.append(subject)
            else:
                self.decide(subject, 0, seconds[name], max(seconds[name], 1e-9))

    def go_on(self, subject: Subject, earlier: Winner) -> None:
        """Leaves out what was timed before, but for the best of it."""
        new = subject.candidates[earlier.tried :]
        best = candidates.read(earlier.tuned.schedule)
        subject.candidates = list(dict.fromkeys([subject.candidates[0], best, *new]))
        subject.before = earlier.tried - 1 - earlier.is_better

    def choice(self, place: int) -> dict[str, int]:
        """A candidate of each kernel: that at a place among those left, or the next round them."""
        return {
            subject.name: subject.left[place % len(subject.left)] for subject in self.subjects
        }

    def schedules(self, choice: Mapping[str, int]) -> dict[str, candidates.Schedule]:
        by_name = {subject.name: subject for subject in self.subjects}
        return {name: by_name[name].candidates[number] for name, number in choice.items()}

    def round(self, limit: int, runs: int) -> None:
        """Times what is left, at most `limit` of each kernel, and leaves out what is slow."""
        for subject in self.subjects:
            subject.left = sorted(subject.left, key=partial(subject.seconds, unknown=0.0))[:limit]
        places = range(max((len(subject.left) for subject in self.subjects), default=0))
        variants: list[tuple[dict[str, int], TimedProgram]] = []
        for place in places:
            if len(variants) >= LEAST_VARIANTS and self.is_late(PART_COMPILING):
                if any(n not in s.times for s in self.subjects for n in s.left[place:]):
                    self.report.complete = False
                break
            choice = self.choice(place)
            before = len(self.objects)
            program = self.variant(self.schedules(choice))
            self.advance("compiling", len(self.objects) - before)
            if self.is_right(choice, program):
                variants.append((choice, program))
        for number in range(runs):
            for choice, program in variants:
                if number and self.is_late(PART_SEARCHING):  # each was timed once
                    break
                begun = time.perf_counter()
                _, seconds = self.measure(program)
                for subject in self.subjects:
                    found = subject.times.setdefault(choice[subject.name], [])
                    found.append(seconds[subject.name])
                if number < 8:
                    self.advance(f"run of {time.perf_counter() - begun:.3g} s")
        for subject in self.subjects:
            if not subject.left:
                subject.left = [0]
            most = WORTH_ANOTHER_ROUND * subject.seconds(subject.best())
            subject.left = [n for n in subject.left if subject.seconds(n) <= most]

    def is_right(self, choice: Mapping[str, int], program: TimedProgram) -> bool:
        """Whether the results are those of the defaults, bit by bit.  If not, the candidates that
        change them go, one by one.
        """
        if self.is_same(self.measure(program)[0]):
            return True
        for subject in self.subjects:
            number = choice[subject.name]
            alone = self.variant(self.schedules({subject.name: number}))
            if number in subject.left and not self.is_same(self.measure(alone)[0]):
                subject.left.remove(number)
                self.refused[subject.name] = self.refused.get(subject.name, 0) + 1
        return False

    def is_same(self, outputs: Sequence[Buffer]) -> bool:
        return all(
            bool((_bytes(output) == _bytes(wanted)).all())
            for output, wanted in zip(outputs, self.expected, strict=True)
        )

    def confirm(self, default: TimedProgram, runs: int) -> None:
        """The defaults against all winners together, in turns.

        A kernel that stores past the caches may be fast at the cost of whoever reads its results.
        So there is a second set of winners, without those, and the whole program's time decides.
        """
        choices = [{subject.name: subject.best() for subject in self.subjects},
                   {subject.name: subject.best_within_caches() for subject in self.subjects}]
        choices = choices[: 1 + (choices[0] != choices[1])]
        programs = [default, *(self.variant(self.schedules(choice)) for choice in choices)]
        for choice, program in zip(choices, programs[1:], strict=True):
            if not self.is_same(self.measure(program)[0]):  # each alone was right
                choice.update(dict.fromkeys(choice, 0))
        times: list[dict[str, list[float]]] = [{} for _ in programs]
        for number in range(runs):
            if number >= LEAST_CONFIRMING_RUNS and self.is_late(1.0):
                break
            for program, found in zip(programs, times, strict=True):
                for name, seconds in self.measure(program)[1].items():
                    found.setdefault(name, []).append(seconds)
                if number < CONFIRMING_RUNS:
                    self.advance("comparing with the defaults")
        whole = [min(map(sum, zip(*found.values(), strict=True))) for found in times]
        place = min(range(1, len(programs)), key=whole.__getitem__)
        best = choices[place - 1]
        self.report.before = self.report.after = whole[0]
        for subject in self.subjects:
            before, after = times[0][subject.name], times[place][subject.name]
            gains = [min(before) / max(min(after), 1e-9),
                     statistics.median(before) / max(statistics.median(after), 1e-9)]
            number = best[subject.name] if min(gains) >= LEAST_GAIN else 0
            reached = min(before) if number == 0 else min(before) / min(gains)
            self.report.after -= min(before) - reached
            self.decide(subject, number, min(before), max(reached, 1e-9))

    def keep_unconfirmed(self) -> None:
        known = {outcome.name for outcome in self.report.outcomes}
        for subject in self.subjects:
            number = subject.best()
            default, best = subject.seconds(0, unknown=0.0), subject.seconds(number)
            if subject.name not in known and number and default >= LEAST_GAIN_UNCONFIRMED * best:
                self.decide(subject, number, default, best)

    def decide(self, subject: Subject, number: int, before: float, after: float) -> None:
        winner = Winner(
            Tuned(candidates.written(subject.candidates[number]), before / after),
            candidates.written(subject.candidates[0]),
            (before, after),
            subject.before + len(subject.times),
            self.report.complete or len(subject.candidates) == 1,
        )
        tuned_schedules.keep(
            store.disk(), subject.name, text(subject.kernel),
            [(subject.name, subject.about, subject.location)],
            store.environment_fields(host()), winner,
        )
        outcome = Outcome(
            subject.name, subject.about, subject.location, winner,
            self.refused.get(subject.name, 0),
        )
        self.report.outcomes.append(outcome)
        if len(subject.candidates) > 1:
            self.observer.decided(outcome)


def _bytes(buffer: Buffer) -> numpy.ndarray:
    return buffer.as_numpy(numpy.dtype(numpy.uint8), (buffer.nbytes,))
