"""Pruning, and hooks of every module, against PyTorch."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.utils.prune

import lazygrad as lg
import lazygrad.nn.utils.prune
from lazygrad.nn import module as modules

WEIGHT = numpy.random.default_rng(0).standard_normal((4, 6)).astype("float32")


def _linear(library, weight=WEIGHT):
    layer = library.nn.Linear(weight.shape[1], weight.shape[0])
    with library.no_grad():
        layer.weight.copy_(library.tensor(weight))
        layer.bias.zero_()
    return layer


def _same(run):
    ours, theirs = run(lg, lg.nn.utils.prune), run(torch, torch.nn.utils.prune)
    for mine, wanted in zip(ours, theirs, strict=True):
        numpy.testing.assert_allclose(mine.detach().numpy(), wanted.detach().numpy(), rtol=1e-6)


def test_methods_one_after_another():
    def run(library, prune):
        layer = _linear(library)
        prune.l1_unstructured(layer, "weight", 0.3)
        prune.ln_structured(layer, "weight", 1, 2, 0)
        prune.l1_unstructured(layer, "weight", 2)
        assert prune.is_pruned(layer)
        assert sorted(layer.state_dict()) == ["bias", "weight_mask", "weight_orig"]
        result = layer(library.ones(2, 6))
        result.sum().backward()
        found = [result, layer.weight, layer.weight_mask, layer.weight_orig.grad]
        prune.remove(layer, "weight")
        assert not prune.is_pruned(layer)
        assert sorted(layer.state_dict()) == ["bias", "weight"]
        return [*found, layer.weight]
    _same(run)


def test_global_pruning():
    def run(library, prune):
        first, second = _linear(library), _linear(library, WEIGHT.T * 0.5)
        prune.global_unstructured([(first, "weight"), (second, "weight")], prune.L1Unstructured,
                                  amount=0.4)
        return [first.weight, second.weight]
    _same(run)


@pytest.mark.parametrize("amount, count", [(0.25, 6), (5, 5)])
def test_random_pruning_takes_as_many_as_asked(amount, count):
    layer = lg.nn.utils.prune.random_unstructured(_linear(lg), "weight", amount)
    assert int((layer.weight_mask == 0).sum()) == count


def test_wrong_amounts():
    for amount, error in ((1.5, ValueError), (-1, ValueError), (99, ValueError), ("a", TypeError)):
        with pytest.raises(error, match="amount"):
            lg.nn.utils.prune.l1_unstructured(_linear(lg), "weight", amount)


def test_hooks_of_every_module():
    def run(library, register):
        seen = []
        handles = [
            register.register_module_forward_pre_hook(
                lambda module, args: seen.append(("pre", type(module).__name__))),
            register.register_module_forward_hook(
                lambda module, args, output: seen.append(("post", type(module).__name__))),
            register.register_module_full_backward_hook(
                lambda module, grad_input, grad_output:
                seen.append(("backward", type(module).__name__))),
        ]
        model = library.nn.Sequential(library.nn.Linear(2, 2), library.nn.Tanh())
        try:
            model(library.ones(1, 2)).sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        model(library.ones(1, 2))
        return seen
    ours = run(lg, modules)
    theirs = run(torch, torch.nn.modules.module)
    assert ours == theirs


def test_recurrent_helpers():
    for library in (lg, torch):
        lstm = library.nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
        data = library.ones(5, 7, 3)
        assert lstm.get_expected_hidden_size(data, None) == (4, 7, 2)
        assert lstm.get_expected_cell_size(data, None) == (4, 7, 4)
        with pytest.raises(RuntimeError):
            lstm.check_input(library.ones(5, 7, 2), None)


def test_batch_norm_without_running_statistics():
    norm = lg.nn.Sequential(lg.nn.BatchNorm1d(3))
    assert lg.func.replace_all_batch_norm_modules_(norm) is norm
    assert norm[0].running_mean is None
    assert not norm[0].track_running_stats
    norm.eval()(lg.rand(4, 3)).sum().item()
