"""Forty common operations at 1K and 16M elements: lazygrad against torch eager and NumPy.

    python -m tests.benchmarks.operations [--only NAME,...] [--quick] [--page FILE]

lazygrad runs through `lg.compile`, and what comes out is compared before anything is timed.  With
`--page`, the table replaces the section "operations" of that page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SMALL, LARGE = 1 << 10, 1 << 24
CONTESTANTS = ("lazygrad", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Operation:
    """name.  arrays(count): inputs of about so many elements.  program(torch, *tensors); in_numpy
    (numpy, *arrays), None where NumPy has no such operation.
    """

    name: str
    arrays: Callable[[int], Sequence[np.ndarray]]
    program: Callable[..., Any]
    in_numpy: Callable[..., Any] | None = None
    tolerance: float = 1e-4


def one(count: int) -> Sequence[np.ndarray]:
    return [np.random.default_rng(0).standard_normal(count, dtype=np.float32)]


def two(count: int) -> Sequence[np.ndarray]:
    return [*one(count), np.random.default_rng(1).standard_normal(count, dtype=np.float32)]


def positive(count: int) -> Sequence[np.ndarray]:
    return [np.random.default_rng(0).random(count, dtype=np.float32) + 0.1]


def square(count: int) -> Sequence[np.ndarray]:
    side = int(count**0.5)
    return [array.reshape(side, side) for array in one(side * side)]


def with_vector(count: int) -> Sequence[np.ndarray]:
    matrix, = square(count)
    return [matrix, one(matrix.shape[1])[0]]


def with_places(count: int) -> Sequence[np.ndarray]:
    places = np.random.default_rng(2).integers(0, count, count)
    return [*one(count), places]


def with_rows(count: int) -> Sequence[np.ndarray]:
    """A table of rows of 64, and which of them to take."""
    rows = count // 64
    places = np.random.default_rng(2).integers(0, rows, rows)
    return [one(rows * 64)[0].reshape(rows, 64), places]


def bins(count: int) -> Sequence[np.ndarray]:
    return [np.random.default_rng(3).integers(0, 256, count)]


def mask(count: int) -> Sequence[np.ndarray]:
    return [*two(count), np.random.default_rng(4).random(count) < 0.5]


OPERATIONS = [
    Operation("add", two, lambda t, x, y: x + y, lambda n, x, y: x + y),
    Operation("mul by a number", one, lambda t, x: x * 2.5, lambda n, x: x * np.float32(2.5)),
    Operation("div", two, lambda t, x, y: x / y, lambda n, x, y: x / y),
    Operation("where", mask, lambda t, x, y, m: t.where(m, x, y),
              lambda n, x, y, m: n.where(m, x, y)),
    Operation("clamp", one, lambda t, x: t.clamp(x, -1, 1), lambda n, x: n.clip(x, -1, 1)),
    Operation("exp", one, lambda t, x: t.exp(x), lambda n, x: n.exp(x)),
    Operation("log", positive, lambda t, x: t.log(x), lambda n, x: n.log(x)),
    Operation("sin", one, lambda t, x: t.sin(x), lambda n, x: n.sin(x)),
    Operation("tanh", one, lambda t, x: t.tanh(x), lambda n, x: n.tanh(x)),
    Operation("sqrt", positive, lambda t, x: t.sqrt(x), lambda n, x: n.sqrt(x)),
    Operation("pow", positive, lambda t, x: x ** 1.7, lambda n, x: x ** np.float32(1.7)),
    Operation("sigmoid", one, lambda t, x: t.sigmoid(x)),
    Operation("gelu", one, lambda t, x: t.nn.functional.gelu(x)),
    Operation("erf", one, lambda t, x: t.erf(x)),
    Operation("compare", two, lambda t, x, y: x > y, lambda n, x, y: x > y),
    Operation("to float64", one, lambda t, x: x.double(), lambda n, x: x.astype(n.float64)),
    Operation("sum", one, lambda t, x: x.sum(), lambda n, x: x.sum()),
    Operation("mean of rows", square, lambda t, x: x.mean(1), lambda n, x: x.mean(1)),
    Operation("sum of columns", square, lambda t, x: x.sum(0), lambda n, x: x.sum(0)),
    Operation("max", one, lambda t, x: x.max(), lambda n, x: x.max()),
    Operation("argmax of rows", square, lambda t, x: x.argmax(1), lambda n, x: x.argmax(1)),
    Operation("std of rows", square, lambda t, x: x.std(1), lambda n, x: x.std(1, ddof=1)),
    Operation("logsumexp of rows", square, lambda t, x: t.logsumexp(x, 1)),
    Operation("softmax of rows", square, lambda t, x: t.softmax(x, 1)),
    Operation("layer norm of rows", square,
              lambda t, x: t.nn.functional.layer_norm(x, x.shape[1:])),
    Operation("cumsum", one, lambda t, x: x.double().cumsum(0),
              lambda n, x: x.astype(n.float64).cumsum()),
    Operation("cumsum down columns", square, lambda t, x: x.cumsum(0), lambda n, x: x.cumsum(0)),
    Operation("sort", one, lambda t, x: t.sort(x).values, lambda n, x: n.sort(x)),
    Operation("argsort", one, lambda t, x: t.argsort(x, stable=True),
              lambda n, x: n.argsort(x, kind="stable")),
    Operation("topk 10", one, lambda t, x: t.topk(x, 10).values,
              lambda n, x: n.sort(n.partition(x, x.size - 10)[-10:])[::-1]),
    Operation("median", one, lambda t, x: x.median()),
    Operation("transpose", square, lambda t, x: x.T.contiguous(),
              lambda n, x: n.ascontiguousarray(x.T)),
    Operation("cat", two, lambda t, x, y: t.cat([x, y]), lambda n, x, y: n.concatenate([x, y])),
    Operation("flip", one, lambda t, x: x.flip(0), lambda n, x: n.ascontiguousarray(x[::-1])),
    Operation("strided slice", one, lambda t, x: x[::2].clone(), lambda n, x: x[::2].copy()),
    Operation("broadcast add", with_vector, lambda t, x, v: x + v, lambda n, x, v: x + v),
    Operation("gather elements", with_places, lambda t, x, i: x[i], lambda n, x, i: x[i]),
    Operation("gather rows", with_rows, lambda t, x, i: x[i], lambda n, x, i: x[i]),
    Operation("scatter add of rows", with_rows, lambda t, x, i: t.zeros_like(x).index_add(0, i, x)),
    Operation("bincount", bins, lambda t, x: t.bincount(x, minlength=256),
              lambda n, x: n.bincount(x, minlength=256)),
    Operation("matrix times vector", with_vector, lambda t, x, v: x @ v, lambda n, x, v: x @ v),
]


def benchmark_of(operation: Operation, count: int) -> Any:
    """The row of one operation at one size, for the harness."""
    from tests.benchmarks import contestants
    from tests.benchmarks.registry import Benchmark

    arrays = operation.arrays(count)

    def make(contestant: str) -> Callable[[], Any]:
        if contestant == "numpy":
            if operation.in_numpy is None:
                raise RuntimeError("NumPy has no such operation")
            function = operation.in_numpy
            return lambda: function(np, *arrays)
        module = contestants.framework(contestant)
        tensors = [contestants.from_numpy(contestant, array) for array in arrays]

        def run(*tensors: Any) -> Any:
            return operation.program(module, *tensors)

        if contestant == "lazygrad":
            return contestants.waiting(contestant, module.compile(run), tensors)
        return contestants.waiting(contestant, run, tensors)

    taking_part = CONTESTANTS if operation.in_numpy is not None else CONTESTANTS[:2]
    return Benchmark(name=operation.name, about="", make=make, contestants=taking_part,
                     tolerance=operation.tolerance)


def row(operation: Operation, effort: Any) -> tuple[list[str], list[Any]]:
    """The cells of one operation, and its results at both sizes."""
    from tests.benchmarks import harness
    from tests.benchmarks.table import _time_cell

    cells, results = [operation.name], []
    for count in (SMALL, LARGE):
        result = harness.run_benchmark(benchmark_of(operation, count), CONTESTANTS, effort)
        results.append(result)
        cells.append(_time_cell(result, "lazygrad"))
        for peer in ("torch", "numpy"):
            ratio = result.ratio(peer)
            cells.append("–" if ratio is None else f"{ratio:.2f}")
    return cells, results


HEADER = ["operation", "1K", "× torch", "× NumPy", "16M", "× torch", "× NumPy"]
EXPLANATION = """\
Forty operations on some 1,024 and 16,777,216 elements (float32 unless the name says otherwise),
against torch eager and NumPy, in turns. lazygrad runs through `lg.compile`. `× peer`: the peer's
time over lazygrad's, so above 1 lazygrad is faster."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where a contestant failed or disagreed."""
    from tests.benchmarks.__main__ import _use_checkout

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.operations",
                                     description="Compares single operations at two sizes.")
    parser.add_argument("--only", metavar="NAME,...", help="operations whose name contains one")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put it into a page")
    options = parser.parse_args(arguments)
    _use_checkout()
    from tests.benchmarks import harness, machine, table

    processors = machine.prepare(2)
    others = machine.Others()
    words = options.only.split(",") if options.only else [""]
    chosen = [each for each in OPERATIONS if any(word in each.name for word in words)]
    rows, bad = [HEADER], []
    for operation in chosen:
        print(f"{operation.name} ...", file=sys.stderr, flush=True)
        cells, results = row(operation, harness.QUICK if options.quick else harness.FULL)
        rows.append(cells)
        bad += [f"{operation.name}, {name}: {note}" for result in results
                for name, note in result.notes.items() if not note.endswith("not installed")]
    described = machine.describe(list(CONTESTANTS), processors, others.share())
    print(f"{described}\n\n{table.render(rows)}")
    print("\n".join(f"note: {note}" for note in bad))
    if options.page:
        given = " ".join(sys.argv[1:] if arguments is None else arguments)
        text = (f"Machine: {described}.  \nCommand: `python -m tests.benchmarks.operations "
                f"{given}`\n\n{EXPLANATION}\n\n{table.render(rows, markdown=True)}\n")
        table.replace_section(options.page, "operations", text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
