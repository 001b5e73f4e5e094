"""`cuda.graph`: captured once, replayed on the same tensors; against the steps done one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import lazygrad as lg
from lazygrad_runtime.cuda import driver
from tests.ptx.driver import FakeDriver

pytestmark = pytest.mark.usefixtures("fake")


def captured(block: Callable[[], object]) -> tuple[lg.cuda.CUDAGraph, object]:
    """A graph of a function's work, with what the function gave back."""
    graph = lg.cuda.CUDAGraph()
    with lg.cuda.graph(graph):
        result = block()
    return graph, result


def graph_calls(fake: FakeDriver, since: int) -> list[str]:
    return [name for name in fake.calls[since:] if name.startswith(("cuGraph", "cuLaunch"))]


def test_a_replay_reads_what_is_there_by_then(fake: FakeDriver) -> None:
    """One launch of one graph from the first replay on; results stay where they lie."""
    x = lg.ones(5, device="cuda")
    graph = lg.cuda.CUDAGraph()
    with lg.cuda.graph(graph):
        assert lg.cuda.is_current_stream_capturing()
        y = x * 3
        total = y.cumsum(0)
    assert not lg.cuda.is_current_stream_capturing()
    alias = total[1:]
    addresses = set()
    for number in (2.0, -1.0, 0.5):
        x.copy_(lg.full((5,), number))
        lg.synchronize()
        since = len(fake.calls)
        graph.replay()
        assert graph_calls(fake, since)[-1] == "cuGraphLaunch"
        assert "cuLaunchKernel" not in fake.calls[since:]
        expected = [number * 3 * each for each in range(1, 6)]
        assert y.tolist() == [number * 3] * 5 and total.tolist() == expected
        assert alias.tolist() == expected[1:]
        addresses.add(total.data_ptr())
    assert len(addresses) == 1
    kept = total + 0  # a value of its own, though computed after the next replay
    expected = total.tolist()
    x.copy_(lg.zeros(5))
    graph.replay()
    assert kept.tolist() == expected and total.tolist() == [0.0] * 5
    since = len(fake.calls)
    graph.replay()  # nothing has moved
    assert graph_calls(fake, since) == ["cuGraphLaunch"]


def test_nothing_is_computed_while_a_graph_is_captured(fake: FakeDriver) -> None:
    x, counter = lg.ones(3, device="cuda"), lg.zeros(3, device="cuda")
    lg.synchronize()
    since = len(fake.calls)
    graph, y = captured(lambda: (counter.add_(x), counter * 2)[1])
    assert graph_calls(fake, since) == []
    assert counter.tolist() == [0.0] * 3
    with pytest.raises(lg.TensorError, match=r"\[cuda.graph\] the result of test_graph_capture.py"
                       r":\d+ is computed by a replay.*Call graph.replay\(\)"):
        y.tolist()
    for number in (1, 2, 3):
        graph.replay()
        assert counter.tolist() == [number] * 3 and y.tolist() == [2 * number] * 3
    counter.zero_()
    graph.replay()
    assert counter.tolist() == [1.0] * 3


def model_and_optimizer(seed: int) -> tuple[lg.nn.Module, lg.optim.Optimizer]:
    lg.manual_seed(seed)
    model = lg.nn.Sequential(
        lg.nn.Linear(4, 6), lg.nn.BatchNorm1d(6), lg.nn.ReLU(), lg.nn.Dropout(0.5),
        lg.nn.Linear(6, 2)).to("cuda")
    return model, lg.optim.Adam(model.parameters(), lr=0.05)


def test_a_training_step_equals_one_that_is_not_captured() -> None:
    """Parameters, moments, running statistics, gradients, random numbers, the learning rate."""
    batches = [lg.randn(8, 4) for _ in range(5)]
    states = []
    for capturing in (False, True):
        model, optimizer = model_and_optimizer(3)
        x = batches[0].cuda()
        losses: list[lg.Tensor] = []

        def step(model: lg.nn.Module = model, optimizer: lg.optim.Adam = optimizer,
                 x: lg.Tensor = x) -> lg.Tensor:
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(2):
            optimizer.zero_grad()
            step()
        optimizer.zero_grad(set_to_none=True)
        if capturing:
            graph, static_loss = captured(step)
            gradient = model[0].weight.grad
            assert gradient is not None and static_loss.requires_grad
        for batch in batches:
            x.copy_(batch)
            optimizer.param_groups[0]["lr"] *= 0.5
            if capturing:
                graph.replay()
                losses.append(static_loss.clone().detach())
                assert model[0].weight.grad is gradient
            else:
                optimizer.zero_grad()
                losses.append(step().detach())
        state = [*model.state_dict().values(), *losses, model[0].weight.grad,
                 optimizer.state[model[0].weight]["exp_avg"]]
        states.append([each.cpu().numpy().tobytes() for each in state])
    assert states[0] == states[1]


def test_gradients_that_are_there_are_added_to() -> None:
    w = lg.ones(2, device="cuda", requires_grad=True)
    w.grad = lg.full((2,), 10.0, device="cuda")
    graph, _ = captured(lambda: (w * 3).sum().backward())
    assert w.grad.tolist() == [10.0] * 2
    for number in (1, 2):
        graph.replay()
        assert w.grad.tolist() == [10.0 + 3 * number] * 2


def test_random_numbers_go_on() -> None:
    lg.manual_seed(11)
    expected = [lg.rand(4, device="cuda").tolist() for _ in range(3)]
    lg.manual_seed(11)
    graph, numbers = captured(lambda: lg.rand(4, device="cuda"))
    found = []
    for _ in range(3):
        graph.replay()
        found.append(numbers.tolist())
    assert found == expected


def test_streams_within_a_capture_and_around_a_replay(fake: FakeDriver) -> None:
    x, side = lg.ones(3, device="cuda"), lg.cuda.Stream()

    def block() -> lg.Tensor:
        side.wait_stream(lg.cuda.current_stream())
        with lg.cuda.stream(side):
            y = x + 1
        lg.cuda.current_stream().wait_stream(side)
        lg.cuda.Event().record()
        return y * 2

    graph, y = captured(block)
    with lg.cuda.stream(side):
        graph.replay()
    assert y._cell.node.payload.stream == side.cuda_stream
    assert y.tolist() == [4.0] * 3


def test_flushes_of_other_threads_leave_a_capture_alone() -> None:
    x = lg.ones(3, device="cuda")
    graph = lg.cuda.CUDAGraph()
    seen: list[object] = []

    def work() -> None:
        seen.append((lg.ones(2, device="cuda") * 5).tolist())
        lg.synchronize()

    with lg.cuda.graph(graph):
        y = x + 1
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        assert seen == [[5.0, 5.0]]
        z = y * 2
    x.fill_(4)
    graph.replay()
    assert y.tolist() == [5.0] * 3 and z.tolist() == [10.0] * 3


def test_work_of_the_cpu_alone_is_no_part_of_it() -> None:
    x = lg.ones(3, device="cuda")

    def block() -> tuple[lg.Tensor, lg.Tensor]:
        index = lg.arange(2) + 1  # made in the block: a constant of the graph
        return x[index.cuda()] * 2, index

    graph, (y, index) = captured(block)
    assert index.tolist() == [1, 2]
    graph.replay()
    assert y.tolist() == [2.0, 2.0]


REFUSED = {
    "item": (lambda x, host: (x * 2).sum().item(), "a value is looked at"),
    "bool": (lambda x, host: bool((x > 0).all()), "a value is looked at"),
    "print": (lambda x, host: str(x + 1), "a value is looked at"),
    "lg.synchronize": (lambda x, host: lg.synchronize(), "a value is looked at"),
    "cuda.synchronize": (lambda x, host: lg.cuda.synchronize(), r"\[cuda.synchronize\] nothing"),
    "event": (lambda x, host: lg.cuda.Event().synchronize(), "nothing can be waited for"),
    "stream": (lambda x, host: lg.cuda.Stream().synchronize(), "nothing can be waited for"),
    "cpu operand": (lambda x, host: x + host.cuda(), r"of the CPU, float32\[3\] of .*read"),
    "cpu number": (lambda x, host: x + host.sum(), "a tensor of the CPU.*read"),
    "cpu target": (lambda x, host: host.copy_(x), "a tensor of the CPU.*written"),
    "cpu result": (lambda x, host: (x * 2).cpu(), "a tensor of the CPU.*written"),
    "seed": (lambda x, host: lg.manual_seed(1), "seeding a generator takes part in no"),
    "nested": (lambda x, host: captured(lambda: x + 1), "begins within another one"),
    "replay": (lambda x, host: REPLAYED[0].replay(), "a replay within a capture"),
}  # fmt: skip
REPLAYED: list[lg.cuda.CUDAGraph] = []


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_says_why_and_changes_nothing(name: str) -> None:
    block, message = REFUSED[name]
    x, host = lg.ones(3, device="cuda"), lg.zeros(3) + 2
    lg.synchronize()
    other, _ = captured(lambda: x + 1)
    REPLAYED[:] = [other]
    graph = lg.cuda.CUDAGraph()
    with pytest.raises(lg.TensorError, match=message + r"[\s\S]*\(test_graph_capture.py:\d+\)"), \
            lg.cuda.graph(graph):
        x.add_(1)
        _made = block(x, host)  # kept: what nobody has any more is no part of a graph
    REPLAYED.clear()
    assert x.tolist() == [1.0] * 3 and host.tolist() == [2.0] * 3
    assert not lg.cuda.is_current_stream_capturing()
    with pytest.raises(lg.TensorError, match="was not captured"):
        graph.replay()
    with lg.cuda.graph(graph):
        y = x * 5
    graph.replay()
    assert y.tolist() == [5.0] * 3


def test_errors_of_the_block_pass_through() -> None:
    graph, x = lg.cuda.CUDAGraph(), lg.ones(2, device="cuda")
    with pytest.raises(ZeroDivisionError), lg.cuda.graph(graph):
        x.mul_(2)
        raise ZeroDivisionError
    assert x.tolist() == [1.0, 1.0] and (x + 1).tolist() == [2.0, 2.0]


def test_history_of_outside_is_no_part_of_a_graph() -> None:
    w = lg.ones(2, device="cuda", requires_grad=True)
    y = (w * 2).sin()
    with pytest.raises(lg.TensorError, match="goes on from autograd history outside"):
        captured(lambda: y.sum().backward())
    assert w.grad is None


def test_an_index_out_of_range_leaves_everything_usable() -> None:
    table = lg.arange(4.0, device="cuda")
    index = lg.tensor([0, 3], device="cuda")
    graph, rows = captured(lambda: table[index] * 2)
    graph.replay()
    assert rows.tolist() == [0.0, 6.0]
    index.copy_(lg.tensor([0, 4]))
    with pytest.raises(IndexError, match="test_graph_capture.py"):
        graph.replay()
    index.copy_(lg.tensor([2, 1]))
    graph.replay()
    assert rows.tolist() == [4.0, 2.0]


def test_the_life_of_a_graph(tmp_path: Path) -> None:
    x = lg.ones(2, device="cuda")
    graph = lg.cuda.CUDAGraph()
    for call in (graph.replay, graph.capture_end):
        with pytest.raises(lg.TensorError, match=r"\[cuda.CUDAGraph\]"):
            call()
    with pytest.raises(lg.TensorError, match="not captured"):
        graph.debug_dump(tmp_path / "none")
    graph.capture_begin(pool=graph.pool())
    y = x * 7
    graph.capture_end()
    graph.instantiate()
    graph.replay()
    graph.debug_dump(tmp_path / "graph.txt")
    assert "mul" in (tmp_path / "graph.txt").read_text()
    with pytest.raises(lg.TensorError, match="captured before"), lg.cuda.graph(graph):
        pass
    graph.reset()
    with pytest.raises(lg.TensorError, match="was not captured"):
        graph.replay()
    assert y.tolist() == [7.0, 7.0]
    with pytest.warns(UserWarning, match="is empty"), lg.cuda.graph(graph):
        x + 1
    graph.replay()
    with pytest.raises(TypeError, match="takes a CUDAGraph, not NoneType"):
        lg.cuda.graph(None)


def test_graphs_are_not_captured_within_compiled_functions() -> None:
    x = lg.ones(2, device="cuda")
    with pytest.raises(lg.TensorError, match="within a compiled function"):
        lg.compile(lambda: captured(lambda: x + 1))()


def test_what_a_lost_device_held_is_gone(fake: FakeDriver) -> None:
    x = lg.ones(2, device="cuda") * 3
    graph, y = captured(lambda: x + 1)
    graph.replay()
    lg.cuda.reset()
    with pytest.raises(RuntimeError, match="went with a lost context"):
        graph.replay()
    x.copy_(lg.ones(2))
    graph.replay()
    assert y.tolist() == [2.0, 2.0]


def test_there_is_no_graph_without_a_device() -> None:
    driver.install(None)
    with pytest.raises(lg.TensorError, match=r"\[cuda.CUDAGraph\] there is no device cuda"):
        lg.cuda.CUDAGraph()
