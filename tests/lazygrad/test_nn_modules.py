"""Every module of `nn` against PyTorch's: keys of the state, outputs, gradients, buffers, repr."""

import inspect

import numpy
import pytest
import torch

import lazygrad as lg
from tests.lazygrad.nn_compare import compare, numbers

nn = lg.nn

X1, X2, X3 = numbers(2, 4, 6), numbers(2, 4, 6, 5), numbers(2, 4, 4, 5, 3)
CLASSES = numpy.array([0, 2, 1])
SIGNS = numpy.array([1.0, -1.0, 1.0])

CASES = {
    "AdaptiveAvgPool1d": (lambda n: n.AdaptiveAvgPool1d(4), X1),
    "AdaptiveAvgPool3d": (lambda n: n.AdaptiveAvgPool3d((2, None, 3)), X3),
    "AdaptiveMaxPool1d": (lambda n: n.AdaptiveMaxPool1d(4, True), X1),
    "AdaptiveMaxPool2d": (lambda n: n.AdaptiveMaxPool2d((4, 2), return_indices=True), X2),
    "AdaptiveMaxPool3d": (lambda n: n.AdaptiveMaxPool3d(2), X3),
    "BCELoss": (lambda n: n.BCELoss(), numbers(3, 2, low=0.1, high=0.9),
                numbers(3, 2, low=0, high=1)),
    "ChannelShuffle": (lambda n: n.ChannelShuffle(2), X2),
    "CircularPad1d": (lambda n: n.CircularPad1d(2), X1),
    "CircularPad2d": (lambda n: n.CircularPad2d((1, 2, 0, 1)), X2),
    "CircularPad3d": (lambda n: n.CircularPad3d(1), X3),
    "ConstantPad1d": (lambda n: n.ConstantPad1d(2, 1.5), X1),
    "ConstantPad2d": (lambda n: n.ConstantPad2d((1, 2, 0, 1), 2), X2),
    "ConstantPad3d": (lambda n: n.ConstantPad3d(1, 0.5), X3),
    "Conv2d": (lambda n: n.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode="reflect"), X2),
    "Conv3d": (lambda n: n.Conv3d(4, 2, 2, padding="same", padding_mode="circular"), X3),
    "ConvTranspose2d": (lambda n: n.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), X2),
    "CosineEmbeddingLoss": (lambda n: n.CosineEmbeddingLoss(0.1), numbers(3, 4),
                            numbers(3, 4, seed=1), SIGNS.astype(int)),
    "Embedding": (lambda n: n.Embedding(4, 3, padding_idx=1, scale_grad_by_freq=True), CLASSES),
    "EmbeddingBag": (lambda n: n.EmbeddingBag(4, 3, mode="sum", padding_idx=1),
                     numpy.array([[0, 1], [2, 2]])),
    "Fold": (lambda n: n.Fold((4, 5), 2), numbers(2, 8, 12)),
    "GaussianNLLLoss": (lambda n: n.GaussianNLLLoss(full=True), numbers(3, 2),
                        numbers(3, 2, seed=1), numbers(3, 1, low=0.5)),
    "HingeEmbeddingLoss": (lambda n: n.HingeEmbeddingLoss(0.5), numbers(3), SIGNS.astype(int)),
    "LPPool1d": (lambda n: n.LPPool1d(2, 3, 2), numbers(2, 4, 6, low=0.5)),
    "LPPool2d": (lambda n: n.LPPool2d(3, 2), numbers(2, 4, 6, 5, low=0.5)),
    "LPPool3d": (lambda n: n.LPPool3d(2, 2), numbers(1, 2, 4, 4, 3, low=0.5)),
    "LinearCrossEntropyLoss": (lambda n: n.LinearCrossEntropyLoss(4, 5, bias=True),
                               numbers(3, 4), CLASSES),
    "LocalResponseNorm": (lambda n: n.LocalResponseNorm(3, 0.3), X2),
    "MarginRankingLoss": (lambda n: n.MarginRankingLoss(0.2), numbers(3), numbers(3, seed=1),
                          SIGNS.astype(int)),
    "MultiLabelMarginLoss": (lambda n: n.MultiLabelMarginLoss(), numbers(2, 3),
                             numpy.array([[2, 0, -1], [1, -1, 0]])),
    "MultiLabelSoftMarginLoss": (lambda n: n.MultiLabelSoftMarginLoss(), numbers(3, 4),
                                 (numbers(3, 4, seed=1) > 0).astype(int)),
    "MultiMarginLoss": (lambda n: n.MultiMarginLoss(2, 0.7), numbers(3, 4), CLASSES),
    "PairwiseDistance": (lambda n: n.PairwiseDistance(3, keepdim=True), numbers(3, 4),
                         numbers(3, 4, seed=1)),
    "PixelShuffle": (lambda n: n.PixelShuffle(2), X2),
    "PixelUnshuffle": (lambda n: n.PixelUnshuffle(2), numbers(2, 2, 4, 6)),
    "RReLU": (lambda n: n.RReLU(0.1, 0.4), X1),
    "ReflectionPad1d": (lambda n: n.ReflectionPad1d((2, 1)), X1),
    "ReflectionPad2d": (lambda n: n.ReflectionPad2d(2), X2),
    "ReflectionPad3d": (lambda n: n.ReflectionPad3d(1), X3),
    "ReplicationPad1d": (lambda n: n.ReplicationPad1d((2, 1)), X1),
    "ReplicationPad2d": (lambda n: n.ReplicationPad2d(2), X2),
    "ReplicationPad3d": (lambda n: n.ReplicationPad3d(1), X3),
    "SoftMarginLoss": (lambda n: n.SoftMarginLoss(), numbers(3), SIGNS.astype(int)),
    "TripletMarginLoss": (lambda n: n.TripletMarginLoss(0.7, swap=True), numbers(3, 4),
                          numbers(3, 4, seed=1), numbers(3, 4, seed=2)),
    "TripletMarginWithDistanceLoss": (lambda n: n.TripletMarginWithDistanceLoss(margin=0.7),
                                      numbers(3, 4), numbers(3, 4, seed=1), numbers(3, 4, seed=2)),
    "Unflatten": (lambda n: n.Unflatten(1, (2, 2)), X1),
    "Unfold": (lambda n: n.Unfold((2, 3), padding=1), X2),
    "Upsample": (lambda n: n.Upsample(scale_factor=(1.5, 2)), X2),
    "Upsample bicubic": (lambda n: n.Upsample((3, 4), mode="bicubic"), X2),
    "UpsamplingBilinear2d": (lambda n: n.UpsamplingBilinear2d(scale_factor=2), X2),
    "UpsamplingNearest2d": (lambda n: n.UpsamplingNearest2d((3, 7)), X2),
    "ZeroPad1d": (lambda n: n.ZeroPad1d(1), X1),
    "ZeroPad2d": (lambda n: n.ZeroPad2d((1, 0, -1, 2)), X2),
    "ZeroPad3d": (lambda n: n.ZeroPad3d(1), X3),
}


@pytest.mark.parametrize("name", CASES)
def test_module(name):
    make, *arrays = CASES[name]
    compare(make, *arrays, training=name != "RReLU")


def test_every_name_of_pytorch_is_there():
    missing = [name for name in dir(torch.nn) if not name.startswith("_")
               and not hasattr(nn, name) and inspect.isclass(getattr(torch.nn, name))]
    assert missing == []
    functions = [name for name in dir(torch.nn.functional) if not name.startswith("_")
                 and inspect.isroutine(getattr(torch.nn.functional, name))
                 and not hasattr(nn.functional, name)]
    internal = {"assert_int_or_pair", "boolean_dispatch", "handle_torch_function",
                "has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"}
    matrices = {"grouped_mm", "scaled_grouped_mm", "scaled_mm"}  # of quantised GPU kernels
    assert set(functions) <= internal | matrices


def _names(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", [
    name for name in dir(torch.nn.functional)
    if inspect.isfunction(getattr(torch.nn.functional, name)) and hasattr(nn.functional, name)
    and not name.startswith("_")])
def test_arguments_have_pytorchs_names_and_order(name):
    theirs = _names(getattr(torch.nn.functional, name))
    if theirs == ["args", "kwargs"]:  # dispatched on return_indices
        pytest.skip("PyTorch's own signature is hidden")
    ours = _names(getattr(nn.functional, name))
    theirs = [each for each in theirs if each != "out"]
    assert ours[:len(theirs)] == theirs or name in {"sigmoid", "tanh"}


@pytest.mark.parametrize("name", [
    name for name in dir(torch.nn) if inspect.isclass(getattr(torch.nn, name))
    and issubclass(getattr(torch.nn, name), torch.nn.Module)
    and name not in {"RNN", "LSTM", "GRU", "Module", "Container", "Buffer", "Parameter"}])
def test_modules_take_pytorchs_arguments(name):
    theirs = _names(getattr(torch.nn, name).__init__)
    if "args" in theirs:
        pytest.skip("any arguments")
    assert _names(getattr(nn, name).__init__)[:len(theirs)] == theirs


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool_undoes_max_pool(rank):
    x = numbers(2, 3, *(6,) * rank)

    def run(library):
        n = library.nn
        pool = getattr(n, f"MaxPool{rank}d")(2, return_indices=True)
        unpool = getattr(n, f"MaxUnpool{rank}d")(2)
        return unpool(*pool(library.tensor(x))).numpy(), repr(unpool)

    ours, theirs = run(lg), run(torch)
    numpy.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("rank", [2, 3])
def test_fractional_max_pool(rank):
    x, draws = numbers(2, 3, *(7,) * rank), numbers(2, 3, rank, low=0, high=1)

    def run(library):
        layer = getattr(library.nn, f"FractionalMaxPool{rank}d")(
            2, output_ratio=0.6, _random_samples=library.tensor(draws), return_indices=True)
        return [each.numpy() for each in layer(library.tensor(x))]

    for a, b in zip(run(lg), run(torch), strict=True):
        numpy.testing.assert_array_equal(a, b)
    drawn = nn.FractionalMaxPool2d(2, output_size=3)(lg.randn(1, 2, 7, 7))
    assert drawn.shape == (1, 2, 3, 3)


def test_adaptive_log_softmax():
    def make(n):
        return n.AdaptiveLogSoftmaxWithLoss(8, 10, [3, 6], head_bias=True, div_value=2.0)

    x, target = numbers(5, 8), numpy.array([0, 4, 9, 2, 6])
    compare(make, x, target)
    ours, theirs = make(nn).double(), make(torch.nn).double()
    ours.load_state_dict({name: lg.tensor(value.numpy())
                          for name, value in theirs.state_dict().items()})
    numpy.testing.assert_allclose(ours.log_prob(lg.tensor(x)).detach().numpy(),
                                  theirs.log_prob(torch.tensor(x)).detach().numpy(), rtol=1e-9)
    assert ours.predict(lg.tensor(x)).tolist() == theirs.predict(torch.tensor(x)).tolist()
    with pytest.raises(RuntimeError, match="do not fit"):
        ours(lg.tensor(x), lg.tensor(target[:3]))


def test_ctc_module():
    scores = numbers(6, 2, 4)
    targets = numpy.array([[1, 2], [3, 3]])

    class Model:
        def __init__(self, n, f):
            self.loss, self.functional = n.CTCLoss(zero_infinity=True), f

        def __call__(self, x, y):
            return self.loss(self.functional.log_softmax(x, 2), y, (6, 5), (2, 2))

    values, slopes = [], []
    for library in (lg, torch):
        x = library.tensor(scores).requires_grad_()
        loss = Model(library.nn, library.nn.functional)(x, library.tensor(targets))
        loss.backward()
        values.append(loss.detach().numpy())
        slopes.append(x.grad.numpy())
    numpy.testing.assert_allclose(*values, rtol=1e-9)
    numpy.testing.assert_allclose(*slopes, rtol=1e-9, atol=1e-12)


def test_embedding_max_norm_scales_the_rows_it_reads():
    weights, places = numbers(4, 3, low=1), numpy.array([2, 0, 2])

    def run(library):
        layer = library.nn.Embedding.from_pretrained(library.tensor(weights.copy()), max_norm=0.5)
        rows = layer(library.tensor(places))
        return rows.numpy(), layer.weight.detach().numpy(), repr(layer)

    ours, theirs = run(lg), run(torch)
    numpy.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    numpy.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    assert ours[2] == theirs[2]


def test_embedding_bag_with_offsets_and_weights():
    compare(lambda n: n.EmbeddingBag(5, 3, mode="sum", include_last_offset=True),
            numpy.array([0, 4, 2, 2, 1]), numpy.array([0, 2, 5]), numbers(5))


LAZY = {
    "LazyLinear": (lambda n: n.LazyLinear(3), X1),
    "LazyConv1d": (lambda n: n.LazyConv1d(3, 2), X1),
    "LazyConv2d": (lambda n: n.LazyConv2d(6, 2, groups=2), X2),
    "LazyConvTranspose2d": (lambda n: n.LazyConvTranspose2d(3, 2, bias=False), X2),
    "LazyBatchNorm1d": (lambda n: n.LazyBatchNorm1d(), X1),
    "LazyBatchNorm2d": (lambda n: n.LazyBatchNorm2d(affine=False), X2),
    "LazyInstanceNorm2d": (lambda n: n.LazyInstanceNorm2d(affine=True), X2),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_module(name):
    make, x = LAZY[name]
    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    with pytest.raises(RuntimeError):
        _ = next(iter([*ours.parameters(), *ours.buffers()])).shape
    ours(lg.tensor(x.astype(numpy.float32)))
    theirs(torch.tensor(x.astype(numpy.float32)))
    assert type(ours).__name__ == type(theirs).__name__ == name.removeprefix("Lazy")
    assert repr(ours) == repr(theirs)
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("size", [3, 4])
def test_cross_map_normalisation(size):
    """PyTorch's running sums never lose the first channel, so two channels are compared."""
    ours, theirs = (library.nn.CrossMapLRN2d(size, 0.2, 0.5, 2) for library in (lg, torch))
    numpy.testing.assert_allclose(ours(lg.tensor(X2[:, :2])).numpy(),
                                  theirs(torch.tensor(X2[:, :2])).numpy(), rtol=1e-9)
    assert repr(ours) == repr(theirs)
    wide = nn.LocalResponseNorm(3, 0.2 if size == 3 else 0.15, 0.5, 2)
    numpy.testing.assert_allclose(ours(lg.tensor(X2)).numpy(), wide(lg.tensor(X2)).numpy(),
                                  rtol=1e-9)


def test_lazy_module_takes_the_shapes_of_a_loaded_state():
    layer = nn.LazyLinear(3)
    layer.load_state_dict(nn.Linear(4, 3).state_dict())
    assert layer.weight.shape == (3, 4)
    assert layer(lg.ones(2, 4)).shape == (2, 3)
    assert layer.in_features == 4


def test_sync_batch_norm_is_batch_norm_on_one_process():
    compare(lambda n: n.BatchNorm2d(4), X2)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert repr(converted[1]) == repr(torch.nn.SyncBatchNorm(4))
    plain = nn.BatchNorm2d(4)
    x = lg.tensor(X2.astype(numpy.float32))
    expected = plain(model[0](x)).detach().numpy()
    numpy.testing.assert_allclose(converted(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_feature_alpha_dropout_drops_whole_channels():
    lg.manual_seed(3)
    layer = nn.FeatureAlphaDropout(0.5)
    output = layer(lg.ones(8, 16, 5)).numpy()
    assert (output == output[:, :, :1]).all()
    assert len(numpy.unique(output)) == 2
    assert (layer.eval()(lg.ones(2, 3, 4)).numpy() == 1).all()


def test_wrong_settings_are_refused():
    for make in (lambda: nn.ReflectionPad2d((1, 2, 3)), lambda: nn.TripletMarginLoss(margin=0),
                 lambda: nn.MultiMarginLoss(p=3), lambda: nn.FractionalMaxPool2d(2),
                 lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 10, [6, 3])):
        with pytest.raises(ValueError):
            make()
