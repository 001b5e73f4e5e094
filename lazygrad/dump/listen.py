"""Listening for programs: each that is compiled, or taken from the disk cache, becomes a
`DumpedProgram`.

A program that came from the disk cache has no stages any more, but its graph is there, and lowering
that again gives the same texts: so a dump does not depend on whether the cache was warm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lazygrad.dump.changes import pass_changes
from lazygrad.dump.options import Options, find_target
from lazygrad.dump.select import selected_kernels, selected_text
from lazygrad.dump.stages import DumpedProgram, about, summary
from lazygrad_compiler.autodiff import backward as autodiff
from lazygrad_compiler.autodiff.listing import Differentiated
from lazygrad_compiler.ir.node import Graph, Node
from lazygrad_compiler.pipeline import Artifact, Stages, lower
from lazygrad_runtime import program, store


class BackwardRecorder:
    """Between `install` and `remove`, notes the calls of autodiff since the last program ran."""

    def __init__(self) -> None:
        self.calls: list[Differentiated] = []

    def install(self) -> None:
        if self._backward not in autodiff.listeners:
            autodiff.listeners.append(self._backward)
            program.run_callbacks.append(self._program_runs)

    def remove(self) -> None:
        if self._backward in autodiff.listeners:
            autodiff.listeners.remove(self._backward)
            program.run_callbacks.remove(self._program_runs)

    def _backward(self, outputs: Sequence[Node], results: Sequence[Node | None]) -> None:
        gradients = tuple(dict.fromkeys(node for node in results if node is not None))
        if gradients:
            self.calls.append(Differentiated((*outputs,), gradients))

    def _program_runs(self, _: program.Program) -> None:
        self.calls.clear()


def dumped(stages: Stages, options: Options, number: int = 0,
           failed: Callable[[Exception], str] | None = None) -> DumpedProgram | None:
    """A program as the options want it; None where nothing of it is selected.

    failed: makes a text of an error in a stage; without it the error is raised.
    """
    selection = options.selection
    kernels = selected_kernels(stages, selection)
    texts: dict[str, str] = {}
    for stage in options.stages:
        try:
            text = selected_text(stages, stage, selection, kernels)
        except Exception as error:  # looking at a program must not keep it from running
            if failed is None:
                raise
            text = failed(error)
        if text or not selection:
            texts[stage] = text
    if selection and not (texts or kernels):
        return None
    changes = pass_changes(stages.graph) if options.changed else ()
    return DumpedProgram(number, about(stages), summary(stages), texts, stages, kernels, changes,
                         options.changed == "diff")


class Dump:
    """Listens for programs and hands each to `write`.

    write: called with each `DumpedProgram` as soon as it was compiled or loaded.  `count`: programs
    so far; `shown`: those of which something is selected; `from_disk`: those that the disk cache
    had; `failures`: stages that could not be shown; `lines`: the user's lines of all programs,
    noted where only some are wanted.
    """

    def __init__(self, options: Options, write: Callable[[DumpedProgram], None]) -> None:
        self.options = options
        self.write = write
        self.count = 0
        self.shown = 0
        self.from_disk = 0
        self.failures = 0
        self.lines: set[tuple[str, int]] = set()
        self._backward = BackwardRecorder()

    def install(self) -> Dump:
        store.compile_callbacks.append(self._compiled)
        if "grad" in self.options.stages:
            self._backward.install()
        return self

    def remove(self) -> None:
        store.compile_callbacks.remove(self._compiled)
        self._backward.remove()

    def _compiled(self, graph: Graph, stages: Stages | None, artifact: Artifact) -> None:
        if stages is None:
            self.from_disk += 1
        if stages is None or self.options.target:
            tuning = None if self.options.target else artifact.tuning
            target = find_target(self.options.target or artifact.device)
            stages = lower(graph, target, tuning)
        stages.gradients = tuple(self._backward.calls)
        number, self.count = self.count, self.count + 1
        if self.options.selection:
            self.lines.update(line for node in graph.nodes() for line in node.location)
        found = dumped(stages, self.options, number, self._failed)
        if found is not None:
            self.shown += 1
            self.write(found)

    def _failed(self, error: Exception) -> str:
        self.failures += 1
        return f"this stage cannot be shown: {type(error).__name__}: {error}"
