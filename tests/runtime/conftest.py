"""Fixtures of the compile cache's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazygrad_runtime import cache as cache_module
from lazygrad_runtime.cache import CompileCache


@pytest.fixture
def fresh_process_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process finds it that has warned of nothing, without settings."""
    monkeypatch.setattr(cache_module, "_warned", False)
    for name in ("LAZYGRAD_CACHE", "LAZYGRAD_CACHE_DIR", "XDG_CACHE_HOME",
                 "LAZYGRAD_CACHE_MAX_BYTES", "LAZYGRAD_CACHE_MAX_ENTRIES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path: Path, fresh_process_state: None) -> CompileCache:
    return CompileCache(tmp_path / "cache")
