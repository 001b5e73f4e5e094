"""What the tools cost those who do not use them: dumps that are off, a cache that is full.

    python -m tests.benchmarks.tools [dumps|cache] [--quick]

No rows of the comparison table: nobody else has the same to measure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_limits import Limits


def dumps_off(rounds: int, compilations: int = 24) -> str:
    """Seconds of compiling with dumps off, and with all that serves dumps taken out of the source
    (`without_dumps`).

    In each round three processes are started, which compile in turn: the compiler as it is, once
    more as it is, and without.  The two that are alike say what a difference may mean: processes
    differ (in where their memory lies) by more than dumps cost.
    """
    best: dict[str, list[float]] = {"whole": [], "again": [], "without": []}
    for number in range(rounds):
        order = list(best)[number % 3 :] + list(best)[: number % 3]
        with contextlib.ExitStack() as stack:
            workers = {which: stack.enter_context(_compiler(which)) for which in order}
            seconds: dict[str, list[float]] = {which: [] for which in order}
            for _ in range(compilations):
                for which, worker in workers.items():
                    seconds[which].append(float(_answer(worker)))
        for which, found in seconds.items():
            best[which].append(min(found))
    return (f"compiling with dumps off {statistics.median(best['whole']) * 1e3:.2f} ms; "
            f"more than without the code for dumps: {_excess(best['whole'], best['without'])}; "
            f"than the very same compiler: {_excess(best['whole'], best['again'])} "
            f"(median and quartiles of {rounds} rounds, the best of {compilations} compilations "
            "each)")


def _excess(these: list[float], those: list[float]) -> str:
    """Median and quartiles of the ratios, round by round."""
    ratios = [this / that - 1 for this, that in zip(these, those, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:+.2%} ({low:+.2%} to {high:+.2%})"


@contextlib.contextmanager
def _compiler(which: str) -> Iterator[subprocess.Popen[str]]:
    """A process that compiles when asked to, warmed up."""
    settings = os.environ | {"LAZYGRAD_CACHE": "0", "PYTHONHASHSEED": "0"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.without_dumps", "seconds", which],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        yield worker


def _answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return worker.stdout.readline()


def cache_writes(many: int, writes: int) -> str:
    """Seconds of a write among a hundred entries and among many, in turn: fsync included, and at a
    limit of so many entries, where now and then a fifth of them is deleted.
    """
    with tempfile.TemporaryDirectory() as folder:
        free = {size: _filled(Path(folder, f"free-{size}"), size, None) for size in (100, many)}
        synced: dict[int, list[float]] = {size: [] for size in free}
        for number in range(writes):
            for size, cache in free.items():
                synced[size].append(_seconds_of_write(cache, 10**6 + number))
        small, large = (statistics.median(seconds) for seconds in synced.values())
        limited = {size: _filled(Path(folder, f"limited-{size}"), size, size)
                   for size in (100, many)}
        pruning = dict.fromkeys(limited, 0.0)
        with _no_fsync():
            for number in range(many // 5):  # of the large one, one pruning
                for size, cache in limited.items():
                    pruning[size] += _seconds_of_write(cache, 10**6 + number) / (many // 5)
    return (f"a write among 100 entries {small * 1e6:.0f} us, among {many} {large * 1e6:.0f} us: "
            f"{large / small:.2f} times (median of {writes}, fsync included)\n"
            f"at a limit of 100 entries {pruning[100] * 1e6:.0f} us, of {many} "
            f"{pruning[many] * 1e6:.0f} us: {pruning[many] / pruning[100]:.2f} times "
            f"(mean of {many // 5}, pruning included, without fsync)")


def _seconds_of_write(cache: CompileCache, number: int) -> float:
    content = {"object": number.to_bytes(8, "little") * 500, "graph.txt": b"%d" % number * 100}
    begun = time.perf_counter()
    assert cache.store({"n": number}, content, {"seconds": 0.1})
    return time.perf_counter() - begun


def _filled(folder: Path, size: int, entries: int | None) -> CompileCache:
    cache = CompileCache(folder, Limits(bytes=None, entries=entries))
    with _no_fsync():
        for number in range(size):
            _seconds_of_write(cache, number)
    return cache


@contextlib.contextmanager
def _no_fsync() -> Iterator[None]:
    with unittest.mock.patch("os.fsync", lambda descriptor: None):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tools", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("dumps", "cache"), help="only this (or both)")
    parser.add_argument("--quick", action="store_true", help="a fifth of it")
    options = parser.parse_args()
    if options.what != "cache":
        print(dumps_off(3 if options.quick else 10))
    if options.what != "dumps":
        print(cache_writes(*((4_000, 60) if options.quick else (20_000, 300))))


if __name__ == "__main__":
    main()
