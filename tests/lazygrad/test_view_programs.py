"""Random programs of views and in-place writes, with and without gradients, as torch runs them."""

from __future__ import annotations

import random

import numpy
import pytest
import torch

import lazygrad as lg


def view_steps(chooser, shape):
    """One random view: a function of a tensor of that shape."""
    choices = ["transpose", "slice", "unsqueeze", "flat", "select", "split"]
    kind = chooser.choice(choices if shape else ["unsqueeze"])
    axis = chooser.randrange(len(shape)) if shape else 0
    if kind == "transpose":
        other = chooser.randrange(len(shape))
        return lambda x: x.transpose(axis, other)
    if kind == "slice":
        start = chooser.randrange(shape[axis] + 1)
        step = chooser.choice([1, 1, 2, 3])
        return lambda x: x[(slice(None),) * axis + (slice(start, None, step),)]
    if kind == "unsqueeze":
        return lambda x: x.unsqueeze(axis)
    if kind == "flat":
        return lambda x: x.reshape(-1)
    if kind == "select" and shape[axis]:
        place = chooser.randrange(-shape[axis], shape[axis])
        return lambda x: x.select(axis, place)
    return lambda x: x.narrow(axis, 0, -(-shape[axis] // 2))


WRITES = [
    lambda t, x, k: x.add_(k),
    lambda t, x, k: x.mul_(1 + k / 10),
    lambda t, x, k: x.zero_(),
    lambda t, x, k: x.fill_(k),
    lambda t, x, k: x.copy_(t.arange(float(x.numel())).reshape(x.shape)),
    lambda t, x, k: x.masked_fill_(x > k, -1),
    lambda t, x, k: x.sub_(x.mean() if x.numel() else 0),
    lambda t, x, k: x.clamp_(-k, k),
    lambda t, x, k: x.__setitem__(..., x * 2),
    lambda t, x, k: x.__setitem__(x > k, 0.5),
    lambda t, x, k: x.atan_(),
]


def run(t, seed, grad):
    chooser = random.Random(seed)
    shape = tuple(chooser.randrange(1, 4) for _ in range(chooser.randrange(1, 4)))
    start = t.tensor(
        numpy.random.default_rng(seed).normal(size=shape).astype(numpy.float32), requires_grad=grad
    )
    handles = [start * 1.5 if grad else start]
    for _ in range(10):
        source = chooser.choice(handles)
        if chooser.random() < 0.5:
            handles.append(view_steps(chooser, tuple(source.shape))(source))
        else:
            chooser.choice(WRITES)(t, source, chooser.randrange(1, 4))
    results = [each.detach().numpy() for each in handles]
    if grad:
        total = sum((each * each).sum() for each in handles)
        total.backward()
        # torch has zeros where everything was overwritten, we have nothing.
        results.append(numpy.zeros(shape) if start.grad is None else start.grad.numpy())
    return results


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_random_program(seed, grad):
    for want, have in zip(run(torch, seed, grad), run(lg, seed, grad), strict=True):
        assert want.shape == have.shape
        numpy.testing.assert_allclose(have, want, 1e-4, 1e-5)
