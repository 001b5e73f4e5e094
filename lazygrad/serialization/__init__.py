"""`save` and `load`: nested Python data with tensors, in a file that holds data only.  Loading runs
no code.

The file is an uncompressed zip archive:

    manifest.json    {"format": "lazygrad", "version": 1, "root": ..., "tensors": [...], "storages":
    [...]} storages/0 ...   raw little-endian bytes

In `root`, null, booleans, strings, and numbers within JSON's reach stand for themselves; everything
else is an object with one key that names its type.  Tensors that overlap in memory share one
storage and do so again after loading.

Saving writes a temporary file beside the target and renames it when it is complete: whatever fails,
the old file stays.
"""

from lazygrad.serialization.archive import FileFormatError
from lazygrad.serialization.loading import load
from lazygrad.serialization.saving import save

__all__ = ["FileFormatError", "load", "save"]
