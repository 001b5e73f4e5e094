"""mbarrier, TMA and wgmma, set up through the fake driver's functions, against NumPy."""

# ruff: noqa: E501 - PTX and LLVM text, one instruction a line

from __future__ import annotations

import ctypes
from ctypes import byref, c_uint, c_uint64, c_void_p

import numpy as np
import pytest

from tests.ptx.driver import FakeDriver
from tests.ptx.driver_state import ILLEGAL_ADDRESS, INVALID_PTX
from tests.ptx.support import assemble, kernel_text

COLUMNS = 64


def tensor_map(driver: FakeDriver, address: int, rows: int, columns: int, swizzle: int) -> bytes:
    """A map of f16 (rows, 64), whole as one box of 128 bytes a row."""
    raw = (ctypes.c_uint8 * 192)()
    start = -ctypes.addressof(raw) % 64
    code = driver.cuTensorMapEncodeTiled(
        ctypes.addressof(raw) + start, 6, 2, address, (c_uint64 * 2)(columns, rows),
        (c_uint64 * 1)(columns * 2), (c_uint * 2)(64, rows), (c_uint * 2)(1, 1), 0, swizzle, 0, 0,
    )  # fmt: skip
    assert code == 0, driver.last_error
    return bytes(raw)[start : start + 128]


def product_text(wait: str) -> str:
    """D (64, 32) = A (64, 64) @ B (32, 64)^T: two TMA loads, four wgmma of k = 16, 128-byte swizzle."""
    accumulators = "{" + ", ".join(f"%f{i}" for i in range(16)) + "}"
    lines = ["mov.u32 %r1, tile;", "add.s32 %r2, %r1, 8192;", "add.s32 %r3, %r1, 12288;",
             "setp.ne.u32 %p1, %t, 0;", "@%p1 bra $loaded;",
             "mbarrier.init.shared::cta.b64 [%r3], 1;", "fence.proxy.async.shared::cta;",
             "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 12288;"]  # fmt: skip
    for register, matrix in (("%r1", 0), ("%r2", 1)):
        lines.append(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
            f" [{register}], [%a{matrix}, {{0, 0}}], [%r3];"
        )
    lines += ["$loaded:", "bar.sync 0;"]
    if wait:
        lines += ["$again:", "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;",
                  "@!%p2 bra $again;"]  # fmt: skip
    lines += [f"mov.b32 %f{i}, 0f3F800000;" for i in range(16)]
    # start >> 4, stride of 8 rows (1024 >> 4) at bit 32, swizzle of 128 bytes at bit 62.
    lines += ["shr.u32 %r4, %r1, 4;", "cvt.u64.u32 %d1, %r4;", "or.b64 %d1, %d1, 0x4000004000010000;",
              "shr.u32 %r5, %r2, 4;", "cvt.u64.u32 %d2, %r5;", "or.b64 %d2, %d2, 0x4000004000010000;",
              "wgmma.fence.sync.aligned;"]  # fmt: skip
    for step in range(4):
        lines += [f"add.s64 %d3, %d1, {2 * step};", f"add.s64 %d4, %d2, {2 * step};",
                  "setp.ne.b32 %p3, 1, 0;",
                  "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16"
                  f" {accumulators}, %d3, %d4, %p3, 1, 1, 0, 0;"]  # fmt: skip
    lines += ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;"]
    lines += ["mul.wide.u32 %d5, %t, 64;", "add.s64 %d6, %a2, %d5;"]
    lines += [f"st.global.b32 [%d6+{4 * i}], %f{i};" for i in range(16)]
    return kernel_text("\t" + "\n\t".join(lines), 3, "sm_90a", shared=12304)


def copy_text() -> str:
    """A box of 8 rows through shared memory, from row -4 on, and back out two rows further."""
    body = """
	mov.u32 %r1, tile;
	add.s32 %r3, %r1, 1024;
	setp.ne.u32 %p1, %t, 0;
	@%p1 ret;
	mbarrier.init.shared::cta.b64 [%r3], 1;
	mbarrier.arrive.expect_tx.shared::cta.b64 %d1, [%r3], 1024;
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%a0, {0, -4}], [%r3];
$again:
	mbarrier.try_wait.shared::cta.b64 %p2, [%r3], %d1;
	@!%p2 bra $again;
	cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%a1, {0, 2}], [%r1];
	cp.async.bulk.commit_group;
	cp.async.bulk.wait_group 0;
"""
    return kernel_text(body, 2, "sm_90a", shared=1040)


def launch(
    driver: FakeDriver, text: str, threads: int, arguments: list[int], expected: int = 0
) -> None:
    module, function = c_void_p(), c_void_p()
    assert driver.cuModuleLoadData(byref(module), text.encode()) == 0, driver.last_error
    assert driver.cuModuleGetFunction(byref(function), module, b"kernel") == 0
    values = [c_uint64(value) for value in arguments]
    pointers = (c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    code = driver.cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, None, pointers, None)
    assert code == 0
    assert driver.cuCtxSynchronize() == expected, driver.fault


def started() -> FakeDriver:
    driver = FakeDriver()
    assert driver.cuCtxSynchronize() == 3  # not initialised
    assert driver.cuInit(0) == 0
    return driver


def product(wait: str, expected: int = 0) -> tuple[np.ndarray, np.ndarray, FakeDriver]:
    driver = started()
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((n, 64)).astype(np.float16) for n in (64, 32))
    maps = []
    for matrix in (a, b):
        address = driver.memory.upload(matrix)
        encoded = tensor_map(driver, address, len(matrix), 64, 3)
        maps.append(driver.memory.upload(np.frombuffer(encoded, np.uint8)))
    out = driver.memory.allocate(128 * 64)
    launch(driver, product_text(wait), 128, [*maps, out], expected)
    got = driver.memory.read_array(out, np.float32, (128, 16))
    lane = np.arange(128)
    d = np.empty((64, 32), np.float32)
    for i in range(16):
        row = 16 * (lane // 32) + lane % 32 // 4 + 8 * (i // 2 % 2)
        d[row, 8 * (i // 4) + 2 * (lane % 4) + i % 2] = got[:, i]
    return d, a.astype(np.float64) @ b.astype(np.float64).T + 1, driver


def test_tma_and_wgmma():
    got, expected, _ = product("wait")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_missing_wait_is_found():
    _, _, driver = product("", ILLEGAL_ADDRESS)
    assert "nobody wrote" in str(driver.fault)
    assert driver.cuCtxSynchronize() == ILLEGAL_ADDRESS  # and stays so until the reset
    assert driver.cuDevicePrimaryCtxReset_v2(0) == 0
    assert driver.cuCtxSynchronize() == 0


@pytest.mark.parametrize("swizzle", [0, 3])
def test_tma_beyond_the_edges(swizzle):
    driver = started()
    x = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float16)
    y = np.full((8, 64), 7, np.float16)
    addresses = [driver.memory.upload(x), driver.memory.upload(y)]
    encoded = [tensor_map(driver, address, 8, 64, swizzle) for address in addresses]
    maps = [driver.memory.upload(np.frombuffer(one, np.uint8)) for one in encoded]
    launch(driver, copy_text(), 32, maps)
    y[2:6], y[6:8] = 0, x[:2]
    got = driver.memory.read_array(addresses[1], np.float16, (8, 64))
    np.testing.assert_array_equal(got, y)


def test_driver_memory_and_errors():
    driver = started()
    pointer, module = c_uint64(), c_void_p()
    assert driver.cuMemAlloc_v2(byref(pointer), 400) == 0
    x = np.arange(100, dtype=np.int32)
    assert driver.cuMemcpyHtoD_v2(pointer, x.ctypes.data, 400) == 0
    y = np.zeros_like(x)
    assert driver.cuMemcpyDtoH_v2(y.ctypes.data, pointer, 400) == 0
    np.testing.assert_array_equal(x, y)
    assert driver.cuMemcpyDtoH_v2(y.ctypes.data, pointer, 401) == 1
    assert driver.cuModuleLoadData(byref(module), b".version 9.0\n nonsense") == INVALID_PTX
    assert driver.cuMemAlloc_v2(byref(pointer), 1 << 40) == 2
    driver.fail_next("cuMemAlloc_v2", 2)
    assert driver.cuMemAlloc_v2(byref(pointer), 16) == 2
    assert driver.cuMemAlloc_v2(byref(pointer), 16) == 0
    text = ctypes.c_char_p()
    assert driver.cuGetErrorName(700, byref(text)) == 0
    assert text.value == b"CUDA_ERROR_ILLEGAL_ADDRESS"


def test_captured_launches_run_at_each_replay():
    driver = started()
    counter = driver.memory.upload(np.zeros(1, np.int32))
    body = "\tred.global.add.s32 [%a0], 1;"
    stream, graph, executable = c_void_p(), c_void_p(), c_void_p()
    module, function = c_void_p(), c_void_p()
    assert driver.cuStreamCreate(byref(stream), 1) == 0
    assert driver.cuModuleLoadData(byref(module), kernel_text(body, 1).encode()) == 0
    assert driver.cuModuleGetFunction(byref(function), module, b"kernel") == 0
    value = c_uint64(counter)
    pointers = (c_void_p * 1)(ctypes.addressof(value))
    assert driver.cuStreamBeginCapture_v2(stream, 0) == 0
    assert driver.cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, stream, pointers, None) == 0
    assert driver.cuStreamEndCapture(stream, byref(graph)) == 0
    assert driver.cuGraphInstantiateWithFlags(byref(executable), graph, 0) == 0
    assert driver.memory.read_array(counter, np.int32, (1,))[0] == 0
    for _ in range(3):
        assert driver.cuGraphLaunch(executable, stream) == 0
    assert driver.memory.read_array(counter, np.int32, (1,))[0] == 192


def test_ptxas_takes_every_text():
    for text in (product_text("wait"), copy_text()):
        assemble(text, "sm_90a")
