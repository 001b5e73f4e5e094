"""`lazygrad.compile`: what cannot be replayed, errors, nesting, threads."""

import threading

import numpy
import pytest

import lazygrad as lg
from lazygrad import optim
from lazygrad._core import capture
from tests.lazygrad.compiling import Trainer, check_equal, counted, numbers, same, small_model

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
    assert "test_compile_limits.py" in compiled.reasons[0]


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
        with pytest.raises(RuntimeError, match=r"matmul.*test_compile_limits.py"):
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
