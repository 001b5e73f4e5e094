"""Where compiled programs come from: the disk cache, or the compiler; and the kernels already
loaded.

An artifact is asked for by the pending graph.  Its key on disk is made of named fields: the
canonical graph, the target, the versions of LLVM and llvmlite, and a hash of the compiler's source.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazygrad_compiler import forks
from lazygrad_compiler.artifact import Artifact, Tuning, described_tuning
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.target import Target, host
from lazygrad_runtime import tuned_schedules
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import CacheEntry, key_of
from lazygrad_runtime.cache_target import fits, machine_features
from lazygrad_runtime.loader import LoadedCode, load_object
from lazygrad_runtime.pool import get_num_threads

if TYPE_CHECKING:
    from lazygrad_compiler.backend import AnyTarget
    from lazygrad_compiler.loops.kernel import Launch
    from lazygrad_compiler.pipeline import Stages


@dataclass(slots=True)
class Counters:
    """What happened in this process: programs compiled, taken from disk, and taken from memory."""

    compiles: int = 0
    disk_hits: int = 0
    memory_hits: int = 0
    compile_seconds: float = 0.0


counters = Counters()

compile_callbacks: list[Callable[[Graph, Stages | None, Artifact], None]] = []
"""Called for each program that is new to this process, as callback(graph, stages, artifact); stages
is None on a disk hit.
"""

_lock = forks.rlock(forks.STORE)
_hashing = forks.lock()
_kernels: weakref.WeakValueDictionary[str, LoadedCode] = weakref.WeakValueDictionary()
_objects: dict[str, bytes] = {}
_object_bytes = 0
LARGEST_KEPT_OBJECTS = 1 << 26
"""Bytes of object code that are kept for later programs with the same kernels."""


GRAPH_BLOB = "graph.txt"
"""The blob of an entry that holds its graph, as text that parses back."""


@functools.cache
def disk() -> CompileCache:
    return CompileCache()


def native_code(kind: str, text: str, **fields: str) -> bytes:
    """Object code of LLVM text that is no program's, from the compile cache where it is there.
    fields: what else the key is made of.
    """
    import llvmlite.binding as llvm

    target = host()
    key = {
        "kind": kind,
        "text": hashlib.sha256(text.encode()).hexdigest(),
        **fields,
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.features,
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
    }
    entry = disk().lookup(key, fits)
    if entry is not None:
        return entry.read("object")
    from lazygrad_compiler.llvm.compile import compile_text

    code = compile_text(text, target).object_code
    disk().store(key, {"object": code}, {"needs": sorted(machine_features())})
    return code


def source_hash() -> str:
    """SHA-256 over the compiler's source files, so that a changed compiler misses."""
    with _hashing:  # who comes second waits, for less time than a second reading would take
        return _source_hash()


@functools.cache
def _source_hash() -> str:
    import lazygrad_compiler

    root = os.path.dirname(lazygrad_compiler.__file__)
    parts = []
    for name in sorted(_source_files(root, "")):
        with open(os.path.join(root, name), "rb", buffering=0) as file:
            parts += [name.encode(), file.read()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _source_files(root: str, below: str) -> Iterator[str]:
    """The names of source files from the root on.  (`Path.rglob` takes as long as reading them.)"""
    with os.scandir(os.path.join(root, below)) as found:
        for each in found:
            name = f"{below}/{each.name}" if below else each.name
            if each.name.endswith(".py"):
                yield name
            elif each.is_dir() and each.name != "__pycache__":
                yield from _source_files(root, name)


def key_fields(graph_text: str, target: AnyTarget) -> dict[str, Any]:
    """The named fields that identify a program on disk."""
    return {
        "graph": hashlib.sha256(graph_text.encode()).hexdigest(), **environment_fields(target)
    }


def environment_fields(target: AnyTarget) -> dict[str, Any]:
    """The target, and what compiles for it."""
    import llvmlite
    import llvmlite.binding as llvm

    return {
        **target_fields(target),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "llvmlite": llvmlite.__version__,
        "compiler": source_hash(),
    }


def target_fields(target: AnyTarget) -> dict[str, Any]:
    """What of a target a program depends on, by name."""
    if not isinstance(target, Target):
        described = dataclasses.asdict(target)
        return {"triple": target.triple, **described, "instructions": " ".join(
            described["instructions"])}
    return {
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.features,
        "simd_bytes": target.simd_bytes,
        "registers": target.registers,
        "l1_bytes": target.l1_bytes,
        "l2_bytes": target.l2_bytes,
    }


def artifact_for(graph: Graph, target: AnyTarget | None = None) -> Artifact:
    """The artifact of a canonical graph: from disk where it is there, else compiled and stored.

    target: this machine's processor unless given.
    """
    with _lock:
        artifact, stages = find(graph, target)
        for callback in compile_callbacks:
            callback(graph, stages, artifact)
        return artifact


def find(graph: Graph, target: AnyTarget | None = None) -> tuple[Artifact, Stages | None]:
    """The artifact, and its stages where it had to be compiled.

    Whether a kernel has been tuned is known by the kernels of the program with default schedules,
    so that one is always there, too.
    """
    with _lock:
        target = target or host()
        fields = key_fields(_text(graph), target)
        artifact, stages = _found(fields, graph, target)
        tuning = winners(artifact, target)
        if tuning:
            artifact, stages = _found(with_tuning(fields, tuning), graph, target, tuning)
        if stages is None:
            counters.disk_hits += 1
        return artifact, stages


def find_noted(fields: dict[str, Any]) -> tuple[Artifact, list[int]] | None:
    """What a note of these fields leads to: the artifact and the places of the leaves that it
    reads.  None where there is none, and while somebody wants to see the graph.
    """
    with _lock:
        if compile_callbacks:
            return None
        found = disk().follow(fields, fits)
        if found is None:
            return None
        entry, read = found
        artifact = _artifact_of(entry)
        tuning = winners(artifact, host())
        if tuning:
            tuned = disk().lookup(with_tuning(entry.fields, tuning), fits)
            if tuned is None:
                return None
            artifact = _artifact_of(tuned)
        counters.disk_hits += 1
        return artifact, read


def note(fields: dict[str, Any], graph: Graph, read: Sequence[int]) -> None:
    """Notes where the program of a canonical graph is: with the default schedules."""
    disk().note(fields, key_of(key_fields(_text(graph), host())), read)
    _text.cache_clear()


@functools.lru_cache(maxsize=1)
def _text(graph: Graph) -> str:
    return print_graph(graph, locations=False)


def _artifact_of(entry: CacheEntry) -> Artifact:
    described = entry.manifest["meta"]
    return Artifact.from_description(
        described, {name: entry.read(name) for name in described["objects"]}
    )


def _found(
    fields: dict[str, Any], graph: Graph, target: AnyTarget, tuning: Tuning | None = None
) -> tuple[Artifact, Stages | None]:
    """The artifact of those fields; its stages where it had to be compiled."""
    entry = disk().lookup(fields, fits)
    if entry is not None:
        return _artifact_of(entry), None
    native = isinstance(target, Target)
    artifact, stages = compile_for(graph, target, kernel_object if native else None, tuning)
    counters.compiles += 1
    counters.compile_seconds += artifact.seconds
    keep(disk(), fields, graph, artifact)
    return artifact, stages


def winners(artifact: Artifact, target: AnyTarget) -> Tuning:
    """The schedules that tuning has found for the kernels of a program with the default ones."""
    if not isinstance(target, Target) or not tuned_schedules.are_used():
        return {}
    names = dict.fromkeys(name for name, _, _ in artifact.launches)
    present = environment_fields(target)
    found = {name: tuned_schedules.lookup(disk(), name, present) for name in names}
    return {name: winner.tuned for name, winner in found.items() if winner and winner.is_better}


def with_tuning(fields: dict[str, Any], tuning: Tuning) -> dict[str, Any]:
    """The fields of a program with those schedules."""
    written = json.dumps([[name, schedule] for name, schedule, _ in described_tuning(tuning)])
    return {**fields, "schedules": hashlib.sha256(written.encode()).hexdigest()}


def compile_for(
    graph: Graph,
    target: AnyTarget,
    objects_by: Callable[[str, str, Target], bytes] | None = None,
    tuning: Tuning | None = None,
) -> tuple[Artifact, Stages]:
    """A graph's program and what a dump shows of it; nothing is looked up, counted or kept."""
    import time

    from lazygrad_compiler.pipeline import compile_stages, make_artifact

    started = time.perf_counter()
    stages, objects = compile_stages(graph, target, objects_by, tuning, get_num_threads())
    artifact = make_artifact(stages, objects, 0.0)
    described = {
        **json.loads(json.dumps(artifact.description())),
        "seconds": time.perf_counter() - started,
    }
    return Artifact.from_description(described, artifact.objects), stages


def keep(
    cache: CompileCache, fields: dict[str, Any], graph: Graph, artifact: Artifact
) -> bool:
    """Writes a program of this machine into a cache, with its IR beside it."""
    blobs = {**artifact.objects, GRAPH_BLOB: print_graph(graph).encode()}
    needs = sorted(machine_features()) if artifact.device == "cpu" else []
    meta = {**artifact.description(), "needs": needs}
    return cache.store(fields, blobs, meta)


def launches_of(graph: Graph, target: AnyTarget | None = None) -> list[Launch]:
    """The launches of a canonical graph with the lines that it was recorded at this time.

    A program is shared by all graphs of its structure, wherever they were recorded; for a message
    it is lowered once more.
    """
    from lazygrad_compiler.pipeline import lower

    return lower(graph, target or host()).launches


def kernel_object(name: str, llvm_text: str, target: Target) -> bytes:
    """A kernel's object code; kernels of programs compiled before are taken as they are."""
    from lazygrad_compiler.llvm.compile import compile_text

    global _object_bytes
    found = _objects.get(name)
    if found is None:
        found = compile_text(llvm_text, target).object_code
        _objects[name] = found
        _object_bytes += len(found)
        while _object_bytes > LARGEST_KEPT_OBJECTS:
            _object_bytes -= len(_objects.pop(next(iter(_objects))))
    return found


def load_kernel(name: str, code: bytes) -> tuple[str, LoadedCode]:
    """A kernel's loaded code, shared by all programs that use it."""
    with _lock:
        loaded = _kernels.get(name)
        if loaded is None:
            loaded = _kernels[name] = load_object(code)
        return name, loaded


def forget_kernels() -> None:
    global _object_bytes
    with _lock:
        _objects.clear()
        _object_bytes = 0
        _kernels.clear()
