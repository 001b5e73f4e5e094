"""Corners in which PyTorch's meaning is not the obvious one, against PyTorch."""

from __future__ import annotations

import numpy
import pytest
import torch

import lazygrad as lg

LIBRARIES = (lg, torch)


def _both(run):
    ours, theirs = ([numpy.asarray(each) for each in run(library)] for library in LIBRARIES)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.dtype == wanted.dtype
        numpy.testing.assert_allclose(mine, wanted, rtol=1e-12)


def test_sign_of_nan_is_zero():
    _both(lambda library: [getattr(library.tensor([float("nan"), -0.0, -2.0]), name)()
                           for name in ("sign", "sgn")])
    assert numpy.isnan(lg.tensor(float("nan")).__array_namespace__().sign(
        lg.tensor(float("nan"))).item())


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (None, 1.0), (0.0, None)])
def test_clamp_passes_nan_without_gradient(bounds):
    def run(library):
        x = library.tensor([float("nan"), 0.0, 0.5, 2.0, -1.0], requires_grad=True)
        y = x.clamp(*bounds)
        y.nansum().backward()
        return y.detach(), x.grad
    _both(run)


def test_vander_of_small_integers():
    _both(lambda library: [library.vander(library.tensor([1, 20, 3], dtype=library.uint8))])


@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2"])
def test_derivatives_of_logaddexp_at_ties(name):
    """PyTorch's second derivative in closed form: s (1 - s) for the softmax s of the two."""
    a = lg.tensor([0.0, 1.5, 3.0], dtype=lg.float64, requires_grad=True)
    b = lg.tensor([0.0, 1.5, 2.0], dtype=lg.float64, requires_grad=True)
    value = getattr(lg, name)(a, b)
    first = lg.autograd.grad(value.sum(), [a, b], create_graph=True)
    second = lg.autograd.grad(first[0].sum(), [a, b])
    unit = 1.0 if name == "logaddexp" else numpy.log(2.0)
    share = 1 / (1 + numpy.exp(unit * numpy.array([0.0, 0.0, -1.0])))
    numpy.testing.assert_allclose(first[0].detach().numpy(), share, rtol=1e-12)
    numpy.testing.assert_allclose(second[0].numpy(), unit * share * (1 - share), rtol=1e-12)
    numpy.testing.assert_allclose(second[1].numpy(), -unit * share * (1 - share), rtol=1e-12)


def test_logaddexp_of_infinities():
    inf, nan = float("inf"), float("nan")
    pairs = [(inf, inf), (-inf, -inf), (inf, -inf), (nan, 1.0), (1.0, nan), (inf, nan), (1.0, inf)]
    _both(lambda library: [library.logaddexp(library.tensor([a for a, _ in pairs]),
                                             library.tensor([b for _, b in pairs]))])


def test_complex_numbers_are_refused_at_the_users_line():
    z = lg.ones(3, dtype=lg.complex64)
    for run in (lambda: lg.relu(z), lambda: lg.histc(z), lambda: lg.nn.functional.hardtanh(z),
                lambda: z.scatter(0, lg.tensor([0]), z, reduce="multiply")):
        with pytest.raises(TypeError, match="test_torch_meaning"):
            run()


def test_binomial_has_the_moments_of_the_distribution():
    lg.manual_seed(3)
    drawn = lg.binomial(lg.full((50_000,), 10.0), lg.tensor([0.3]))
    assert abs(drawn.mean().item() - 3.0) < 0.03
    assert abs(drawn.var().item() - 2.1) < 0.05
    lg.manual_seed(3)
    assert (lg.binomial(lg.full((50_000,), 10.0), lg.tensor([0.3])) == drawn).all()
    edges = lg.binomial(lg.tensor([-1.0, 3.0, 3.0, float("nan")]), lg.tensor([0.5, 2.0, -1.0, 0.5]))
    numpy.testing.assert_array_equal(edges.numpy(), [0.0, 3.0, 0.0, numpy.nan])


def test_as_strided_in_place():
    def run(library):
        x = library.arange(6.0)
        y = x.as_strided_((2, 2), (1, 2), 1)
        assert y is x
        return [x]
    _both(run)
    with pytest.raises(RuntimeError, match="as_strided_"):
        lg.ones(4, requires_grad=True).as_strided_((2,), (1,))


def test_from_file(tmp_path):
    path = tmp_path / "numbers"
    numpy.arange(5, dtype="float32").tofile(path)
    _both(lambda library: [library.from_file(str(path), shared=False, size=4)])
    with pytest.raises(RuntimeError, match="from_file"):
        lg.from_file(str(path), shared=True, size=4)


def test_control_flow_has_gradients():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    taken = lg.cond(x.sum() > 0, lambda v: v * 3, lambda v: v * 5, (x,))
    _, last = lg.while_loop(lambda i, v: i < 2, lambda i, v: (i + 1, v * 2), (lg.tensor(0), taken))
    last.sum().backward()
    assert x.grad.tolist() == [12.0, 12.0]
    with pytest.raises(RuntimeError, match="while_loop"):
        lg.while_loop(lambda v: v.sum() < 9, lambda v: lg.cat([v, v]), (lg.ones(2),))


def test_detect_anomaly_names_the_line():
    x = lg.tensor([0.0, 1.0], requires_grad=True)
    y = (x.sqrt() * 0).sum()
    with lg.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="test_torch_meaning.*NaN"):
        y.backward(retain_graph=True)
    y.backward()
    assert numpy.isnan(x.grad.numpy()[0])


def test_inference_mode_is_noticed():
    with lg.inference_mode():
        assert lg.is_inference_mode_enabled()
    assert not lg.is_inference_mode_enabled()


def test_subclasses_share_memory_and_history():
    class Named(lg.Tensor):
        pass
    x = lg.ones(2, requires_grad=True)
    y = (x * 2).as_subclass(Named)
    assert type(y) is Named
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("source, target", [("int32", "int16"), ("int16", "int32"),
                                            ("float64", "int32"), ("uint8", "int64"),
                                            ("float32", "uint8"), ("int64", "float16")])
def test_bits_as_elements_of_another_size_are_a_view(source, target):
    def run(library):
        base = library.arange(48, dtype=getattr(library, source)).reshape(3, 16)
        view = base.view(getattr(library, target))
        found = [view.clone(), library.tensor([*view.stride(), view.storage_offset()])]
        view[1, 1:] = 3  # seen by the base
        found.append(base.clone())
        base.zero_()  # seen by the view
        inside = base[1:].view(getattr(library, target))
        inside[:, 0] = 1
        return [*found, view.clone(), base,
                library.tensor([inside.storage_offset(), int(inside.is_contiguous())])]

    ours, theirs = run(lg), run(torch)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.shape == wanted.shape
        assert mine.dtype.name == str(wanted.dtype).removeprefix("torch.")
        numpy.testing.assert_array_equal(mine.numpy(), wanted.numpy())


def test_bits_of_strided_tensors_are_copied():
    x = lg.arange(8, dtype=lg.int32).reshape(2, 4)
    copy = x.t().contiguous().view(lg.int16)
    numpy.testing.assert_array_equal(x.t().view(lg.int16).numpy(), copy.numpy())
    assert x[:, 1:3].view(lg.int64).shape == (2, 1)
