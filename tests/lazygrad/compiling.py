"""What the tests of `lazygrad.compile` share: functions that count runs, a model, a trainer."""

import functools
import math

import numpy

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad.nn import functional


def same(left, right, tolerance=0.0):
    left, right = lg.as_tensor(left), lg.as_tensor(right)
    assert left.shape == right.shape and left.dtype == right.dtype
    numpy.testing.assert_allclose(left.detach().numpy(), right.detach().numpy(), rtol=tolerance,
                                  atol=tolerance)


def counted(function):
    """The function, and a list that grows by one for each run of its Python code."""
    runs = []

    @functools.wraps(function)
    def run(*arguments, **keywords):
        runs.append(None)
        return function(*arguments, **keywords)

    return run, runs


def numbers(*shape):
    count = math.prod(shape)
    return lg.from_numpy((numpy.arange(count, dtype=numpy.float32) - count / 3).reshape(shape))


def small_model():
    lg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4),
                         nn.Linear(8, 2))


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "dampened": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
}


class Trainer:
    """A model, its optimiser and a step; `compiled` or not."""

    def __init__(self, optimizer, compiled, schedule=None, set_to_none=True):
        self.model = small_model()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = schedule(self.optimizer) if schedule else None
        self.set_to_none = set_to_none
        self.compiled = compiled
        self.step = lg.compile(self.train) if compiled else self.train
        self.losses = []

    def train(self, x, y):
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, steps, seed=1):
        lg.manual_seed(seed)
        for _ in range(steps):
            x = lg.randn(12, 4)
            self.losses.append(self.step(x, (x.sum(1) > 0).long()).item())
            if self.schedule:
                self.schedule.step()
        return self

    def everything(self):
        state = {f"{number}.{name}": value
                 for number, values in self.optimizer.state_dict()["state"].items()
                 for name, value in values.items()}
        gradients = {f"gradient.{name}": parameter.grad
                     for name, parameter in self.model.named_parameters()}
        return {**self.model.state_dict(), **state, **gradients}


def check_equal(compiled, eager):
    numpy.testing.assert_allclose(compiled.losses, eager.losses, rtol=1e-6, atol=1e-6)
    left, right = compiled.everything(), eager.everything()
    assert list(left) == list(right)
    for name in left:
        numpy.testing.assert_allclose(left[name].numpy(), right[name].numpy(), rtol=1e-6,
                                      atol=1e-6, err_msg=name)
    assert compiled.optimizer.steps_taken == eager.optimizer.steps_taken
