"""Checks and times a row of the GPU benchmark, in this process.

A row is checked against float64 on fresh random inputs, with fresh buffers full of NaN, so that a
place which a kernel leaves out shows: at its small size against lazygrad on the CPU, at its full
size against PyTorch on the device, where it is installed.  Times are medians of rounds in which the
contestants take turns, by the device's events.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import lazygrad as lg
from lazygrad_runtime.cuda import driver as drivers
from lazygrad_runtime.cuda import memory
from lazygrad_runtime.program import forget_programs
from tests.benchmarks.cuda_rows import Row

ROUNDS = 7
SECONDS = 0.05
"""Of one round of one contestant."""


class Wrong(Exception):
    """A result is not what float64 gives."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """name.  library: lazygrad or torch.  compiles: whether by `torch.compile`, in the rows that
    name a mode of it.
    """

    name: str
    library: Any
    compiles: bool = False

    def plays(self, row: Row) -> bool:
        return not self.compiles or bool(row.compiled)

    def tensors(self, row: Row, arrays: Sequence[np.ndarray]) -> list[Any]:
        dtype = getattr(self.library, row.dtype)
        return [self.library.from_numpy(array).cuda().to(dtype) for array in arrays]

    def prepared(self, row: Row, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        function = row.make(self.library, self.tensors(row, arrays))
        if self.compiles:
            compiled: Callable[[], Any] = self.library.compile(function, mode=row.compiled)
            return compiled
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
        found.append(Contestant("torch", torch))
        found.append(Contestant("torch.compile", torch, compiles=True))
    return found


@dataclass(slots=True)
class Result:
    """device, host: seconds by contestant.  error: of the full size, by the norm; -1: not checked.
    absent: why another contestant than lazygrad has no time.  problem: why there is something
    missing.
    """

    name: str
    device: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    error: float = -1.0
    absent: dict[str, str] = field(default_factory=dict)
    problem: str = ""


# ---- circumstances


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fresh buffers are full of NaN."""
    os.environ["LAZYGRAD_CUDA_POISON"] = "1"
    memory.poisoning.cache_clear()
    try:
        yield
    finally:
        del os.environ["LAZYGRAD_CUDA_POISON"]
        memory.poisoning.cache_clear()


@contextlib.contextmanager
def circumstances(row: Row, players: Sequence[Contestant]) -> Iterator[None]:
    """What the row says of tf32, and of instructions to go without."""
    device = drivers.driver().devices[0]
    before = device._strict_target
    instructions = tuple(each for each in before.instructions if each not in row.without)
    forget_programs()
    device._strict_target = dataclasses.replace(before, instructions=instructions)
    for player in players:
        player.library.backends.cuda.matmul.allow_tf32 = row.tf32
    try:
        yield
    finally:
        device._strict_target = before
        for player in players:
            player.library.backends.cuda.matmul.allow_tf32 = False
        forget_programs()


# ---- right?


def compare(row: Row, found: np.ndarray, expected: np.ndarray, where: str) -> float:
    """The error's norm by the result's.  Wrong where it is too large, or not a number."""
    difference = np.abs(found.astype(np.float64) - expected)
    norm = float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected)), 1e-30)
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    worst = float(difference.max(initial=0.0)) / largest
    if not (norm <= row.tolerance and worst <= 10 * row.tolerance):
        raise Wrong(f"{row.name} {where}: off by {norm:.2e} (norm), {worst:.2e} (worst element), "
                    f"where {row.tolerance:.0e} is allowed")
    return norm


def check_small(row: Row) -> None:
    """Twice: the second run gets buffers that were used before."""
    player, size = Contestant("lazygrad", lg), row.small
    for _ in range(2):
        arrays = row.inputs(size)
        with poisoned():
            tensors = player.tensors(row, arrays)
            rounded = [tensor.detach().cpu().double() for tensor in tensors]
            found = row.make(lg, tensors)().detach().cpu().double().numpy()
        expected = row.make(lg, rounded)().detach().double().numpy()
        compare(row, found, expected, f"at size {size}")


def check_large(row: Row, arrays: Sequence[np.ndarray], torch: Any) -> float:
    """Against PyTorch in float64, of the same rounded inputs; -1 where that takes more memory than
    there is.
    """
    with poisoned():
        ours = Contestant("lazygrad", lg).prepared(row, arrays)()
        found = ours.detach().float().cpu().numpy()
        del ours
    tensors = Contestant("torch", torch).tensors(row, arrays)
    wide: list[Any] = []
    try:
        wide += [tensor.double() for tensor in tensors]
        expected = row.make(torch, wide)().detach().cpu().numpy()
    except torch.cuda.OutOfMemoryError:
        return -1.0
    finally:
        wide.clear()
        tensors.clear()
        torch.cuda.empty_cache()
    return compare(row, found, expected, f"at size {row.size}")


# ---- how fast?


def measure(row: Row, size: int, players: Sequence[Contestant], rounds: int = ROUNDS,
            seconds: float = SECONDS) -> Result:
    """Never raises: what went wrong is the result's `problem`."""
    result = Result(row.name)
    try:
        with circumstances(row, players):
            _measure(result, row, size, players, rounds, seconds)
    except Exception as error:
        text = " ".join(str(error).split())
        result.problem = text if isinstance(error, Wrong) else f"{type(error).__name__}: {text}"
    return result


def _measure(result: Result, row: Row, size: int, players: Sequence[Contestant], rounds: int,
             seconds: float) -> None:
    check_small(row)
    arrays = row.inputs(size)
    torch = next((player.library for player in players if player.name == "torch"), None)
    if torch is not None and row.large and size != row.small:
        result.error = check_large(row, arrays, torch)
    runs, turns, ready = {}, {}, []
    for player in players:
        if not player.plays(row):
            continue
        try:
            run = runs[player.name] = player.prepared(row, arrays)
            for _ in range(3):  # recorded, launched one by one, made a graph
                value = run()
            if not bool(player.library.isfinite(value.float()).all()):
                raise Wrong(f"{row.name} at size {size}: {player.name} gives what is not finite")
            del value
            once, _ = player.seconds(run, 3)
        except Exception as error:
            if player.library is lg:
                raise
            result.absent[player.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        turns[player.name] = max(1, min(1000, int(seconds / max(once, 1e-6))))
        ready.append(player)
    times: dict[str, list[tuple[float, float]]] = {player.name: [] for player in ready}
    for _ in range(rounds):
        for player in ready:
            times[player.name].append(player.seconds(runs[player.name], turns[player.name]))
    for name, found in times.items():
        result.device[name] = statistics.median(device for device, _ in found)
        result.host[name] = statistics.median(host for _, host in found)
