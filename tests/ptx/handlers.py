"""The table of contents of the instruction set: importing a file fills `compiler.HANDLERS`."""

from __future__ import annotations

import functools


@functools.cache
def load() -> None:
    """Registers every handler, once."""
    from tests.ptx import (  # noqa: F401
        asynchronous,
        atomics,
        control,
        conversion,
        floating,
        integer,
        matrix,
        moves,
        tensor_copies,
        warpgroup,
    )
