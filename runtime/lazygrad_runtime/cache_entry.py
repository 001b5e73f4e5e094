"""Entries of the compile cache: named fields, their key, and the manifest that says what is stored.

A manifest is a line with the check sum of the rest, then JSON: `format`, `key`, `created` (seconds
since 1970), `fields`, `meta`, and `blobs` (name to size and SHA-256).  A reader believes nothing:
what does not check out is `CacheDamage`, with a reason from `REASONS`.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lazygrad_runtime.cache_folder import TrustedFolder

FORMAT = 1
SUFFIX = ".json"
REASONS = (
    "manifest",  # its check sum is wrong, or it is no manifest
    "key",  # a sound manifest that does not describe the key it lies under
    "blob-missing",
    "blob-size",
    "blob-contents",
    "unreadable",  # a link, a pipe or a folder lies in the file's place
    "features",  # sound, but for a processor that can do more than this one
    "graph",  # sound, but its graph does not parse, or is not the one of its key
    "schedule",  # sound, but what tuning found is not for the kernel that it names
    "recompiled",  # sound, but compiling again gives other bytes
)
# Errors that say that a file is not what it should be (None: `TrustedFolder.read` found it so).
# Others, such as too many open files, say nothing about the entry.
DAMAGE_ERRORS = (None, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_HEADER = b'{"manifest_sha256": "%s"}\n'

FieldValue = str | int | Sequence[Any]


class CacheDamage(Exception):
    """An entry does not check out; it counts as absent."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


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


def canonical_fields(fields: Mapping[str, FieldValue]) -> dict[str, Any]:
    """The fields by name, with tuples as lists.  TypeError for what is neither str, int nor list of
    them.
    """
    for name in fields:
        if not isinstance(name, str):
            raise TypeError(f"[compile cache] field name {name!r} is not a str.")
    return {name: _checked_value(name, fields[name]) for name in sorted(fields)}


def key_of(fields: Mapping[str, FieldValue]) -> str:
    """SHA-256 over the canonical JSON of the named fields; their order does not matter.

    Raises TypeError, naming the field, for values that are not str, int or (nested) lists of them.
    """
    return hashlib.sha256(_canonical_json(canonical_fields(fields))).hexdigest()


def is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def differing_fields(some: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Names of the fields that are not equal, or that only one side has."""
    absent = object()
    names = sorted(some.keys() | others.keys())
    return [name for name in names if some.get(name, absent) != others.get(name, absent)]


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """A manifest's file.  TypeError for what JSON cannot hold."""
    body = json.dumps(manifest, indent=1).encode("ascii") + b"\n"
    return _HEADER % hashlib.sha256(body).hexdigest().encode() + body


def parse_manifest(key: str, content: bytes) -> dict[str, Any]:
    """A manifest that can be believed. Raises CacheDamage."""
    header_size = len(_HEADER) - 2 + 64
    body = content[header_size:]
    if content[:header_size] != _HEADER % hashlib.sha256(body).hexdigest().encode():
        raise CacheDamage("manifest", f"manifest {key}: wrong check sum")
    try:
        manifest = json.loads(body)
        believable = (
            manifest["format"] == FORMAT
            and isinstance(manifest["meta"], dict)
            and isinstance(manifest.get("created", 0.0), (int, float))
            and all(
                is_sha256(record["sha256"]) and isinstance(record["size"], int)
                for record in manifest["blobs"].values()
            )
        )
        described = manifest["key"] == key == key_of(manifest["fields"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheDamage("manifest", f"manifest {key}: {error}") from None
    if not believable:
        raise CacheDamage("manifest", f"manifest {key}: not what a manifest holds")
    if not described:
        raise CacheDamage("key", f"manifest {key}: does not describe that key")
    return manifest


class CacheEntry:
    """One entry: its `key`, its `manifest` (`fields`, `meta`, `blobs`: name to size and sha256)."""

    __slots__ = ("key", "manifest", "_folder", "_contents")

    def __init__(self, key: str, manifest: dict[str, Any], folder: TrustedFolder):
        self.key = key
        self.manifest = manifest
        self._folder = folder
        self._contents: dict[str, bytes] = {}

    @staticmethod
    def load(folder: TrustedFolder, key: str) -> CacheEntry:
        """The entry of a folder.  Raises OSError and CacheDamage; blobs are read when asked for."""
        return CacheEntry(key, parse_manifest(key, folder.read("entries", key + SUFFIX)), folder)

    @property
    def fields(self) -> dict[str, Any]:
        return self.manifest["fields"]

    @property
    def meta(self) -> dict[str, Any]:
        return self.manifest["meta"]

    @property
    def created(self) -> float:
        """Seconds since 1970 at which it was stored."""
        return float(self.manifest.get("created", 0.0))

    @property
    def seconds(self) -> float:
        """What a hit saves: the time that compiling took."""
        seconds = self.meta.get("seconds", 0.0)
        return float(seconds) if isinstance(seconds, (int, float)) else 0.0

    @property
    def blob_bytes(self) -> int:
        """Of all its blobs, whether shared with other entries or not."""
        return sum(record["size"] for record in self.manifest["blobs"].values())

    def read(self, name: str) -> bytes:
        """A blob, checked. An entry from `lookup` has read its blobs and cannot fail here.

        Raises KeyError for a blob that the entry does not have, CacheDamage when the blob's
        file is not what the manifest says, and OSError when it cannot be read now.
        """
        if name not in self._contents:
            record = self.manifest["blobs"][name]
            self._contents[name] = read_blob(
                self._folder, record["sha256"], record["size"], f"blob {name!r} of {self.key}"
            )
        return self._contents[name]

    def __repr__(self) -> str:
        return f"CacheEntry({self.key[:12]}, blobs={sorted(self.manifest['blobs'])})"


def read_blob(folder: TrustedFolder, digest: str, size: int | None, called: str) -> bytes:
    """A blob's contents, checked against its name.  Raises CacheDamage, and OSError for trouble
    that says nothing about the blob.
    """
    try:
        content = folder.read("blobs", digest)
    except FileNotFoundError:
        raise CacheDamage("blob-missing", f"{called}: its file is not there") from None
    except OSError as error:
        if error.errno not in DAMAGE_ERRORS:
            raise
        raise CacheDamage("unreadable", f"{called}: {error}") from None
    if size is not None and len(content) != size:
        message = f"{called}: {len(content)} bytes instead of {size}"
        raise CacheDamage("blob-size", message)
    if hashlib.sha256(content).hexdigest() != digest:
        raise CacheDamage("blob-contents", f"{called}: wrong contents")
    return content
