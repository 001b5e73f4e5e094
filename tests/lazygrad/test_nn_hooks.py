"""What can be hung on a module: backward hooks, state hooks, compile; and containers' full API."""

import copy
from collections import OrderedDict

import numpy
import pytest
import torch

import lazygrad as lg
from tests.lazygrad.nn_compare import copy_state, numbers

nn = lg.nn
X = numbers(3, 4)


def _both(make, run):
    """The results of run(library, module, x) with the same weights."""
    ours, theirs = make(lg.nn).double(), make(torch.nn).double()
    copy_state(ours, theirs)
    return [[numpy.asarray(each) for each in run(library, module, library.tensor(X))]
            for library, module in ((lg, ours), (torch, theirs))]


def _assert_same(results):
    for a, b in zip(*results, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def _model(n):
    return n.Sequential(n.Linear(4, 3), n.Tanh(), n.Linear(3, 2))


def test_backward_hooks_see_and_change_gradients():
    def run(library, module, x):
        x = x.requires_grad_()
        seen = []

        def before(layer, grad_output):
            seen.append(grad_output[0].detach())
            return (grad_output[0] * 2,)

        def after(layer, grad_input, grad_output):
            seen.extend([grad_input[0].detach(), grad_output[0].detach()])
            return (grad_input[0] * 3,)

        first = module[2].register_full_backward_pre_hook(before)
        second = module[2].register_full_backward_hook(after)
        module(x).sum().backward()
        results = [*seen, x.grad.clone(), module[0].weight.grad.clone(),
                   module[2].weight.grad.clone()]
        first.remove()
        second.remove()
        module(x).sum().backward()
        assert len(seen) == 3
        return [each.detach().numpy() for each in (*results, x.grad)]

    _assert_same(_both(_model, run))


def test_backward_hook_without_gradients_of_inputs():
    def run(library, module, x):
        seen = []
        module[0].register_full_backward_hook(
            lambda layer, grad_input, grad_output: seen.append((grad_input, grad_output[0])))
        module(x).sum().backward()
        (grad_input, grad_output), = seen
        assert grad_input == (None,)
        return [grad_output.detach().numpy(), module[0].weight.grad.numpy()]

    _assert_same(_both(_model, run))


def test_backward_hooks_of_several_outputs_and_inputs():
    class Split(nn.Module):
        def forward(self, a, b):
            return {"sum": a + b, "pair": (a * b, 3)}

    seen = []
    module = Split()
    module.register_full_backward_hook(lambda *given: seen.append(given[1:]))
    a, b = lg.tensor(2.0, requires_grad=True), lg.tensor(5.0, requires_grad=True)
    output = module(a, b)
    (output["sum"] + 10 * output["pair"][0]).backward()
    (grad_input, grad_output), = seen
    assert [each.item() for each in grad_input] == [51.0, 21.0]
    assert [each.item() for each in grad_output] == [1.0, 10.0]
    assert (a.grad.item(), b.grad.item()) == (51.0, 21.0)


def test_a_backward_hook_that_returns_too_much():
    layer = nn.Linear(4, 3)
    layer.register_full_backward_hook(lambda *given: (None, None))
    with pytest.raises(RuntimeError, match="returned 2 gradients"):
        layer(lg.rand(2, 4, requires_grad=True)).sum().backward()


def test_compiled_module_gives_the_same():
    model = _model(nn)
    x = lg.rand(3, 4)
    expected = model(x).detach().numpy().copy()
    model.compile()
    for _ in range(2):
        numpy.testing.assert_array_equal(model(x).detach().numpy(), expected)
    twin = copy.deepcopy(model)
    numpy.testing.assert_array_equal(twin(x).detach().numpy(), expected)


def test_private_state_hook_gets_no_module():
    layer, seen = nn.Linear(2, 2), []
    layer._register_load_state_dict_pre_hook(lambda state, prefix, *rest: seen.append(prefix))
    nn.Sequential(layer).load_state_dict({"0.weight": lg.ones(2, 2), "0.bias": lg.ones(2)})
    assert seen == ["0."]


def test_to_empty():
    layer = nn.Linear(2, 3)
    assert layer.to_empty(device="cpu").weight.shape == (3, 2)
    assert layer.half().weight.dtype is lg.float16


@pytest.mark.parametrize("n", [nn, torch.nn], ids=["lazygrad", "torch"])
def test_sequential_arithmetic(n):
    a = n.Sequential(n.ReLU(), n.Tanh())
    assert [type(each).__name__ for each in a * 2] == ["ReLU", "Tanh"] * 2
    assert len(3 * a) == 6
    a *= 2
    a += n.Sequential(n.Sigmoid())
    assert list(a._modules) == ["0", "1", "2", "3", "4"]
    with pytest.raises(TypeError):
        a * 1.5
    with pytest.raises(ValueError):
        a * 0


@pytest.mark.parametrize("library", [lg, torch], ids=["lazygrad", "torch"])
def test_parameter_dict_methods(library):
    n = library.nn
    weights = n.ParameterDict({"a": n.Parameter(library.ones(2)), "b": library.zeros(3)})
    assert list(reversed(weights)) == ["b", "a"]
    assert weights.copy()["a"] is weights["a"]
    assert weights.setdefault("a", None) is weights["a"]
    assert list(weights | n.ParameterDict({"c": library.ones(1)})) == ["a", "b", "c"]
    weights |= n.ParameterDict({"c": library.ones(1)})
    assert weights.popitem()[0] == "c"
    assert list(weights.fromkeys(["x", "y"], library.ones(1))) == ["x", "y"]
    assert isinstance(weights["b"], n.Parameter)


def test_container_and_data_parallel():
    layer = nn.Linear(2, 2)
    assert nn.Container(first=layer).first is layer
    wrapped = nn.DataParallel(layer)
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"]
    x = lg.rand(3, 2)
    numpy.testing.assert_array_equal(wrapped(x).detach().numpy(), layer(x).detach().numpy())


def test_module_state_survives_without_compiled_call():
    model = nn.Sequential(OrderedDict(one=nn.Linear(2, 2)))
    model.compile()
    assert "_compiled_call_impl" not in model.__getstate__()
    restored = nn.Sequential.__new__(nn.Sequential)
    restored.__setstate__({name: value for name, value in model.__getstate__().items()
                           if "backward" not in name})
    x = lg.rand(3, 2)
    numpy.testing.assert_array_equal(restored(x).detach().numpy(), model(x).detach().numpy())
