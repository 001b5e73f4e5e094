"""Decisions of the compiler, counted and held back: how the one that breaks a program is found.

Applying a rewrite rule, computing a value inside its readers and putting two values into one kernel
are decisions: the program is right without them.  They are taken in the same order each time.  With
a `Ledger` in force, the first `limit` of them are taken and all later ones are not, so the smallest
limit at which the result is wrong names the culprit, and halving finds it.  (The idea is that of
compilers' "optimisation fuel": Whalley, Automatic isolation of compiler errors, 1994.)

Without a ledger nothing is counted: the passes ask once each whether there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from lazygrad_compiler.ir.node import Location


@dataclass(frozen=True, slots=True)
class Decision:
    """number: from 1, in the order taken.  step: the pass.  what: the rule and what it fired on, or
    the values brought together.  location: the user's lines.
    """

    number: int
    step: str
    what: str
    location: Location


class Ledger:
    """The decisions of one compilation.  limit: how many may be taken; None for all."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.step = ""
        self.taken: list[Decision] = []

    @property
    def spent(self) -> bool:
        return self.limit is not None and len(self.taken) >= self.limit

    def take(self, what: str, location: Location) -> bool:
        """Counts a decision.  False where it must not be taken any more."""
        if self.spent:
            return False
        self.taken.append(Decision(len(self.taken) + 1, self.step, what, location))
        return True


_current: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


def ledger() -> Ledger | None:
    """The ledger in force, if any."""
    return _current.get()


@contextmanager
def under(book: Ledger) -> Iterator[Ledger]:
    """Within, all decisions of this thread go through the ledger."""
    token = _current.set(book)
    try:
        yield book
    finally:
        _current.reset(token)
