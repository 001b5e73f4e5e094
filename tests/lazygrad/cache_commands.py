"""What the tests of `lazygrad cache` share: scripts in processes of their own, and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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


def environment(folder: Path, **settings: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAZYGRAD")}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "LAZYGRAD_CACHE_DIR": str(folder),
            **settings}


def run(folder: Path, *arguments: str, code: int = 0, **settings: str) -> tuple[str, str]:
    """Python with these arguments in a process of its own: (standard output, standard error)."""
    done = subprocess.run([sys.executable, *arguments], env=environment(folder, **settings),
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def values(output: str) -> dict[str, Any]:
    """What --json printed."""
    found = json.loads(output)
    assert found.pop("schema_version") == 1
    return found
