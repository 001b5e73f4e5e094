"""A GPU's tests and benchmark in one command.

    python -m tests.benchmarks.cuda [--only NAME,...] [--no-tests] [--page FILE] [--seconds N]

Measures what the device can do at best (copied bytes, multiply-adds, products of tensor cores),
then each row of `cuda_rows.py` with lazygrad (replayed by `lg.compile`) and, where PyTorch is
installed and sees the GPU, with PyTorch and, where operations fuse, `torch.compile`; each row is
checked first (`cuda_measure.py`).  Then it runs the tests marked `cuda`.  Rows come in the order of
their importance, each line is printed when it is there, and after `--seconds` no more are begun.  A
process of its own measures: a row that faults, hangs or ends it costs that row, and the next one
gets a new process.  With `--page` the table replaces the section "cuda" of that page.  Without a
device it says why there is none, and ends with status 2.

`--dry-run` does all of it over the PTX interpreter, with tiny sizes: its times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.cuda_measure import Contestant, Result, contestants, measure
from tests.benchmarks.cuda_rows import ROWS, Row
from tests.benchmarks.table import replace_section, show_seconds

SECONDS = 540.0
"""Of it all."""
ROW_SECONDS = 90.0
"""After which a row counts as hanging."""
COMPILED_SECONDS = 180.0
"""The same where `torch.compile` takes part."""
TEST_SECONDS = 240.0
CEILINGS = "ceilings"


# ---- the process that measures


def work(dry: bool) -> int:
    """Names of rows from standard input, results as JSON to standard output, a line each."""
    with contextlib.ExitStack() as stack:
        if dry:
            from tests.cuda_fake import fake_cuda

            stack.enter_context(fake_cuda())
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what else is printed is no result
        players = [each for each in contestants() if not dry or each.name == "lazygrad"]
        rows = {row.name: row for row in ROWS}
        for line in sys.stdin:
            name = line.strip()
            try:
                found = about(players, dry) if name == CEILINGS else dataclasses.asdict(
                    timed(rows[name], players, dry))
            except Exception as error:
                found = {"name": name, "problem": f"{type(error).__name__}: {error}"}
            print(json.dumps(found), file=out, flush=True)
    return 0


def timed(row: Row, players: Sequence[Contestant], dry: bool) -> Result:
    return measure(row, row.small, players, 1, 1e-4) if dry else measure(row, row.size, players)


def about(players: Sequence[Contestant], dry: bool) -> dict[str, Any]:
    """The device and what it can do."""
    import lazygrad as lg
    from lazygrad_runtime.cuda.driver import driver
    from tests.benchmarks.cuda_ceilings import ceilings

    properties = lg.cuda.get_device_properties()
    return {
        "device": f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
                  f"driver for CUDA {driver().version / 1000:.1f}",
        "versions": {each.name: str(each.library.__version__) for each in players},
        CEILINGS: ceilings(small=dry),
    }  # fmt: skip


class Worker:
    """The process that measures; started when it is asked, again after it is gone."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()

    def ask(self, name: str, limit: float) -> dict[str, Any]:
        """What it answers; `problem` where it does not."""
        if self.process is None:
            self._start()
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.stop()
            return {"name": name, "problem": f"did not end within {limit:.0f} s"}
        except OSError:
            line = None
        if line is None:
            status = self.stop()
            return {"name": name, "problem": f"the process ended with status {status}"}
        found: dict[str, Any] = json.loads(line)
        if "is lost" in found.get("problem", "") or "lost:" in found.get("problem", ""):
            self.stop()
        return found

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.cuda", "--worker"]
        self.process = subprocess.Popen(
            [*command, *(["--dry-run"] if self.dry else [])], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.lines = queue.Queue()
        threading.Thread(target=_read, args=(self.process, self.lines), daemon=True).start()

    def stop(self) -> int | None:
        if self.process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.process.kill()
        status = self.process.wait()
        self.process = None
        return status


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


# ---- tables


def head(names: Sequence[str]) -> list[str]:
    return ["row", *names, *(f"× {name}" for name in names[1:]), "host", "rate", "of ceiling",
            "error"]


def cells(row: Row, result: dict[str, Any], names: Sequence[str], size: int,
          best: dict[str, float]) -> list[str]:
    device = result.get("device") or {}
    if "lazygrad" not in device:
        problem = f"not measured: {result.get('problem', '')}".replace("|", "/")
        return [row.name, problem, *[""] * (len(head(names)) - 2)]
    ours = device["lazygrad"]
    work, moved = row.flops(size), row.nbytes(size)
    rate = f"{work / ours / 1e12:.1f} TFLOP/s" if work else \
        f"{moved / ours / 1e9:.0f} GB/s" if moved else ""
    limit = best.get(ceiling_of(row) if work else "copy")
    share = f"{(work or moved) / ours / limit:.0%}" if limit and (work or moved) else ""
    error = result.get("error", -1.0)
    absent = {name: f"none: {text}".replace("|", "/")[:80]
              for name, text in result.get("absent", {}).items()}
    return [row.name, *(show_seconds(device[name]) if name in device else absent.get(name, "")
                        for name in names),
            *(f"{device[name] / ours:.2f}" if name in device else "" for name in names[1:]),
            show_seconds(result["host"]["lazygrad"]), rate, share,
            f"{error:.1e}" if error >= 0 else ""]  # fmt: skip


def ceiling_of(row: Row) -> str:
    """What bounds the row's arithmetic."""
    if row.dtype == "bfloat16":
        return "mma.sync, bfloat16" if row.without else "wgmma, bfloat16"
    return "" if row.tf32 else "FMA, float32"


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def document(facts: dict[str, Any], lines: Sequence[str], rows: Sequence[Row],
             size_of: Callable[[Row], int]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in facts.get("versions", {}).items())
    best = ", ".join(
        f"{name} {value / 1e9:.0f} GB/s" if name == "copy" else f"{name} {value / 1e12:.1f} TFLOP/s"
        for name, value in facts.get(CEILINGS, {}).items())
    return (f"Device: {facts.get('device', 'unknown')}; {versions}.  \n"
            f"Ceilings, measured in the same run: {best}.  \n"
            "Command: `python -m tests.benchmarks.cuda --page docs/performance.md`\n\n"
            "Device times are medians by events; `host` is what one replay keeps Python busy; "
            "`error` is that of the full size against float64, by norms; bytes of a copy count "
            "read and written.\n\n" + "\n".join(lines) + "\n\n"
            + "\n".join(f"- `{row.name}`: {row.about} (n = {size_of(row)})" for row in rows))


# ---- all of it


def no_device() -> str:
    """Why there is nothing to measure on; "" where there is."""
    from lazygrad_runtime.cuda import driver as drivers

    try:
        return "" if drivers.driver().devices else "the driver finds no device"
    except drivers.NoDevice as error:
        return str(error)


def run_tests(limit: float) -> int:
    """The tests marked `cuda` that are not slow, on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5",
               "-m", "cuda and not slow", "tests/lazygrad/cuda"]
    try:
        return subprocess.run(command, check=False, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        print(f"tests: not through after {limit:.0f} s", flush=True)
        return 1


def measured(rows: Sequence[Row], dry: bool, end: float, size_of: Callable[[Row], int]
             ) -> tuple[str, bool]:
    """The document, and whether all is there; lines are printed as they come."""
    worker = Worker(dry)
    try:
        facts = worker.ask(CEILINGS, ROW_SECONDS)
        print(json.dumps(facts), flush=True)
        names = list(facts.get("versions", {"lazygrad": ""}))
        lines = [_line(head(names)), "|" + " --- |" * len(head(names))]
        print("\n".join(lines), flush=True)
        complete = "problem" not in facts
        for row in rows:
            left = end - time.monotonic()
            limit = COMPILED_SECONDS if row.compiled else ROW_SECONDS
            result = worker.ask(row.name, min(limit, left)) if left > 0 else \
                {"problem": "the time was up"}
            complete = complete and not result.get("problem")
            best = facts.get(CEILINGS, {})
            lines.append(_line(cells(row, result, names, size_of(row), best)))
            print(lines[-1], flush=True)
        return document(facts, lines, rows, size_of), complete
    finally:
        if worker.process is not None and worker.process.stdin is not None:
            worker.process.stdin.close()
        worker.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cuda",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="names of rows, separated by commas")
    parser.add_argument("--no-tests", action="store_true", help="benchmark only")
    parser.add_argument("--dry-run", action="store_true",
                        help="over the PTX interpreter, with tiny sizes")
    parser.add_argument("--page", type=Path, help="page whose section `cuda` is replaced")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of it all")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options.dry_run)
    wanted = [name for name in options.only.split(",") if name]
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    if len(rows) < len(wanted):
        parser.error(f"the rows are {', '.join(row.name for row in ROWS)}")
    problem = "" if options.dry_run else no_device()
    if problem:
        print(f"nothing to measure on: {problem}", file=sys.stderr)
        return 2
    begun = time.monotonic()
    tests = 0.0 if options.no_tests or options.dry_run else TEST_SECONDS
    end = begun + options.seconds - min(tests, options.seconds / 2)

    def size_of(row: Row) -> int:
        return row.small if options.dry_run else row.size

    text, complete = measured(rows, options.dry_run, end, size_of)
    print("\n" + text, flush=True)
    if options.page is not None:
        replace_section(options.page, "cuda", text)
    failed = run_tests(begun + options.seconds - time.monotonic()) if tests else 0
    return 1 if failed or not complete else 0


if __name__ == "__main__":
    sys.exit(main())
