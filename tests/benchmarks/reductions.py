"""Sums, softmax and layer normalisation: reading once is the best that can be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import normal, register_function, uniform

EPSILON = 1e-5


def _softmax(torch: Any, x: Any) -> Any:
    return torch.softmax(x, -1)


def _jax_softmax(jax: Any, x: Any) -> Any:
    return jax.nn.softmax(x, -1)


def _layer_norm(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, EPSILON)


def _jax_layer_norm(jax: Any, x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + EPSILON) * weight + bias


def _sum(torch: Any, x: Any) -> Any:
    return x.sum()


def _column_sum(torch: Any, x: Any) -> Any:
    return x.sum(0)


def _layer_norm_arrays() -> Sequence[np.ndarray]:
    return normal(8192, 1024), normal(1024, seed=1), normal(1024, seed=2)


register_function(
    name="softmax-4096x4096", about="softmax over rows, float32",
    arrays=lambda: [normal(4096, 4096)], program=_softmax, jax_program=_jax_softmax,
    nbytes=2 * 4 * 4096**2,
)
register_function(
    name="layer-norm-8192x1024", about="layer normalisation of rows, with weight and bias, float32",
    arrays=_layer_norm_arrays, program=_layer_norm, jax_program=_jax_layer_norm,
    nbytes=2 * 4 * 8192 * 1024,
)
register_function(
    name="sum-16M", about="sum of 16M float32", arrays=lambda: [uniform(1 << 24)],
    program=_sum, jax_program=_sum, nbytes=4 << 24,
)
register_function(
    name="column-sum-8192x2048", about="sum over the rows, float32",
    arrays=lambda: [uniform(8192, 2048)], program=_column_sum, jax_program=_column_sum,
    nbytes=4 * 8192 * 2048,
)
