"""What tuning found, in the compile cache: for each kernel an entry of its own kind.

In: a kernel's name, which is a hash of target and loop IR, and how many threads there are.  Out: a
`Winner`, if there is one.  The entry holds the kernel's loop IR beside the numbers, so that
`lazygrad cache verify` can tell whether it belongs to the name.

`LAZYGRAD_TUNED=0` has programs compiled as if nothing had been tuned.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lazygrad_compiler.artifact import Tuned
from lazygrad_compiler.ir.node import Location
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import CacheDamage, CacheEntry
from lazygrad_runtime.cache_target import target_of
from lazygrad_runtime.pool import get_pool

KIND = "schedule"
KERNEL_BLOB = "kernel.txt"

TARGET_FIELDS = ("triple", "cpu", "features", "simd_bytes", "registers", "l1_bytes", "l2_bytes")
"""Those of the key that say for which machine."""


@dataclass(frozen=True, slots=True)
class Winner:
    """tuned: the best schedule, which may be the default.  default: as text, like the other.
    seconds: of the default and of the best.  tried: how many schedules were timed.  complete: False
    where tuning ended before all were.
    """

    tuned: Tuned
    default: str
    seconds: tuple[float, float]
    tried: int
    complete: bool = True

    @property
    def is_better(self) -> bool:
        return self.tuned.schedule != self.default


def are_used() -> bool:
    return os.environ.get("LAZYGRAD_TUNED", "").strip() != "0"


def is_schedule(entry: CacheEntry) -> bool:
    return entry.fields.get("kind") == KIND


def fields_of(kernel: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """environment: as of `store.environment_fields`."""
    return {"kind": KIND, "kernel": kernel, "threads": get_pool().threads, **environment}


def lookup(cache: CompileCache, kernel: str, environment: Mapping[str, Any]) -> Winner | None:
    """The winner for a kernel, or None.  A damaged entry is quarantined, and there is none."""
    entry = cache.lookup(fields_of(kernel, environment), counted=False)
    return None if entry is None else winner_of(entry)


def winner_of(entry: CacheEntry) -> Winner | None:
    """What the entry says; None where it is none of these."""
    try:
        meta = entry.meta["winner"]
        default, tuned = meta["seconds"]
        speedup = float(default) / float(tuned)
        schedule = str(meta["schedule"])
        return Winner(
            Tuned(schedule, speedup), str(meta["default"]), (default, tuned), int(meta["tried"]),
            bool(meta["complete"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def keep(
    cache: CompileCache,
    kernel: str,
    text: str,
    launches: Sequence[tuple[str, str, Location]],
    environment: Mapping[str, Any],
    winner: Winner,
) -> bool:
    """Stores a winner over an earlier one.  text: the kernel's loop IR.  launches: (name, what it
    computes, lines) of the program that it was timed in.
    """
    meta = {
        "winner": {
            "schedule": winner.tuned.schedule,
            "default": winner.default,
            "seconds": list(winner.seconds),
            "tried": winner.tried,
            "complete": winner.complete,
        },
        "launches": [[name, about, [list(line) for line in where]]
                     for name, about, where in launches],
        "needs": [],
    }
    return cache.store(fields_of(kernel, environment), {KERNEL_BLOB: text.encode()}, meta)


def against(entry: CacheEntry, present: Mapping[str, Any]) -> str:
    """Why a schedule is not used here; empty where it is.  present: as of
    `store.environment_fields`.
    """
    fields, threads = entry.fields, get_pool().threads
    reasons = []
    if fields.get("threads") != threads:
        reasons.append(f"timed with {_threads(fields.get('threads'))}, not with {threads}")
    if any(fields.get(name) != present[name] for name in TARGET_FIELDS if name in present):
        there, here = (f"{each.get('cpu')} {each.get('triple')}" for each in (fields, present))
        reasons.append(f"timed on another machine: {there}" if there != here else
                       "timed on another machine, whose features or caches differ")
    made_by = [name for name in ("compiler", "llvm", "llvmlite")
               if fields.get(name) != present.get(name)]
    if made_by:
        reasons.append(f"timed by another version of {', '.join(made_by)}")
    return "; ".join(reasons)


def _threads(count: Any) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def unused(cache: CompileCache, text: str, present: Mapping[str, Any]) -> list[str]:
    """For a kernel without a winner: why each of those is not used that were found for its loop IR
    under other circumstances.
    """
    found = []
    for entry in cache.entries():
        if is_schedule(entry):
            try:
                same = entry.read(KERNEL_BLOB).decode() == text
            except (CacheDamage, OSError, UnicodeDecodeError):
                continue
            if same:
                found.append(against(entry, present))
    return sorted({reason for reason in found if reason})


def check(entry: CacheEntry) -> None:
    """Raises CacheDamage unless the entry's kernel is the one of its name and its schedules are
    such.
    """
    import hashlib

    from lazygrad_compiler.loops import candidates

    winner = winner_of(entry)
    try:
        if winner is None:
            raise ValueError("the manifest has no winner")
        candidates.read(winner.default)
        candidates.read(winner.tuned.schedule)
        text = entry.read(KERNEL_BLOB).decode()
        target = target_of(entry.fields)
    except (ValueError, KeyError) as error:
        raise CacheDamage("schedule", f"schedule {entry.key}: {error}") from None
    digest = hashlib.sha256(f"{target}\n{text}".encode()).hexdigest()
    if entry.fields.get("kernel") != f"k_{digest[:16]}":
        raise CacheDamage("schedule", f"schedule {entry.key}: its kernel has another name")
