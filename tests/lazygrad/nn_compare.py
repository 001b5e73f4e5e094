"""Comparing a module with PyTorch's: the same state, inputs, outputs, gradients, buffers, repr."""

from __future__ import annotations

from typing import Any

import numpy
import torch

import lazygrad as lg


def numbers(*shape: int, seed: int = 0, low: float = -1.5, high: float = 1.5) -> numpy.ndarray:
    return numpy.random.default_rng(seed).uniform(low, high, shape)


def tensors_of(output: Any) -> list[Any]:
    """The tensors of nested outputs, packed sequences included."""
    if isinstance(output, (tuple, list)):
        return [inner for part in output for inner in tensors_of(part)]
    return [output] if isinstance(output, (lg.Tensor, torch.Tensor)) else []


def copy_state(ours: Any, theirs: Any) -> None:
    """Loads PyTorch's state; the keys must be the same, in the same order."""
    assert list(ours.state_dict()) == list(theirs.state_dict())
    values = {name: lg.from_numpy(value.detach().numpy().copy())
              for name, value in theirs.state_dict().items()}
    ours.load_state_dict(values)


def assert_close(ours: Any, theirs: Any, what: str, tolerance: float = 1e-9) -> None:
    assert tuple(ours.shape) == tuple(theirs.shape), what
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch."), what
    numpy.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=tolerance,
                                  atol=tolerance, err_msg=what)


def _call(library: Any, module: Any, arrays: tuple, keywords: dict[str, Any]) -> tuple:
    leaves = []

    def convert(value: Any) -> Any:
        if not isinstance(value, numpy.ndarray):
            return value
        tensor = library.tensor(value)
        if value.dtype.kind == "f":
            leaves.append(tensor.requires_grad_())
        return tensor

    outputs = tensors_of(module(*map(convert, arrays),
                                **{name: convert(value) for name, value in keywords.items()}))
    loss = sum((each * library.tensor(numbers(*each.shape, seed=9 + k))).sum()
               for k, each in enumerate(outputs) if each.requires_grad)
    if not isinstance(loss, int):
        loss.backward()
    return outputs, leaves


def compare(make: Any, *arrays: Any, training: bool = True, state: bool = True,
            representation: bool = True, tolerance: float = 1e-9, **keywords: Any) -> None:
    """Makes both modules with `make(nn)` in float64, and compares all that can be seen."""
    ours, theirs = make(lg.nn).double().train(training), make(torch.nn).double().train(training)
    if state:
        copy_state(ours, theirs)
    our_outputs, our_leaves = _call(lg, ours, arrays, keywords)
    their_outputs, their_leaves = _call(torch, theirs, arrays, keywords)
    assert len(our_outputs) == len(their_outputs)
    for k, (a, b) in enumerate(zip(our_outputs, their_outputs, strict=True)):
        assert_close(a, b, f"output {k}", tolerance)
    for k, (a, b) in enumerate(zip(our_leaves, their_leaves, strict=True)):
        if b.grad is not None:
            assert_close(a.grad, b.grad, f"gradient of input {k}", tolerance)
    ours_named, theirs_named = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(ours_named) == list(theirs_named)
    for name, parameter in theirs_named.items():
        assert (ours_named[name].grad is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            assert_close(ours_named[name].grad, parameter.grad, f"gradient of {name}", tolerance)
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert_close(a, b, f"buffer {name}", tolerance)
    if representation:
        assert repr(ours) == repr(theirs)
