"""Loops over slices of data do not compile a program for each position."""

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
