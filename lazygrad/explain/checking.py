"""Checking a script: each of its programs against the interpreter, on the values that it met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from lazygrad.explain.compare import difference, interpreted
from lazygrad.explain.failures import Failure, failure
from lazygrad.explain.graphs import InputError, made_up_inputs
from lazygrad.explain.reduce import Case
from lazygrad.explain.watch import Seen
from lazygrad_compiler.ir.node import Graph
from lazygrad_runtime import store
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program


@dataclass(frozen=True, slots=True)
class Wrong:
    """A program of a script that is wrong.  run: which of its runs it was, from 1."""

    number: int
    about: str
    run: int
    case: Case
    failure: Failure


class Checker:
    """The `on_run` of a watch that checks the first runs of each program.

    runs: how many of each.  `found`: the first that is wrong; nothing is checked after it.
    """

    def __init__(self, runs: int = 1, tolerance: float | None = None) -> None:
        self.runs = runs
        self.tolerance = tolerance
        self.found: Wrong | None = None
        self.checked = 0

    def __call__(self, seen: Seen, program: Program, inputs: Sequence[Buffer],
                 donated: Mapping[int, Buffer] | None, run: Any) -> list[Buffer]:
        if self.found is not None or seen.runs > self.runs:
            return run(inputs, donated)
        arrays = arrays_of(seen.graph, inputs)  # before the run, which may write over them
        outputs = run(inputs, donated)
        self.checked += 1
        expected = interpreted(seen.graph, arrays)
        values = [buffer.as_numpy(output.dtype.numpy, output.shape)
                  for buffer, output in zip(outputs, seen.graph.outputs, strict=True)]
        wrong = difference(values, expected, [o.dtype for o in seen.graph.outputs],
                           self.tolerance)
        if wrong is not None:
            self.found = Wrong(seen.number, seen.about, seen.runs,
                               Case(seen.graph, tuple(arrays)), Failure("wrong", str(wrong)))
        return outputs


def arrays_of(graph: Graph, inputs: Sequence[Buffer]) -> list[numpy.ndarray]:
    """Copies of what a program is given."""
    leaves = {leaf.attrs[0]: leaf for leaf in graph.inputs()}
    return [buffer.as_numpy(leaves[number].dtype.numpy, leaves[number].shape).copy()
            if number in leaves else numpy.zeros(0) for number, buffer in enumerate(inputs)]


class CompileFailures:
    """Between `install` and `remove`, keeps the first graph that the compiler raised on, with
    made-up inputs: there was no program yet that could have been given any.
    """

    def __init__(self) -> None:
        self.found: Wrong | None = None
        self._ordinary = store.artifact_for

    def install(self) -> CompileFailures:
        store.artifact_for = self._artifact_for
        return self

    def remove(self) -> None:
        store.artifact_for = self._ordinary

    def _artifact_for(self, graph: Graph, target: Any = None) -> Any:
        try:
            return self._ordinary(graph, target)
        except Exception:
            if self.found is None:
                self.found = _crashed(graph)
            raise


def _crashed(graph: Graph) -> Wrong | None:
    try:
        inputs = made_up_inputs(graph)
        found = failure(graph, inputs)
    except (InputError, ArithmeticError):
        return None
    if found is None:
        return None
    return Wrong(0, "not compiled", 0, Case(graph, tuple(inputs)), found)
