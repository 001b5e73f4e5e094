"""Classic mistakes: the message names the operation, what met, the user's line, and a way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn
from lazygrad.nn import functional as F


def leaf() -> lg.Tensor:
    return lg.ones(3, requires_grad=True)


def twice() -> None:
    loss = (leaf() ** 2).sum()
    loss.backward()
    loss.backward()


MISTAKES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "images not flattened": (lambda: nn.Linear(784, 5)(lg.ones(3, 28, 28)),
                             ["[Linear]", "784", "(3, 28, 28)", "x.flatten(1)"]),
    "channels last": (lambda: nn.Conv2d(3, 8, 3)(lg.ones(1, 8, 8, 3)),
                      ["[Conv2d]", "expects 3", "(1, 8, 8, 3)", "x.movedim(-1, 1)"]),
    "kernel too large": (lambda: nn.Conv2d(3, 8, 5)(lg.ones(1, 3, 4, 4)), ["[conv2d]", "5", "4"]),
    "cat": (lambda: lg.cat([lg.ones(2, 3), lg.ones(2, 4)]), ["[cat]", "(2, 3)", "(2, 4)"]),
    "float64 from NumPy": (lambda: nn.Linear(3, 2)(lg.from_numpy(numpy.ones((4, 3)))),
                           ["[Linear]", "float64", "float32", "x.to(lazygrad.float32)"]),
    "mean of integers": (lambda: lg.arange(5).mean(), ["[mean]", "int64", ".float()"]),
    "floats as indices": (lambda: nn.Embedding(10, 3)(lg.ones(2)),
                          ["[Embedding]", "float32", "x.long()"]),
    "floats as classes": (lambda: F.cross_entropy(lg.ones(4, 3), lg.ones(4)),
                          ["[cross_entropy]", "(4,)", "float32", "target.long()"]),
    "wrong number of classes": (lambda: F.cross_entropy(lg.ones(4, 3), lg.ones(5).long()),
                                ["[cross_entropy]", "(5,)", "(4, 3)"]),
    "class out of range": (lambda: F.cross_entropy(lg.ones(2, 3), lg.tensor([0, 3])).item(),
                           ["index 3", "size 3"]),
    "in place on a leaf": (lambda: leaf().add_(1), ["[add_]", "leaf", "no_grad()"]),
    "backward twice": (twice, ["[backward]", "second time", "retain_graph=True"]),
    "backward without gradients": (lambda: lg.ones(3).sum().backward(),
                                   ["[backward]", "requires_grad=True"]),
    "backward from a vector": (lambda: (leaf() * 2).backward(), ["[backward]", "(3,)", ".sum()"]),
    "no such device": (lambda: lg.ones(3).to("gpu"), ["[to]", "gpu", "'cpu'"]),
    "NumPy with gradients": (lambda: leaf().numpy(), ["[numpy]", "x.detach().numpy()"]),
    "index out of range": (lambda: lg.ones(3, 4)[3], ["[index]", "3", "(3, 4)"]),
    "floats as an index": (lambda: lg.ones(3, 4)[lg.ones(2)], ["[index]", "float32", ".long()"]),
    "truth of many": (lambda: bool(lg.ones(3) > 0), ["[bool]", "(3,)", ".any()"]),
    "view of a transpose": (lambda: lg.ones(3, 4).t().view(12), ["[view]", ".reshape(...)"]),
    "float into integers": (lambda: lg.arange(3).add_(0.5), ["[add_]", "float32", "int64"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_message_helps(name: str) -> None:
    mistake, parts = MISTAKES[name]
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)) as error:
        mistake()
    text = str(error.value)
    for part in parts:
        assert part in text, text
    assert f"{Path(__file__).name}:" in text, text


def test_a_module_is_not_its_parameters() -> None:
    with pytest.raises(TypeError, match=r"got Linear; pass model.parameters\(\)"):
        lg.optim.SGD(nn.Linear(2, 2), lr=0.1)  # type: ignore[arg-type]


def test_warnings_name_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        F.mse_loss(lg.ones(3, 1), lg.ones(3))
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    assert "broadcasting" in str(caught[0].message)
