"""`explain schedule`: by which schedule each kernel runs, whether tuning chose it, and why not."""

from __future__ import annotations

from typing import Any

from lazygrad.explain.lines import place
from lazygrad.explain.roofline import duration
from lazygrad.explain.tuning import knobs
from lazygrad_compiler.loops.kernel import text as kernel_text
from lazygrad_compiler.pipeline import CompiledKernel, Stages, kernel_name, schedule_text
from lazygrad_runtime import store, tuned_schedules
from lazygrad_runtime.tuned_schedules import Winner


def describe(stages: Stages) -> list[dict[str, Any]]:
    """The kernels of a program, as plain data.

    because: where the schedule is from.  unused: why schedules that tuning found for the kernel are
    not used.
    """
    launches = dict(zip(stages.names, stages.launches, strict=True))
    return [
        {
            "kernel": kernel.name,
            "about": launches[kernel.name].about,
            "lines": place(launches[kernel.name].location),
            "schedule": schedule_text(kernel.schedule),
            "tuned": kernel.tuned is not None,
            **_origin(kernel, stages),
        }
        for kernel in stages.kernels
    ]


def _origin(kernel: CompiledKernel, stages: Stages) -> dict[str, Any]:
    if kernel.grid is not None:
        return {"because": "the default: a GPU's kernels are not tuned", "unused": []}
    present = store.environment_fields(stages.target)
    name = kernel_name(kernel.kernel, stages.target)
    winner = tuned_schedules.lookup(store.disk(), name, present)
    if kernel.tuned is not None:
        return {"because": f"{kernel.tuned}{_found(winner)}", "unused": []}
    if winner is None:
        unused = tuned_schedules.unused(store.disk(), kernel_text(kernel.kernel), present)
        return {"because": "the default, not yet tuned", "unused": unused}
    if not winner.is_better:
        return {"because": f"the default, {_found(winner)}", "unused": []}
    off = "" if tuned_schedules.are_used() else " (LAZYGRAD_TUNED=0)"
    return {"because": "the default", "unused": [f"{winner.tuned}{off}{_found(winner)}"]}


def _found(winner: Winner | None) -> str:
    """What tuning found out."""
    if winner is None:
        return ""
    before, after = winner.seconds
    so_far = "" if winner.complete else " so far"
    if winner.is_better:
        differs = ", ".join(knobs(winner.default, winner.tuned.schedule))
        return f": {duration(before)} -> {duration(after)}, {differs}, of {winner.tried}{so_far}"
    if winner.tried > 1:
        return f"the fastest of {winner.tried}{so_far}: {duration(before)}"
    if not winner.complete:
        return "not yet tuned: time was up"
    return f"too short to be worth tuning: {duration(before)}"


def text(described: list[dict[str, Any]]) -> str:
    """The kernels of one program."""
    parts = []
    for kernel in described:
        parts += [f"{kernel['about']} ({kernel['lines']})", f"  {kernel['schedule']}",
                  f"  {kernel['because']}"]
        parts += [f"  not used: {reason}" for reason in kernel["unused"]]
    return "\n".join(parts)
