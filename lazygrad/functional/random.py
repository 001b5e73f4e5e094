"""Random numbers: counter-based (Philox 4x32-10), computed inside kernels.

The state is a seed and an offset in blocks of four 32-bit words.  Each call is given the state as
an input, so that programs stay the same, and the host moves the offset on.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy

from lazygrad._core import graph
from lazygrad._core.cell import leaf_of_array
from lazygrad._core.context import fail, method, now, operation
from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap, write
from lazygrad._core.types import as_dtype, default
from lazygrad._core.values import check_device
from lazygrad.functional._operands import as_node, sizes_of
from lazygrad.functional.creation import finish
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node

__all__ = ["manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "Generator",
           "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like",
           "normal", "bernoulli", "multinomial", "dropout", "alpha_dropout", "dropout1d",
           "dropout2d", "dropout3d", "feature_dropout", "rrelu", "gumbel_softmax"]


def _not_in_recordings(what: str) -> None:
    if now.recording is not None:
        now.recording.refuse(f"{what} takes part in no replay")


class Generator:
    """A source of random numbers of its own, with its own seed."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device, "Generator")
        self._lock = threading.Lock()
        self.manual_seed(int.from_bytes(os.urandom(7), "little"))

    def manual_seed(self, seed: int) -> Generator:
        """Starts over with a seed."""
        _not_in_recordings("seeding a generator")
        self._seed, self._offset = int(seed), 0
        return self

    def initial_seed(self) -> int:
        return self._seed

    def seed(self) -> int:
        return self.manual_seed(int.from_bytes(os.urandom(7), "little"))._seed

    def get_state(self) -> Tensor:
        _not_in_recordings("the state of a generator")
        return wrap(leaf_of_array(self._state()))

    def set_state(self, state: Tensor) -> None:
        self._seed, self._offset = (int(number) for number in state.tolist())

    def _state(self) -> numpy.ndarray:
        wrapped = [(word + 2**63) % 2**64 - 2**63 for word in (self._seed, self._offset)]
        return numpy.array(wrapped, numpy.int64)

    def draw(self, blocks: int) -> Node:
        """The state as a node, moved on by so many blocks."""
        if now.recording is not None:
            return now.recording.draw(self, blocks)
        with self._lock:
            state = self._state()
            self._offset += blocks
        return leaf_of_array(state)


generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Starts the global source over: the same seed gives the same numbers."""
    return generator.manual_seed(seed)


def seed() -> int:
    """Starts the global source over with a seed from the system; gives it back."""
    return generator.seed()


def initial_seed() -> int:
    return generator.initial_seed()


def get_rng_state() -> Tensor:
    return generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    generator.set_state(new_state)


def bits_node(shape: tuple[int, ...], source: Generator | None = None) -> Node:
    """32 random bits in every place."""
    count = math.prod(shape)
    return graph.make("random_bits", (source or generator).draw(-(-count // 4)), attrs=(shape,))


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
    if not target.is_floating:
        raise fail(name, f"makes floating numbers, not {target.name}")
    return target


@operation
def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
         requires_grad: bool = False, out: Any = None) -> Tensor:
    """Uniform in [0, 1)."""
    target = _float_target("rand", dtype, device)
    return finish(uniform_node(sizes_of("rand", size), target, generator), requires_grad)


@operation
def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
          requires_grad: bool = False, out: Any = None) -> Tensor:
    """Standard normal."""
    target = _float_target("randn", dtype, device)
    return finish(normal_node(sizes_of("randn", size), target, generator), requires_grad)


@operation
def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    return rand(*input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


@operation
def randn_like(input: Tensor, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    return randn(*input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


@operation
def randint(low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
            dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Whole numbers from low (0) to before high."""
    check_device(device, "randint")
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if high <= low:
        raise fail("randint", f"there is no number from {low} to before {high}")
    node = integers_node(int(low), int(high), sizes_of("randint", (size,)), generator)
    return finish(
        graph.cast(node, dtypes.int64 if dtype is None else as_dtype(dtype)), requires_grad
    )


@operation
def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: Any = None) -> Tensor:
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), dtype=dtype or input.dtype)


@operation
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None,
             device: Any = None) -> Tensor:
    """0 to n - 1 in random order; drawn on the host."""
    check_device(device, "randperm")
    _not_in_recordings("randperm")
    source = generator or globals()["generator"]
    with source._lock:
        seed, offset = source._seed, source._offset
        source._offset += -(-n // 4)
    host = numpy.random.Generator(numpy.random.Philox(key=seed % 2**64, counter=offset))
    order = wrap(leaf_of_array(host.permutation(n).astype(numpy.int64)))
    return order if dtype is None else order.to(dtype)


@operation
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
           dtype: Any = None, device: Any = None) -> Tensor:
    """Normal with a mean and standard deviation, each a number or a tensor."""
    if size is None:
        shape = graph.broadcast_shape("normal", *(shape_of(each) for each in (mean, std)
                                                  if isinstance(each, Tensor)))
    else:
        shape = sizes_of("normal", (size,))
    node = normal_node(shape, _float_target("normal", dtype, device), generator)
    return wrap(node) * std + mean


@operation
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 with the probability in each place, else 0."""
    node = as_node("bernoulli", input)
    wide = dtypes.float64 if node.dtype is dtypes.float64 else dtypes.float32
    chance = graph.cast(node, wide) if p is None else graph.const(p, wide, node.shape)
    hit = graph.make("lt", uniform_node(node.shape, wide, generator), graph.stop_gradient(chance))
    return wrap(graph.cast(hit, node.dtype))


@operation
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn in proportion to each row's weights: the largest of log(w) + Gumbel noise."""
    weights = graph.stop_gradient(as_node("multinomial", input))
    classes = weights.shape[-1]
    if not replacement and num_samples > classes:
        raise fail("multinomial", f"{num_samples} draws without replacement from {classes} classes")
    rows = graph.reshape(weights, (1, classes)) if weights.ndim == 1 else weights
    logs = graph.unary("log", graph.cast(rows, dtypes.float64))
    picks = []
    for _ in range(num_samples):
        noise = uniform_node(rows.shape, dtypes.float64, generator)
        noise = graph.unary(
            "log", graph.unary("neg", graph.unary("log", graph.add(noise, 2.0**-54)))
        )
        pick = graph.reduce("argmax", graph.sub(logs, noise), (1,), True)
        picks.append(pick)
        if not replacement:
            place = graph.make("eq", graph.iota(1, rows.shape), graph.broadcast(pick, rows.shape))
            logs = graph.where(place, -math.inf, logs)
    result = graph.concat(picks, 1)
    return wrap(graph.reshape(result, (*weights.shape[:-1], num_samples)))


def dropout_node(node: Node, p: float, shape: tuple[int, ...]) -> Node:
    """Zeroed with chance p, the rest scaled by 1 / (1 - p); one draw for each place of `shape`."""
    if p == 1:
        return graph.mul(node, 0)
    keep = graph.binary("le", graph.const(p, dtypes.float32, shape),
                        uniform_node(shape, dtypes.float32))
    return graph.where(keep, graph.mul(node, 1 / (1 - p)), 0)


def _check_chance(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise fail(name, f"p is a probability, and {p} does not lie in 0..1")


@operation
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Elements zeroed with chance p, the others scaled up to keep the mean."""
    _check_chance("dropout", p)
    if not training or p == 0:
        return input
    node = as_node("dropout", input)
    result = dropout_node(node, p, node.shape)
    return write(input, "dropout", result) if inplace else wrap(result)


@operation
def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True,
                    inplace: bool = False) -> Tensor:
    """Whole channels zeroed with chance p, the others scaled up."""
    _check_chance("dropout2d", p)
    if not training or p == 0:
        return input
    node = as_node("dropout2d", input)
    result = dropout_node(node, p, (*node.shape[:2], *(1,) * (node.ndim - 2)))
    return write(input, "dropout2d", result) if inplace else wrap(result)


dropout1d = dropout2d = dropout3d = feature_dropout


@operation
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                  inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of SELU networks (Klambauer et al. 2017)."""
    _check_chance("alpha_dropout", p)
    if not training or p == 0:
        return input
    low = -1.7580993408473766
    node = as_node("alpha_dropout", input)
    keep = graph.binary("le", graph.const(p, dtypes.float32, node.shape),
                        uniform_node(node.shape, dtypes.float32))
    scale = 1 / math.sqrt((1 - p) * (1 + p * low * low)) if p < 1 else 0.0
    return wrap(graph.add(graph.mul(graph.where(keep, node, low), scale), -scale * p * low))


@operation
def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """ReLU whose negative slope is drawn from lower..upper (their mean outside training)."""
    node = as_node("rrelu", input)
    slope: Any = (lower + upper) / 2
    if training:
        slope = graph.add(graph.mul(uniform_node(node.shape, node.dtype), upper - lower), lower)
    return wrap(graph.where(graph.binary("lt", node, 0), graph.mul(node, slope), node))


@operation
def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """A softmax of noisy logits; `hard`: one-hot forward, soft backward (Jang et al. 2017)."""
    from lazygrad.functional.activations import softmax
    draw = uniform_node(shape_of(logits), logits.dtype)
    tiny = {16: 2.0**-10}.get(logits.dtype.bits, 2.0**-25)
    noise = graph.unary("log", graph.unary("neg", graph.unary("log", graph.add(draw, tiny))))
    soft = softmax((logits - wrap(noise)) / tau, dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    return soft.detach().zero_().scatter(dim, index, 1.0) - soft.detach() + soft


# ---- in place


def _draw_in_place(name: str, make: Callable[..., Node], about: str) -> None:
    def apply(self: Tensor, *arguments: Any, generator: Generator | None = None,
              **keywords: Any) -> Tensor:
        return write(self, name, make(self, generator, *arguments, **keywords))
    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = about
    method(apply)


def _uniform(self: Tensor, source: Any, a: float = 0.0, b: float = 1.0, **names: float) -> Node:
    a, b = names.get("from", a), names.get("to", b)
    draw = uniform_node(shape_of(self), self.dtype, source)
    return graph.add(graph.mul(draw, b - a), a) if (a, b) != (0.0, 1.0) else draw


def _normal(self: Tensor, source: Any, mean: float = 0.0, std: float = 1.0) -> Node:
    draw = normal_node(shape_of(self), self.dtype, source)
    draw = draw if std == 1 else graph.mul(draw, std)
    return draw if mean == 0 else graph.add(draw, mean)


def _bernoulli(self: Tensor, source: Any, p: Any = 0.5) -> Node:
    draw = uniform_node(shape_of(self), dtypes.float32, source)
    chance = graph.cast(node_of(p), dtypes.float32) if isinstance(p, Tensor) else p
    return graph.cast(graph.binary("lt", draw, chance), self.dtype)


def _exponential(self: Tensor, source: Any, lambd: float = 1.0) -> Node:
    draw = uniform_node(shape_of(self), self.dtype, source)
    logs = graph.unary("log", graph.sub(graph.like(1, draw), draw))
    return graph.mul(logs, -1.0 / lambd)


def _random(self: Tensor, source: Any, low: int = 0, high: int | None = None) -> Node:
    if high is None:
        low, high = (0, low) if low else (0, 2**24 if self.dtype.is_floating
                                          else int(self.dtype.limits()[1]))
    return graph.cast(integers_node(low, high, shape_of(self), source), self.dtype)


_draw_in_place("uniform_", _uniform, "Uniform in a..b, written into the tensor.")
_draw_in_place("normal_", _normal, "Normal with mean and std, written into the tensor.")
_draw_in_place("bernoulli_", _bernoulli, "1 with chance p, else 0, written into the tensor.")
_draw_in_place("exponential_", _exponential, "Exponential with a rate, written into the tensor.")
_draw_in_place("random_", _random, "Whole numbers, written into the tensor.")
method(bernoulli.__wrapped__)  # type: ignore[attr-defined]
method(multinomial.__wrapped__)  # type: ignore[attr-defined]
