"""Looking into the compiler: the programs of a process, or of one tensor, as text stage by stage.

    lazygrad.dump_ir(loss, stage="fused")         a pending tensor, without running it
    lazygrad dump-ir train.py --stage loops       every program of a script (`lazygrad.cli.dump`)
    LAZYGRAD_DUMP=graph,fused python train.py     the same to standard error, nothing else changed

A `Dump` listens to `lazygrad_runtime.store.compile_callbacks`.  A program that came from the disk
cache has no stages any more, but its graph is there, and lowering that again gives the same texts:
so a dump does not depend on whether the cache was warm.  Nothing that differs between two runs
(times, addresses, folders) is in it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lazygrad._core import cell as cells
from lazygrad._core import graph as build_graph
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor, raw_node
from lazygrad_compiler.autodiff import backward as autodiff
from lazygrad_compiler.ir.node import Graph, Node, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import (
    PATH_STYLES,
    TYPE_ATTRIBUTES,
    format_location,
    format_shape,
    format_value,
)
from lazygrad_compiler.pipeline import STAGES, Artifact, Stages, input_count, lower
from lazygrad_compiler.target import host
from lazygrad_runtime import program, store

DEFAULT_STAGES = ("graph", "fused", "loops")

EXPLANATIONS: dict[str, tuple[str, str]] = {
    "graph": (
        "The operations as recorded, in order: %name = operation(inputs) : type[sizes]  # line",
        "input(n) is a value that is already there; `return` names the values that are wanted.",
    ),
    "grad": (
        "The operations that backward() added: the chain rule, from the result back to the leaves.",
        "`forward` marks values of the forward pass; the lines are those of forward operations.",
    ),
    "opt": (
        "The same program simplified: what was repeated, useless or constant is gone.",
        "It computes the same values as `graph`; the names %0, %1, ... are given anew.",
    ),
    "fused": (
        "What runs together: a kernel is one pass over memory that does all its operations.",
        "`stored` values go to memory, `inside` ones do not; `not fused` says why there is a seam.",
    ),
    "loops": (
        "Each kernel as loops over its buffers b0, b1, ...; threads share a `parallel` loop.",
        "The schedule above it is how it is made fast: numbers per vector (lanes), tiles, tasks.",
    ),
    "llvm": (
        "Each kernel in LLVM's language as written by lazygrad: typed steps on named values.",
        "<16 x float> is 16 numbers that one instruction handles; `entry` starts the kernels.",
    ),
    "llvm-opt": (
        "The kernels after LLVM's clean-up: function calls merged in, duplicate steps removed.",
        "The language is the one of `llvm`; compare the two to see what LLVM made of it.",
    ),
    "asm": (
        "The processor's own instructions: this is what runs, one line an instruction.",
        "Vector registers are called xmm, ymm, zmm on x86 (16, 32, 64 bytes), v or q on ARM.",
    ),
}
"""Two lines on each stage, for somebody who has never seen a compiler."""

_COMMENT = {"graph": "#", "grad": "#", "opt": "#", "fused": "#"}  # the graph texts parse back


class UnknownStage(ValueError):
    """A stage that does not exist was asked for."""


def parse_stages(text: str | Iterable[str]) -> tuple[str, ...]:
    """Stage names, comma between, or "all", as a tuple in the order of the pipeline.

    Raises UnknownStage with the list of stages.
    """
    names = text.split(",") if isinstance(text, str) else list(text)
    wanted = {name.strip() for name in names if name.strip()}
    unknown = sorted(wanted - set(STAGES) - {"all"})
    if unknown or not wanted:
        problem = f"there is no stage {unknown[0]!r}" if unknown else "no stage is named"
        raise UnknownStage(f"{problem}; the stages are {', '.join(STAGES)}, or all")
    return STAGES if "all" in wanted else tuple(name for name in STAGES if name in wanted)


def heading(stage: str) -> str:
    """The lines above a stage's text."""
    mark = _COMMENT.get(stage, ";")
    return "\n".join([f"{mark} ---- {stage} ----", *(f"{mark} {e}" for e in EXPLANATIONS[stage])])


# ---- the backward part


@dataclass(frozen=True, slots=True)
class Differentiated:
    """One call of autodiff: what was differentiated, and the gradients that came out."""

    outputs: tuple[Node, ...]
    gradients: tuple[Node, ...]


def _is_known(node: Node) -> bool:
    return node.payload is not None


def gradient_text(calls: Sequence[Differentiated]) -> str:
    """The nodes that each call of autodiff added to what there was, as a listing."""
    if not calls:
        return "no backward pass was recorded for this program"
    return "\n\n".join(_gradient_listing(call) for call in calls)


def _gradient_listing(call: Differentiated) -> str:
    forward = set(topological(call.outputs, stop=_is_known))
    order = topological(call.gradients, stop=lambda n: n in forward or _is_known(n))
    numbers = {node: number for number, node in enumerate(order)}
    counts = f"{len(call.gradients)} gradients" if len(call.gradients) != 1 else "1 gradient"
    lines = [f"# {counts} of {', '.join(f'{o.op} {_typed(o)}' for o in call.outputs)}"]
    for node in order:
        line = f"%{numbers[node]} = "
        if node.op != "const" and (node in forward or _is_known(node)):
            line += f"forward {node.op} : {_typed(node)}"
        else:
            arguments = [f"%{numbers[value]}" for value in node.inputs]
            for name, value in zip(OPS[node.op].attributes, node.attrs, strict=True):
                if name not in TYPE_ATTRIBUTES:
                    text = format_value(value, {})
                    arguments.append(text if node.op == "const" else f"{name}={text}")
            line += f"{node.op}({', '.join(arguments)}) : {_typed(node)}"
        if node.location:
            line += "    # " + format_location(node.location, PATH_STYLES["name"])
        lines.append(line)
    lines.append("return " + ", ".join(f"%{numbers[gradient]}" for gradient in call.gradients))
    return "\n".join(lines)


def _typed(node: Node) -> str:
    return f"{node.dtype.name}[{format_shape(node.shape, {})}]"


class BackwardRecorder:
    """Between `install` and `remove`, notes the calls of autodiff since the last program ran.

    The canonical graph no longer tells gradients from other nodes, so they are noted where they are
    made.
    """

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


# ---- programs


@dataclass(frozen=True, slots=True)
class DumpedProgram:
    """A program's texts by stage.  number: counted from 0.  about: its kernels, in a word."""

    number: int
    about: str
    summary: str
    texts: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.number:03}-{self.about}"

    def text(self) -> str:
        """All stages with their headings, as printed."""
        parts = [f"==== program {self.number:03}: {self.about} ({self.summary}) ===="]
        parts += [f"{heading(stage)}\n{text.rstrip()}" for stage, text in self.texts.items()]
        return "\n\n".join(parts) + "\n\n"


def about(stages: Stages) -> str:
    """What a program's kernels compute, short and fit for a file name."""
    words = dict.fromkeys(launch.about for launch in stages.launches)
    word = re.sub(r"[^A-Za-z0-9_+]+", "-", "-".join(words)).strip("-")
    return word[:40].rstrip("-+") or "nothing"


def render(stages: Stages, stage: str, calls: Sequence[Differentiated] = ()) -> str:
    """A stage as text.  calls: what autodiff did, for stage grad."""
    return gradient_text(calls) if stage == "grad" else stages.render(stage)


def summary(stages: Stages) -> str:
    def counted(count: int, noun: str) -> str:
        return f"{count} {noun}" + ("" if count == 1 else "s")

    return ", ".join([counted(input_count(stages.graph), "input"),
                      counted(len(stages.graph.outputs), "output"),
                      counted(len(stages.launches), "kernel call")])


class Dump:
    """Listens for programs and hands each to `write`.

    write: called with each `DumpedProgram` as soon as it was compiled or loaded.  `count`: programs
    so far; `from_disk`: those that the disk cache had; `failures`: stages that could not be shown.
    """

    def __init__(self, stages: Sequence[str], write: Callable[[DumpedProgram], None]) -> None:
        self.stages = tuple(stages)
        self.write = write
        self.count = 0
        self.from_disk = 0
        self.failures = 0
        self._backward = BackwardRecorder()

    def install(self) -> Dump:
        store.compile_callbacks.append(self._compiled)
        if "grad" in self.stages:
            self._backward.install()
        return self

    def remove(self) -> None:
        store.compile_callbacks.remove(self._compiled)
        self._backward.remove()

    def _compiled(self, graph: Graph, stages: Stages | None, artifact: Artifact) -> None:
        if stages is None:
            self.from_disk += 1
            stages = lower(graph, host())
        number, self.count = self.count, self.count + 1
        texts = {stage: self._render(stages, stage) for stage in self.stages}
        self.write(DumpedProgram(number, about(stages), summary(stages), texts))

    def _render(self, stages: Stages, stage: str) -> str:
        try:
            return render(stages, stage, self._backward.calls)
        except Exception as error:  # looking at a program must not keep it from running
            self.failures += 1
            return f"this stage cannot be shown: {type(error).__name__}: {error}"


def write_to(stream: TextIO) -> Callable[[DumpedProgram], None]:
    """Prints programs; a reader that has gone away (`| head`) is no error."""
    gone = False

    def write(dumped: DumpedProgram) -> None:
        nonlocal gone
        if not gone:
            try:
                stream.write(dumped.text())
                stream.flush()
            except BrokenPipeError:
                gone = True

    return write


def write_files(folder: Path) -> Callable[[DumpedProgram], None]:
    """Writes folder/000-about/stage.txt.  The folder's older dumps are deleted, and only these."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if re.match(r"\d{3,}-", old.name) and old.is_dir() and not old.is_symlink():
            for stage in STAGES:
                (old / f"{stage}.txt").unlink(missing_ok=True)
            if not any(old.iterdir()):
                old.rmdir()

    def write(dumped: DumpedProgram) -> None:
        target = folder / dumped.name
        target.mkdir(exist_ok=True)
        for stage, text in dumped.texts.items():
            (target / f"{stage}.txt").write_text(f"{heading(stage)}\n{text.rstrip()}\n",
                                                 encoding="utf-8")

    return write


@functools.cache
def install_from_environment() -> Dump | None:
    """Dumps this process's programs as LAZYGRAD_DUMP (stages, comma between) says; once.

    They go to standard error, or into the folder LAZYGRAD_DUMP_DIR.  None where the variable is not
    set.  Raises UnknownStage for a stage that does not exist.
    """
    wanted = os.environ.get("LAZYGRAD_DUMP", "").strip()
    if not wanted:
        return None
    try:
        stages = parse_stages(wanted)
    except UnknownStage as error:
        raise UnknownStage(f"[LAZYGRAD_DUMP] {error}") from None
    folder = os.environ.get("LAZYGRAD_DUMP_DIR")
    return Dump(stages, write_files(Path(folder)) if folder else write_to(sys.stderr)).install()


# ---- one tensor


def recorded_graph(tensors: Sequence[Tensor]) -> tuple[Graph, list[Node]]:
    """The pending graph of tensors, canonical, and its leaves: the nodes whose values it takes."""
    return program.pending_graph(_value_nodes(tensors))


def _value_nodes(tensors: Sequence[Tensor]) -> list[Node]:
    """What a flush would compute for the tensors: without the mark of a history that was used."""
    nodes = [raw_node(tensor) for tensor in tensors]
    return [node.inputs[0] if cells.is_freed(node) else node for node in nodes]


def dump_ir(what: Any, *arguments: Any, stage: str | Iterable[str] = DEFAULT_STAGES,
            **keywords: Any) -> str:
    """The program that would compute a tensor, as text; it is compiled as far as asked, not run.

    what: a pending tensor, a list of them, or a function, which is called with the further
    arguments; its program is everything pending that the call recorded (results, gradients, updated
    parameters), and what it looks at while it is called is computed.  stage: one name or several
    (see `lazygrad_compiler.pipeline.STAGES`), or "all".  Stage grad of a tensor is what
    `.backward()` would record.

    Raises UnknownStage, and ValueError where there is nothing pending.
    """
    stages = parse_stages(stage)
    if isinstance(what, Tensor) or not callable(what):
        outputs = _value_nodes(_tensors_in(what))
        calls = [call for node in outputs if "grad" in stages
                 and (call := _would_differentiate(node))]
    else:
        outputs, calls = _record(inspect.unwrap(what), arguments, keywords)
    pending = list(dict.fromkeys(node for node in outputs if node.payload is None))
    if not pending:
        raise fail("dump_ir", "nothing is pending: the values are there already, and the program "
                   "that made them is gone", "Call dump_ir before anything looks at the tensor "
                   "(print, .item(), .numpy()), or use `lazygrad dump-ir SCRIPT`.")
    lowered = lower(program.pending_graph(pending)[0], host())
    texts = {name: render(lowered, name, calls) for name in stages}
    return DumpedProgram(0, about(lowered), summary(lowered), texts).text()


def _tensors_in(value: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return list(itertools.chain.from_iterable(map(_tensors_in, value)))


def _would_differentiate(output: Node) -> Differentiated | None:
    """What `.backward()` on the node would record, for all leaves that require gradients."""
    if not output.differentiable:
        return None
    leaves = [node for node in topological([output], stop=_is_known)
              if node.op == "variable" and not cells.is_freed(node)]
    if not leaves:
        return None
    found = autodiff.backward([output], [build_graph.like(1, output)], leaves)
    return Differentiated((output,), tuple(node for node in found if node is not None))


def _record(function: Callable[..., Any], arguments: tuple[Any, ...],
            keywords: dict[str, Any]) -> tuple[list[Node], list[Differentiated]]:
    """The nodes that a call of the function left pending, and what it differentiated."""
    before = {cell.node for cell in cells.live_cells()}
    recorder = BackwardRecorder()
    recorder.install()
    try:
        results = _tensors_in(function(*arguments, **keywords))
    finally:
        recorder.remove()
    recorded = [cell.node for cell in cells.live_cells() if cell.node not in before]
    recorded = [node.inputs[0] if cells.is_freed(node) else node for node in recorded]
    return _value_nodes(results) + recorded, recorder.calls


__all__ = ["DEFAULT_STAGES", "Dump", "UnknownStage", "dump_ir", "install_from_environment",
           "parse_stages", "recorded_graph", "write_files", "write_to"]  # fmt: skip
