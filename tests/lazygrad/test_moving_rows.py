"""Loops over slices of data and over batches joined from many values compile a few programs."""

from __future__ import annotations

import numpy
import pytest

import lazygrad as lg
from lazygrad_runtime.store import counters


def programs() -> int:
    return counters.compiles + counters.disk_hits


@pytest.mark.parametrize("read", [
    lambda data, i: data[4 * i:4 * i + 4],
    lambda data, i: data[i],
    lambda data, i: data[4 * i:4 * i + 4, 1:],
    lambda data, i: data.narrow(0, 4 * i, 4).t(),
], ids=["slice", "row", "slice of columns", "narrow"])
def test_a_few_programs_whatever_the_number_of_positions(read) -> None:
    array = numpy.arange(160.0, dtype=numpy.float32).reshape(40, 4)
    data = lg.from_numpy(array.copy())
    found, seen = [], []
    for i in range(10):
        found.append((read(data, i) * 2).sum(0).tolist())
        seen.append(programs())
    plain = [(read(lg.from_numpy(array.copy()), i) * 2).sum(0).tolist() for i in range(10)]
    assert found == plain
    assert seen[9] == seen[6], "the last ones are one program"


def test_writes_through_such_slices_and_reads_after_them() -> None:
    array = numpy.arange(40.0, dtype=numpy.float32).reshape(20, 2)
    data = lg.from_numpy(array.copy())
    for i in range(10):
        lg.synchronize()
        rows = data[2 * i:2 * i + 2]
        assert rows.sum().item() == array[2 * i:2 * i + 2].sum()
        rows += 1
        array[2 * i:2 * i + 2] += 1
    numpy.testing.assert_array_equal(data.numpy(), array)


def test_gradients_of_a_loop_over_batches() -> None:
    data = lg.from_numpy(numpy.arange(40.0, dtype=numpy.float32).reshape(20, 2))
    weight = lg.ones(2, requires_grad=True)
    for i in range(10):
        weight.grad = None
        (data[2 * i:2 * i + 2] @ weight).sum().backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == data[2 * i:2 * i + 2].sum(0).tolist()
    leaf = lg.ones(20, 2, requires_grad=True)
    for i in range(10):
        leaf.grad = None
        leaf[2 * i:2 * i + 2].sum().backward()
        expected = numpy.zeros((20, 2))
        expected[2 * i:2 * i + 2] = 1
        assert leaf.grad is not None
        numpy.testing.assert_array_equal(leaf.grad.numpy(), expected)


def test_a_batch_drawn_from_a_memory_is_one_program_whatever_was_drawn():
    """One transition's next state is another's state: which of them meet differs each time."""
    generator = numpy.random.default_rng(3)
    states = [lg.tensor(generator.normal(size=4).astype(numpy.float32)) for _ in range(30)]
    memory = [(states[k].unsqueeze(0), states[k + 1].unsqueeze(0)) for k in range(29)]
    weight = lg.from_numpy(generator.normal(size=(4, 3)).astype(numpy.float32))
    seen = []
    for _ in range(6):
        drawn = [memory[k] for k in generator.permutation(29)[:8]]
        now, later = (lg.cat(part) for part in zip(*drawn))
        stacked = lg.stack([state[0] for state, _ in drawn], dim=1)
        got = ((now @ weight).sum() + (later @ weight).amax(1).sum() + stacked.sum()).item()
        first, second = (numpy.concatenate([each.numpy() for each in part])
                         for part in zip(*drawn))
        w = weight.numpy()
        assert got == pytest.approx((first @ w).sum() + (second @ w).max(1).sum() + first.sum(),
                                    rel=1e-4)
        seen.append(programs())
    assert seen[0] == seen[-1]


@pytest.mark.parametrize("changed", ["dtype", "gradient", "axis"])
def test_joining_values_that_are_there_is_as_joining_others(changed):
    parts = [lg.tensor([[1.0, 2.0]]) + k for k in range(5)]
    lg.synchronize()
    if changed == "dtype":
        parts[2] = parts[2].double()
        assert lg.cat(parts).dtype is lg.float64
    elif changed == "gradient":
        parts[2].requires_grad_()
        lg.cat(parts).sum().backward()
        assert parts[2].grad.tolist() == [[1.0, 1.0]]
    else:
        assert lg.cat(parts, -1).shape == (1, 10) and lg.stack(parts, -1).shape == (1, 2, 5)
        with pytest.raises(IndexError, match=r"\[cat\].*test_moving_rows.py"):
            lg.cat(parts, 2)
        with pytest.raises(IndexError, match=r"\[stack\].*test_moving_rows.py"):
            lg.stack(parts, 3)
