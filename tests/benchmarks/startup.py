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
    """What a Python process with these arguments prints last, seconds or another figure."""
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
def _first_steps(task: str, contestant: str, rounds: int) -> tuple[float, float]:
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
            command = ["-m", "tests.benchmarks.first_step", task, contestant]
            cold.append(_seconds(command, caches))
            # torch itself compiles nothing: one process shows both
            warm.append(cold[-1] if contestant == "torch" else _seconds(command, caches))
    return min(cold), min(warm)


def _peak_memory(contestant: str, quick: bool) -> float:
    """Bytes that a process had resident at most which took three steps of the GPT."""
    command = ["-m", "tests.benchmarks.peak_memory", "gpt", contestant]
    return min(_seconds(command) for _ in range(1 if quick else 3))


def _register_first_steps(task: str, about: str, rounds: int) -> None:
    """A row for the first step with empty caches, one with those that it left."""
    prefix = "" if task == "mlp" else f"{task}-"
    for place, (name, how) in enumerate((("cold", "of a process, empty compile caches"),
                                         ("cached", "of a second process"))):
        def measure(contestant: str, quick: bool, place: int = place) -> float:
            return _first_steps(task, contestant, 1 if quick else rounds)[place]

        register(Benchmark(name=f"{prefix}first-step-{name}", measure=measure,
                           about=f"first {about} training step {how}, best of {rounds}"))


register(Benchmark(
    name="import", about="import in a new process, best of 5", measure=_import,
    contestants=("lazygrad", "torch", "jax"),
))
_register_first_steps("mlp", "MLP", 3)
_register_first_steps("resnet18", "ResNet-18", 2)
_register_first_steps("gpt", "GPT", 2)
register(Benchmark(
    name="gpt-peak-memory", about="largest resident set of a process that takes three steps of "
    "the GPT, best of 3", measure=_peak_memory, in_bytes=True,
    contestants=("lazygrad", "torch", "torch.compile"),
))
