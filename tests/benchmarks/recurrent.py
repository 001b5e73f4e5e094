"""Recurrent training steps, where the work of one time step is small and steps cannot overlap.

The floor of a step in time is its products at peak, plus what it takes to begin a launch (1 to 5
us, as the threads wait for one another) twice forwards and three times backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import compiled, framework, from_numpy, normal
from tests.benchmarks.registry import Benchmark, Run, register
from tests.benchmarks.training import Task, labels, register_step


def _squares(torch: Any, model: Any, x: Any) -> Any:
    outputs, _ = model(x)
    return (outputs * outputs).mean()


def recurrent_flops(
    batch: int, steps: int, gates: int, layers: Sequence[tuple[int, int, bool]]
) -> int:
    """Of the products of a training step.  layers: (inputs, hidden units, whether the inputs want a
    gradient), one entry for each layer and direction.
    """
    multiplications = sum(
        gates * hidden * (inputs * (3 if wanted else 2) + hidden * 3)
        for inputs, hidden, wanted in layers
    )
    return 2 * batch * steps * multiplications


LSTM = Task(
    model=lambda torch: torch.nn.LSTM(128, 256), data=lambda: (normal(64, 32, 128, seed=100),),
    loss=_squares, optimizer="Adam", settings={"lr": 1e-3}, jax_loss=None,
    flops=recurrent_flops(32, 64, 4, [(128, 256, False)]),
)
GRU = Task(
    model=lambda torch: torch.nn.GRU(40, 128, num_layers=2, bidirectional=True),
    data=lambda: (normal(100, 16, 40, seed=100),), loss=_squares, optimizer="Adam",
    settings={"lr": 1e-3}, jax_loss=None,
    flops=recurrent_flops(16, 100, 3, [(40, 128, False)] * 2 + [(256, 128, True)] * 2),
)

_LSTM = "training step, LSTM 128-256, batch 32, 64 steps, Adam"
_GRU = "training step, bidirectional GRU 40-2x128-2x128, batch 16, 100 steps, Adam"
register_step("lstm-step", _LSTM, LSTM, False)
register_step("lstm-step-replay", f"{_LSTM}, with lg.compile", LSTM, True)
register_step("gru-step", _GRU, GRU, False)
register_step("gru-step-replay", f"{_GRU}, with lg.compile", GRU, True)


def _ctc(frames: int, batch: int, classes: int, length: int) -> Callable[[str], Run]:
    def make(contestant: str) -> Run:
        torch = framework(contestant)
        functional = torch.nn.functional
        scores = from_numpy(contestant, normal(frames, batch, classes, seed=3))
        scores.requires_grad_(True)
        targets = from_numpy(contestant, 1 + labels(batch, length, classes=classes - 1))
        counts = from_numpy(contestant, np.full(batch, frames))
        lengths = from_numpy(contestant, np.full(batch, length))
        loss_of = compiled(contestant, lambda scores: functional.ctc_loss(
            functional.log_softmax(scores, -1), targets, counts, lengths))

        def run() -> Any:
            scores.grad = None
            loss = loss_of(scores)
            loss.backward()
            if contestant == "lazygrad":
                torch.synchronize()
            return scores.grad

        return run

    return make


register(Benchmark(
    name="ctc-loss", about="ctc_loss and its gradient, 150 frames, batch 16, 32 classes, 30 labels",
    make=_ctc(150, 16, 32, 30), contestants=("lazygrad", "torch"), tolerance=1e-3))
