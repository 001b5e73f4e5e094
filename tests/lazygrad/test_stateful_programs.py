"""State as PyTorch has it: random programs, and what they have shown to be wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lazygrad as lg
from tests.lazygrad import stateful_programs

BOTH = pytest.mark.parametrize("t", [torch, lg])


def check(seed: int) -> None:
    statements, looks = stateful_programs.program(seed)
    found = stateful_programs.compare(statements, looks)
    if found is not None:
        statements, looks = stateful_programs.reduced(statements[:found.step + 1],
                                                      looks[:found.step + 1])
        found = stateful_programs.compare(statements, looks)
        assert found is not None
        shown = "\n".join(f"{'*' if look else ' '} {statement}"
                          for look, statement in zip(looks, statements, strict=True))
        pytest.fail(f"seed {seed}, step {found.step} of\n{shown}\n{found.what}")


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_many_random_programs(first: int) -> None:
    for seed in range(first, first + 50):
        check(seed)


WRITES = ["y.mul_(3)", "y.fill_(3)", "y[0] = 4", "y.copy_(t.zeros(3))", "y.clamp_(0, 1)"]


@BOTH
@pytest.mark.parametrize("statement", WRITES)
def test_writes_without_grad_mode_leave_the_history(t: Any, statement: str) -> None:
    p = t.ones(3).requires_grad_()
    y = p * 2
    z = y * 1
    with t.no_grad():
        for _ in range(3):
            exec(statement)
    assert y.requires_grad and not y.is_leaf
    (y.sum() + z.sum()).backward()
    assert p.grad.tolist() == [4.0, 4.0, 4.0]


@BOTH
def test_writes_to_data_leave_the_history(t: Any) -> None:
    p = t.ones(3).requires_grad_()
    y = p * 2
    y.data.mul_(5)
    y.detach()[1:] = 7
    assert y.tolist() == [10.0, 7.0, 7.0]
    y.sum().backward()
    assert p.grad.tolist() == [2.0, 2.0, 2.0]


@BOTH
def test_many_writes_without_grad_mode_keep_one_value(t: Any) -> None:
    """What was there before each of them is not kept."""
    p = t.ones(3).requires_grad_()
    y = p * 2
    for number in range(2000):
        with t.no_grad():
            y.fill_(float(number))
    y.sum().backward()
    assert p.grad.tolist() == [2.0, 2.0, 2.0] and y.tolist() == [1999.0] * 3


@BOTH
def test_data_gets_values_but_no_history(t: Any) -> None:
    p = t.ones(3).requires_grad_()
    statistics = t.zeros(3)
    for _ in range(2):
        statistics.data.copy_(p * 2)
        assert not statistics.requires_grad and statistics.tolist() == [2.0, 2.0, 2.0]
        statistics.data[0] = p.sum()
        assert not statistics.requires_grad and statistics.tolist() == [3.0, 2.0, 2.0]
    p.data.add_(p * 3)
    assert p.is_leaf and p.tolist() == [4.0, 4.0, 4.0]


@BOTH
def test_a_detached_tensor_gets_a_history_of_its_own(t: Any) -> None:
    p = t.ones(3).requires_grad_()
    base = p * 2
    alias = base.detach()
    alias += p * 3
    assert base.tolist() == alias.tolist() == [5.0, 5.0, 5.0]
    alias[0] = 1  # writes are seen by both from here on
    base[1] = 2
    assert base.tolist() == alias.tolist() == [1.0, 2.0, 5.0]
    base.sum().backward(retain_graph=True)
    assert p.grad.tolist() == [2.0, 0.0, 2.0]
    part = p.detach().clone()
    part.detach_()
    part[..., 0] = p.sum()
    assert part.requires_grad
    part.sum().backward()
    assert p.grad.tolist() == [3.0, 1.0, 3.0]


@BOTH
def test_data_set_to_a_tensor_shares_its_memory(t: Any) -> None:
    source = t.zeros(2, 3)
    p = t.ones(3).requires_grad_()
    p.data = source[1]
    with t.no_grad():
        p.add_(1)
    assert source.tolist() == [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    source.fill_(4)
    assert p.tolist() == [4.0, 4.0, 4.0] and p.is_leaf and p.requires_grad
    (p * 2).sum().backward()
    assert p.grad.tolist() == [2.0, 2.0, 2.0] and source.grad is None
    p.data = (t.ones(2).requires_grad_() * 3)
    assert p.is_leaf and p.tolist() == [3.0, 3.0]


def test_what_data_cannot_be() -> None:
    p = lg.ones(3).requires_grad_()
    with pytest.raises(lg.TensorError, match=r"\[data\] a tensor that requires gradients cannot "
                                             r"be int64"):
        p.data = lg.arange(3)
    with pytest.raises(TypeError, match=r"\[data\] data is a tensor, not list"):
        p.data = [1.0, 2.0]


@BOTH
def test_expanded_tensors_are_filled(t: Any) -> None:
    x = t.arange(3.0)
    x[:, None].expand(3, 4).fill_(2.5)
    assert x.tolist() == [2.5, 2.5, 2.5]
    x[0].expand(2, 2).zero_()
    assert x.tolist() == [0.0, 2.5, 2.5]


@BOTH
def test_gradients_with_a_history_keep_it_when_more_are_added(t: Any) -> None:
    x = t.arange(3.0).requires_grad_()
    (x * x).sum().backward(create_graph=True)
    first = x.grad
    x.sum().backward()
    assert x.grad is first and first.tolist() == [1.0, 3.0, 5.0] and not first.is_leaf
    second, = t.autograd.grad(first.sum(), x)
    assert second.tolist() == [2.0, 2.0, 2.0]
