"""Elementwise chains over 16M numbers: what fusion saves is memory traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import normal, register_function

COUNT = 1 << 24


def _chain(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    return (torch.nn.functional.gelu(x * weight + bias) * torch.sigmoid(x) + torch.exp(-x * x))


def _jax_chain(jax: Any, x: Any, weight: Any, bias: Any) -> Any:
    gelu = jax.nn.gelu(x * weight + bias, approximate=False)
    return gelu * jax.nn.sigmoid(x) + jax.numpy.exp(-x * x)


def _plain(torch: Any, x: Any, y: Any) -> Any:
    return ((x * y + x) * y + 0.5) * x + y


def _chain_arrays() -> Sequence[np.ndarray]:
    return normal(COUNT), normal(1, seed=1), normal(1, seed=2)


def _plain_arrays() -> Sequence[np.ndarray]:
    return normal(COUNT), normal(COUNT, seed=1)


register_function(
    name="chain-gelu-16M", about="gelu(x w + b) sigmoid(x) + exp(-x x), 16M float32",
    arrays=_chain_arrays, program=_chain, jax_program=_jax_chain, nbytes=2 * 4 * COUNT,
)
register_function(
    name="chain-plain-16M", about="((x y + x) y + 0.5) x + y, 16M float32",
    arrays=_plain_arrays, program=_plain, jax_program=_plain, flops=6 * COUNT,
    nbytes=3 * 4 * COUNT,
)
