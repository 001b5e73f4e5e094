"""`nn.utils` and `nn.init`: norms of weights, parametrizations, fusion, functional calls."""

import copy

import numpy
import pytest
import torch

import lazygrad as lg
from tests.lazygrad.nn_compare import compare, numbers

nn = lg.nn
X = numbers(5, 4)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    compare(lambda n: n.utils.weight_norm(n.Linear(4, 3), dim=dim), X)
    compare(lambda n: n.utils.parametrizations.weight_norm(n.Linear(4, 3), dim=dim), X)


def test_remove_weight_norm_keeps_the_value():
    layer = nn.Linear(4, 3)
    expected = layer.weight.detach().numpy().copy()
    nn.utils.weight_norm(layer)
    with pytest.raises(RuntimeError, match="two weight_norm"):
        nn.utils.weight_norm(layer)
    nn.utils.remove_weight_norm(layer)
    assert list(layer.state_dict()) == ["bias", "weight"]
    numpy.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="not found"):
        nn.utils.remove_weight_norm(layer)


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norm(training):
    """Power iterations continue from the loaded vectors, so that all values agree."""
    compare(lambda n: n.utils.spectral_norm(n.Linear(4, 3)), X, training=training)
    compare(lambda n: n.utils.parametrizations.spectral_norm(n.Linear(4, 3)), X,
            training=training)
    compare(lambda n: n.utils.parametrizations.spectral_norm(n.ConvTranspose1d(2, 3, 2)),
            numbers(2, 2, 5), training=training)


def test_spectral_norm_is_one():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=60)
    largest = numpy.linalg.svd(layer.weight.detach().numpy())[1][0]
    assert abs(largest - 1) < 1e-4
    removed = nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(removed) is nn.Linear and list(removed.state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6)])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley"])
def test_orthogonal_parametrization(shape, kind):
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(shape[1], shape[0]),
                                                 orthogonal_map=kind)
    layer(lg.rand(2, shape[1])).sum().backward()
    weight = layer.weight.detach().numpy()
    product = weight @ weight.T if shape[0] < shape[1] else weight.T @ weight
    numpy.testing.assert_allclose(product, numpy.eye(min(shape)), atol=1e-5)
    assert layer.parametrizations.weight.original.grad.shape == shape


class Doubled:
    """A parametrization for both libraries."""

    @staticmethod
    def of(n):
        class Double(n.Module):
            def forward(self, x):
                return 2 * x

            def right_inverse(self, x):
                return x / 2

        return Double()


def test_parametrizations_like_pytorchs():
    def make(n):
        layer = n.Linear(4, 3)
        n.utils.parametrize.register_parametrization(layer, "weight", Doubled.of(n))
        n.utils.parametrize.register_parametrization(layer, "weight", Doubled.of(n))
        return n.Sequential(layer)

    compare(make, X)
    layer = make(nn)[0]
    parametrize = nn.utils.parametrize
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    with lg.no_grad():
        layer.weight = lg.ones(3, 4)
    numpy.testing.assert_allclose(layer.parametrizations.weight.original.detach().numpy(), 0.25)
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight
    twin = copy.deepcopy(layer)
    numpy.testing.assert_array_equal(twin.weight.detach().numpy(), layer.weight.detach().numpy())
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    numpy.testing.assert_allclose(layer.weight.detach().numpy(), 0.25)
    assert type(layer) is nn.Linear


def test_parametrizations_refuse():
    class Flat(nn.Module):
        def forward(self, x):
            return x.reshape(-1)

    with pytest.raises(ValueError, match="must keep dtype and shape"):
        nn.utils.parametrize.register_parametrization(nn.Linear(4, 3), "weight", Flat())
    with pytest.raises(ValueError, match="does not have a parameter"):
        nn.utils.parametrize.register_parametrization(nn.Linear(4, 3), "wait", Flat())


@pytest.mark.parametrize("kind", ["conv", "transposed", "linear"])
def test_fusion_with_batch_norm(kind):
    layer, x = {"conv": (nn.Conv2d(3, 4, 2), numbers(2, 3, 5, 5)),
                "transposed": (nn.ConvTranspose2d(3, 4, 2, bias=False), numbers(2, 3, 5, 5)),
                "linear": (nn.Linear(3, 4), numbers(5, 3))}[kind]
    norm = nn.BatchNorm1d(4) if kind == "linear" else nn.BatchNorm2d(4)
    x = lg.tensor(x.astype(numpy.float32))
    norm(layer(x))  # moves the running statistics
    with pytest.raises(RuntimeError, match="eval"):
        nn.utils.fuse_conv_bn_eval(layer, norm)
    layer.eval(), norm.eval()
    fused = nn.utils.fuse_linear_bn_eval(layer, norm) if kind == "linear" \
        else nn.utils.fuse_conv_bn_eval(layer, norm, kind == "transposed")
    numpy.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(),
                                  rtol=1e-4, atol=1e-5)


def test_functional_call():
    layer = nn.Linear(4, 3)
    x, weight = lg.tensor(X.astype(numpy.float32)), lg.ones(3, 4)
    before = layer.weight
    result = nn.utils.stateless.functional_call(layer, {"weight": weight}, (x,))
    expected = x.numpy().sum(1, keepdims=True) + layer.bias.detach().numpy()
    numpy.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-5)
    assert layer.weight is before
    with pytest.raises(RuntimeError, match="Unexpected"):
        nn.utils.stateless.functional_call(layer, {"wait": weight}, (x,))
    with pytest.raises(RuntimeError, match="Missing"):
        nn.utils.stateless.functional_call(layer, {"weight": weight}, (x,), strict=True)


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 4, 2)])
def test_orthogonal_initialisation(shape):
    weight = nn.init.orthogonal_(lg.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1) / 2
    product = weight @ weight.T if weight.shape[0] < weight.shape[1] else weight.T @ weight
    numpy.testing.assert_allclose(product, numpy.eye(min(weight.shape)), atol=1e-5)


def test_old_names_of_init_warn():
    with pytest.warns(FutureWarning, match="constant_"):
        assert (nn.init.constant(lg.empty(2), 3.0).numpy() == 3).all()
    missing = [name for name in dir(torch.nn.init) if name.islower() and not name.startswith("_")
               and callable(getattr(torch.nn.init, name)) and not hasattr(nn.init, name)]
    assert missing == []


def test_skip_init_makes_the_module():
    assert repr(nn.utils.skip_init(nn.Linear, 3, 2)) == repr(torch.nn.Linear(3, 2))
