"""What a stored program was compiled for, and whether this machine can run it.

Naming a processor to LLVM (`cpu`) allows it instructions beyond the features that the key spells
out.  So an entry notes all the features of the machine it was compiled on (`needs`), and runs only
where all of them are present: code that might hold an unknown instruction is never loaded.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.target import FEATURES_USED, Target
from lazygrad_runtime.cache_entry import CacheEntry


@functools.cache
def _present_features() -> frozenset[str]:
    import llvmlite.binding as llvm

    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def machine_features() -> frozenset[str]:
    """The processor's features in LLVM's words, without those that LAZYGRAD_CPU_FEATURES takes
    away.
    """
    wanted = os.environ.get("LAZYGRAD_CPU_FEATURES")
    if wanted is None:
        return _present_features()
    allowed = {name.strip() for name in wanted.split(",")}
    return _present_features() - (set(FEATURES_USED) - allowed)


def needed_features(entry: CacheEntry) -> frozenset[str]:
    """What the entry's code may use; of an entry without a note, what its key spells out."""
    noted = entry.meta.get("needs")
    if isinstance(noted, list):
        return frozenset(str(name) for name in noted)
    spelled = str(entry.fields.get("features", "")).split(",")
    return frozenset(name[1:] for name in spelled if name.startswith("+"))


def fits(entry: CacheEntry) -> bool:
    """Whether this processor has every feature that the entry's code may use."""
    return needed_features(entry) <= machine_features()


def built_for(entry: CacheEntry) -> Mapping[str, Any]:
    """The fields that the code was compiled with: the entry's own, unless it was imported."""
    fields = entry.meta.get("built_for")
    return fields if isinstance(fields, dict) else entry.fields


def is_program(entry: CacheEntry) -> bool:
    """Whether the entry is a program; machine code of single GPU kernels is kept, too."""
    return "graph" in entry.fields


def is_tuned(entry: CacheEntry) -> bool:
    """Whether the entry is a program with schedules that were timed on this machine: the one with
    the default schedules lies beside it.
    """
    return "schedules" in entry.fields


def target_of(fields: Mapping[str, Any]) -> Target | CudaTarget:
    """The target that fields name.  KeyError where one is absent."""
    if fields["triple"] == CudaTarget.triple:
        return CudaTarget(
            fields["arch"],
            fields["features"],
            fields["multiprocessors"],
            fields["shared_bytes"],
            fields["l2_bytes"],
            tuple(fields["instructions"].split()),
            fields.get("tf32", False),
        )
    return Target(
        fields["triple"],
        fields["cpu"],
        fields["features"],
        fields["simd_bytes"],
        fields["registers"],
        fields["l1_bytes"],
        fields["l2_bytes"],
    )
