"""Linear algebra and Fourier transforms beyond the records: errors, results that are unique only up
to signs and phases, and what is computed how often.
"""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

import lazygrad as lg
from lazygrad._core.context import TensorError
from lazygrad_compiler.ir import library

RANDOM = numpy.random.default_rng(3)
LinAlgError = lg.linalg.LinAlgError


def real(*shape: int) -> numpy.ndarray:
    return RANDOM.normal(size=shape)


def imaginary(*shape: int) -> numpy.ndarray:
    return RANDOM.normal(size=shape) + 1j * RANDOM.normal(size=shape)


both = pytest.mark.parametrize("draw", [real, imaginary])


def equal(have: lg.Tensor, want: numpy.ndarray, tolerance: float = 1e-10) -> None:
    numpy.testing.assert_allclose(have.numpy(), want, rtol=tolerance, atol=tolerance)


@pytest.fixture
def counted(monkeypatch):
    """How often each library call has run."""
    counts: dict[str, int] = {}

    def wrapped(name, function):
        def call(options, *arrays):
            counts[name] = counts.get(name, 0) + 1
            return function(options, *arrays)
        return call

    for name, row in list(library.LIBRARY.items()):
        monkeypatch.setitem(library.LIBRARY, name,
                            replace(row, function=wrapped(name, row.function)))
    return counts


# ---- factorizations give the matrix back


@both
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 3), (2, 3, 5)])
def test_svd(draw, shape) -> None:
    a = draw(*shape)
    for full in (True, False):
        u, s, vh = lg.linalg.svd(lg.tensor(a), full_matrices=full)
        count = min(shape[-2:])
        assert u.shape[-1] == (shape[-2] if full else count)
        product = (u[..., :count] * s.unsqueeze(-2).to(u.dtype)) @ vh[..., :count, :]
        equal(product, a)
        size = u.shape[-1]
        equal(u.mH @ u, numpy.broadcast_to(numpy.eye(size), (*shape[:-2], size, size)))
        assert (s.numpy()[..., :-1] >= s.numpy()[..., 1:]).all()


@both
def test_eigenvectors(draw) -> None:
    a = draw(2, 4, 4)
    values, vectors = lg.linalg.eig(lg.tensor(a))
    assert values.dtype is vectors.dtype is lg.complex128
    equal(lg.tensor(a).to(lg.complex128) @ vectors, (vectors * values.unsqueeze(-2)).numpy())
    equal(lg.linalg.vector_norm(vectors, dim=-2), numpy.ones((2, 4)))
    h = a + a.conj().swapaxes(-1, -2)
    values, vectors = lg.linalg.eigh(lg.tensor(h))
    assert values.dtype is lg.float64
    equal(vectors @ lg.diag_embed(values).to(vectors.dtype) @ vectors.mH, h)


@both
@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (2, 3, 5)])
def test_lu_and_qr(draw, shape) -> None:
    a = draw(*shape)
    p, lower, upper = lg.linalg.lu(lg.tensor(a))
    equal(p @ lower @ upper, a)
    none, lower, upper = lg.linalg.lu(lg.tensor(a), pivot=False)
    equal(lower @ upper, a, 1e-8)
    assert none.shape == (0,)
    q, r = lg.linalg.qr(lg.tensor(a))
    equal(q @ r, a)
    reflectors, tau = lg.geqrf(lg.tensor(a))
    if shape[-2] >= shape[-1]:
        equal(lg.orgqr(reflectors, tau) @ lg.triu(reflectors)[..., : shape[-1], :], a)


@both
def test_ldl(draw) -> None:
    a, b = draw(2, 6, 6), draw(2, 6, 1)
    for hermitian in (False, True):
        turned = a.conj() if hermitian else a
        symmetric = a + turned.swapaxes(-1, -2)
        ld, pivots = lg.linalg.ldl_factor(lg.tensor(symmetric), hermitian=hermitian)
        x = lg.linalg.ldl_solve(ld, pivots, lg.tensor(b), hermitian=hermitian)
        equal(lg.tensor(symmetric) @ x, b, 1e-8)


def test_low_rank() -> None:
    a = real(8, 2) @ real(2, 6)
    u, s, v = lg.svd_lowrank(lg.tensor(a), q=3)
    equal((u * s) @ v.mT, a)
    centred = a - a.mean(0)
    u, s, v = lg.pca_lowrank(lg.tensor(a), q=3)
    equal((u * s) @ v.mT, centred)


# ---- where there is no result


def test_nothing_is_raised_before_somebody_looks() -> None:
    made = lg.linalg.inv(lg.zeros(3, 3, dtype=lg.float64)) + 1
    assert made.shape == (3, 3)
    with pytest.raises(LinAlgError, match=r"\[linalg.inv\] Singular.*test_linalg.py"):
        made.numpy()


@pytest.mark.parametrize("name, way_out", [
    ("inv", "pinv"), ("cholesky", "cholesky_ex"), ("lu_factor", "lu_factor_ex"),
])
def test_errors_say_what_to_do(name, way_out) -> None:
    made = getattr(lg.linalg, name)(lg.tensor(numpy.zeros((2, 2))))
    with pytest.raises(LinAlgError, match=way_out):
        (made[0] if isinstance(made, tuple) else made).numpy()


@pytest.mark.parametrize("name", ["svdvals", "eigvalsh", "eigvals"])
def test_nan_is_an_error_or_nan_and_never_a_number(name) -> None:
    bad = numpy.full((2, 2), numpy.nan)
    try:
        result = getattr(lg.linalg, name)(lg.tensor(bad)).numpy()
    except LinAlgError as error:
        assert "linalg" in str(error) and "NaN or infinity" in str(error)
    else:
        assert numpy.isnan(result).all()


@pytest.mark.parametrize("name", ["cholesky", "eigh", "eig", "det", "slogdet", "matrix_exp",
                                  "lu_solve", "eigvals", "inv_ex"])
def test_matrices_that_are_not_square_are_refused_at_their_line(name) -> None:
    arguments = [lg.ones(2, 3)]
    if name == "lu_solve":
        arguments += [lg.ones(2, dtype=lg.int32), lg.ones(2, 1)]
    with pytest.raises(TensorError, match=rf"\[linalg\.{name}\] takes square matrices, "
                                          r"not \(2, 3\) \(test_linalg\.py:\d+\)"):
        getattr(lg.linalg, name)(*arguments)


def test_ex_variants_report_each_item() -> None:
    a = numpy.stack([numpy.eye(2), numpy.zeros((2, 2)), 2 * numpy.eye(2)])
    inverse, info = lg.linalg.inv_ex(lg.tensor(a))
    assert info.tolist() == [0, 1, 0]
    equal(inverse[::2], numpy.linalg.inv(a[::2]))
    assert numpy.isnan(inverse[1].numpy()).all()
    solution, info = lg.linalg.solve_ex(lg.tensor(a), lg.ones(2, 1, dtype=lg.float64))
    assert info.tolist() == [0, 1, 0] and solution[2].tolist() == [[0.5], [0.5]]
    _, info = lg.linalg.cholesky_ex(lg.tensor(a[1:]))
    assert (info != 0).tolist() == [True, False]
    _, _, info = lg.linalg.lu_factor_ex(lg.tensor(a))
    assert info.tolist() == [0, 1, 0]
    with pytest.raises(LinAlgError):
        lg.linalg.inv_ex(lg.tensor(a), check_errors=True)[0].numpy()


def test_singular_determinants() -> None:
    a = lg.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=lg.float64, requires_grad=True)
    (gradient,) = lg.autograd.grad(lg.linalg.det(a), a, create_graph=True)
    equal(gradient.detach(), [[4, -2], [-2, 1]])
    (second,) = lg.autograd.grad(gradient.sum(), a)
    with pytest.raises(LinAlgError, match="linalg.inv"):
        second.numpy()
    sign, size = lg.linalg.slogdet(lg.zeros(2, 2))
    assert (sign.item(), size.item()) == (0, -numpy.inf)
    assert lg.logdet(lg.tensor([[-1.0]])).isnan().item()


def test_least_squares_of_a_matrix_that_lacks_rank() -> None:
    a, b = real(5, 2) @ real(2, 3), real(5, 1)
    solution, _, rank, values = lg.linalg.lstsq(lg.tensor(a), lg.tensor(b), driver="gelsd")
    want = numpy.linalg.lstsq(a, b)
    equal(solution, want[0])
    assert rank.item() == 2 and values.shape == (3,)


def test_equal_singular_values_have_no_gradient_and_it_shows() -> None:
    a = lg.eye(3, dtype=lg.float64).requires_grad_()
    lg.linalg.svd(a)[0][0, 1].backward()
    assert not a.grad.isfinite().all().item()
    a.grad = None
    lg.linalg.svdvals(a).sum().backward()
    equal(a.grad, numpy.eye(3))


# ---- what is computed, and how often


def test_parts_of_a_factorization_are_one_call(counted) -> None:
    q, r = lg.linalg.qr(lg.tensor(real(4, 3)))
    (q @ r).numpy()
    assert counted == {"linalg.qr": 1}


def test_backward_after_a_look_does_not_factor_again(counted) -> None:
    x = lg.tensor(real(4, 3), requires_grad=True)
    q, r = lg.linalg.qr(x)
    loss = (q.sin() + r[:1].exp().sum()).sum()
    loss.item()
    loss.backward()
    x.grad.numpy()
    assert counted["linalg.qr"] == 1


def test_unused_results_cost_nothing(counted) -> None:
    lg.linalg.slogdet(lg.tensor(real(3, 3)))
    lg.synchronize()
    assert counted == {}


def test_single_precision_stays_single() -> None:
    x = lg.tensor(real(3, 4).astype(numpy.float32))
    assert lg.fft.rfft(x).dtype is lg.complex64
    assert lg.linalg.svdvals(x).dtype is lg.float32
    assert lg.linalg.cond(x).dtype is lg.float32
    assert lg.linalg.eigvals(x[:, :3]).dtype is lg.complex64


# ---- Fourier transforms


@pytest.mark.parametrize("hop, settings", [
    (2, {}), (3, {"normalized": True}), (4, {"onesided": False}), (2, {"center": False}),
])
def test_a_spectrogram_gives_the_signal_back(hop, settings) -> None:
    signal = real(2, 41)
    window = lg.hann_window(8, dtype=lg.float64) + 0.1
    made = lg.stft(lg.tensor(signal), 8, hop, window=window, return_complex=True, **settings)
    back = lg.istft(made, 8, hop, window=window, **settings)
    covered = back.shape[-1]
    assert covered > 32
    equal(back, signal[:, :covered])


def test_odd_and_even_sizes_go_there_and_back() -> None:
    for size in (1, 2, 5, 6):
        x = real(2, size)
        equal(lg.fft.irfft(lg.fft.rfft(lg.tensor(x)), size), x)
        equal(lg.fft.ifft(lg.fft.fft(lg.tensor(x))).real, x)
        equal(lg.fft.ifftshift(lg.fft.fftshift(lg.tensor(x))), x)
        equal(lg.fft.hfft(lg.fft.ihfft(lg.tensor(x)), size), x)
