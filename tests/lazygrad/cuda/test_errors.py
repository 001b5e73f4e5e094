"""What goes wrong on a device is a Python error at the user's line, and the state stays usable."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import lazygrad as lg
from lazygrad_runtime.cuda import driver as drivers
from tests.cuda_fake import fake_cuda
from tests.ptx.driver import FakeDriver
from tests.ptx.memory import DeviceMemory


def line() -> str:
    """The caller's line."""
    return f"test_errors.py:{sys._getframe(1).f_lineno}"


def test_an_index_error_names_the_line(fake: FakeDriver) -> None:
    table = lg.arange(10.0, device="cuda")
    good = lg.ones(3, device="cuda") * 2
    chosen, here = table[lg.tensor([1, 12], device="cuda")], line()
    with pytest.raises(IndexError, match=r"\[index\] index 12 is out of range for axis 0 of size "
                       rf"10 \({here}\). The largest is 9"):
        chosen.tolist()
    assert good.tolist() == [2, 2, 2]  # the rest of the joint program
    assert table[lg.tensor([3], device="cuda")].tolist() == [3]
    with pytest.raises(IndexError, match=rf"index 12 .*{here}"):
        chosen.tolist()


def test_index_errors_of_cached_programs_name_their_own_line(fake: FakeDriver) -> None:
    table = lg.arange(10.0, device="cuda")
    assert (table[lg.tensor([1], device="cuda")] + 1).tolist() == [2]
    chosen, here = table[lg.tensor([10], device="cuda")] + 1, line()
    with pytest.raises(IndexError, match=rf"index 10.*{here}"):
        chosen.tolist()


def test_a_failed_step_leaves_the_parameters(fake: FakeDriver) -> None:
    weight = lg.ones(4, device="cuda", requires_grad=True)
    optimizer = lg.optim.SGD([weight], lr=1.0)

    @lg.compile
    def step(index: lg.Tensor) -> None:
        optimizer.zero_grad()
        (weight * weight[index]).sum().backward()
        optimizer.step()

    step(lg.tensor([0, 1, 2, 3], device="cuda"))
    before = weight.tolist()
    with pytest.raises(IndexError, match="index 4 is out of range"):
        step(lg.tensor([0, 1, 2, 4], device="cuda"))
    assert weight.tolist() == before
    step(lg.tensor([0, 1, 2, 3], device="cuda"))
    assert weight.tolist() != before


def test_out_of_memory_names_bytes_and_line() -> None:
    with fake_cuda(memory=DeviceMemory(limit=64 << 20)):
        x = lg.arange(1000.0, device="cuda")
        big, here = x[:, None] * lg.ones(1, 20_000, device="cuda"), line()
        with pytest.raises(MemoryError, match=r"80000000 bytes asked for on cuda:0.*smaller batches"
                           rf".*largest value is .* of 80000000 bytes \({here}\)"):
            big.tolist()
        del big
        assert x.sum().item() == 499500
        assert lg.cuda.memory_stats()["num_ooms"] > 0


def test_a_fault_loses_the_device_and_the_cpu_goes_on(fake: FakeDriver) -> None:
    host = lg.arange(4.0)
    x = lg.arange(4.0, device="cuda") + 1
    assert x.tolist() == [1, 2, 3, 4]
    y = x * 3
    fake.fail_next("cuEventSynchronize", 700)
    with pytest.raises(RuntimeError, match="illegal memory access.*context is lost"):
        y.tolist()
    with pytest.raises(RuntimeError, match="was lost"):
        (x + 1).tolist()
    assert (host * 2).tolist() == [0, 2, 4, 6]
    lg.cuda.reset()
    with pytest.raises(RuntimeError, match="went with a lost context"):
        x.tolist()
    assert lg.arange(4.0, device="cuda").sum().item() == 6  # not the lost value of an equal node


def test_blocking_launches_name_the_kernel(
    fake: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazygrad_runtime.cuda import program

    monkeypatch.setattr(program, "blocking", lambda: True)
    x = lg.arange(4.0, device="cuda")
    lg.synchronize()
    y, here = x.exp(), line()
    fake.fail_next("cuCtxSynchronize", 719)
    with pytest.raises(RuntimeError, match=rf"launch 0, .*kernel k_\w+ \({here}\)"):
        y.tolist()


def test_a_refused_launch_names_it(fake: FakeDriver) -> None:
    y, here = lg.arange(4.0, device="cuda").exp(), line()
    fake.fail_next("cuLaunchKernel", 701)
    with pytest.raises(RuntimeError, match=rf"cuLaunchKernel.*launch 0, .*{here}"):
        y.tolist()
    assert y.tolist() == pytest.approx(np.exp(np.arange(4.0)).tolist(), rel=1e-6)


def test_without_a_driver() -> None:
    drivers.install(None)
    assert not lg.cuda.is_available() and lg.cuda.device_count() == 0
    assert lg.cuda.memory_allocated() == 0 and not lg.cuda.is_initialized()
    lg.cuda.manual_seed_all(1), lg.cuda.empty_cache(), lg.cuda.synchronize()
    with pytest.raises(RuntimeError, match=r"\[to\].*no NVIDIA driver.*test_errors"):
        lg.ones(1).cuda()
    with pytest.raises(RuntimeError, match=r"\[zeros\] there is no device cuda"):
        lg.zeros(1, device="cuda")
    for name in ("get_device_name", "mem_get_info", "Stream", "current_stream", "set_device"):
        with pytest.raises(RuntimeError, match=f"cuda.{name}.*NVIDIA driver"):
            getattr(lg.cuda, name)(*([0] if name == "set_device" else []))
    assert lg.ones(2).pin_memory().tolist() == [1, 1]


SECOND = """
import sys
from tests.cuda_fake import fake_cuda, first_device
from lazygrad_runtime import store
import lazygrad as lg
with fake_cuda():
    x = lg.arange(6.0, device="cuda")
    print((x.exp() + x).sum().item(), store.counters.compiles, first_device().modules.linked)
"""


def test_a_second_process_compiles_and_links_nothing(tmp_path) -> None:
    environment = {**os.environ, "LAZYGRAD_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", SECOND], env=environment, check=True,
                           capture_output=True, text=True).stdout.split() for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert int(runs[0][1]) > 0 and int(runs[0][2]) > 0
    assert runs[1][1:] == ["0", "0"]


def test_a_damaged_cubin_is_linked_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lazygrad_runtime import store
    from lazygrad_runtime.cache import CompileCache
    from tests.cuda_fake import first_device

    cache = CompileCache(tmp_path)
    monkeypatch.setattr(store, "disk", lambda: cache)
    for expected in (1, 0, 1):
        with fake_cuda():
            assert lg.ones(3, device="cuda").exp().sum().item() == pytest.approx(8.154845)
            assert (first_device().modules.linked > 0) == bool(expected)
        if not expected:
            for blob in (tmp_path / "blobs").iterdir():
                blob.write_bytes(b"damaged")


def test_the_cache_commands_know_programs_of_a_device(tmp_path) -> None:
    environment = {**os.environ, "LAZYGRAD_CACHE_DIR": str(tmp_path / "cache")}
    other = {**environment, "LAZYGRAD_CACHE_DIR": str(tmp_path / "other")}
    subprocess.run([sys.executable, "-c", SECOND], env=environment, check=True)

    def command(*words: str, env: dict[str, str] = environment) -> str:
        done = subprocess.run([sys.executable, "-m", "lazygrad", "cache", *words], env=env,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "sm_90a" in command("ls")
    assert "0 damaged" in command("verify", "--recompile")
    archive = str(tmp_path / "programs.zip")
    command("export", archive)
    assert "refused" not in command("import", archive, env=other)
    runs = subprocess.run([sys.executable, "-c", SECOND], env=other, check=True,
                          capture_output=True, text=True).stdout.split()
    assert runs[1] == "0", "the imported program is found"
