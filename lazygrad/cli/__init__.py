"""The command line, a module for each command; `lazygrad.__main__` puts them together.

Exit codes: 0 all is well, 1 the command found something wrong, 2 the command line was wrong; 130
after Ctrl-C, 141 where the reader of the output went away, as shells count these.
"""

from __future__ import annotations

OK, FINDING, USAGE = 0, 1, 2
INTERRUPTED, READER_GONE = 130, 141

SCHEMA_VERSION = 1
"""Of all --json output: raised when a field changes its meaning or goes away."""


class UsageError(Exception):
    """The command line asks for something that does not exist; the message says what does."""


class ReaderGone(SystemExit):
    """Nobody reads the output any more (`| head`): the script that is being run ends, too."""


def human_bytes(count: float) -> str:
    """1536 -> 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_age(seconds: float) -> str:
    """Seconds as one number and unit: 3 s, 5 min, 2 h, 9 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"
