"""torch.cuda's names: devices, memory, streams and events, page-locked memory."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

import lazygrad as lg
from lazygrad_runtime.cuda import driver
from tests.cuda_fake import fake_cuda
from tests.ptx.driver import FakeDriver
from tests.ptx.memory import DeviceMemory

pytestmark = pytest.mark.usefixtures("fake")


def test_devices() -> None:
    assert lg.cuda.is_available() and lg.cuda.device_count() == 1
    assert lg.cuda.current_device() == 0 and lg.cuda.get_device_name() == "PTX interpreter"
    assert lg.cuda.get_device_capability("cuda:0") == (9, 0) and lg.cuda.is_bf16_supported()
    properties = lg.cuda.get_device_properties(0)
    assert (properties.major, properties.multi_processor_count) == (9, 132)
    assert properties.total_memory == 1 << 32 and properties.name == "PTX interpreter"
    assert "sm_90a" in lg.cuda.get_arch_list()
    assert str(lg.accelerator.current_accelerator()) == "cuda"
    with pytest.raises(RuntimeError, match="cuda.set_device.*no device"):
        lg.cuda.set_device(4)
    with pytest.raises(ValueError, match="takes a CUDA device"):
        lg.cuda.synchronize("cpu")


def test_which_device_cuda_stands_for() -> None:
    with fake_cuda(devices=3):
        lg.cuda.set_device(2)
        assert lg.cuda.current_device() == 2 and lg.ones(1).cuda().get_device() == 2
        with lg.cuda.device("cuda:1"):
            assert lg.zeros(1, device="cuda").device == lg.device("cuda:1")
        assert lg.cuda.current_device() == 2


def test_memory_counters() -> None:
    before = lg.cuda.memory_allocated()
    x = lg.ones(1 << 20, device="cuda")
    lg.synchronize()
    lg.cuda.synchronize()
    assert lg.cuda.memory_allocated() - before >= 4 << 20
    peak = lg.cuda.max_memory_allocated()
    assert peak >= lg.cuda.memory_allocated() and lg.cuda.memory_reserved() >= peak
    del x
    assert lg.cuda.memory_allocated() <= before + 1024 and lg.cuda.max_memory_allocated() == peak
    reserved = lg.cuda.memory_reserved()
    lg.cuda.empty_cache()
    assert lg.cuda.memory_reserved() < reserved
    lg.cuda.reset_peak_memory_stats()
    assert lg.cuda.max_memory_allocated() < peak
    free, total = lg.cuda.mem_get_info()
    assert 0 < free < total == 1 << 32
    assert "in use by tensors" in lg.cuda.memory_summary()
    assert lg.cuda.memory_stats()["allocation.all.allocated"] > 0
    lg.cuda.set_per_process_memory_fraction(0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        lg.cuda.set_per_process_memory_fraction(2)


def test_streams_and_events(fake: FakeDriver) -> None:
    x = lg.arange(5.0, device="cuda")
    lg.synchronize()
    stream = lg.cuda.Stream()
    start, end = (lg.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    with lg.cuda.stream(stream):
        assert lg.cuda.current_stream() == stream != lg.cuda.default_stream()
        y = x * 2
    assert lg.cuda.current_stream() == lg.cuda.default_stream()
    assert y._cell.node.payload.stream == stream.cuda_stream  # computed before the block was left
    before = len(fake.calls)
    assert (y + 1).tolist() == [1, 3, 5, 7, 9]
    assert "cuStreamWaitEvent" in fake.calls[before:]  # the default stream waited for it
    end.record(stream)
    end.synchronize()
    assert start.elapsed_time(end) > 0 and end.query() and stream.query()
    lg.cuda.current_stream().wait_stream(stream)
    stream.wait_event(end)
    end.wait()
    stream.record_event().synchronize()
    stream.synchronize()
    with pytest.raises(RuntimeError, match="enable_timing"):
        lg.cuda.Event().elapsed_time(end)
    with pytest.raises(RuntimeError, match="never recorded"):
        lg.cuda.Event(enable_timing=True).elapsed_time(end)


def test_memory_that_others_read_on_a_stream() -> None:
    """Kernels of others, at `data_ptr()`: the block is not written before they are done."""
    with fake_cuda(ordered=True) as fake:
        ours, theirs = lg.cuda.Stream(), lg.cuda.Stream()
        with lg.cuda.stream(ours):
            x = lg.ones(1024, device="cuda") * 3
        address, host = x.data_ptr(), ctypes.create_string_buffer(4096)
        x.record_stream(theirs)
        driver.driver().cuMemcpyDtoHAsync_v2(host, address, 4096, theirs.cuda_stream)
        assert np.frombuffer(host.raw, np.float32).tolist() == [3.0] * 1024
        del x
        with lg.cuda.stream(ours):
            again = lg.zeros(1024, device="cuda") + 1
        assert again.data_ptr() == address and not fake.order.races
    with pytest.raises(lg.TensorError, match="record_stream.*on the CPU"):
        lg.ones(1).record_stream(theirs)


def test_page_locked_tensors(fake: FakeDriver) -> None:
    x = lg.arange(5.0)
    pinned = x.pin_memory()
    assert pinned.is_pinned() and not x.is_pinned() and pinned.pin_memory() is pinned
    assert pinned.tolist() == x.tolist() and pinned.device.type == "cpu"
    assert pinned.to("cuda", non_blocking=True).tolist() == x.tolist()
    with pytest.raises(RuntimeError, match="pin_memory"):
        x.cuda().pin_memory()
    loader = lg.utils.data.DataLoader(
        lg.utils.data.TensorDataset(lg.arange(6.0), lg.arange(6)), batch_size=3, pin_memory=True)
    for values, numbers in loader:
        assert values.is_pinned() and numbers.is_pinned()
        assert values.cuda().tolist() == numbers.tolist()


def test_seeds() -> None:
    lg.manual_seed(7)
    expected = lg.rand(4).numpy()
    lg.cuda.manual_seed_all(7)
    assert np.array_equal(lg.rand(4, device="cuda").cpu().numpy(), expected)
    generator = lg.Generator("cuda").manual_seed(7)
    assert np.array_equal(lg.rand(4, device="cuda", generator=generator).cpu().numpy(), expected)
    state = lg.cuda.get_rng_state()
    first = lg.randn(3, device="cuda").tolist()
    lg.cuda.set_rng_state(state)
    assert lg.randn(3, device="cuda").tolist() == first


def test_tf32_is_used_where_it_was_asked_for_by_name(fake: FakeDriver) -> None:
    """And not any more where it was taken back; compiled functions follow."""
    x = lg.full((16, 16), 1 + 2.0**-12, device="cuda")  # rounds to 1
    square = lg.compile(lambda value: value @ value)
    strict, rounded = x @ x, 16.0
    assert strict[0, 0].item() > rounded and square(x)[0, 0].item() > rounded
    matmul = lg.backends.cuda.matmul
    assert not matmul.allow_tf32
    try:
        matmul.allow_tf32 = True
        assert lg.get_float32_matmul_precision() == "high"
        assert (x @ x)[0, 0].item() == rounded and square(x)[0, 0].item() == rounded
        assert (x.double() @ x.double())[0, 0].item() > rounded
        lg.set_float32_matmul_precision("highest")
        assert not matmul.allow_tf32
        assert (x @ x)[0, 0].item() > rounded and square(x)[0, 0].item() > rounded
    finally:
        lg.set_float32_matmul_precision("highest")


def test_names_that_scripts_use_in_passing() -> None:
    with fake_cuda(devices=2, memory=DeviceMemory(limit=64 << 20)):
        x = lg.ones(4, device="cuda:1")
        with lg.cuda.device_of(x):
            assert lg.cuda.current_device() == 1
        with lg.cuda.device_of(lg.ones(4)):
            assert lg.cuda.current_device() == 0
        assert lg.cuda.is_tf32_supported() and not lg.cuda.is_current_stream_capturing()
        assert not lg.cuda.can_device_access_peer(0, 1)
        lg.cuda.ipc_collect()
        assert lg.cuda.get_per_process_memory_fraction() == 1.0
        lg.cuda.set_per_process_memory_fraction(0.25)
        assert lg.cuda.get_per_process_memory_fraction() == 0.25
        with pytest.raises(lg.cuda.OutOfMemoryError, match="which may have"):
            (lg.arange(5 << 20, device="cuda:0") + 1).data_ptr()
        stream = lg.cuda.ExternalStream(lg.cuda.Stream().cuda_stream)
        with lg.cuda.StreamContext(stream):
            assert lg.cuda.current_stream() == stream and (x * 2).tolist() == [2.0] * 4


def test_threads_share_a_device() -> None:
    """Each on a stream of its own, with gradients."""
    with fake_cuda():
        lg.ones(1, device="cuda")
        wrong: list[str] = []

        def work(number: int) -> None:
            with lg.cuda.stream(lg.cuda.Stream()):
                w = lg.full((8,), number + 1.0, device="cuda", requires_grad=True)
                for factor in range(4):
                    (w * w * factor + number).sum().backward()
                    assert w.grad is not None
                    if w.grad.tolist() != [2 * factor * (number + 1.0)] * 8:
                        wrong.append(f"{number}, {factor}: {w.grad}")
                    w.grad = None

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_graphed_callables(fake: FakeDriver) -> None:
    """Recorded once, replayed with other values, with gradients; a module stays itself."""
    model = lg.nn.Linear(3, 2, device="cuda")
    sample = lg.ones(4, 3, device="cuda")
    step, double = lg.cuda.make_graphed_callables(
        (model, lambda x: 2 * x), ((sample,), (lg.ones(2, device="cuda"),))
    )
    assert step is model
    for factor in (1.0, 3.0):
        x = sample * factor
        assert lg.allclose(step(x), x @ model.weight.T + model.bias)
        assert double(x).tolist() == (x + x).tolist()
    assert double.recordings == 1
    model.zero_grad()
    step(sample).sum().backward()
    assert model.weight.grad.tolist() == [[4.0] * 3] * 2
    alone = lg.cuda.make_graphed_callables(lambda x: x + 1, (sample,))
    assert alone(sample).tolist() == [[2.0] * 3] * 4
    with pytest.raises(TypeError, match="are a tuple of its arguments, not Tensor"):
        lg.cuda.make_graphed_callables(model, sample)
    with pytest.raises(lg.TensorError, match="2 callables need a tuple of as many"):
        lg.cuda.make_graphed_callables((model, model), ((sample,),))
