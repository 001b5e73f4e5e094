"""The models of `models.py` that JAX takes part in, as functions of a dictionary of parameters
under torch's names: losses of one batch.
"""

from __future__ import annotations

from typing import Any

NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1


def cross_entropy(jax: Any, logits: Any, labels: Any) -> Any:
    picked = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    return -picked.mean()


def mlp_loss(jax: Any, parameters: Any, statistics: Any, x: Any, labels: Any) -> Any:
    for number in (0, 2, 4):
        x = x @ parameters[f"{number}.weight"].T + parameters[f"{number}.bias"]
        if number < 4:
            x = jax.nn.relu(x)
    return cross_entropy(jax, x, labels), statistics


def convolve(jax: Any, x: Any, weight: Any, stride: int = 1) -> Any:
    padding = weight.shape[-1] // 2
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), [(padding, padding)] * 2,
                                        dimension_numbers=("NCHW", "OIHW", "NCHW"))


def batch_norm(jax: Any, parameters: Any, statistics: Any, kept: Any, name: str, x: Any) -> Any:
    """Training's batch norm over (batch, height, width); running statistics go to `kept`."""
    running_mean, running_variance = statistics[name]
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    unbiased = variance * (x.size / len(mean)) / (x.size / len(mean) - 1)
    kept[name] = (running_mean + NORM_MOMENTUM * (mean - running_mean),
                  running_variance + NORM_MOMENTUM * (unbiased - running_variance))
    scale = parameters[f"{name}.weight"] * jax.lax.rsqrt(variance + NORM_EPSILON)
    shift = parameters[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def digits_loss(jax: Any, parameters: Any, statistics: Any, x: Any, labels: Any) -> Any:
    lax, kept = jax.lax, {}
    for number in (0, 3):
        x = convolve(jax, x, parameters[f"{number}.weight"])
        x = x + parameters[f"{number}.bias"][:, None, None]
        x = jax.nn.relu(batch_norm(jax, parameters, statistics, kept, f"{number + 1}", x))
    x = lax.reduce_window(x, -jax.numpy.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(len(x), -1) @ parameters["8.weight"].T + parameters["8.bias"]
    return cross_entropy(jax, x, labels), kept


def resnet18_loss(jax: Any, parameters: Any, statistics: Any, x: Any, labels: Any) -> Any:
    kept: dict[str, Any] = {}

    def norm(name: str, x: Any) -> Any:
        return batch_norm(jax, parameters, statistics, kept, name, x)

    x = jax.nn.relu(norm("1", convolve(jax, x, parameters["0.weight"])))
    for number, stride in zip(range(3, 11), (1, 1, 2, 1, 2, 1, 2, 1), strict=True):
        y = convolve(jax, x, parameters[f"{number}.conv1.weight"], stride)
        y = jax.nn.relu(norm(f"{number}.bn1", y))
        y = norm(f"{number}.bn2", convolve(jax, y, parameters[f"{number}.conv2.weight"]))
        if f"{number}.shortcut.0.weight" in parameters:
            x = convolve(jax, x, parameters[f"{number}.shortcut.0.weight"], stride)
            x = norm(f"{number}.shortcut.1", x)
        x = jax.nn.relu(x + y)
    x = x.mean((2, 3)) @ parameters["13.weight"].T + parameters["13.bias"]
    return cross_entropy(jax, x, labels), kept


def gpt_loss(jax: Any, parameters: Any, statistics: Any, tokens: Any, labels: Any) -> Any:
    heads = 6

    def norm(name: str, x: Any) -> Any:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + NORM_EPSILON)
        return x * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]

    def linear(name: str, x: Any) -> Any:
        return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    x = parameters["token.weight"][tokens] + parameters["position.weight"][:tokens.shape[1]]
    batch, length, width = x.shape
    for number in range(6):
        name = f"blocks.{number}"
        qkv = linear(f"{name}.qkv", norm(f"{name}.norm1", x))
        q, k, v = (part.reshape(batch, length, heads, width // heads)
                   for part in jax.numpy.split(qkv, 3, -1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(f"{name}.out", mixed.reshape(batch, length, width))
        wide = linear(f"{name}.wide", norm(f"{name}.norm2", x))
        x = x + linear(f"{name}.narrow", jax.nn.gelu(wide, approximate=False))
    logits = norm("norm", x) @ parameters["head.weight"].T
    return cross_entropy(jax, logits, labels), statistics
