"""Optimisers and schedules against torch, and what keeps a training loop from compiling anew."""

import copy
import warnings

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad_compiler.ir.node import topological
from lazygrad_runtime import program

START = [numpy.array([[1.0, -2.0, 0.5], [0.1, 3.0, -1.0]], numpy.float32),
         numpy.array([0.3, -0.7], numpy.float32)]
OPTIMIZERS = [("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9}),
              ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
              ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
              ("SGD", {"lr": 0.1, "maximize": True}), ("Adam", {"lr": 0.1}),
              ("Adam", {"lr": 0.1, "betas": (0.0, 0.9), "weight_decay": 0.1}),
              ("Adam", {"lr": 0.1, "amsgrad": True, "maximize": True}),
              ("Adam", {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.2}),
              ("AdamW", {"lr": 0.1}), ("AdamW", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.3}),
              ("RMSprop", {"lr": 0.05}),
              ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
              ("Adagrad", {"lr": 0.5}),
              ("Adagrad",
               {"lr": 0.5, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True,
                "initial_accumulator_value": 0.5})]


def parameters(library, dtype="float32"):
    return [library.nn.Parameter(library.tensor(value.astype(dtype))) for value in START]


def loss_of(library, tensors):
    return sum(((tensor * tensor * (k + 1)).sum() - tensor.sum() * 0.3 for k,
                tensor in enumerate(tensors)))


def train(library, tensors, optimizer, steps, after=lambda: None):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(library, tensors).backward()
        optimizer.step()
        after()


def assert_close(ours, theirs, tolerance=1e-5):
    for a, b in zip(ours, theirs):
        numpy.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance,
                                      atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name, settings", OPTIMIZERS)
def test_five_steps_and_the_state_agree_with_torch(name, settings, dtype, tolerance):
    ours, theirs = parameters(lg, dtype), parameters(torch, dtype)
    a = getattr(lg.optim, name)(ours, **settings)
    b = getattr(torch.optim, name)(theirs, **settings)
    train(lg, ours, a, 5)
    train(torch, theirs, b, 5)
    assert_close(ours, theirs, tolerance)
    state, expected = a.state_dict(), b.state_dict()
    assert list(state["state"]) == list(expected["state"])
    for number, values in expected["state"].items():
        assert set(state["state"][number]) == {key for key, value in values.items()
                                               if value is not None}
        for key, value in values.items():
            if value is not None:
                numpy.testing.assert_allclose(state["state"][number][key].numpy(), value.numpy(),
                                              rtol=10 * tolerance, atol=10 * tolerance)
    assert state["param_groups"] == expected["param_groups"]


@pytest.mark.parametrize("name, settings", OPTIMIZERS)
def test_resuming_from_a_state_dict_goes_on_as_before(name, settings):
    first = parameters(lg)
    a = getattr(lg.optim, name)(first, **settings)
    train(lg, first, a, 2)
    second = [lg.nn.Parameter(tensor.detach().clone()) for tensor in first]
    b = getattr(lg.optim, name)(second, lr=123.0)
    b.load_state_dict(a.state_dict())
    train(lg, first, a, 2)
    train(lg, second, b, 2)
    assert_close(first, second, 1e-6)


def test_torchs_adam_state_can_be_taken_over(tmp_path):
    theirs = parameters(torch)
    b = torch.optim.Adam(theirs, lr=0.1)
    train(torch, theirs, b, 3)
    torch.save(b.state_dict(), tmp_path / "adam.pt")
    ours = [lg.nn.Parameter(lg.tensor(tensor.detach().numpy())) for tensor in theirs]
    a = lg.optim.Adam(ours)
    a.load_state_dict(lg.load(tmp_path / "adam.pt"))
    train(lg, ours, a, 2)
    train(torch, theirs, b, 2)
    assert_close(ours, theirs)


def test_bfloat16_parameters_are_updated_in_float32():
    value = lg.nn.Parameter(lg.ones(2, dtype=lg.bfloat16))
    value.grad = lg.ones(2, dtype=lg.bfloat16)
    lg.optim.SGD([value], lr=0.3).step()
    assert value.dtype is lg.bfloat16 and value.tolist() == [0.69921875] * 2  # 0.7, rounded once


def test_parameters_without_gradients_keep_their_count():
    results = []
    for library in (lg, torch):
        tensors = parameters(library)
        optimizer = library.optim.Adam(tensors, lr=0.1)
        for step in range(4):
            optimizer.zero_grad()
            loss_of(library, tensors if step % 2 else tensors[:1]).backward()
            optimizer.step()
        results.append((tensors, [optimizer.state[t]["step"].item() for t in tensors]))
    assert_close(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] == [4.0, 2.0]


def test_groups_have_settings_of_their_own():
    results = []
    for library in (lg, torch):
        tensors = parameters(library)
        optimizer = library.optim.SGD([{"params": tensors[:1], "lr": 0.5}], lr=0.1, momentum=0.9)
        optimizer.add_param_group({"params": tensors[1], "weight_decay": 0.2})
        train(library, tensors, optimizer, 3)
        results.append((tensors, optimizer.state_dict()["param_groups"]))
    assert_close(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_a_learning_rate_that_is_a_tensor():
    tensors, rate = parameters(lg), lg.tensor(0.1)
    optimizer = lg.optim.Adam(tensors, lr=rate)
    train(lg, tensors, optimizer, 1)
    rate.fill_(0.0)
    before = tensors[0].tolist()
    train(lg, tensors, optimizer, 1)
    assert tensors[0].tolist() == before


def test_closures_and_hooks():
    tensors = parameters(lg)
    optimizer = lg.optim.SGD(tensors, lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *given: seen.append("before"))
    handle = optimizer.register_step_post_hook(lambda *given: seen.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = loss_of(lg, tensors)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0 and seen == ["before", "after"]
    handle.remove()
    optimizer.step(closure)
    assert seen == ["before", "after", "before"]


def signatures_of_steps(monkeypatch, run):
    """The programs executed by `run`, as the operations and constants in them."""
    seen = []
    execute = program.execute

    def watch(outputs, *rest):
        nodes = topological(outputs, stop=lambda node: node.payload is not None)
        seen.append(sorted(repr((node.op, node.attrs if node.op != "input" else None, node.shape))
                           for node in nodes if node.op != "variable"))
        execute(outputs, *rest)

    monkeypatch.setattr(program, "execute", watch)
    run()
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("name, settings",
                         [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {"amsgrad": True}),
                          ("RMSprop", {}), ("Adagrad", {"lr_decay": 0.1})])
def test_steps_and_schedules_never_change_the_program(monkeypatch, name, settings):
    tensors = parameters(lg)
    optimizer = getattr(lg.optim, name)(tensors, lr=0.1, **settings)
    schedule = lg.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    seen = signatures_of_steps(monkeypatch, lambda: train(lg, tensors, optimizer, 5, schedule.step))
    assert len(seen) == 5 and all(signature == seen[0] for signature in seen)


def test_a_changing_momentum_changes_the_program_once(monkeypatch):
    tensors = parameters(lg)
    optimizer = lg.optim.Adam(tensors, lr=0.1)
    schedule = lg.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=20)
    seen = signatures_of_steps(monkeypatch, lambda: train(lg, tensors, optimizer, 6, schedule.step))
    assert len(seen) == 6 and len({tuple(signature) for signature in seen}) == 2


@pytest.mark.parametrize("make, error",
                         [(lambda: lg.optim.SGD([]), ValueError),
                          (lambda: lg.optim.SGD(lg.ones(2)), TypeError),
                          (lambda: lg.optim.SGD([1]), TypeError),
                          (lambda: lg.optim.SGD([lg.ones(2, requires_grad=True) * 2]), ValueError),
                          (lambda: lg.optim.Adam(parameters(lg), lr=-1), ValueError),
                          (lambda: lg.optim.Adam(parameters(lg), betas=(1.0, 0.9)), ValueError),
                          (lambda: lg.optim.SGD(parameters(lg), nesterov=True), ValueError),
                          (lambda: lg.optim.SGD(set(parameters(lg)))
                           and lg.optim.SGD([{"params": set(parameters(lg))}]), TypeError),
                          (lambda: lg.optim.SGD((lambda p: [p, p])(parameters(lg)[0])),
                           ValueError)])
def test_mistakes(make, error):
    with pytest.raises(error):
        make()


def test_loading_a_state_dict_that_does_not_fit():
    optimizer = lg.optim.SGD(parameters(lg))
    with pytest.raises(ValueError, match="number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="size"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0]}]})


# ---- schedules

SCHEDULES = [lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch), lambda s,
             o: s.MultiplicativeLR(o, lambda epoch: 0.8), lambda s, o: s.StepLR(o, 3, 0.5),
             lambda s, o: s.MultiStepLR(o, [2, 5, 5], 0.5), lambda s, o: s.ConstantLR(o, 0.5, 3),
             lambda s, o: s.LinearLR(o, 0.2, 0.8, 6), lambda s, o: s.ExponentialLR(o, 0.9),
             lambda s, o: s.PolynomialLR(o, 7, 2.0), lambda s, o: s.CosineAnnealingLR(o, 4, 0.01),
             lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01), lambda s,
             o: s.CosineAnnealingWarmRestarts(o, 3), lambda s,
             o: s.OneCycleLR(o, 0.7, total_steps=13), lambda s,
             o: s.OneCycleLR(o, 0.7, epochs=2, steps_per_epoch=7, anneal_strategy="linear",
                             three_phase=True), lambda s,
             o: s.SequentialLR(o,
                               [s.LinearLR(o, 0.1, 1.0, 3), s.CosineAnnealingLR(o, 8),
                                s.ExponentialLR(o, 0.5)], [3, 8]), lambda s,
             o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 2), s.StepLR(o, 2, 0.5)], [4]), lambda s,
             o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)])]


def follow(library, make, resume_at=None):
    optimizer = library.optim.SGD(parameters(library), lr=0.5, momentum=0.8)
    schedule = make(library.optim.lr_scheduler, optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(12):
            if step == resume_at:
                state, groups = copy.deepcopy(schedule.state_dict()), optimizer.state_dict()
                optimizer = library.optim.SGD(parameters(library), lr=0.5, momentum=0.8)
                schedule = make(library.optim.lr_scheduler, optimizer)
                optimizer.load_state_dict(groups)
                schedule.load_state_dict(state)
            group = optimizer.param_groups[0]
            rates.append((group["lr"], group["momentum"], schedule.get_last_lr()[0]))
            schedule.step()
    return rates


@pytest.mark.parametrize("make", SCHEDULES)
def test_schedules_agree_with_torch(make):
    numpy.testing.assert_allclose(follow(lg, make), follow(torch, make), rtol=1e-12)


@pytest.mark.parametrize("make", SCHEDULES)
def test_schedules_resume(make):
    numpy.testing.assert_allclose(follow(lg, make, resume_at=4), follow(lg, make), rtol=1e-12)


@pytest.mark.parametrize("settings",
                         [{}, {"mode": "max"},
                          {"threshold_mode": "abs", "threshold": 0.2, "cooldown": 1},
                          {"min_lr": 0.2}])
def test_reduce_on_plateau(settings):
    results = []
    for library in (lg, torch):
        optimizer = library.optim.SGD(parameters(library), lr=0.5)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5,
                                                                **settings)
        rates = []
        for metric in [1.0, 0.9, 0.95, 0.93, 0.8, 0.8, 0.8, 0.8, 0.85, 1.2]:
            schedule.step(metric)
            rates.append(optimizer.param_groups[0]["lr"])
        results.append(rates)
    assert results[0] == results[1] and len(set(results[0])) > 1


def test_stepping_the_schedule_first_is_warned_of():
    optimizer = lg.optim.SGD(parameters(lg), lr=0.5)
    schedule = lg.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match=r"before optimizer\.step"):
        schedule.step()
