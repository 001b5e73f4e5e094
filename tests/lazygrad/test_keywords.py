"""Every keyword that PyTorch's functions and methods take, ours take, too: compared with the
signatures that PyTorch ships for type checkers.
"""

from __future__ import annotations

import ast
import copy
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import lazygrad as lg
from lazygrad._core.keywords import parameters_of

FOLDER = Path(os.path.dirname(torch.__file__)) / "_C"

LEFT_OUT = {
    "out": "served outside of the functions, and tested with each of them",
    "names": "named tensors, which PyTorch gave up",
    "out_dtype": "products on a GPU alone",
    "implicit": "of TorchScript",
    "storage": "PyTorch's storage model", "storage_offset": "PyTorch's storage model",
}
ELSEWHERE = {
    "Tensor.new": "a constructor by position", "Tensor._make_subclass": "internal",
    "Tensor.set_": "PyTorch's storage model", "Tensor.to": "PyTorch itself refuses other=",
    "torch.embedding_bag": "that of nn.functional", "torch.result_type": "of numbers, by position",
    "torch.set_num_threads": "by position",
}


def signatures(body: list[ast.stmt]) -> list[tuple[str, list[str]]]:
    """(name, what it takes by keyword) of every overload."""
    return [(one.name, [each.arg for each in (*one.args.args, *one.args.kwonlyargs)])
            for one in body if isinstance(one, ast.FunctionDef)]


def stub(name: str) -> list[ast.stmt]:
    return ast.parse((FOLDER / name).read_text(encoding="utf-8")).body


def problem(function: Any, words: list[str], method: bool) -> str:
    """Why a call by keywords alone would not do."""
    inner = inspect.unwrap(function)
    parameters = parameters_of(inner)
    arguments: tuple = (None,) if method else ()
    keywords = dict.fromkeys(words)
    try:
        if parameters is not None:
            arguments, keywords = parameters.respelled(arguments, keywords)
        inspect.signature(inner).bind_partial(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("where", ["torch", "Tensor"])
def test_keywords_are_pytorchs(where: str) -> None:
    if not (FOLDER / "_VariableFunctions.pyi").exists():
        pytest.skip("PyTorch came without its signatures")
    body, holder = stub("_VariableFunctions.pyi"), lg
    if where == "Tensor":
        (body,) = [each.body for each in stub("__init__.pyi")
                   if isinstance(each, ast.ClassDef) and each.name == "TensorBase"]
        holder = lg.Tensor
    problems, seen = [], 0
    for name, taken in signatures(body):
        function = getattr(holder, name, None)
        if name.startswith("__") or f"{where}.{name}" in ELSEWHERE or not callable(function):
            continue
        words = [word for word in taken if word not in LEFT_OUT
                 and not (where == "Tensor" and word == "self")]
        why = problem(function, words, where == "Tensor")
        seen += 1
        if why:
            problems.append(f"{where}.{name}({', '.join(words)}): {why}")
    assert seen > 500
    assert not problems, "\n".join(problems)


def test_a_missing_keyword_is_seen() -> None:
    assert "flavour" in problem(lg.flip, ["input", "flavour"], False)
    assert "pin_memory" in problem(lg.add, ["input", "other", "pin_memory"], False)


def both(call: Any) -> tuple[Any, Any]:
    return call(torch), call(lg)


@pytest.mark.parametrize("call", [
    lambda t: t.flip(t.arange(6).reshape(2, 3), dims=[0]),
    lambda t: t.permute(dims=(1, 0), input=t.arange(6).reshape(2, 3)),
    lambda t: t.arange(6).reshape(shape=(2, 3)).view(size=(3, 2)).repeat(repeats=(1, 2)),
    lambda t: t.ones(3).view(dtype=t.int32),
    lambda t: t.pow(t.arange(3.0), exponent=2),
    lambda t: t.mean(t.arange(6.0).reshape(2, 3), axis=0, keepdims=True),
    lambda t: t.cat(t.tensor_split(t.arange(5), sections=2), axis=0),
    lambda t: t.zeros_like(t.ones(2), layout=t.strided, pin_memory=False),
    lambda t: t.softmax(t.arange(3.0), 0, t.float64),
    lambda t: t.embedding(t.arange(6.0).reshape(3, 2), t.tensor([2, 0])),
    lambda t: t.batch_norm(t.arange(6.0).reshape(3, 2), t.tensor([1.0, 2.0]), None, t.zeros(2),
                           t.ones(2), False, 0.1, 1e-5, False),
], ids=range(11))
def test_calls_by_pytorchs_names(call: Any) -> None:
    wanted, got = both(call)
    assert str(wanted.dtype) == f"torch.{got.dtype.name}"
    torch.testing.assert_close(torch.from_numpy(got.numpy().copy()), wanted)


@pytest.mark.parametrize("call", [
    lambda t: t.flip(t.ones(2, 2), [0], dims=[1]),
    lambda t: t.sum(t.ones(2), dim=0, axis=0),
    lambda t: t.add(t.ones(2), 1, pin_memory=False),
])
def test_calls_that_say_something_twice_or_too_much(call: Any) -> None:
    for library in (torch, lg):
        with pytest.raises(TypeError):
            call(library)


def test_whole_numbers_have_no_negative_powers() -> None:
    for base in (lg.arange(4), lg.tensor([True])):
        with pytest.raises(lg.TensorError, match=r"\[pow\].*\.float\(\)"):
            base ** -1
    assert (2 ** lg.tensor([-1, 2])).tolist() == (2 ** torch.tensor([-1, 2])).tolist()


def test_copies_of_views_of_one_memory_share_one_memory() -> None:
    def run(t: Any) -> list[Any]:
        base = t.zeros(2, 3)
        whole, part = copy.deepcopy([base, base.t()[1:]])
        part.fill_(7)
        layer = t.nn.Linear(1, 1)
        layer.weight.sum().backward()
        return [whole.tolist(), base.tolist(), part.tolist(), copy.deepcopy(layer).weight.grad]
    wanted, got = both(run)
    assert wanted == got


def test_gradients_of_many_cotangents_at_once() -> None:
    def run(t: Any) -> list[Any]:
        x, unused = t.arange(3.0, requires_grad=True), t.ones(1, requires_grad=True)
        found = t.autograd.grad(x * x, [x, unused], t.eye(3), is_grads_batched=True,
                                allow_unused=True)
        return [each if each is None else each.tolist() for each in found]
    wanted, got = both(run)
    assert wanted == got
