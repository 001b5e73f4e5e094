"""Bad values that the matrix of defects does not make: indices out of bounds in every operation
that takes them, NaN and infinity where integers go, ragged lists, unknown devices, generators that
are used up, `out=` of another dtype, and numbers so large that doing as told would take forever.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad._core.tensor import node_of
from lazygrad.nn import functional
from lazygrad_runtime.program import forget_programs, pending_graph
from lazygrad_runtime.store import counters

SENSIBLE = (TypeError, ValueError, IndexError, RuntimeError, OverflowError, MemoryError,
            ZeroDivisionError)
NAN, INFINITY = math.nan, math.inf
Call = Callable[[Any], Any]


def table() -> lg.Tensor:
    return lg.ones(5, 4)


def numbers(*values: int) -> lg.Tensor:
    return lg.tensor(values)


def column(index: int) -> lg.Tensor:
    return lg.tensor([[0], [index]])


def assigned(index: int) -> lg.Tensor:
    values = table()
    values[numbers(0, index)] = 2.0
    return values


def looked_at(result: Any) -> Any:
    for each in result if isinstance(result, (tuple, list)) else [result]:
        if isinstance(each, lg.Tensor):
            each.detach().numpy()
    return result


# ---- indices out of bounds, in kernels: (operation, axis, size, call)

ROWS, SCORES, TWO = lg.ones(2, 4), lg.ones(2, 5), lg.ones(2, 1)
LOOKUPS: list[tuple[str, int, int, Call]] = [
    ("x[i]", 0, 5, lambda i: table()[numbers(0, i)]),
    ("x[0-d]", 0, 5, lambda i: table()[lg.tensor(i)]),
    ("x[list]", 0, 5, lambda i: table()[[0, i]]),
    ("x[array]", 0, 5, lambda i: table()[numpy.array([0, i])]),
    ("x[:, i]", 1, 4, lambda i: table()[:, numbers(0, i)]),
    ("x[i, j]", 1, 4, lambda i: table()[numbers(0, 1), numbers(0, i)]),
    ("x[i] =", 0, 5, assigned),
    ("index_select", 0, 5, lambda i: table().index_select(0, numbers(0, i))),
    ("gather", 0, 5, lambda i: table().gather(0, column(i))),
    ("take", 0, 20, lambda i: table().take(numbers(0, i))),
    ("take_along_dim", 0, 5, lambda i: lg.take_along_dim(table(), column(i), 0)),
    ("embedding", 0, 5, lambda i: functional.embedding(numbers(0, i), table())),
    ("embedding_bag", 0, 5,
     lambda i: functional.embedding_bag(numbers(0, i), table(), numbers(0))),
    ("index_add", 0, 5, lambda i: table().index_add(0, numbers(0, i), ROWS)),
    ("index_copy", 0, 5, lambda i: table().index_copy(0, numbers(0, i), ROWS)),
    ("index_fill", 0, 5, lambda i: table().index_fill(0, numbers(0, i), 2.0)),
    ("index_reduce", 0, 5, lambda i: table().index_reduce(0, numbers(0, i), ROWS, "amax")),
    ("index_put", 0, 5, lambda i: table().index_put((numbers(0, i),), lg.ones(4))),
    ("index_put accumulate", 0, 5,
     lambda i: table().index_put((numbers(0, i),), lg.ones(4), accumulate=True)),
    ("put_", 0, 20, lambda i: table().put_(numbers(0, i), lg.ones(2))),
    ("scatter", 0, 5, lambda i: table().scatter(0, column(i), TWO)),
    ("scatter of a number", 0, 5, lambda i: table().scatter(0, column(i), 2.0)),
    ("scatter_add", 0, 5, lambda i: table().scatter_add(0, column(i), TWO)),
    ("scatter_reduce", 0, 5, lambda i: table().scatter_reduce(0, column(i), TWO, "amax")),
    ("one_hot", 1, 5, lambda i: functional.one_hot(numbers(0, i), 5)),
    ("nll_loss", 0, 5, lambda i: functional.nll_loss(SCORES, numbers(0, i))),
    ("cross_entropy", 0, 5, lambda i: functional.cross_entropy(SCORES, numbers(0, i))),
    ("cross_entropy weighted", 0, 5,
     lambda i: functional.cross_entropy(SCORES, numbers(0, i), lg.ones(5))),
    ("cross_entropy smoothed", 0, 5,
     lambda i: functional.cross_entropy(SCORES, numbers(0, i), label_smoothing=0.1)),
    ("multi_margin_loss", 1, 5, lambda i: functional.multi_margin_loss(SCORES, numbers(0, i))),
    ("multilabel_margin_loss", 1, 5,
     lambda i: functional.multilabel_margin_loss(SCORES, lg.tensor([[0, 1, 2, 3, i]] * 2))),
    ("max_unpool1d", 1, 4,
     lambda i: functional.max_unpool1d(lg.ones(1, 1, 2), numbers(0, i).view(1, 1, 2), 2)),
    ("ctc_loss targets", 2, 4,
     lambda i: functional.ctc_loss(lg.ones(6, 1, 4), lg.tensor([[1, i]]), [6], [2])),
    ("ctc_loss input_lengths", 0, 6,
     lambda i: functional.ctc_loss(lg.ones(5, 1, 4), lg.tensor([[1, 2]]), numbers(i), [2])),
    ("ctc_loss target_lengths", 0, 3,
     lambda i: functional.ctc_loss(lg.ones(5, 1, 4), lg.tensor([[1, 2]]), [5], numbers(i))),
]


def operation_of(case: str) -> str:
    if case.startswith("x["):
        return "setitem" if case.endswith("=") else "index"
    return case.split()[0]


LEGAL = r"(Indices run from -?\d+ to \d+|The largest is \d+)\."


@pytest.mark.parametrize("index", [99, -99, 1 << 40])
@pytest.mark.parametrize("case, axis, size, call", LOOKUPS, ids=[case[0] for case in LOOKUPS])
def test_an_index_out_of_bounds_is_named_with_operation_axis_and_line(
        case, axis, size, call, index):
    with pytest.raises(IndexError) as caught:
        looked_at(call(index))
    pattern = rf"\[{operation_of(case)}\] index {index} is out of range for axis {axis} " \
        rf"of size {size} \(.*test_bad_values\.py:\d+.*\)\. {LEGAL}"
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)
    assert (table() + 1).sum().item() == 40  # and nothing else is spoilt


def selected(rows: lg.Tensor, index: lg.Tensor) -> lg.Tensor:
    return rows.index_select(0, index) * 3


def embedded(rows: lg.Tensor, index: lg.Tensor) -> lg.Tensor:
    return functional.embedding(index, rows) * 3


def both(rows: lg.Tensor, index: lg.Tensor) -> lg.Tensor:
    return rows[index % 5] + rows.index_select(0, index) * functional.embedding(index % 3, rows)


def differentiated(rows: lg.Tensor, index: lg.Tensor) -> lg.Tensor:
    rows = rows.detach().requires_grad_()
    embedded(rows, index).sum().backward()
    return rows.grad


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno + 1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("function, operation, line", [
    (selected, "index_select", line_of(selected)), (embedded, "embedding", line_of(embedded)),
    (both, "index_select", line_of(both)), (differentiated, "embedding", line_of(embedded)),
])
def test_the_operation_and_line_are_those_of_this_recording(function, operation, line, compiled):
    """Not those of another one with the same program, in memory or on disk."""
    rows, good, bad = lg.rand(5, 4), numbers(0, 1), numbers(0, 99)
    others = [selected, embedded, both, differentiated]
    for other in others:
        looked_at(other(rows, good))
    forget_programs()
    before = counters.disk_hits
    replays = [lg.compile(other) for other in others]  # which live on, with lines of their own
    for replayed in replays:
        looked_at(replayed(rows, good))
    called = replays[others.index(function)] if compiled else function
    message = rf"^\[{operation}\] index 99 .*test_bad_values.py:{line}\)"
    with pytest.raises(IndexError, match=message):
        looked_at(called(rows, bad))
    assert counters.disk_hits > before


def test_what_is_made_of_constants_alone_bears_its_own_line():
    """An equal one is alive, kept by its cell, and was recorded elsewhere."""
    kept = lg.zeros(5)[lg.arange(7) * 2]
    with pytest.raises(IndexError, match=rf"test_bad_values.py:{line_of(doubled)}\)"):
        print(doubled())
    assert kept.shape == (7,)


def doubled() -> lg.Tensor:
    return lg.zeros(5)[lg.arange(7) * 2]


def test_equal_constants_of_two_lines_are_one_in_a_program():
    x = lg.from_numpy(numpy.ones(3, numpy.float32))
    y = x + 7.0
    z = x + 7.0
    graph = pending_graph([node_of(y), node_of(z)])[0]
    assert y is not z and graph.outputs[0] is graph.outputs[1]
    assert y.tolist() == z.tolist() == [8.0] * 3


# ---- values that an operation does not take: (operation, call), refused as the program runs


def floats(*values: float) -> lg.Tensor:
    return lg.tensor(values)


REFUSED_VALUES: list[tuple[str, str, Callable[[], Any]]] = [
    ("multinomial", "a weight", lambda: lg.multinomial(floats(0.5, -0.1), 1)),
    ("multinomial", "a weight", lambda: lg.multinomial(floats(0.5, NAN), 3, True)),
    ("multinomial", "a weight", lambda: lg.multinomial(floats(0.5, INFINITY), 1)),
    ("multinomial", "all 0", lambda: lg.multinomial(lg.tensor([[1.0, 2.0], [0.0, 0.0]]), 1)),
    ("multinomial", "all 0", lambda: lg.multinomial(lg.zeros(3), 2, True)),
    ("bernoulli", "a probability", lambda: lg.bernoulli(floats(0.5, 1.1))),
    ("bernoulli", "a probability", lambda: lg.bernoulli(floats(0.5, NAN))),
    ("bernoulli_", "a probability", lambda: lg.zeros(2).bernoulli_(floats(-0.5, 1.0))),
    ("poisson", "a rate", lambda: lg.poisson(floats(1.0, -1.0))),
    ("normal", "deviation", lambda: lg.normal(lg.zeros(2), floats(1.0, -1.0))),
    ("binary_cross_entropy", "an input",
     lambda: functional.binary_cross_entropy(floats(0.5, 1.5), floats(1.0, 1.0))),
    ("binary_cross_entropy", "a target",
     lambda: functional.binary_cross_entropy(floats(0.5, 0.5), floats(1.0, 2.0),
                                             reduction="none")),
    ("gaussian_nll_loss", "a variance",
     lambda: functional.gaussian_nll_loss(floats(0.0), floats(1.0), floats(-1.0))),
    ("embedding_bag", "the first offset",
     lambda: functional.embedding_bag(numbers(0, 1), table(), numbers(1))),
    ("floor_divide", "divided by zero", lambda: numbers(1, 2) // numbers(1, 0)),
    ("remainder", "divided by zero", lambda: numbers(1, 2) % numbers(1, 0)),
    ("remainder", "divided by zero", lambda: numbers(1, 2) % 0),
    ("fmod", "divided by zero", lambda: lg.fmod(numbers(1, 2), numbers(1, 0))),
    ("div", "divided by zero",
     lambda: lg.div(numbers(1, 2), numbers(1, 0), rounding_mode="trunc")),
    ("Categorical", "a parameter",
     lambda: lg.distributions.Categorical(floats(0.5, -0.5)).sample()),
    ("Categorical", "a parameter",
     lambda: lg.distributions.Categorical(logits=floats(0.5, NAN)).log_prob(lg.tensor(0))),
    ("Normal", "a parameter", lambda: lg.distributions.Normal(floats(0.0), floats(0.0)).sample()),
    ("Uniform", "a parameter", lambda: lg.distributions.Uniform(1.0, 1.0).entropy()),
    ("Beta", "a parameter", lambda: lg.distributions.Beta(1.0, -1.0).sample()),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", range(len(REFUSED_VALUES)),
                         ids=[f"{name} {what}" for name, what, _ in REFUSED_VALUES])
def test_a_value_that_an_operation_does_not_take_is_refused(case, compiled):
    name, what, call = REFUSED_VALUES[case]
    expected = rf"\[{name}\] .*{what}.*\(test_bad_values.py:\d+\)"
    for kind in (ValueError, RuntimeError):
        with pytest.raises(kind, match=expected):
            looked_at((lg.compile(call) if compiled else call)())


@pytest.mark.parametrize("call", [
    lambda: lg.multinomial(floats(0.0, 3.0), 1), lambda: lg.bernoulli(floats(0.0, 1.0)),
    lambda: lg.poisson(floats(0.0, 1e30)), lambda: lg.normal(lg.zeros(2), floats(0.0, NAN)),
    lambda: functional.binary_cross_entropy(floats(0.0, 1.0), floats(1.0, 0.0)),
    lambda: lg.distributions.Normal(0.0, -1.0, validate_args=False).log_prob(0.0),
    lambda: lg.bernoulli(lg.zeros(0)), lambda: lg.zeros(0, dtype=lg.int64) // lg.tensor(0),
    lambda: numbers(1, 2) // 2, lambda: floats(1.0) // floats(0.0),
])
def test_a_value_at_the_border_is_taken(call):
    looked_at(call())


def test_a_step_whose_target_is_refused_leaves_the_parameters():
    layer = lg.nn.Linear(2, 1)
    optimizer = lg.optim.SGD(layer.parameters(), lr=0.5)

    @lg.compile
    def step(target):
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy(layer(lg.ones(1, 2)).sigmoid(), target)
        loss.backward()
        optimizer.step()
        return loss

    first = step(lg.ones(1, 1)).item()
    before = layer.weight.tolist()
    with pytest.raises(ValueError, match="a target lies outside"):
        step(lg.full((1, 1), 2.0))
    assert layer.weight.tolist() == before
    assert step(lg.ones(1, 1)).item() < first


def test_indices_within_bounds_are_not_refused():
    for name, _, _, call in LOOKUPS:
        looked_at(call(1)), name


def test_memory_that_a_convolution_asks_for_is_named_with_its_line_in_replays_too():
    def padded(values: lg.Tensor, reduce: bool) -> lg.Tensor:
        result = functional.conv1d(values, lg.ones(3, 2, 3), padding=1 << 38)
        return result.sum() if reduce else result

    values = lg.ones(1, 2, 5)
    message = rf"conv of \d+ bytes .*test_bad_values.py:{line_of(padded)}"
    for reduce in (False, True):
        for call in (padded, lg.compile(padded)):
            with pytest.raises(MemoryError, match=message):
                looked_at(call(values, reduce))


# ---- what has to raise as it is called: (name, call)

INTEGERS = lg.tensor([1, 2])


def used_up() -> Iterator[int]:
    gone = (each for each in [1, 2])
    gone.close()
    return gone


def with_out(name: str, *arguments: Any, dtype: Any = lg.int64) -> Call:
    return lambda: getattr(lg, name)(*arguments, out=lg.empty(0, dtype=dtype))


MAPPED: dict[str, Call] = {
    "nan as int": lambda: lg.tensor(NAN, dtype=lg.int64),
    "inf in a list": lambda: lg.tensor([INFINITY, 1], dtype=lg.int32),
    "nan in an array": lambda: lg.tensor(numpy.array([NAN]), dtype=lg.int8),
    "as_tensor nan": lambda: lg.as_tensor([NAN], dtype=lg.uint8),
    "asarray inf": lambda: lg.asarray([-INFINITY], dtype=lg.int16),
    "full nan": lambda: lg.full((2,), NAN, dtype=lg.int64),
    "full_like inf": lambda: lg.full_like(INTEGERS, INFINITY),
    "new_full nan": lambda: INTEGERS.new_full((2,), NAN),
    "fill_ nan": lambda: lg.tensor([1]).fill_(NAN),
    "setitem nan": lambda: lg.tensor([1]).__setitem__(0, NAN),
    "masked_fill inf": lambda: INTEGERS.masked_fill(INTEGERS > 1, INFINITY),
    "index_fill nan": lambda: INTEGERS.index_fill(0, lg.tensor([0]), NAN),
    "scatter nan": lambda: INTEGERS.scatter(0, lg.tensor([0]), NAN),
    "pad nan": lambda: functional.pad(INTEGERS, (1, 1), value=NAN),
    "add_ nan": lambda: lg.tensor([1]).add_(NAN),
    "arange nan": lambda: lg.arange(0, NAN),
    "arange inf": lambda: lg.arange(0, INFINITY, dtype=lg.int64),
    "arange step nan": lambda: lg.arange(0, 5, NAN),
    "linspace nan": lambda: lg.linspace(0, NAN, 5, dtype=lg.int64),
    "range nan": lambda: lg.range(0, NAN),
    "randint inf": lambda: lg.randint(0, INFINITY, (2,)),
    "sizes nan": lambda: lg.zeros(NAN),
    "repeat inf": lambda: lg.ones(3).repeat(INFINITY),
    "select nan": lambda: table().select(0, NAN),
    "narrow 1.5": lambda: table().narrow(0, 1.5, 1),
    "seed nan": lambda: lg.manual_seed(NAN),
    "seed text": lambda: lg.Generator().manual_seed("x"),

    "ragged": lambda: lg.tensor([[1, 2], [3]]),
    "ragged deeper": lambda: lg.tensor([[[1], [2]], [[3, 4], [5]]]),
    "ragged empty": lambda: lg.tensor([[], [1]]),
    "ragged depths": lambda: lg.tensor([1, [2]]),
    "ragged with a dtype": lambda: lg.tensor([[1], [2, 3]], dtype=lg.float32),
    "ragged tensors": lambda: lg.tensor([lg.ones(2), lg.ones(3)]),
    "ragged arrays": lambda: lg.tensor([numpy.ones(2), numpy.ones(3)]),
    "ragged objects": lambda: lg.tensor(numpy.array([[1], [2, 3]], dtype=object)),
    "as_tensor ragged": lambda: lg.as_tensor([[1], 2]),
    "asarray ragged": lambda: lg.asarray([[1], [2, 3]]),
    "new_tensor ragged": lambda: table().new_tensor([[1], [2, 3]]),
    "setitem ragged": lambda: lg.ones(2).__setitem__(slice(None), [[1], [2, 3]]),
    "index ragged": lambda: lg.ones(5)[[[0], [1, 2]]],

    **{f"device of {name}": lambda make=make: make(device="mars") for name, make in {
        "zeros": lambda **more: lg.zeros(2, **more), "ones": lambda **more: lg.ones(2, **more),
        "empty": lambda **more: lg.empty(2, **more), "eye": lambda **more: lg.eye(2, **more),
        "full": lambda **more: lg.full((2,), 1, **more),
        "tensor": lambda **more: lg.tensor(1, **more),
        "as_tensor": lambda **more: lg.as_tensor([1], **more),
        "asarray": lambda **more: lg.asarray(table(), **more),
        "arange": lambda **more: lg.arange(3, **more),
        "range": lambda **more: lg.range(0, 3, **more),
        "linspace": lambda **more: lg.linspace(0, 1, 3, **more),
        "zeros_like": lambda **more: lg.zeros_like(table(), **more),
        "full_like": lambda **more: lg.full_like(table(), 1, **more),
        "rand": lambda **more: lg.rand(2, **more), "randn": lambda **more: lg.randn(2, **more),
        "randint": lambda **more: lg.randint(0, 3, (2,), **more),
        "randperm": lambda **more: lg.randperm(3, **more),
        "rand_like": lambda **more: lg.rand_like(table(), **more),
        "randn_like": lambda **more: lg.randn_like(table(), **more),
        "tril_indices": lambda **more: lg.tril_indices(3, 3, **more),
        "empty_strided": lambda **more: lg.empty_strided((2,), (1,), **more),
        "hann_window": lambda **more: lg.hann_window(3, **more),
        "fftfreq": lambda **more: lg.fft.fftfreq(4, **more),
        "Generator": lg.Generator, "Linear": lambda **more: lg.nn.Linear(2, 2, **more),
        "to": lambda device: table().to(device), "Module.to":
        lambda device: lg.nn.Linear(2, 2).to(device),
    }.items()},
    "cuda": lambda: table().cuda(99),

    "tensor of a generator": lambda: lg.tensor(used_up()),
    "cat of nothing left": lambda: lg.cat(used_up()),
    "stack of nothing left": lambda: lg.stack(used_up()),
    "sizes used up": lambda: lg.zeros(used_up()),
    "dims used up": lambda: table().sum(used_up()),
    "order used up": lambda: table().permute(used_up()),
    "index used up": lambda: table()[used_up()],
    "split used up": lambda: table().split(used_up()),
    "meshgrid used up": lambda: lg.meshgrid(used_up()),
    "einsum used up": lambda: lg.einsum("i->i", used_up()),
    "grad of nothing left": lambda: lg.autograd.grad(
        lg.ones(2, requires_grad=True).sum(), used_up()),
    "generator 5": lambda: lg.rand(2, generator=5),
    "generator text": lambda: lg.randn(2, generator="g"),
    "generator used up": lambda: lg.randperm(3, generator=used_up()),

    "out add": with_out("add", lg.ones(2), 1), "out exp": with_out("exp", INTEGERS),
    "out complex": with_out("mul", lg.ones(2), 1j, dtype=lg.float32),
    "out matmul": with_out("matmul", lg.ones(2, 2), lg.ones(2, 2), dtype=lg.int32),
    "out sum": with_out("sum", lg.ones(2)), "out cat": with_out("cat", [lg.ones(2)]),
    "out to bool": with_out("add", INTEGERS, 1, dtype=lg.bool),
    "out one of two": lambda: lg.sort(lg.ones(2), out=(lg.ones(2).int(), INTEGERS.clone())),
    "out too few": lambda: lg.max(table(), 0, out=lg.zeros(4)),
    "out of an array": lambda: lg.add(lg.ones(2), 1, out=numpy.ones(2)),
    "out expanded": lambda: lg.add(lg.ones(2), 1, out=lg.zeros(1).expand(2)),
    "out with gradients": lambda: lg.add(lg.ones(2), 1, out=lg.ones(2, requires_grad=True)),
}


@pytest.mark.parametrize("name", MAPPED)
def test_refused_with_the_operation_and_the_line(name):
    with pytest.raises(SENSIBLE) as caught:
        MAPPED[name]()
    message = str(caught.value)
    assert re.match(r"\[\w[^\]]*\] ", message), message
    assert re.search(r"test_bad_values\.py:\d+", message), message


# ---- numbers that would keep a machine busy for hours: refused at once

PICTURE = lg.ones(1, 3, 6, 6)
ONE = lg.ones(1)


def spread(count: int) -> lg.Tensor:
    return ONE.expand(count)


TOO_MUCH: dict[str, Call] = {
    "mvlgamma": lambda n: lg.mvlgamma(lg.ones(3), n),
    "chebyshev": lambda n: lg.special.chebyshev_polynomial_t(lg.ones(3), n),
    "laguerre": lambda n: lg.special.laguerre_polynomial_l(lg.ones(3), n),
    "vander": lambda n: lg.vander(lg.ones(3), n * 16),
    "linalg.vander": lambda n: lg.linalg.vander(lg.ones(3), N=n * 16),
    "repeat": lambda n: lg.ones(3).repeat(n, n),
    "repeat_interleave": lambda n: lg.ones(3).repeat_interleave(lg.tensor([n, n, n]) * 16),
    "tensor_split": lambda n: lg.ones(3).tensor_split(n),
    "combinations": lambda n: lg.combinations(lg.ones(3), n, True),
    "combinations of many": lambda n: lg.combinations(lg.arange(50), 25),
    "cartesian_prod": lambda n: lg.cartesian_prod(*[lg.arange(1 << 16)] * 3),
    "meshgrid": lambda n: lg.stack(lg.meshgrid(*[spread(1 << 20)] * 4)),
    "tril_indices": lambda n: lg.tril_indices(n, n),
    "unfold": lambda n: functional.unfold(PICTURE, n),
    "unfold padded": lambda n: functional.unfold(PICTURE, 2, padding=n),
    "fold": lambda n: functional.fold(lg.ones(1, 4, 25), (n, n), 2),
    "pad": lambda n: functional.pad(PICTURE, (n, n, n, n)),
    "pad reflect": lambda n: functional.pad(PICTURE, (n, n), mode="reflect"),
    "conv2d padded": lambda n: functional.conv2d(PICTURE, lg.ones(2, 3, 3, 3), padding=n),
    "conv_transpose2d": lambda n: functional.conv_transpose2d(
        PICTURE, lg.ones(3, 3, 3, 3), stride=n),
    "max_pool2d": lambda n: functional.max_pool2d(PICTURE, n),
    "avg_pool2d padded": lambda n: functional.avg_pool2d(PICTURE, 10**5, padding=10**5 // 2),
    "adaptive_avg_pool1d": lambda n: functional.adaptive_avg_pool1d(PICTURE[0], n),
    "interpolate": lambda n: functional.interpolate(PICTURE, size=n),
    "pixel_shuffle": lambda n: functional.pixel_shuffle(PICTURE, n),
    "svd_lowrank": lambda n: lg.svd_lowrank(lg.ones(3, 4), 2, n),
    "ctc_loss": lambda n: functional.ctc_loss(
        ONE.expand(n, 1, 4), lg.tensor([[1, 2]]), [3], [2]),
    "kaiser_window": lambda n: lg.kaiser_window(n),
    "einsum": lambda n: lg.einsum("i,j,k->ijk", *[spread(1 << 20)] * 3),
    "outer": lambda n: lg.outer(spread(n), spread(n)),
    "arange": lambda n: lg.arange(n * 16),
    "one_hot": lambda n: functional.one_hot(lg.tensor([0, 1]), n * 16),
    "bincount": lambda n: lg.bincount(lg.tensor([n * 16])),
}


class TooSlowError(BaseException):
    pass


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_at_once(name):
    def stop(*_: Any) -> None:
        raise TooSlowError(name)

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    began = time.monotonic()
    try:
        with pytest.raises(SENSIBLE) as caught:
            looked_at(TOO_MUCH[name](1 << 40))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
    assert time.monotonic() - began < 10
    assert re.search(r"test_bad_values\.py:\d+", str(caught.value)), str(caught.value)
