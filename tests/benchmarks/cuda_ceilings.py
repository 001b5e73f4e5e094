"""What a GPU can do at best, measured: copied bytes, fused multiply-adds, products of its tensor
cores.  Each is a kernel that does nothing else, written as all kernels are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import lazygrad as lg
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_compiler.ptx import warpgroup
from lazygrad_compiler.ptx.builder import KernelFunction, KernelModule
from lazygrad_compiler.ptx.compile import compile_ptx
from lazygrad_compiler.ptx.tensor_core import multiply
from lazygrad_runtime.cuda import driver as drivers
from lazygrad_runtime.memory import Buffer

WORDS = 1 << 14
"""Of random numbers that kernels compute with: zeros would be faster."""
N, PRODUCTS = 256, 4
"""Columns of a product of a warpgroup; how many are asked for together."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A kernel that repeats something.  flops: of a thread and repetition.  blocks: for each
    multiprocessor.  needs: an instruction.
    """

    name: str
    threads: int
    blocks: int
    flops: float
    body: Callable[[KernelFunction, Value, int], Value]
    needs: str = ""


def _fma(f: KernelFunction, data: Value, repeats: int) -> Value:
    """16 chains of multiply-adds a thread."""
    x, y = (f.load("float", f.offset(data, number, "float"), 4) for number in (0, 1))
    with f.loop(const("i32", 0), const("i32", repeats), 1, [x] * 16) as loop:
        loop.next = [f.fma(value, x, y) for value in loop.carried]
    return _sum(f, loop.results)


def _mma(f: KernelFunction, data: Value, repeats: int) -> Value:
    """Eight chains of `mma.sync` a warp."""
    own = f.offset(data, f.wide(f.and_(f.thread(), 31)), "i32")
    words = [f.load("i32", f.offset(own, 32 * number, "i32"), 4) for number in range(6)]
    with f.loop(const("i32", 0), const("i32", repeats), 1, [const("float", 0.0)] * 32) as loop:
        following: list[Value] = []
        for chain in range(8):
            sums = loop.carried[4 * chain : 4 * chain + 4]
            following += multiply(f, dtypes.bfloat16, words[:4], words[4:], sums)
        loop.next = following
    return _sum(f, loop.results)


def _wgmma(f: KernelFunction, data: Value, repeats: int) -> Value:
    """Two warpgroups, each with four products of 64 x 16 and 16 x 256 at a time, both operands of
    the same tile in shared memory.
    """
    nbytes = N * warpgroup.ROW_BYTES
    tile = f.shared_address(f.module.shared(nbytes, warpgroup.EIGHT_ROWS))
    with f.grid_stride(f.thread(), const("i32", nbytes // 4), 2 * warpgroup.GROUP) as number:
        value = f.load("i32", f.offset(data, f.wide(number), "i32"), 4)
        f.store(value, f.offset(tile, number, "i32"), 4)
    f.barrier()
    rows = warpgroup.descriptor(f, warpgroup.shared_word(f, tile), 16)
    zeros = [const("float", 0.0)] * (N // 2)
    with f.loop(const("i32", 0), const("i32", repeats), 1, zeros) as loop:
        warpgroup.product_fence(f)
        sums = loop.carried
        for step in range(PRODUCTS):
            at = f.add(rows, step * (warpgroup.STEP * 2 >> 4)) if step else rows
            sums = warpgroup.multiply_group(f, dtypes.bfloat16, N, sums, at, at, False, False)
        loop.next = sums
        warpgroup.commit_products(f)
        warpgroup.wait_products(f, 0)
    return _sum(f, loop.results)


def _sum(f: KernelFunction, values: list[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = f.fadd(total, value)
    return total


CEILINGS = (
    Ceiling("FMA, float32", 256, 8, 32, _fma),
    Ceiling("mma.sync, bfloat16", 256, 4, 8 * 2 * 16 * 8 * 16 / 32, _mma, "mma.sync.bf16"),
    Ceiling("wgmma, bfloat16", 2 * warpgroup.GROUP, 1,
            PRODUCTS * 2 * 64 * N * 16 / warpgroup.GROUP, _wgmma, "wgmma"),
)


def ptx_of(ceiling: Ceiling, target: CudaTarget, repeats: int) -> tuple[str, int]:
    """The text of the kernel `ceiling`, and bytes of dynamic shared memory."""
    module = KernelModule()
    f = module.kernel("ceiling", 2, ceiling.threads)
    data, target_buffer = f.parameters[:2]
    total = ceiling.body(f, data, repeats)
    number = f.add(f.mul(f.wide(f.block()), ceiling.threads), f.wide(f.thread()))
    f.store(total, f.offset(target_buffer, number, "float"), 4)
    f.ret()
    return compile_ptx(module.text(), target), module.dynamic_bytes


def _random(count: int) -> np.ndarray:
    """Words of two bfloat16 about 1 each."""
    numbers = np.random.default_rng().standard_normal(2 * count).astype(np.float32)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)


def seconds_of(device: Any, ceiling: Ceiling, blocks: int, repeats: int) -> float:
    """The fastest of some launches."""
    text, shared = ptx_of(ceiling, device.target, repeats)
    function = device.modules.functions({"ceiling": text.encode()})["ceiling"]
    device.modules._functions.pop("ceiling")  # the next ceiling has the name, too
    data = device.staging.upload(Buffer.from_numpy(_random(WORDS)))
    written = device.pool.allocate(4 * blocks * ceiling.threads, 0)
    values = (ctypes.c_int64 * 4)(data.address, written.address, 0, 0)
    pointers = (ctypes.c_void_p * 4)(*(ctypes.addressof(values) + 8 * k for k in range(4)))

    def run() -> None:
        device.driver.cuLaunchKernel(
            function, blocks, 1, 1, ceiling.threads, 1, 1, shared, 0, pointers, None
        )

    return _fastest(run)


def _fastest(run: Callable[[], None]) -> float:
    run()
    best = float("inf")
    for _ in range(5):
        start, end = (lg.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return best


def ceilings(small: bool) -> dict[str, float]:
    """Bytes or operations per second, by name; what a device lacks is left out."""
    device = drivers.driver().devices[0]
    device.activate()
    nbytes, repeats = (1 << 16, 2) if small else (1 << 30, 1 << 13)
    source, target = (device.pool.allocate(nbytes, 0) for _ in range(2))
    device.driver.cuMemsetD8Async(source.address, 1, nbytes, 0)
    found = {"copy": 2 * nbytes / _fastest(lambda: device.driver.cuMemcpyDtoDAsync_v2(
        target.address, source.address, nbytes, 0))}
    chosen = [each for each in CEILINGS if not each.needs or device.target.has(each.needs)]
    for ceiling in chosen:
        blocks = 1 if small else ceiling.blocks * device.target.multiprocessors
        operations = blocks * ceiling.threads * ceiling.flops * repeats
        found[ceiling.name] = operations / seconds_of(device, ceiling, blocks, repeats)
    return found
