"""What tests of native calls share: their marks, compiled functions, and results by parts."""

from __future__ import annotations

import pytest

import lazygrad as lg
from lazygrad_runtime import native

NATIVE = [
    pytest.mark.skipif(not native.is_supported(), reason="native calls are for CPython"),
    pytest.mark.usefixtures("native_at_once"),
]
"""Marks of tests of native code: it takes over at once."""


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
