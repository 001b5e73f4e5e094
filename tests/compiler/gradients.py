"""Gradients of functions of nodes against torch in float64, to second order, and differences.

A case says the same function twice, as nodes and in torch.  Both are differentiated, and the
gradients are differentiated again.  What torch has no word for (or another convention) is held
against central differences of the interpreted graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import dtype_of_numpy
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import Node, node

Array = np.ndarray


def leaf(index: int, array: Array) -> Node:
    return node("input", index=index, dtype=dtype_of_numpy(array.dtype), shape=array.shape)


def const(value: float, shape: tuple = (), dtype: dtypes.DType = dtypes.float64) -> Node:
    return node("const", value=value, dtype=dtype, shape=shape)


def integers(array: object) -> Array:
    return np.asarray(array, np.int64)


def random(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def random_complex(*shape: int, seed: int = 0) -> Array:
    return random(*shape, seed=seed) + 1j * random(*shape, seed=seed + 100)


def zero_if_none(gradient: Node | None, of: Node) -> Node:
    return gradient if gradient is not None else node(
        "const", value=0.0 if of.dtype.is_floating else 0j, dtype=of.dtype, shape=of.shape)


def cotangent_for(array: Array, seed: int) -> Array:
    made = random_complex if array.dtype.kind == "c" else random
    return made(*array.shape, seed=seed).astype(array.dtype)


def plain(tensor: torch.Tensor) -> Array:
    return tensor.numpy(force=True)


def agree(ours: Array, theirs: Array, what: str, tolerance: float = 1e-9) -> None:
    assert ours.shape == theirs.shape, what
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=what)


def against_torch(ir: Callable[..., Node], reference: Callable[..., torch.Tensor],
                  *arrays: Array, second: bool = True) -> None:
    """Values, gradients, and gradients of the gradients, of all floating-point inputs."""
    leaves = [leaf(k, array) for k, array in enumerate(arrays)]
    tensors = [torch.tensor(array, requires_grad=array.dtype.kind in "fc") for array in arrays]
    places = [k for k, array in enumerate(arrays) if array.dtype.kind in "fc"]
    output, expected = ir(*leaves), reference(*tensors)
    known = dict(zip(leaves, arrays, strict=True))
    value, = evaluate([output], known)
    agree(value, plain(expected), "value")

    seed = cotangent_for(value, 7)
    seed_leaf = leaf(len(leaves), seed)
    known[seed_leaf] = seed
    seed_tensor = torch.tensor(seed, requires_grad=True)
    wanted, inputs = [leaves[k] for k in places], [tensors[k] for k in places]
    gradients = backward([output], [seed_leaf], wanted)
    theirs = torch.autograd.grad(expected, inputs, seed_tensor, create_graph=True,
                                 allow_unused=True)
    for place, ours, other in zip(places, gradients, theirs, strict=True):
        assert (ours is None) == (other is None), f"gradient {place}"
        if ours is not None:
            agree(evaluate([ours], known)[0], plain(other), f"gradient {place}")
    if not second:
        return
    found = [(ours, other) for ours, other in zip(gradients, theirs, strict=True)
             if ours is not None and other.requires_grad]
    if not found:
        return
    directions = [cotangent_for(plain(other), 20 + k) for k, (_, other) in enumerate(found)]
    direction_leaves = [leaf(len(known) + k, array) for k, array in enumerate(directions)]
    known.update(zip(direction_leaves, directions, strict=True))
    again = backward([ours for ours, _ in found], direction_leaves, [*wanted, seed_leaf])
    theirs_again = torch.autograd.grad([other for _, other in found], [*inputs, seed_tensor],
                                       [torch.tensor(d) for d in directions], allow_unused=True)
    for place, (ours, other) in enumerate(zip(again, theirs_again, strict=True)):
        of = [*wanted, seed_leaf][place]
        got = evaluate([zero_if_none(ours, of)], known)[0]
        want = np.zeros_like(got) if other is None else plain(other)
        agree(got, want, f"second gradient {place}", 1e-8)


def against_differences(ir: Callable[..., Node], *arrays: Array, order: int = 2,
                        step: float = 1e-5, tolerance: float = 1e-6) -> None:
    """Each order's directional derivative against the central difference of the order below."""
    leaves = [leaf(k, array) for k, array in enumerate(arrays)]
    places = [k for k, array in enumerate(arrays) if array.dtype.kind == "f"]
    output = ir(*leaves)
    weights: list[Array] = []

    def total(value: Node, seed: int) -> Node:
        weight = random(*value.shape, seed=seed)
        weights.append(weight)
        product = node("mul", value, leaf(len(arrays) + len(weights) - 1, weight))
        return node("sum", product, axes=tuple(range(value.ndim)))

    scalar = total(output, 50)
    for level in range(order):
        wanted = [leaves[k] for k in places]
        gradients = list(map(zero_if_none, backward([scalar], [const(1.0)], wanted), wanted))
        directions = {k: random(*arrays[k].shape, seed=60 + level, low=-1, high=1) for k in places}

        def at(distance: float, result: Node = scalar,
               directions: dict[int, Array] = directions) -> float:
            known = {leaves[k]: array if k not in directions else array + distance * directions[k]
                     for k, array in enumerate(arrays)}
            known |= {leaf(len(arrays) + k, weight): weight for k, weight in enumerate(weights)}
            return float(evaluate([result], known)[0])

        products = None
        for k, gradient in zip(places, gradients, strict=True):
            weights.append(directions[k])
            term = node("mul", gradient, leaf(len(arrays) + len(weights) - 1, directions[k]))
            term = node("sum", term, axes=tuple(range(term.ndim)))
            products = term if products is None else node("add", products, term)
        assert products is not None
        slope = (at(step) - at(-step)) / (2 * step)
        np.testing.assert_allclose(at(0.0, products), slope, rtol=tolerance, atol=tolerance,
                                   err_msg=f"order {level + 1}")
        scalar = products
