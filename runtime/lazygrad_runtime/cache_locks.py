"""Who may change the cache's folder when: writers side by side, or somebody who deletes, alone.

A writer puts blobs in place first and then the manifest that names them, so between the two a blob
belongs to nobody.  Whoever deletes unclaimed blobs (pruning, clearing, quarantining) therefore does
so while no writer is at work; a temporary file that is there at such a time has no owner any more.
Readers take no lock.  The locks die with their process.

Those who delete close a gate before they wait for the writers inside to finish, so that a steady
stream of writers cannot keep them out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lazygrad_runtime.cache_folder import TEMPORARY, TrustedFolder

GATE = "gate.lock"
WRITERS = "writers.lock"
WAIT_SECONDS = 10.0


@contextlib.contextmanager
def writing(folder: TrustedFolder) -> Iterator[bool]:
    """Within, nothing is deleted.  Yields False where that could not be had in time.

    Not to be nested: a gate closed in between would never open.
    """
    with contextlib.ExitStack() as inside:
        with folder.lock(GATE, exclusive=False, seconds=WAIT_SECONDS) as through:
            had = through and inside.enter_context(
                folder.lock(WRITERS, exclusive=False, seconds=WAIT_SECONDS)
            )
        yield had


@contextlib.contextmanager
def alone(folder: TrustedFolder, seconds: float = WAIT_SECONDS) -> Iterator[bool]:
    """Within, nobody writes.  Yields False where that could not be had in time."""
    with folder.lock(GATE, exclusive=True, seconds=seconds) as closed:
        if not closed:
            yield False
            return
        with folder.lock(WRITERS, exclusive=True, seconds=seconds) as had:
            yield had


def collect_temporaries(folder: TrustedFolder) -> int:
    """Deletes what writers killed in the middle left behind; to be called `alone`."""
    return sum(folder.remove(TEMPORARY, name) for name in folder.names(TEMPORARY))
