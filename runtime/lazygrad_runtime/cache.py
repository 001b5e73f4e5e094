"""The compile cache: artifacts on disk, found by what they were made from.

In: named fields (canonical IR, shapes, target, versions, flags).  Out: an entry with the blobs that
a compile of those fields gave (object code, IR texts) and notes about them (`meta`).

    <folder>/entries/<key>.json     check sum line, then the manifest: fields, meta, blobs
    <folder>/blobs/<sha256>         contents, shared by all entries that have them
    <folder>/quarantine/            damaged files, for looking at

The key is the SHA-256 of the fields, and all fields are in the manifest, so a miss can be explained
by the field that changed. Blobs are in place before the manifest that names them, and every file
appears whole; so readers take no lock. A reader believes nothing: it checks the manifest's sum, the
fields, and each blob's size and sum. What does not check out is quarantined and reported as a miss.

Trouble with the disk never reaches the user: the cache warns once and the program runs uncached.
Nothing is unpickled anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lazygrad_runtime.cache_counters import EVENTS, CacheCounters
from lazygrad_runtime.cache_folder import TrustedFolder, UntrustedFolder

FORMAT = 1
KEPT_IN_QUARANTINE = 64
_SUFFIX = ".json"
# Errors that say that a file is not what it should be (None: `TrustedFolder.read` found it so).
# Others, such as too many open files, say nothing about the entry.
_DAMAGE_ERRORS = (None, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_HEADER = b'{"manifest_sha256": "%s"}\n'

FieldValue = str | int | Sequence[Any]
Result = TypeVar("Result")

_warned = False


class CacheDamage(Exception):
    """An entry does not check out; it counts as absent."""


def _warn_once(message: str) -> None:
    """One warning per process: a training loop must not print one per compile."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"[compile cache] {message}. Running uncached.", RuntimeWarning, stacklevel=4)


def _checked_value(name: str, value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [_checked_value(name, item) for item in value]
    raise TypeError(
        f"[compile cache] field {name!r} is a {type(value).__name__}; fields are str, int or lists "
        "of these, since only their written form is compared."
    )


def _canonical_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _canonical_fields(fields: Mapping[str, FieldValue]) -> dict[str, Any]:
    for name in fields:
        if not isinstance(name, str):
            raise TypeError(f"[compile cache] field name {name!r} is not a str.")
    return {name: _checked_value(name, fields[name]) for name in sorted(fields)}


def key_of(fields: Mapping[str, FieldValue]) -> str:
    """SHA-256 over the canonical JSON of the named fields; their order does not matter.

    Raises TypeError, naming the field, for values that are not str, int or (nested) lists of them.
    """
    return hashlib.sha256(_canonical_json(_canonical_fields(fields))).hexdigest()


def default_folder() -> Path:
    """`LAZYGRAD_CACHE_DIR`, else `$XDG_CACHE_HOME/lazygrad`, else `~/.cache/lazygrad`."""
    chosen = os.environ.get("LAZYGRAD_CACHE_DIR")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.expanduser("~/.cache")
    return Path(base) / "lazygrad"


class CacheEntry:
    """One entry: its `key`, its `manifest` (`fields`, `meta`, `blobs`: name to size and sha256)."""

    __slots__ = ("key", "manifest", "_folder", "_contents")

    def __init__(self, key: str, manifest: dict[str, Any], folder: TrustedFolder):
        self.key = key
        self.manifest = manifest
        self._folder = folder
        self._contents: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """A blob, checked. An entry from `lookup` has read its blobs and cannot fail here.

        Raises KeyError for a blob that the entry does not have, CacheDamage when the blob's
        file is not what the manifest says, and OSError when it cannot be read now.
        """
        if name not in self._contents:
            record = self.manifest["blobs"][name]
            try:
                content = self._folder.read("blobs", record["sha256"], record["size"])
            except OSError as error:
                if error.errno not in _DAMAGE_ERRORS:
                    raise
                raise CacheDamage(f"blob {name!r} of {self.key}: {error}") from None
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise CacheDamage(f"blob {name!r} of {self.key}: wrong contents")
            self._contents[name] = content
        return self._contents[name]

    def __repr__(self) -> str:
        return f"CacheEntry({self.key[:12]}, blobs={sorted(self.manifest['blobs'])})"


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _parse_manifest(key: str, content: bytes) -> dict[str, Any]:
    """A manifest that can be believed. Raises CacheDamage."""
    header_size = len(_HEADER) - 2 + 64
    body = content[header_size:]
    if content[:header_size] != _HEADER % hashlib.sha256(body).hexdigest().encode():
        raise CacheDamage(f"manifest {key}: wrong check sum")
    try:
        manifest = json.loads(body)
        believable = (
            manifest["format"] == FORMAT
            and manifest["key"] == key == key_of(manifest["fields"])
            and isinstance(manifest["meta"], dict)
            and all(
                _is_sha256(record["sha256"]) and isinstance(record["size"], int)
                for record in manifest["blobs"].values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheDamage(f"manifest {key}: {error}") from None
    if not believable:
        raise CacheDamage(f"manifest {key}: does not describe that key")
    return manifest


class CompileCache:
    """The cache in one folder. Safe for use by threads and by processes at the same time.

    No method raises for trouble with the disk; `lookup` then misses and `store` does nothing.
    `LAZYGRAD_CACHE=0` disables it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        self.path = default_folder() if path is None else Path(os.path.abspath(path))
        self.enabled = os.environ.get("LAZYGRAD_CACHE", "").strip() != "0"
        self._opening = threading.Lock()
        self._folder: TrustedFolder | None = None
        self._refused = False

    def _opened(self) -> TrustedFolder | None:
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
                self._folder = TrustedFolder(self.path)
            except UntrustedFolder as error:
                self._refused = True
                _warn_once(f"refused: {error}")
                return None
            except OSError as error:
                self._refused = True
                _warn_once(
                    f"cannot open {self.path}: {error}; name a writable folder in "
                    "LAZYGRAD_CACHE_DIR, or set LAZYGRAD_CACHE=0"
                )
                return None
            with contextlib.suppress(OSError):
                self._folder.remove_stale_temporaries()
            return self._folder

    def _guarded(self, action: Callable[[TrustedFolder], Result], otherwise: Result) -> Result:
        """Runs an action on the folder; trouble with the disk becomes one warning."""
        folder = self._opened()
        if folder is None:
            return otherwise
        try:
            return action(folder)
        except OSError as error:
            _warn_once(
                f"{self.path}: {error}; free some space or name another folder in "
                "LAZYGRAD_CACHE_DIR"
            )
            return otherwise

    def _count(self, folder: TrustedFolder, event: str) -> None:
        """Counting is for information: a folder that cannot be written is no reason to warn."""
        with contextlib.suppress(OSError):
            CacheCounters(folder).add(event)

    # -- looking up -------------------------------------------------------------------------

    def lookup(self, fields: Mapping[str, FieldValue]) -> CacheEntry | None:
        """The entry for these fields with all its blobs read and checked, or None."""
        key = key_of(fields)
        return self._guarded(lambda folder: self._lookup(folder, key), None)

    def _lookup(self, folder: TrustedFolder, key: str) -> CacheEntry | None:
        try:
            entry = self._load(folder, key)
            for name in entry.manifest["blobs"]:
                entry.read(name)
        except FileNotFoundError:
            self._count(folder, "misses")
            return None
        except (CacheDamage, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _DAMAGE_ERRORS:
                raise
            self._count(folder, "rejects")
            self._count(folder, "misses")
            with contextlib.suppress(OSError):
                self._quarantine(folder, key)
            return None
        self._count(folder, "hits")
        return entry

    def _load(self, folder: TrustedFolder, key: str) -> CacheEntry:
        return CacheEntry(key, _parse_manifest(key, folder.read("entries", key + _SUFFIX)), folder)

    def _quarantine(self, folder: TrustedFolder, key: str) -> None:
        """Moves an entry's manifest and those of its blobs that are damaged out of the way."""
        damaged_blobs = []
        with contextlib.suppress(CacheDamage, OSError):
            entry = self._load(folder, key)
            for name, record in entry.manifest["blobs"].items():
                try:
                    entry.read(name)
                except CacheDamage:  # one that is simply absent cannot be moved, and is not
                    damaged_blobs.append(record["sha256"])
        mark = f"{time.time_ns():020d}-{secrets.token_hex(4)}-"
        folder.move("entries", key + _SUFFIX, "quarantine", mark + key + _SUFFIX)
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

        `meta` is anything JSON can hold. Raises TypeError for fields or meta that JSON cannot
        hold.
        """
        canonical = _canonical_fields(fields)
        records = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in blobs.items()
        }
        key = key_of(canonical)
        manifest = {
            "format": FORMAT,
            "key": key,
            "fields": canonical,
            "meta": dict(meta or {}),
            "blobs": records,
        }
        body = json.dumps(manifest, indent=1).encode("ascii") + b"\n"
        content = _HEADER % hashlib.sha256(body).hexdigest().encode() + body

        def write(folder: TrustedFolder) -> bool:
            for name, record in records.items():
                self._store_blob(folder, str(record["sha256"]), blobs[name])
            folder.write("entries", key + _SUFFIX, content)
            self._count(folder, "stores")
            return True

        return self._guarded(write, False)

    @staticmethod
    def _store_blob(folder: TrustedFolder, digest: str, content: bytes) -> None:
        """Writes a blob unless a good copy is there; a damaged one is replaced."""
        try:
            if folder.read("blobs", digest, len(content)) == content:
                return
        except OSError:
            pass
        folder.write("blobs", digest, content)

    # -- looking around ---------------------------------------------------------------------

    def entries(self) -> list[CacheEntry]:
        """All entries whose manifests check out, by key. Blobs are read when asked for."""

        def collect(folder: TrustedFolder) -> list[CacheEntry]:
            found = []
            for name in folder.names("entries"):
                with contextlib.suppress(CacheDamage, OSError):
                    found.append(self._load(folder, name.removesuffix(_SUFFIX)))
            return found

        return self._guarded(collect, [])

    def explain_miss(self, fields: Mapping[str, FieldValue]) -> list[str]:
        """Names of the fields in which the most similar entry differs; all of them without one."""
        wanted = _canonical_fields(fields)
        absent = object()

        def differences(entry: CacheEntry) -> list[str]:
            had = entry.manifest["fields"]
            names = sorted(wanted.keys() | had.keys())
            return [name for name in names if wanted.get(name, absent) != had.get(name, absent)]

        return min(map(differences, self.entries()), key=len, default=sorted(wanted))

    def total_bytes(self) -> int:
        """Bytes of all manifests and blobs."""

        def measure(folder: TrustedFolder) -> int:
            return sum(
                folder.size(subfolder, name)
                for subfolder in ("entries", "blobs")
                for name in folder.names(subfolder)
            )

        return self._guarded(measure, 0)

    def stats(self) -> dict[str, Any]:
        """Where the cache is, what it holds, and events over all processes since it exists."""
        nothing: dict[str, int] = {}
        counts = self._guarded(lambda folder: CacheCounters(folder).totals(), nothing)
        return {
            "path": str(self.path),
            "enabled": self._opened() is not None,
            "entries": self._guarded(lambda folder: len(folder.names("entries")), 0),
            "bytes": self.total_bytes(),
            **{event: counts.get(event, 0) for event in EVENTS},
        }

    def clear(self) -> int:
        """Deletes all entries, blobs and quarantined files; returns the number of entries."""

        def delete(folder: TrustedFolder) -> int:
            count = sum(folder.remove("entries", name) for name in folder.names("entries"))
            for subfolder in ("blobs", "quarantine"):
                for name in folder.names(subfolder):
                    folder.remove(subfolder, name)
            return count

        return self._guarded(delete, 0)
