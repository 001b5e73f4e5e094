"""The driver's table: what is there, and what becomes of every code of every call."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.cuda_target import CudaTarget
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_runtime import store
from lazygrad_runtime.cuda import driver as drivers
from lazygrad_runtime.cuda.context import Device, device_at
from lazygrad_runtime.cuda.driver import SIGNATURES
from lazygrad_runtime.cuda.errors import CudaError, DeviceLost, NoDevice
from lazygrad_runtime.cuda.launcher import RUNS_ONE_BY_ONE
from lazygrad_runtime.cuda.program import CudaProgram
from lazygrad_runtime.cuda.stream import Event, Stream
from lazygrad_runtime.cuda.transfer import page_locked
from lazygrad_runtime.memory import Buffer
from tests.cuda_fake import ERRORS, fake_cuda, first_device
from tests.ptx.driver import FakeDriver
from tests.ptx.driver_state import FUNCTIONS, INVALID_CONTEXT

SIZE = 6


def small_graph() -> Graph:
    """Two launches."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(SIZE,))
    y = node("input", index=1, dtype=DTYPES["float32"], shape=(SIZE + 1,))
    return Graph((node("exp", node("mul", x, x)), node("neg", y)))


@functools.cache
def compiled(target: CudaTarget) -> Artifact:
    return store.compile_for(small_graph(), target)[0]


def work(device: Device) -> None:
    """Something of everything: all calls of the table but those of a second device are made."""
    values = np.linspace(0, 1, SIZE, dtype=np.float32)
    program = CudaProgram(compiled(device.target), device)
    kept: list[object] = []
    for number in range(RUNS_ONE_BY_ONE + 2):  # the last two as a graph, made and changed
        other = np.full(SIZE + 1, number, np.float32)
        result, negative = program.run([Buffer.from_numpy(values), Buffer.from_numpy(other)])
        assert np.allclose(result.as_numpy(np.float32, (SIZE,)), np.exp(values * values))
        assert (negative.as_numpy(np.float32, (SIZE + 1,)) == -number).all()
        kept.append(negative)
    pinned = page_locked(Buffer.from_numpy(values))
    copy = device.staging.upload(pinned)
    stream, start = Stream(device), Event(timing=True).record(Stream(device, 0))
    copy.used_on(stream.handle)
    end = Event(device, timing=True).record(stream)
    end.synchronize()
    assert stream.query() and end.query() and start.elapsed(end) >= 0
    stream.synchronize()
    device.synchronize()
    assert device.pool.memory_info()[1] > 0 and device.name and device.total_memory
    del copy, result, negative, kept, pinned, stream, program
    gc.collect(1)  # what is young: a whole collection walks over all that other tests left
    device.pool.empty_cache()
    if device.driver.pinned is not None:
        device.driver.pinned.empty()


NEVER_MADE = {
    "cuMemcpyDtoDAsync_v2", "cuMemcpyPeerAsync", "cuTensorMapEncodeTiled", "cuFuncSetAttribute",
    "cuModuleUnload", "cuDevicePrimaryCtxReset_v2", "cuGetErrorName", "cuGetErrorString", "cuInit",
    "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuPointerGetAttribute",
}  # fmt: skip
"""By `work`: covered by tests of their own."""

TOLERATED = {"cuEventDestroy_v2", "cuLinkDestroy", "cuGraphExecDestroy", "cuGraphDestroy"}
"""Giving back: whoever drops something is not to be bothered."""

CALLS = sorted(set(SIGNATURES) - NEVER_MADE)


def test_work_makes_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "disk", lambda: store.CompileCache("/nowhere/at/all"))
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    with fake_cuda() as fake:
        work(first_device())
        assert set(CALLS) <= set(fake.calls)


def test_the_table_is_what_the_fake_driver_has(fake: FakeDriver) -> None:
    for name, signature in SIGNATURES.items():
        expected = fake.table[name].argtypes
        sizes = [ctypes.sizeof(kind) for kind in signature]
        assert sizes == [ctypes.sizeof(kind) for kind in expected], name


@pytest.mark.parametrize("call", CALLS)
def test_each_code_of_each_call_is_an_exception_and_work_goes_on(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    uncached = store.CompileCache("/nowhere")
    monkeypatch.setattr(store, "disk", lambda: uncached)
    codes = {"invalid value": 1, "out of memory": 2, "unknown": 999}
    for name, code in ({**codes, **ERRORS} if call == "cuLaunchKernel" else codes).items():
        with fake_cuda() as fake:
            device = first_device()
            fake.fail_next(call, code)
            if call in TOLERATED:
                work(device)
                continue
            if call == "cuMemAlloc_v2" and code == 2:
                work(device)  # the cache is emptied, and it is tried again
                continue
            with pytest.raises((CudaError, MemoryError)) as caught:
                work(device)
            message = str(caught.value)
            assert call in message or "asked for" in message, (name, message)
            if device.lost:
                assert name == "unknown"
                with pytest.raises(DeviceLost, match=r"lost.*reset"):
                    work(device)
                device.reset()
            work(device)


@pytest.mark.parametrize("code", [209, 218])
def test_code_for_one_architecture_is_linked_for_it_by_name(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the linker does not take it for what it thinks the device is."""
    monkeypatch.setenv("LAZYGRAD_CACHE", "0")
    uncached = store.CompileCache("/nowhere")
    monkeypatch.setattr(store, "disk", lambda: uncached)
    with fake_cuda() as fake:
        fake.fail_next("cuLinkAddData_v2", code)
        work(first_device())
        assert fake.calls.count("cuLinkAddData_v2") > fake.calls.count("cuLinkComplete")


@pytest.mark.parametrize("code", [700, 714, 715, 716, 719])
def test_a_fault_loses_the_device_until_it_is_reset(code: int) -> None:
    with fake_cuda() as fake:
        device = first_device()
        kept = device.staging.upload(Buffer.from_numpy(np.arange(4.0)))
        program = CudaProgram(compiled(device.target), device)
        program.run([Buffer.from_numpy(np.zeros(n, np.float32)) for n in (SIZE, SIZE + 1)])
        fake.fail_next("cuCtxSynchronize", code)
        with pytest.raises(CudaError, match=r"cuda:0 ran of late: .*lost.*LAZYGRAD_CUDA_BLOCKING"):
            device.synchronize()
        with pytest.raises(DeviceLost, match=r"cuda:0 was lost: .*reset\(\)"):
            device.pool.allocate(100 << 20, 0)
        with pytest.raises(DeviceLost):
            kept.as_numpy(np.float64, (4,))
        device.reset()
        with pytest.raises(DeviceLost, match="went with a lost context"):
            kept.as_numpy(np.float64, (4,))
        work(device)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "LIBRARY", "libnothing.so.1")
    drivers.install(None)
    try:
        assert drivers.device_count() == 0
        with pytest.raises(NoDevice, match=r"no NVIDIA driver \(libnothing.so.1.*device='cpu'"):
            device_at("cuda:0")
    finally:
        drivers.install(None)


@pytest.mark.parametrize("call", ["cuInit", "cuDriverGetVersion", "cuDeviceGetCount"])
@pytest.mark.parametrize("code", [3, 100, 802, 803, 999])
def test_a_driver_that_does_not_start(
    call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDriver()
    fake.fail_next(call, code)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
    drivers.install(None)
    try:
        if call == "cuDeviceGetCount":
            assert drivers.device_count() == 0
        else:
            with pytest.raises(NoDevice, match=rf"{call}: .+"):
                drivers.driver()
            assert drivers.device_count() == 0
    finally:
        drivers.install(None)


def test_no_device() -> None:
    fake = FakeDriver(devices=0)
    with pytest.raises(NoDevice, match="no CUDA-capable device.*nvidia-smi"):
        drivers.install(fake)
    drivers.install(None)


def test_a_driver_too_old() -> None:
    with pytest.raises(NoDevice, match=r"for CUDA 11\.8; version 12\.0 is the oldest"):
        drivers.install(FakeDriver(version=11080))
    old = FakeDriver()
    del old.__dict__["cuGraphLaunch"]

    class Older:
        def __getattr__(self, name: str) -> object:
            if name == "cuLinkCreate_v2":
                raise AttributeError(name)
            return getattr(old, name)

    with pytest.raises(NoDevice, match="no cuLinkCreate_v2: it is too old"):
        drivers.install(Older())
    drivers.install(None)


@pytest.mark.parametrize(
    "capability, arch",
    {(8, 0): "sm_80", (8, 6): "sm_86", (8, 7): "sm_86", (8, 9): "sm_89", (9, 0): "sm_90a",
     (10, 0): "sm_100a", (10, 3): "sm_90", (12, 0): "sm_120a", (12, 1): "sm_90",
     (15, 0): "sm_90"}.items(),
)  # fmt: skip
def test_architectures(capability: tuple[int, int], arch: str) -> None:
    with fake_cuda(attributes={75: capability[0], 76: capability[1]}):
        target = first_device().target
        assert target.arch == arch and target.features == "+ptx90" and target.multiprocessors == 132


@pytest.mark.parametrize("version, features", [(12040, "+ptx84"), (12080, "+ptx87")])
def test_no_newer_ptx_than_the_driver_takes(version: int, features: str) -> None:
    with fake_cuda(version=version):
        assert first_device().target.features == features


@pytest.mark.parametrize("capability", [(7, 5), (5, 2)])
def test_an_architecture_without_code(capability: tuple[int, int]) -> None:
    with fake_cuda(attributes={75: capability[0], 76: capability[1]}), pytest.raises(
        NoDevice, match=rf"compute capability {capability[0]}.{capability[1]}; code is generated"
    ):
        first_device().target


def test_a_device_that_is_not_there(fake: FakeDriver) -> None:
    with pytest.raises(NoDevice, match=r"no cuda:3: this machine has 1 CUDA device, cuda:0"):
        device_at("cuda:3")


FORKED = """
import os, sys
from lazygrad_runtime.cuda import driver
from tests.ptx.driver import FakeDriver
driver.install(FakeDriver())
driver.driver().devices[0].pool.allocate(10, 0)
child = os.fork()
if child == 0:
    try:
        driver.driver()
    except driver.NoDevice as error:
        assert "spawn" in str(error)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True)


def test_a_context_that_something_else_has_made_current_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As torch on another device, or `reset` in another thread: launches need our context."""
    with fake_cuda() as fake:
        device = first_device()
        current = threading.local()
        launch = FUNCTIONS["cuLaunchKernel"]

        def set_current(driver: FakeDriver, context: int | None) -> int:
            current.context = context
            return 0

        def launched(driver: FakeDriver, *arguments: Any) -> int:
            if getattr(current, "context", None) != device.context:
                return INVALID_CONTEXT
            return launch(driver, *arguments)

        monkeypatch.setitem(FUNCTIONS, "cuCtxSetCurrent", set_current)
        monkeypatch.setitem(FUNCTIONS, "cuLaunchKernel", launched)
        program = CudaProgram(compiled(device.target), device)
        inputs = [Buffer.from_numpy(np.ones(size, np.float32)) for size in (SIZE, SIZE + 1)]
        program.run(inputs)
        fake.table["cuCtxSetCurrent"](None)
        result, _ = program.run(inputs)
        assert np.allclose(result.as_numpy(np.float32, (SIZE,)), np.e)
