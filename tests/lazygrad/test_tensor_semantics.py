"""What a tensor is as an object: out=, NumPy's functions, pickle, copies, text, questions.

Where a program can be written once for both libraries, `both` runs it with each and compares.
"""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad._core.outputs import NAMES


def plain(value):
    """Nested Python values for what either library returns."""
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (torch.Tensor, lg.Tensor)):
        name = str(value.dtype).removeprefix("torch.").removeprefix("lazygrad.")
        return name, list(value.shape), value.detach().tolist()
    return value


def both(program):
    assert plain(program(lg)) == plain(program(torch))


# ---- out=


def test_out_is_written_through_a_view_and_given_back():
    base, x = lg.zeros(3, 4), lg.arange(6.0).reshape(3, 2)
    place = base[:, ::2]
    assert lg.add(x, 1, out=place) is place
    assert base.tolist() == [[1, 0, 2, 0], [3, 0, 4, 0], [5, 0, 6, 0]]


def test_out_without_elements_is_resized_and_another_shape_warns():
    place = lg.empty(0)
    lg.mul(lg.ones(2, 3), 2, out=place)
    assert place.tolist() == [[2.0] * 3] * 2
    with pytest.warns(UserWarning, match="resized"):
        lg.mul(lg.ones(4), 2, out=place)
    assert place.shape == (4,)
    with pytest.raises(RuntimeError, match="is a view"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lg.mul(lg.ones(4), 2, out=lg.zeros(3)[1:])


def test_out_for_several_results():
    values, places = lg.empty(0), lg.empty(0, dtype=lg.int64)
    found = lg.max(lg.tensor([[1.0, 3.0], [5.0, 2.0]]), 1, out=(values, places))
    assert found.values is values and found.indices is places
    assert (values.tolist(), places.tolist()) == ([3.0, 5.0], [1, 0])
    with pytest.raises(TypeError, match="2 results for 1"):
        lg.max(lg.ones(2, 2), 1, out=(values,))


@pytest.mark.parametrize("call, match", [
    (lambda x: lg.add(x, 0.5, out=lg.zeros(2, dtype=lg.int64)), "float32 result .* int64 out"),
    (lambda x: lg.add(x, 1, out=lg.zeros(1).expand(2)), "one element in memory"),
    (lambda x: lg.add(x, 1, out=lg.zeros(2, requires_grad=True)), "out requires gradients"),
    (lambda x: lg.add(x.requires_grad_(), 1, out=lg.zeros(2)), "an argument requires them"),
    (lambda x: lg.add(x, 1, out=3), "out is a tensor"),
    (lambda x: lg.relu(x, out=x), "unexpected keyword"),
])
def test_out_refuses(call, match):
    with pytest.raises((RuntimeError, TypeError), match=match):
        call(lg.ones(2))


def test_out_may_overlap_the_operands_and_be_wider():
    x = lg.arange(4.0)
    lg.add(x[:-1], x[1:], out=x[1:])
    assert x.tolist() == [0.0, 1.0, 3.0, 5.0]
    place = lg.zeros(2, dtype=lg.float64)
    lg.eq(lg.tensor([1, 2]), 1, out=place)
    assert place.tolist() == [1.0, 0.0]


def test_out_decides_the_dtype_of_what_is_created():
    both(lambda library: [
        library.arange(3, out=library.empty(0, dtype=library.float64)),
        library.zeros(2, out=library.ones(2, dtype=library.int8)),
    ])


def test_out_counts_within_a_parameter_under_no_grad():
    weight = lg.zeros(2, requires_grad=True)
    with lg.no_grad():
        lg.add(lg.ones(2), 1, out=weight)
    assert weight.tolist() == [2.0, 2.0] and weight.is_leaf


def test_functions_that_take_out_are_those_of_pytorch():
    def takes_out(name):
        found = [getattr(space, name) for space in (torch, torch.linalg, torch.fft, torch.special)
                 if hasattr(space, name)]
        overloads = getattr(getattr(torch.ops.aten, name, None), "overloads", list)()
        return not found or any("out" in (each.__doc__ or "") for each in found) or any(
            "out" in each for each in overloads)
    assert [name for name in sorted(NAMES) if not takes_out(name)] == []


# ---- NumPy


def test_numpy_functions_of_tensors_are_tensors():
    x = lg.tensor([0.5, 1.0])
    for result in (numpy.sin(x), numpy.add(x, 1), numpy.multiply(2.0, x), numpy.float64(2) * x,
                   x ** numpy.int64(2), numpy.exp(lg.tensor([1, 2])), numpy.add.reduce(x)):
        assert isinstance(result, lg.Tensor)
    assert numpy.sin(x).dtype is lg.float32
    assert numpy.exp(lg.tensor(1)).dtype is lg.float64  # NumPy's rule for integers
    assert isinstance(numpy.asarray(x), numpy.ndarray)
    assert (numpy.float32(3) - x).tolist() == [2.5, 2.0]


def test_numpy_functions_keep_gradients():
    x = lg.tensor([0.5, 1.0], requires_grad=True)
    numpy.sin(x).sum().backward()
    assert x.grad.tolist() == pytest.approx(numpy.cos([0.5, 1.0]).tolist())


def test_arrays_on_either_side_of_operators():
    x, array = lg.tensor([1.0, 2.0]), numpy.array([3.0, 4.0])
    for result in (x + array, array + x, array - x, x * array, array / x, array ** x):
        assert isinstance(result, lg.Tensor) and result.dtype is lg.float64
    assert (array - x).tolist() == [2.0, 2.0]
    assert (array > x).tolist() == [True, True]
    array += x
    assert array.tolist() == [4.0, 6.0]


def test_numpy_writes_into_tensors_given_as_out():
    x = lg.zeros(2)
    assert numpy.add(numpy.ones(2), 1, out=x) is x
    assert x.tolist() == [2.0, 2.0]


def test_arrays_of_tensors_are_read_only():
    x = lg.ones(2)
    with pytest.raises(ValueError, match="read-only"):
        x.numpy()[0] = 5


# ---- pickle and copies


@pytest.mark.parametrize("make", [
    lambda: lg.arange(6.0).reshape(2, 3).t(), lambda: lg.tensor([1, 2]).to(lg.bfloat16),
    lambda: lg.tensor(3), lambda: lg.zeros(0, 3), lambda: lg.tensor([1j]),
    lambda: lg.ones(2, requires_grad=True), lambda: lg.nn.Parameter(lg.ones(2)),
    lambda: lg.ones(2) + 1,
])
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickle(make, protocol):
    x = make()
    again = pickle.loads(pickle.dumps(x, protocol))
    assert type(again) is type(x)
    assert plain(again) == plain(x)
    assert again.requires_grad == x.requires_grad and again.is_leaf


def test_pickled_modules_and_generators_go_on():
    model = lg.nn.Sequential(lg.nn.Linear(2, 3), lg.nn.ReLU())
    again = pickle.loads(pickle.dumps(model))
    x = lg.ones(1, 2)
    assert again(x).tolist() == model(x).tolist()
    assert [type(each) for each in again.parameters()] == [lg.nn.Parameter] * 2
    generator = lg.Generator().manual_seed(3)
    lg.rand(5, generator=generator)
    twin = pickle.loads(pickle.dumps(generator))
    assert lg.rand(4, generator=twin).tolist() == lg.rand(4, generator=generator).tolist()


def test_a_tensor_pickled_twice_stays_one():
    x = lg.ones(2)
    first, second = pickle.loads(pickle.dumps([x, x]))
    assert first is second


def test_deep_and_shallow_copies():
    x = lg.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="only leaves"):
        copy.deepcopy(x * 2)
    deep, shallow = copy.deepcopy(x), copy.copy(x)
    with lg.no_grad():
        x.add_(1)
    assert (deep.tolist(), shallow.tolist()) == ([1.0, 1.0], [2.0, 2.0])
    assert deep.requires_grad and shallow.requires_grad


# ---- text


TEXTS = [
    lambda library: library.arange(3.0),
    lambda library: library.arange(6.0).reshape(2, 3) / 7,
    lambda library: library.tensor([1e-5, 1.0, 1000.0]),
    lambda library: library.tensor([float("nan"), 1.0, float("-inf")]),
    lambda library: library.tensor(3.0),
    lambda library: library.tensor(True),
    lambda library: library.zeros(0, 3),
    lambda library: library.zeros(0, dtype=library.bool),
    lambda library: library.arange(2000).reshape(40, 50),
    lambda library: library.tensor([1 + 2j, 3.5 - 1j]),
    lambda library: library.tensor([-1, 10, 100], dtype=library.int32),
    lambda library: library.ones(2, requires_grad=True),
    lambda library: library.arange(30.0) / 3,
    lambda library: library.arange(3).to(library.bfloat16) / 3,
    lambda library: library.arange(8.0, dtype=library.float64).reshape(2, 2, 2),
    lambda library: library.nn.Parameter(library.ones(2)),
]


@pytest.mark.parametrize("make", TEXTS)
def test_repr_is_that_of_pytorch(make):
    assert repr(make(lg)) == repr(make(torch)).replace("torch.", "lazygrad.")


@pytest.mark.parametrize("options", [
    {"precision": 2}, {"threshold": 10, "edgeitems": 1}, {"linewidth": 40}, {"sci_mode": True},
    {"sci_mode": False}, {"profile": "short"}, {"profile": "full"}])
def test_print_options(options):
    def texts(library):
        library.set_printoptions(**options)
        try:
            return [repr(library.arange(60.0).reshape(2, 30) / 3),
                    repr(library.tensor([1e-7, 123.5]))]
        finally:
            library.set_printoptions(profile="default", sci_mode=None)
    assert texts(lg) == texts(torch)


def test_formats():
    both(lambda library: [f"{library.tensor(1.234):.2f}", f"{library.tensor(5)}",
                          str(library.tensor([1.0, 2.0]))])
    with pytest.raises(TypeError):
        f"{lg.ones(2):.2f}"


# ---- Python's protocols


def test_conversions_and_membership():
    both(lambda library: [
        int(library.tensor(2.7)), float(library.tensor(3)), complex(library.tensor(2.0)),
        [1, 2, 3][library.tensor(1)], 5.0 in library.arange(6.0), 9 in library.arange(6.0),
        list(reversed(library.arange(3))), len(library.zeros(3, 2)), [*library.arange(2)],
        library.arange(4.0)[1:].storage_offset(), library.zeros(2, 3).t().stride(),
    ])


@pytest.mark.parametrize("call, error", [
    (lambda: bool(lg.ones(2)), RuntimeError), (lambda: float(lg.ones(2)), RuntimeError),
    (lambda: lg.zeros(0).item(), RuntimeError), (lambda: len(lg.tensor(1)), TypeError),
    (lambda: iter(lg.tensor(1)), TypeError), (lambda: [0][lg.tensor(0.5)], TypeError),
    (lambda: "a" in lg.ones(2), RuntimeError), (lambda: lg.ones(2) + [1, 2], TypeError),
])
def test_conversions_refused(call, error):
    with pytest.raises(error):
        call()


def test_hash_is_identity_and_equality_is_elementwise():
    x = lg.ones(2)
    assert hash(x) == hash(x) and {x: 1}[x] == 1
    assert (x == x).tolist() == [True, True]
    assert (x == None) is False and (x != "a") is True  # noqa: E711


# ---- memory and handles


def test_views_share_memory():
    def program(library):
        x = library.arange(12.0).reshape(3, 4)
        x.diagonal().mul_(10)
        x.unfold(1, 2, 2)[0, 1].fill_(-1)
        x.as_strided((2, 2), (5, 1), 1).add_(100)
        x.view(library.int32)[2, 3] = 0
        x[:1].expand(3, 1, 4)[0].add_(1)
        return x, x.diagonal(-1).stride(), x.t()[1:].storage_offset()
    both(program)


def test_overlapping_windows_keep_the_last_write():
    x = lg.zeros(4)
    x.unfold(0, 2, 1).copy_(lg.arange(6.0).reshape(3, 2))
    assert x.tolist() == [0.0, 2.0, 4.0, 5.0]


def test_addresses():
    x = lg.arange(6.0)
    assert x[2:].data_ptr() - x.data_ptr() == 8
    assert x.untyped_storage() == x[2:].untyped_storage()
    assert x.untyped_storage().nbytes() == 24
    assert x.is_set_to(x.view(6)) and not x.is_set_to(x[1:])
    assert x[1:]._base is not None and x._base is None


def test_to_in_all_forms():
    def program(library):
        x = library.arange(3.0)
        return [x.to(library.float32) is x, x.to("cpu") is x, x.to(x) is x,
                x.to(library.float32, copy=True) is x, x.to(library.float64, False, True),
                x.to("cpu", library.int32), x.to(library.ones(1).double()), x.type_as(x.long()),
                x.to(memory_format=library.contiguous_format) is x, x.cpu() is x]
    both(program)
    with pytest.raises(RuntimeError, match="no device"):
        lg.ones(1).cuda()


def test_typed_names():
    assert lg.FloatTensor([1, 2]).dtype is lg.float32 and lg.LongTensor(2).shape == (2,)
    assert isinstance(lg.ones(1), lg.FloatTensor) and not isinstance(lg.ones(1), lg.LongTensor)
    assert lg.ones(1).type() == "lazygrad.FloatTensor"
    assert lg.ones(1).type("torch.DoubleTensor").dtype is lg.float64


def test_retained_gradients_are_those_after_hooks():
    def program(library):
        x = library.arange(3.0).requires_grad_()
        y = x * 3
        y.retain_grad()
        handle = y.register_hook(lambda gradient: gradient + 1)
        y.sum().backward()
        handle.remove()
        return x.grad, y.grad
    both(program)


def test_compiled_functions_write_into_the_argument_that_they_return():
    @lg.compile
    def add_one(x, place):
        return lg.add(x, 1, out=place)

    @lg.compile
    def mark(x):
        x.diagonal().fill_(7)
        return x

    for start in (0.0, 5.0):
        place = lg.zeros(2)
        assert add_one(lg.tensor([start, 2.0]), place) is place
        assert place.tolist() == [start + 1, 3.0]
        x = lg.full((2, 2), start)
        assert mark(x) is x and x.tolist() == [[7.0, start], [start, 7.0]]


def test_python_functions_on_elements():
    both(lambda library: [library.arange(3.0).apply_(lambda number: number + 1),
                          library.arange(3.0).map_(library.ones(3), lambda a, b: a - b)])


def test_sizes_beyond_memory_are_errors_with_a_line():
    functional = lg.nn.functional
    with pytest.raises(RuntimeError, match=r"\[conv2d\].*memory can hold \(test_tensor_semantics"):
        functional.conv2d(lg.ones(1, 3, 8, 8), lg.ones(4, 3, 3, 3), padding=10**12)
    with pytest.raises(RuntimeError, match=r"\[cat\].*memory can hold"):
        lg.cat([lg.zeros(2**45)] * 8)
    x = lg.ones(1, 3, 8, 8, requires_grad=True)
    functional.conv2d(x, lg.ones(4, 3, 3, 3), padding=3 * 10**6, stride=10**6).sum().backward()
    with pytest.raises(RuntimeError, match=r"recorded at test_tensor_semantics\.py:\d+"):
        x.grad.sum().item()
    x.grad = None
    assert lg.ones(2).add(1).tolist() == [2.0, 2.0]
