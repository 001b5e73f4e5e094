"""Waiting times: imports, the first step of a new process, and that with a filled compile cache.

Each figure comes from processes of its own.  A first step begins when the framework is imported and
ends when the loss is there: building the model counts, and so does what a compiler imports late.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.registry import Benchmark, register

TIMEOUT_SECONDS = 300
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def _seconds(arguments: list[str], environment: dict[str, str] | None = None) -> float:
    """What a Python process with these arguments prints last."""
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    settings.pop("TORCHINDUCTOR_COMPILE_THREADS", None)
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    done = subprocess.run([sys.executable, *arguments], env=settings | (environment or {}),
                          capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    return float(done.stdout.split()[-1])


def _import(contestant: str, quick: bool) -> float:
    return min(_seconds(["-c", IMPORT.format(contestant)]) for _ in range(2 if quick else 5))


@functools.cache
def _first_steps(contestant: str, rounds: int) -> tuple[float, float]:
    """The best first step with empty caches, and the best with those that it left."""
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            caches = {
                "LAZYGRAD_CACHE_DIR": str(Path(folder, "lazygrad")),
                "TORCHINDUCTOR_CACHE_DIR": str(Path(folder, "torch")),
                "JAX_COMPILATION_CACHE_DIR": str(Path(folder, "jax")),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            command = ["-m", "tests.benchmarks.first_step", contestant]
            cold.append(_seconds(command, caches))
            # torch itself compiles nothing: one process shows both
            warm.append(cold[-1] if contestant == "torch" else _seconds(command, caches))
    return min(cold), min(warm)


def _cold(contestant: str, quick: bool) -> float:
    return _first_steps(contestant, 1 if quick else 3)[0]


def _warm(contestant: str, quick: bool) -> float:
    return _first_steps(contestant, 1 if quick else 3)[1]


register(Benchmark(
    name="import", about="import in a new process, best of 5", measure=_import,
    contestants=("lazygrad", "torch", "jax"),
))
register(Benchmark(
    name="first-step-cold", about="first MLP training step of a process, empty compile caches, "
    "best of 3", measure=_cold,
))
register(Benchmark(
    name="first-step-cached", about="first MLP training step of a second process, best of 3",
    measure=_warm,
))
