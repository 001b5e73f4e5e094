"""What this machine can do at best, measured here and now: arithmetic and memory.

Three loops in LLVM text run through the runtime's thread pool: independent fused multiply-adds
that stay in registers, reading 256 MB, and copying 256 MB (ordinary and streaming stores, each byte
counted once read and once written).  A share of the peak is the time that a row's work would take
at these speeds over the time that it took.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.target import Target, host
from lazygrad_runtime.loader import load_object
from lazygrad_runtime.memory import allocate
from lazygrad_runtime.pool import get_pool

BUFFER_BYTES = 256 << 20
BLOCK_BYTES = 1 << 20  # one task
STREAMS = 8  # independent vectors in a memory loop
ROUNDS = 5
FMA_TURNS = 200_000

_Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Peak:
    """flops: fused multiply-adds per second, times two.  read, copy: bytes per second."""

    flops: float
    read: float
    copy: float
    threads: int

    @property
    def bandwidth(self) -> float:
        return max(self.read, self.copy)

    def best(self, other: Peak) -> Peak:
        """The higher figures of two measurements."""
        return Peak(max(self.flops, other.flops), max(self.read, other.read),
                    max(self.copy, other.copy), self.threads)

    def share(self, flops: int, nbytes: int, seconds: float) -> tuple[float, str] | None:
        """How near the work came to the nearer limit, and which one: "FMA" or "memory"."""
        if not (flops or nbytes):
            return None
        arithmetic, memory = flops / self.flops, nbytes / self.bandwidth
        return max((arithmetic / seconds, "FMA"), (memory / seconds, "memory"))

    def __str__(self) -> str:
        return (f"FMA {self.flops / 1e9:.0f} GFLOP/s, read {self.read / 1e9:.1f} GB/s, "
                f"copy {self.copy / 1e9:.1f} GB/s on {self.threads} threads")


class Limits:
    """The loops, ready to run; their 512 MB are kept as long as this is."""

    def __init__(self) -> None:
        self._target = host()
        self._lanes = self._target.lanes(32)
        text = _module(self._target, self._lanes)
        self._code = load_object(compile_text(text, self._target).object_code)
        self._pool = get_pool()
        self._buffers = allocate(BUFFER_BYTES), allocate(BUFFER_BYTES)
        for buffer in self._buffers:
            ctypes.memset(buffer.pointer, 0, BUFFER_BYTES)

    def measure(self, seconds: float = 0.0) -> Peak:
        """What the loops reach in the mean.  seconds: that multiply-adds take, and that reading and
        copying take together, at least; each loop runs once (on two cores some 3 to 7 ms).
        """
        tasks, blocks = 8 * self._pool.threads, BUFFER_BYTES // BLOCK_BYTES
        flops = 2 * self._lanes * _accumulators(self._target) * FMA_TURNS * tasks
        memory = [buffer.pointer for buffer in self._buffers]
        third = seconds / 3
        return Peak(
            flops=flops / self._seconds("fma", (tasks, 0, 0), seconds),
            read=BUFFER_BYTES / self._seconds("read", (blocks, *memory), third),
            copy=2 * BUFFER_BYTES / min(self._seconds("copy", (blocks, *memory), third),
                                        self._seconds("stream", (blocks, *memory), third)),
            threads=self._pool.threads,
        )

    def _seconds(self, name: str, arguments: Sequence[int], least: float) -> float:
        """Of one run of a loop, in the mean of so many that they take `least` seconds."""
        entry = _Entry(self._code.address(f"run_{name}"))
        words = (ctypes.c_int64 * len(arguments))(*arguments)
        runs, spent = 0, 0.0
        with self._pool.lock:
            self._pool.ensure_scratch(4096)
            start = time.perf_counter()
            while not runs or spent < least:
                entry(ctypes.addressof(words), self._pool.pointer)
                runs, spent = runs + 1, time.perf_counter() - start
        return spent / runs


def measure_peak(rounds: int = ROUNDS) -> Peak:
    """The best of so many rounds."""
    limits = Limits()
    best = limits.measure()
    for _ in range(rounds - 1):
        best = best.best(limits.measure())
    return best


def median_peak(peaks: Sequence[Peak]) -> Peak:
    """The middle of each figure; of at least one measurement."""
    return Peak(
        flops=statistics.median(peak.flops for peak in peaks),
        read=statistics.median(peak.read for peak in peaks),
        copy=statistics.median(peak.copy for peak in peaks),
        threads=peaks[0].threads,
    )


def _accumulators(target: Target) -> int:
    """Enough to hide an addition's latency, few enough for the registers."""
    return min(16, target.registers - 4)


def _module(target: Target, lanes: int) -> str:
    vector = f"<{lanes} x float>"
    intrinsic = f"@llvm.fma.v{lanes}f32"
    attributes = target.function_attributes
    kernels = [
        f"declare {vector} {intrinsic}({vector}, {vector}, {vector})",
        "!0 = !{i32 1}",
        _fma_kernel(vector, intrinsic, _accumulators(target), attributes),
        _memory_kernel("read", vector, lanes, attributes),
        _memory_kernel("copy", vector, lanes, attributes),
        _memory_kernel("stream", vector, lanes, attributes),
    ]
    return "\n".join(kernels + [_entry(name) for name in ("fma", "read", "copy", "stream")])


def _entry(name: str) -> str:
    """Hands a kernel to the pool.  table: the number of tasks, then the kernel's arguments."""
    return f"""
define void @run_{name}(ptr %table, ptr %pool) {{
  %tasks = load i64, ptr %table
  %args = getelementptr i64, ptr %table, i64 1
  %parallel = load ptr, ptr %pool
  call void %parallel(ptr %pool, ptr @{name}, ptr %args, i64 %tasks, i64 1)
  ret void
}}"""


def _fma_kernel(vector: str, intrinsic: str, count: int, attributes: str) -> str:
    """FMA_TURNS turns per task over `count` accumulators.  All operands come from memory, one load
    for each: constants would be folded, and accumulators with equal starts merged."""
    numbers = range(count)
    starts = "\n".join(f"  %start{n} = load volatile {vector}, ptr %scratch" for n in numbers)
    phis = "\n".join(f"  %a{n} = phi {vector} [ %start{n}, %next ], [ %b{n}, %loop ]"
                     for n in numbers)
    work = "\n".join(f"  %b{n} = call {vector} {intrinsic}({vector} %a{n}, {vector} %x, "
                     f"{vector} %y)" for n in numbers)
    stores = "\n".join(f"  store volatile {vector} %b{n}, ptr %scratch" for n in numbers)
    return f"""
define void @fma(ptr %args, i64 %begin, i64 %end, ptr %scratch) {attributes} {{
entry:
  store volatile {vector} zeroinitializer, ptr %scratch
  %x = load volatile {vector}, ptr %scratch
  %y = load volatile {vector}, ptr %scratch
{starts}
  br label %next
next:
  %task = phi i64 [ %begin, %entry ], [ %following, %done ]
  %more = icmp slt i64 %task, %end
  br i1 %more, label %loop, label %out
loop:
  %turn = phi i64 [ 0, %next ], [ %later, %loop ]
{phis}
{work}
  %later = add i64 %turn, 1
  %again = icmp slt i64 %later, {FMA_TURNS}
  br i1 %again, label %loop, label %done
done:
{stores}
  %following = add i64 %task, 1
  br label %next
out:
  ret void
}}"""


def _memory_kernel(name: str, vector: str, lanes: int, attributes: str) -> str:
    """Passes over blocks begin to end of the source: sums them, or copies them."""
    numbers, nbytes = range(STREAMS), 4 * lanes
    phis = work = results = ""
    for n in numbers:
        work += f"""
  %at{n} = add i64 %at, {n * nbytes}
  %from{n} = getelementptr i8, ptr %source, i64 %at{n}
  %value{n} = load {vector}, ptr %from{n}, align {nbytes}"""
        if name == "read":
            phis += f"\n  %a{n} = phi {vector} [ zeroinitializer, %entry ], [ %b{n}, %loop ]"
            work += f"\n  %b{n} = fadd {vector} %a{n}, %value{n}"
            results += f"\n  store volatile {vector} %b{n}, ptr %scratch"
        else:
            hint = ", !nontemporal !0" if name == "stream" else ""
            work += f"""
  %to{n} = getelementptr i8, ptr %destination, i64 %at{n}
  store {vector} %value{n}, ptr %to{n}, align {nbytes}{hint}"""
    return f"""
define void @{name}(ptr %args, i64 %begin, i64 %end, ptr %scratch) {attributes} {{
entry:
  %source = load ptr, ptr %args
  %second = getelementptr ptr, ptr %args, i64 1
  %destination = load ptr, ptr %second
  %first = mul i64 %begin, {BLOCK_BYTES}
  %last = mul i64 %end, {BLOCK_BYTES}
  br label %loop
loop:
  %at = phi i64 [ %first, %entry ], [ %later, %loop ]{phis}{work}
  %later = add i64 %at, {STREAMS * nbytes}
  %again = icmp slt i64 %later, %last
  br i1 %again, label %loop, label %out
out:{results}
  ret void
}}"""
