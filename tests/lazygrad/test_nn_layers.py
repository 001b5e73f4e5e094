"""Layers against torch: outputs, gradients, buffers, state_dict keys and repr, with the same
weights.
"""

import numpy
import pytest
import torch

import lazygrad as lg

nn, tnn = lg.nn, torch.nn


def numbers(*shape, seed=0):
    return numpy.random.default_rng(seed).normal(size=shape).astype(numpy.float32)


def assert_close(ours, theirs, tolerance=2e-5):
    ours = ours.detach().numpy() if isinstance(ours, lg.Tensor) else ours
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    numpy.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def copy_weights(ours, theirs):
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: lg.from_numpy(value.numpy().copy()) for name,
                          value in theirs.state_dict().items()})


def flat(output):
    """The tensors of nested outputs."""
    if isinstance(output, (tuple, list)):
        return [inner for part in output for inner in flat(part)]
    return [] if output is None else [output]


def compare(ours, theirs, arrays, training=True, tolerance=2e-5, passes=1, **keywords):
    """Runs both on the same input and compares everything that can be seen."""
    copy_weights(ours, theirs)
    ours.train(training)
    theirs.train(training)
    for _ in range(passes):
        our_inputs = [lg.tensor(array) for array in arrays]
        their_inputs = [torch.tensor(array) for array in arrays]
        for a, b, array in zip(our_inputs, their_inputs, arrays):
            if array.dtype == numpy.float32:
                a.requires_grad_()
                b.requires_grad_()
        our_outputs, their_outputs = flat(ours(*our_inputs, **keywords)), flat(theirs(*their_inputs,
                                                                                      **keywords))
        assert len(our_outputs) == len(their_outputs)
        our_loss, their_loss = 0.0, 0.0
        for number, (a, b) in enumerate(zip(our_outputs, their_outputs)):
            assert_close(a, b, tolerance)
            weights = numbers(*b.shape, seed=number + 7)
            our_loss = our_loss + (a * lg.tensor(weights)).sum()
            their_loss = their_loss + (b * torch.tensor(weights)).sum()
        our_loss.backward()
        their_loss.backward()
        for a, b in zip(our_inputs, their_inputs):
            if b.grad is not None:
                assert_close(a.grad, b.grad, 10 * tolerance)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert (a.grad is None) == (b.grad is None), name
        if b.grad is not None:
            assert_close(a.grad, b.grad, 10 * tolerance)
    for (_, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers()):
        assert_close(a, b)
    assert repr(ours) == repr(theirs)


def both(make):
    return make(nn), make(tnn)


ACTIVATIONS = [
    "ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid",
    "LogSigmoid", "Tanh", "Softsign", "Tanhshrink", "Hardtanh", "Softplus", "Softshrink",
    "Hardshrink", "Hardsigmoid", "Hardswish", "PReLU",
]
LAYERS = [("Linear", lambda n: n.Linear(4, 3), [(5, 4)]),
          ("Linear without bias, 3 axes", lambda n: n.Linear(4, 3, bias=False), [(2, 5, 4)]),
          ("Linear, one vector", lambda n: n.Linear(4, 3), [(4,)]),
          ("Bilinear", lambda n: n.Bilinear(3, 4, 2), [(5, 3), (5, 4)]),
          ("Identity", lambda n: n.Identity(54, unused=1), [(2, 3)]),
          ("Flatten", lambda n: n.Flatten(), [(2, 3, 4)]),
          ("Unflatten", lambda n: n.Unflatten(1, (2, -1)), [(3, 6)]),
          ("Conv1d", lambda n: n.Conv1d(2, 4, 3, padding=1), [(2, 2, 7)]),
          ("Conv1d same, dilated", lambda n: n.Conv1d(2, 4, 4, padding="same", dilation=2),
           [(2, 2, 9)]),
          ("Conv2d", lambda n: n.Conv2d(3, 4, 3, stride=2, padding=1), [(2, 3, 7, 6)]),
          ("Conv2d groups", lambda n: n.Conv2d(4, 4, (3, 2), groups=2, bias=False, dilation=(1, 2)),
           [(2, 4, 6, 6)]),
          ("Conv2d reflect", lambda n: n.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
           [(1, 2, 5, 5)]),
          ("Conv2d circular", lambda n: n.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular"),
           [(1, 2, 5, 5)]), ("Conv2d unbatched", lambda n: n.Conv2d(2, 3, 3), [(2, 5, 5)]),
          ("Conv3d", lambda n: n.Conv3d(2, 3, 2), [(1, 2, 3, 4, 4)]),
          ("ConvTranspose1d", lambda n: n.ConvTranspose1d(3, 2, 3, stride=2, padding=1),
           [(2, 3, 5)]),
          ("ConvTranspose2d", lambda n: n.ConvTranspose2d(4, 2, 3, 2, 1, 1, groups=2),
           [(2, 4, 4, 3)]), ("BatchNorm1d", lambda n: n.BatchNorm1d(3), [(5, 3)]),
          ("BatchNorm1d, sequences", lambda n: n.BatchNorm1d(3, momentum=0.3), [(5, 3, 4)]),
          ("BatchNorm2d", lambda n: n.BatchNorm2d(3), [(2, 3, 4, 4)]),
          ("BatchNorm2d averaging", lambda n: n.BatchNorm2d(3, momentum=None), [(2, 3, 4, 4)]),
          ("BatchNorm2d, no affine", lambda n: n.BatchNorm2d(3, affine=False), [(2, 3, 4, 4)]),
          ("BatchNorm2d, no statistics", lambda n: n.BatchNorm2d(3, track_running_stats=False),
           [(2, 3, 4, 4)]),
          ("BatchNorm2d, no bias", lambda n: n.BatchNorm2d(3, bias=False), [(2, 3, 4, 4)]),
          ("BatchNorm3d", lambda n: n.BatchNorm3d(2), [(2, 2, 2, 3, 3)]),
          ("InstanceNorm1d", lambda n: n.InstanceNorm1d(3), [(2, 3, 5)]),
          ("InstanceNorm2d", lambda n: n.InstanceNorm2d(3, affine=True, track_running_stats=True),
           [(2, 3, 4, 4)]), ("LayerNorm", lambda n: n.LayerNorm(6), [(2, 4, 6)]),
          ("LayerNorm, two axes", lambda n: n.LayerNorm((4, 6), bias=False), [(2, 4, 6)]),
          ("LayerNorm, plain", lambda n: n.LayerNorm(6, elementwise_affine=False, eps=1e-3),
           [(2, 6)]), ("RMSNorm", lambda n: n.RMSNorm(6), [(2, 4, 6)]),
          ("RMSNorm eps", lambda n: n.RMSNorm(6, eps=1e-3, elementwise_affine=False), [(2, 6)]),
          ("GroupNorm", lambda n: n.GroupNorm(2, 6), [(2, 6, 3, 3)]),
          ("Dropout, p=0", lambda n: n.Dropout(0.0), [(2, 6)]),
          ("MaxPool1d", lambda n: n.MaxPool1d(3, 2, padding=1), [(2, 3, 9)]),
          ("MaxPool2d", lambda n: n.MaxPool2d(2), [(2, 3, 6, 6)]),
          ("MaxPool2d ceil", lambda n: n.MaxPool2d((3, 2), stride=(2, 1), ceil_mode=True),
           [(2, 3, 6, 6)]), ("AvgPool1d", lambda n: n.AvgPool1d(2), [(2, 3, 6)]),
          ("AvgPool2d", lambda n: n.AvgPool2d(3, stride=2, padding=1), [(2, 3, 6, 6)]),
          ("AvgPool2d, padding not counted",
           lambda n: n.AvgPool2d(3, 2, 1, count_include_pad=False), [(2, 3, 6, 6)]),
          ("AdaptiveAvgPool1d", lambda n: n.AdaptiveAvgPool1d(3), [(2, 3, 7)]),
          ("AdaptiveAvgPool2d", lambda n: n.AdaptiveAvgPool2d((2, 3)), [(2, 3, 5, 7)]),
          ("AdaptiveAvgPool2d, one", lambda n: n.AdaptiveAvgPool2d(1), [(2, 3, 5, 7)]),
          ("AdaptiveMaxPool2d", lambda n: n.AdaptiveMaxPool2d(2), [(2, 3, 5, 7)]),
          *[(name, lambda n, name=name: getattr(n, name)(), [(3, 5)])
            for name in ACTIVATIONS],
          ("Softmax2d", lambda n: n.Softmax2d(), [(2, 3, 2, 2)]),
          ("GELU tanh", lambda n: n.GELU("tanh"), [(3, 5)]),
          ("PReLU channels", lambda n: n.PReLU(5), [(3, 5)]),
          ("Threshold", lambda n: n.Threshold(0.1, 20), [(3, 5)]),
          ("GLU", lambda n: n.GLU(), [(3, 6)]), ("Softmax", lambda n: n.Softmax(dim=1), [(3, 5)]),
          ("LogSoftmax", lambda n: n.LogSoftmax(dim=-1), [(3, 5)]),
          ("Softmin", lambda n: n.Softmin(dim=0), [(3, 5)]),
          ("RNN", lambda n: n.RNN(3, 4), [(5, 2, 3)]),
          ("RNN relu", lambda n: n.RNN(3, 4, 2, nonlinearity="relu", bias=False, batch_first=True),
           [(2, 5, 3)]),
          ("LSTM", lambda n: n.LSTM(3, 4, num_layers=2, batch_first=True), [(2, 4, 3)]),
          ("LSTM both ways", lambda n: n.LSTM(3, 4, num_layers=2, bidirectional=True), [(4, 2, 3)]),
          ("LSTM projected", lambda n: n.LSTM(3, 4, proj_size=2), [(4, 2, 3)]),
          ("LSTM unbatched", lambda n: n.LSTM(3, 4), [(4, 3)]),
          ("GRU", lambda n: n.GRU(3, 4, bidirectional=True, batch_first=True), [(2, 4, 3)]),
          ("GRU with a state", lambda n: n.GRU(3, 4), [(4, 2, 3), (1, 2, 4)]),
          ("RNNCell", lambda n: n.RNNCell(3, 4), [(2, 3)]),
          ("LSTMCell", lambda n: n.LSTMCell(3, 4, bias=False), [(2, 3)]),
          ("GRUCell", lambda n: n.GRUCell(3, 4), [(2, 3), (2, 4)]),
          ("MultiheadAttention", lambda n: n.MultiheadAttention(6, 2),
           [(4, 2, 6), (5, 2, 6), (5, 2, 6)]),
          ("MultiheadAttention, batch first",
           lambda n: n.MultiheadAttention(6, 3, batch_first=True, bias=False),
           [(2, 4, 6), (2, 5, 6), (2, 5, 6)]),
          ("MultiheadAttention, other sizes", lambda n: n.MultiheadAttention(6, 2, kdim=4, vdim=3),
           [(4, 2, 6), (5, 2, 4), (5, 2, 3)]),
          ("MultiheadAttention, extra keys",
           lambda n: n.MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True),
           [(4, 2, 6), (5, 2, 6), (5, 2, 6)]),
          ("MultiheadAttention, unbatched", lambda n: n.MultiheadAttention(6, 2),
           [(4, 6), (5, 6), (5, 6)]),
          ("TransformerEncoderLayer", lambda n: n.TransformerEncoderLayer(6, 2, 8, dropout=0.0),
           [(4, 2, 6)]),
          ("TransformerEncoderLayer, norm first",
           lambda n: n.TransformerEncoderLayer(6, 2, 8, dropout=0.0, activation="gelu",
                                               batch_first=True, norm_first=True), [(2, 4, 6)]),
          ("TransformerDecoderLayer", lambda n: n.TransformerDecoderLayer(6, 2, 8, dropout=0.0),
           [(4, 2, 6), (3, 2, 6)]),
          ("TransformerEncoder",
           lambda n: n.TransformerEncoder(n.TransformerEncoderLayer(6, 2, 8, dropout=0.0,
                                                                    batch_first=True), 2,
                                          n.LayerNorm(6)), [(2, 4, 6)]),
          ("Sequential",
           lambda n: n.Sequential(n.Linear(4, 5), n.ReLU(), n.Sequential(n.Linear(5, 2), n.Tanh())),
           [(3, 4)])]


@pytest.mark.parametrize("make, shapes", [layer[1:] for layer in LAYERS],
                         ids=[layer[0] for layer in LAYERS])
def test_layers_in_training(make, shapes):
    arrays = [numbers(*shape, seed=k) for k, shape in enumerate(shapes)]
    compare(*both(make), arrays, passes=2 if "Norm" in repr(make(nn)) else 1)


@pytest.mark.parametrize("name",
                         ["BatchNorm1d", "BatchNorm2d", "InstanceNorm2d",
                          "TransformerEncoderLayer"])
def test_layers_in_evaluation(name):
    _, make, shapes = next(layer for layer in LAYERS if layer[0] == name)
    ours, theirs = both(make)
    for buffer in theirs.buffers():
        buffer.add_(1)
    compare(ours, theirs, [numbers(*shape) for shape in shapes], training=False)


@pytest.mark.parametrize("inplace", [True, False])
def test_inplace_activations(inplace):
    ours, theirs = lg.tensor(numbers(3, 4)), torch.tensor(numbers(3, 4))
    a, b = nn.ReLU(inplace=inplace)(ours), tnn.ReLU(inplace=inplace)(theirs)
    assert_close(a, b)
    assert_close(ours, theirs)
    assert repr(nn.ReLU(inplace=inplace)) == repr(tnn.ReLU(inplace=inplace))


def test_embedding_with_padding():
    index = numpy.array([[1, 0, 2], [2, 2, 0]])
    compare(*both(lambda n: n.Embedding(4, 3, padding_idx=2)), [index])
    assert nn.Embedding(4, 3, padding_idx=-1).weight[3].tolist() == [0, 0, 0]
    frozen = nn.Embedding.from_pretrained(lg.tensor(numbers(4, 3)))
    assert not frozen.weight.requires_grad


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_attention_masks(need_weights, kind):
    ours, theirs = both(lambda n: n.MultiheadAttention(6, 2, batch_first=True))
    copy_weights(ours, theirs)
    x = numbers(3, 4, 6)
    allowed = numpy.triu(numpy.ones((4, 4), bool), 1)
    mask = allowed if kind == "bool" else numpy.where(allowed, -numpy.inf, 0).astype(numpy.float32)
    padding = numpy.array([[False] * 4, [False, False, True, True], [False, False, False, True]])
    if kind == "float":
        padding = numpy.where(padding, -numpy.inf, 0).astype(numpy.float32)
    results = []
    for make, module in ((lg.tensor, ours), (torch.tensor, theirs)):
        value = make(x)
        results.append(module(value, value, value, key_padding_mask=make(padding),
                              attn_mask=make(mask), need_weights=need_weights,
                              average_attn_weights=False))
    assert_close(results[0][0], results[1][0])
    if need_weights:
        assert_close(results[0][1], results[1][1])


def test_transformer_with_a_causal_mask():
    ours, theirs = both(lambda n: n.Transformer(6, 2, 1, 1, 8, dropout=0.0, batch_first=True))
    copy_weights(ours, theirs)
    source, target = numbers(2, 4, 6), numbers(2, 3, 6, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert_close(mask, tnn.Transformer.generate_square_subsequent_mask(3))
    ours_out = ours(lg.tensor(source), lg.tensor(target), tgt_mask=mask)
    theirs_out = theirs(torch.tensor(source), torch.tensor(target),
                        tgt_mask=tnn.Transformer.generate_square_subsequent_mask(3))
    assert_close(ours_out, theirs_out)


def test_dropout_drops_and_scales_in_training_only():
    lg.manual_seed(0)
    layer, ones = nn.Dropout(0.25), lg.ones(10_000)
    values = layer(ones).numpy()
    assert set(numpy.unique(values)) == {0.0, numpy.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.02
    assert numpy.array_equal(layer.eval()(ones).numpy(), ones.numpy())


def test_conv_transpose_output_size():
    ours, theirs = both(lambda n: n.ConvTranspose2d(2, 3, 3, stride=2))
    copy_weights(ours, theirs)
    x = numbers(1, 2, 4, 4)
    assert_close(ours(lg.tensor(x), output_size=(10, 9)),
                 theirs(torch.tensor(x), output_size=(10, 9)))


# ---- losses

ROWS, CLASSES = numbers(4, 5), numpy.array([0, 3, 4, 1])
CHANCES = 1 / (1 + numpy.exp(-numbers(4, 5, seed=3)))
LOSSES = [("MSELoss", {}, ROWS, numbers(4, 5, seed=1)), ("L1Loss", {}, ROWS, numbers(4, 5, seed=1)),
          ("SmoothL1Loss", {"beta": 0.5}, ROWS, numbers(4, 5, seed=1)),
          ("HuberLoss", {"delta": 0.5}, ROWS, numbers(4, 5, seed=1)),
          ("CrossEntropyLoss", {}, ROWS, CLASSES),
          ("CrossEntropyLoss", {"label_smoothing": 0.1}, ROWS, CLASSES),
          ("CrossEntropyLoss", {"ignore_index": 3}, ROWS, CLASSES),
          ("CrossEntropyLoss", {}, ROWS, CHANCES),
          ("CrossEntropyLoss", {"weight": [1.0, 2, 3, 4, 5]}, ROWS, CLASSES),
          ("CrossEntropyLoss", {}, numbers(2, 5, 3), numpy.array([[0, 1, 2], [4, 3, 2]])),
          ("NLLLoss", {"weight": [1.0, 2, 3, 4, 5]}, ROWS, CLASSES),
          ("BCELoss", {}, CHANCES, CHANCES[::-1].copy()),
          ("BCEWithLogitsLoss", {"pos_weight": [1.0, 2, 3, 4, 5]}, ROWS, CHANCES),
          ("KLDivLoss", {}, ROWS, CHANCES),
          ("KLDivLoss", {"log_target": True}, ROWS, numbers(4, 5, seed=1)),
          ("PoissonNLLLoss", {}, ROWS, CHANCES)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name, settings, input, target", LOSSES)
@pytest.mark.filterwarnings("ignore:reduction")
def test_losses(name, settings, input, target, reduction):
    results = []
    for library, make in ((nn, lg.tensor), (tnn, torch.tensor)):
        given = {key: make(value) if isinstance(value, list) else value for key,
                 value in settings.items()}
        loss = getattr(library, name)(reduction=reduction, **given)
        x = make(input.astype(numpy.float32)).requires_grad_()
        y = make(target if target.dtype == numpy.int64 else target.astype(numpy.float32))
        value = loss(x, y)
        (value * value).sum().backward()
        results.append((value, x.grad))
    for a, b in zip(*results):
        assert_close(a, b, 1e-4)


# ---- mistakes


@pytest.mark.parametrize("call, message",
                         [(lambda: nn.Linear(4, 3)(lg.tensor([[1, 2, 3, 4]])),
                           r"in_features=4.*float32 weights.*int64 \(whole numbers\).*x\.to"),
                          (lambda: nn.Linear(4, 3)(lg.zeros(2, 5)),
                           r"in_features=4.*expects 4 features.*got 5.*\(2, 5\)"),
                          (lambda: nn.Linear(8, 3)(lg.zeros(2, 4, 2)), r"x\.flatten\(1\) has 8"),
                          (lambda: nn.Linear(4, 3)([1.0]), "takes a Tensor, not list"),
                          (lambda: nn.Linear(4, 3)(lg.zeros(2, 4, dtype=lg.float64)),
                           r"float32 weights.*float64"),
                          (lambda: nn.Conv2d(3, 4, 3)(lg.zeros(2, 4, 8, 8)),
                           r"Conv2d\(3, 4.*expects 3 features.*got 4"),
                          (lambda: nn.Conv2d(3, 4, 3)(lg.zeros(8, 8)),
                           r"\(batch, channels, height, width\)"),
                          (lambda: nn.BatchNorm2d(3)(lg.zeros(2, 4, 8, 8)),
                           "expects 3 channels.*got 4"),
                          (lambda: nn.LayerNorm(3)(lg.zeros(2, 4)), r"ending in \(3,\).*\(2, 4\)"),
                          (lambda: nn.Embedding(3, 4)(lg.zeros(2)), r"whole numbers.*x\.long\(\)"),
                          (lambda: nn.LSTM(3, 4)(lg.zeros(2, 1, 5)), "expects 3 features.*got 5"),
                          (lambda: nn.MSELoss()(lg.zeros(2, 3), lg.zeros(2, 2)),
                           r"MSELoss.*\(2, 3\).*\(2, 2\)"),
                          (lambda: nn.MSELoss()(lg.zeros(2, 3), lg.zeros(3, 2)),
                           r"target\.reshape\(2, 3\)")])
def test_mistakes_are_explained(call, message):
    with pytest.raises((RuntimeError, TypeError, ValueError), match=message):
        call()


def test_losses_that_broadcast_warn_as_pytorch_does():
    with pytest.warns(UserWarning, match="target size"):
        loss = nn.MSELoss()(lg.ones(3, 1), lg.zeros(3))
    assert loss.item() == 1
