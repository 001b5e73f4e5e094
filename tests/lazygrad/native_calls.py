"""What tests of native calls share: native code that takes over at once, compiled functions, and
results by parts.
"""

from __future__ import annotations

import pytest

import lazygrad as lg
from lazygrad._core import capture, cell, context
from lazygrad_runtime import native

SUPPORTED = pytest.mark.skipif(not native.is_supported(), reason="native calls are for CPython")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Native code takes over from the first replay, flush or call of an operation on."""
    monkeypatch.setattr(capture, "MANY_REPLAYS", 1)
    monkeypatch.setattr(cell, "_SAMPLED", 1)
    monkeypatch.setattr(context, "SAMPLED", 1)


def compiled(function, *arguments):
    """The function compiled, recorded and planned."""
    made = lg.compile(function)
    for _ in range(3):
        made(*arguments)
    return made


def parts(result):
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple) else [result]
