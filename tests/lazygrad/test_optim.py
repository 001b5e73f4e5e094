"""Optimisers against torch, and what keeps a training loop from compiling anew."""

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad.optim import optimizer_hooks
from lazygrad_compiler.ir.node import topological
from lazygrad_runtime import program, store

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
                "initial_accumulator_value": 0.5}),
              ("Adadelta", {"lr": 0.1}),
              ("Adadelta", {"lr": 0.1, "rho": 0.5, "weight_decay": 0.1, "maximize": True}),
              ("Adamax", {"lr": 0.1}),
              ("Adamax", {"lr": 0.1, "betas": (0.0, 0.9), "weight_decay": 0.1, "maximize": True}),
              ("NAdam", {"lr": 0.1}),
              ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "momentum_decay": 0.1}),
              ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True,
                         "maximize": True}),
              ("RAdam", {"lr": 0.1}), ("RAdam", {"lr": 0.1, "betas": (0.9, 0.6)}),
              ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
              ("RAdam", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
              ("ASGD", {"lr": 0.1, "t0": 3}),
              ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1,
                        "maximize": True}),
              ("Rprop", {"lr": 0.1}),
              ("Rprop", {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.2),
                         "maximize": True}),
              ("Adafactor", {"lr": 0.1}),
              ("Adafactor", {"lr": 0.1, "weight_decay": 0.1, "eps": (1e-3, 1e-2), "d": 2.0,
                             "maximize": True, "beta2_decay": -0.5})]


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
def test_ten_steps_and_the_state_agree_with_torch(name, settings, dtype, tolerance):
    ours, theirs = parameters(lg, dtype), parameters(torch, dtype)
    a = getattr(lg.optim, name)(ours, **settings)
    b = getattr(torch.optim, name)(theirs, **settings)
    train(lg, ours, a, 2)
    compiles = store.counters.compiles
    train(lg, ours, a, 8)
    assert store.counters.compiles == compiles
    train(torch, theirs, b, 10)
    assert_close(ours, theirs, tolerance)
    assert repr(a) == repr(b)
    state, expected = a.state_dict(), b.state_dict()
    assert list(state["state"]) == list(expected["state"])
    for number, values in expected["state"].items():
        assert set(state["state"][number]) == {key for key, value in values.items()
                                               if value is not None}
        for key, value in values.items():
            if value is not None:
                found = state["state"][number][key]
                assert str(found.dtype).split(".")[-1] == str(value.dtype).split(".")[-1]
                numpy.testing.assert_allclose(found.numpy(), value.numpy(), rtol=10 * tolerance,
                                              atol=10 * tolerance)
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


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "ASGD", "Rprop", "Adafactor", "Adamax",
                                  "Adadelta", "RMSprop", "Adagrad", "SGD"])
def test_torchs_state_can_be_taken_over(tmp_path, name):
    theirs = parameters(torch)
    settings = {"momentum": 0.9} if name == "SGD" else {}
    b = getattr(torch.optim, name)(theirs, lr=0.1, **settings)
    train(torch, theirs, b, 3)
    torch.save(b.state_dict(), tmp_path / "state.pt")
    ours = [lg.nn.Parameter(lg.tensor(tensor.detach().numpy().copy())) for tensor in theirs]
    a = getattr(lg.optim, name)(ours)
    a.load_state_dict(lg.load(tmp_path / "state.pt"))
    train(lg, ours, a, 2)
    train(torch, theirs, b, 2)
    assert_close(ours, theirs)


def test_loaded_step_counts_are_not_shared_across_groups():
    def make():
        return lg.optim.NAdam([{"params": tensors[:1]}, {"params": tensors[1:]}], lr=0.1)

    tensors = parameters(lg)
    first = make()
    train(lg, tensors, first, 2)
    second = make()
    second.load_state_dict(first.state_dict())
    train(lg, tensors, second, 1)
    assert [second.state[tensor]["step"].item() for tensor in tensors] == [3.0, 3.0]


@pytest.mark.parametrize("name, settings",
                         [("SGD", {"momentum": 0.9, "weight_decay": 0.1}), ("Adam", {}),
                          ("Adagrad", {"initial_accumulator_value": 0.1}), ("RMSprop", {}),
                          ("Adadelta", {}), ("Adamax", {}), ("NAdam", {}), ("RAdam", {}),
                          ("ASGD", {}), ("Rprop", {})])
def test_complex_parameters_are_updated_as_two_real_ones(name, settings):
    results = []
    for library in (lg, torch):
        tensor = library.nn.Parameter(library.tensor([1 + 2j, -0.5j, 3.0],
                                                     dtype=library.complex128))
        optimizer = getattr(library.optim, name)([tensor], lr=0.1, **settings)
        for _ in range(4):
            optimizer.zero_grad()
            library.view_as_real(tensor * tensor).pow(2).sum().backward()
            optimizer.step()
        results.append((tensor, optimizer.state_dict()["state"].get(0, {})))
    numpy.testing.assert_allclose(results[0][0].detach().numpy(), results[1][0].detach().numpy(),
                                  rtol=1e-12)
    for key, value in results[1][1].items():
        numpy.testing.assert_allclose(results[0][1][key].numpy(), value.numpy(), rtol=1e-10)


@pytest.mark.parametrize("name, lr", [("Adam", 0.1), ("NAdam", 0.1), ("RAdam", 0.1),
                                      ("Adamax", 0.1), ("Adadelta", 30.0), ("ASGD", 0.1),
                                      ("Rprop", 0.1), ("Adafactor", 0.1)])
def test_bfloat16_is_computed_in_float32_and_rounded_once(name, lr):
    start = lg.tensor([1.0, -2.0, 0.3, 7.0])
    gradient = lg.tensor([0.5, 0.25, -1.0, 2.0])
    values = []
    for dtype in (lg.bfloat16, lg.float32):
        tensor = lg.nn.Parameter(start.to(lg.bfloat16).to(dtype))
        tensor.grad = gradient.to(dtype)
        getattr(lg.optim, name)([tensor], lr=lr).step()
        values.append(tensor.detach().to(lg.bfloat16).tolist())
    # Adafactor's smallest variance is the epsilon of the dtype, below these gradients' squares
    assert values[0] == values[1] and values[0] != start.to(lg.bfloat16).tolist()


@pytest.mark.parametrize("settings", [{}, {"nesterov": False, "weight_decay": 0.3,
                                           "adjust_lr_fn": "match_rms_adamw"}])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_muon_agrees_with_torch_to_bfloat16(settings, shape):
    start = numpy.random.default_rng(0).normal(size=shape).astype(numpy.float32)
    results = []
    for library in (lg, torch):
        tensor = library.nn.Parameter(library.tensor(start.copy()))
        optimizer = library.optim.Muon([tensor], lr=0.05, **settings)
        for _ in range(4):
            optimizer.zero_grad()
            (tensor * tensor * tensor).sum().backward()
            optimizer.step()
        results.append((tensor.detach().numpy(), optimizer.param_groups[0]))
    numpy.testing.assert_allclose(results[0][0], results[1][0], atol=0.01)
    assert numpy.abs(results[0][0] - start).max() > 0.05
    assert list(results[0][1]) == list(results[1][1])


def test_sparse_adam_leaves_rows_without_gradient_alone():
    results = []
    for library in (lg, torch):
        table = library.nn.Embedding(5, 2, sparse=True)
        with library.no_grad():
            table.weight.copy_(library.arange(10.0).reshape(5, 2))
        optimizer = library.optim.SparseAdam(table.parameters(), lr=0.1)
        for rows in ([0, 3], [3, 3], [1, 0], [3, 1]):
            optimizer.zero_grad()
            (table(library.tensor(rows)) ** 2).sum().backward()
            optimizer.step()
        results.append((table.weight.detach().numpy(), optimizer.state_dict()["state"][0]))
    numpy.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    assert results[0][1]["step"] == results[1][1]["step"] == 4
    for key in ("exp_avg", "exp_avg_sq"):
        numpy.testing.assert_allclose(results[0][1][key].numpy(), results[1][1][key].numpy(),
                                      rtol=1e-5)


@pytest.mark.parametrize("name", ["NAdam", "ASGD", "RAdam", "Adafactor", "Rprop"])
def test_updates_take_part_in_replays(name):
    def run(compiled):
        tensors = parameters(lg)
        optimizer = getattr(lg.optim, name)(tensors, lr=0.1)

        def step():
            optimizer.zero_grad()
            loss = loss_of(lg, tensors)
            loss.backward()
            optimizer.step()
            return loss

        run_step = lg.compile(step) if compiled else step
        for count in range(6):
            optimizer.param_groups[0]["lr"] = 0.1 / (count + 1)
            run_step()
        return tensors, optimizer.state[tensors[0]]

    (ours, state), (expected, expected_state) = run(True), run(False)
    assert_close(ours, expected, 1e-6)
    for key, value in expected_state.items():
        numpy.testing.assert_allclose(state[key].numpy(), value.numpy(), rtol=1e-5)


def test_bfloat16_parameters_are_updated_in_float32():
    value = lg.nn.Parameter(lg.ones(2, dtype=lg.bfloat16))
    value.grad = lg.ones(2, dtype=lg.bfloat16)
    lg.optim.SGD([value], lr=0.3).step()
    assert value.dtype is lg.bfloat16 and value.tolist() == [0.69921875] * 2  # 0.7, rounded once


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD"])
def test_parameters_without_gradients_keep_their_count(name):
    results = []
    for library in (lg, torch):
        tensors = parameters(library)
        optimizer = getattr(library.optim, name)(tensors, lr=0.1)
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


def test_hooks_of_all_optimizers_and_around_state_dicts():
    tensors = parameters(lg)
    optimizer = lg.optim.SGD(tensors, lr=0.1)
    seen = []
    handles = [optimizer_hooks.register_optimizer_step_pre_hook(lambda *given: seen.append("pre")),
               optimizer_hooks.register_optimizer_step_post_hook(
                   lambda *given: seen.append("post"))]
    train(lg, tensors, optimizer, 1)
    for handle in handles:
        handle.remove()
    train(lg, tensors, optimizer, 1)
    assert seen == ["pre", "post"]
    optimizer.register_state_dict_pre_hook(lambda owner: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda owner, state: {**state, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(
        lambda owner, state: seen.append(state.pop("extra")))
    optimizer.register_load_state_dict_post_hook(lambda owner: seen.append("loaded"))
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert seen[2:] == ["saving", 1, "loaded"] and saved["extra"] == 1
    optimizer.register_step_pre_hook(lambda owner, given, named: ((lambda: 7,), {}))
    assert optimizer.step() == 7


# ---- L-BFGS


def minimise(library, dtype="float64", steps=3, state=None, **settings):
    x = library.nn.Parameter(library.tensor(numpy.linspace(-1.2, 1.0, 5).astype(dtype)))
    y = library.nn.Parameter(library.tensor(numpy.linspace(1, 1.5, 3).astype(dtype).reshape(3, 1)))
    unused = library.nn.Parameter(library.tensor([1.0]).to(x.dtype))
    optimizer = library.optim.LBFGS([x, y, unused], **settings)
    if state is not None:
        optimizer.load_state_dict(state[0])
        with library.no_grad():
            x.copy_(library.tensor(state[1]))
            y.copy_(library.tensor(state[2]))
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum() + ((y - 2) ** 4).sum()
        loss.backward()
        return loss

    for _ in range(steps):
        losses.append(optimizer.step(closure).item())
    return losses, optimizer, x.detach().numpy(), y.detach().numpy()


@pytest.mark.parametrize("settings", [{"lr": 0.01}, {"line_search_fn": "strong_wolfe"},
                                      {"line_search_fn": "strong_wolfe", "history_size": 5},
                                      {"line_search_fn": "strong_wolfe", "lr": 0.5,
                                       "max_iter": 7, "max_eval": 9}])
def test_lbfgs_agrees_with_torch(settings):
    ours, theirs = minimise(lg, **settings), minimise(torch, **settings)
    for a, b in zip((ours[0], *ours[2:]), (theirs[0], *theirs[2:])):
        numpy.testing.assert_allclose(a, b, rtol=1e-5)
    state, expected = (result[1].state_dict()["state"][0] for result in (ours, theirs))
    assert set(expected) - {"al"} == set(state)
    assert (state["n_iter"], state["func_evals"]) == (expected["n_iter"], expected["func_evals"])
    for name in ("old_dirs", "old_stps", "ro"):
        for a, b in zip(state[name], expected[name], strict=True):
            numpy.testing.assert_allclose(numpy.asarray(a), numpy.asarray(b), rtol=1e-3, atol=1e-9)


def test_lbfgs_goes_on_from_torchs_state(tmp_path):
    settings = {"line_search_fn": "strong_wolfe", "max_iter": 4}
    *_, optimizer, x, y = minimise(torch, steps=2, **settings)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = minimise(lg, steps=2, state=(lg.load(tmp_path / "state.pt"), x, y), **settings)
    whole = minimise(torch, steps=4, **settings)
    numpy.testing.assert_allclose(resumed[0], whole[0][2:], rtol=1e-7)


def test_lbfgs_compiles_nothing_once_its_history_is_full():
    minimise(lg, "float32", history_size=4, line_search_fn="strong_wolfe")
    compiles = store.counters.compiles
    minimise(lg, "float32", history_size=4, line_search_fn="strong_wolfe", lr=0.9, steps=4)
    assert store.counters.compiles == compiles


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
                          ("RMSprop", {}), ("Adagrad", {"lr_decay": 0.1}), ("NAdam", {}),
                          ("RAdam", {}), ("ASGD", {}), ("Rprop", {}), ("Adafactor", {}),
                          ("Adamax", {}), ("Adadelta", {})])
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
                           ValueError),
                          (lambda: lg.optim.Adam(parameters(lg), foreach=True, fused=True),
                           RuntimeError),
                          (lambda: lg.optim.NAdam(parameters(lg), differentiable=True),
                           NotImplementedError),
                          (lambda: lg.optim.SGD(parameters(lg), lr=lg.ones(2)), ValueError),
                          (lambda: lg.optim.Adadelta(parameters(lg), rho=2.0), ValueError),
                          (lambda: lg.optim.Rprop(parameters(lg), etas=(1.5, 2.0)), ValueError),
                          (lambda: lg.optim.Adafactor(parameters(lg), beta2_decay=1.0), ValueError),
                          (lambda: lg.optim.Muon(parameters(lg)), ValueError),
                          (lambda: lg.optim.Muon(parameters(lg)[:1], adjust_lr_fn="x"), ValueError),
                          (lambda: lg.optim.SparseAdam(parameters(lg), lr=0.0), ValueError),
                          (lambda: lg.optim.LBFGS([{"params": [p]} for p in parameters(lg)]),
                           ValueError),
                          (lambda: lg.optim.LBFGS(parameters(lg), line_search_fn="armijo"),
                           ValueError),
                          (lambda: lg.optim.LBFGS(parameters(lg)).step(), TypeError)])
def test_mistakes(make, error):
    with pytest.raises(error):
        make()


def test_loading_a_state_dict_that_does_not_fit():
    optimizer = lg.optim.SGD(parameters(lg))
    with pytest.raises(ValueError, match="number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="size"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0]}]})
