"""Matrix products, and the replay of a small network, where the cost of a call dominates."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.benchmarks.contestants import normal, register_function


def _product(torch: Any, a: Any, b: Any) -> Any:
    return a @ b


def _arrays(*shapes: tuple[int, ...]) -> list[Any]:
    return [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def _network(torch: Any, x: Any, first: Any, first_bias: Any, second: Any, bias: Any) -> Any:
    return torch.tanh(torch.tanh(x @ first + first_bias) @ second + bias)


def _jax_network(jax: Any, *arrays: Any) -> Any:
    return _network(jax.numpy, *arrays)


def _network_arrays() -> list[Any]:
    shapes = ((64, 64), (64, 64), (64,), (64, 64), (64,))
    return [array * (0.125 if number else 1) for number, array in enumerate(_arrays(*shapes))]


register_function(
    name="replay-mlp-64", about="tanh(tanh(x w + b) w' + b'), all 64x64, with lg.compile",
    arrays=_network_arrays, program=_network, jax_program=_jax_network, replay=True,
    flops=2 * 2 * 64**3,
)
register_function(
    name="matmul-128-replay", about="128x128 @ 128x128, float32, with lg.compile",
    arrays=partial(_arrays, (128, 128), (128, 128)), program=_product, jax_program=_product,
    replay=True, flops=2 * 128**3,
)
for size in (128, 512, 1024, 2048):
    register_function(
        name=f"matmul-{size}", about=f"{size}x{size} @ {size}x{size}, float32",
        arrays=partial(_arrays, (size, size), (size, size)), program=_product,
        jax_program=_product, flops=2 * size**3, nbytes=3 * 4 * size**2,
    )
register_function(
    name="gemv-4096", about="4096x4096 @ 4096, float32",
    arrays=partial(_arrays, (4096, 4096), (4096,)), program=_product, jax_program=_product,
    flops=2 * 4096**2, nbytes=4 * (4096**2 + 2 * 4096),
)
