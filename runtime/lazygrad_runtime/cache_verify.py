"""Checking the compile cache: every sum, every graph, and whether compiling again gives its bytes.

In: a cache.  Out: a `Report`.  Nothing is changed, nothing stored is executed; what is damaged is
set aside by the next program that wants it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from lazygrad_compiler.artifact import tuning_of
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_runtime import store, tuned_schedules
from lazygrad_runtime.cache import RETRIES, CompileCache
from lazygrad_runtime.cache_entry import DAMAGE_ERRORS, SUFFIX, CacheDamage, CacheEntry, is_sha256
from lazygrad_runtime.cache_folder import TEMPORARY, TrustedFolder
from lazygrad_runtime.cache_target import built_for, target_of
from lazygrad_runtime.tuned_schedules import is_schedule

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """reason: of `cache_entry.REASONS`."""

    key: str
    reason: str
    message: str


@dataclass(slots=True)
class Report:
    """entries: looked at.  unclaimed, temporaries: blobs of no entry, files of writers that died or
    are at work; no harm, `prune` collects them.  recompiled: entries whose code came out the same.
    skipped: by key why an entry was not compiled again.
    """

    entries: int = 0
    unclaimed: int = 0
    temporaries: int = 0
    recompiled: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def verify(
    cache: CompileCache, keys: Collection[str] | None = None, recompile: bool = False
) -> Report:
    """Checks all entries, or those named.  Raises OSError where the folder cannot be read."""
    report = Report()
    folder = cache.opened()
    if folder is None:
        return report
    claimed: set[str] = set()
    blobs = set(folder.names("blobs"))  # before the entries: later ones claim nothing older
    for name in folder.names("entries"):
        key = name.removesuffix(SUFFIX)
        if keys is None or key in keys:
            _check(folder, key, report, claimed, recompile)
    if keys is None:
        report.unclaimed = len(blobs - claimed)
        report.temporaries = len(folder.names(TEMPORARY))
    return report


def _check(
    folder: TrustedFolder, key: str, report: Report, claimed: set[str], recompile: bool
) -> None:
    if not is_sha256(key):
        report.findings.append(Finding(key, "manifest", f"entries/{key}: not a key"))
        return
    damage: CacheDamage | None = None
    for _ in range(RETRIES):  # others may delete the entry and store it again meanwhile
        entry = None
        try:
            entry = CacheEntry.load(folder, key)
            for name in entry.manifest["blobs"]:
                entry.read(name)
            damage = None
            break
        except FileNotFoundError:
            return
        except CacheDamage as error:
            damage = error
        except OSError as error:
            if error.errno not in DAMAGE_ERRORS:
                raise
            damage = CacheDamage("unreadable", f"manifest {key}: {error}")
    report.entries += 1
    if entry is not None:
        claimed.update(record["sha256"] for record in entry.manifest["blobs"].values())
    if damage is not None:
        report.findings.append(Finding(key, damage.reason, str(damage)))
    elif entry is not None:
        _check_program(entry, report, recompile)


def stored_graph(entry: CacheEntry) -> Graph:
    """The graph that an entry was compiled from.  Raises CacheDamage."""
    try:
        return parse_graph(entry.read(store.GRAPH_BLOB).decode())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheDamage("graph", f"graph of {entry.key}: {error}") from None


def made_by_this_compiler(entry: CacheEntry) -> str:
    """Empty, or in what the compiler that made the entry differs from the present one."""
    import llvmlite
    import llvmlite.binding as llvm

    fields = built_for(entry)
    present = {
        "compiler": store.source_hash(),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "llvmlite": llvmlite.__version__,
    }
    different = [name for name, value in present.items() if fields.get(name) != value]
    return f"made by another {' and '.join(different)}" if different else ""


def _check_program(entry: CacheEntry, report: Report, recompile: bool) -> None:
    """Checks that mean something for programs only; an entry without a graph is none."""
    if is_schedule(entry):
        _check_schedule(entry, report)
    if store.GRAPH_BLOB not in entry.manifest["blobs"]:
        return
    other = made_by_this_compiler(entry)
    if other:  # its texts need not be ours
        if recompile:
            report.skipped[entry.key] = other
        return
    try:
        graph = stored_graph(entry)
        check_graph_field(entry, graph)
        if recompile:
            compare_recompiled(entry, graph)
            report.recompiled += 1
    except CacheDamage as error:
        report.findings.append(Finding(entry.key, error.reason, str(error)))


def _check_schedule(entry: CacheEntry, report: Report) -> None:
    if made_by_this_compiler(entry):
        return
    try:
        tuned_schedules.check(entry)
    except CacheDamage as error:
        report.findings.append(Finding(entry.key, error.reason, str(error)))


def check_graph_field(entry: CacheEntry, graph: Graph) -> None:
    """Raises CacheDamage unless the graph is the one that the key names."""
    digest = hashlib.sha256(print_graph(graph, locations=False).encode()).hexdigest()
    if digest != entry.fields.get("graph"):
        raise CacheDamage("graph", f"graph of {entry.key}: not the one that its key names")


def compare_recompiled(entry: CacheEntry, graph: Graph) -> None:
    """Compiles the graph again for the entry's target.  Raises CacheDamage where code differs."""
    tuning = tuning_of(entry.meta.get("tuning", []))
    artifact, _ = store.compile_for(graph, target_of(built_for(entry)), tuning=tuning)
    names = sorted(artifact.objects.keys() | set(entry.meta["objects"]))
    different = [
        name
        for name in names
        if name not in artifact.objects
        or name not in entry.manifest["blobs"]
        or artifact.objects[name] != entry.read(name)
    ]
    if different:
        message = f"code of {entry.key}: compiling again gives other bytes for "
        raise CacheDamage("recompiled", message + ", ".join(different))
