"""Schedules of the kernels over whole arrays, and of scatters: how their work is cut where that
changes no bit of the results.

In: an array kernel and a target.  Out: plain data, as for row kernels (`schedule.py`).  What would
change the order of a sum is fixed by the shapes, not by the schedule: into which chunks lines of a
scan and strips of attention backward are cut, and after which keys attention forward scales its
sums to a new top.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazygrad_compiler.loops.attention import default_cut
from lazygrad_compiler.loops.kernel import ArrayKernel
from lazygrad_compiler.target import Target


@dataclass(frozen=True, slots=True)
class TaskSchedule:
    """grain: tasks that a thread takes at a time."""

    grain: int


@dataclass(frozen=True, slots=True)
class ScanSchedule:
    """vectors: of neighbouring columns that a task scans side by side; 0 where it scans along a
    line.  grain: tasks that a thread takes at a time.
    """

    vectors: int
    grain: int


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """pairs: of vectors of queries in a strip.  block: keys that a strip meets at a time.  grain:
    tasks (strips forward, heads backward) that a thread takes at a time.
    """

    pairs: int
    block: int
    grain: int


def schedule_attention(kernel: ArrayKernel, target: Target) -> AttentionSchedule | None:
    """The default; None for the steps that have no strips."""
    cut = default_cut(kernel, target)
    return None if cut is None else AttentionSchedule(cut.pairs, cut.block, 1)

