"""`lazygrad.compile` over modules and whole train steps."""

import functools
import math

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad.nn import functional
from tests.lazygrad.compiling import OPTIMIZERS, Trainer, check_equal, numbers, same, small_model

# ---- modules


def test_a_module_in_evaluation():
    model = small_model().eval()
    compiled = lg.compile(model)
    with lg.no_grad():
        for shift in range(3):
            same(compiled(numbers(5, 4) + shift), model(numbers(5, 4) + shift))
        assert compiled.recordings == 1
        model[0].weight.mul_(2)
        same(compiled(numbers(5, 4)), model(numbers(5, 4)))
        model[4].weight.data = model[4].weight.data * 3
        same(compiled(numbers(5, 4)), model(numbers(5, 4)))
        model[4] = nn.Linear(8, 3)
        same(compiled(numbers(5, 4)), model(numbers(5, 4)))
        model[1].register_buffer("running_mean", lg.ones(8))
        same(compiled(numbers(5, 4)), model(numbers(5, 4)))
        model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
        same(compiled(numbers(5, 4)), model(numbers(5, 4)))
        model.double()
        same(compiled(numbers(5, 4).double()), model(numbers(5, 4).double()))
    assert compiled.reasons == []


def test_train_and_eval_switch_recordings():
    model, twin = small_model(), small_model()
    compiled = lg.compile(model)
    with lg.no_grad():
        for mode in (True, False, True, False, False, True):
            model.train(mode)
            twin.train(mode)
            lg.manual_seed(7)
            got = compiled(numbers(6, 4))
            lg.manual_seed(7)
            same(got, twin(numbers(6, 4)), 1e-6)
        model[3].p = 0.9
        model[3].train()
        twin[3].p = 0.9
        twin[3].train()
        lg.manual_seed(7)
        got = compiled(numbers(6, 4))
        lg.manual_seed(7)
        same(got, twin(numbers(6, 4)), 1e-6)
    for (name, value), (_, expected) in zip(model.state_dict().items(), twin.state_dict().items(),
                                            strict=True):
        assert value.equal(expected), name


def test_one_submodule_switched_alone():
    model = small_model().eval()
    compiled = lg.compile(lambda x: model(x) * 1)
    with lg.no_grad():
        before = compiled(numbers(6, 4))
        model[1].train()
        assert not compiled(numbers(6, 4)).equal(before)
        model[1].eval()
    assert compiled.recordings == 2


def test_gradients_wanted_from_outside_run_without_replay():
    model = nn.Linear(3, 2)
    compiled = lg.compile(model)
    for _ in range(2):
        model.zero_grad()
        compiled(numbers(5, 3)).sum().backward()
        same(model.weight.grad, numbers(5, 3).sum(0).expand(2, 3).clone(), 1e-5)
    assert "history" in compiled.reasons[0] and compiled.recordings == 0
    x = numbers(3).requires_grad_()
    lg.compile(lambda x: x * 2)(x).sum().backward()
    same(x.grad, lg.full((3,), 2.0))


# ---- train steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_train_steps_equal_uncompiled_ones(name):
    compiled, eager = Trainer(name, True).run(5), Trainer(name, False).run(5)
    check_equal(compiled, eager)
    assert compiled.step.reasons == []
    assert compiled.step.recordings <= 3


def test_replays_of_a_train_step_run_no_python_and_one_program(monkeypatch):
    from lazygrad_runtime import program, store
    trainer = Trainer("adam", True).run(3)
    x = lg.randn(12, 4)
    y = (x.sum(1) > 0).long()
    lg.synchronize()
    ran, compiles = [], store.counters.compiles
    monkeypatch.setattr(program, "run_callbacks", [ran.append])
    monkeypatch.setattr(nn.Linear, "forward", None)
    loss = trainer.step(x, y)
    assert len(ran) == 1 and store.counters.compiles == compiles
    assert math.isfinite(loss.item()) and len(ran) == 1


def test_gradients_set_to_zero_instead_of_none():
    check_equal(Trainer("adam", True, set_to_none=False).run(5),
                Trainer("adam", False, set_to_none=False).run(5))


@pytest.mark.parametrize("schedule", [
    lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_learning_rates_of_schedulers_reach_replays(name, schedule):
    compiled, eager = Trainer(name, True, schedule).run(5), Trainer(name, False, schedule).run(5)
    check_equal(compiled, eager)
    assert compiled.step.recordings <= 2


@pytest.mark.parametrize("setting,values", [
    ("lr", (0.1, 0.2)), ("weight_decay", (0.2, 0.4)), ("betas", ((0.5, 0.9), (0.1, 0.2))),
    ("eps", (1e-2, 1e-1)), ("maximize", (True, False)),
])
def test_settings_changed_between_steps(setting, values):
    trainers = [Trainer("adamw", True), Trainer("adamw", False)]
    for value in (None, *values, values[0]):
        for trainer in trainers:
            if value is not None:
                trainer.optimizer.param_groups[0][setting] = value
            trainer.run(2)
    check_equal(*trainers)
    assert trainers[0].step.reasons == []


def test_a_learning_rate_that_is_a_tensor():
    trainers = [Trainer("sgd", True), Trainer("sgd", False)]
    for trainer in trainers:
        rate = trainer.optimizer.param_groups[0]["lr"] = lg.tensor(0.1)
        trainer.run(2)
        rate.mul_(0.1)
        trainer.run(2)
    check_equal(*trainers)


def test_a_scheduler_inside_is_not_replayed():
    trainers = [Trainer("sgd", True, lambda o: optim.lr_scheduler.StepLR(o, 1, 0.5)),
                Trainer("sgd", False, lambda o: optim.lr_scheduler.StepLR(o, 1, 0.5))]
    for trainer in trainers:
        schedule, trainer.schedule = trainer.schedule, None

        def step(x, y, trainer=trainer, schedule=schedule):
            loss = trainer.train(x, y)
            schedule.step()
            return loss

        trainer.step = lg.compile(step) if trainer.compiled else step
        trainer.run(3)
        assert schedule.last_epoch == 3
    assert "scheduler" in trainers[0].step.reasons[0]
    numpy.testing.assert_allclose(trainers[0].losses, trainers[1].losses, rtol=1e-6)


def test_parameters_changed_outside_between_steps():
    trainers = [Trainer("adam", True), Trainer("adam", False)]
    for trainer in trainers:
        trainer.run(3)
        with lg.no_grad():
            trainer.model[0].weight.mul_(0.5)
            trainer.model[4].bias.copy_(lg.ones(2))
        trainer.model[4].weight.data = trainer.model[4].weight.data * 2
        trainer.run(3)
    check_equal(*trainers)


def test_states_loaded_between_steps():
    trainers = [Trainer("adam", True), Trainer("adam", False)]
    for trainer in trainers:
        trainer.run(2)
        saved = trainer.model.state_dict(), trainer.optimizer.state_dict()
        saved = ({name: value.clone() for name, value in saved[0].items()},
                 {"state": {number: {name: value.clone() for name, value in values.items()}
                            for number, values in saved[1]["state"].items()},
                  "param_groups": saved[1]["param_groups"]})
        trainer.run(2)
        trainer.model.load_state_dict(saved[0])
        trainer.optimizer.load_state_dict(saved[1])
        trainer.run(2)
    check_equal(*trainers)


@pytest.mark.parametrize("compiled", [False, True])
def test_accumulation_of_gradients(compiled):
    trainer = Trainer("adam", False)

    def accumulate(x, y):
        loss = functional.cross_entropy(trainer.model(x), y) / 3
        loss.backward()
        return loss

    def update():
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    if compiled:
        accumulate, update = lg.compile(accumulate), lg.compile(update)
    lg.manual_seed(2)
    for _ in range(4):
        for _ in range(3):
            x = lg.randn(12, 4)
            trainer.losses.append(accumulate(x, (x.sum(1) > 0).long()).item())
        update()
        assert all(parameter.grad is None for parameter in trainer.model.parameters())
    numpy.testing.assert_allclose(trainer.losses, _accumulated_losses(), rtol=1e-6)
    if compiled:
        assert accumulate.recordings == 2 and update.recordings <= 2
        assert accumulate.reasons == [] and update.reasons == []


@functools.cache
def _accumulated_losses():
    trainer = Trainer("adam", False)
    lg.manual_seed(2)
    for _ in range(4):
        for _ in range(3):
            x = lg.randn(12, 4)
            loss = functional.cross_entropy(trainer.model(x), (x.sum(1) > 0).long()) / 3
            loss.backward()
            trainer.losses.append(loss.item())
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    return trainer.losses


def test_gradients_replaced_outside():
    weight = numbers(3).requires_grad_()

    def accumulate(x):
        (weight * x).sum().backward()

    compiled = lg.compile(accumulate)
    for _ in range(3):
        compiled(numbers(3))
        compiled(numbers(3))
        same(weight.grad, numbers(3) * 2)
        weight.grad = lg.ones(3)
        old = weight.grad
        compiled(numbers(3))
        same(weight.grad, numbers(3) + 1)
        assert weight.grad is old
        weight.grad = None
    assert compiled.recordings == 2


def test_only_the_optimizers_step_is_compiled():
    trainers = [Trainer("adam", True), Trainer("adam", False)]
    for trainer in trainers:
        step = trainer.optimizer.step
        trainer.optimizer.step = compiled = lg.compile(step) if trainer.compiled else step
        trainer.step = trainer.train
        trainer.model[4].bias.requires_grad_(False)
        trainer.run(2)
        trainer.model[4].bias.requires_grad_(True)
        trainer.run(3)
    check_equal(*trainers)
    del compiled


def test_clipped_gradients_and_functional_gradients():
    model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())

    def step(model, x):
        model.zero_grad()
        model(x).square().sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        with lg.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        return lg.autograd.grad(model(x).sum(), model.weight)[0]

    compiled = lg.compile(step)
    for shift in range(4):
        same(compiled(model, numbers(5, 3) + shift), step(twin, numbers(5, 3) + shift), 1e-6)
        same(model.weight, twin.weight, 1e-6)
    assert compiled.reasons == []


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_the_step_of_an_optimizer_by_itself_is_replayed(name, set_to_none):
    compiled, eager = (Trainer(name, False, set_to_none=set_to_none) for _ in range(2))
    step = compiled.optimizer.step = lg.compile(compiled.optimizer.step)
    check_equal(compiled.run(8), eager.run(8))
    assert step.recordings <= 2 and not step.reasons
    for trainer in (compiled, eager):
        trainer.optimizer.param_groups[0]["weight_decay"] = 0.3
    check_equal(compiled.run(4), eager.run(4))
    assert step.recordings <= 3
