"""Peak memory of training: `python -m tests.benchmarks.peak_memory TASK CONTESTANT`.

Takes three steps and prints the process's largest resident set in bytes, the framework included.
"""

from __future__ import annotations

import resource
import sys

from tests.benchmarks.contestants import to_numpy
from tests.benchmarks.first_step import TASKS
from tests.benchmarks.training import make_step


def main() -> None:
    step = make_step(TASKS[sys.argv[1]], sys.argv[2], replay=True)
    for _ in range(3):
        to_numpy(sys.argv[2], step())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
