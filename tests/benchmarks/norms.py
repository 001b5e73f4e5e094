"""Norms, losses and their gradients, scans and selections: work on rows that memory should bound.

All go through `lg.compile`, as a training step does.  The bytes are those of each array once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.contestants import normal, register_function

EPSILON = 1e-5
FLOAT = 4
ROWS, WIDTH = 8192, 1024


def with_gradients(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's value and its gradients for the first `count` tensors; the last tensor is the
    value's cotangent.
    """

    def program(torch: Any, *tensors: Any) -> tuple[Any, ...]:
        *given, cotangent = tensors
        leaves = [x.detach().requires_grad_(True) for x in given[:count]]
        value = function(torch, *leaves, *given[count:])
        return (value, *torch.autograd.grad(value, leaves, cotangent))

    return program


def jax_with_gradients(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def program(jax: Any, *tensors: Any) -> tuple[Any, ...]:
        *given, cotangent = tensors
        rest = given[count:]
        value, pull = jax.vjp(lambda *leaves: function(jax, *leaves, *rest), *given[:count])
        return (value, *pull(cotangent))

    return program


def _layer_norm(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, EPSILON)


def _jax_layer_norm(jax: Any, x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + EPSILON) * weight + bias


def _rms_norm(torch: Any, x: Any, weight: Any) -> Any:
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)


def _jax_rms_norm(jax: Any, x: Any, weight: Any) -> Any:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight


def _batch_norm(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, EPSILON)


def _jax_batch_norm(jax: Any, x: Any, weight: Any, bias: Any) -> Any:
    axes = (0, 2, 3)
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    shape = (1, -1, 1, 1)
    return (centred * jax.lax.rsqrt(variance + EPSILON) * weight.reshape(shape)
            + bias.reshape(shape))


def _norm_and_gate(torch: Any, x: Any, weight: Any, gate: Any, up: Any) -> tuple[Any, Any]:
    return _rms_norm(torch, x, weight), torch.nn.functional.silu(gate) * up


def _jax_norm_and_gate(jax: Any, x: Any, weight: Any, gate: Any, up: Any) -> tuple[Any, Any]:
    return _jax_rms_norm(jax, x, weight), jax.nn.silu(gate) * up


def _group_norm_silu(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    functional = torch.nn.functional
    return functional.silu(functional.group_norm(x, 32, weight, bias, EPSILON))


def _jax_group_norm_silu(jax: Any, x: Any, weight: Any, bias: Any) -> Any:
    groups = x.reshape(x.shape[0], 32, -1)
    centred = groups - groups.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    scaled = (centred * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
    return jax.nn.silu(scaled * weight[:, None, None] + bias[:, None, None])


def _gelu_and_bias(torch: Any, x: Any, cotangent: Any) -> tuple[Any, Any]:
    """The gradient of gelu(y + bias) for y and for the bias."""
    leaf = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(torch.nn.functional.gelu(leaf), [leaf], cotangent)
    return gradient, gradient.sum(0)


def _jax_gelu_and_bias(jax: Any, x: Any, cotangent: Any) -> tuple[Any, Any]:
    _, pull = jax.vjp(lambda y: jax.nn.gelu(y, approximate=False), x)
    (gradient,) = pull(cotangent)
    return gradient, gradient.sum(0)


def _cross_entropy(torch: Any, logits: Any, target: Any) -> tuple[Any, Any]:
    leaf = logits.detach().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(leaf, target)
    return loss, *torch.autograd.grad(loss, [leaf])


def _jax_cross_entropy(jax: Any, logits: Any, target: Any) -> Any:
    def loss(x: Any) -> Any:
        chosen = jax.numpy.take_along_axis(x, target[:, None], 1)[:, 0]
        return (jax.nn.logsumexp(x, -1) - chosen).mean()

    return jax.value_and_grad(loss)(logits)


def _embedding_gradient(torch: Any, table: Any, index: Any, cotangent: Any) -> Any:
    leaf = table.detach().requires_grad_(True)
    rows = torch.nn.functional.embedding(index, leaf)
    return torch.autograd.grad(rows, [leaf], cotangent)[0]


def _jax_embedding_gradient(jax: Any, table: Any, index: Any, cotangent: Any) -> Any:
    return jax.vjp(lambda t: t[index], table)[1](cotangent)[0]


def _logsumexp(torch: Any, x: Any) -> Any:
    return torch.logsumexp(x, -1)


def _cumsum(torch: Any, x: Any) -> Any:
    return torch.cumsum(x, -1)


def _top(torch: Any, x: Any) -> Any:
    return torch.topk(x, 50, -1)[0]


def _embedding_norm(torch: Any, index: Any, table: Any, weight: Any, bias: Any) -> Any:
    return _layer_norm(torch, torch.nn.functional.embedding(index, table), weight, bias)


def _jax_embedding_norm(jax: Any, index: Any, table: Any, weight: Any, bias: Any) -> Any:
    return _jax_layer_norm(jax, table[index], weight, bias)


def _indices(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, size, count)


def _rows(vectors: int, width: int = WIDTH) -> Callable[[], Sequence[np.ndarray]]:
    """Rows, so many vectors for their places, and a cotangent of the rows."""
    return lambda: [normal(ROWS, width), *(normal(width, seed=1 + k) for k in range(vectors)),
                    normal(ROWS, width, seed=9)]


def _row(name: str, about: str, arrays: Callable[[], Sequence[np.ndarray]],
         program: Callable[..., Any], jax_program: Callable[..., Any], elements: int) -> None:
    register_function(name=f"{name}-replay", about=f"{about}, with lg.compile", arrays=arrays,
                      program=program, jax_program=jax_program, nbytes=FLOAT * elements,
                      replay=True)


_row("layer-norm-gradients", "layer norm of 8192x1024 and its gradients", _rows(2),
     with_gradients(3, _layer_norm), jax_with_gradients(3, _jax_layer_norm), 4 * ROWS * WIDTH)
_row("rms-norm-gradients", "RMS norm of 8192x1024 and its gradients", _rows(1),
     with_gradients(2, _rms_norm), jax_with_gradients(2, _jax_rms_norm), 4 * ROWS * WIDTH)
_row("batch-norm-gradients", "batch norm of 32x64x56x56 in training and its gradients",
     lambda: [normal(32, 64, 56, 56), normal(64, seed=1), normal(64, seed=2),
              normal(32, 64, 56, 56, seed=9)],
     with_gradients(3, _batch_norm), jax_with_gradients(3, _jax_batch_norm), 4 * 32 * 64 * 56**2)
_row("norm-swiglu", "RMS norm of 2048x1024, silu(gate) * up of 2048x2730",
     lambda: [normal(2048, 1024), normal(1024, seed=1), normal(2048, 2730, seed=2),
              normal(2048, 2730, seed=3)],
     _norm_and_gate, _jax_norm_and_gate, 2048 * (2 * 1024 + 3 * 2730))
_row("group-norm-silu", "silu(group norm) of 8x320x32x32, 32 groups",
     lambda: [normal(8, 320, 32, 32), normal(320, seed=1), normal(320, seed=2)],
     _group_norm_silu, _jax_group_norm_silu, 2 * 8 * 320 * 32**2)
_row("bias-gradient-gelu", "gradients of gelu(y + bias), 8192x3072", _rows(0, 3072),
     _gelu_and_bias, _jax_gelu_and_bias, 3 * ROWS * 3072)
_row("cross-entropy-gradients", "cross entropy of 1024x32000 and its gradient",
     lambda: [normal(1024, 32000), _indices(1024, 32000)],
     _cross_entropy, _jax_cross_entropy, 2 * 1024 * 32000)
_row("embedding-norm", "layer norm of 8192 rows of a table of 32000x768",
     lambda: [_indices(ROWS, 32000), normal(32000, 768), normal(768, seed=1), normal(768, seed=2)],
     _embedding_norm, _jax_embedding_norm, 2 * ROWS * 768)
_row("embedding-gradient", "gradient of a table of 32000x768 for 8192 rows",
     lambda: [normal(32000, 768), _indices(ROWS, 32000), normal(ROWS, 768, seed=1)],
     _embedding_gradient, _jax_embedding_gradient, 768 * (32000 + 2 * ROWS))
_row("logsumexp-300x50257", "logsumexp over rows", lambda: [normal(300, 50257)],
     _logsumexp, lambda jax, x: jax.nn.logsumexp(x, -1), 300 * 50257)
_row("cumsum-512x8191", "running sums of rows", lambda: [normal(512, 8191)],
     _cumsum, lambda jax, x: jax.numpy.cumsum(x, -1), 2 * 512 * 8191)
_row("topk-50-256x32000", "the 50 largest of each row", lambda: [normal(256, 32000)],
     _top, lambda jax, x: jax.lax.top_k(x, 50)[0], 256 * 32000)
