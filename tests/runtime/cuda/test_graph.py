"""Replays as graphs of the driver, and tensor maps: one call a run, addresses follow."""

from __future__ import annotations

import numpy as np
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_runtime import store
from lazygrad_runtime.cuda import launcher, program
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.errors import CudaError
from lazygrad_runtime.cuda.launcher import RUNS_ONE_BY_ONE
from lazygrad_runtime.cuda.memory import DeviceBuffer
from lazygrad_runtime.cuda.program import CudaProgram
from lazygrad_runtime.cuda.stream import Stream, set_stream
from lazygrad_runtime.memory import Buffer
from tests.cuda_fake import fake_cuda, first_device
from tests.ptx.driver import FakeDriver

SIZE = 40


def chain() -> Graph:
    """Two launches, the second one reads what the first one wrote."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(SIZE,))
    y = node("input", index=1, dtype=DTYPES["float32"], shape=(SIZE,))
    total = node("scan", x, axis=0, combine="add", reverse=False)
    return Graph((node("mul", total, y),))


def product() -> Graph:
    x = node("input", index=0, dtype=DTYPES["bfloat16"], shape=(64, 64))
    y = node("input", index=1, dtype=DTYPES["bfloat16"], shape=(64, 64))
    return Graph((node("dot", x, y, left_batch=(), right_batch=(), left_contract=(1,),
                       right_contract=(0,)),))  # fmt: skip


def program_of(graph: Graph, device: Device) -> CudaProgram:
    return CudaProgram(store.compile_for(graph, device.target)[0], device)


def upload(device: Device, values: np.ndarray) -> DeviceBuffer:
    return device.staging.upload(Buffer.from_numpy(values))


def called(fake: FakeDriver, since: int) -> list[str]:
    return [name for name in fake.calls[since:] if name.startswith(("cuGraph", "cuLaunch"))]


def test_a_replay_is_one_call_and_pointers_follow(fake: FakeDriver) -> None:
    device = first_device()
    program = program_of(chain(), device)
    x = np.arange(SIZE, dtype=np.float32)
    fixed = upload(device, x)
    factors = [upload(device, np.full(SIZE, each, np.float32)) for each in (1, 2, 3)]

    def run(number: int) -> list[str]:
        since = len(fake.calls)
        (result,) = program.run([fixed, factors[number]])
        made = called(fake, since)
        np.testing.assert_array_equal(
            result.as_numpy(np.float32, (SIZE,)), np.cumsum(x) * (number + 1)
        )
        return made

    for _ in range(RUNS_ONE_BY_ONE):
        assert run(0) == ["cuLaunchKernel"] * 2
    assert run(0) == ["cuGraphCreate", *["cuGraphAddKernelNode_v2"] * 2,
                      "cuGraphInstantiateWithFlags", "cuGraphLaunch"]  # fmt: skip
    assert run(0) == ["cuGraphLaunch"]
    # the factor is read by the second launch alone
    assert run(1) == ["cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch"]
    assert run(1) == ["cuGraphLaunch"]
    assert run(2) == ["cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch"]
    assert run(0) == ["cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch"]


def test_graphs_run_on_the_current_stream_and_go_with_their_program(fake: FakeDriver) -> None:
    device = first_device()
    program = program_of(chain(), device)
    given = [upload(device, np.ones(SIZE, np.float32)) for _ in range(2)]
    stream = Stream(device)
    set_stream(stream)
    try:
        for _ in range(RUNS_ONE_BY_ONE + 1):
            (result,) = program.run(given)
        np.testing.assert_array_equal(result.as_numpy(np.float32, (SIZE,)), np.arange(1, SIZE + 1))
    finally:
        set_stream(Stream(device, 0))
    since = len(fake.calls)
    del program
    assert called(fake, since) == ["cuGraphExecDestroy", "cuGraphDestroy"]


def test_launches_that_are_waited_for_are_no_graph(
    fake: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (launcher, program):
        monkeypatch.setattr(module, "blocking", lambda: True)
    device = first_device()
    made = program_of(chain(), device)
    for _ in range(RUNS_ONE_BY_ONE + 2):
        made.run([upload(device, np.ones(SIZE, np.float32)) for _ in range(2)])
    assert "cuGraphLaunch" not in fake.calls


@pytest.mark.parametrize("call", [
    "cuGraphCreate", "cuGraphAddKernelNode_v2", "cuGraphInstantiateWithFlags",
    "cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch",
])  # fmt: skip
def test_a_failure_leaves_a_program_that_works(call: str, fake: FakeDriver) -> None:
    device = first_device()
    program = program_of(chain(), device)
    x = upload(device, np.ones(SIZE, np.float32))
    factors = [upload(device, np.full(SIZE, each, np.float32)) for each in (1, 2)]
    changed = call == "cuGraphExecKernelNodeSetParams_v2"
    for _ in range(RUNS_ONE_BY_ONE + changed):
        program.run([x, factors[0]])
    fake.fail_next(call, 1)
    with pytest.raises(CudaError, match=rf"{call}: invalid argument"):
        program.run([x, factors[1]])
    for number in (1, 0):
        (result,) = program.run([x, factors[number]])
        np.testing.assert_array_equal(
            result.as_numpy(np.float32, (SIZE,)), np.arange(1, SIZE + 1) * (number + 1)
        )


def test_a_reset_device_makes_graphs_anew() -> None:
    with fake_cuda() as fake:
        device = first_device()
        program = program_of(chain(), device)
        for _ in range(2):
            for _ in range(RUNS_ONE_BY_ONE + 1):
                given = [upload(device, np.ones(SIZE, np.float32)) for _ in range(2)]
                (result,) = program.run(given)
            assert result.as_numpy(np.float32, (SIZE,))[-1] == SIZE
            fake.fail_next("cuCtxSynchronize", 700)
            with pytest.raises(CudaError):
                device.synchronize()
            device.reset()
        assert fake.calls.count("cuGraphCreate") == 2
        assert "cuGraphDestroy" not in fake.calls


def test_tensor_maps_follow_their_arrays(fake: FakeDriver) -> None:
    """Encoded for the first run, and again only for an operand that lies elsewhere."""
    device = first_device()
    program = program_of(product(), device)
    assert len(program.artifact.grid[0].maps) == 2
    random = np.random.default_rng(0)
    kind = DTYPES["bfloat16"].numpy
    arrays = [random.integers(-3, 4, (64, 64)).astype(kind) for _ in range(3)]
    buffers = [upload(device, array) for array in arrays]

    def run(left: int, right: int) -> int:
        since = len(fake.calls)
        (result,) = program.run([buffers[left], buffers[right]])
        encoded = fake.calls[since:].count("cuTensorMapEncodeTiled")
        expected = arrays[left].astype(np.float32) @ arrays[right].astype(np.float32)
        found = result.as_numpy(kind, (64, 64)).astype(np.float32)
        np.testing.assert_array_equal(found, expected.astype(kind).astype(np.float32))
        return encoded

    assert [run(0, 1), run(0, 1), run(0, 2), run(2, 2)] == [2, 0, 1, 1]
    fake.fail_next("cuTensorMapEncodeTiled", 1)
    with pytest.raises(CudaError, match="cuTensorMapEncodeTiled: invalid argument"):
        run(1, 1)
    assert run(1, 1) == 2
