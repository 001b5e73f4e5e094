"""The compiler's driver: a graph goes in, an artifact comes out, through the named stages.

graph -> (grad, recorded by the front end) -> opt -> fused -> loops -> llvm -> llvm-opt -> asm

An `Artifact` is everything that the runtime needs to run the program, as plain data and object
code; it can be stored and read back in another process.  `Stages` keeps what a dump shows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lazygrad_compiler.artifact import Artifact, Donations, LibraryLaunch
from lazygrad_compiler.autodiff.listing import Differentiated, gradient_text
from lazygrad_compiler.fusion.attention import take_apart
from lazygrad_compiler.fusion.partition import Partition, partition
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.in_place import donations
from lazygrad_compiler.ir.node import Graph, Location, Node, node
from lazygrad_compiler.ir.ops import ARRAY_KINDS
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.llvm import contraction, loops, scatter
from lazygrad_compiler.llvm.arrays import EMITTERS, emit_array
from lazygrad_compiler.llvm.attention import emit_attention
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.llvm.compile import assembly, compile_text, optimize_text
from lazygrad_compiler.llvm.entry import LIBRARY_SYMBOL, Binding, BoundLaunch, emit_entry
from lazygrad_compiler.llvm.scan import emit_scan
from lazygrad_compiler.llvm.sort import emit_sort
from lazygrad_compiler.loops.arrays import LOWERINGS, lower_array
from lazygrad_compiler.loops.attention import lower_attention
from lazygrad_compiler.loops.concat import comes_in_pieces, lower_pieces
from lazygrad_compiler.loops.kernel import (
    ArrayKernel,
    ContractionKernel,
    Kernel,
    Launch,
    LoopKernel,
    text,
)
from lazygrad_compiler.loops.lower import lower_contraction, lower_rows
from lazygrad_compiler.loops.rebase import rebase
from lazygrad_compiler.loops.scan import lower_scan
from lazygrad_compiler.loops.scatter import lower_scatter
from lazygrad_compiler.loops.schedule import schedule_loops
from lazygrad_compiler.loops.schedule_contraction import schedule_contraction, scratch_bytes
from lazygrad_compiler.loops.sort import lower_sort
from lazygrad_compiler.memory_plan import MemoryPlan, plan_memory
from lazygrad_compiler.passes.complex import split_complex
from lazygrad_compiler.passes.optimize import PASSES, Observer, Pass, optimize
from lazygrad_compiler.target import Target

LOWERINGS["scan"] = lower_scan
EMITTERS["scan"] = emit_scan
LOWERINGS["sort"] = lower_sort
EMITTERS["sort"] = emit_sort
LOWERINGS["attention"] = lower_attention
EMITTERS["attention"] = emit_attention

STAGES = ("graph", "grad", "opt", "fused", "loops", "llvm", "llvm-opt", "asm")

KernelCompiler = Callable[[str, str, Target], bytes]
"""(name, LLVM text, target) -> object code; the runtime may answer from its cache."""


@dataclass(slots=True)
class CompiledKernel:
    """A distinct kernel: its loop IR, schedule, and LLVM text."""

    name: str
    kernel: Kernel
    schedule: Any
    llvm: str
    tasks: int
    grain: int
    scratch: int


@dataclass(slots=True)
class Stages:
    """What each stage made, for dumps; the later ones are rendered when asked for."""

    target: Target
    graph: Graph
    opt: Graph
    partition: Partition
    launches: list[Launch]
    kernels: list[CompiledKernel]
    names: list[str]  # of each launch's kernel
    plan: MemoryPlan
    entry: str
    times: dict[str, float] = field(default_factory=dict)
    gradients: Sequence[Differentiated] = ()  # what autodiff did; the front end notes it

    def render(self, stage: str) -> str:
        """The stage as text.  KeyError for an unknown name."""
        return _RENDER[stage](self)


def compile_graph(
    graph: Graph, target: Target, compile_kernel: KernelCompiler | None = None
) -> Artifact:
    """Compiles a canonical graph (inputs numbered from 0)."""
    started = time.perf_counter()
    stages = lower(graph, target)
    objects = emit_objects(stages, compile_kernel)
    return make_artifact(stages, objects, time.perf_counter() - started)


def lower(graph: Graph, target: Target) -> Stages:
    """Everything up to LLVM text."""
    times: dict[str, float] = {}

    def timed(name: str, step: Callable, *args: Any) -> Any:
        begun = time.perf_counter()
        result = step(*args)
        times[name] = time.perf_counter() - begun
        return result

    separate = timed("opt", optimized, graph)
    parts = timed("fused", partition, separate)
    launches = timed("loops", lower_groups, parts)
    kernels, names = timed("llvm", emit_kernels, launches, target)
    count = input_count(graph)
    plan, bound = timed("plan", bind, separate, count, launches, kernels, names)
    entry = Module()
    emit_entry(entry, bound, count + len(graph.outputs) + 1, "nounwind")
    return Stages(
        target, graph, separate, parts, launches, kernels, names, plan, entry.text(), times
    )


def optimized(graph: Graph, observer: Observer | None = None) -> Graph:
    """Stage opt of a graph: everything that makes one graph of another, in order.

    observer: called after each pass, see `passes.optimize`.
    """
    return optimize(graph, observer, opt_passes())


def opt_passes() -> list[tuple[str, Pass]]:
    """The passes of stage opt by name, in order."""
    return [
        ("split-complex", split_complex),
        ("take-apart", take_apart),
        *PASSES,
        ("prepare", prepare),
        ("separate-outputs", separate_outputs),
    ]


def input_count(graph: Graph) -> int:
    """Inputs that a run is given, those too that the optimised graph has no use for."""
    return 1 + max((leaf.attrs[0] for leaf in graph.inputs()), default=-1)


def separate_outputs(graph: Graph) -> Graph:
    """Every output a node of its own: an input or an earlier output given back is copied."""
    seen: set[Node] = set()
    outputs = []
    for output in graph.outputs:
        while output in seen or output.op == "input":
            output = node("reshape", output, shape=output.shape, location=output.location)
        seen.add(output)
        outputs.append(output)
    return Graph(tuple(outputs))


def lower_groups(parts: Partition) -> list[Launch]:
    """One launch a group (a scatter takes two: the base, then the updates; a large concatenation
    one for each piece); empty results take none.
    """
    launches: list[Launch] = []
    for group in parts.groups:
        members = set(group.roots)

        def stored(value: Node, members: set[Node] = members) -> bool:
            return value.op == "input" or (value in parts.stored and value not in members)

        if all(root.size == 0 for root in group.outputs):
            continue
        if group.kind == "contraction":
            made = [lower_contraction(group, stored)]
        elif group.kind == "scatter":
            made = lower_scatter(group, stored)
        elif group.kind in ARRAY_KINDS:
            made = lower_array(group)
        elif comes_in_pieces(group):
            made = lower_pieces(group, stored)
        else:
            made = [lower_rows(group, stored)]
        launches += [rebase(replace(launch, group=group)) for launch in made]
    return launches


def emit_kernels(
    launches: Sequence[Launch], target: Target
) -> tuple[list[CompiledKernel], list[str]]:
    """The distinct kernels, and the name of each launch's."""
    kernels: dict[str, CompiledKernel] = {}
    names: list[str] = []
    for launch in launches:
        if launch.kernel.kind == "library":  # no code of ours: the entry calls the runtime
            names.append(LIBRARY_SYMBOL)
            continue
        kernel_text = text(launch.kernel)
        digest = hashlib.sha256(f"{target}\n{kernel_text}".encode()).hexdigest()[:16]
        name = f"k_{digest}"
        names.append(name)
        if name not in kernels:
            kernels[name] = emit_kernel(name, launch.kernel, target)
    return list(kernels.values()), names


def emit_kernel(
    name: str, kernel: Kernel, target: Target, annotated: bool = False
) -> CompiledKernel:
    """annotated: with comments on what of the loop IR each instruction is for (`llvm/lines.py`)."""
    module = Module(
        function_attributes=target.function_attributes,
        target_features=target.features,
        annotated=annotated,
    )
    scratch = 0
    schedule: Any = None
    if isinstance(kernel, LoopKernel):
        schedule = schedule_loops(kernel, target)
        loops.emit_loops(module, name, kernel, schedule, target.function_attributes)
        tasks, grain = loops.task_count(kernel, schedule), schedule.grain
    elif isinstance(kernel, ContractionKernel):
        schedule = schedule_contraction(kernel, target)
        contraction.emit_contraction(module, name, kernel, schedule, target.function_attributes)
        tasks, grain = contraction.task_count(kernel, schedule), schedule.grain
        scratch = scratch_bytes(kernel, schedule)
    elif isinstance(kernel, ArrayKernel):
        work = emit_array(module, name, kernel, target)
        tasks, grain, scratch = work.tasks, work.grain, work.scratch
    else:
        scatter.emit_scatter(module, name, kernel, target)
        tasks, grain = scatter.task_count(kernel, target), scatter.grain_for(kernel, target)
    return CompiledKernel(name, kernel, schedule, module.text(), tasks, grain, scratch)


def bind(
    graph: Graph,
    count: int,
    launches: Sequence[Launch],
    kernels: Sequence[CompiledKernel],
    names: Sequence[str],
) -> tuple[MemoryPlan, list[BoundLaunch]]:
    """Memory for every value, and each launch's buffers as places in the table."""
    slots: dict[Node, int] = {leaf: leaf.attrs[0] for leaf in graph.inputs()}
    for number, output in enumerate(graph.outputs):
        slots[output] = count + number
    plan = plan_memory(launches, set(slots))
    offsets = plan.offsets()
    arena = count + len(graph.outputs)
    by_name = {kernel.name: kernel for kernel in kernels}
    bound = []
    for launch, name in zip(launches, names, strict=True):
        arguments = tuple(
            Binding(slots[value], launch.offset_of(place) * value.dtype.itemsize)
            if value in slots
            else Binding(arena, offsets[value] + launch.offset_of(place) * value.dtype.itemsize)
            for place, value in enumerate(launch.arguments)
        )
        if name == LIBRARY_SYMBOL:
            bound.append(BoundLaunch(name, arguments, 1, 1, checks=True, library=True))
            continue
        kernel = by_name[name]
        checks = any(instr.op == "dynamic" for instr in launch.kernel.values)
        bound.append(BoundLaunch(name, arguments, kernel.tasks, kernel.grain, checks))
    return plan, bound


def emit_objects(stages: Stages, compile_kernel: KernelCompiler | None = None) -> dict[str, bytes]:
    """Object code of the entry and of each distinct kernel."""
    make = compile_kernel or (lambda name, llvm, target: compile_text(llvm, target).object_code)
    begun = time.perf_counter()
    objects = {
        kernel.name: make(kernel.name, kernel.llvm, stages.target) for kernel in stages.kernels
    }
    objects["program"] = compile_text(stages.entry, stages.target, straight=True).object_code
    stages.times["asm"] = time.perf_counter() - begun
    return objects


def make_artifact(stages: Stages, objects: dict[str, bytes], seconds: float) -> Artifact:
    return Artifact(
        objects,
        input_count(stages.graph),
        [(output.dtype.name, output.shape) for output in stages.graph.outputs],
        stages.plan.arena_bytes,
        max((kernel.scratch for kernel in stages.kernels), default=0),
        [
            (name, launch.about, launch.location)
            for name, launch in zip(stages.names, stages.launches, strict=True)
        ],
        seconds,
        library_launches(stages.launches),
        donations_of(stages),
    )


def donations_of(stages: Stages) -> Donations:
    """Which outputs may be written over which inputs."""
    inputs: list[Node | None] = [None] * input_count(stages.graph)
    for leaf in stages.opt.inputs():
        inputs[leaf.attrs[0]] = leaf
    return donations(stages.launches, inputs, stages.opt.outputs)


def library_launches(launches: Sequence[Launch]) -> list[LibraryLaunch]:
    """What the runtime has to know of the library calls among the launches."""
    found = []
    for number, launch in enumerate(launches):
        if isinstance(launch.kernel, ArrayKernel) and launch.kernel.kind == "library":
            name, options, parts = launch.kernel.attrs
            arguments = tuple((value.dtype.name, value.shape) for value in launch.arguments)
            found.append(LibraryLaunch(number, name, options, parts, arguments))
    return found


def where(location: Location) -> str:
    return (
        "  # " + ", ".join(f"{file.rsplit('/', 1)[-1]}:{line}" for file, line in location)
        if location
        else ""
    )


def _render_fused(stages: Stages) -> str:
    lines = []
    for number, launch in enumerate(stages.launches):
        group = launch.group
        lines.append(
            f"kernel {number}: {launch.kernel.kind} {launch.about}{where(launch.location)}"
        )
        for root in group.roots:
            kept = "stored" if root in group.outputs else "inside"
            lines.append(
                f"  {root.op} {root.dtype.name}{list(root.shape)} {kept}{where(root.location)}"
            )
    for producer, consumer, reason in stages.partition.refused:
        lines.append(
            f"not fused: {producer.op}{where(producer.location)} -> "
            f"{consumer.op}{where(consumer.location)}: {reason.value}"
        )
    return "\n".join(lines)


def _per_kernel(stages: Stages, show: Callable[[CompiledKernel], str]) -> str:
    lines: dict[str, list[str]] = {}
    for name, launch in zip(stages.names, stages.launches, strict=True):
        lines.setdefault(name, []).append(launch.about + where(launch.location))
    parts = []
    for kernel in stages.kernels:
        heading = "\n".join(f"; {kernel.name}: {line}" for line in lines[kernel.name])
        parts.append(heading + "\n" + show(kernel))
    return "\n\n".join(parts)


_RENDER: dict[str, Callable[[Stages], str]] = {
    "graph": lambda s: print_graph(s.graph),
    "grad": lambda s: gradient_text(s.gradients),
    "opt": lambda s: print_graph(s.opt),
    "fused": _render_fused,
    "loops": lambda s: _per_kernel(s, lambda k: f"; {k.schedule}\n{text(k.kernel)}"),
    "llvm": lambda s: _per_kernel(s, lambda k: k.llvm) + "\n\n; entry\n" + s.entry,
    "llvm-opt": lambda s: _per_kernel(s, lambda k: optimize_text(k.llvm, s.target)),
    "asm": lambda s: _per_kernel(s, lambda k: assembly(optimize_text(k.llvm, s.target), s.target)),
}
