"""One process's first training step: `python -m tests.benchmarks.first_step TASK CONTESTANT`.

TASK: a key of `TASKS`.  Prints the seconds from the imported framework to the loss.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.contestants import framework, to_numpy
from tests.benchmarks.training import GPT, MLP, RESNET18, make_step, namespace

TASKS = {"mlp": MLP, "resnet18": RESNET18, "gpt": GPT}


def main() -> None:
    task, contestant = TASKS[sys.argv[1]], sys.argv[2]
    namespace(contestant)  # imported here: not JAX's waiting time
    framework(contestant)
    start = time.perf_counter()
    loss = make_step(task, contestant)()
    to_numpy(contestant, loss)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
