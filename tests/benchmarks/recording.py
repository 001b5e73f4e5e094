"""What an operation costs in Python before anything is computed.

    python -m tests.benchmarks.recording [--only NAME,...] [--page FILE]

Prints the time of recording one call of each of `OPERATIONS`, on a tensor without and with
gradients.  With `--page`, the table replaces the section "recording" of that page.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.contestants import framework, from_numpy, normal
from tests.benchmarks.registry import Benchmark, Run, register

TURNS = 80
ROUNDS = 7
CALLS = 200


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


@dataclass(frozen=True, slots=True)
class Operation:
    """name.  call: (lg, inputs) -> result, recorded as a whole."""

    name: str
    call: Callable[[Any, Any], Any]


class Inputs:
    """Tensors by name: `x` and `y` (64, 64), `heads` (2, 4, 32, 16), `image` (4, 8, 16, 16), …"""

    def __init__(self, lg: Any, requires_grad: bool) -> None:
        def floats(*shape: int) -> Any:
            tensor = lg.tensor(normal(*shape))
            return tensor.requires_grad_() if requires_grad else tensor

        self.x, self.y, self.row = floats(64, 64), floats(64, 64), floats(64)
        self.bias = floats(64)
        self.image, self.filters = floats(4, 8, 16, 16), floats(8, 8, 3, 3)
        self.channels, self.offsets = floats(8), floats(8)
        self.heads = floats(2, 4, 32, 16)
        self.running_mean, self.running_var = lg.tensor(normal(8)), lg.tensor(normal(8) ** 2)
        self.labels = lg.tensor(list(range(64)))
        self.mask = lg.tensor(normal(64, 64) > 0)
        self.cell = lg.nn.LSTMCell(64, 16)
        self.state = (floats(64, 16), floats(64, 16))


OPERATIONS = [
    Operation("x + y", lambda lg, t: t.x + t.y),
    Operation("x + row", lambda lg, t: t.x + t.row),
    Operation("x * 2.5", lambda lg, t: t.x * 2.5),
    Operation("x / y", lambda lg, t: t.x / t.y),
    Operation("-x", lambda lg, t: -t.x),
    Operation("x ** 2", lambda lg, t: t.x ** 2),
    Operation("x > y", lambda lg, t: t.x > t.y),
    Operation("exp", lambda lg, t: lg.exp(t.x)),
    Operation("tanh", lambda lg, t: t.x.tanh()),
    Operation("sigmoid", lambda lg, t: lg.sigmoid(t.x)),
    Operation("clamp", lambda lg, t: t.x.clamp(-1, 1)),
    Operation("where", lambda lg, t: lg.where(t.mask, t.x, t.y)),
    Operation("to float64", lambda lg, t: t.x.double()),
    Operation("x @ y", lambda lg, t: t.x @ t.y),
    Operation("linear", lambda lg, t: lg.nn.functional.linear(t.x, t.y, t.row)),
    Operation("einsum", lambda lg, t: lg.einsum("ij,jk->ik", t.x, t.y)),
    Operation("relu", lambda lg, t: lg.relu(t.x)),
    Operation("gelu", lambda lg, t: lg.nn.functional.gelu(t.x)),
    Operation("silu", lambda lg, t: lg.nn.functional.silu(t.x)),
    Operation("softplus", lambda lg, t: lg.nn.functional.softplus(t.x)),
    Operation("leaky_relu", lambda lg, t: lg.nn.functional.leaky_relu(t.x, 0.1)),
    Operation("softmax", lambda lg, t: lg.softmax(t.x, dim=1)),
    Operation("log_softmax", lambda lg, t: lg.log_softmax(t.x, dim=1)),
    Operation("logsumexp", lambda lg, t: lg.logsumexp(t.x, 1)),
    Operation("sum", lambda lg, t: t.x.sum()),
    Operation("mean", lambda lg, t: t.x.mean(1)),
    Operation("max", lambda lg, t: t.x.max(1)),
    Operation("argmax", lambda lg, t: t.x.argmax(1)),
    Operation("std", lambda lg, t: t.x.std(1)),
    Operation("norm", lambda lg, t: t.x.norm()),
    Operation("cumsum", lambda lg, t: t.x.cumsum(0)),
    Operation("sort", lambda lg, t: t.x.sort()),
    Operation("topk", lambda lg, t: t.x.topk(5)),
    Operation("layer_norm", lambda lg, t: lg.nn.functional.layer_norm(
        t.x, (64,), t.row, t.bias)),
    Operation("batch_norm", lambda lg, t: lg.nn.functional.batch_norm(
        t.image, t.running_mean, t.running_var, t.channels, t.offsets, True)),
    Operation("group_norm", lambda lg, t: lg.nn.functional.group_norm(
        t.image, 2, t.channels, t.offsets)),
    Operation("conv2d", lambda lg, t: lg.nn.functional.conv2d(
        t.image, t.filters, t.channels, padding=1)),
    Operation("max_pool2d", lambda lg, t: lg.nn.functional.max_pool2d(t.image, 2)),
    Operation("avg_pool2d", lambda lg, t: lg.nn.functional.avg_pool2d(t.image, 2)),
    Operation("attention", lambda lg, t: lg.nn.functional.scaled_dot_product_attention(
        t.heads, t.heads, t.heads)),
    Operation("cross_entropy", lambda lg, t: lg.nn.functional.cross_entropy(t.x, t.labels)),
    Operation("mse_loss", lambda lg, t: lg.nn.functional.mse_loss(t.x, t.y)),
    Operation("bce with logits", lambda lg, t: lg.nn.functional.binary_cross_entropy_with_logits(
        t.x, t.y)),
    Operation("embedding", lambda lg, t: lg.nn.functional.embedding(t.labels, t.x)),
    Operation("lstm cell", lambda lg, t: t.cell(t.x, t.state)),
    Operation("reshape", lambda lg, t: t.x.reshape(32, 128) + 1),
    Operation("transpose", lambda lg, t: t.x.T + 1),
    Operation("slice", lambda lg, t: t.x[2:10] + 1),
    Operation("index by number", lambda lg, t: t.x[:, 3] + 1),
    Operation("index by tensor", lambda lg, t: t.x[t.labels]),
    Operation("index by mask", lambda lg, t: t.x.masked_fill(t.mask, 0.0)),
    Operation("gather", lambda lg, t: t.x.gather(1, t.labels[:, None])),
    Operation("cat", lambda lg, t: lg.cat([t.x, t.y])),
    Operation("stack", lambda lg, t: lg.stack([t.x, t.y])),
    Operation("pad", lambda lg, t: lg.nn.functional.pad(t.x, (1, 1))),
    Operation("tril", lambda lg, t: t.x.tril()),
]
"""Views (reshape, transpose, slice, an index that is a number) are read by an addition, which is
where their nodes are recorded."""


def seconds(lg: Any, call: Callable[[Any, Any], Any], inputs: Inputs) -> float:
    """Of recording one call: the median over rounds.  Results die at once and are not computed."""
    for _ in range(3):
        call(lg, inputs)
    lg.synchronize()
    samples = []
    for _ in range(ROUNDS):
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        for _ in range(CALLS):
            call(lg, inputs)
        samples.append((time.perf_counter() - start) / CALLS)
        gc.enable()
        lg.synchronize()
    return statistics.median(samples)


HEADER = ["operation", "recorded", "with gradients"]
EXPLANATION = """\
What Python takes to record one call, in microseconds, on inputs that require no gradients and on
inputs that do. Nothing is computed. Views are read by an addition of a number, which is included.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    from tests.benchmarks.__main__ import _use_checkout

    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recording",
                                     description="Times the recording of single operations.")
    parser.add_argument("--only", metavar="NAME,...", help="operations whose name contains one")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put it into a page")
    options = parser.parse_args(arguments)
    _use_checkout()
    import lazygrad
    import lazygrad.nn
    from tests.benchmarks import machine, table

    processors = machine.prepare(2)
    others = machine.Others()
    words = options.only.split(",") if options.only else [""]
    plain, tracked = Inputs(lazygrad, False), Inputs(lazygrad, True)
    rows = [HEADER]
    for operation in OPERATIONS:
        if any(word in operation.name for word in words):
            rows.append([operation.name, *(
                f"{1e6 * seconds(lazygrad, operation.call, inputs):.1f}"
                for inputs in (plain, tracked))])
    described = machine.describe(["lazygrad"], processors, others.share())
    print(f"{described}\n\n{table.render(rows)}")
    if options.page:
        given = " ".join(sys.argv[1:] if arguments is None else arguments)
        text = (f"Machine: {described}.  \nCommand: `python -m tests.benchmarks.recording "
                f"{given}`\n\n{EXPLANATION}\n{table.render(rows, markdown=True)}\n")
        table.replace_section(options.page, "recording", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
