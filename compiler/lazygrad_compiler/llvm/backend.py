"""The CPU's backend: how each kind of kernel becomes a function for the thread pool."""

from __future__ import annotations

from lazygrad_compiler.backend import Backend, Emitted, Emitter
from lazygrad_compiler.fusion.attention import take_apart
from lazygrad_compiler.fusion.conv_planes import with_planes
from lazygrad_compiler.fusion.panels import with_panels
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.fusion.rematerialise import rematerialise
from lazygrad_compiler.fusion.split_products import Slicing, split_products
from lazygrad_compiler.fusion.winograd import with_winograd
from lazygrad_compiler.llvm import contraction, loops, scatter, tiles
from lazygrad_compiler.llvm.arrays import Emitter as ArrayEmitter
from lazygrad_compiler.llvm.attention import emit_attention
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.llvm.compile import assembly, compile_text, optimize_text
from lazygrad_compiler.llvm.scan import default_vectors, emit_scan
from lazygrad_compiler.llvm.sort import emit_sort
from lazygrad_compiler.llvm.winograd import emit_winograd
from lazygrad_compiler.loops.attention import lower_attention
from lazygrad_compiler.loops.kernel import ArrayKernel, ContractionKernel, LoopKernel, ScatterKernel
from lazygrad_compiler.loops.scan import lower_scan
from lazygrad_compiler.loops.schedule import LoopSchedule, schedule_loops
from lazygrad_compiler.loops.schedule_arrays import (
    AttentionSchedule,
    ScanSchedule,
    TaskSchedule,
    schedule_attention,
)
from lazygrad_compiler.loops.schedule_contraction import (
    ContractionSchedule,
    schedule_contraction,
    scratch_bytes,
)
from lazygrad_compiler.loops.schedule_tiles import TileSchedule, schedule_tiles
from lazygrad_compiler.loops.sort import lower_sort
from lazygrad_compiler.passes.complex import split_complex
from lazygrad_compiler.passes.loops import loops_pass
from lazygrad_compiler.passes.optimize import PASSES
from lazygrad_compiler.passes.outputs import separate_outputs
from lazygrad_compiler.target import Target

SLICING = Slicing(tile=64 * 64, tasks=256, shortest=4096, most=16)
"""Cut in two, a k of 8192 is summed in 0 to 39 % less time; one of 2048 gains nothing.  The partial
sums of one product take 4 MiB of float32 at most.
"""


def _module(target: Target, annotated: bool) -> Module:
    return Module(
        function_attributes=target.function_attributes,
        target_features=target.features,
        annotated=annotated,
    )


def _loops(
    module: Module,
    name: str,
    kernel: LoopKernel,
    target: Target,
    chosen: TileSchedule | LoopSchedule | None = None,
) -> Emitted:
    schedule = chosen or schedule_tiles(kernel, target) or schedule_loops(kernel, target)
    if isinstance(schedule, TileSchedule):
        tiles.emit_tiles(module, name, kernel, schedule, target.function_attributes)
        return Emitted(schedule, tiles.task_count(kernel, schedule), schedule.grain)
    loops.emit_loops(module, name, kernel, schedule, target.function_attributes)
    tasks, scratch = loops.task_count(kernel, schedule), loops.scratch_bytes(kernel, schedule)
    return Emitted(schedule, tasks, schedule.grain, scratch)


def _contraction(
    module: Module,
    name: str,
    kernel: ContractionKernel,
    target: Target,
    chosen: ContractionSchedule | None = None,
) -> Emitted:
    schedule = chosen or schedule_contraction(kernel, target)
    module.opaque_indices = target.has_wide_addresses
    contraction.emit_contraction(module, name, kernel, schedule, target.function_attributes)
    tasks = contraction.task_count(kernel, schedule)
    return Emitted(schedule, tasks, schedule.grain, scratch_bytes(kernel, schedule))


def _scatter(
    module: Module,
    name: str,
    kernel: ScatterKernel,
    target: Target,
    chosen: TaskSchedule | None = None,
) -> Emitted:
    scatter.emit_scatter(module, name, kernel, target)
    schedule = chosen or TaskSchedule(scatter.grain_for(kernel, target))
    return Emitted(schedule, scatter.task_count(kernel, target), schedule.grain)


def _scan(
    module: Module,
    name: str,
    kernel: ArrayKernel,
    target: Target,
    chosen: ScanSchedule | None = None,
) -> Emitted:
    vectors = chosen.vectors if chosen else default_vectors(kernel, target)
    work = emit_scan(module, name, kernel, target, vectors)
    schedule = chosen or ScanSchedule(vectors, work.grain)
    return Emitted(schedule, work.tasks, schedule.grain, work.scratch)


def _attention(
    module: Module,
    name: str,
    kernel: ArrayKernel,
    target: Target,
    chosen: AttentionSchedule | TaskSchedule | None = None,
) -> Emitted:
    strips = chosen if isinstance(chosen, AttentionSchedule) else schedule_attention(kernel, target)
    work = emit_attention(module, name, kernel, target, strips)
    schedule = chosen or strips or TaskSchedule(work.grain)
    return Emitted(schedule, work.tasks, schedule.grain, work.scratch)


def _array(emitter: ArrayEmitter) -> Emitter:
    def emit(
        module: Module,
        name: str,
        kernel: ArrayKernel,
        target: Target,
        chosen: TaskSchedule | None = None,
    ) -> Emitted:
        work = emitter(module, name, kernel, target)
        schedule = chosen or TaskSchedule(work.grain)
        return Emitted(schedule, work.tasks, schedule.grain, work.scratch)

    return emit


BACKEND = Backend(
    stages=("graph", "grad", "opt", "fused", "loops", "llvm", "llvm-opt", "asm"),
    passes=(
        ("split-complex", split_complex),
        ("take-apart", take_apart),
        ("loops", loops_pass(take_apart)),
        *PASSES,
        ("winograd", with_winograd),
        ("planes", with_planes),
        ("prepare", prepare),
        ("split-products", split_products(SLICING)),
        ("panels", with_panels),
        ("separate-outputs", separate_outputs),
        ("rematerialise", rematerialise),
    ),
    lowerings={"scan": lower_scan, "sort": lower_sort, "attention": lower_attention},
    module=_module,
    emitters={
        "loops": _loops,
        "contraction": _contraction,
        "scatter": _scatter,
        "scan": _scan,
        "sort": _array(emit_sort),
        "attention": _attention,
        "winograd": _array(emit_winograd),
    },
    optimize=optimize_text,
    assemble=assembly,
    compile=lambda text, target: compile_text(text, target).object_code,
    row_buffers=True,
    columns=True,
)
