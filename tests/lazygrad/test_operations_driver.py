"""The driver of the operation records can fail: right records pass, each kind of lie is found."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch

import lazygrad
from tests.lazygrad.operations.checks import CHECKS
from tests.lazygrad.operations.record import (
    FLOATS,
    REALS,
    ErrorInput,
    OperationRecord,
    sample,
)

RIGHT = [
    OperationRecord(
        "lerp", lambda make: [sample(make(3, 4), make(3, 4), 0.25), sample(make(2), make(2), 2)],
        FLOATS, ("float64",), method=True, inplace=True, compile=True,
        errors=(ErrorInput(sample(numpy.ones(3), numpy.ones(4), 0.5), RuntimeError, r"\[lerp\]"),),
    ),
    OperationRecord("max", lambda make: [sample(make(3, 4), 1)], REALS, ("float64",), method=True),
    OperationRecord("mul", lambda make: [sample(make(3, 4), make(4))], REALS, ("float64",),
                    inplace=True),
    OperationRecord("sigmoid", lambda make: [sample(make(3, 4))], FLOATS, special=True),
    OperationRecord("t", lambda make: [sample(make(3, 4))], REALS, view=True),
    OperationRecord("chunk", lambda make: [sample(make(4, 3), 2, dim=0)], view=True),
    OperationRecord("cat", lambda make: [sample([make(2, 3), make(1, 3)])]),
    OperationRecord("nn.functional.softmax", lambda make: [sample(make(3), 0, dtype="float64")]),
    OperationRecord("Tensor.masked_fill",
                    lambda make: [sample(make(3, 4), make.mask(3, 4), 0.5)], inplace=True),
    OperationRecord("exp", lambda make: [sample(make(3))], reference=numpy.exp, special=True),
]


@pytest.mark.parametrize("record", RIGHT, ids=lambda record: record.identity)
def test_right_records_pass(record):
    for name, (check, applies) in CHECKS.items():
        if applies(record):
            assert not check(record), name


def lie(change, **others):
    """A record whose call does `change(x)` in lazygrad and nothing in PyTorch."""

    def call(library, x, *rest, **keywords):
        return change(x, *rest, **keywords) if library is lazygrad else x * 1

    return OperationRecord(
        "mul", lambda make: [sample(make(3, 4))], call=call, special=True, compile=True, **others
    )


def wrong_strides(x):
    return x * 1 if x.is_contiguous() else x * 2


def wrong_for_nan(x):
    return lazygrad.nan_to_num(x)


def wrong_gradient(x):
    return x.detach() * 2 - x


class _FlatSecond(lazygrad.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 3 * x.detach() ** 2 * gradient


def cube(library, x):
    return _FlatSecond.apply(x) if library is lazygrad else x ** 3


def other_when_compiled(x):
    from lazygrad._core.capture import recording
    return x * 1 if recording() is None else x + 1


LIES = [
    ("name", OperationRecord("no_such_name", lambda make: [sample(make(3))])),
    ("name", OperationRecord("linalg.no_such_name", lambda make: [sample(make(3))])),
    ("name", OperationRecord("Tensor.no_such_name", lambda make: [sample(make(3))])),
    ("values", OperationRecord("no_such_name", lambda make: [sample(make(3))])),
    ("values", OperationRecord("mul", lambda make: [])),
    ("values", OperationRecord("mul", lambda make: [sample(make(3), "no tensor")])),
    ("values", lie(lambda x: x * 1.001)),
    ("values", lie(lambda x: x.double() if x.dtype == lazygrad.float32 else x)),
    ("values", lie(lambda x: x[None])),
    ("values", lie(lambda x: x.reshape(4, 3))),
    ("values", lie(lambda x: (x, x))),
    ("values", lie(lambda x: 1.0)),
    ("values", lie(lambda x: x * float("nan"))),
    ("values", lie(lambda x: lazygrad.matmul(x, x))),
    ("values", OperationRecord("max", lambda make: [sample(make(3, 4), 1)],
                               call=lambda library, x, d: library.max(x, d) if library is torch
                               else tuple(lazygrad.max(x, d)))),
    ("values", OperationRecord("exp", lambda make: [sample(make(3))], reference=numpy.sin)),
    ("strided", lie(wrong_strides)),
    ("special", lie(wrong_for_nan)),
    ("gradients", lie(wrong_gradient)),
    ("gradients", lie(lambda x: x.detach() * 1)),
    ("gradients", OperationRecord("isnan", lambda make: [sample(make(3))])),
    ("gradients", OperationRecord("exp", lambda make: [sample(make(3))], reference=numpy.exp,
                                  call=lambda library, x: x.detach().exp() + x)),
    ("second", OperationRecord("pow", lambda make: [sample(make(3))], call=cube)),
    ("second", OperationRecord("pow", lambda make: [sample(make(3))], call=cube,
                               reference=lambda x: x ** 3)),
    ("errors", replace(RIGHT[0], errors=(
        ErrorInput(sample(1.0, 2.0), TypeError, "no such text"),))),
    ("errors", replace(RIGHT[2], errors=(
        ErrorInput(sample(numpy.ones(3), numpy.ones(3)), RuntimeError),))),
    ("compiled", lie(other_when_compiled)),
    ("view", OperationRecord("flip", lambda make: [sample(make(3, 4))], view=True,
                             call=lambda library, x: x.clone() if library is lazygrad else x[:])),
]


@pytest.mark.parametrize("check, record", LIES, ids=[f"{each[0]}-{number}"
                                                     for number, each in enumerate(LIES)])
def test_lies_are_found(check, record):
    found = CHECKS[check][0](record)
    assert found and all(record.name in text for text in found)


def _method_lies():
    """(check, ours, theirs): what `Tensor.lied_` and `Tensor.lied` are in the two libraries."""
    def right(x):
        return x.mul_(2)

    yield "inplace", lambda x: x * 2, right
    yield "inplace", lambda x: x.mul_(3), right
    yield "inplace", lambda x: x.copy_(x.detach() * 2), right
    yield "inplace", right, lambda x: x.unsqueeze(0)[0, 0, 0, 0].mul_(2)
    yield "method", lambda x: x * 3, lambda x: x * 2


@pytest.mark.parametrize("check, ours, theirs", list(_method_lies()))
def test_lies_of_methods_are_found(monkeypatch, check, ours, theirs):
    for kind, function in ((lazygrad.Tensor, ours), (torch.Tensor, theirs)):
        monkeypatch.setattr(kind, "lied_" if check == "inplace" else "lied", function,
                            raising=False)
    record = OperationRecord("lied", lambda make: [sample(make(3, 4))])
    assert CHECKS[check][0](record)


def _out_lies():
    def right(x, out=None):
        result = x * 2
        return result if out is None else out.copy_(result)

    def theirs(x, out=None):
        return torch.mul(x, 2, out=out)

    yield lambda x, out=None: x * 2
    yield lambda x, out=None: x * 2 if out is None else (out.copy_(x * 2), x * 2)[1]
    yield lambda x, out=None: x * 2 if out is None else out.copy_(x * 3)
    yield right  # converts into a bool place, keeps the wrong shape of an empty one


@pytest.mark.parametrize("ours", list(_out_lies()))
def test_lies_of_out_are_found(monkeypatch, ours):
    monkeypatch.setattr(lazygrad, "lied", ours, raising=False)
    monkeypatch.setattr(torch, "lied", lambda x, out=None: torch.mul(x, 2, out=out), raising=False)
    record = OperationRecord("lied", lambda make: [sample(make(3, 4))], out=True)
    assert CHECKS["out"][0](record)


def test_one_broken_sample_leaves_the_others():
    """A sample that fails in the running program is named alone, and poisons nothing after it."""
    record = OperationRecord(
        "take", lambda make: [sample(make(4), numpy.array([1, 2])), sample(make(4), bad)],
        ("float32",), call=lambda library, x, index: x[index],
    )
    bad = numpy.array([1, 9])
    found = CHECKS["values"][0](record)
    assert len(found) == 1 and "sample 1" in found[0]
    assert not CHECKS["values"][0](RIGHT[2])


def test_halves_that_torch_lacks_are_compared_in_float32():
    from tests.lazygrad.operations import checks
    from tests.lazygrad.operations.libraries import TORCH

    def call(library, x):
        if library is torch and x.dtype == torch.float16:
            raise RuntimeError('"thing_cpu" not implemented for \'Half\'')
        return x * 1

    record = OperationRecord("mul", lambda make: [sample(make(3))], ("float16",), call=call)
    assert not checks.check_values(record)
    case = checks.Case(
        "", "float16", sample(numpy.ones(3, numpy.float16)),
        lambda library, given: call(library.module, *library.convert(given.arguments)),
    )
    assert "Half" in checks._attempt(case, TORCH)[1]
