"""The compile cache: artifacts on disk, found by what they were made from.

In: named fields (canonical IR, shapes, target, versions, flags).  Out: an entry with the blobs that
a compile of those fields gave (object code, IR texts) and notes about them (`meta`).

    <folder>/entries/<key>.json     check sum line, then the manifest: fields, meta, blobs
    <folder>/blobs/<sha256>         contents, shared by all entries that have them
    <folder>/notes/<sha256>         the key of the entry that a recording leads to
    <folder>/quarantine/            damaged files, for looking at

The key is the SHA-256 of the fields, and all fields are in the manifest, so a miss can be explained
by the field that changed. Blobs are in place before the manifest that names them, and every file
appears whole; so readers take no lock. A reader believes nothing: it checks the manifest's sum, the
fields, and each blob's size and sum. What does not check out is quarantined and reported as a miss.
A hit touches the manifest, so its time of change is that of its last use.

Trouble with the disk never reaches the user: the cache warns once and the program runs uncached.
Nothing is unpickled anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lazygrad_compiler import forks
from lazygrad_compiler.parallel import Jobs
from lazygrad_runtime.cache_counters import EVENTS, KEY_DIGITS, CacheCounters, Totals
from lazygrad_runtime.cache_entry import (
    DAMAGE_ERRORS,
    FORMAT,
    SUFFIX,
    CacheDamage,
    CacheEntry,
    FieldValue,
    canonical_fields,
    differing_fields,
    encode_manifest,
    key_of,
    read_blob,
)
from lazygrad_runtime.cache_folder import TEMPORARY, TrustedFolder, UntrustedFolder
from lazygrad_runtime.cache_limits import (
    Limits,
    Pruned,
    adjust_usage,
    measure,
    prune,
    prune_when_full,
    write_usage,
)
from lazygrad_runtime.cache_locks import alone, collect_temporaries, writing
from lazygrad_runtime.cache_notes import NOTES, read_note, write_note

KEPT_IN_QUARANTINE = 64
WRITERS_AT_ONCE = 4
RETRIES = 5
"""Of a lookup whose entry others delete and store again while it reads."""

Result = TypeVar("Result")

_warned = False


def _warn_once(message: str) -> None:
    """One warning per process: a training loop must not print one per compile.

    Under a name that is no file, so that Python shows the message alone: a line of ours below it
    would help nobody.
    """
    global _warned
    if not _warned:
        _warned = True
        warnings.warn_explicit(f"[compile cache] {message}", RuntimeWarning, "<lazygrad>", 0)


def default_folder() -> Path:
    """`LAZYGRAD_CACHE_DIR`, else `$XDG_CACHE_HOME/lazygrad`, else `~/.cache/lazygrad`."""
    chosen = os.environ.get("LAZYGRAD_CACHE_DIR")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.expanduser("~/.cache")
    return Path(base) / "lazygrad"


def _limits_from_environment() -> Limits:
    try:
        return Limits.from_environment()
    except ValueError as error:
        _warn_once(f"{error}. The usual limit holds.")
        return Limits()


class CompileCache:
    """The cache in one folder. Safe for use by threads and by processes at the same time.

    No method raises for trouble with the disk; `lookup` then misses and `store` does nothing.
    `LAZYGRAD_CACHE=0` disables it.  limits: those of the environment unless given.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, limits: Limits | None = None):
        self.path = default_folder() if path is None else Path(os.path.abspath(path))
        self.enabled = os.environ.get("LAZYGRAD_CACHE", "").strip() != "0"
        self.limits = _limits_from_environment() if limits is None else limits
        self._opening = forks.lock()
        self._folder: TrustedFolder | None = None
        self._refused = False

    def opened(self) -> TrustedFolder | None:
        """The folder, opened on first use and again after somebody deleted it."""
        if not self.enabled or self._refused:
            return None
        folder = self._folder
        if folder is not None and folder.exists():
            return folder
        with self._opening:
            try:
                if not self.path.is_absolute():  # `~` stayed, since no home folder is known
                    raise UntrustedFolder("no home folder is known; set LAZYGRAD_CACHE_DIR")
                self._folder = folder = TrustedFolder(self.path)
            except UntrustedFolder as error:
                self._refused = True
                _warn_once(f"refused: {error}. Running uncached.")
                return None
            except OSError as error:
                self._refused = True
                _warn_once(
                    f"cannot open {self.path}: {error}; name a writable folder in "
                    "LAZYGRAD_CACHE_DIR, or set LAZYGRAD_CACHE=0. Running uncached."
                )
                return None
            with contextlib.suppress(OSError):
                if folder.names(TEMPORARY):
                    with alone(folder, seconds=0.0) as undisturbed:
                        if undisturbed:
                            collect_temporaries(folder)
            return folder

    def _guarded(self, action: Callable[[TrustedFolder], Result], otherwise: Result) -> Result:
        """Runs an action on the folder; trouble with the disk becomes one warning."""
        folder = self.opened()
        if folder is None:
            return otherwise
        try:
            return action(folder)
        except OSError as error:
            _warn_once(
                f"{self.path}: {error}; free some space or name another folder in "
                "LAZYGRAD_CACHE_DIR. Running uncached."
            )
            return otherwise

    def _count(self, folder: TrustedFolder, event: str, **details: Any) -> None:
        """Counting is for information: a folder that cannot be written is no reason to warn."""
        with contextlib.suppress(OSError):
            CacheCounters(folder).add(event, **details)

    # -- looking up -------------------------------------------------------------------------

    def lookup(
        self,
        fields: Mapping[str, FieldValue],
        fit: Callable[[CacheEntry], bool] | None = None,
        counted: bool = True,
    ) -> CacheEntry | None:
        """The entry for these fields with all its blobs read and checked, or None.

        fit: asked whether this processor can run the entry; one that does not fit is a miss.
        counted: among hits and misses; what is not there as a rule should not be.
        """
        key = key_of(fields)
        return self._guarded(lambda folder: self._lookup(folder, key, fit, counted), None)

    def follow(
        self, fields: Mapping[str, FieldValue], fit: Callable[[CacheEntry], bool] | None = None
    ) -> tuple[CacheEntry, list[int]] | None:
        """The entry that a note of these fields names, read and checked, and the note's numbers; a
        hit counts, and what is not there does not.
        """
        name = key_of(fields)

        def act(folder: TrustedFolder) -> tuple[CacheEntry, list[int]] | None:
            found = read_note(folder, name)
            if found is None:
                return None
            entry = self._lookup(folder, found[0], fit, counted=False)
            if entry is None:
                return None
            self._count(folder, "hits", key=entry.key, seconds=entry.seconds)
            return entry, found[1]

        return self._guarded(act, None)

    def note(self, fields: Mapping[str, FieldValue], key: str, numbers: Sequence[int]) -> None:
        """Leaves a note for `follow`: of an entry's key, and of some numbers."""
        name = key_of(fields)
        self._guarded(lambda folder: write_note(folder, name, key, numbers), None)

    def _lookup(
        self,
        folder: TrustedFolder,
        key: str,
        fit: Callable[[CacheEntry], bool] | None,
        counted: bool,
    ) -> CacheEntry | None:
        for _ in range(RETRIES):
            entry = None
            try:
                entry = CacheEntry.load(folder, key)
                for name in entry.manifest["blobs"]:
                    entry.read(name)
            except FileNotFoundError:
                break
            except (CacheDamage, OSError) as error:
                if isinstance(error, OSError) and error.errno not in DAMAGE_ERRORS:
                    raise
                if entry is not None and not _still_there(folder, entry):
                    continue  # deleted meanwhile, and perhaps stored again
                reason = error.reason if isinstance(error, CacheDamage) else "unreadable"
                with contextlib.suppress(OSError):
                    self._quarantine(folder, key)
                self._count(folder, "rejects", key=key, reason=reason)
                break
            if fit is not None and not fit(entry):
                self._count(folder, "rejects", key=key, reason="features")
                break
            with contextlib.suppress(OSError):
                folder.touch("entries", key + SUFFIX)
            if counted:
                self._count(folder, "hits", key=key, seconds=entry.seconds)
            return entry
        if counted:
            self._count(folder, "misses", key=key)
        return None

    def _quarantine(self, folder: TrustedFolder, key: str) -> None:
        """Moves an entry's manifest and those of its blobs that are damaged out of the way."""
        with alone(folder, seconds=1.0) as undisturbed:
            if not undisturbed:  # a writer will replace it
                return
            damaged_blobs = []
            with contextlib.suppress(CacheDamage, OSError):
                entry = CacheEntry.load(folder, key)
                for name, record in entry.manifest["blobs"].items():
                    try:
                        entry.read(name)
                    except CacheDamage:  # one that is simply absent cannot be moved, and is not
                        damaged_blobs.append(record["sha256"])
                if not damaged_blobs:
                    return  # a writer repaired it meanwhile
            mark = f"{time.time_ns():020d}-{secrets.token_hex(4)}-"
            folder.move("entries", key + SUFFIX, "quarantine", mark + key + SUFFIX)
            for digest in damaged_blobs:
                folder.move("blobs", digest, "quarantine", mark + digest)
            for name in folder.names("quarantine")[:-KEPT_IN_QUARANTINE]:
                folder.remove("quarantine", name)

    # -- storing ----------------------------------------------------------------------------

    def store(
        self,
        fields: Mapping[str, FieldValue],
        blobs: Mapping[str, bytes],
        meta: Mapping[str, Any] | None = None,
    ) -> bool:
        """Writes an entry, replacing one of the same fields; False when it could not be written.

        `meta` is anything JSON can hold; its `seconds` are what a hit saves. Raises TypeError for
        fields or meta that JSON cannot hold. What was unused longest goes when a limit is exceeded.
        """
        canonical = canonical_fields(fields)
        records = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in blobs.items()
        }
        key = key_of(canonical)
        content = encode_manifest(
            {
                "format": FORMAT,
                "key": key,
                "created": round(time.time(), 3),
                "fields": canonical,
                "meta": dict(meta or {}),
                "blobs": records,
            }
        )
        if self.limits.exceeded(len(content) + sum(map(len, blobs.values())), 1):
            return False  # it would only push out everything else

        def write(folder: TrustedFolder) -> bool:
            with writing(folder) as undisturbed:
                if not undisturbed:
                    return False
                added = _store_blobs(
                    folder, {str(records[name]["sha256"]): blobs[name] for name in blobs}
                )
                replaced = folder.size("entries", key + SUFFIX)
                folder.write("entries", key + SUFFIX, content)
            self._count(folder, "stores", key=key)
            self._stored(folder, added + len(content) - replaced, 0 if replaced else 1)
            return True

        return self._guarded(write, False)

    def _stored(self, folder: TrustedFolder, size: int, entries: int) -> None:
        """After a write: notes the new size, and prunes where a limit is exceeded."""
        with contextlib.suppress(OSError):  # the entry is there all the same
            if self.limits.exceeded(*adjust_usage(folder, size, entries)):
                pruned = prune_when_full(folder, self.limits)
                if pruned is not None and pruned.evicted:
                    self._count(folder, "evictions", count=len(pruned.evicted))

    # -- looking around ---------------------------------------------------------------------

    def entries(self) -> list[CacheEntry]:
        """All entries whose manifests check out, by key. Blobs are read when asked for."""

        def collect(folder: TrustedFolder) -> list[CacheEntry]:
            found = []
            for name in folder.names("entries"):
                with contextlib.suppress(CacheDamage, OSError):
                    found.append(CacheEntry.load(folder, name.removesuffix(SUFFIX)))
            return found

        return self._guarded(collect, [])

    def keys(self) -> list[str]:
        """Of all entries, damaged ones included, sorted."""
        nothing: list[str] = []
        names = self._guarded(lambda folder: folder.names("entries"), nothing)
        return [name.removesuffix(SUFFIX) for name in names]

    def explain_miss(self, fields: Mapping[str, FieldValue]) -> list[str]:
        """Names of the fields in which the most similar entry differs; all of them without one."""
        wanted = canonical_fields(fields)
        differences = [differing_fields(wanted, entry.fields) for entry in self.entries()]
        return min(differences, key=len, default=sorted(wanted))

    def last_used(self, entry: CacheEntry) -> float:
        """Seconds since 1970; 0 when the entry has gone."""
        return self._guarded(lambda folder: folder.modified("entries", entry.key + SUFFIX), 0.0)

    def total_bytes(self) -> int:
        """Bytes of all manifests and blobs."""
        return self._guarded(lambda folder: measure(folder)[0], 0)

    def totals(self) -> Totals:
        """Events over all processes since the folder exists."""
        return self._guarded(lambda folder: CacheCounters(folder).totals(), Totals())

    def hits_of(self, entry: CacheEntry, totals: Totals) -> int:
        return totals.hits_by_key[entry.key[:KEY_DIGITS]]

    def stats(self) -> dict[str, Any]:
        """Where the cache is, what it holds, and events over all processes since it exists."""
        totals = self.totals()
        size, entries = self._guarded(measure, (0, 0))
        return {
            "path": str(self.path),
            "enabled": self.opened() is not None,
            "entries": entries,
            "max_entries": self.limits.entries,
            "bytes": size,
            "max_bytes": self.limits.bytes,
            **{event: totals.events[event] for event in EVENTS},
            "seconds_saved": round(totals.microseconds_saved / 1e6, 6),
            "rejects_by_reason": dict(sorted(totals.reasons.items())),
        }

    # -- removing ---------------------------------------------------------------------------

    def prune(
        self,
        limits: Limits | None = None,
        unwanted: Callable[[CacheEntry, float], bool] | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Removes entries as `cache_limits.prune` does; without limits those of the cache hold."""

        def act(folder: TrustedFolder) -> Pruned:
            pruned = prune(folder, self.limits if limits is None else limits, unwanted, dry_run)
            if pruned.evicted and not dry_run:
                self._count(folder, "evictions", count=len(pruned.evicted))
            return pruned

        return self._guarded(act, Pruned())

    def clear(self) -> int:
        """Deletes all entries, blobs and quarantined files; returns the number of entries."""

        def delete(folder: TrustedFolder) -> int:
            with alone(folder) as undisturbed:
                if not undisturbed:
                    return 0
                count = sum(folder.remove("entries", name) for name in folder.names("entries"))
                for subfolder in ("blobs", "quarantine", NOTES):
                    for name in folder.names(subfolder):
                        folder.remove(subfolder, name)
                collect_temporaries(folder)
                write_usage(folder, 0, 0)
                return count

        return self._guarded(delete, 0)


def _still_there(folder: TrustedFolder, entry: CacheEntry) -> bool:
    """Whether the manifest is the one that was read.  Some damage happens to it, too."""
    try:
        return CacheEntry.load(folder, entry.key).manifest == entry.manifest
    except FileNotFoundError:
        return False
    except (CacheDamage, OSError):
        return True


def _store_blobs(folder: TrustedFolder, blobs: Mapping[str, bytes]) -> int:
    """Writes blobs by digest; returns the bytes by which the folder grew.

    Each write waits for the disk, and a disk does not take longer over several at once: the 53
    files of a small GPT take 11 ms instead of 75.
    """
    with Jobs[int](min(len(blobs), WRITERS_AT_ONCE) - 1) as jobs:
        for digest, content in blobs.items():
            jobs.add(digest, partial(_store_blob, folder, digest, content))
        return sum(jobs.finish().values())


def _store_blob(folder: TrustedFolder, digest: str, content: bytes) -> int:
    """Writes a blob unless a good copy is there; a damaged one is replaced.  Returns the bytes by
    which the folder grew.
    """
    with contextlib.suppress(CacheDamage, OSError):
        read_blob(folder, digest, len(content), digest)
        return 0
    replaced = folder.size("blobs", digest)
    folder.write("blobs", digest, content)
    return len(content) - replaced
