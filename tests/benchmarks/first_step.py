"""One process's first training step: `python -m tests.benchmarks.first_step CONTESTANT`.

Prints the seconds from the imported framework to the loss.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.contestants import framework, to_numpy
from tests.benchmarks.training import MLP, make_step


def main() -> None:
    contestant = sys.argv[1]
    framework(contestant)
    start = time.perf_counter()
    loss = make_step(MLP, contestant)()
    to_numpy(contestant, loss)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
