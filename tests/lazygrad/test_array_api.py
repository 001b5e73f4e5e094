"""The array API namespace against array-api-strict: every name, argument, result and dtype."""

from __future__ import annotations

import inspect
import math
import operator
import os
import subprocess
import sys
import warnings

import array_api_strict as strict
import numpy
import pytest

import lazygrad as lg
from lazygrad import array_api

random = numpy.random.default_rng(5)
F = random.uniform(-2, 2, (3, 4)).astype("float32")
D = random.uniform(-2, 2, (3, 4))
P = random.uniform(0.1, 0.9, (3, 4))
I = random.integers(-5, 6, (3, 4))
S = random.integers(0, 4, (3, 4), dtype="int16")
U = random.integers(0, 9, (3, 4), dtype="uint8")
B = random.random((3, 4)) < 0.5
C = (D + 1j * random.uniform(-2, 2, (3, 4))).astype("complex128")
V = random.uniform(-2, 2, 5)
W = random.integers(0, 3, 9)
SQUARE = random.uniform(-1, 1, (3, 3)) + 3 * numpy.eye(3)
POSITIVE = SQUARE @ SQUARE.T
STACK = random.uniform(-1, 1, (2, 3, 3)) + 3 * numpy.eye(3)
ZERO_D = numpy.asarray(2.5)

NEWER = {"broadcast_shapes", "isin", "linalg.eig", "linalg.eigvals"}
"""What array-api-strict has of later versions of the standard."""

EXTRAS = {"ArrayAPIStrictFlags", "Device", "get_array_api_strict_flags", "__version__",
          "reset_array_api_strict_flags", "set_array_api_strict_flags"}


def standard_names(module):
    return sorted(set(module.__all__) - EXTRAS - NEWER)


@pytest.fixture(autouse=True, scope="module")
def version_of_the_standard():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strict.set_array_api_strict_flags(api_version="2024.12")
        yield
        strict.reset_array_api_strict_flags()


def test_every_name_is_there():
    for theirs, ours in ((strict, array_api), (strict.linalg, array_api.linalg),
                         (strict.fft, array_api.fft)):
        names = standard_names(theirs)
        assert len(names) > 10
        assert not [name for name in names if not hasattr(ours, name)]
    for name in standard_names(strict):
        assert name in array_api.__all__
    assert array_api.__array_api_version__ == strict.__array_api_version__ == "2024.12"


def _functions():
    for prefix, theirs, ours in (("", strict, array_api),
                                 ("linalg.", strict.linalg, array_api.linalg),
                                 ("fft.", strict.fft, array_api.fft)):
        for name in standard_names(theirs):
            if inspect.isfunction(getattr(theirs, name)):
                yield pytest.param(getattr(theirs, name), getattr(ours, name), id=prefix + name)


@pytest.mark.parametrize("theirs, ours", list(_functions()))
def test_arguments(theirs, ours):
    """Keywords are the standard's; what is positional there can be positional here."""
    want = inspect.signature(theirs).parameters
    have = inspect.signature(ours).parameters
    for name, parameter in want.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert name in have, name
    positional = [[p for p in found.values() if p.kind in (p.POSITIONAL_ONLY,
                                                          p.POSITIONAL_OR_KEYWORD)]
                  for found in (want, have)]
    assert len(positional[0]) == len(positional[1])


def attributes(array):
    return [array.T, array.mT, array.ndim, tuple(array.shape), array.to_device(array.device)]


CALLS = {
    **{name: [(name, F), (name, D), (name, C)] for name in
       ("cos", "exp", "expm1", "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan",
        "tanh", "cosh", "atan", "asinh")},
    **{name: [(name, D), (name, I), (name, U)] for name in ("ceil", "floor", "trunc", "round")},
    **{name: [(name, F), (name, I), (name, C)] for name in
       ("abs", "negative", "positive", "square", "isfinite", "isinf", "isnan")},
    **{name: [(name, P), (name, P.astype("float32"))] for name in ("acos", "asin", "atanh")},
    "sign": [("sign", F), ("sign", I), ("sign", C)],
    "acosh": [("acosh", P + 1)],
    "reciprocal": [("reciprocal", D), ("reciprocal", C)],
    "signbit": [("signbit", numpy.asarray([0.0, -0.0, 1.0, -1.0]))],
    "conj": [("conj", C), ("conj", D)],
    "real": [("real", C), ("real", D)],
    "imag": [("imag", C)],
    "bitwise_invert": [("bitwise_invert", I), ("bitwise_invert", B)],
    "logical_not": [("logical_not", B)],
    **{name: [(name, F, F[::-1].copy()), (name, F, D), (name, I, S), (name, C, F), (name, D, 2),
              (name, F, ZERO_D), (name, 3.0, F)]
       for name in ("add", "subtract", "multiply")},
    "divide": [("divide", F, D), ("divide", C, D), ("divide", F, 2.0), ("divide", F, ZERO_D)],
    "pow": [("pow", P, D), ("pow", D, 2.0), ("pow", S, S), ("pow", C, C)],
    "floor_divide": [("floor_divide", D, P), ("floor_divide", I, U + 1)],
    "remainder": [("remainder", D, P), ("remainder", I, S + 1)],
    **{name: [(name, D, P), (name, F, P.astype("float32"))]
       for name in ("atan2", "copysign", "hypot", "logaddexp", "nextafter")},
    **{name: [(name, D, P), (name, I, U), (name, I, 2)]
       for name in ("maximum", "minimum", "greater", "greater_equal", "less", "less_equal")},
    **{name: [(name, D, D), (name, I, S), (name, C, C), (name, B, B)]
       for name in ("equal", "not_equal")},
    **{name: [(name, B, ~B[::-1])] for name in ("logical_and", "logical_or", "logical_xor")},
    **{name: [(name, I, S), (name, B, B[::-1].copy()), (name, U, 3)]
       for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    **{name: [(name, U, S), (name, I, 2)]
       for name in ("bitwise_left_shift", "bitwise_right_shift")},
    "clip": [("clip", D, -1.0, 1.0), ("clip", I, 0, None), ("clip", D, None, P), ("clip", D)],
    "sum": [("sum", each) for each in (F, D, I, S, U, C)] + [
        ("sum", D, {"axis": (0, 1), "keepdims": True}), ("sum", D, {"axis": -1}),
        ("sum", F, {"dtype": "float64"})],
    "prod": [("prod", each) for each in (F, D, S, U, C)] + [
        ("prod", D, {"axis": (0, 1), "keepdims": True}), ("prod", D, {"axis": 0})],
    "mean": [("mean", F), ("mean", D, {"axis": (0, 1), "keepdims": True}), ("mean", C)],
    "max": [("max", F), ("max", I, {"axis": (0, 1), "keepdims": True}), ("max", U, {"axis": 0})],
    "min": [("min", F), ("min", I, {"axis": (0, 1), "keepdims": True}), ("min", U, {"axis": 0})],
    "std": [("std", D), ("std", D, {"axis": 1, "correction": 1.0, "keepdims": True})],
    "var": [("var", D), ("var", F, {"axis": (0, 1), "correction": 0.5})],
    "all": [("all", B), ("all", B, {"axis": (0, 1), "keepdims": True}), ("all", D, {"axis": 0}),
            ("all", B[:0], {"axis": 0})],
    "any": [("any", B), ("any", B, {"axis": (0, 1), "keepdims": True}), ("any", I, {"axis": 0}),
            ("any", B[:0])],
    "argmax": [("argmax", D), ("argmax", I, {"axis": 1, "keepdims": True}),
               ("argmax", D, {"keepdims": True})],
    "argmin": [("argmin", D), ("argmin", I, {"axis": 1})],
    "count_nonzero": [("count_nonzero", I), ("count_nonzero", B, {"axis": 1, "keepdims": True})],
    "cumulative_sum": [("cumulative_sum", V), ("cumulative_sum", U, {"axis": 0}),
                       ("cumulative_sum", D, {"axis": 1, "include_initial": True})],
    "cumulative_prod": [("cumulative_prod", V), ("cumulative_prod", S, {"axis": 0}),
                        ("cumulative_prod", D, {"axis": 1, "include_initial": True})],
    "diff": [("diff", D), ("diff", I, {"axis": 0, "n": 2}),
             ("diff", V, {"prepend": V[:1], "append": V[:2]})],
    "arange": [("arange", 5), ("arange", 1, 7, 2), ("arange", 5, 1),
               ("arange", 1.0, 2.0, 0.25, {"dtype": "float64"}),
               ("arange", 5, 1, -2, {"dtype": "float32"})],
    "asarray": [("asarray", [[1, 2], [3, 4]]), ("asarray", 2.5, {"dtype": "float64"}),
                ("asarray", True), ("asarray", D, {"dtype": "float32"}),
                ("asarray", D, {"copy": True})],
    "eye": [("eye", 3, {"dtype": "float32"}), ("eye", 3, 4, {"k": 1, "dtype": "float64"}),
            ("eye", 3, 2, {"k": -1, "dtype": "int64"})],
    "full": [("full", (2, 3), 7), ("full", 3, 1.5, {"dtype": "float32"}), ("full", (), True)],
    "full_like": [("full_like", I, 3), ("full_like", I, 2.5, {"dtype": "float64"})],
    "ones": [("ones", (2, 3), {"dtype": "int32"}), ("ones", 4, {"dtype": "float64"})],
    "zeros": [("zeros", (2, 3), {"dtype": "complex64"}), ("zeros", (), {"dtype": "bool"})],
    "ones_like": [("ones_like", S)],
    "zeros_like": [("zeros_like", F, {"dtype": "int8"})],
    "linspace": [("linspace", 0.0, 1.0, 5, {"dtype": "float64"}),
                 ("linspace", -1.0, 2.0, 4, {"dtype": "float32", "endpoint": False}),
                 ("linspace", 1.0, 2.0, 1, {"dtype": "float64"}),
                 ("linspace", 0.0, 1.0, 0, {"dtype": "float64"}),
                 ("linspace", 0.0, 1j, 3, {"dtype": "complex128"})],
    "meshgrid": [("meshgrid", V, V[:3]), ("meshgrid", V, V[:3], {"indexing": "ij"})],
    "tril": [("tril", D), ("tril", D, {"k": 1})],
    "triu": [("triu", D), ("triu", I, {"k": -1})],
    "broadcast_arrays": [("broadcast_arrays", D, D[0], D[:, :1])],
    "broadcast_to": [("broadcast_to", D, (2, 3, 4))],
    "concat": [("concat", [D, D[:1]]), ("concat", [D, F], {"axis": 1}),
               ("concat", [I, S], {"axis": None})],
    "stack": [("stack", [D, F]), ("stack", [D, D], {"axis": -1})],
    "unstack": [("unstack", D), ("unstack", D, {"axis": 1})],
    "expand_dims": [("expand_dims", D, 1), ("expand_dims", D, -1)],
    "squeeze": [("squeeze", D[:1], 0), ("squeeze", D[:1, None], (0, 1))],
    "flip": [("flip", D), ("flip", D, {"axis": 1}), ("flip", D, {"axis": (0, -1)})],
    "roll": [("roll", D, 2), ("roll", D, 1, {"axis": 0}), ("roll", D, (1, 2), {"axis": (0, 1)}),
             ("roll", D, 1, {"axis": (0, 1)})],
    "repeat": [("repeat", D, 2), ("repeat", D, 2, {"axis": 1}),
               ("repeat", D, numpy.asarray([1, 0, 2]), {"axis": 0})],
    "tile": [("tile", D, (2,)), ("tile", V, (2, 2))],
    "moveaxis": [("moveaxis", STACK, 0, -1), ("moveaxis", STACK, (0, 1), (2, 0))],
    "permute_dims": [("permute_dims", STACK, (2, 0, 1))],
    "reshape": [("reshape", D, (4, 3)), ("reshape", D, (-1,), {"copy": True})],
    "argsort": [("argsort", D), ("argsort", S, {"axis": 0, "descending": True}),
                ("argsort", W, {"descending": True})],
    "sort": [("sort", D), ("sort", S, {"axis": 0, "descending": True})],
    "searchsorted": [("searchsorted", numpy.sort(V), D[0]),
                     ("searchsorted", numpy.sort(V), numpy.sort(V)[:2], {"side": "right"}),
                     ("searchsorted", V, V, {"sorter": numpy.argsort(V)})],
    "nonzero": [("nonzero", I), ("nonzero", B)],
    "where": [("where", B, F, D), ("where", B, I, 3)],
    "take": [("take", D, numpy.asarray([2, 0]), {"axis": 0}), ("take", V, numpy.asarray([1, 1]))],
    "take_along_axis": [("take_along_axis", D, numpy.asarray([[2, 0], [1, 1], [3, 0]]))],
    "unique_all": [("unique_all", W), ("unique_all", S)],
    "unique_counts": [("unique_counts", W)],
    "unique_inverse": [("unique_inverse", S)],
    "unique_values": [("unique_values", W), ("unique_values", D)],
    "matmul": [("matmul", D, D.T.copy()), ("matmul", F, D.T.copy()), ("matmul", STACK, STACK),
               ("matmul", C, C.T.copy())],
    "matrix_transpose": [("matrix_transpose", STACK)],
    "tensordot": [("tensordot", D, D.T.copy(), {"axes": 1}),
                  ("tensordot", D, D, {"axes": ((0, 1), (0, 1))})],
    "vecdot": [("vecdot", D, F), ("vecdot", C, C, {"axis": -2}), ("vecdot", D, D[0])],
    "linalg.matmul": [("linalg.matmul", D, D.T.copy())],
    "linalg.matrix_transpose": [("linalg.matrix_transpose", STACK)],
    "linalg.tensordot": [("linalg.tensordot", D, D.T.copy(), {"axes": 1})],
    "linalg.vecdot": [("linalg.vecdot", D, D)],
    "linalg.cholesky": [("linalg.cholesky", POSITIVE), ("linalg.cholesky", POSITIVE,
                                                        {"upper": True})],
    "linalg.cross": [("linalg.cross", SQUARE, POSITIVE),
                     ("linalg.cross", SQUARE, POSITIVE, {"axis": -2})],
    "linalg.det": [("linalg.det", SQUARE), ("linalg.det", STACK)],
    "linalg.diagonal": [("linalg.diagonal", STACK, {"offset": 1})],
    "linalg.eigvalsh": [("linalg.eigvalsh", POSITIVE)],
    "linalg.inv": [("linalg.inv", STACK)],
    "linalg.matrix_norm": [("linalg.matrix_norm", D), ("linalg.matrix_norm", STACK, {"ord": 1}),
                           ("linalg.matrix_norm", STACK, {"ord": "nuc", "keepdims": True})],
    "linalg.matrix_power": [("linalg.matrix_power", SQUARE, 3),
                            ("linalg.matrix_power", SQUARE, -1)],
    "linalg.matrix_rank": [("linalg.matrix_rank", SQUARE), ("linalg.matrix_rank", D[:, :1] * D[:1],
                                                            {"rtol": 1e-6})],
    "linalg.outer": [("linalg.outer", V, V), ("linalg.outer", V, V.astype("float32"))],
    "linalg.pinv": [("linalg.pinv", D), ("linalg.pinv", D, {"rtol": 1e-8})],
    "linalg.slogdet": [("linalg.slogdet", STACK)],
    "linalg.solve": [("linalg.solve", SQUARE, D), ("linalg.solve", STACK, D[:, 0].copy()),
                     ("linalg.solve", STACK, D)],
    "linalg.svdvals": [("linalg.svdvals", D)],
    "linalg.trace": [("linalg.trace", STACK), ("linalg.trace", I, {"offset": 1})],
    "linalg.vector_norm": [("linalg.vector_norm", D), ("linalg.vector_norm", C),
                           ("linalg.vector_norm", D, {"axis": (0, 1), "keepdims": True}),
                           ("linalg.vector_norm", D, {"axis": 1, "ord": math.inf})],
    **{f"fft.{name}": [(f"fft.{name}", C), (f"fft.{name}", C, {"n": 3, "axis": 0, "norm": "ortho"})]
       for name in ("fft", "ifft", "hfft")},
    **{f"fft.{name}": [(f"fft.{name}", D), (f"fft.{name}", D, {"n": 6, "norm": "forward"})]
       for name in ("rfft", "ihfft")},
    "fft.irfft": [("fft.irfft", C), ("fft.irfft", C, {"n": 5})],
    **{f"fft.{name}": [(f"fft.{name}", C), (f"fft.{name}", C, {"axes": (0,), "s": (4,)})]
       for name in ("fftn", "ifftn", "irfftn")},
    "fft.rfftn": [("fft.rfftn", D), ("fft.rfftn", D, {"axes": (1, 0)})],
    "fft.fftfreq": [("fft.fftfreq", 5, {"d": 0.5, "dtype": "float64"})],
    "fft.rfftfreq": [("fft.rfftfreq", 6, {"dtype": "float32"})],
    "fft.fftshift": [("fft.fftshift", D), ("fft.fftshift", D, {"axes": 1})],
    "fft.ifftshift": [("fft.ifftshift", D)],
}

ELSEWHERE = {"__array_namespace_info__", "astype", "can_cast", "finfo", "iinfo", "isdtype",
             "result_type", "from_dlpack", "empty", "empty_like", "linalg.eigh", "linalg.qr",
             "linalg.svd"}
"""What has a test of its own below."""


def find(namespace, name):
    for part in name.split("."):
        namespace = getattr(namespace, part)
    return namespace


def convert(namespace, value):
    if isinstance(value, numpy.ndarray):
        return namespace.asarray(value)
    if isinstance(value, list):
        return [convert(namespace, each) for each in value]
    return value


def call(namespace, name, *arguments):
    *arguments, last = (*arguments, {}) if not isinstance(arguments[-1], dict) else arguments
    keywords = {key: getattr(namespace, value) if key == "dtype" else convert(namespace, value)
                for key, value in last.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find(namespace, name)(*[convert(namespace, each) for each in arguments], **keywords)


def same(have, want, tolerance=2e-5):
    if isinstance(want, (tuple, list)):
        assert isinstance(have, (tuple, list))
        assert getattr(have, "_fields", None) == getattr(want, "_fields", None)
        assert len(have) == len(want)
        for ours, theirs in zip(have, want, strict=True):
            same(ours, theirs, tolerance)
    elif hasattr(want, "dtype"):
        assert isinstance(have, lg.Tensor)
        assert have.dtype.name == str(want.dtype).rpartition(".")[2].rstrip("'>)")
        assert tuple(have.shape) == want.shape
        if str(want.dtype).endswith("64") and not str(want.dtype).endswith("complex64"):
            tolerance = min(tolerance, 1e-9)
        numpy.testing.assert_allclose(have.numpy(), numpy.asarray(want), tolerance, tolerance)
    else:
        assert have == want


def test_every_function_is_called():
    names = {prefix + name
             for prefix, module in (("", strict), ("linalg.", strict.linalg), ("fft.", strict.fft))
             for name in standard_names(module) if inspect.isfunction(getattr(module, name))}
    assert names == set(CALLS) | ELSEWHERE


@pytest.mark.parametrize("name", CALLS)
def test_as_strict(name):
    for each in CALLS[name]:
        same(call(array_api, *each), call(strict, *each))


def test_factorizations():
    """Up to the signs of vectors, by what they factor."""
    stack = lg.asarray(STACK)
    q, r = array_api.linalg.qr(stack)
    same(q @ r, strict.asarray(STACK))
    complete = array_api.linalg.qr(lg.asarray(D.T.copy()), mode="complete")
    assert complete.Q.shape == (4, 4) and complete.R.shape == (4, 3)
    found = array_api.linalg.svd(lg.asarray(D), full_matrices=False)
    same((found.U * found.S) @ found.Vh, strict.asarray(D))
    assert array_api.linalg.svd(lg.asarray(D)).Vh.shape == (4, 4)
    values, vectors = array_api.linalg.eigh(lg.asarray(POSITIVE))
    same((vectors * values) @ vectors.mT, strict.asarray(POSITIVE))


def test_dtypes():
    dtypes = array_api.__array_namespace_info__().dtypes()
    assert set(dtypes) == set(strict.__array_namespace_info__().dtypes())
    kinds = ["bool", "signed integer", "unsigned integer", "integral", "real floating",
             "complex floating", "numeric", ("integral", "bool")]
    for first in dtypes:
        ours, theirs = getattr(array_api, first), getattr(strict, first)
        for kind in kinds:
            assert array_api.isdtype(ours, kind) == strict.isdtype(theirs, kind)
        for second in dtypes:
            pair = getattr(array_api, second), getattr(strict, second)
            assert array_api.can_cast(ours, pair[0]) == strict.can_cast(theirs, pair[1])
            try:
                want = strict.result_type(theirs, pair[1])
            except TypeError:
                continue  # categories that the standard leaves open
            assert array_api.result_type(ours, pair[0]).name in str(want)
    assert array_api.result_type(lg.asarray(F), lg.asarray(ZERO_D)) is lg.float64
    assert array_api.result_type(lg.asarray(F), 1j) is lg.complex64
    for name in ("float32", "float64", "complex64"):
        have, want = array_api.finfo(getattr(array_api, name)), strict.finfo(getattr(strict, name))
        for field in ("bits", "eps", "max", "min", "smallest_normal"):
            assert getattr(have, field) == getattr(want, field)
    for name in ("int8", "uint64", "int64"):
        have, want = array_api.iinfo(getattr(array_api, name)), strict.iinfo(getattr(strict, name))
        assert (have.bits, have.max, have.min) == (want.bits, want.max, want.min)


def test_info():
    info = array_api.__array_namespace_info__()
    assert set(info.capabilities()) == set(strict.__array_namespace_info__().capabilities())
    assert info.default_device() in info.devices()
    assert set(info.default_dtypes()) == set(strict.__array_namespace_info__().default_dtypes())
    assert set(info.dtypes(kind="integral")) == set(
        strict.__array_namespace_info__().dtypes(kind="integral"))


def test_astype_and_empty():
    x = lg.asarray(D)
    assert array_api.astype(x, array_api.float64, copy=False) is x
    assert array_api.astype(x, array_api.float64) is not x
    same(array_api.astype(x, array_api.int64), strict.astype(strict.asarray(D), strict.int64))
    same(array_api.astype(x, array_api.bool), strict.astype(strict.asarray(D), strict.bool))
    with pytest.raises(TypeError):
        array_api.astype(lg.asarray(C), array_api.float64)
    assert array_api.empty((2, 3), dtype=array_api.int8).dtype is lg.int8
    assert array_api.empty_like(x).shape == x.shape
    with pytest.raises(ValueError):
        array_api.asarray(x, dtype=array_api.float32, copy=False)
    assert array_api.asarray(x, copy=False) is x


def test_functions_of_later_versions():
    assert array_api.broadcast_shapes((3, 1), (4,), (2, 1, 1)) == (2, 3, 4)
    x = lg.asarray(W)
    assert array_api.isin(x, 1).numpy().tolist() == numpy.isin(W, 1).tolist()
    assert array_api.isin(1, x).item() == (1 in W)
    inverted = array_api.isin(x, lg.asarray([0, 2]), invert=True)
    assert inverted.numpy().tolist() == numpy.isin(W, [0, 2], invert=True).tolist()


def test_from_dlpack():
    same(array_api.from_dlpack(D), strict.asarray(D))


def test_methods():
    x, y = lg.asarray(D), strict.asarray(D)
    assert x.__array_namespace__() is x.__array_namespace__(api_version="2024.12") is array_api
    with pytest.raises(ValueError):
        x.__array_namespace__(api_version="1999.01")
    same(attributes(x)[:4], [y.T, y.mT, y.ndim, y.shape])
    assert x.to_device(x.device) is x
    with pytest.raises(ValueError):
        x.to_device("no such device")
    for apply in (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv,
                  operator.mod, operator.pow, operator.lt, operator.eq):
        same(apply(abs(x), x * 0 + 2), apply(abs(y), y * 0 + 2))
        same(apply(abs(x), 2.0), apply(abs(y), 2.0))
    i, j = lg.asarray(I), strict.asarray(I)
    for apply in (operator.and_, operator.or_, operator.xor):
        same(apply(i, 3), apply(j, 3))
        same(apply(3, i), apply(3, j))
    for apply in (operator.neg, operator.pos, operator.abs, operator.invert):
        same(apply(i), apply(j))
    for index in ((0, ...), (slice(None), -1), (..., 1), (None, 0, 1), (slice(0, 3, 2), ...)):
        same(x[index], y[index])
    same(x[lg.asarray(B)], y[strict.asarray(B)])
    assert float(x[0, 0]) == float(y[0, 0]) and int(i[0, 0]) == int(j[0, 0])
    assert complex(lg.asarray(C)[0, 0]) == complex(strict.asarray(C)[0, 0])


@pytest.mark.parametrize("name, arguments", [
    ("squeeze", (D, 0)), ("expand_dims", (D, 5)), ("take", (D, numpy.asarray([0]))),
    ("cumulative_sum", (D,)), ("nonzero", (ZERO_D,)), ("matrix_transpose", (V,)),
    ("vecdot", (D, V)), ("concat", ([],)), ("broadcast_to", (D, (5, 5))),
    ("linalg.inv", (D,)), ("linalg.cholesky", (-POSITIVE,)), ("exp", ("text",)), ("add", (1, 2)),
    ("reshape", (D, (5, 5))), ("fft.fft", (C, {"n": 0})), ("sum", (D, {"axis": 7})),
    ("isdtype", (None, "no such kind")), ("result_type", ()),
])
def test_bad_input(name, arguments):
    with pytest.raises((TypeError, ValueError, IndexError, RuntimeError)):
        result = call(array_api, name, *arguments, {}) if arguments else \
            array_api.result_type()
        numpy.asarray(result)


# ---- libraries that take arrays of the standard


def test_array_api_compat():
    import array_api_compat
    x = lg.asarray(D)
    assert array_api_compat.is_array_api_obj(x)
    assert array_api_compat.array_namespace(x) is array_api
    assert array_api_compat.size(x) == 12
    assert array_api_compat.device(x) == x.device
    assert array_api_compat.to_device(x, x.device) is x


def run_in_a_process(text, **environment):
    environment = {**os.environ, **environment,
                   "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True,
                          text=True)
    assert not done.returncode, done.stderr


def test_einops():
    import einops as einops_of_numpy
    from einops import array_api as einops
    x = lg.asarray(random.uniform(-1, 1, (2, 6, 4)))
    y = x.numpy()
    for name, *arguments, sizes in (
        ("rearrange", "b (h w) c -> b c h w", {"h": 2, "w": 3}),
        ("reduce", "b (h w) c -> b c", "mean", {"h": 2}),
        ("repeat", "b n c -> b n c k", {"k": 3}),
    ):
        same(getattr(einops, name)(x, *arguments, **sizes),
             getattr(einops_of_numpy, name)(y, *arguments, **sizes))
    assert einops.asnumpy(x).shape == (2, 6, 4)
    packed, sizes = einops.pack([x, x[:, 0]], "b * c")
    assert packed.shape == (2, 7, 4)
    same(einops.unpack(packed, sizes, "b * c")[0], y)


@pytest.mark.parametrize("first", ["import einops, lazygrad", "import lazygrad, einops"])
def test_plain_einops(first):
    """As PyTorch code uses it, whichever is imported first, gradients included."""
    text = f"""
{first}
import numpy
x = lazygrad.arange(48.0).reshape(2, 6, 4).requires_grad_()
y = x.detach().numpy()
def same(function, *arguments, **sizes):
    ours, theirs = function(x, *arguments, **sizes), function(y, *arguments, **sizes)
    assert type(ours) is lazygrad.Tensor
    numpy.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-6)
same(einops.rearrange, "b (h w) c -> b c h w", h=2)
same(einops.repeat, "b n c -> b n (c k)", k=3)
for operation in ("sum", "mean", "min", "max", "prod"):
    same(einops.reduce, "b (h w) c -> b c", operation, h=2)
assert einops.reduce(x > 5, "b n c -> b", "all").tolist() == [False, True]
assert einops.rearrange([x, x], "k b n c -> b n c k").shape == (2, 6, 4, 2)
packed, shapes = einops.pack([x, x[:, 0]], "b * c")
assert packed.shape == (2, 7, 4)
assert einops.unpack(packed, shapes, "b * c")[1].tolist() == x[:, 0].tolist()
assert einops.einsum(x, x, "b n c, b m c -> b n m").shape == (2, 6, 6)
assert einops.asnumpy(x.detach()).shape == (2, 6, 4)
einops.reduce(x, "b n c -> ", "mean").backward()
numpy.testing.assert_allclose(x.grad.numpy(), 1 / 48)
"""
    run_in_a_process(text)


def test_scipy_and_scikit_learn():
    """In processes of their own: both look at an environment variable when they are imported."""
    text = """
import numpy, lazygrad as lg
from scipy import special, stats, signal
x = lg.asarray(numpy.linspace(0.5, 2.0, 12).reshape(3, 4))
for function in (special.logsumexp, special.softmax, stats.zscore, signal.detrend):
    found = function(x)
    assert isinstance(found, lg.Tensor), function
    numpy.testing.assert_allclose(found.numpy(), function(x.numpy()), 1e-6)
import sklearn
from sklearn import preprocessing, metrics
with sklearn.config_context(array_api_dispatch=True):
    found = preprocessing.MinMaxScaler().fit(x).transform(x)
    assert isinstance(found, lg.Tensor)
    error = metrics.mean_squared_error(x, x + 1)
    assert abs(float(error) - 1.0) < 1e-6
numpy.testing.assert_allclose(
    found.numpy(), preprocessing.MinMaxScaler().fit_transform(x.numpy()), 1e-6)
"""
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    run_in_a_process(text, SCIPY_ARRAY_API="1")
