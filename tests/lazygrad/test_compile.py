"""`lazygrad.compile`: a replay gives what the function gives, and changes what it changes."""

import collections
import functools
import math
import threading

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad._core import capture
from lazygrad.nn import functional


def same(left, right, tolerance=0.0):
    left, right = lg.as_tensor(left), lg.as_tensor(right)
    assert left.shape == right.shape and left.dtype == right.dtype
    numpy.testing.assert_allclose(left.detach().numpy(), right.detach().numpy(), rtol=tolerance,
                                  atol=tolerance)


def counted(function):
    """The function, and a list that grows by one for each run of its Python code."""
    runs = []

    @functools.wraps(function)
    def run(*arguments, **keywords):
        runs.append(None)
        return function(*arguments, **keywords)

    return run, runs


def numbers(*shape):
    count = math.prod(shape)
    return lg.from_numpy((numpy.arange(count, dtype=numpy.float32) - count / 3).reshape(shape))


# ---- functions: values, results, signatures


def test_a_replay_does_not_run_the_python_code():
    function, runs = counted(lambda x, y: (x * 2 + y).sum(0))
    compiled = lg.compile(function)
    for shift in range(4):
        x, y = numbers(3, 4) + shift, numbers(4)
        same(compiled(x, y), (x * 2 + y).sum(0))
    assert len(runs) == 1 and compiled.recordings == 1 and compiled.reasons == []


def test_as_a_decorator_with_options():
    @lg.compile(fullgraph=True, mode="max-autotune")
    def double(x):
        """Twice."""
        return x * 2

    same(double(numbers(3)), numbers(3) * 2)
    assert double.__name__ == "double" and double.__doc__ == "Twice."


def test_results_are_never_overwritten_by_the_next_call():
    compiled = lg.compile(lambda x: (x + 1, x.sum()))
    first = compiled(numbers(4))
    array = first[0].numpy()
    kept = array.copy()
    second = compiled(numbers(4) * 10)
    assert (first[0].numpy() == kept).all() and (array == kept).all()
    same(second[0], numbers(4) * 10 + 1)


Pair = collections.namedtuple("Pair", "left right")


def test_nests_of_results_and_arguments():
    def function(batch, pair, scale=1.0):
        x, y = batch["x"], batch["more"][0]
        return {"sum": x + y, "list": [x * scale, (pair.left, pair.right - 1)], "none": None,
                "text": "t", "pair": Pair(x - 1, 3)}

    compiled = lg.compile(function)
    for shift in range(3):
        batch = {"x": numbers(3) + shift, "more": [numbers(3) * 2]}
        pair = Pair(numbers(2), numbers(2) - shift)
        got, wanted = compiled(batch, pair, scale=3.0), function(batch, pair, scale=3.0)
        assert list(got) == list(wanted) and got["none"] is None and got["text"] == "t"
        same(got["sum"], wanted["sum"])
        same(got["list"][0], wanted["list"][0])
        assert got["list"][1][0] is pair.left
        same(got["list"][1][1], wanted["list"][1][1])
        assert type(got["pair"]) is Pair and got["pair"].right == 3
    assert compiled.recordings == 1


def test_one_tensor_returned_twice_is_one_tensor():
    def function(x):
        y = x + 1
        return y, y, y * 1.0

    for _ in range(2):
        first, second, third = lg.compile(function)(numbers(3))
        assert first is second and third is not first
        first.add_(1)
        same(third, numbers(3) + 1)


@pytest.mark.parametrize("arguments", [
    [(numbers(3),), (numbers(4),)],
    [(numbers(3),), (numbers(1, 3),)],
    [(numbers(3),), (numbers(3).double(),)],
    [(numbers(3), 2), (numbers(3), 3)],
    [(numbers(3), 2), (numbers(3), 2.0)],
    [(numbers(3), 1), (numbers(3), True)],
    [(numbers(3), 0.0), (numbers(3), -0.0)],
    [(numbers(3), "a"), (numbers(3), None)],
    [(numbers(3), (1, 2)), (numbers(3), [1, 2])],
    [(numbers(3), {"a": 1}), (numbers(3), {"b": 1})],
])
def test_another_signature_is_recorded_anew(arguments):
    function, runs = counted(lambda x, *more: x * 2)
    compiled = lg.compile(function)
    for _ in range(2):
        for each in arguments:
            same(compiled(*each), each[0] * 2)
    assert compiled.recordings == 2 and len(runs) == 2


def test_python_arguments_decide_the_result():
    compiled = lg.compile(lambda x, n, negative=False: -(x * n) if negative else x * n)
    for n in (2, 3, 2.0, 2):
        for negative in (False, True):
            same(compiled(numbers(3), n, negative=negative),
                 numbers(3) * n * (-1 if negative else 1))


def test_nan_arguments_are_one_signature():
    compiled = lg.compile(lambda x, fill: lg.where(x > 0, x, fill))
    for fill in (float("nan"), float("nan"), numpy.float32("nan"), numpy.float32("nan")):
        same(compiled(numbers(4), fill), lg.where(numbers(4) > 0, numbers(4), fill))
    assert compiled.recordings == 2


def test_default_dtype_and_grad_mode_belong_to_the_signature():
    compiled = lg.compile(lambda x: (x + lg.ones(3), lg.is_grad_enabled()))
    assert compiled(lg.arange(3))[0].dtype == lg.float32
    lg.set_default_dtype(lg.float64)
    try:
        assert compiled(lg.arange(3))[0].dtype == lg.float64
    finally:
        lg.set_default_dtype(lg.float32)
    with lg.no_grad():
        assert compiled(lg.arange(3))[1] is False
    assert compiled(lg.arange(3))[1] is True


def test_functions_without_tensors():
    assert lg.compile(lambda: None)() is None
    assert lg.compile(lambda: 7)() == 7
    compiled = lg.compile(lambda n: lg.zeros(n) + 2)
    same(compiled(3), lg.full((3,), 2.0))
    same(compiled(3).add_(1), lg.full((3,), 3.0))
    same(compiled(3), lg.full((3,), 2.0))


def test_constant_pending_and_empty_arguments():
    compiled = lg.compile(lambda x: x * 2 + 1)
    for x in (lg.zeros(3), lg.ones(3), numbers(3) * 2, numbers(3)):
        same(compiled(x), x * 2 + 1)
    same(compiled(lg.zeros(0)), lg.zeros(0))
    assert compiled.recordings == 2


# ---- tensors that share memory


def test_views_as_arguments():
    base = numbers(6, 4)
    compiled = lg.compile(lambda x, y: x * 2 + y)
    for x, y in ((base[:4], base[2:]), (base.t()[:, :4].t(), base[1:5]),
                 (base[::2].repeat(2, 1)[:4], base[:4].flip(0))):
        same(compiled(x, y), x * 2 + y)


def test_the_same_tensor_twice_is_not_two_tensors():
    compiled = lg.compile(lambda x, y: x * 10 + y)
    a, b = numbers(3), numbers(3) * 5
    for x, y in ((a, a), (a, b), (b, b), (b, a)):
        same(compiled(x, y), x * 10 + y)
    assert compiled.recordings == 2


def test_arguments_changed_in_place():
    def function(x, y):
        x.add_(y)
        y[0] = 7
        return x * 2

    compiled = lg.compile(function)
    for _ in range(3):
        x, y = numbers(3), numbers(3) * 3
        x_view, eager_x, eager_y = x.view(3, 1), x.clone(), y.clone()
        same(compiled(x, y), function(eager_x, eager_y))
        same(x, eager_x)
        same(y, eager_y)
        same(x_view, eager_x.view(3, 1))
    assert compiled.recordings == 1


def test_views_of_arguments_changed_in_place():
    def function(x):
        x.mul_(3)

    compiled = lg.compile(function)
    base = numbers(4, 4)
    expected = base.clone()
    for row in range(3):
        compiled(base[row])
        expected[row] *= 3
    same(base, expected)
    assert compiled.recordings == 1


def test_in_place_on_one_of_two_views_is_not_replayed():
    def function(x, y):
        x.add_(1)
        return y * 2

    compiled = lg.compile(function)
    base = numbers(4)
    first = compiled(base[:3], base[1:])
    eager = numbers(4)
    same(first, function(eager[:3], eager[1:]))
    same(base, eager)
    assert "in place" in compiled.reasons[0]
    a, b = numbers(3), numbers(3)
    same(compiled(a, b), numbers(3) * 2)
    same(a, numbers(3) + 1)


def test_an_argument_that_is_a_tensor_the_function_writes():
    state = numbers(3)

    def function(x):
        state.add_(1)
        return x * 2

    compiled = lg.compile(function)
    same(compiled(numbers(3)), numbers(3) * 2)
    same(state, numbers(3) + 1)
    same(compiled(state), (numbers(3) + 2) * 2)
    same(state, numbers(3) + 2)
    same(compiled(numbers(3)), numbers(3) * 2)
    same(state, numbers(3) + 3)


def test_results_that_are_arguments_or_tensors_outside():
    weight = numbers(3)
    compiled = lg.compile(lambda x: (x, weight, weight[1:], x + weight))
    for _ in range(2):
        x = numbers(3) * 2
        first, second, third, fourth = compiled(x)
        assert first is x and second is weight
        same(fourth, x + weight)
        weight.add_(1)
        same(third, weight[1:])


# ---- what the function reads and writes outside


def test_closure_tensors_are_read_anew():
    weight, scale = numbers(3), 2.0

    def function(x):
        return x * weight * scale

    compiled = lg.compile(function)
    same(compiled(lg.ones(3)), numbers(3) * 2)
    weight.mul_(5)
    same(compiled(lg.ones(3)), numbers(3) * 10)
    assert compiled.recordings == 1
    weight = lg.ones(3)
    same(compiled(lg.ones(3)), lg.full((3,), 2.0))
    scale = 4.0
    same(compiled(lg.ones(3)), lg.full((3,), 4.0))
    assert compiled.recordings == 3


def test_two_tensors_of_one_constant_stay_apart():
    first, second = lg.zeros(3), lg.zeros(3)

    def function():
        first.add_(1)
        second.add_(first)
        return first + 10 * second

    compiled = lg.compile(function)
    eager_second = 0
    for eager_first in range(1, 5):
        eager_second += eager_first
        same(compiled(), lg.full((3,), float(eager_first + 10 * eager_second)))
    assert compiled.recordings == 1


def test_copies_of_tensors_outside():
    left, right = numbers(3), numbers(3) * 2

    def swap():
        kept = left.clone()
        left.copy_(right)
        right.copy_(kept)

    compiled = lg.compile(swap)
    for turn in range(3):
        compiled()
        same(left, numbers(3) * (1 if turn % 2 else 2))
        same(right, numbers(3) * (2 if turn % 2 else 1))


def test_state_made_by_the_function():
    class Average:
        def __init__(self):
            self.value = None

        def update(self, x):
            if self.value is None:
                self.value = lg.zeros(3)
            self.value.mul_(0.5).add_(x)
            return self.value * 1

    eager, recorded = Average(), Average()
    compiled = lg.compile(recorded.update)
    for step in range(5):
        same(compiled(numbers(3) + step), eager.update(numbers(3) + step))
        same(recorded.value, eager.value)
    assert compiled.recordings <= 2


def test_random_numbers_differ_and_follow_the_seed():
    def function(x):
        return functional.dropout(x, 0.5), lg.rand(3)

    compiled = lg.compile(function)
    lg.manual_seed(3)
    eager = [function(lg.ones(50)) for _ in range(4)]
    for _ in range(2):
        lg.manual_seed(3)
        got = [compiled(lg.ones(50)) for _ in range(4)]
        for left, right in zip(got, eager, strict=True):
            same(left[0], right[0])
            same(left[1], right[1])
    assert len({tuple(each[0].tolist()) for each in got}) == 4
    assert compiled.recordings == 1


def test_generators_of_ones_own():
    source, twin = lg.Generator().manual_seed(1), lg.Generator().manual_seed(1)
    compiled = lg.compile(lambda: lg.rand(4, generator=source) + lg.randn(4, generator=source))
    for _ in range(3):
        same(compiled(), lg.rand(4, generator=twin) + lg.randn(4, generator=twin))


def test_permutations_are_drawn_anew():
    compiled = lg.compile(lambda: lg.randperm(20))
    lg.manual_seed(1)
    eager = [lg.randperm(20).tolist() for _ in range(3)]
    lg.manual_seed(1)
    assert [compiled().tolist() for _ in range(3)] == eager
    assert len({tuple(each) for each in eager}) == 3 and sorted(eager[0]) == list(range(20))
    assert compiled.recordings == 1


def test_randomness_from_the_host_is_not_replayed():
    def use():
        return lg.manual_seed(3) and lg.rand(3)

    compiled = lg.compile(use)
    lg.manual_seed(1)
    eager = [use().tolist() for _ in range(3)]
    lg.manual_seed(1)
    assert [compiled().tolist() for _ in range(3)] == eager
    assert "test_compile.py" in compiled.reasons[0]


# ---- modules


def small_model():
    lg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4),
                         nn.Linear(8, 2))


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


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "dampened": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
}


class Trainer:
    """A model, its optimiser and a step; `compiled` or not."""

    def __init__(self, optimizer, compiled, schedule=None, set_to_none=True):
        self.model = small_model()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = schedule(self.optimizer) if schedule else None
        self.set_to_none = set_to_none
        self.compiled = compiled
        self.step = lg.compile(self.train) if compiled else self.train
        self.losses = []

    def train(self, x, y):
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, steps, seed=1):
        lg.manual_seed(seed)
        for _ in range(steps):
            x = lg.randn(12, 4)
            self.losses.append(self.step(x, (x.sum(1) > 0).long()).item())
            if self.schedule:
                self.schedule.step()
        return self

    def everything(self):
        state = {f"{number}.{name}": value
                 for number, values in self.optimizer.state_dict()["state"].items()
                 for name, value in values.items()}
        gradients = {f"gradient.{name}": parameter.grad
                     for name, parameter in self.model.named_parameters()}
        return {**self.model.state_dict(), **state, **gradients}


def check_equal(compiled, eager):
    numpy.testing.assert_allclose(compiled.losses, eager.losses, rtol=1e-6, atol=1e-6)
    left, right = compiled.everything(), eager.everything()
    assert list(left) == list(right)
    for name in left:
        numpy.testing.assert_allclose(left[name].numpy(), right[name].numpy(), rtol=1e-6,
                                      atol=1e-6, err_msg=name)
    assert compiled.optimizer.steps_taken == eager.optimizer.steps_taken


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


# ---- what cannot be replayed


@pytest.mark.parametrize("look", [
    lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool((x > 0).any()),
    lambda x: x.numpy(), lambda x: repr(x), lambda x: len(x.nonzero()),
])
def test_looking_at_a_value_falls_back_and_says_where(look):
    def function(x):
        look(x)
        return x * 2

    compiled = lg.compile(function)
    for shift in range(3):
        same(compiled(numbers(3) + shift), (numbers(3) + shift) * 2)
    assert len(compiled.reasons) == 1 and compiled.recordings == 0
    assert "test_compile.py" in compiled.reasons[0]


def test_looking_at_a_known_value_outside_falls_back():
    scale = lg.tensor(2.0)
    compiled = lg.compile(lambda x: x * scale.item())
    same(compiled(numbers(3)), numbers(3) * 2)
    scale.fill_(5.0)
    same(compiled(numbers(3)), numbers(3) * 5)


def test_control_flow_on_values_is_right():
    compiled = lg.compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    for x in (lg.ones(3), -lg.ones(3), lg.ones(3)):
        same(compiled(x), x * 2 if x.sum() > 0 else x - 1)


def test_arguments_that_may_change_without_notice():
    compiled = lg.compile(lambda x, array: x + lg.from_numpy(array.copy()))
    array = numpy.ones(3, numpy.float32)
    same(compiled(lg.zeros(3), array), lg.ones(3))
    array[:] = 5
    same(compiled(lg.zeros(3), array), lg.full((3,), 5.0))
    assert "ndarray" in compiled.reasons[0]


def test_objects_as_arguments_are_watched():
    class Batch:
        def __init__(self, value, scale):
            self.value, self.scale = value, scale

    batch = Batch(numbers(3), 2.0)
    compiled = lg.compile(lambda batch: batch.value * batch.scale)
    same(compiled(batch), numbers(3) * 2)
    batch.value = lg.ones(3)
    same(compiled(batch), lg.full((3,), 2.0))
    batch.scale = 7.0
    same(compiled(batch), lg.full((3,), 7.0))


def test_state_that_always_changes_ends_in_plain_calls():
    count = 0

    def function(x):
        nonlocal count
        count += 1
        return x + count

    compiled = lg.compile(function)
    for turn in range(capture.MOST_FOR_ONE_SIGNATURE + 4):
        same(compiled(lg.zeros(2)), lg.full((2,), turn + 1.0))
    assert "keeps changing" in compiled.reasons[0] and compiled.recordings == 0


def test_history_that_stays_outside_is_not_lost():
    kept = {}
    weight = numbers(3).requires_grad_()

    def function(x):
        kept["y"] = weight * x
        return x + 1

    compiled = lg.compile(function)
    for _ in range(2):
        weight.grad = None
        compiled(lg.ones(3))
        kept["y"].sum().backward()
        same(weight.grad, lg.ones(3))


def test_history_outside_survives_a_recording():
    weight = numbers(3).requires_grad_()
    first, second = weight * 2, weight * 2
    lg.synchronize()
    lg.compile(lambda x: x * 3)(numbers(3))
    (first + second.detach() + second).sum().backward()
    same(weight.grad, lg.full((3,), 4.0))


def test_history_begun_outside():
    weight = numbers(3).requires_grad_()
    features = (weight * 2).exp()

    def function(x):
        (features * x).sum().backward(retain_graph=True)

    compiled = lg.compile(function)
    for turn in range(1, 3):
        compiled(lg.ones(3))
        same(weight.grad, (numbers(3) * 2).exp() * 2 * turn, 1e-5)


def test_the_oldest_recordings_go(monkeypatch):
    monkeypatch.setattr(capture, "MOST_ENTRIES", 5)
    function, runs = counted(lambda x, n: x * n)
    compiled = lg.compile(function)
    for n in (*range(8), 7, 0):
        same(compiled(lg.ones(2), n), lg.full((2,), float(n)))
    assert compiled.recordings == 5 and len(runs) == 9


# ---- errors, nesting, threads


def test_an_error_inside_leaves_everything_as_it_was():
    model = small_model()
    optimizer = optim.Adam(model.parameters())
    broken = True

    def step(x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        if broken:
            x @ lg.zeros(3, 3)
        return x + 1

    compiled = lg.compile(step)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    lg.manual_seed(4)
    random = lg.get_rng_state().tolist()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"matmul.*test_compile.py"):
            compiled(numbers(6, 4))
    assert lg.get_rng_state().tolist() == random
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert (value.numpy() == before[name]).all(), name
    for values in optimizer.state.values():
        assert all((value == 0).all() for value in values.values())
    broken = False
    eager = small_model()
    eager_optimizer = optim.Adam(eager.parameters())
    lg.manual_seed(4)
    compiled(numbers(6, 4))
    lg.manual_seed(4)
    eager(numbers(6, 4)).sum().backward()
    eager_optimizer.step()
    for name, value in eager.state_dict().items():
        same(model.state_dict()[name], value, 1e-6)


def test_a_fallback_leaves_no_trace_of_the_recording():
    trainers = [Trainer("adam", True), Trainer("adam", False)]
    for trainer in trainers:
        def step(x, y, trainer=trainer):
            loss = trainer.train(x, y)
            loss.item()
            return loss

        trainer.step = lg.compile(step) if trainer.compiled else step
        trainer.run(3)
    check_equal(*trainers)
    assert len(trainers[0].step.reasons) == 1


def test_a_bad_index_in_a_replay_is_an_error_and_changes_nothing():
    table, count = numbers(4, 2), lg.zeros(1)

    def look_up(index):
        count.add_(1)
        return table[index]

    compiled = lg.compile(look_up)
    same(compiled(lg.tensor([1, 3])), table[[1, 3]])
    with pytest.raises(IndexError, match="index 9 is out of range"):
        compiled(lg.tensor([1, 9]))
    same(count, lg.ones(1))
    same(compiled(lg.tensor([-1, 0])), table[[-1, 0]])
    same(count, lg.full((1,), 2.0))


def test_nested_compiled_functions():
    inner, inner_runs = counted(lambda x: x * 2)
    inner_compiled = lg.compile(inner)
    outer = lg.compile(lambda x: inner_compiled(x) + 1)
    for shift in range(3):
        same(outer(numbers(3) + shift), (numbers(3) + shift) * 2 + 1)
    assert len(inner_runs) == 1 and inner_compiled.recordings == 0
    same(inner_compiled(numbers(3)), numbers(3) * 2)
    same(lg.compile(outer)(numbers(3)), numbers(3) * 2 + 1)


def test_recordings_do_not_see_the_work_of_other_threads():
    inside, go_on = threading.Event(), threading.Event()

    def slow(x):
        y = x * 2
        inside.set()
        go_on.wait(10)
        return y + 1

    compiled, results = lg.compile(slow), {}

    def record():
        results["recorded"] = compiled(numbers(3)).tolist()

    def others():
        results["pending"] = [numbers(3) * n for n in range(5)]
        go_on.set()
        results["values"] = [each.tolist() for each in results["pending"]]
        results["random"] = lg.rand(3).tolist()

    first = threading.Thread(target=record)
    first.start()
    assert inside.wait(10)
    second = threading.Thread(target=others)
    second.start()
    first.join(30)
    second.join(30)
    assert results["recorded"] == (numbers(3) * 2 + 1).tolist()
    assert results["values"] == [(numbers(3) * n).tolist() for n in range(5)]
    assert compiled.reasons == [] and compiled.recordings == 1
    same(compiled(lg.ones(3)), lg.full((3,), 3.0))


def test_one_compiled_function_in_many_threads():
    total = lg.zeros(1)

    def function(x):
        total.add_(1)
        return x * 2

    compiled = lg.compile(function)
    wrong = []

    def work(number):
        for turn in range(20):
            value = float(number * 100 + turn)
            if compiled(lg.full((4,), value)).tolist() != [value * 2] * 4:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and total.item() == 80.0


def test_a_view_of_an_argument_is_one_still():
    """Compiled or not, a result that is a view of an argument shares its memory."""
    compiled = lg.compile(lambda x: (x[1:], x.view(2, 2), x.detach(), x + 1))
    for start in (0.0, 10.0):
        whole = lg.arange(8.0) + start
        for x in (lg.arange(4.0) + start, whole[::2]):
            tail, square, same, own = compiled(x)
            expected = own.numpy() - 1
            assert numpy.array_equal(square.numpy().ravel(), expected)
            tail.zero_()
            assert x.tolist() == [expected[0], 0, 0, 0]
            assert square.tolist() == [[expected[0], 0], [0, 0]]
            x.fill_(7)
            assert tail.tolist() == [7, 7, 7]
            assert same.tolist() == [7, 7, 7, 7]
            assert numpy.array_equal(own.numpy(), expected + 1)
    assert compiled.recordings <= 2 and not compiled.reasons


def test_a_view_of_an_argument_that_was_written():
    def advance(x):
        x += 1
        return x[:2]

    compiled = lg.compile(advance)
    x = lg.zeros(3)
    for step in (1, 2, 3):
        first = compiled(x)
        assert x.tolist() == [step] * 3
        first.mul_(1)
        first[0] = step
        assert x.tolist() == [step] * 3
