"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import normal, register_function

BATCH, CHANNELS, SIDE = 16, 64, 56


def _convolution(torch: Any, images: Any, weight: Any) -> Any:
    return torch.nn.functional.conv2d(images, weight, padding=1)


def _jax_convolution(jax: Any, images: Any, weight: Any) -> Any:
    return jax.lax.conv_general_dilated(images, weight, (1, 1), "SAME",
                                        dimension_numbers=("NCHW", "OIHW", "NCHW"))


def _arrays() -> Sequence[np.ndarray]:
    return (normal(BATCH, CHANNELS, SIDE, SIDE), normal(CHANNELS, CHANNELS, 3, 3, seed=1))


register_function(
    name="conv-3x3-64", about="3x3 convolution, 16x64x56x56 to 64 channels, padding 1, float32",
    arrays=_arrays, program=_convolution, jax_program=_jax_convolution,
    flops=2 * BATCH * CHANNELS * CHANNELS * 9 * SIDE * SIDE,
    nbytes=4 * (2 * BATCH * CHANNELS * SIDE * SIDE + CHANNELS * CHANNELS * 9),
)
