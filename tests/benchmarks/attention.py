"""Attention, called by name and written out: what its two products cost at least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import normal, register_function


def _heads(batch: int, heads: int, length: int, count: int) -> Callable[[], Sequence[np.ndarray]]:
    return lambda: [normal(batch, heads, length, 64, seed=number) for number in range(count)]


def _attention(causal: bool) -> Callable[..., Any]:
    def program(torch: Any, q: Any, k: Any, v: Any) -> Any:
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(q, k, v, is_causal=causal)

    return program


def _jax_attention(causal: bool) -> Callable[..., Any]:
    def program(jax: Any, q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal).swapaxes(1, 2)

    return program


def _idiom(torch: Any, q: Any, k: Any, v: Any) -> Any:
    return torch.softmax(q @ k.transpose(-2, -1) * 0.125, -1) @ v


def _jax_idiom(jax: Any, q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.swapaxes(-2, -1) * 0.125, -1) @ v


def flops(batch: int, heads: int, length: int, causal: bool) -> int:
    """Of the two products, for a width of 64; half of them where causal."""
    return 4 * batch * heads * length**2 * 64 // (2 if causal else 1)


for _batch, _heads_number, _length, _causal in (
    (8, 8, 256, True), (8, 8, 1024, False), (4, 8, 1024, True)
):
    _kind = "causal" if _causal else "full"
    register_function(
        name=f"attention-{_kind}-{_batch}x{_heads_number}x{_length}",
        about=f"{_kind} attention, {_batch}x{_heads_number}x{_length}x64, float32",
        arrays=_heads(_batch, _heads_number, _length, 3), program=_attention(_causal),
        jax_program=_jax_attention(_causal), flops=flops(_batch, _heads_number, _length, _causal),
    )
register_function(
    name="attention-causal-bf16-4x8x1024", about="causal attention, 4x8x1024x64, bfloat16",
    arrays=_heads(4, 8, 1024, 3), program=_attention(True), jax_program=_jax_attention(True),
    flops=flops(4, 8, 1024, True), dtype="bfloat16", tolerance=5e-2,
)
register_function(
    name="attention-idiom-2x12x777", about="softmax(q @ k.mT / 8) @ v, 2x12x777x64, float32",
    arrays=_heads(2, 12, 777, 3), program=_idiom, jax_program=_jax_idiom,
    flops=flops(2, 12, 777, False),
)
register_function(
    name="attention-decode-8x8x4096", about="one query to 4096 keys, 8x8x4096x64, float32",
    arrays=lambda: [normal(8, 8, 1, 64), *_heads(8, 8, 4096, 2)()], program=_attention(False),
    jax_program=_jax_attention(False), nbytes=2 * 4 * 64 * 4096 * 64,
)
