"""Convolutions."""

from __future__ import annotations

import math
from typing import Any

from tests.benchmarks.contestants import normal, register_function


def _register(name: str, about: str, image: tuple[int, ...], weight: tuple[int, ...],
              stride: int = 1, groups: int = 1, backward: bool = False) -> None:
    """A row for a convolution that keeps the size (divided by the stride), or for it with its
    two gradients.
    """
    padding = weight[-1] // 2
    spatial = [side // stride for side in image[2:]]
    results = image[0] * weight[0] * math.prod(spatial)

    def forward(torch: Any, images: Any, weights: Any) -> Any:
        return torch.nn.functional.conv2d(images, weights, stride=stride, padding=padding,
                                          groups=groups)

    def jax_forward(jax: Any, images: Any, weights: Any) -> Any:
        return jax.lax.conv_general_dilated(
            images, weights, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"), feature_group_count=groups)

    def gradients(torch: Any, images: Any, weights: Any) -> Any:
        images, weights = images.detach(), weights.detach()
        images.requires_grad_(), weights.requires_grad_()
        forward(torch, images, weights).square().sum().backward()
        return torch.cat([images.grad.flatten(), weights.grad.flatten()])

    def jax_gradients(jax: Any, images: Any, weights: Any) -> Any:
        def loss(images: Any, weights: Any) -> Any:
            return (jax_forward(jax, images, weights) ** 2).sum()

        found = jax.grad(loss, (0, 1))(images, weights)
        return jax.numpy.concatenate([part.reshape(-1) for part in found])

    register_function(
        name=name, about=f"{about}, float32", replay=True,
        arrays=lambda: [normal(*image), normal(*weight, seed=1)],
        program=gradients if backward else forward,
        jax_program=jax_gradients if backward else jax_forward,
        flops=2 * results * math.prod(weight[1:]) * (3 if backward else 1),
        nbytes=4 * (math.prod(image) + math.prod(weight) + results) * (2 if backward else 1),
    )


_register("conv-3x3-64", "3x3 convolution, 16x64x56x56 to 64 channels", (16, 64, 56, 56),
          (64, 64, 3, 3))
_register("conv-3x3-64-gradients", "3x3 convolution, 16x64x56x56 to 64 channels, with gradients",
          (16, 64, 56, 56), (64, 64, 3, 3), backward=True)
_register("conv-3x3-512", "3x3 convolution, 32x512x4x4 to 512 channels", (32, 512, 4, 4),
          (512, 512, 3, 3))
_register("conv-3x3-stride-2", "3x3 convolution, 32x64x32x32 to 128 channels, stride 2",
          (32, 64, 32, 32), (128, 64, 3, 3), stride=2)
_register("conv-1x1", "1x1 convolution, 16x256x28x28 to 128 channels", (16, 256, 28, 28),
          (128, 256, 1, 1))
_register("conv-depthwise-7x7", "depthwise 7x7 convolution, 8x96x56x56", (8, 96, 56, 56),
          (96, 1, 7, 7), groups=96)
