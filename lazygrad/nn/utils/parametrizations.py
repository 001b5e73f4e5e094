"""Ready parametrizations: weight norm, spectral norm, orthogonal matrices."""

from __future__ import annotations

from typing import Any

import lazygrad as lg
from lazygrad.nn import functional as F
from lazygrad.nn.module import Module
from lazygrad.nn.utils import parametrize

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def norm_except_dim(value: lg.Tensor, dim: int | None) -> lg.Tensor:
    """The 2-norm over all axes but one, which stay with size 1; over all for None or -1."""
    if dim is None or dim == -1:
        return value.norm()
    axes = [axis for axis in range(value.ndim) if axis != dim % value.ndim]
    return value.norm(2, axes, keepdim=True) if axes else value.abs()


class _WeightNorm(Module):
    """Length g times direction v / |v| (Salimans and Kingma 2016)."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: lg.Tensor, weight_v: lg.Tensor) -> lg.Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: lg.Tensor) -> tuple[lg.Tensor, lg.Tensor]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits a parameter into length (`original0`) and direction (`original1`) along `dim`."""
    return parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


def as_matrix(weight: lg.Tensor, dim: int) -> lg.Tensor:
    """The weight as a matrix whose rows are the places of one axis."""
    if dim:
        weight = weight.movedim(dim, 0)
    return weight.reshape(weight.shape[0], -1)


def power_iterations(matrix: lg.Tensor, u: lg.Tensor, v: lg.Tensor, count: int,
                     eps: float) -> None:
    """Brings u and v closer to the largest singular vectors, in place."""
    with lg.no_grad():
        for _ in range(count):
            u.copy_(F.normalize(lg.mv(matrix, v), dim=0, eps=eps))
            v.copy_(F.normalize(lg.mv(matrix.t(), u), dim=0, eps=eps))


class _SpectralNorm(Module):
    """The weight over its largest singular value (Miyato et al. 2018), by power iterations."""

    def __init__(self, weight: lg.Tensor, n_power_iterations: int = 1, dim: int = 0,
                 eps: float = 1e-12) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(f"dim {dim} does not exist in a weight of {weight.ndim} axes")
        if n_power_iterations <= 0:
            raise ValueError("expected n_power_iterations to be positive, but got "
                             f"n_power_iterations={n_power_iterations}")
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            with lg.no_grad():
                matrix = as_matrix(weight.detach(), self.dim)
                rows, columns = matrix.shape
                for name, size in (("_u", rows), ("_v", columns)):
                    start = lg.randn(size, dtype=matrix.dtype)
                    self.register_buffer(name, F.normalize(start, dim=0, eps=eps))
                power_iterations(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: lg.Tensor) -> lg.Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iterations(matrix.detach(), self._u, self._v, self.n_power_iterations, self.eps)
        u, v = self._u.clone(), self._v.clone()
        return weight / lg.dot(u, lg.mv(matrix, v))

    def right_inverse(self, value: lg.Tensor) -> lg.Tensor:
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Module:
    """Divides a parameter by its largest singular value each time it is read."""
    weight = getattr(module, name, None)
    if not isinstance(weight, lg.Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    return parametrize.register_parametrization(
        module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


class _Orthogonal(Module):
    """Orthonormal columns (or rows): the exponential or Cayley map of a skew-symmetric matrix."""

    base: lg.Tensor | None

    def __init__(self, weight: lg.Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.orthogonal_map = orthogonal_map
        self.shape = tuple(weight.shape)
        start = None
        if use_trivialization:
            from lazygrad.nn import init
            rows, columns = self.shape[-2:]
            size = max(rows, columns)
            start = lg.empty(size, size, dtype=weight.dtype)
            init.orthogonal_(start)
        self.register_buffer("base", start)

    def forward(self, values: lg.Tensor) -> lg.Tensor:
        rows, columns = values.shape[-2:]
        tall = values if rows >= columns else values.transpose(-2, -1)
        size, count = tall.shape[-2:]
        lower = tall.tril(-1)
        if size != count:
            gap = lg.zeros(*lower.shape[:-1], size - count, dtype=lower.dtype)
            lower = lg.cat([lower, gap], dim=-1)
        skew = lower - lower.transpose(-2, -1)
        if self.orthogonal_map == "matrix_exp":
            turned = lg.linalg.matrix_exp(skew)
        else:
            identity = lg.eye(size, dtype=skew.dtype)
            turned = lg.linalg.solve(identity + 0.5 * skew, identity - 0.5 * skew)
        if self.base is not None:
            turned = self.base @ turned
        turned = turned[..., :count]
        return turned if rows >= columns else turned.transpose(-2, -1)


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *,
               use_trivialization: bool = True) -> Module:
    """Keeps a matrix orthogonal while it is trained.

    orthogonal_map: "matrix_exp" (unless given) or "cayley".  The matrix starts at a random
    orthogonal one.  PyTorch's "householder" is not there; its default for matrices that are not
    square is that one, here it is "matrix_exp".
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, lg.Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"expected a matrix or batch of matrices, got a tensor of {weight.ndim} "
                         "dimensions")
    chosen: Any = orthogonal_map or "matrix_exp"
    if chosen not in ("matrix_exp", "cayley"):
        raise ValueError(f"orthogonal_map {chosen!r}; there are 'matrix_exp' and 'cayley'")
    return parametrize.register_parametrization(
        module, name, _Orthogonal(weight, chosen, use_trivialization), unsafe=True)
