"""Module, containers, state dictionaries, initialisation and nn.utils."""

import copy
import math
from collections import OrderedDict

import numpy
import pytest
import torch

import lazygrad as lg

nn = lg.nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.rest = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.scale = nn.Parameter(lg.ones(3))
        self.register_buffer("offset", lg.zeros(3))
        self.register_buffer("hidden", lg.zeros(1), persistent=False)
        self.again = self.first

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale + self.offset


def test_names_and_walks():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == ["scale", "first.weight", "first.bias",
                                                            "rest.0.weight", "rest.0.bias",
                                                            "rest.1.weight", "rest.1.bias"]
    assert "again.weight" in dict(net.named_parameters(remove_duplicate=False))
    assert [name for name, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [name for name, _ in net.named_children()] == ["first", "rest"]
    assert "hidden" in dict(net.named_buffers()) and "hidden" not in net.state_dict()
    assert "again.weight" in net.state_dict() and "rest.1.num_batches_tracked" in net.state_dict()
    assert net.get_submodule("rest.1") is net.rest[1]
    assert net.get_parameter("first.bias") is net.first.bias
    with pytest.raises(AttributeError, match="its modules are 0, 1"):
        net.get_submodule("rest.7")


def test_assignment_rules():
    net = Net()
    with pytest.raises(TypeError, match="nn.Parameter or None"):
        net.scale = lg.ones(3)
    with pytest.raises(TypeError, match="nn.Module or None"):
        net.first = 3
    with pytest.raises(TypeError, match="a Tensor or None"):
        net.offset = 3
    net.offset = lg.ones(3)
    assert net.offset.tolist() == [1, 1, 1] and "offset" in net._buffers
    net.scale = None
    assert "scale" not in dict(net.named_parameters()) and net.scale is None
    net.plain = 1
    net.plain = nn.Linear(1, 1)
    assert "plain" in net._modules and "plain" not in net.__dict__
    del net.plain
    assert not hasattr(net, "plain")
    net.later = nn.Buffer(lg.zeros(2), persistent=False)
    assert "later" in net._buffers and "later" not in net.state_dict()
    with pytest.raises(KeyError, match="already has"):
        net.register_buffer("forward", lg.zeros(1))
    with pytest.raises(KeyError, match='contain "."'):
        net.add_module("a.b", nn.Identity())


def test_forgetting_super_init_is_explained():
    class Bad(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Bad()


def test_errors_say_where_in_the_model():
    with pytest.raises(RuntimeError) as caught:
        nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 1)))(lg.zeros(1, 2))
    assert caught.value.__notes__ == [
        "in module Sequential.1.1: Linear(in_features=4, out_features=1, bias=True)"]


def test_state_dict_round_trip_and_sharing():
    first, second = Net(), Net()
    assert second.load_state_dict(first.state_dict()).missing_keys == []
    assert str(second.load_state_dict(first.state_dict())) == "<All keys matched successfully>"
    for name, value in first.state_dict().items():
        assert numpy.array_equal(second.state_dict()[name].numpy(), value.numpy())
    state = first.state_dict()
    with lg.no_grad():
        first.scale.fill_(7)
    assert state["scale"].tolist() == [7, 7, 7]
    assert not state["scale"].requires_grad
    assert first.state_dict(keep_vars=True)["scale"] is first.scale


def test_loading_lists_all_differences_and_not_strict_returns_them():
    net = Net()
    state = net.state_dict()
    del state["scale"]
    state["rest.5.bias"] = lg.zeros(1)
    state["first.bias"] = lg.zeros(9)
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "scale"' in text
    assert 'Unexpected key(s) in state_dict: "rest.5.bias"' in text
    assert "size mismatch for first.bias: copying a param with shape (9,) from checkpoint" in text
    state["first.bias"] = lg.zeros(3)
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["scale"] and result.unexpected_keys == ["rest.5.bias"]


def test_loading_with_assign_takes_the_tensors():
    net = nn.Linear(2, 2)
    state = OrderedDict(weight=lg.zeros(2, 2, dtype=lg.float64), bias=lg.ones(2, dtype=lg.float64))
    net.load_state_dict(state, assign=True)
    assert net.weight.dtype is lg.float64 and isinstance(net.weight,
                                                         nn.Parameter) and net.weight.requires_grad


def test_extra_state():
    class Counting(nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    first, second = nn.Sequential(Counting()), nn.Sequential(Counting())
    first[0].count = 3
    second.load_state_dict(first.state_dict())
    assert second[0].count == 3 and "0._extra_state" in first.state_dict()


def test_train_eval_apply_requires_grad_zero_grad():
    net = Net()
    assert net.eval() is net and not net.rest[1].training
    assert net.train().rest[1].training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(lg.ones(2, 4)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    seen = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Linear", "BatchNorm1d", "Sequential", "Net"]


def test_to_keeps_parameters_and_whole_numbers():
    net = Net()
    parameters = list(net.parameters())
    net.double()
    assert all(a is b for a, b in zip(net.parameters(), parameters))
    assert net.scale.dtype is lg.float64 and net.offset.dtype is lg.float64
    assert net.scale.requires_grad
    assert net.rest[1].num_batches_tracked.dtype is lg.int64
    assert net.to("cpu", lg.float32).scale.dtype is lg.float32
    net(lg.ones(2, 4)).sum().backward()
    assert net.half().scale.grad.dtype is lg.float16
    with pytest.raises(TypeError, match="floating-point"):
        net.to(lg.int64)


def test_hooks():
    layer = nn.Linear(2, 2, bias=False)
    with lg.no_grad():
        layer.weight.copy_(lg.eye(2))
    x = lg.ones(1, 2)
    before = layer.register_forward_pre_hook(lambda module, args: args[0] * 2)
    after = layer.register_forward_hook(lambda module, args, output: output + 1)
    assert layer(x).tolist() == [[3, 3]]
    before.remove()
    assert layer(x).tolist() == [[2, 2]]
    with after:
        pass
    assert layer(x).tolist() == [[1, 1]]
    layer.register_forward_hook(lambda module, args, kwargs, output: kwargs["input"] * 5,
                                with_kwargs=True)
    assert layer(input=x).tolist() == [[5, 5]]


def test_deepcopy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    with lg.no_grad():
        twin.scale.fill_(9)
    assert net.scale.tolist() == [1, 1, 1] and isinstance(twin.scale, nn.Parameter)
    assert twin.again is twin.first and twin.first is not net.first


@pytest.mark.parametrize("make",
                         [lambda n: n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.ReLU()]),
                          lambda n: n.ModuleList(),
                          lambda n: n.ModuleDict({"a": n.Linear(2, 3),
                                                  "b": n.Sequential(n.ReLU(), n.ReLU())}),
                          lambda n: n.Sequential(),
                          lambda n: n.Sequential(OrderedDict(first=n.Linear(1, 2, bias=False),
                                                             then=n.Dropout()))])
def test_container_repr(make):
    assert repr(make(nn)) == repr(make(torch.nn))


def test_sequential_and_lists_behave_as_sequences():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    layers = nn.Sequential(a, b)
    layers.append(c)
    assert len(layers) == 3 and layers[-1] is c and list(layers[:2]) == [a, b]
    del layers[1]
    assert list(layers._modules) == ["0", "1"] and layers[1] is c
    layers.insert(0, b)
    assert list(layers) == [b, a, c]
    with pytest.raises(IndexError, match="has 3 entries"):
        layers[3]
    modules = nn.ModuleList([a]) + [b]
    modules.insert(1, c)
    assert list(modules) == [a, c, b] and modules.pop(0) is a and len(modules) == 2
    named = nn.ModuleDict({"x": a})
    named.update({"y": b})
    assert list(named) == ["x", "y"] and "x" in named and named.pop("x") is a


def test_parameter_containers():
    values = nn.ParameterList([lg.zeros(2), nn.Parameter(lg.ones(3))])
    values.append(lg.zeros(1))
    assert [name for name, _ in values.named_parameters()] == ["0", "1", "2"] and len(values) == 3
    named = nn.ParameterDict({"a": lg.zeros(2)})
    named["b"] = lg.ones(1)
    assert [name for name, _ in named.named_parameters()] == ["a", "b"] and "a" in named
    with pytest.raises(KeyError, match="method"):
        named["items"] = lg.zeros(1)


def test_parameters_are_floating_leaves():
    assert repr(nn.Parameter(lg.ones(2))).startswith("Parameter containing:\ntensor(")
    with pytest.raises(RuntimeError, match="floating-point"):
        nn.Parameter(lg.tensor([1, 2]))
    assert not nn.Parameter(lg.tensor([1, 2]), requires_grad=False).requires_grad
    assert nn.Parameter(lg.ones(2, requires_grad=True) * 2).is_leaf


# ---- initialisation


@pytest.mark.parametrize("make",
                         [lambda n: n.Linear(200, 100), lambda n: n.Conv2d(20, 30, 5),
                          lambda n: n.ConvTranspose2d(20, 30, 5), lambda n: n.LSTM(30, 40),
                          lambda n: n.Embedding(200, 50), lambda n: n.MultiheadAttention(60, 2),
                          lambda n: n.BatchNorm1d(5), lambda n: n.Bilinear(20, 20, 10),
                          lambda n: n.GRUCell(40, 50)])
def test_default_initialisation_has_torchs_distributions(make):
    lg.manual_seed(1)
    torch.manual_seed(1)
    for (name, ours), (_, theirs) in zip(make(nn).named_parameters(),
                                         make(torch.nn).named_parameters()):
        a, b = ours.detach().numpy(), theirs.detach().numpy()
        assert a.shape == b.shape, name
        if a.size > 90:
            assert abs(a.std() - b.std()) < 0.25 * b.std() + 1e-7, name
            assert abs(a.mean()) < 0.5 * b.std() + 1e-7, name
            assert abs(abs(a).max() - abs(b).max()) < 0.35 * abs(b).max() + 1e-7, name
        elif b.std() == 0:
            assert numpy.array_equal(a, b), name


@pytest.mark.parametrize("name, arguments",
                         [("xavier_uniform_", {"gain": 2.0}), ("xavier_normal_", {}),
                          ("kaiming_uniform_", {"a": math.sqrt(5)}),
                          ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
                          ("uniform_", {"a": -1, "b": 3}), ("normal_", {"mean": 2, "std": 3}),
                          ("trunc_normal_", {"std": 0.5, "a": -0.5, "b": 1.0}),
                          ("sparse_", {"sparsity": 0.3}), ("orthogonal_", {"gain": 2})])
def test_initialisers_have_torchs_moments(name, arguments):
    lg.manual_seed(0)
    ours = getattr(nn.init, name)(lg.empty(150, 200), **arguments).numpy()
    theirs = getattr(torch.nn.init, name)(torch.empty(150, 200), **arguments).numpy()
    assert abs(ours.mean() - theirs.mean()) < 0.03 * max(theirs.std(), 0.1)
    assert abs(ours.std() - theirs.std()) < 0.03 * theirs.std()
    assert abs(ours.min() - theirs.min()) < 0.3 * abs(theirs.min())


def test_exact_initialisers():
    for name, shape, arguments in [("eye_", (3, 4), {}), ("dirac_", (4, 2, 3, 3), {"groups": 2}),
                                   ("ones_", (2, 2), {}), ("zeros_", (2,), {}),
                                   ("constant_", (2,), {"val": 0.3})]:
        ours = getattr(nn.init, name)(lg.empty(*shape), **arguments)
        assert numpy.array_equal(ours.numpy(),
                                 getattr(torch.nn.init, name)(torch.empty(*shape),
                                                              **arguments).numpy())
    square = nn.init.orthogonal_(lg.empty(5, 5)).numpy()
    numpy.testing.assert_allclose(square @ square.T, numpy.eye(5), atol=1e-5)
    with pytest.raises(ValueError, match="fewer than 2"):
        nn.init.xavier_uniform_(lg.empty(3))


# ---- nn.utils


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type, max_norm):
    gradients = [numpy.array([1.0, -2.0], numpy.float32), numpy.array([[3.0]], numpy.float32)]
    results = []
    for library in (lg, torch):
        parameters = [library.nn.Parameter(library.tensor(numpy.zeros_like(g))) for g in gradients]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = library.tensor(gradient)
        norm = library.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
        results.append([norm.numpy(), *(parameter.grad.numpy() for parameter in parameters)])
    for a, b in zip(*results):
        numpy.testing.assert_allclose(a, b, rtol=1e-5)


def test_clip_grad_value_and_vectors():
    layer = nn.Linear(2, 1)
    layer(lg.tensor([[5.0, -5.0]])).sum().backward()
    nn.utils.clip_grad_value_(layer.parameters(), 2.0)
    assert layer.weight.grad.tolist() == [[2.0, -2.0]]
    vector = nn.utils.parameters_to_vector(layer.parameters())
    assert tuple(vector.shape) == (3,)
    nn.utils.vector_to_parameters(lg.tensor([1.0, 2.0, 3.0]), layer.parameters())
    assert layer.weight.tolist() == [[1.0, 2.0]] and layer.bias.tolist() == [3.0]
    with pytest.raises(RuntimeError, match="non-finite"):
        layer.bias.grad = lg.tensor([float("nan")])
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)
