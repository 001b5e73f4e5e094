"""Automatic differentiation: `grad`, `backward`, `Function`, and the modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazygrad._core.anomaly import detect_anomaly, set_detect_anomaly
from lazygrad._core.engine import backward as _backward
from lazygrad._core.engine import grad
from lazygrad._core.modes import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from lazygrad._core.tensor import Tensor
from lazygrad.autograd.function import Function

Variable = Tensor


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, inputs: Any = None) -> None:
    """Adds the gradients of several outputs to `.grad` of the leaves."""
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if grad_tensors is None or isinstance(grad_tensors, Tensor):
        grad_tensors = [grad_tensors] * len(tensors)
    _backward(tensors, grad_tensors, retain_graph, create_graph, inputs)


def __getattr__(name: str) -> Any:
    """`functional`, `gradcheck` and `gradgradcheck` are there when asked for."""
    import importlib

    if name == "functional":
        return importlib.import_module("lazygrad.autograd.functional")
    if name in ("gradcheck", "gradgradcheck", "GradcheckError"):
        return getattr(importlib.import_module("lazygrad.autograd.checking"), name)
    raise AttributeError(f"module 'lazygrad.autograd' has no attribute {name!r}")


__all__: Sequence[str] = ["grad", "backward", "Function", "Variable", "no_grad", "enable_grad",
                          "set_grad_enabled", "inference_mode", "detect_anomaly",
                          "set_detect_anomaly"]
