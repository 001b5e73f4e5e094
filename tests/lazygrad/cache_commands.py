"""What the tests of `lazygrad cache` share: scripts in processes of their own, and commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lazygrad.processes import python

SCRIPT = """\
import sys
import lazygrad as lg
from lazygrad_runtime import store

size = int(sys.argv[1]) if len(sys.argv) > 1 else 4
x = lg.arange(size).to(lg.float32)
w = lg.tensor([0.5] * size, requires_grad=True)
loss = lg.exp(-x * w).sum()
loss.backward()
print(round(loss.item(), 4), [round(value, 4) for value in w.grad.tolist()])
print("compiles", store.counters.compiles)
"""
RESULT = "2.1975 [-0.0, -0.6065, -0.7358, -0.6694]"


def run(folder: Path, *arguments: str, code: int = 0, **settings: str) -> tuple[str, str]:
    """Python with these arguments in a process of its own, and its cache in the folder: (standard
    output, standard error).
    """
    done = python(*arguments, folder=folder.parent,
                  changes={"LAZYGRAD_CACHE_DIR": str(folder), **settings})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def values(output: str) -> dict[str, Any]:
    """What --json printed."""
    found = json.loads(output)
    assert found.pop("schema_version") == 1
    return found
