"""What tests of the command line and of native calls share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lazygrad._core import capture, cell, context
from lazygrad_runtime import store
from tests.lazygrad.cli_tools import Call, caller


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A compile cache of the test's own, empty."""
    monkeypatch.setenv("LAZYGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LAZYGRAD_CACHE", raising=False)
    store.disk.cache_clear()
    yield
    store.disk.cache_clear()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line, as `caller` has it."""
    return caller(capsys)


@pytest.fixture
def native_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code takes over from the first replay, flush or call of an operation on."""
    monkeypatch.setattr(capture, "MANY_REPLAYS", 1)
    monkeypatch.setattr(cell, "_SAMPLED", 1)
    monkeypatch.setattr(context, "SAMPLED", 1)
