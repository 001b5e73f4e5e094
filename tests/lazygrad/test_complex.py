"""Complex tensors against PyTorch's: views, promotion, printing, compiled functions, errors."""

from __future__ import annotations

import math
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import lazygrad as lg
from lazygrad._core.context import TensorError
from lazygrad_runtime import store


def numbers(*shape: int, dtype: str = "complex64", seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng([seed, *shape])
    return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype)


def array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().resolve_conj().resolve_neg().numpy()
    return value.detach().numpy()


def same(ours: Any, theirs: Any) -> None:
    left, right = array(ours), array(theirs)
    assert left.dtype == right.dtype and left.shape == right.shape
    np.testing.assert_array_equal(left, right)


# ---- views

ROWS = [[1 + 2j, 3 - 4j], [5 + 0j, -1j]]


def write_real(library: Any, z: Any) -> None:
    z.real[0] = 7


def scale_imag(library: Any, z: Any) -> None:
    z.imag.mul_(2)


def write_pairs(library: Any, z: Any) -> None:
    library.view_as_real(z)[:, 1, 0] = -9


def write_conjugate(library: Any, z: Any) -> None:
    z.conj()[0] = 10 + 20j


def write_transposed_part(library: Any, z: Any) -> None:
    z.mT[1].real.zero_()


def write_adjoint(library: Any, z: Any) -> None:
    z.mH[0, 1] = 2j


def assign_parts(library: Any, z: Any) -> None:
    z.real = library.tensor([[1.0, 2.0], [3.0, 4.0]])
    z.imag = 5


def write_where(library: Any, z: Any) -> None:
    z[z.real > 2] = 1j


def write_imag_of_conjugate(library: Any, z: Any) -> None:
    z.conj().imag[1] = 8


@pytest.mark.parametrize("write", [write_real, scale_imag, write_pairs, write_conjugate,
                                   write_transposed_part, write_adjoint, assign_parts, write_where,
                                   write_imag_of_conjugate])
def test_writes_through_views(write: Any) -> None:
    ours, theirs = lg.tensor(ROWS), torch.tensor(ROWS)
    seen, expected = lg.view_as_real(ours), torch.view_as_real(theirs)
    write(lg, ours)
    write(torch, theirs)
    same(ours, theirs)
    same(seen, expected)


def test_writes_through_a_complex_view_of_real_memory() -> None:
    for library in (lg, torch):
        x = library.zeros(3, 2)
        z = library.view_as_complex(x)
        z.fill_(1 + 2j)
        z[1] *= 1j
        same(x, torch.tensor([[1.0, 2.0], [-2.0, 1.0], [1.0, 2.0]]))


def test_strides_and_offsets_count_elements_of_the_view() -> None:
    def layout(library: Any) -> list[Any]:
        z = library.tensor(ROWS)
        views = [library.view_as_real(z), z.real, z.imag, z[1].imag, library.view_as_real(z)[1],
                 z.t().imag, library.view_as_complex(library.zeros(3, 2))[1:], z.conj()]
        return [(tuple(v.stride()), v.storage_offset(), tuple(v.shape), str(v.dtype).split(".")[-1])
                for v in views]

    assert layout(lg) == layout(torch)
    z = lg.tensor(ROWS)
    assert z.imag.data_ptr() - z.data_ptr() == 4


def test_views_of_views_read_what_pytorch_reads() -> None:
    def read(library: Any) -> list[Any]:
        z = library.tensor(ROWS)
        return [z.t().imag, library.view_as_real(z.t()), z.t()[1:].real, z[1:].real.t(),
                library.view_as_real(z)[..., 1].reshape(4), z.conj().real,
                library.view_as_complex(library.view_as_real(z)), z.H, z.mH, z.adjoint(),
                z.conj().conj(), z.conj().t().imag]

    for ours, theirs in zip(read(lg), read(torch), strict=True):
        same(ours, theirs)


def test_is_conj() -> None:
    z = lg.tensor(ROWS)
    assert [z.is_conj(), z.conj().is_conj(), z.conj().conj().is_conj(),
            z.conj().resolve_conj().is_conj(), z.mH.is_conj()] == [False, True, False, False, True]
    x = lg.ones(2)
    assert x.conj() is x and lg.real(x) is x and x.resolve_conj() is x
    conjugate = z.conj().resolve_conj()
    conjugate[0] = 0
    same(z, torch.tensor(ROWS))


# ---- dtypes, creation, printing


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_dtypes_of_results() -> None:
    def found(library: Any) -> list[str]:
        floats = {name: library.ones(2, dtype=getattr(library, name))
                  for name in ("float32", "float64", "bfloat16", "int64", "bool", "complex64",
                               "complex128")}
        results = [value * 1j for value in floats.values()]
        results += [floats["complex64"] + value for value in floats.values()]
        results += [floats["complex128"] + value for value in floats.values()]
        results += [2 * floats["complex64"], floats["complex64"] / 3, floats["complex64"] ** 2.5,
                    library.tensor(1j) * floats["float64"], floats["complex64"] * library.ones(()),
                    library.tensor([1 + 2j]), library.full((2,), 1j), floats["complex64"].abs(),
                    floats["complex128"].real, floats["complex128"].mean(),
                    floats["complex64"].std(), floats["complex64"].angle(),
                    library.zeros_like(floats["complex64"]), floats["complex64"].to(library.int32),
                    floats["complex128"].float(), floats["complex64"].bool(),
                    library.eye(2, dtype=library.complex64), library.where(
                        floats["bool"], floats["float32"], 1j)]
        return [str(value.dtype).split(".")[-1] for value in results]

    assert found(lg) == found(torch)


def test_the_default_dtype_decides_what_complex_literals_are() -> None:
    try:
        lg.set_default_dtype(lg.float64)
        assert lg.tensor([1j]).dtype is lg.complex128
        assert (lg.tensor([1]) * 1j).dtype is lg.complex128
        assert repr(lg.tensor([1j])) == "tensor([0.+1.j])"
    finally:
        lg.set_default_dtype(lg.float32)


PRINTED: list[Any] = [
    [1 + 2j, 3.5 - 4j], [[1e-5 + 1j, complex(math.nan, -1)]], 1j, [1 + 0j, 2, 100 - 3j],
    [0.5j, -1, complex(math.inf, 2)], [1e10 + 1j, 1], [[1 + 1j] * 3] * 2, [-0.25 - 0.5j] * 20,
]


@pytest.mark.parametrize("data", PRINTED, ids=range(len(PRINTED)))
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_repr(data: Any, dtype: str) -> None:
    ours = lg.tensor(data, dtype=getattr(lg, dtype))
    theirs = torch.tensor(data, dtype=getattr(torch, dtype))
    assert repr(ours).replace("lazygrad.", "torch.") == repr(theirs)
    assert repr(ours.conj()).replace("lazygrad.", "torch.") == repr(theirs.conj())


def test_numbers_out_of_tensors() -> None:
    z = lg.tensor(ROWS)
    assert z.tolist() == ROWS and z[0, 1].item() == 3 - 4j and complex(z[0, 0]) == 1 + 2j
    assert bool(z[1, 1]) and not bool(z[1, 1] * 0)
    assert z.element_size() == 8 and z.is_complex() and lg.is_complex(z)
    source = numbers(3, dtype="complex128")
    np.testing.assert_array_equal(lg.from_numpy(source).numpy(), source)


def test_random_numbers() -> None:
    lg.manual_seed(0)
    normal, uniform = lg.randn(20000, dtype=lg.complex64), lg.rand(20000, dtype=lg.complex128)
    values, parts = normal.numpy(), lg.view_as_real(uniform).numpy()
    assert values.dtype == np.complex64 and parts.dtype == np.float64
    assert abs(np.mean(np.abs(values) ** 2) - 1) < 0.03
    assert abs(np.mean(values.real * values.imag)) < 0.02
    assert parts.min() >= 0 and parts.max() < 1 and abs(parts.mean() - 0.5) < 0.01
    assert lg.randn_like(normal).dtype is lg.complex64


def test_save_and_load(tmp_path: pathlib.Path) -> None:
    z = lg.tensor(ROWS)
    lg.save({"z": z, "part": z.imag, "conj": z.conj()}, tmp_path / "z.pt")
    loaded = lg.load(tmp_path / "z.pt")
    same(loaded["z"], torch.tensor(ROWS))
    same(loaded["part"], torch.tensor(ROWS).imag)
    same(loaded["conj"], torch.tensor(ROWS).conj())


def test_closeness() -> None:
    z = lg.tensor(numbers(5))
    assert lg.allclose(z, z + 1e-7) and not lg.allclose(z, z + 1e-2j) and lg.equal(z, z * 1)
    nan = lg.tensor([complex(math.nan, 1)])
    assert not lg.allclose(nan, nan) and lg.allclose(nan, nan, equal_nan=True)
    assert nan.isnan().item() and not nan.isinf().item() and not nan.isfinite().item()


# ---- autograd


def losses(library: Any, z: Any, w: Any) -> list[Any]:
    product = z @ w
    return [product.abs().sum(), (product * product.conj()).real.sum(), product.angle().sum(),
            library.view_as_real(product.tanh()).square().sum(), (product.imag * 2 + 1).exp().sum(),
            (1j * product).sgn().real.sum(), product.mean().abs(), product.std(),
            (z.mH @ z).real.diagonal().sum().sqrt(), (2 ** z).imag.sum(), z.prod().abs(),
            library.polar(z.abs(), z.angle() * 0.5).real.sum(), z.cumsum(0).abs().sum()]


@pytest.mark.parametrize("number", range(13))
def test_gradients_follow_pytorch(number: int) -> None:
    z, w = numbers(3, 3, dtype="complex128"), numbers(3, 3, dtype="complex128", seed=1)
    ours = [lg.tensor(each, requires_grad=True) for each in (z, w)]
    theirs = [torch.tensor(each, requires_grad=True) for each in (z, w)]
    left, right = losses(lg, *ours)[number], losses(torch, *theirs)[number]
    np.testing.assert_allclose(array(left), array(right), rtol=1e-9)
    left.backward()
    right.backward()
    for leaf, other in zip(ours, theirs, strict=True):
        assert (leaf.grad is None) == (other.grad is None)
        if other.grad is not None:
            np.testing.assert_allclose(array(leaf.grad), array(other.grad), rtol=1e-8, atol=1e-10)


def test_real_leaves_get_real_gradients() -> None:
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    (x * (1 + 2j)).abs().sum().backward()
    assert x.grad.dtype is lg.float32
    np.testing.assert_allclose(x.grad.numpy(), [math.sqrt(5)] * 2, rtol=1e-6)


def test_gradients_pass_writes_through_parts() -> None:
    def gradient(library: Any) -> Any:
        x = library.tensor([1.0, 2.0], requires_grad=True)
        z = library.zeros(2, dtype=library.complex64)
        z.imag.copy_(x * 3)
        z.real.add_(x)
        (z * z).abs().sum().backward()
        return x.grad

    np.testing.assert_allclose(array(gradient(lg)), array(gradient(torch)), rtol=1e-6)


def test_gradient_descent_on_a_complex_leaf() -> None:
    target = lg.tensor([1 - 2j, 0.5j])
    z = lg.zeros(2, dtype=lg.complex64, requires_grad=True)
    for _ in range(60):
        z.grad = None
        lg.view_as_real(z - target).square().sum().backward()
        with lg.no_grad():
            z -= 0.2 * z.grad
    np.testing.assert_allclose(array(z), array(target), atol=1e-5)


# ---- compiled functions, caches, dumps


def test_compiled_functions() -> None:
    @lg.compile
    def step(z: Any, w: Any) -> Any:
        y = (z @ w).tanh()
        return y.abs().sum(), y.conj(), y.imag

    for seed in range(3):
        z, w = numbers(3, 4, seed=seed), numbers(4, 2, seed=seed + 9)
        total, conjugate, imaginary = step(lg.tensor(z), lg.tensor(w))
        want = np.tanh(z @ w)
        np.testing.assert_allclose(total.item(), np.abs(want).sum(), rtol=1e-4)
        np.testing.assert_allclose(conjugate.numpy(), want.conj(), rtol=1e-4)
        np.testing.assert_allclose(imaginary.numpy(), want.imag, rtol=1e-4)


def test_compiled_functions_take_complex_numbers_and_parts() -> None:
    @lg.compile
    def turned(z: Any, factor: complex) -> Any:
        return z * factor

    z = lg.tensor(ROWS)
    for factor in (1j, 2j, 1j):
        same(turned(z, factor), torch.tensor(ROWS) * factor)
    same(turned(z.imag, 1j), torch.tensor(ROWS).imag * 1j)
    same(turned(z.conj(), 2j), torch.tensor(ROWS).conj() * 2j)


def test_complex_programs_come_back_from_disk() -> None:
    from lazygrad_runtime.program import forget_programs

    def run() -> np.ndarray:
        z = lg.tensor(numbers(4, 4))
        return (z.exp() @ z.conj()).numpy()

    first = run()
    forget_programs()
    before = (store.counters.compiles, store.counters.disk_hits)
    second = run()
    assert first.tobytes() == second.tobytes()
    assert store.counters.compiles == before[0] and store.counters.disk_hits > before[1]


def test_every_stage_can_be_shown() -> None:
    from lazygrad_compiler.artifact import canonical_graph
    from lazygrad_compiler.pipeline import STAGES, lower
    from lazygrad_compiler.target import host

    z = lg.tensor(numbers(8))
    pending = (z * z.conj()).exp()
    node = pending._cell.node
    leaf = z._cell.node
    stages = lower(canonical_graph([node], [leaf]), host())
    text = {stage: stages.render(stage) for stage in STAGES if stage != "grad"}
    assert "complex64[8]" in text["graph"] and ": complex" not in text["opt"]


def test_numpy_of_a_complex_view_has_no_copy() -> None:
    z = lg.tensor(ROWS)
    assert np.shares_memory(z.numpy(), z.imag.numpy())
    assert np.shares_memory(z.numpy(), lg.view_as_real(z).numpy())


# ---- errors

Z = lg.tensor([1 + 2j, 3 - 1j])
NOT_FOR_COMPLEX = {
    "lt": lambda: Z < Z, "ge": lambda: Z >= 1, "max": lambda: Z.max(), "argmin": lambda: Z.argmin(),
    "floor": lambda: lg.floor(Z), "round": lambda: Z.round(), "trunc": lambda: Z.trunc(),
    "sign": lambda: Z.sign(), "sort": lambda: lg.sort(Z), "clamp": lambda: Z.clamp(0, 1),
    "maximum": lambda: lg.maximum(Z, Z), "atan2": lambda: lg.atan2(Z, Z), "idiv": lambda: Z // Z,
    "rem": lambda: Z % Z, "erf": lambda: lg.erf(Z), "and": lambda: Z & Z,
    "imag": lambda: lg.imag(lg.ones(2)), "view_as_real": lambda: lg.view_as_real(lg.ones(2)),
    "view_as_complex": lambda: lg.view_as_complex(lg.ones(2, 2, dtype=lg.int64)),
    "complex": lambda: lg.complex(lg.ones(2), lg.ones(2).double()),
    "polar": lambda: lg.polar(Z, Z), "hypot": lambda: lg.hypot(Z, Z),
}


@pytest.mark.parametrize("name", NOT_FOR_COMPLEX)
def test_wrong_dtypes_are_type_errors(name: str) -> None:
    with pytest.raises(TypeError, match=r"test_complex\.py:\d+") as caught:
        NOT_FOR_COMPLEX[name]()
    assert "64" in str(caught.value)


def test_other_mistakes() -> None:
    with pytest.raises(TensorError, match="size 2"):
        lg.view_as_complex(lg.ones(3))
    with pytest.raises(TensorError, match="side by side"):
        lg.view_as_complex(lg.ones(2, 2).t())
    with pytest.raises(TensorError, match="real scalar outputs"):
        lg.tensor([1j], requires_grad=True).sum().backward()
    with pytest.raises(TensorError, match="complex64 result"):
        lg.ones(2).mul_(1j)
    with pytest.raises(TypeError):
        float(lg.tensor(1j))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lg.tensor([1.5 + 2j]).float().item() == 1.5
