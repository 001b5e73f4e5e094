"""What a benchmark is, and the list of them all.

A file by subject makes `Benchmark`s and hands them to `register`; `all_benchmarks` imports the
files in the order in which the table shows them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONTESTANTS = ("lazygrad", "torch", "torch.compile", "jax")
SUBJECTS = ("recording", "startup", "products", "elementwise", "reductions", "norms",
            "convolution", "attention", "training", "recurrent")

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One row of the table.

    make: a contestant's name in, a callable out that does the work once, waits for it, and returns
    the value that the contestants must agree on (or None).  It is left None where the benchmark
    times itself in processes of its own: measure, (contestant, quick) -> seconds.
    flops, nbytes: floating-point operations, and bytes that must be read or written at least, of
    one call; 0 where it makes no sense to ask.  units: how many things one call does; the table
    shows the time of one.  checked_calls: so many results in a row are compared.  tolerance:
    relative to the largest value.  runs_programs: False where lazygrad only records.
    in_bytes: `measure` gives bytes instead of seconds.
    """

    name: str
    about: str
    make: Callable[[str], Run] | None = None
    measure: Callable[[str, bool], float] | None = None
    flops: int = 0
    nbytes: int = 0
    contestants: tuple[str, ...] = CONTESTANTS
    units: int = 1
    checked_calls: int = 1
    tolerance: float = 1e-4
    runs_programs: bool = True
    in_bytes: bool = False

    def __post_init__(self) -> None:
        if (self.make is None) == (self.measure is None):
            raise ValueError(f"[benchmark] {self.name}: give either make or measure")


_benchmarks: dict[str, Benchmark] = {}


def register(benchmark: Benchmark) -> Benchmark:
    """Adds a row.  ValueError where the name is taken."""
    if benchmark.name in _benchmarks:
        raise ValueError(f"[benchmark] {benchmark.name} is registered twice")
    _benchmarks[benchmark.name] = benchmark
    return benchmark


def all_benchmarks() -> list[Benchmark]:
    """Every row, in the order of the table."""
    for subject in SUBJECTS:
        importlib.import_module(f"tests.benchmarks.{subject}")
    return list(_benchmarks.values())


def chosen(names: str | None) -> list[Benchmark]:
    """The rows whose name contains one of the comma-separated words; all of them for None.

    ValueError where a word matches no row.
    """
    rows = all_benchmarks()
    if names is None:
        return rows
    words = [word.strip() for word in names.split(",") if word.strip()]
    for word in words:
        if not any(word in row.name for row in rows):
            raise ValueError(f"no benchmark is called {word!r}; --list shows the names")
    return [row for row in rows if any(word in row.name for word in words)]
