"""The compiler's driver: a graph goes in, an artifact comes out, through the named stages.

graph -> (grad, recorded by the front end) -> opt -> fused -> loops -> llvm -> llvm-opt -> asm | ptx

An `Artifact` is everything that the runtime needs to run the program, as plain data and object
code; it can be stored and read back in another process.  `Stages` keeps what a dump shows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

from lazygrad_compiler.artifact import (
    Artifact,
    Donations,
    GridLaunch,
    LibraryLaunch,
    Tuned,
    Tuning,
)
from lazygrad_compiler.autodiff.listing import Differentiated, gradient_text
from lazygrad_compiler.backend import AnyTarget, Backend, Grid, backend_of
from lazygrad_compiler.binding import Binding, BoundLaunch, binding_of, fixed, in_order
from lazygrad_compiler.fusion.partition import Body, Partition, Reason, partition
from lazygrad_compiler.fusion.seams import refusals
from lazygrad_compiler.in_place import donations
from lazygrad_compiler.ir.node import Graph, Location, Node
from lazygrad_compiler.ir.ops import ARRAY_KINDS
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.llvm.entry import LIBRARY_SYMBOL, emit_entry
from lazygrad_compiler.loops import candidates
from lazygrad_compiler.loops.alike import moved, structure
from lazygrad_compiler.loops.arrays import lower_array
from lazygrad_compiler.loops.columns import lower_row_group
from lazygrad_compiler.loops.concat import comes_in_pieces, lower_pieces
from lazygrad_compiler.loops.kernel import ArrayKernel, ContractionKernel, Kernel, Launch, text
from lazygrad_compiler.loops.lower import Group, lower_contraction
from lazygrad_compiler.loops.rebase import rebase
from lazygrad_compiler.loops.repeat import Repeat, lower_loop
from lazygrad_compiler.loops.scatter import lower_scatter
from lazygrad_compiler.loops.schedule import STREAM_BYTES
from lazygrad_compiler.memory_plan import MemoryPlan, plan_memory
from lazygrad_compiler.parallel import Jobs
from lazygrad_compiler.passes.optimize import Observer, Pass, optimize
from lazygrad_compiler.target import Target, host

STAGES = ("graph", "grad", "opt", "fused", "loops", "llvm", "llvm-opt", "asm")
"""Those of the CPU; `stages_of` has a target's."""

KernelCompiler = Callable[[str, str, Any], bytes]
"""(name, LLVM text, target) -> object code; the runtime may answer from its cache."""


@dataclass(slots=True)
class CompiledKernel:
    """A distinct kernel: its loop IR, schedule, and LLVM text.  tuned: where the schedule is not
    the default.
    """

    name: str
    kernel: Kernel
    schedule: Any
    llvm: str
    tasks: int
    grain: int
    scratch: int
    grid: Grid | None = None
    tuned: Tuned | None = None


@dataclass(slots=True)
class Stages:
    """What each stage made, for dumps; the later ones are rendered when asked for."""

    target: AnyTarget
    graph: Graph
    opt: Graph
    partition: Partition
    launches: list[Launch]
    kernels: list[CompiledKernel]
    names: list[str]  # of each launch's kernel
    plan: MemoryPlan
    entry: str  # LLVM text; a GPU's launches have none
    bound: list[BoundLaunch] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    gradients: Sequence[Differentiated] = ()  # what autodiff did; the front end notes it

    def render(self, stage: str) -> str:
        """The stage as text.  KeyError for an unknown name."""
        return _RENDER[stage](self)

    def refusals(self) -> list[tuple[Node, Node, Reason]]:
        """Neighbours that are not one kernel, and why, those in the steps of loops at the end."""
        return refusals(self.opt, self.partition, backend_of(self.target).attends)


def stages_of(target: AnyTarget) -> tuple[str, ...]:
    """The names of the stages for a target, in order."""
    return backend_of(target).stages


def compile_graph(
    graph: Graph,
    target: AnyTarget,
    compile_kernel: KernelCompiler | None = None,
    tuning: Tuning | None = None,
    threads: int = 1,
) -> Artifact:
    """Compiles a canonical graph (inputs numbered from 0).  tuning: schedules other than the
    defaults.
    """
    started = time.perf_counter()
    stages, objects = compile_stages(graph, target, compile_kernel, tuning, threads)
    return make_artifact(stages, objects, time.perf_counter() - started)


def compile_stages(
    graph: Graph,
    target: AnyTarget,
    compile_kernel: KernelCompiler | None = None,
    tuning: Tuning | None = None,
    threads: int = 1,
) -> tuple[Stages, dict[str, bytes]]:
    """All stages, and the object code of the entry and of each distinct kernel; for a GPU the
    kernels' PTX.

    threads: how many work on object code at most, as soon as there is text of a first kernel.  The
    code does not depend on it.
    """
    make = compile_kernel or _kernel_compiler(target)
    with Jobs[bytes](threads - 1 if isinstance(target, Target) else 0) as jobs:

        def emitted(kernel: CompiledKernel) -> None:
            jobs.add(kernel.name, partial(make, kernel.name, kernel.llvm, target))

        stages = lower(graph, target, tuning, emitted)
        if isinstance(target, Target):
            jobs.add("program", partial(_entry_object, stages.entry, target))
        begun = time.perf_counter()
        objects = jobs.finish()
        stages.times["asm"] = time.perf_counter() - begun
    return stages, objects


def _kernel_compiler(target: AnyTarget) -> KernelCompiler:
    backend = backend_of(target)
    return lambda name, llvm, target: backend.compile(llvm, target)


def _entry_object(text: str, target: Target) -> bytes:
    return compile_text(text, target, straight=True).object_code


def lower(
    graph: Graph,
    target: AnyTarget,
    tuning: Tuning | None = None,
    emitted: Callable[[CompiledKernel], None] | None = None,
) -> Stages:
    """Everything up to LLVM text.  emitted: called with each distinct kernel once it has text,
    which is before the groups after it are lowered.
    """
    times: dict[str, float] = {}
    backend = backend_of(target)

    def timed(name: str, step: Callable, *args: Any) -> Any:
        begun = time.perf_counter()
        result = step(*args)
        times[name] = times.get(name, 0.0) + time.perf_counter() - begun
        return result

    separate = timed("opt", optimized, graph, None, target)
    parts = timed("fused", partition, separate, backend.columns)
    launches: list[Launch] = []
    distinct = _DistinctKernels(target, tuning, emitted)
    groups = _lowered(parts, backend)
    while (made := timed("loops", next, groups, None)) is not None:
        launches += made
        timed("llvm", distinct.add, made)
    kernels, names = list(distinct.kernels.values()), distinct.names
    count = input_count(graph)
    plan, bound = timed("plan", bind, separate, count, launches, kernels, names)
    entry = ""
    if isinstance(target, Target):
        module = Module()
        emit_entry(module, bound, count + len(graph.outputs) + 1, "nounwind")
        entry = module.text()
    return Stages(
        target, graph, separate, parts, launches, kernels, names, plan, entry, bound, times
    )


def with_kernels(stages: Stages, kernels: Sequence[CompiledKernel], names: Sequence[str]) -> Stages:
    """The same program by other kernels: those of another tuning.  It has no entry of its own."""
    plan, bound = bind(
        stages.opt, input_count(stages.graph), stages.launches, kernels, names
    )
    return replace(
        stages, kernels=list(kernels), names=list(names), plan=plan, entry="", bound=bound
    )


def optimized(
    graph: Graph, observer: Observer | None = None, target: AnyTarget | None = None
) -> Graph:
    """Stage opt of a graph: everything that makes one graph of another, in order.

    observer: called after each pass, see `passes.optimize`.  target: this machine if not given.
    """
    return optimize(graph, observer, opt_passes(target))


def opt_passes(target: AnyTarget | None = None) -> list[tuple[str, Pass]]:
    """The passes of stage opt by name, in order."""
    return list(backend_of(target or host()).passes)


def input_count(graph: Graph) -> int:
    """Inputs that a run is given, those too that the optimised graph has no use for."""
    return 1 + max((leaf.attrs[0] for leaf in graph.inputs()), default=-1)


def lower_groups(parts: Partition, backend: Backend) -> list[Launch]:
    """One launch a group (a scatter takes two: the base, then the updates; a large concatenation
    one for each piece; a loop those of its body); empty results take none.
    """
    return [launch for made in _lowered(parts, backend) for launch in made]


def _lowered(parts: Partition, backend: Backend) -> Iterator[list[Launch]]:
    """The launches of one group after the other."""
    known: dict[tuple, tuple[list[Launch], list[Node]]] = {}
    for group in parts.groups:
        members = set(group.roots)

        def stored(value: Node, members: set[Node] = members) -> bool:
            return value.op == "input" or (value in parts.stored and value not in members)

        if all(root.size == 0 for root in group.outputs):
            continue
        if group.kind == "joined":  # its pieces are stored where they belong
            continue
        if group.kind == "loop":
            yield lower_loop(group, partial(lower_body, parts, group, backend))
            continue
        if group.kind == "scatter":
            made = lower_scatter(group, stored, backend.scatter_parts, backend.order_updates)
        elif group.kind in ARRAY_KINDS:
            made = lower_array(group, backend.lowerings)
        elif comes_in_pieces(group):
            made = lower_pieces(group, stored)
        else:
            key, nodes = structure(group, stored)
            if key in known:
                yield [replace(launch, group=group) for launch in moved(*known[key], nodes)]
                continue
            if group.kind == "contraction":
                made = [lower_contraction(group, stored)]
            else:
                made = lower_row_group(group, stored, keeps=backend.row_buffers)
            made = [rebase(launch, backend.alignment) for launch in made]
            known[key] = made, nodes
            yield [replace(launch, group=group) for launch in made]
            continue
        yield [rebase(replace(launch, group=group), backend.alignment) for launch in made]


def lower_body(outer: Partition, group: Group, backend: Backend, body: Graph) -> list[Launch]:
    """The launches of one step of a loop; how it is partitioned is noted in `outer`."""
    parts = partition(body, backend.columns)
    outer.bodies.append(Body(group, body, parts))
    return lower_groups(parts, backend)


def kernel_name(kernel: Kernel, target: AnyTarget, schedule: str = "") -> str:
    """By which a kernel is known: a hash of target, loop IR, and schedule if it is not the default.
    """
    digest = hashlib.sha256(f"{target}\n{text(kernel)}{schedule}".encode())
    return f"k_{digest.hexdigest()[:16]}"


class _DistinctKernels:
    """The distinct kernels of launches by name, and each launch's name.  emitted: called with each
    kernel.
    """

    def __init__(self, target: AnyTarget, tuning: Tuning | None,
                 emitted: Callable[[CompiledKernel], None] | None) -> None:
        self.target, self.tuning, self.emitted = target, tuning, emitted
        self.kernels: dict[str, CompiledKernel] = {}
        self.names: list[str] = []
        self._known: dict[int, tuple[Kernel, str]] = {}  # launches that are alike share an object

    def add(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            self.names.append(self._name(launch.kernel))

    def _name(self, kernel: Kernel) -> str:
        if kernel.kind == "library":  # no code of ours: the entry calls the runtime
            return LIBRARY_SYMBOL
        if id(kernel) in self._known:
            return self._known[id(kernel)][1]
        name = kernel_name(kernel, self.target)
        tuned = self.tuning.get(name) if self.tuning else None
        if tuned is not None:
            name = kernel_name(kernel, self.target, tuned.schedule)
        self._known[id(kernel)] = kernel, name
        if name not in self.kernels:
            self.kernels[name] = emit_kernel(name, kernel, self.target, tuned=tuned)
            if self.emitted is not None:
                self.emitted(self.kernels[name])
        return name


def emit_kernel(
    name: str,
    kernel: Kernel,
    target: AnyTarget,
    annotated: bool = False,
    tuned: Tuned | None = None,
) -> CompiledKernel:
    """annotated: with comments on what of the loop IR each instruction is for (`llvm/lines.py`).
    tuned: another schedule than the default.
    """
    backend = backend_of(target)
    module = backend.module(target, annotated)
    given = () if tuned is None else (candidates.read(tuned.schedule),)
    made = backend.emitters[kernel.kind](module, name, kernel, target, *given)
    return CompiledKernel(
        name, kernel, made.schedule, module.text(), made.tasks, made.grain, made.scratch, made.grid,
        tuned,
    )


def candidates_of(kernel: CompiledKernel, target: Target) -> list[candidates.Schedule]:
    """Schedules that a kernel with its default one may have instead; that one is the first."""
    return candidates.candidates(kernel.kernel, target, kernel.schedule, kernel.tasks)


def _pool_grain(kernel: CompiledKernel) -> int:
    """The grain, below zero where threads are to take chunks in turn: a contraction's short tasks
    come last, and what is larger than the caches is not there for the next kernel.  (Of other
    kernels a thread computes the same half each time, so that its caches have what it reads.)
    """
    nbytes = sum(buffer.size * buffer.dtype.itemsize for buffer in kernel.kernel.buffers)
    in_turn = isinstance(kernel.kernel, ContractionKernel) or nbytes >= STREAM_BYTES
    return -kernel.grain if in_turn else kernel.grain


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
    homes = {value: Binding(slot) for value, slot in slots.items()}
    arena = count + len(graph.outputs)
    homes |= {value: Binding(arena, offset) for value, offset in plan.offsets().items()}
    by_name = {kernel.name: kernel for kernel in kernels}
    numbers: dict[Repeat, int] = {}
    bound = []
    for launch, name in zip(launches, names, strict=True):
        arguments = tuple(
            binding_of(value, launch.repeats, homes, launch.offset_of(place) * value.dtype.itemsize)
            for place, value in enumerate(launch.arguments)
        )
        repeats = tuple(
            (numbers.setdefault(repeat, len(numbers)), repeat.length) for repeat in launch.repeats
        )
        if name == LIBRARY_SYMBOL:
            bound.append(BoundLaunch(name, arguments, 1, 1, True, True, repeats))
            continue
        kernel = by_name[name]
        checks = any(instr.op == "dynamic" for instr in launch.kernel.values)
        bound.append(
            BoundLaunch(name, arguments, kernel.tasks, _pool_grain(kernel), checks, False, repeats)
        )
    return plan, bound


def emit_objects(stages: Stages) -> dict[str, bytes]:
    """Object code of stages that `lower` gave, one kernel after the other."""
    make = _kernel_compiler(stages.target)
    objects = {
        kernel.name: make(kernel.name, kernel.llvm, stages.target) for kernel in stages.kernels
    }
    if isinstance(stages.target, Target):
        objects["program"] = _entry_object(stages.entry, stages.target)
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
        stages.target.kind,
        grid_launches(stages) if stages.target.kind == "cuda" else (),
        tuning_of_stages(stages),
    )


def tuning_of_stages(stages: Stages) -> Tuning:
    """The schedules that are not the defaults."""
    return {
        kernel_name(kernel.kernel, stages.target): kernel.tuned
        for kernel in stages.kernels
        if kernel.tuned is not None
    }


def grid_launches(stages: Stages) -> tuple[GridLaunch, ...]:
    """The launches for a GPU, in order; those of a loop once for each round."""
    by_name = {kernel.name: kernel for kernel in stages.kernels}
    result = []
    for number, rounds in in_order(stages.bound):
        launch = stages.bound[number]
        places = [fixed(binding, launch.repeats, rounds) for binding in launch.arguments]
        arguments = tuple((place.slot, place.offset) for place in places)
        grid = None if launch.library else by_name[launch.kernel].grid
        grid = grid or Grid((0, 0, 0), (0, 0, 0))
        result.append(
            GridLaunch(
                launch.kernel, arguments, grid.blocks, grid.threads, grid.shared, launch.checks,
                number, grid.maps,
            )
        )
    return tuple(result)


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


def rounds(launch: Launch) -> str:
    """Of which loops a launch is a part, outermost first."""
    return "".join(f", in {repeat.length} steps of {repeat.name}" for repeat in launch.repeats)


def _render_fused(stages: Stages) -> str:
    lines = []
    for number, launch in enumerate(stages.launches):
        group = launch.group
        lines.append(
            f"kernel {number}: {launch.kernel.kind} {launch.about}{rounds(launch)}"
            f"{where(launch.location)}"
        )
        for root in group.roots:
            kept = "stored" if root in group.outputs else "inside"
            lines.append(
                f"  {root.op} {root.dtype.name}{list(root.shape)} {kept}{where(root.location)}"
            )
    for producer, consumer, reason in stages.refusals():
        lines.append(
            f"not fused: {producer.op}{where(producer.location)} -> "
            f"{consumer.op}{where(consumer.location)}: {reason.value}"
        )
    return "\n".join(lines)


def schedule_text(schedule: Any) -> str:
    """A kernel's schedule as text, without what is as it always is."""
    if not is_dataclass(schedule):
        return str(schedule)
    said = [f"{each.name}={value!r}" for each in fields(schedule)
            if (value := getattr(schedule, each.name)) != each.default]
    return f"{type(schedule).__name__}({', '.join(said)})"


def _per_kernel(stages: Stages, show: Callable[[CompiledKernel], str]) -> str:
    lines: dict[str, list[str]] = {}
    for name, launch in zip(stages.names, stages.launches, strict=True):
        lines.setdefault(name, []).append(launch.about + where(launch.location))
    parts = []
    for kernel in stages.kernels:
        heading = "\n".join(f"; {kernel.name}: {line}" for line in lines[kernel.name])
        parts.append(heading + "\n" + show(kernel))
    return "\n\n".join(parts)


def _scheduled(kernel: CompiledKernel) -> str:
    """The schedule as comment lines."""
    found = "" if kernel.tuned is None else f"; schedule: {kernel.tuned}\n"
    return f"{found}; {schedule_text(kernel.schedule)}"


def _render_entry(stages: Stages) -> str:
    return "\n\n; entry\n" + stages.entry if stages.entry else ""


def _optimized_text(stages: Stages, kernel: CompiledKernel) -> str:
    return backend_of(stages.target).optimize(kernel.llvm, stages.target)


def _render_assembly(stages: Stages) -> str:
    backend = backend_of(stages.target)
    return _per_kernel(
        stages, lambda k: backend.assemble(_optimized_text(stages, k), stages.target)
    )


_RENDER: dict[str, Callable[[Stages], str]] = {
    "graph": lambda s: print_graph(s.graph),
    "grad": lambda s: gradient_text(s.gradients),
    "opt": lambda s: print_graph(s.opt),
    "fused": _render_fused,
    "loops": lambda s: _per_kernel(s, lambda k: f"{_scheduled(k)}\n{text(k.kernel)}"),
    "llvm": lambda s: _per_kernel(s, lambda k: k.llvm) + _render_entry(s),
    "llvm-opt": lambda s: _per_kernel(s, lambda k: _optimized_text(s, k)),
    "asm": lambda s: _render_assembly(s),
    "ptx": lambda s: _render_assembly(s),
}
