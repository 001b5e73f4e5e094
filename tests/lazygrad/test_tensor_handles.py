"""Tensors as objects: attributes, printing, copies, NumPy in and out, errors, random numbers."""

from __future__ import annotations

import copy

import numpy
import pytest
import torch

import lazygrad as lg
import lazygrad.functional as LF


def test_attributes():
    x = lg.zeros(2, 3)
    assert (
        x.shape == (2, 3) and x.size() == (2, 3) and x.size(-1) == 3 and x.ndim == 2 and len(x) == 2
    )
    assert (
        x.shape.numel() == 6 and x.numel() == 6 and x.dtype is lg.float32 and x.device.type == "cpu"
    )
    assert x.stride() == (3, 1) and x.T.stride() == (1, 3) and not x.T.is_contiguous()
    assert [tuple(row.shape) for row in x] == [(3,), (3,)]
    assert (
        lg.tensor(3).item() == 3 and isinstance(lg.tensor(3).item(), int) and bool(lg.tensor(1.0))
    )
    assert lg.tensor([[1, 2]]).tolist() == [[1, 2]] and f"{lg.tensor(1.5):.2f}" == "1.50"
    assert lg.zeros(3, dtype=lg.float32).dtype.is_floating_point
    assert numpy.asarray(lg.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="truth"):
        bool(lg.zeros(2))
    with pytest.raises(TypeError):
        len(lg.tensor(1.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.arange(3),
        lambda t: t.tensor([1.0, 2.0]),
        lambda t: t.tensor([[1.5, 2.0], [3.0, -4.25]]),
        lambda t: t.tensor(3.0),
        lambda t: t.tensor([1e-9, 1.0]),
        lambda t: t.tensor([True, False]),
        lambda t: t.zeros(2, 2, 2),
        lambda t: t.zeros(0),
        lambda t: t.zeros(0, 3),
        lambda t: t.arange(3, dtype=t.float64),
        lambda t: t.tensor([1.0, float("nan"), float("inf")]),
        lambda t: t.tensor([100000.0, 1.0]),
        lambda t: t.arange(2000),
        lambda t: t.ones(2, requires_grad=True),
        lambda t: t.arange(40.0),
    ],
)
def test_repr(make):
    assert repr(make(lg)).replace("lazygrad.", "torch.") == repr(make(torch))


def test_deepcopy_and_sharing():
    x = lg.ones(3, requires_grad=True)
    y = copy.deepcopy(x)
    with lg.no_grad():
        y.add_(1)
    assert y.requires_grad and y.is_leaf and x.tolist() == [1, 1, 1] and y.tolist() == [2, 2, 2]


def test_numpy_in_and_out():
    array = numpy.arange(6.0).reshape(2, 3)
    assert lg.from_numpy(array).numpy().ctypes.data == array.ctypes.data
    assert lg.tensor(array).numpy().ctypes.data != array.ctypes.data
    assert lg.from_numpy(array.T).tolist() == array.T.tolist()
    with pytest.raises(ValueError):
        lg.ones(2).numpy()[0] = 1


def test_errors_name_line_and_shapes():
    with pytest.raises(
        RuntimeError, match=r"\[add\] \(2, 3\) and \(4,\).*\(test_tensor_handles.py:\d+\)"
    ):
        lg.zeros(2, 3) + lg.zeros(4)
    with pytest.raises(IndexError, match="dim 2"):
        lg.zeros(2, 3).sum(2)
    with pytest.raises(RuntimeError, match="12"):
        lg.zeros(3, 4).view(5, 2)
    with pytest.raises(RuntimeError, match="reshape"):
        lg.zeros(3, 4).T.view(12)
    with pytest.raises(TypeError):
        lg.zeros(2) + "a"


def test_random_numbers():
    lg.manual_seed(1)
    first = lg.rand(1000), lg.randn(1000), lg.randint(3, 9, (1000,)), lg.randperm(50)
    lg.manual_seed(1)
    again = lg.rand(1000), lg.randn(1000), lg.randint(3, 9, (1000,)), lg.randperm(50)
    assert all(lg.equal(a, b) for a, b in zip(first, again))
    uniform, normal, whole, order = (each.numpy() for each in first)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean()) < 0.15 and abs(normal.std() - 1) < 0.1
    assert set(whole) == {3, 4, 5, 6, 7, 8} and sorted(order) == list(range(50))
    assert not lg.equal(lg.rand(5), lg.rand(5))
    x = lg.ones(1000)
    dropped = LF.dropout(x, 0.25).numpy()
    assert (
        set(numpy.unique(dropped)) == {0.0, numpy.float32(1 / 0.75)}
        and 150 < (dropped == 0).sum() < 350
    )
    assert 200 < lg.bernoulli(x * 0.3).sum().item() < 400
    draws = lg.multinomial(lg.tensor([0.0, 1.0, 3.0]), 2).tolist()
    assert sorted(draws) == [1, 2]
    assert abs(lg.empty(4000, dtype=lg.float64).normal_(5, 2).mean().item() - 5) < 0.2
    assert lg.empty(100).uniform_(2, 3).min().item() >= 2
