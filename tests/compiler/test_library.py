"""Library calls: what they compute, as text, in kernels and launches, and their gradients."""

from __future__ import annotations

import json

import numpy
import pytest

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.autodiff.vjp_library import CALL_RULES
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.library import LIBRARY, run_library
from lazygrad_compiler.ir.library_pairs import PAIRED
from lazygrad_compiler.ir.node import Graph, IRError, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.llvm.entry import LIBRARY_SYMBOL
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import run_compiled

FLAT = {
    "linalg.geqrf", "linalg.ldl_factor", "linalg.ldl_solve", "linalg.order_of_pivots",
    "binomial",
}
"""Calls without a gradient, as in PyTorch."""


def leaf(*shape: int, index: int = 0, dtype: dtypes.DType = dtypes.float64) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def call(name: str, *inputs: Node, options: tuple = (), part: int = 0) -> Node:
    return node("library", *inputs, call=name, options=options, part=part)


def regular(*shape: int, seed: int = 0) -> numpy.ndarray:
    random = numpy.random.default_rng(seed)
    return random.uniform(-0.5, 0.5, shape) + 2 * numpy.eye(shape[-1])


def svd(x: Node) -> list[Node]:
    return [call("linalg.svd", x, options=(0,), part=part) for part in range(3)]


def launches(graph: Graph) -> list[str]:
    return [launch.about for launch in lower(graph, host()).launches]


# ---- the op


def test_every_call_has_a_gradient_or_is_known_to_have_none() -> None:
    plain = {name for name in LIBRARY if not name.endswith(PAIRED)}
    assert set(CALL_RULES) | FLAT == plain and not FLAT & set(CALL_RULES)


def test_the_text_form_parses_back() -> None:
    x = leaf(2, 4, 3)
    u, s, vh = svd(node("neg", x))
    frequencies = call("fft.r2c", x, options=((0, 1), "root"))
    graph = Graph((vh, u, frequencies))
    text = print_graph(graph)
    assert 'library(%1, call="linalg.svd", options=(0,), part=2) : float64[2, 3, 3]' in text
    assert 'options=((0, 1), "root"), part=0) : complex128[2, 3, 3]' in text
    assert parse_graph(text) == graph
    assert s is svd(node("neg", x))[1], "equal calls are one node"


@pytest.mark.parametrize("name, shape, options, message", [
    ("linalg.inv", (2, 3), (), r"\[linalg.inv\] .*square.*\(2, 3\)"),
    ("linalg.inv", (3,), (), "at least 2 axes"),
    ("linalg.none", (3, 3), (), "no library call 'linalg.none'"),
    ("fft.c2c", (3, 3), ((2,), "none", 0), "axis 2 does not exist"),
    ("fft.c2c", (3, 0), ((1,), "none", 0), "no elements"),
    ("fft.c2c", (3, 3), ((1,), "half", 0), "the scale"),
    ("fft.c2r", (3, 3), ((1,), "none", 7), "7 real values have 4 frequencies, not 3"),
])
def test_what_does_not_fit_is_refused(
    name: str, shape: tuple, options: tuple, message: str
) -> None:
    with pytest.raises(IRError, match=message):
        call(name, leaf(*shape), options=options)


def test_dtypes_and_shapes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(IRError, match="float32 and float64|float64 and float32"):
        call("linalg.solve", leaf(3, 3), leaf(3, 1, index=1, dtype=dtypes.float32))
    with pytest.raises(IRError, match=r"\(3, 3\) and \(2, 1\) do not fit"):
        call("linalg.solve", leaf(3, 3), leaf(2, 1, index=1))
    with pytest.raises(IRError, match="int32"):
        call("linalg.inv", leaf(3, 3, dtype=dtypes.int32))


SAMPLES: dict[str, tuple[tuple, list[numpy.ndarray]]] = {
    "linalg.slogdet": ((), [regular(2, 3, 3)]),
    "linalg.solve_triangular": ((0, 1), [regular(40, 40), regular(40, 40)[:, :3]]),
    "linalg.lstsq": ((1e-9,), [regular(5, 5)[:, :3], regular(5, 5)[:, :1]]),
    "linalg.qr": (("complete",), [regular(2, 4, 4)[:, :, :2]]),
    "linalg.svd": ((1,), [regular(2, 4, 4)[:, :2]]),
    "linalg.eig": ((), [regular(2, 3, 3)]),
    "linalg.eigh": (("U",), [regular(2, 3, 3)]),
    "linalg.lu_factor": ((1, 0), [regular(2, 4, 4)[:, :, :3]]),
    "linalg.ldl_factor": ((0,), [regular(2, 4, 4)]),
    "linalg.matrix_exp": ((), [regular(2, 3, 3) * numpy.array([1, 50])[:, None, None]]),
    "fft.c2c": (((0, 2), "root", 1), [regular(2, 3, 3)]),
    "fft.r2c": (((2, 1), "all"), [regular(2, 3, 3)]),
    "fft.c2r": (((1,), "none", 5), [regular(2, 3, 3)]),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_results_are_what_inference_says_and_compiled_equals_interpreted(
    name: str, single: bool
) -> None:
    options, arrays = SAMPLES[name]
    dtype = dtypes.float32 if single else dtypes.float64
    arrays = [numpy.ascontiguousarray(array.astype(dtype.numpy)) for array in arrays]
    leaves = [leaf(*array.shape, index=k, dtype=dtype) for k, array in enumerate(arrays)]
    results = run_library(name, options, arrays)
    parts = [call(name, *leaves, options=options, part=part) for part in range(len(results))]
    for part, result in zip(parts, results, strict=True):
        assert (part.shape, part.dtype.numpy) == (result.shape, result.dtype)
    graph = Graph(tuple(parts))
    for have, want in zip(run_compiled(graph, arrays), interpret(graph, arrays), strict=True):
        numpy.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("name", SAMPLES)
def test_empty_batches(name: str) -> None:
    options, arrays = SAMPLES[name]
    if name.startswith("fft"):
        options = (tuple(axis + 1 for axis in options[0]), *options[1:])
    empty = [numpy.broadcast_to(array, (2, *array.shape))[:0] for array in arrays]
    leaves = [leaf(*array.shape, index=k) for k, array in enumerate(empty)]
    part = call(name, *leaves, options=options)
    (result,) = interpret(Graph((part,)), empty)
    assert result.shape == part.shape and result.shape[0] == 0


def test_a_matrix_without_elements_still_has_a_determinant() -> None:
    graph = Graph((call("linalg.det", leaf(3, 0, 0)),))
    assert run_compiled(graph, [numpy.empty((3, 0, 0))])[0].tolist() == [1, 1, 1]


def test_the_exponential_does_not_lose_precision_with_the_norm() -> None:
    turn = numpy.array([[0.0, -1000.25], [1000.25, 0.0]])
    (result,) = run_library("linalg.matrix_exp", (), [turn])
    exact = [[numpy.cos(1000.25), -numpy.sin(1000.25)], [numpy.sin(1000.25), numpy.cos(1000.25)]]
    numpy.testing.assert_allclose(result, exact, atol=1e-11)
    (nothing,) = run_library("linalg.matrix_exp", (), [numpy.full((2, 2), numpy.nan)])
    assert numpy.isnan(nothing).all()


def test_substitution_reads_one_triangle() -> None:
    a, b = regular(40, 40), regular(40, 40)[:, :2]
    for upper, triangle in ((1, numpy.triu), (0, numpy.tril)):
        (x,) = run_library("linalg.solve_triangular", (upper, 0), [a, b])
        numpy.testing.assert_allclose(triangle(a) @ x, b, atol=1e-13)


def test_lu_puts_the_largest_first() -> None:
    a = numpy.array([[1e-20, 1.0], [1.0, 1.0]])
    lu, pivots, info, order = run_library("linalg.lu_factor", (1, 0), [a])
    assert pivots.tolist() == [2, 2] and info == 0 and order.tolist() == [1, 0]
    assert lu[1, 0] == 1e-20


# ---- launches


def test_parts_of_one_call_are_one_launch_and_only_used_ones_are_stored() -> None:
    x = leaf(2, 4, 3)
    u, _, vh = svd(node("neg", x))
    graph = Graph((node("exp", vh), u))
    stages = lower(graph, host())
    (launch,) = [launch for launch in stages.launches if launch.kernel.kind == "library"]
    assert set(launch.kernel.attrs[2]) == {0, 2}
    assert len(launch.arguments) == 3
    assert launch.about == "linalg.svd"
    assert len(stages.launches) == 3, "the operand and exp are the other two"


def test_different_options_are_different_launches() -> None:
    x = leaf(4, 3)
    graph = Graph((call("linalg.svd", x, options=(0,)), call("linalg.svd", x, options=(1,))))
    assert launches(graph) == ["linalg.svd", "linalg.svd"]


def test_a_later_part_may_be_used_before_an_earlier_one() -> None:
    x = leaf(3, 3)
    u, s, vh = svd(x)
    first = node("exp", vh)
    rest = [node("sub", node("exp", u), first), s, svd(first)[1]]
    array = regular(3, 3)
    graph = Graph(tuple(rest))
    for have, want in zip(run_compiled(graph, [array]), interpret(graph, [array]), strict=True):
        numpy.testing.assert_allclose(have, want, rtol=1e-12)


def test_operands_are_put_in_order_in_memory() -> None:
    x = leaf(2, 3, 4)
    moved = node("slice", node("permute", x, order=(0, 2, 1)), starts=(0, 1, 0), stops=(2, 4, 3),
                 steps=(1, 1, 1))
    graph = Graph((call("linalg.inv", moved),))
    array = numpy.random.default_rng(0).normal(size=(2, 3, 4))
    want = numpy.linalg.inv(array.swapaxes(1, 2)[:, 1:4])
    numpy.testing.assert_array_equal(run_compiled(graph, [array])[0], want)
    constant = Graph((call("fft.r2c", node("const", value=1.0, dtype=dtypes.float64, shape=(4,)),
                           options=((0,), "none")),))
    assert run_compiled(constant, [])[0].tolist() == [4, 0, 0]


def test_the_artifact_describes_calls_and_comes_back_from_json() -> None:
    x = leaf(2, 3)
    _, s, vh = svd(node("exp", x))
    artifact = compile_graph(Graph((s, vh)), host())
    (described,) = artifact.library
    assert described.call == "linalg.svd" and described.options == (0,)
    assert described.parts == (1, 2)
    assert described.arguments == (("float64", (2, 3)), ("float64", (2,)), ("float64", (2, 3)))
    assert artifact.launches[described.launch][:2] == (LIBRARY_SYMBOL, "linalg.svd")
    again = Artifact.from_description(
        json.loads(json.dumps(artifact.description())), artifact.objects
    )
    assert again.library == artifact.library


def test_programs_without_calls_know_nothing_of_them() -> None:
    graph = Graph((node("exp", leaf(3)),))
    assert LIBRARY_SYMBOL not in lower(graph, host()).entry
    assert compile_graph(graph, host()).library == []


# ---- gradients


def test_gradients_of_parts_add_up() -> None:
    """A = U S V^H, so the gradient of sum(W * U S V^H) is W, through all three parts."""
    x = node("variable", leaf(4, 3), uid=1)
    u, s, vh = svd(x)
    scaled = node("mul", u, node("expand", node("reshape", s, shape=(1, 3)), shape=(4, 3)))
    back = node("dot", scaled, vh, left_batch=(), right_batch=(), left_contract=(1,),
                right_contract=(0,))
    weight = leaf(4, 3, index=1)
    (gradient,) = backward([back], [weight], [x])
    assert gradient is not None
    arrays = [regular(4, 4)[:, :3] + numpy.arange(3), regular(4, 4, seed=1)[:, :3]]
    (result,) = interpret(Graph((gradient,)), arrays)
    numpy.testing.assert_allclose(result, arrays[1], atol=1e-10)


def test_a_call_without_a_gradient_says_so() -> None:
    x = node("variable", leaf(3, 3), uid=1)
    factor = call("linalg.geqrf", x)
    with pytest.raises(IRError, match=r"\[linalg.geqrf\] has no gradient"):
        backward([factor], [leaf(3, 3, index=1)], [x])
    complete = call("linalg.qr", node("variable", leaf(3, 2), uid=2), options=("complete",))
    with pytest.raises(IRError, match="Use mode 'reduced'"):
        backward([complete], [leaf(3, 3, index=1)], [complete.inputs[0]])
