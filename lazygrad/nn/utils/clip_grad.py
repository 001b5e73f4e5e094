"""Gradient clipping.  Nothing is looked at: norms and scales stay in the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lazygrad as lg
from lazygrad._core.entries import entry

Tensors = Any
"""A tensor or an iterable of them."""


def _listed(tensors: Tensors) -> list[lg.Tensor]:
    return [tensors] if isinstance(tensors, lg.Tensor) else list(tensors)


@entry
def get_total_norm(tensors: Iterable[lg.Tensor], norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> lg.Tensor:
    """The norm of all tensors together, as if they were one vector: a 0-d tensor."""
    norm_type = float(norm_type)
    parts = _listed(tensors)
    if not parts:
        return lg.tensor(0.0)
    with lg.no_grad():
        parts = [part.abs() if part.is_complex() else part.detach() for part in parts]
        if norm_type == float("inf"):
            total = lg.stack([part.abs().max() for part in parts]).max()
        elif norm_type == float("-inf"):
            total = lg.stack([part.abs().min() for part in parts]).min()
        elif norm_type == 2.0:
            total = _sum([(part * part).sum() for part in parts]).sqrt()
        elif norm_type == 0.0:
            total = _sum([part.ne(0).any().to(part.dtype) for part in parts])
        else:
            total = _sum([(part.abs() ** norm_type).sum() for part in parts])
            total = total ** (1.0 / norm_type)
    if error_if_nonfinite and not bool(lg.isfinite(total)):
        raise RuntimeError(f"The total norm of order {norm_type} for gradients from `parameters` "
                           "is non-finite, so it cannot be clipped; pass error_if_nonfinite=False "
                           "to go on all the same")
    return total


def _sum(values: list[lg.Tensor]) -> lg.Tensor:
    return lg.stack(values).sum() if len(values) > 1 else values[0]


@entry
def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: lg.Tensor,
                          foreach: bool | None = None) -> None:
    """Scales gradients by max_norm / total_norm where that is below 1."""
    with lg.no_grad():
        scale = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for parameter in _listed(parameters):
            if parameter.grad is not None:
                parameter.grad.mul_(scale)


@entry
def clip_grad_norm_(parameters: Tensors, max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False, foreach: bool | None = None) -> lg.Tensor:
    """Scales all gradients so that their common norm is at most max_norm; returns the norm
    before.
    """
    listed = _listed(parameters)
    gradients = [parameter.grad for parameter in listed if parameter.grad is not None]
    total_norm = get_total_norm(gradients, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(listed, max_norm, total_norm)
    return total_norm


@entry
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Cuts every gradient element off to [-clip_value, clip_value]."""
    clip_value = float(clip_value)
    with lg.no_grad():
        for parameter in _listed(parameters):
            if parameter.grad is not None:
                parameter.grad.clamp_(min=-clip_value, max=clip_value)


clip_grad_norm = clip_grad_norm_
