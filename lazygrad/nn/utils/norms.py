"""Weight norm and spectral norm in PyTorch's older form: hooks that compute the parameter before
each forward.  `nn.utils.parametrizations` has the newer one.
"""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter
from lazygrad.nn.utils.parametrizations import as_matrix, norm_except_dim

__all__ = ["weight_norm", "remove_weight_norm", "spectral_norm", "remove_spectral_norm"]


class WeightNorm:
    """The hook of `weight_norm`: sets <name> from <name>_g and <name>_v."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Module) -> lg.Tensor:
        direction = getattr(module, self.name + "_v")
        return direction * (getattr(module, self.name + "_g")
                            / norm_except_dim(direction, self.dim))

    def __call__(self, module: Module, inputs: Any) -> None:
        object.__setattr__(module, self.name, self.compute_weight(module))


class SpectralNorm:
    """The hook of `spectral_norm`: sets <name> from <name>_orig, <name>_u and <name>_v."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def compute_weight(self, module: Module, iterate: bool) -> lg.Tensor:
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = as_matrix(weight, self.dim)
        if iterate:
            with lg.no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(lg.mv(matrix.t(), u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(lg.mv(matrix, v), dim=0, eps=self.eps))
            u, v = u.clone(), v.clone()
        return weight / lg.dot(u, lg.mv(matrix, v))

    def __call__(self, module: Module, inputs: Any) -> None:
        object.__setattr__(module, self.name, self.compute_weight(module, module.training))


def _hook_of(module: Module, name: str, kind: Any) -> tuple[int, Any]:
    for key, (hook, _) in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and hook.name == name:
            return key, hook
    raise ValueError(f"{kind.__name__} of '{name}' not found in {module}")


def _has_hook(module: Module, name: str, kind: Any) -> bool:
    return any(isinstance(hook, kind) and hook.name == name
               for hook, _ in module._forward_pre_hooks.values())


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits a parameter into its length <name>_g and direction <name>_v."""
    if _has_hook(module, name, WeightNorm):
        raise RuntimeError("Cannot register two weight_norm hooks on the same parameter "
                           f"{name}")
    hook = WeightNorm(name, -1 if dim is None else dim)
    weight = module._parameters.pop(name)
    assert weight is not None
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight.detach(), hook.dim)))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    hook(module, ())
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Makes the parameter a plain one again, with the value it has."""
    key, hook = _hook_of(module, name, WeightNorm)
    value = hook.compute_weight(module).detach()
    module.__dict__.pop(name, None)
    for suffix in ("_g", "_v"):
        del module._parameters[name + suffix]
    module.register_parameter(name, Parameter(value))
    del module._forward_pre_hooks[key]
    return module


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Module:
    """Divides a parameter by its largest singular value before each forward."""
    if _has_hook(module, name, SpectralNorm):
        raise RuntimeError("Cannot register two spectral_norm hooks on the same parameter "
                           f"{name}")
    if n_power_iterations <= 0:
        raise ValueError("Expected n_power_iterations to be positive, but got "
                         f"n_power_iterations={n_power_iterations}")
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    weight = module._parameters.pop(name)
    assert weight is not None
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    with lg.no_grad():
        rows, columns = as_matrix(weight.detach(), dim).shape
        starts = [F.normalize(lg.randn(size, dtype=weight.dtype), dim=0, eps=eps)
                  for size in (rows, columns)]
    module.register_parameter(name + "_orig", weight)
    for suffix, start in zip(("_u", "_v"), starts, strict=True):
        module.register_buffer(name + suffix, start)
    object.__setattr__(module, name, weight.detach())
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Makes the parameter a plain one again, with the value it has."""
    key, hook = _hook_of(module, name, SpectralNorm)
    with lg.no_grad():
        value = hook.compute_weight(module, iterate=False).detach()
    module.__dict__.pop(name, None)
    del module._parameters[name + "_orig"], module._buffers[name + "_u"]
    del module._buffers[name + "_v"]
    module.register_parameter(name, Parameter(value))
    del module._forward_pre_hooks[key]
    return module


