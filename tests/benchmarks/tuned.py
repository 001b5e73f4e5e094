"""How near the default schedules come to tuned ones: `python -m tests.benchmarks.tuned`.

Tunes the programs of benchmark rows (`--only`, as of the table) into a compile cache of its own and
prints for each row the time of the kernels of its longest program with the defaults and with the
winners, both best of some runs in turns, and the kernels that gained most.  `--markdown` writes a
row of the table of docs/performance.md for each.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from tests.benchmarks.registry import Benchmark, chosen
from tests.benchmarks.table import show_seconds

HEADER = ["benchmark", "default", "tuned", "gain", "where"]


def row_of(benchmark: Benchmark) -> list[str]:
    """Tunes what the benchmark runs."""
    from lazygrad.explain.tuning import Tuner, knobs
    from lazygrad.explain.watch import Watch
    from lazygrad_runtime.tune import Observer, Report

    assert benchmark.make is not None
    tuner = Tuner(Observer(), again=True)
    with Watch(on_run=tuner):
        run = benchmark.make("lazygrad")
        for _ in range(2):
            run()
    report = max((report for _, report in tuner.reports), key=lambda r: r.before, default=Report())
    gained = [o for o in report.outcomes if o.winner.is_better]
    gained.sort(key=lambda o: o.winner.seconds[1] - o.winner.seconds[0])
    where = [f"{o.about} {o.winner.tuned.speedup:.2f}x of {show_seconds(o.winner.seconds[0])} "
             f"({', '.join(knobs(o.winner.default, o.winner.tuned.schedule))})"
             for o in gained[:3]]
    gain = report.before / report.after if report.after else 1.0
    return [benchmark.name, show_seconds(report.before), show_seconds(report.after),
            f"{gain:.2f}", "; ".join(where)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="rows whose names contain one of these words")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAZYGRAD_CACHE_DIR"] = folder
        if options.markdown:
            print(f"| {' | '.join(HEADER)} |\n| --- | ---: | ---: | ---: | --- |")
        for benchmark in chosen(options.only):
            if benchmark.make is None or not benchmark.runs_programs:
                continue
            row = row_of(benchmark)
            print(f"| {' | '.join(row)} |" if options.markdown else "  ".join(row), flush=True)


if __name__ == "__main__":
    main()
