"""Learning-rate schedules and averages of weights against torch."""

import copy
import io
import warnings

import numpy
import pytest
import torch

import lazygrad as lg


def parameters(library):
    return [library.nn.Parameter(library.tensor([1.0, -2.0])),
            library.nn.Parameter(library.tensor([0.5]))]

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
             o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)]),
             lambda s, o: s.CyclicLR(o, 0.1, 0.7, 3), lambda s, o: s.CyclicLR(o, 0.1, 0.7, 2, 4,
                                                                              "triangular2"),
             lambda s, o: s.CyclicLR(o, [0.1], [0.7], 3, mode="exp_range", gamma=0.9,
                                     cycle_momentum=False),
             lambda s, o: s.CyclicLR(o, 0.1, 0.7, 3, scale_fn=lambda x: 0.8**x, scale_mode="cycle",
                                     base_momentum=0.6, max_momentum=0.99)]
SCHEDULES += [lambda s, o, settings=settings: AVERAGES[s].SWALR(o, **settings) for settings in
              ({"swa_lr": 0.05}, {"swa_lr": [0.05], "anneal_epochs": 4,
                                  "anneal_strategy": "linear"},
               {"swa_lr": 0.05, "anneal_epochs": 0})]
AVERAGES = {library.optim.lr_scheduler: library.optim.swa_utils for library in (lg, torch)}


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


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.filterwarnings("ignore")
def test_schedules_go_on_from_torchs_state(make):
    optimizers = [library.optim.SGD(parameters(library), lr=0.5, momentum=0.8)
                  for library in (lg, torch)]
    ours, theirs = (make(library.optim.lr_scheduler, optimizer)
                    for library, optimizer in zip((lg, torch), optimizers))
    for _ in range(4):
        theirs.step()
    file = io.BytesIO()
    torch.save([optimizers[1].state_dict(), theirs.state_dict()], file)
    file.seek(0)
    for part, state in zip((optimizers[0], ours), lg.load(file)):
        part.load_state_dict(state)
    for _ in range(7):
        ours.step()
        theirs.step()
        rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)


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


def test_a_chain_inside_a_sequence_starts_at_its_first_rate():
    def make(s, o):  # PyTorch decays the first rate, too: the chain's parts are stepped once more
        chain = s.ChainedScheduler([s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)])
        return s.SequentialLR(o, [chain, s.StepLR(o, 2, 0.5)], [3])

    rates = [rate for rate, _, _ in follow(lg, make)]
    numpy.testing.assert_allclose(rates[:6], [0.05, 0.045, 0.405, 0.5, 0.5, 0.25])


def test_schedules_write_betas_of_adam():
    betas = []
    for library in (lg, torch):
        optimizer = library.optim.Adam(parameters(library), lr=0.1)
        schedule = library.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, 2)
        found = []
        for _ in range(5):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["betas"])
        betas.append(found)
    numpy.testing.assert_allclose(betas[0], betas[1], rtol=1e-12)
    assert len(set(betas[0])) > 2


def test_a_schedule_written_for_torch():
    class Halving(lg.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            assert self._get_lr_called_within_step
            return [base / 2**self.last_epoch for base in self.base_lrs]

        def _get_closed_form_lr(self):
            return [7.0 + self.last_epoch]

    optimizer = lg.optim.SGD(parameters(lg), lr=0.5)
    schedule = Halving(optimizer)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.25]
    schedule.step(3)
    assert schedule.get_last_lr() == [10.0]


def test_groups_added_later_get_the_least_rate():
    tensors = parameters(lg)
    optimizer = lg.optim.SGD(tensors[:1], lr=0.5)
    plain = lg.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.2)
    listed = lg.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.2])
    optimizer.add_param_group({"params": tensors[1:]})
    plain.step(1.0)
    plain.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    listed.step(1.0)
    with pytest.raises(RuntimeError, match="min_lrs"):
        listed.step(1.0)


@pytest.mark.parametrize("make, error, message", [
    (lambda s, o: s.StepLR(object(), 1), TypeError, "not an Optimizer"),
    (lambda s, o: s.CyclicLR(o, 0.1, 0.5, mode="square"), ValueError, "mode"),
    (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1), s.ReduceLROnPlateau(o)], [2]), ValueError,
     "ReduceLROnPlateau"),
    (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1), 3], [2]), TypeError, "index 1"),
    (lambda s, o: s.ChainedScheduler([s.StepLR(lg.optim.SGD(parameters(lg)), 1), s.StepLR(o, 1)]),
     ValueError, "same optimizer"),
    (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1)], [2]), ValueError, "milestone"),
    (lambda s, o: s.LambdaLR(o, [lambda epoch: 1.0] * 3), ValueError, "Expected 1"),
    (lambda s, o: lg.optim.swa_utils.SWALR(o, 0.1, anneal_strategy="step"), ValueError, "anneal"),
    (lambda s, o: lg.optim.swa_utils.get_ema_avg_fn(2.0), ValueError, r"\[0,1\]")])
def test_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make(lg.optim.lr_scheduler, lg.optim.SGD(parameters(lg), lr=0.5))


# ---- averages of weights


def model_of(library):
    model = library.nn.Sequential(library.nn.Linear(2, 2), library.nn.BatchNorm1d(2))
    values = [[[1.0, 2.0], [3.0, -4.0]], [0.5, -0.5], [1.0, 2.0], [0.0, 1.0]]
    with library.no_grad():
        for parameter, value in zip(model.parameters(), values):
            parameter.copy_(library.tensor(value))
    return model


@pytest.mark.parametrize("settings", [
    lambda utils: {}, lambda utils: {"use_buffers": True},
    lambda utils: {"avg_fn": utils.get_ema_avg_fn(0.7)},
    lambda utils: {"avg_fn": utils.get_swa_avg_fn()},
    lambda utils: {"multi_avg_fn": utils.get_ema_multi_avg_fn(0.7), "use_buffers": True},
    lambda utils: {"multi_avg_fn": utils.get_swa_multi_avg_fn()}])
def test_averaged_models(settings):
    states, outputs = [], []
    for library in (lg, torch):
        utils = library.optim.swa_utils
        model = model_of(library)
        average = utils.AveragedModel(model, **settings(utils))
        batches = [library.tensor([[0.5, -1.0], [2.0, 1.0], [k, 0.25]]) for k in (1.0, 2.0)]
        for _ in range(4):
            model(batches[0])
            with library.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.9).add_(0.1)
            average.update_parameters(model)
        states.append({name: value.numpy().copy() for name, value in average.state_dict().items()})
        utils.update_bn([(batch, None) for batch in batches], average)
        outputs.append([*average.buffers(), average.eval()(batches[1])])
    assert list(states[0]) == list(states[1])
    for name, value in states[1].items():
        numpy.testing.assert_allclose(states[0][name], value, rtol=1e-6, err_msg=name)
    for ours, theirs in zip(*outputs):
        numpy.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5,
                                      atol=1e-6)
