"""Records whose lazygrad half misbehaves, for the tests of the defect matrix itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import lazygrad

from .record import OperationRecord, sample


def _dies(*arguments: Any, **keywords: Any) -> Any:
    return ctypes.string_at(0) if not arguments else lazygrad.mul(*arguments, **keywords)


def _hangs(*arguments: Any, **keywords: Any) -> Any:
    while not arguments:
        pass
    return lazygrad.mul(*arguments, **keywords)


def _accepts(*arguments: Any, **keywords: Any) -> Any:
    return lazygrad.ones(3)


def _raises_inside(error: str) -> Callable[..., Any]:
    """A function that raises, as if from a line of lazygrad."""
    text = f"def fails(*arguments, **keywords):\n    raise {error}('inside')\n"
    names: dict[str, Any] = {}
    exec(compile(text, str(lazygrad.__file__), "exec"), names)
    return names["fails"]


def _record(variant: str, ours: Callable[..., Any]) -> OperationRecord:
    def call(library: Any, *arguments: Any, **keywords: Any) -> Any:
        function = ours if library is lazygrad else library.mul
        return function(*arguments, **keywords)

    return OperationRecord("mul", lambda make: [sample(make(3, 4), make(4))], call=call,
                           variant=variant)


RECORDS = [
    _record("dies", _dies),
    _record("hangs", _hangs),
    _record("asserts", _raises_inside("AssertionError")),
    _record("looks up", _raises_inside("KeyError")),
    _record("accepts", _accepts),
    _record("other shape", lambda x, *rest, **keywords: lazygrad.mul(x, *rest, **keywords)[None]),
    _record("other values", lambda x, *rest, **keywords: lazygrad.mul(x, *rest, **keywords) + 1),
]
