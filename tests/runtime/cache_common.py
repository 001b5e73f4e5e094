"""What the tests of the compile cache share: an entry's parts, and looking at the folder."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazygrad_runtime.cache import CompileCache

FIELDS: dict[str, Any] = {
    "ir": "add f32[3]", "shapes": [[3], [3, 4]], "cpu": "znver5", "version": 7}
BLOBS = {"object": bytes(range(256)) * 5, "llvm": b"define void @kernel()", "empty": b""}
META = {"kernels": ["kernel"], "scratch": 4096, "tuned": {"tile": 8.5, "note": None}}

processes: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)

marks = [
    pytest.mark.usefixtures("fresh_process_state"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def files_of(cache: CompileCache, *subfolders: str) -> list[Path]:
    return sorted(path for name in subfolders for path in (cache.path / name).iterdir())


def silent(action: Callable[[], Any]) -> Any:
    """Runs an action in which any warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return action()
