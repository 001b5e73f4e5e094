"""Taking compiled programs to another machine: an archive of entries, and what becomes of them
there.

The archive is a zip file without compression: `archive.json` says what it is, `entries/` and
`blobs/` hold files as the cache does.  Reading one believes nothing and executes nothing.

Native code from elsewhere can do anything, so it is taken only when the user says that the archive
is trusted, when the same compiler made it, and when this processor has every feature that it may
use.  Otherwise the program is compiled anew, from the graph that lies beside the code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir.node import Graph
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.target import host
from lazygrad_runtime import store
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import (
    SUFFIX,
    CacheDamage,
    CacheEntry,
    encode_manifest,
    is_sha256,
    key_of,
    parse_manifest,
)
from lazygrad_runtime.cache_target import (
    built_for,
    is_tuned,
    machine_features,
    needed_features,
    target_of,
)

ARCHIVE_VERSION = 1
LARGEST_MANIFEST = 64 << 20
_DESCRIPTION = "archive.json"


class ArchiveError(Exception):
    """A file that is no archive of ours, or a damaged one."""


# -- writing -----------------------------------------------------------------------------------


def export_entries(entries: Iterable[CacheEntry], path: Path) -> int:
    """Writes an archive, whole or not at all; returns its bytes.

    Raises OSError, and CacheDamage where an entry does not check out.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    entries = list(entries)
    written: set[str] = set()
    try:
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive:

            def add(name: str, content: bytes) -> None:
                # a fixed date: the same entries give the same bytes
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)

            described = {"lazygrad_cache_archive": ARCHIVE_VERSION, "entries": len(entries)}
            add(_DESCRIPTION, json.dumps(described).encode())
            for entry in entries:
                for name, record in entry.manifest["blobs"].items():
                    if record["sha256"] not in written:
                        add(f"blobs/{record['sha256']}", entry.read(name))
                        written.add(record["sha256"])
                add(f"entries/{entry.key}{SUFFIX}", encode_manifest(entry.manifest))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path.stat().st_size


# -- reading -----------------------------------------------------------------------------------


class _ArchivedEntry(CacheEntry):
    """An entry whose blobs lie in an archive."""

    __slots__ = ("_archive",)

    def __init__(self, key: str, manifest: dict[str, Any], archive: zipfile.ZipFile):
        self.key = key
        self.manifest = manifest
        self._contents = {}
        self._archive = archive

    def read(self, name: str) -> bytes:
        if name not in self._contents:
            record = self.manifest["blobs"][name]
            content = _member(self._archive, f"blobs/{record['sha256']}", record["size"])
            if len(content) != record["size"]:
                raise CacheDamage("blob-size", f"blob {name!r} of {self.key}: wrong size")
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise CacheDamage("blob-contents", f"blob {name!r} of {self.key}: wrong contents")
            self._contents[name] = content
        return self._contents[name]


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file of the archive.  What is compressed is refused: a small archive cannot grow."""
    try:
        found = archive.getinfo(name)
    except KeyError:
        raise CacheDamage("blob-missing", f"{name} is not in the archive") from None
    if found.compress_type != zipfile.ZIP_STORED or found.file_size > most:
        raise CacheDamage("blob-size", f"{name} is compressed or larger than it should be")
    try:
        with archive.open(found) as file:
            return file.read(most + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise CacheDamage("blob-contents", f"{name}: {error}") from None


def _keys(archive: zipfile.ZipFile, path: Path) -> list[str]:
    try:
        described = json.loads(_member(archive, _DESCRIPTION, LARGEST_MANIFEST))
        version = described["lazygrad_cache_archive"]
    except (CacheDamage, ValueError, KeyError, TypeError, RecursionError):
        raise ArchiveError(f"{path} was not made by `lazygrad cache export`") from None
    if version != ARCHIVE_VERSION:
        raise ArchiveError(f"{path} is an archive of version {version}, not {ARCHIVE_VERSION}; "
                           "export it again with this version of lazygrad")
    names = [name for name in archive.namelist() if name.startswith("entries/")]
    return sorted({name.removeprefix("entries/").removesuffix(SUFFIX) for name in names})


# -- importing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an entry.  key: in the archive; local_key: here.  outcome: "as is",
    "recompiled", "present" (nothing was to be done) or "refused".  why: not as it is.
    """

    key: str
    local_key: str
    outcome: str
    why: str = ""


def import_entries(
    cache: CompileCache, path: Path, trust_native_code: bool = False, dry_run: bool = False
) -> list[Imported]:
    """Takes the programs of an archive into a cache; says of each what became of it.

    Raises ArchiveError for a file that is no archive, OSError where it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ArchiveError(f"{path} is no archive: {error}") from None
    with archive:
        return [
            _import_one(cache, archive, key, trust_native_code, dry_run)
            for key in _keys(archive, path)
        ]


def _import_one(
    cache: CompileCache, archive: zipfile.ZipFile, key: str, trusted: bool, dry_run: bool
) -> Imported:
    try:
        if not is_sha256(key):
            raise CacheDamage("key", f"{key!r} is not a key")
        content = _member(archive, f"entries/{key}{SUFFIX}", LARGEST_MANIFEST)
        entry = _ArchivedEntry(key, parse_manifest(key, content), archive)
        if is_tuned(entry):
            raise CacheDamage("key", "its schedules were timed on another machine")
        graph = _graph_of(entry)
        fields = store.key_fields(print_graph(graph, locations=False), _target(entry))
        local_key = key_of(fields)
        if _holds(cache, local_key):
            return Imported(key, local_key, "present")
        why = why_not_as_is(entry, fields, trusted)
        if not dry_run:
            kept = _recompile(cache, fields, graph, _target(entry)) if why else \
                _take(cache, fields, entry)
            if not kept:
                raise CacheDamage("unreadable", "it cannot be written to the cache")
        return Imported(key, local_key, "recompiled" if why else "as is", why)
    except CacheDamage as error:
        return Imported(key, "", "refused", str(error))


def _graph_of(entry: CacheEntry) -> Graph:
    """Raises CacheDamage where there is no sound graph that the key names."""
    try:
        graph = parse_graph(entry.read(store.GRAPH_BLOB).decode())
        digest = hashlib.sha256(print_graph(graph, locations=False).encode()).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheDamage("graph", f"its graph cannot be read: {error}") from None
    if entry.fields.get("compiler") == store.source_hash() and entry.fields["graph"] != digest:
        raise CacheDamage("graph", "its graph is not the one that its key names")
    return graph


def _holds(cache: CompileCache, key: str) -> bool:
    """Whether the cache has a sound entry; not counted as a use of it."""
    folder = cache.opened()
    if folder is None:
        return False
    try:
        entry = CacheEntry.load(folder, key)
        for name in entry.manifest["blobs"]:
            entry.read(name)
    except (CacheDamage, OSError):
        return False
    return True


def why_not_as_is(
    entry: CacheEntry, here: Mapping[str, Any], trusted: bool
) -> str:
    """Empty where the entry's native code may run here; else the reason why not."""
    there = built_for(entry)
    for name in ("triple", "compiler", "llvm", "llvmlite"):
        if there.get(name) != here[name]:
            shown = "" if name == "compiler" else f" ({there.get(name)}; here {here[name]})"
            return f"made for or by another {name}{shown}"
    if "needs" not in entry.meta:
        return "it does not say which processor features its code may use"
    missing = sorted(needed_features(entry) - machine_features())
    if missing:
        return f"this processor lacks {', '.join(missing)}"
    return "" if trusted else "its native code is not trusted (see --trust-native-code)"


def _take(cache: CompileCache, fields: dict[str, str | int], entry: CacheEntry) -> bool:
    blobs = {name: entry.read(name) for name in entry.manifest["blobs"]}
    try:
        objects = {name: blobs[name] for name in entry.meta["objects"]}
        Artifact.from_description(entry.meta, objects)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheDamage("manifest", f"it does not describe a program: {error!r}") from None
    return cache.store(fields, blobs, {**entry.meta, "built_for": dict(built_for(entry))})


def _target(entry: CacheEntry) -> Any:
    """What the program is compiled for here: this processor, or the GPU that it was made for."""
    there = built_for(entry)
    return target_of(there) if there.get("triple") == CudaTarget.triple else host()


def _recompile(
    cache: CompileCache, fields: dict[str, Any], graph: Graph, target: Any
) -> bool:
    try:
        artifact, _ = store.compile_for(graph, target)
    except Exception as error:  # whatever a graph from elsewhere makes the compiler do
        raise CacheDamage("graph", f"its graph cannot be compiled: {error}") from None
    return store.keep(cache, fields, graph, artifact)
