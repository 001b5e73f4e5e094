"""Watching a process: each program that is new to it with its graph, and each run of one.

While a `Watch` is entered, `Program.run` is replaced by a method that tells it of each run, and
native code, which runs programs without it, leaves all of them to Python; before and after, runs
are what they always are and cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lazygrad.dump.options import find_target
from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.pipeline import Stages, lower
from lazygrad_runtime import program as programs
from lazygrad_runtime import store
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.placed import target_of
from lazygrad_runtime.program import Program, forget_programs

Run = Callable[[Sequence[Buffer], Mapping[int, Buffer] | None], list[Buffer]]


@dataclass(slots=True)
class Seen:
    """A program: its number from 0, canonical graph, and artifact.  runs: how often it ran."""

    number: int
    graph: Graph
    artifact: Artifact
    from_disk: bool
    lowered: Stages | None
    runs: int = 0

    @property
    def stages(self) -> Stages:
        """A program from the disk is lowered again, which gives the same kernels."""
        if self.lowered is None:
            target = target_of(self.artifact.device)
            self.lowered = lower(self.graph, target, self.artifact.tuning)
        return self.lowered

    @property
    def about(self) -> str:
        from lazygrad.dump.stages import about
        return about(self.stages)


class Watch:
    """on_program: called with each new program.  on_run: called as on_run(seen, program, inputs,
    donated, run) in place of each run; it calls `run(inputs, donated)` and gives its results.
    target: the name of what programs are looked at as code for, if it is not what they run on.
    """

    def __init__(self, on_program: Callable[[Seen], None] | None = None,
                 on_run: Callable[..., list[Buffer]] | None = None,
                 target: str = "") -> None:
        self.programs: list[Seen] = []
        self.on_program = on_program
        self.on_run = on_run
        self.target = target
        self._by_artifact: dict[int, Seen] = {}
        self._ordinary: Any = None

    def __enter__(self) -> Watch:
        forget_programs()  # those of an earlier run in this process count, too
        store.compile_callbacks.append(self._compiled)
        programs.run_callbacks.append(_left_to_python)
        ordinary = self._ordinary = Program.run

        def run(program: Program, inputs: Sequence[Buffer],
                donated: Mapping[int, Buffer] | None = None) -> list[Buffer]:
            seen = self._by_artifact.get(id(program.artifact))
            if seen is None:
                return ordinary(program, inputs, donated)
            seen.runs += 1
            if self.on_run is None:
                return ordinary(program, inputs, donated)
            return self.on_run(seen, program, inputs, donated,
                               lambda given, taken: ordinary(program, given, taken))

        Program.run = run  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        Program.run = self._ordinary  # type: ignore[method-assign]
        programs.run_callbacks.remove(_left_to_python)
        store.compile_callbacks.remove(self._compiled)

    def _compiled(self, graph: Graph, stages: Stages | None, artifact: Artifact) -> None:
        from_disk = stages is None
        if self.target:
            stages = lower(graph, find_target(self.target))
        seen = Seen(len(self.programs), graph, artifact, from_disk, stages)
        self.programs.append(seen)
        self._by_artifact[id(artifact)] = seen
        if self.on_program is not None:
            self.on_program(seen)


def _left_to_python(program: Any) -> None:
    """Native code runs nothing by itself while anybody listens to runs."""
