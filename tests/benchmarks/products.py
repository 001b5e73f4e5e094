"""Matrix products, and the replay of a small network, where the cost of a call dominates."""

from __future__ import annotations

import math
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


def _network_arrays(rows: int) -> list[Any]:
    shapes = ((rows, 64), (64, 64), (64,), (64, 64), (64,))
    return [array * (0.125 if number else 1) for number, array in enumerate(_arrays(*shapes))]


for _rows in (1, 64):
    register_function(
        name=f"replay-mlp-{_rows}",
        about=f"tanh(tanh(x w + b) w' + b'), {_rows}x64 and all else 64x64, with lg.compile",
        arrays=partial(_network_arrays, _rows), program=_network, jax_program=_jax_network,
        replay=True, flops=2 * 2 * _rows * 64**2,
    )
for _size in (48, 128):
    register_function(
        name=f"matmul-{_size}-replay",
        about=f"{_size}x{_size} @ {_size}x{_size}, float32, with lg.compile",
        arrays=partial(_arrays, (_size, _size), (_size, _size)), program=_product,
        jax_program=_product, replay=True, flops=2 * _size**3,
    )


ITEMSIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def _register_product(
    name: str, m: int, k: int, n: int, batch: tuple[int, ...] = (), about: str = "float32",
    **options: Any,
) -> None:
    """A row for (batch, m, k) @ (batch, k, n).  Each element is read or written once at least."""
    shapes = (*batch, m, k), (*batch, k, n)
    size = 8 if "complex" in about else ITEMSIZES[options.get("dtype", "float32")]
    result_size = 4 if size == 1 else size
    left, right = ("x".join(map(str, shape)) for shape in shapes)
    register_function(
        name=name, about=f"{left} @ {right}, {about}",
        **{"arrays": partial(_arrays, *shapes), "program": _product, "jax_program": _product,
           "flops": 2 * math.prod(batch) * m * k * n,
           "nbytes": math.prod(batch) * ((m + n) * k * size + m * n * result_size), **options},
    )


def _transposed(torch: Any, a: Any, b: Any) -> Any:
    return a @ b.mT


def _left_transposed(torch: Any, a: Any, b: Any) -> Any:
    return a.mT @ b


def _linear_gelu(torch: Any, x: Any, w: Any, b: Any) -> Any:
    return torch.nn.functional.gelu(x @ w + b)


def _jax_linear_gelu(jax: Any, x: Any, w: Any, b: Any) -> Any:
    return jax.nn.gelu(x @ w + b, approximate=False)


def _integer_product(torch: Any, a: Any, b: Any) -> Any:
    """int8 in, int32 out."""
    if torch.__name__ == "torch":
        return torch._int_mm(a, b)
    return a.to(torch.int32) @ b.to(torch.int32)


def _jax_integer_product(jax: Any, a: Any, b: Any) -> Any:
    return jax.numpy.matmul(a, b, preferred_element_type="int32")


def _integers(*shapes: tuple[int, ...]) -> list[Any]:
    return [(array * 40).clip(-127, 127) for array in _arrays(*shapes)]


def _complex(*shapes: tuple[int, ...]) -> list[Any]:
    return [array + 1j * array[::-1] for array in _arrays(*shapes)]


for size in (48, 128, 512, 1000, 1024, 2048):
    _register_product(f"matmul-{size}", size, size, size)
_register_product("matmul-333x777x555", 333, 777, 555)
_register_product("matmul-20000x64x100", 20000, 64, 100)
_register_product("matmul-8x2048x2048", 8, 2048, 2048)
_register_product("matmul-64x100000x64", 64, 100_000, 64, tolerance=1e-3)
_register_product("matmul-right-transposed-1024", 1024, 1024, 1024, program=_transposed,
                  jax_program=_transposed)
_register_product("matmul-left-transposed-1024", 1024, 1024, 1024, program=_left_transposed,
                  jax_program=_left_transposed)
_register_product("batched-64x64x64x64", 64, 64, 64, batch=(64,))
_register_product("batched-4096x8x8x8", 8, 8, 8, batch=(4096,))
_register_product("matmul-f64-512", 512, 512, 512, about="float64", dtype="float64",
                  contestants=("lazygrad", "torch", "torch.compile"))
for size in (512, 1024, 2048):
    _register_product(f"matmul-bf16-{size}", size, size, size, about="bfloat16", dtype="bfloat16",
                      tolerance=2e-2)
_register_product("matmul-bf16-8x2048x2048", 8, 2048, 2048, about="bfloat16", dtype="bfloat16",
                  tolerance=2e-2)
_register_product("matmul-bf16-right-transposed-1024", 1024, 1024, 1024, about="bfloat16",
                  dtype="bfloat16", tolerance=2e-2, program=_transposed, jax_program=_transposed)
_register_product("batched-bf16-64x64x64x64", 64, 64, 64, batch=(64,), about="bfloat16",
                  dtype="bfloat16", tolerance=2e-2)
_register_product("matmul-f16-512", 512, 512, 512, about="float16", dtype="float16",
                  tolerance=5e-3)
for size in (512, 1024, 2048):
    _register_product(f"matmul-int8-{size}", size, size, size, about="int8 to int32", dtype="int8",
                      arrays=partial(_integers, (size, size), (size, size)),
                      program=_integer_product, jax_program=_jax_integer_product)
_register_product("matmul-complex-512", 512, 512, 512, about="complex64",
                  arrays=partial(_complex, (512, 512), (512, 512)), flops=8 * 512**3)
register_function(
    name="linear-gelu", about="gelu(x w + b), 1024x768 @ 768x3072, float32",
    arrays=partial(_arrays, (1024, 768), (768, 3072), (3072,)), program=_linear_gelu,
    jax_program=_jax_linear_gelu, flops=2 * 1024 * 768 * 3072,
)
register_function(
    name="linear-gelu-bf16", about="gelu(x w + b), 1024x768 @ 768x3072, bfloat16",
    arrays=partial(_arrays, (1024, 768), (768, 3072), (3072,)), program=_linear_gelu,
    jax_program=_jax_linear_gelu, flops=2 * 1024 * 768 * 3072, dtype="bfloat16", tolerance=5e-2,
)
register_function(
    name="gemv-4096", about="4096x4096 @ 4096, float32",
    arrays=partial(_arrays, (4096, 4096), (4096,)), program=_product, jax_program=_product,
    flops=2 * 4096**2, nbytes=4 * (4096**2 + 2 * 4096),
)
