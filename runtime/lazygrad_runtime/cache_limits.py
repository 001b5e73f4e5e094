"""How large the cache may grow, and what goes when it is too large: what was unused longest.

The size is kept in a small file, `counters/usage`, that each writer adjusts by what it wrote, so no
write lists the folder.  A writer that finds a limit exceeded prunes down to `LOW_WATER` of it, so
the listing that this takes is shared by many writes.  Pruning also corrects the file, should a
writer have died before it adjusted it.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from lazygrad_runtime.cache_entry import SUFFIX, CacheDamage, CacheEntry
from lazygrad_runtime.cache_folder import TrustedFolder
from lazygrad_runtime.cache_locks import alone, collect_temporaries
from lazygrad_runtime.cache_notes import drop_notes

MAX_BYTES, MAX_ENTRIES = 2 << 30, 50_000
LOW_WATER = 0.8
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_USAGE = "usage"
_USAGE_LOCK = "usage.lock"
_PRUNE_LOCK = "prune.lock"
_RECORD = struct.Struct("<qqI")


def parse_size(text: str) -> int | None:
    """"500M" as bytes (K, M, G, T are powers of 1024); None for "none".  ValueError else."""
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if found is None:
        raise ValueError(f"{text!r} is not a size; write 500M, 2G, or none")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_count(text: str) -> int | None:
    """A number of entries; None for "none".  ValueError else."""
    if text.strip().lower() == "none":
        return None
    if not text.strip().isdigit():
        raise ValueError(f"{text!r} is not a number of entries; write 1000, or none")
    return int(text)


@dataclass(frozen=True, slots=True)
class Limits:
    """bytes: of manifests and blobs.  None is no limit."""

    bytes: int | None = MAX_BYTES
    entries: int | None = MAX_ENTRIES

    @staticmethod
    def from_environment() -> Limits:
        """`LAZYGRAD_CACHE_MAX_BYTES` and `LAZYGRAD_CACHE_MAX_ENTRIES`.  ValueError, with the
        variable's name, for what is no limit.
        """
        values: list[int | None] = []
        for name, parse, default in (
            ("LAZYGRAD_CACHE_MAX_BYTES", parse_size, MAX_BYTES),
            ("LAZYGRAD_CACHE_MAX_ENTRIES", parse_count, MAX_ENTRIES),
        ):
            text = os.environ.get(name, "").strip()
            try:
                values.append(parse(text) if text else default)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return Limits(*values)

    def exceeded(self, size: int, entries: int) -> bool:
        return (self.bytes is not None and size > self.bytes) or (
            self.entries is not None and entries > self.entries
        )

    def lowered(self) -> Limits:
        """Where automatic pruning stops."""
        return Limits(
            None if self.bytes is None else int(self.bytes * LOW_WATER),
            None if self.entries is None else int(self.entries * LOW_WATER),
        )


# -- how large it is ---------------------------------------------------------------------------


def measure(folder: TrustedFolder) -> tuple[int, int]:
    """(bytes of manifests and blobs, entries), by looking at every file."""
    sizes = [
        folder.size(subfolder, name)
        for subfolder in ("entries", "blobs")
        for name in folder.names(subfolder)
    ]
    return sum(sizes), len(folder.names("entries"))


def _read_usage(folder: TrustedFolder) -> tuple[int, int] | None:
    try:
        content = folder.read("counters", _USAGE, _RECORD.size)
    except OSError:
        return None
    size, entries, check = _RECORD.unpack(content)
    return (size, entries) if zlib.crc32(content[:-4]) == check else None


def write_usage(folder: TrustedFolder, size: int, entries: int) -> None:
    body = _RECORD.pack(size, entries, 0)[:-4]
    folder.overwrite("counters", _USAGE, body + struct.pack("<I", zlib.crc32(body)))


def adjust_usage(folder: TrustedFolder, size: int, entries: int) -> tuple[int, int]:
    """Adds to the noted size; returns the new one.  Measures where nothing sound is noted."""
    with folder.lock(_USAGE_LOCK, exclusive=True, seconds=1.0) as locked:
        noted = _read_usage(folder)
        if noted is None:
            noted = measure(folder)
        else:
            noted = noted[0] + size, noted[1] + entries
        if locked:
            write_usage(folder, *noted)
        return noted


# -- pruning -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Pruned:
    """evicted: keys of the entries that went, longest unused first.  bytes: what went, unclaimed
    blobs and temporaries' blobs included.  unclaimed: blobs that no entry named.  temporaries: of
    writers that died.  quarantined: damaged files set aside earlier.  entries_left, bytes_left.
    busy: others were at work all the time, so nothing went.
    """

    evicted: list[str] = field(default_factory=list)
    bytes: int = 0
    unclaimed: int = 0
    temporaries: int = 0
    quarantined: int = 0
    entries_left: int = 0
    bytes_left: int = 0
    busy: bool = False


@dataclass(slots=True)
class _Seen:
    """A manifest as it was when read; it is evicted only if nobody used it since."""

    used: float
    size: int
    blobs: set[str]
    entry: CacheEntry | None


def _see(folder: TrustedFolder, name: str) -> _Seen | None:
    """None where it has gone.  A manifest that does not check out claims no blobs."""
    used, size = folder.modified("entries", name), folder.size("entries", name)
    entry = None
    try:
        entry = CacheEntry.load(folder, name.removesuffix(SUFFIX))
    except FileNotFoundError:
        return None
    except (CacheDamage, OSError):
        return _Seen(used, size, set(), None)
    return _Seen(used, size, {b["sha256"] for b in entry.manifest["blobs"].values()}, entry)


def prune(
    folder: TrustedFolder,
    limits: Limits,
    unwanted: Callable[[CacheEntry, float], bool] | None = None,
    dry_run: bool = False,
    wait_seconds: float = 10.0,
) -> Pruned:
    """Deletes entries that are unwanted (asked with the entry and its last use, seconds since
    1970), then those unused longest until the limits hold, and all that belongs to no entry.

    dry_run: only says what would go.  Raises OSError.
    """
    seen: dict[str, _Seen] = {}
    for name in folder.names("entries"):
        found = _see(folder, name)
        if found is not None:
            seen[name] = found
    if dry_run:
        return _prune_seen(folder, seen, limits, unwanted, delete=False)
    with alone(folder, wait_seconds) as undisturbed:
        if not undisturbed:
            size, entries = measure(folder)
            return Pruned(entries_left=entries, bytes_left=size, busy=True)
        # Most were read above while others could write; only what changed is read now.
        names = folder.names("entries")
        for name in seen.keys() - set(names):
            del seen[name]
        for name in names:
            if name not in seen or folder.modified("entries", name) != seen[name].used:
                found = _see(folder, name)
                if found is not None:
                    seen[name] = found
        pruned = _prune_seen(folder, seen, limits, unwanted, delete=True)
        drop_notes(folder)
        pruned.temporaries = collect_temporaries(folder)
        with folder.lock(_USAGE_LOCK, exclusive=True, seconds=1.0):
            write_usage(folder, pruned.bytes_left, pruned.entries_left)
        return pruned


def _prune_seen(
    folder: TrustedFolder,
    seen: dict[str, _Seen],
    limits: Limits,
    unwanted: Callable[[CacheEntry, float], bool] | None,
    delete: bool,
) -> Pruned:
    sizes = {digest: folder.size("blobs", digest) for digest in folder.names("blobs")}
    claims: dict[str, int] = dict.fromkeys(sizes, 0)
    for each in seen.values():
        for digest in each.blobs & claims.keys():
            claims[digest] += 1
    pruned = Pruned()
    total = sum(sizes.values()) + sum(each.size for each in seen.values())

    def drop_blob(digest: str) -> None:
        nonlocal total
        total -= sizes[digest]
        pruned.bytes += sizes[digest]
        del claims[digest]
        if delete:
            folder.remove("blobs", digest)

    for digest in [digest for digest, count in claims.items() if count == 0]:
        pruned.unclaimed += 1
        drop_blob(digest)
    left = len(seen)
    for name, each in sorted(seen.items(), key=lambda item: (item[1].used, item[0])):
        useless = unwanted is not None and each.entry is not None
        useless = useless and unwanted(each.entry, each.used)  # type: ignore[misc, arg-type]
        if not (useless or limits.exceeded(total, left)):
            if unwanted is None:
                break  # the others were used later still
            continue
        if delete:
            folder.remove("entries", name)  # before its blobs, so that nobody finds half of it
        pruned.evicted.append(name.removesuffix(SUFFIX))
        pruned.bytes += each.size
        total, left = total - each.size, left - 1
        for digest in each.blobs & claims.keys():
            claims[digest] -= 1
            if claims[digest] == 0:
                drop_blob(digest)
    for name in folder.names("quarantine"):
        pruned.quarantined += 1
        if delete:
            folder.remove("quarantine", name)
    pruned.entries_left, pruned.bytes_left = left, total
    return pruned


def prune_when_full(folder: TrustedFolder, limits: Limits) -> Pruned | None:
    """Automatic pruning; None where another process is at it already."""
    with contextlib.ExitStack() as stack:
        lock = folder.lock(_PRUNE_LOCK, exclusive=True, seconds=0.0)
        if not stack.enter_context(lock):
            return None
        return prune(folder, limits.lowered())


def older_than(seconds: float) -> Callable[[CacheEntry, float], bool]:
    """Entries that nobody used for so long."""
    now = time.time()
    return lambda entry, used: now - used > seconds
