"""Random numbers: counter-based (Philox 4x32-10), computed inside kernels.

The state is a seed and an offset in blocks of four 32-bit words.  Each call is given the state as
an input, so that programs stay the same, and the host moves the offset on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.tensor import Tensor, node_of, shape_of
from lazygrad._core.types import as_dtype, default
from lazygrad._core.values import check_device
from lazygrad.functional._operands import result_dtype, sizes_of
from lazygrad.functional.creation import finish
from lazygrad.functional.generators import (
    Generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
    source_of,
)
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.inference import check_shape
from lazygrad_compiler.ir.inference_complex import PART
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS

__all__ = ["manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "Generator",
           "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like",
           "normal"]


def bits_node(shape: tuple[int, ...], source: Generator | None = None) -> Node:
    """32 random bits in every place."""
    return graph.make("random_bits", state_node(shape, source), attrs=(shape,))


def state_node(shape: tuple[int, ...], source: Generator | None = None) -> Node:
    """The state from which `bits_node` draws bits for a shape; the source moves on past them."""
    check_shape(OPS["random_bits"], shape)  # before anything is drawn
    return source_of("random_bits", source).draw(-(-math.prod(shape) // 4))


def uniform_node(shape: tuple[int, ...], dtype: DType, source: Generator | None = None) -> Node:
    """Uniform in [0, 1): 24 random bits (53 for float64) over their range."""
    if dtype is dtypes.float64:
        high, low = (graph.make("shr", part, graph.like(cut, part)) for part, cut
                     in ((bits_node(shape, source), 5), (bits_node(shape, source), 6)))
        high, low = graph.cast(high, dtype), graph.cast(low, dtype)
        return graph.mul(graph.add(graph.mul(high, 2.0**26), low), 2.0**-53)
    bits = bits_node(shape, source)
    keep = {dtypes.float16: 11, dtypes.bfloat16: 8}.get(dtype, 24)
    number = graph.cast(graph.make("shr", bits, graph.like(32 - keep, bits)), dtypes.float32)
    return graph.cast(graph.mul(number, 2.0**-keep), dtype)


def normal_node(shape: tuple[int, ...], dtype: DType, source: Generator | None = None) -> Node:
    """Standard normal by Box and Muller (1958): sqrt(-2 log u) cos(2 pi v)."""
    wide = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    first, second = uniform_node(shape, wide, source), uniform_node(shape, wide, source)
    # 1 - u lies in (0, 1], where the logarithm is finite.
    radius = graph.unary(
        "sqrt", graph.mul(graph.unary("log", graph.sub(graph.like(1, first), first)), -2.0)
    )
    angle = graph.unary("cos", graph.mul(second, 2 * math.pi))
    return graph.cast(graph.mul(radius, angle), dtype)


def integers_node(
    low: int, high: int, shape: tuple[int, ...], source: Generator | None = None
) -> Node:
    """Whole numbers from low to before high, int64: the high bits of bits * range."""
    span = high - low
    bits = graph.cast(bits_node(shape, source), dtypes.uint64)
    if span <= 2**32:
        number = graph.make("shr", graph.mul(bits, span), graph.like(32, bits))
    else:
        more = graph.cast(bits_node(shape, source), dtypes.uint64)
        wide = graph.make("or", graph.make("shl", bits, graph.like(32, bits)), more)
        number = graph.make("rem", wide, graph.like(span, wide)) if span < 2**64 else wide
    return graph.add(graph.cast(number, dtypes.int64), low)


def _float_target(name: str, dtype: Any, device: Any) -> DType:
    check_device(device, name)
    target = default.dtype if dtype is None else as_dtype(dtype)
    if not target.is_differentiable:
        raise fail(name, f"makes floating numbers, not {target.name}")
    return target


def _drawn(draw: Callable[..., Node], shape: tuple[int, ...], dtype: DType,
           source: Generator | None, scale: float) -> Node:
    """Numbers of a real dtype; of a complex one, both parts drawn and scaled."""
    if not dtype.is_complex:
        return draw(shape, dtype, source)
    drawn = (draw(shape, PART[dtype], source) for _ in range(2))
    return graph.make("complex", *(graph.mul(part, scale) for part in drawn))


@operation
def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
         requires_grad: bool = False, out: Any = None) -> Tensor:
    """Uniform in [0, 1)."""
    target = _float_target("rand", dtype, device)
    return finish(_drawn(uniform_node, sizes_of("rand", size), target, generator, 1.0),
                  requires_grad)


@operation
def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
          requires_grad: bool = False, out: Any = None) -> Tensor:
    """Standard normal; of a complex dtype, with a mean square of 1 in all."""
    target = _float_target("randn", dtype, device)
    return finish(_drawn(normal_node, sizes_of("randn", size), target, generator, math.sqrt(0.5)),
                  requires_grad)


@operation
def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None,
              device: Any = None, requires_grad: bool = False) -> Tensor:
    check_device(device, "rand_like")
    return rand(*input.shape, generator=generator, dtype=dtype or input.dtype,
                requires_grad=requires_grad)


@operation
def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None,
               device: Any = None, requires_grad: bool = False) -> Tensor:
    check_device(device, "randn_like")
    return randn(*input.shape, generator=generator, dtype=dtype or input.dtype,
                 requires_grad=requires_grad)


@operation
def randint(low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
            dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Whole numbers from low (0) to before high."""
    check_device(device, "randint")
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    low, high = int(low), int(high)
    if high <= low:
        raise fail("randint", f"there is no number from {low} to before {high}")
    node = integers_node(int(low), int(high), sizes_of("randint", (size,)), generator)
    return finish(
        graph.cast(node, dtypes.int64 if dtype is None else as_dtype(dtype)), requires_grad
    )


@operation
def randint_like(input: Tensor, low: int = 0, high: int | None = None, *,
                 generator: Generator | None = None, dtype: Any = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), generator=generator,
                   dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


@operation
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """0 to n - 1 in random order: the order of n random numbers of 64 bits."""
    check_device(device, "randperm")
    (n,) = sizes_of("randperm", (n,))
    if n < 0:
        raise fail("randperm", f"n = {n} is negative")
    target = dtypes.int64 if dtype is None else as_dtype(dtype)
    if not n:
        return finish(graph.const(0, target, (0,)), requires_grad)
    high, low = (graph.cast(bits_node((n,), generator), dtypes.uint64) for _ in range(2))
    keys = graph.make("or", graph.make("shl", high, graph.like(32, high)), low)
    order = graph.make("argsort", keys, attrs=(False,))
    return finish(graph.cast(order, target), requires_grad)


@operation
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
           dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal with a mean and standard deviation, each a number or a tensor; no gradients flow to
    them.
    """
    given = [each for each in (mean, std) if isinstance(each, Tensor)]
    if not isinstance(std, Tensor) and std < 0:
        raise fail("normal", f"the standard deviation is {std}")
    if size is None and not given:
        raise fail("normal", "of two numbers needs a size", "normal(0.0, 1.0, (3, 4))", TypeError)
    shape = sizes_of("normal", (size,)) if size is not None else \
        graph.broadcast_shape("normal", *(shape_of(each) for each in given))
    common = result_dtype(given) if given and dtype is None else dtype
    target = _float_target("normal", common, device)
    node = _drawn(normal_node, shape, target, generator, math.sqrt(0.5))
    for name, value in (("mul", std), ("add", mean)):
        if isinstance(value, Tensor):
            value = graph.cast(graph.stop_gradient(node_of(value)), target)
            if name == "mul" and not target.is_complex:
                positive = graph.make("not", graph.binary("lt", value, 0))
                value = graph.required(value, (positive, requirements.DEVIATIONS))
        elif value == (1 if name == "mul" else 0):
            continue
        node = graph.binary(name, node, value)
    return finish(node, requires_grad)
