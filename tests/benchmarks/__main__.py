"""Command line of the benchmarks: `python -m tests.benchmarks --help`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _use_checkout() -> None:
    """The layers' folders on the path, so that a checkout needs no installation."""
    for folder in (ROOT / "runtime", ROOT / "compiler", ROOT):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(
        "Compares lazygrad with torch, torch.compile and JAX on two threads."))
    parser.add_argument("--only", metavar="NAME,...", help="rows whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help=(
        "fewer and shorter rounds: too short for figures to quote"))
    parser.add_argument("--peers", default="torch,torch.compile,jax", metavar="NAME,...",
                        help="whom to compare with (default %(default)s); '' for nobody")
    parser.add_argument("--markdown", type=Path, metavar="FILE",
                        help="also put the tables into a page, in place of those there")
    parser.add_argument("--list", action="store_true", help="show the rows and stop")
    options = parser.parse_args(arguments)
    options.peers = [peer.strip() for peer in options.peers.split(",") if peer.strip()]
    unknown = sorted(set(options.peers) - {"torch", "torch.compile", "jax"})
    if unknown:
        parser.error(f"unknown peers: {', '.join(unknown)}")
    options.fail = parser.error
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the rows; 1 where one failed or values disagreed."""
    options = _options(arguments)
    _use_checkout()
    from tests.benchmarks import machine

    processors = machine.prepare(2)
    for module in ("lazygrad.nn", "lazygrad.optim"):
        importlib.import_module(module)  # now, so that sources edited during a run do not mix
    from lazygrad_runtime import peak
    from tests.benchmarks import aims, harness, table
    from tests.benchmarks.registry import CONTESTANTS, chosen

    try:
        rows = chosen(options.only)
    except ValueError as error:
        options.fail(str(error))
    if options.list:
        width = max(len(row.name) for row in rows)
        print("\n".join(f"{row.name:{width}}  {row.about}" for row in rows))
        return 0
    contestants = [name for name in CONTESTANTS if name == "lazygrad" or name in options.peers]
    effort = harness.QUICK if options.quick else harness.FULL
    limits = peak.Limits()
    others = machine.Others()
    results = []
    for row in rows:
        start = time.perf_counter()
        print(f"{row.name} ...", end=" ", file=sys.stderr, flush=True)
        results.append(harness.run_benchmark(row, contestants, effort, limits))
        print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    described = machine.describe(contestants, processors, others.share())
    lines = [table.header(contestants)]
    lines += [table.cells(result, contestants) for result in results]
    print(f"{described}\npeak: {table.peaks(results)}\n\n{table.render(lines)}")
    for note in table.notes(results):
        print(f"note: {note}")
    aimed = aims.lines(results)
    if len(aimed) > 1:
        print(f"\n{table.render(aimed)}")
    if options.markdown:
        given = " ".join(sys.argv[1:] if arguments is None else arguments)
        command = f"python -m tests.benchmarks {given}".strip()
        table.replace_section(options.markdown, "peers", table.document(
            results, contestants, described, command))
        table.replace_section(options.markdown, "aims", table.render(aimed, markdown=True))
    bad = [note for result in results for note in result.notes.values()
           if not note.endswith("not installed")]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
