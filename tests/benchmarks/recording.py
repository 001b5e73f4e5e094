"""What an operation costs in Python before anything is computed."""

from __future__ import annotations

from tests.benchmarks.contestants import framework, from_numpy, normal
from tests.benchmarks.registry import Benchmark, Run, register

TURNS = 80


def _make(contestant: str) -> Run:
    torch = framework(contestant)
    x = from_numpy(contestant, normal(64, 64))

    def run() -> None:
        y = x
        for _ in range(TURNS):
            y = torch.relu(y @ x + x)
        del y
        torch.synchronize()  # nobody looks at y any more, so nothing is computed

    return run


register(Benchmark(
    name="record-one-op", about="recording one of x @ y, x + y, relu(x); nothing is computed",
    make=_make, contestants=("lazygrad",), units=3 * TURNS, runs_programs=False,
))
