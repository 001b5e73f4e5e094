"""A GPU's tests and benchmark in one command.

    python -m tests.benchmarks.cuda [--only NAME,...] [--no-tests] [--page FILE]

Runs the tests marked `cuda`, then measures: what the device copies at best, then each row with
lazygrad (replayed by `lg.compile`) and, where PyTorch is installed and sees the GPU, with PyTorch.
Every row is first checked against float64 on fresh random inputs, with fresh buffers full of NaN,
so that a place which a kernel leaves out shows.  Times are medians of rounds in which the
contestants take turns, by the device's events.  With `--page` the table replaces the section "cuda"
of that page.  Without a device it says why there is none, and ends with status 2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lazygrad as lg
from lazygrad_runtime.cuda import driver as drivers
from tests.benchmarks.table import replace_section

ROUNDS = 7
SECONDS = 0.05
"""Of one round of one contestant."""


@dataclass(frozen=True, slots=True)
class Row:
    """inputs: arrays for a size.  make: (library, tensors) -> a function without arguments that
    gives a tensor.  nbytes, flops: what it must move and compute, for a size.  tolerance: of the
    result against float64, relative to its largest value.
    """

    name: str
    about: str
    size: int
    small: int
    inputs: Callable[[int], Sequence[np.ndarray]]
    make: Callable[[Any, Sequence[Any]], Callable[[], Any]]
    nbytes: Callable[[int], float] = lambda n: 0.0
    flops: Callable[[int], float] = lambda n: 0.0
    tolerance: float = 1e-5
    dtype: str = "float32"


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng().standard_normal(shape, np.float32)


def _attention(backward: bool) -> Callable[[Any, Sequence[Any]], Callable[[], Any]]:
    def make(library: Any, tensors: Sequence[Any]) -> Callable[[], Any]:
        attend = library.nn.functional.scaled_dot_product_attention
        q, k, v = (each.requires_grad_(backward) for each in tensors)

        def forward() -> Any:
            return attend(q, k, v, is_causal=True)

        def gradient() -> Any:
            return library.autograd.grad(attend(q, k, v, is_causal=True).sum(), (q, k, v))[0]

        return gradient if backward else forward

    return make


def _gpt(library: Any, tensors: Sequence[Any]) -> Callable[[], Any]:
    """A training step of a small GPT in bfloat16 products; gives the loss."""
    nn, functional = library.nn, library.nn.functional
    tokens = tensors[0].long()
    width, heads, layers, words = 768, 12, 12, 50304
    if tokens.shape[1] < 512:  # the small size
        width, heads, layers, words = 32, 2, 1, 64

    class Block(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            parts = self.mix(self.first(x)).reshape(batch, length, 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
            return x + self.down(functional.gelu(self.up(self.second(x))))

    class Model(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(words, width)
            self.places = nn.Embedding(tokens.shape[1], width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

        def forward(self, numbers: Any) -> Any:
            place = library.arange(numbers.shape[1], device=numbers.device)
            return self.head(self.last(self.blocks(self.tokens(numbers) + self.places(place))))

    library.manual_seed(0)
    model = Model().to(tokens.device)
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-4)
    inputs, wanted = tokens[:, :-1] % words, tokens[:, 1:] % words

    def step() -> Any:
        optimizer.zero_grad()
        with library.autocast("cuda", library.bfloat16):
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float().reshape(-1, words), wanted.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


MEBI = 1 << 20
ROWS = (
    Row("replay", "tanh(x w + b), 64x64: what a replayed program costs the host", 64, 16,
        lambda n: (_normal(n, n), _normal(n, n), _normal(n)),
        lambda library, t: lambda: (t[0] @ t[1] + t[2]).tanh()),
    Row("chain", "((x y + x) y + 0.5) x + y, float32", 64 * MEBI, 1000,
        lambda n: (_normal(n), _normal(n)),
        lambda library, t: lambda: ((t[0] * t[1] + t[0]) * t[1] + 0.5) * t[0] + t[1],
        nbytes=lambda n: 12 * n),
    Row("chain-gelu", "gelu(x) sigmoid(y) + exp(-x x), float32", 64 * MEBI, 1000,
        lambda n: (_normal(n), _normal(n)),
        lambda library, t: lambda: library.nn.functional.gelu(t[0]) * t[1].sigmoid()
        + (-t[0] * t[0]).exp(), nbytes=lambda n: 12 * n),
    Row("sum", "sum of all, float32", 64 * MEBI, 5000, lambda n: (_normal(n),),
        lambda library, t: lambda: t[0].sum(), nbytes=lambda n: 4 * n, tolerance=1e-4),
    Row("row-sum", "sum of each row of n x 4096, float32", 16384, 8,
        lambda n: (_normal(n, 4096 if n > 100 else 40),),
        lambda library, t: lambda: t[0].sum(1), nbytes=lambda n: 4 * n * 4096),
    Row("column-sum", "sum of each column of n x 4096, float32", 16384, 8,
        lambda n: (_normal(n, 4096 if n > 100 else 40),),
        lambda library, t: lambda: t[0].sum(0), nbytes=lambda n: 4 * n * 4096, tolerance=1e-4),
    Row("softmax", "softmax over rows of n x 4096, float32", 16384, 8,
        lambda n: (_normal(n, 4096 if n > 100 else 40),),
        lambda library, t: lambda: t[0].softmax(1), nbytes=lambda n: 8 * n * 4096),
    Row("layer-norm", "layer normalisation of rows of n x 4096, float32", 16384, 8,
        lambda n: (_normal(n, 4096 if n > 100 else 40),),
        lambda library, t: lambda: library.nn.functional.layer_norm(t[0], t[0].shape[1:]),
        nbytes=lambda n: 8 * n * 4096, tolerance=1e-4),
    Row("matmul-f32", "n x n @ n x n, float32 without tf32", 8192, 40,
        lambda n: (_normal(n, n), _normal(n, n)), lambda library, t: lambda: t[0] @ t[1],
        flops=lambda n: 2 * n**3, tolerance=1e-4),
    Row("matmul-bf16", "n x n @ n x n, bfloat16", 8192, 48,
        lambda n: (_normal(n, n), _normal(n, n)), lambda library, t: lambda: t[0] @ t[1],
        flops=lambda n: 2 * n**3, tolerance=2e-2, dtype="bfloat16"),
    Row("attention", "causal, batch 4, 16 heads of 128, n tokens, bfloat16", 4096, 40,
        lambda n: tuple(_normal(*((4, 16, n, 128) if n > 100 else (1, 2, n, 16)))
                        for _ in range(3)), _attention(False),
        flops=lambda n: 2 * 4 * 16 * 128 * n * n, tolerance=3e-2, dtype="bfloat16"),
    Row("attention-grad", "forward and backward of the same", 4096, 40,
        lambda n: tuple(_normal(*((4, 16, n, 128) if n > 100 else (1, 2, n, 16)))
                        for _ in range(3)), _attention(True),
        flops=lambda n: 7 * 4 * 16 * 128 * n * n, tolerance=5e-2, dtype="bfloat16"),
    Row("gpt-step", "training step of GPT-2 small, batch 8, n tokens, bfloat16 products, AdamW",
        1025, 9,
        lambda n: (np.random.default_rng(1).integers(0, 50000, (8 if n > 100 else 2, n)).astype(
            np.float32),), _gpt, tolerance=0.05),
)  # fmt: skip


class Wrong(Exception):
    """A result is not what float64 gives."""


def check(row: Row, size: int) -> None:
    """Compares a row's result with float64, computed by NumPy's side: lazygrad on the CPU."""
    arrays = row.inputs(size)
    expected = _result(row, [lg.from_numpy(array).to(lg.float64) for array in arrays])
    for _ in range(2):  # the second run gets buffers that were used before
        found = _result(row, [lg.from_numpy(array).cuda().to(_dtype(lg, row)) for array in arrays])
        scale = np.abs(expected).max(initial=1e-30)
        error = np.abs(found - expected).max(initial=0.0) / scale
        if not error <= row.tolerance:
            raise Wrong(f"{row.name} at size {size}: off by {error:.2e} of the largest value, "
                        f"where {row.tolerance:.0e} is allowed")


def _result(row: Row, tensors: Sequence[Any]) -> np.ndarray:
    return row.make(lg, tensors)().detach().cpu().double().numpy()


def _dtype(library: Any, row: Row) -> Any:
    return getattr(library, row.dtype)


@dataclass(frozen=True, slots=True)
class Contestant:
    """name.  library: lazygrad or torch.  event: makes an event that takes times."""

    name: str
    library: Any

    def prepared(self, row: Row, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        tensors = [self.library.from_numpy(array).cuda().to(_dtype(self.library, row))
                   for array in arrays]
        function = row.make(self.library, tensors)
        return lg.compile(function) if self.library is lg else function

    def seconds(self, run: Callable[[], Any], turns: int) -> tuple[float, float]:
        """Of one turn: on the device, and what the host was busy with."""
        start, end = (self.library.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        begun = time.perf_counter()
        for _ in range(turns):
            run()
        host = time.perf_counter() - begun
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / turns, host / turns


def contestants() -> list[Contestant]:
    found = [Contestant("lazygrad", lg)]
    try:
        import torch
    except ImportError:
        return found
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        found.append(Contestant("torch", torch))
    return found


@dataclass(slots=True)
class Result:
    """device, host: seconds by contestant.  problem: why there are none."""

    row: Row
    device: dict[str, float]
    host: dict[str, float]
    problem: str = ""


def measure(row: Row, size: int, players: Sequence[Contestant], rounds: int,
            seconds: float) -> Result:
    try:
        check(row, row.small)
    except (Wrong, RuntimeError, MemoryError, NotImplementedError, KeyError) as error:
        return Result(row, {}, {}, f"not measured: {error}")
    arrays = row.inputs(size)
    runs, turns = {}, {}
    for player in players:
        run = runs[player.name] = player.prepared(row, arrays)
        run()
        once, _ = player.seconds(run, 3)
        turns[player.name] = max(1, min(1000, int(seconds / max(once, 1e-6))))
    device: dict[str, list[float]] = {player.name: [] for player in players}
    host: dict[str, list[float]] = {player.name: [] for player in players}
    for _ in range(rounds):
        for player in players:
            on_device, on_host = player.seconds(runs[player.name], turns[player.name])
            device[player.name].append(on_device)
            host[player.name].append(on_host)
    return Result(row, {name: statistics.median(times) for name, times in device.items()},
                  {name: statistics.median(times) for name, times in host.items()})


def copy_bandwidth(nbytes: int) -> float:
    """Bytes read and written per second by the driver's own copy."""
    device = drivers.driver().devices[0]
    device.activate()
    source, target = (device.pool.allocate(nbytes, 0) for _ in range(2))
    player = Contestant("copy", lg)

    def run() -> None:
        device.driver.cuMemcpyDtoDAsync_v2(target.address, source.address, nbytes, 0)

    run()
    return 2 * nbytes / min(player.seconds(run, 10)[0] for _ in range(5))


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1 or unit == "us":
            return f"{seconds * scale:.3g} {unit}"
    raise AssertionError


def table(results: Sequence[Result], players: Sequence[Contestant], size_of: Callable[[Row], int],
          copy: float) -> str:
    """Markdown."""
    names = [player.name for player in players]
    head = ["row", *names, *(f"× {name}" for name in names[1:]), "host", "rate", "of copy"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for result in results:
        row, size = result.row, size_of(result.row)
        if result.problem:
            cells = [row.name, result.problem.replace("|", "/"), *[""] * (len(head) - 2)]
        else:
            ours = result.device["lazygrad"]
            work, moved = row.flops(size), row.nbytes(size)
            rate = f"{work / ours / 1e12:.0f} TFLOP/s" if work else \
                f"{moved / ours / 1e9:.0f} GB/s" if moved else ""
            cells = [row.name, *(_time(result.device[name]) for name in names),
                     *(f"{result.device[name] / ours:.2f}" for name in names[1:]),
                     _time(result.host["lazygrad"]), rate,
                     f"{moved / ours / copy:.0%}" if moved else ""]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- `{row.name}`: {row.about} (n = {size_of(row)})"
                    for row in (result.row for result in results))]
    return "\n".join(lines)


def document(results: Sequence[Result], players: Sequence[Contestant],
             size_of: Callable[[Row], int], copy: float) -> str:
    properties = lg.cuda.get_device_properties()
    versions = ", ".join(f"{player.name} {player.library.__version__}" for player in players)
    return (f"Device: {properties.name}, {properties.multi_processor_count} multiprocessors, "
            f"driver for CUDA {drivers.driver().version // 1000}; {versions}.  \n"
            f"Ceiling: copy {copy / 1e9:.0f} GB/s (read and written).  \n"
            "Command: `python -m tests.benchmarks.cuda --page docs/performance.md`\n\n"
            "Device times are medians by events; `host` is what one replay keeps Python busy.\n\n"
            + table(results, players, size_of, copy))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cuda",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="names of rows, separated by commas")
    parser.add_argument("--no-tests", action="store_true", help="benchmark only")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the benchmark")
    parser.add_argument("--page", type=Path, help="page whose section `cuda` is replaced")
    options = parser.parse_args(arguments)
    try:
        devices = drivers.driver().devices
    except drivers.NoDevice as error:
        print(f"nothing to measure on: {error}", file=sys.stderr)
        return 2
    if not devices:
        print("nothing to measure on: the driver finds no device", file=sys.stderr)
        return 2
    failed = 0
    if not options.no_tests:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/lazygrad/cuda"]
        failed = subprocess.run(command, check=False).returncode
    wanted = [name for name in options.only.split(",") if name]
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    if len(rows) < len(wanted):
        parser.error(f"the rows are {', '.join(row.name for row in ROWS)}")
    players = contestants()

    def size_of(row: Row) -> int:
        return row.small if options.small else row.size

    rounds, seconds = (1, 1e-4) if options.small else (ROUNDS, SECONDS)
    copy = copy_bandwidth(1 << (16 if options.small else 30))
    results = [measure(row, size_of(row), players, rounds, seconds) for row in rows]
    text = document(results, players, size_of, copy)
    print(text)
    if options.page is not None:
        replace_section(options.page, "cuda", text)
    return 1 if failed or any(result.problem for result in results) else 0


if __name__ == "__main__":
    os.environ.setdefault("LAZYGRAD_CUDA_POISON", "1")  # looked at by the first allocation
    sys.exit(main())
