"""Notes in the cache folder: which entry something leads to.

In: a name, a SHA-256 over what identifies that something.  Out: the key of an entry, and some
numbers.  A note is written without waiting for the disk; its sum tells one that a crash cut short,
which is none.  Notes of entries that have gone go when the cache is pruned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from lazygrad_runtime.cache_entry import SUFFIX, is_sha256
from lazygrad_runtime.cache_folder import TrustedFolder

NOTES = "notes"


def write_note(folder: TrustedFolder, name: str, key: str, numbers: Sequence[int]) -> None:
    """Raises OSError."""
    body = json.dumps({"key": key, "numbers": list(numbers)})
    folder.remove(NOTES, name)  # a longer one would show behind this one
    folder.overwrite(NOTES, name, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}".encode())


def read_note(folder: TrustedFolder, name: str) -> tuple[str, list[int]] | None:
    """The key and the numbers; None where there is no note that can be believed.  Raises OSError.
    """
    try:
        digest, _, body = folder.read(NOTES, name).partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        noted = json.loads(body)
        key, numbers = noted["key"], noted["numbers"]
    except (ValueError, KeyError, TypeError):
        return None
    believable = is_sha256(key) and all(type(number) is int for number in numbers)
    return (key, numbers) if believable else None


def drop_notes(folder: TrustedFolder) -> None:
    """Deletes those whose entries have gone, and damaged ones.  Raises OSError."""
    entries = set(folder.names("entries"))
    for name in folder.names(NOTES):
        found = read_note(folder, name)
        if found is None or found[0] + SUFFIX not in entries:
            folder.remove(NOTES, name)
