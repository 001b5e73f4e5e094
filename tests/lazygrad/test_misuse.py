"""Arguments of a wrong kind, as random calls compared with PyTorch's found them: flags that are
numbers, dims that are flags, dtypes in place of tensors, NumPy's integers, constructors' mistakes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad._core.context import operation
from lazygrad._core.entries import Entry
from lazygrad.nn import functional as F
from lazygrad.utils import data

HERE = re.escape(Path(__file__).name)
INFINITY, NAN = float("inf"), float("nan")


def table() -> lg.Tensor:
    return lg.arange(6.0).reshape(2, 3)


MISUSES: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "two dims by position": (TypeError, r"\[sum\] keepdim is True or False, not 1.*dim=\(0, 1\)",
                             lambda: table().sum(0, 1)),
    "two dims of a maximum": (TypeError, r"\[amax\] keepdim", lambda: table().amax(0, 1)),
    "descending by number": (TypeError, r"\[sort\] descending", lambda: table().sort(1, 1)),
    "largest by word": (TypeError, r"\[topk\] largest", lambda: table().topk(1, largest="no")),
    "keepdim as dim": (TypeError, r"\[sum\] dim is a whole number, not bool",
                       lambda: table().sum(True)),
    "dim is a flag": (TypeError, r"\[softmax\] dim", lambda: F.softmax(table(), True)),
    "dim is a dict": (TypeError, r"\[sum\] dim", lambda: table().sum({})),
    "a flag as a size": (TypeError, r"\[ones\] sizes", lambda: lg.ones(True)),
    "bytes as sizes": (TypeError, r"\[zeros\] sizes", lambda: lg.zeros(b"x")),
    "parts of no whole size": (TypeError, r"\[split\] sizes", lambda: table().split([1.5, 1.5], 1)),
    "indices without a tuple": (TypeError, r"\[index_put_\].*\(indices,\)",
                                lambda: table().index_put(lg.tensor([0]), lg.tensor(1.0))),
    "a dtype for a tensor": (TypeError, r"\[clone\] takes no DType",
                             lambda: lg.clone(lg.float32)),  # type: ignore[arg-type]
    "numbers to be joined": (TypeError, r"\[hstack\] takes no int", lambda: lg.hstack(range(3))),
    "is a number complex": (TypeError, r"\[is_complex\] takes no int", lambda: lg.is_complex(3)),
    "is a dtype complex": (TypeError, r"\[is_complex\]", lambda: lg.is_complex(lg.float32)),
    "promoting no dtypes": (TypeError, r"\[promote_types\]", lambda: lg.promote_types([], 1)),
    "casting to no dtype": (TypeError, r"\[can_cast\]", lambda: lg.can_cast(lg.float32, 1j)),
    "an array of text": (TypeError, r"\[chunk\]", lambda: table().chunk(numpy.array(["a"]))),
    "an empty shape beyond NumPy's": (RuntimeError, r"\[ones\].*more than memory",
                                      lambda: lg.ones(1 << 62, 0, 3).numpy()),
    "a matrix norm of three axes": (RuntimeError, r"\[linalg.norm\].*vector_norm",
                                    lambda: lg.linalg.norm(lg.ones(2, 2, 2), 2, (0, 1, 2))),
    "bounds the wrong way round": (ValueError, r"\[hardtanh\]", lambda: F.hardtanh(table(), 3.0)),
    "a histogram of NaN": (ValueError, r"\[histc\] the range of the values is not finite",
                           lambda: lg.histc(lg.tensor([1.0, NAN])).numpy()),
    "a histogram of infinity": (ValueError, r"\[histogram\] the range",
                                lambda: lg.histogram(lg.tensor([1.0, INFINITY]), 4)[0].numpy()),
    "groups that do not divide": (ValueError, r"\[Conv2d\] in_channels 3",
                                  lambda: nn.Conv2d(3, 4, 3, groups=2)),
    "a probability of text": (TypeError, r"\[Dropout\]", lambda: nn.Dropout("x")),
    "more layers than there is time": (ValueError, r"\[TransformerEncoder\] num_layers",
                                       lambda: nn.TransformerEncoder(nn.Linear(1, 1), 1 << 62)),
    "a recurrence of many layers": (ValueError, r"\[GRU\] num_layers",
                                    lambda: nn.GRU(1, 1, num_layers=1 << 40)),
    "a module for parameters": (TypeError, r"\[SGD\].*model.parameters\(\)",
                                lambda: optim.SGD(nn.Linear(1, 1))),
    "a group without parameters": (ValueError, r"\[Adam\].*\"params\".*'lr'",
                                   lambda: optim.Adam([{"lr": 1.0}])),
    "a schedule of nothing": (TypeError, r"\[StepLR\]", lambda: optim.lr_scheduler.StepLR(None, 1)),
    "clipping numbers": (TypeError, r"\[clip_grad_norm_\] takes no int",
                         lambda: nn.utils.clip_grad_norm_([2], 1.0)),
    "no lengths": (TypeError, r"\[random_split\]", lambda: data.random_split([1, 2], 3)),
    "a data set of numbers": (TypeError, r"\[ConcatDataset\]", lambda: data.ConcatDataset(3)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_told(name: str) -> None:
    kind, pattern, misuse = MISUSES[name]
    with pytest.raises(kind, match=f"(?s)^{pattern}") as caught:
        misuse()
    assert re.search(rf"{HERE}:\d+", str(caught.value)), caught.value


def test_a_users_class_of_ours_is_called_by_our_name_and_line() -> None:
    class Mine(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, "x")  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=rf"sizes are whole numbers.*{HERE}"):
        Mine()


def test_an_error_of_a_users_constructor_is_theirs() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        Mine()


def test_a_warning_of_numpy_that_is_an_error_stays_itself() -> None:
    class Items(Entry):
        __module__ = "lazygrad.items"

        def __init__(self) -> None:
            self.items = numpy.array([1j]).astype(float)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(numpy.exceptions.ComplexWarning):
            Items()


def test_a_mistake_with_numpy_s_integers_is_told_once() -> None:
    with pytest.raises(IndexError, match=r"\[sum\] dim 7") as caught:
        table().sum(numpy.int64(7))
    assert caught.value.__context__ is None


def test_a_user_s_function_that_fails_is_not_called_again() -> None:
    calls = []

    @operation
    def calling_back(number: Any) -> Any:
        calls.append(number)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        calling_back(numpy.int64(3))
    assert len(calls) == 1


NUMPY_INTEGERS: dict[str, Callable[[Any], Any]] = {
    "eye": lambda n: lg.eye(n(3), n(2)),
    "chunk": lambda n: table().chunk(n(2), n(1))[0],
    "one_hot": lambda n: F.one_hot(lg.tensor([1, 0]), n(3)),
    "group_norm": lambda n: F.group_norm(lg.arange(8.0).reshape(1, 4, 2), n(2)),
    "movedim": lambda n: table().movedim(n(0), n(1)),
    "squeeze": lambda n: table()[None].squeeze(n(0)),
    "roll": lambda n: table().roll(n(1), n(1)),
    "bincount": lambda n: lg.bincount(lg.tensor([1, 1]), minlength=n(4)),
    "diag": lambda n: lg.diag(lg.ones(2), n(1)),
    "linspace": lambda n: lg.linspace(0.0, 1.0, n(5)),
    "split_with_sizes": lambda n: table().split_with_sizes([n(1), n(2)], n(1))[1],
    "split_with_sizes_copy": lambda n: lg.split_with_sizes_copy(table(), [n(1), n(2)], 1)[1],
    "conv_transpose": lambda n: F.conv_transpose1d(lg.ones(1, 2, 3), lg.ones(2, 1, 2),
                                                   groups=n(2)),
    "fftn": lambda n: lg.fft.fftn(table(), n(2)).real,
}


@pytest.mark.parametrize("name", NUMPY_INTEGERS)
def test_numpy_integers_are_integers(name: str) -> None:
    """Sizes come from arithmetic with NumPy as often as not."""
    call = NUMPY_INTEGERS[name]
    assert numpy.array_equal(call(numpy.int64).numpy(), call(int).numpy())


def test_the_norm_of_complex_gradients_is_real() -> None:
    weight = lg.tensor([3 + 4j, 0j], requires_grad=True)
    weight.grad = lg.tensor([3 + 4j, 12j])
    total = nn.utils.clip_grad_norm_(weight, 1.0)
    assert total.dtype is lg.float32 and total.item() == pytest.approx(13.0)
    assert numpy.allclose(weight.grad.abs().numpy(), [5 / 13, 12 / 13])


def test_flags_of_numpy_are_flags() -> None:
    assert table().sum(0, numpy.bool_(True)).shape == (1, 3)


def test_lu_of_a_singular_matrix_is_its_factors() -> None:
    factors, pivots = lg.lu(lg.ones(2, 2))  # type: ignore[attr-defined]
    assert numpy.array_equal(factors.numpy(), [[1, 1], [1, 0]]) and pivots.tolist() == [1, 2]
