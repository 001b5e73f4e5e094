"""Mixed precision: dtypes within autocast as PyTorch has them, and the scaler's bookkeeping."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

import lazygrad as lg

LIBRARIES = (lg, torch)


def _name(dtype) -> str:
    return str(dtype).removeprefix("torch.").removeprefix("lazygrad.")


@pytest.mark.parametrize("run", [
    lambda library, x: x @ x,
    lambda library, x: library.nn.functional.linear(x, x),
    lambda library, x: library.bmm(x[None], x[None]),
    lambda library, x: x + x,
    lambda library, x: library.softmax(x @ x, 0),
    lambda library, x: library.nn.functional.mse_loss(x @ x, x),
    lambda library, x: x.double() @ x.double(),
    lambda library, x: library.nn.functional.conv1d(x[None], x[:, :, None]),
], ids=["matmul", "linear", "bmm", "add", "softmax", "mse_loss", "float64", "conv1d"])
def test_dtypes_within(run):
    found = []
    for library in LIBRARIES:
        with library.autocast("cpu", dtype=library.bfloat16):
            assert library.is_autocast_enabled("cpu")
            found.append(_name(run(library, library.ones(4, 4)).dtype))
        assert not library.is_autocast_enabled("cpu")
    assert found[0] == found[1]


def test_gradients_come_back_in_the_parameters_dtype():
    layer = lg.nn.Linear(3, 2)
    with lg.autocast("cpu"):
        loss = layer(lg.ones(4, 3)).float().sum()
    loss.backward()
    assert layer.weight.grad.dtype is lg.float32
    numpy.testing.assert_allclose(layer.weight.grad.numpy(), 4.0)


def test_compiled_functions_tell_the_modes_apart():
    compiled = lg.compile(lambda x: x @ x)
    x = lg.ones(2, 2)
    plain = compiled(x).dtype
    with lg.autocast("cpu"):
        lowered = compiled(x).dtype
    assert (plain, lowered, compiled(x).dtype) == (lg.float32, lg.bfloat16, lg.float32)


def test_nested_and_switched_off():
    x = lg.ones(2, 2)
    with lg.autocast("cpu"):
        with lg.autocast("cpu", enabled=False):
            assert (x @ x).dtype is lg.float32
        assert (x @ x).dtype is lg.bfloat16


def test_the_scaler_against_torch():
    """Scale and weights through good steps and one that overflows."""
    found = []
    for library in LIBRARIES:
        weight = library.nn.Parameter(library.tensor([1.0, 2.0]))
        optimizer = library.optim.SGD([weight], lr=0.5)
        scaler = library.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        history = []
        for factor in (1.0, 1.0, math.inf, 0.5):
            optimizer.zero_grad()
            scaler.scale((weight * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            history += [scaler.get_scale(), *weight.tolist()]
        found.append((history, scaler.state_dict()))
    assert found[0] == found[1]


def test_a_scaler_for_an_absent_device_hands_through():
    scaler = lg.amp.GradScaler()
    loss = lg.tensor(3.0)
    assert not scaler.is_enabled()
    assert scaler.scale(loss) is loss
