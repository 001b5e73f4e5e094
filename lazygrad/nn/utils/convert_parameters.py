"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

import lazygrad as lg
from lazygrad._core.entries import entry


@entry
def parameters_to_vector(parameters: Iterable[lg.Tensor]) -> lg.Tensor:
    """All parameters flattened, one after the other."""
    return lg.cat([parameter.reshape(-1) for parameter in parameters])


@entry
def vector_to_parameters(vec: lg.Tensor, parameters: Iterable[lg.Tensor]) -> None:
    """Writes the pieces of a vector into the parameters."""
    if not isinstance(vec, lg.Tensor):
        raise TypeError(f"expected a Tensor, but got {type(vec).__name__}")
    listed = list(parameters)
    total = sum(parameter.numel() for parameter in listed)
    if vec.numel() != total:
        raise ValueError(f"the vector has {vec.numel()} elements, the parameters {total}")
    position = 0
    with lg.no_grad():
        for parameter in listed:
            count = parameter.numel()
            parameter.copy_(vec[position:position + count].reshape(parameter.shape))
            position += count
