"""Native calls: what native code replays and flushes is what Python does, and no more."""

from __future__ import annotations

import gc
import sys
import threading
from functools import partial
from pathlib import Path

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad._core import capture, cell, context, plans
from lazygrad.explain.watch import Watch
from lazygrad.nn import functional
from lazygrad_compiler.ir.node import topological
from lazygrad_runtime import native, native_memory, program
from lazygrad_runtime.memory import Allocator, Buffer, FreeList, memory_stats
from lazygrad_runtime.pool import get_pool
from tests.lazygrad import processes
from tests.lazygrad.compiling import numbers, same

pytestmark = pytest.mark.skipif(not native.is_supported(), reason="native calls are for CPython")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Native code takes over from the first replay, flush or call of an operation on."""
    monkeypatch.setattr(capture, "MANY_REPLAYS", 1)
    monkeypatch.setattr(cell, "_SAMPLED", 1)
    monkeypatch.setattr(context, "SAMPLED", 1)


@pytest.fixture
def in_python(monkeypatch):
    """Grows by one with each call of a compiled function that takes Python."""
    calls = []
    slowly = capture.CompiledFunction.call_slowly

    def counted(self, *arguments, **keywords):
        calls.append(None)
        return slowly(self, *arguments, **keywords)

    monkeypatch.setattr(capture.CompiledFunction, "call_slowly", counted)
    return calls


def compiled(function, *arguments):
    """The function compiled, recorded and planned."""
    made = lg.compile(function)
    for _ in range(3):
        made(*arguments)
    return made


# ---- replays


def _random_function(draw):
    """A function of two tensors and a number, of random operations."""
    unary = [lg.tanh, lg.exp, lg.sigmoid, lambda x: x.sum(-1, keepdim=True), lambda x: -x,
             lambda x: x * 2.5, lambda x: lg.softmax(x, -1), lambda x: x.sum()]
    binary = [lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y.mean(),
              lambda x, y: lg.maximum(x, y)]
    plan = [(unary[draw.integers(len(unary))], binary[draw.integers(len(binary))])
            for _ in range(draw.integers(1, 4))]
    several = draw.integers(3)

    def function(x, y, number):
        value = x
        for first, second in plan:
            value = second(first(value), y) * number
        return value if several == 0 else (value, y + 1) if several == 1 else {"a": value, "b": x}

    return function


@pytest.mark.parametrize("seed", range(12))
def test_native_replays_equal_python_s(seed, in_python):
    draw = numpy.random.default_rng(seed)
    shape = [(), (1,), (0, 3), (7, 5), (1, 64), (13,)][draw.integers(6)]
    dtype = [numpy.float32, numpy.float64][draw.integers(2)]

    def inputs():
        values = [draw.standard_normal(shape) for _ in range(2)]
        values[0][values[0] > 1] = numpy.nan
        return [lg.from_numpy(numpy.asarray(value, dtype)) for value in values]

    function = _random_function(draw)
    number = int(draw.integers(1, 4))
    made = compiled(function, *inputs(), number)
    assert len(made.plans) == 1
    for _ in range(4):
        x, y = inputs()
        before = len(in_python)
        found = made(x, y, number)
        assert len(in_python) == before
        expected = made.call_slowly(x, y, number)
        plain = function(x, y, number)
        for left, right, eager in zip(*map(_parts, (found, expected, plain)), strict=True):
            assert _filled(left) == _filled(right)
            assert left.numpy().tobytes() == right.numpy().tobytes()
            same(left, eager, 1e-6)


def _parts(result):
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple) else [result]


def _filled(tensor):
    """Which slots hold something, of a tensor that is computed and all that it consists of."""
    node = tensor._cell.node
    return [{name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ())
             if hasattr(thing, name)} for thing in (tensor, tensor._cell, node, node.payload)]


def test_results_are_not_overwritten_by_the_next_call():
    made = compiled(lambda x: x * 2, numbers(5))
    kept = [made(numbers(5) + shift) for shift in range(20)]
    for shift, result in enumerate(kept):
        same(result, (numbers(5) + shift) * 2)


def test_what_is_not_computed_yet_is_computed_first(in_python):
    made = compiled(lambda x, y: x + y, numbers(5), numbers(5) + 1)
    same(made(numbers(5) * 3, lg.ones(5)), numbers(5) * 3 + 1)
    same(made(numbers(10)[::2], numbers(5)), numbers(10)[::2] + numbers(5))
    same(made(numbers(5).to(lg.float64), lg.ones(5)), numbers(5).to(lg.float64) + 1)
    same(made(numbers(3), lg.ones(1)), numbers(3) + 1)
    assert len(in_python) >= 6


def test_the_same_tensor_twice():
    x, y = numbers(4), numbers(4) + 1
    made = compiled(lambda x, y: x.add_(1) + y, x.clone(), y)
    value = x.clone()
    same(made(value, value), (x + 1) * 2)
    pure = compiled(lambda x, y: x - y, x, y)
    same(pure(x, x), lg.zeros(4))
    same(pure(x, y), x - y)
    same(pure(x, x.view(4)), lg.zeros(4))
    known = compiled(lambda x, y: x + 1 if x is y else y - 1, x, y)
    same(known(x, x), x + 1)
    same(known(x, y), y - 1)


def test_keywords_and_other_arguments():
    made = compiled(lambda x, number=2, name="a": x * number + len(name), numbers(4), 2, "a")
    for number, name in ((2, "a"), (3, "a"), (2, "bb"), (2.0, "a"), (True, "a"), (2, "a")):
        same(made(numbers(4), number, name), numbers(4) * number + len(name))
        same(made(numbers(4), number=number, name=name), numbers(4) * number + len(name))
    with pytest.raises(TypeError):
        made()
    with pytest.raises(TypeError):
        made(numbers(4), 2, "a", 5)


SCALE = 2.0
WEIGHT = None


def test_guards_on_what_a_function_names(in_python, monkeypatch):
    monkeypatch.setitem(globals(), "WEIGHT", numbers(4))
    offset = 1.0

    def function(x):
        return x * SCALE + offset + WEIGHT

    made = compiled(function, numbers(4))
    before = len(in_python)
    same(made(numbers(4)), numbers(4) * 2 + 1 + WEIGHT)
    assert len(in_python) == before
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    same(made(numbers(4)), numbers(4) * 5 + 1 + WEIGHT)
    offset = 7.0
    same(made(numbers(4)), numbers(4) * 5 + 7 + WEIGHT)
    WEIGHT.add_(1)
    same(made(numbers(4)), numbers(4) * 5 + 7 + WEIGHT)
    monkeypatch.setitem(globals(), "WEIGHT", lg.ones(4))
    for _ in range(3):
        same(made(numbers(4)), numbers(4) * 5 + 8)
    WEIGHT.data = lg.ones(4) * 2
    same(made(numbers(4)), numbers(4) * 5 + 9)


def test_guards_on_modules(in_python):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    made = lg.compile(model)
    with lg.no_grad():
        for _ in range(3):
            made(numbers(3, 4))
        before = len(in_python)
        same(made(numbers(3, 4)), model(numbers(3, 4)), 1e-6)
        assert len(in_python) == before
        for change in (
            lambda: model[0].weight.mul_(2), lambda: setattr(model[2], "bias", None),
            lambda: setattr(model[0], "bias", nn.Parameter(lg.ones(8))),
            lambda: model.append(nn.Tanh()), lambda: model[0].weight.copy_(lg.ones(8, 4)),
            lambda: setattr(model[0].weight, "data", lg.ones(8, 4) * 3),
            lambda: model[1].register_forward_hook(lambda module, given, result: result + 1),
        ):
            change()
            for _ in range(3):
                same(made(numbers(3, 4)), model(numbers(3, 4)), 1e-6)


def test_modes_are_looked_at():
    weight = nn.Parameter(numbers(4))
    made = lg.compile(lambda x: (x * 2 + weight.detach()).float())
    with lg.no_grad():
        for _ in range(3):
            made(numbers(4))
    assert not made(numbers(4)).requires_grad
    traced = numbers(4).requires_grad_()
    assert made(traced).requires_grad
    with lg.no_grad():
        assert not made(traced).requires_grad
    same(lg.func.vmap(made)(numbers(3, 4)), numbers(3, 4) * 2 + weight.detach())
    asking = compiled(lambda x: x * (2 if lg.is_grad_enabled() else 3), numbers(4))
    with lg.no_grad():
        same(asking(numbers(4)), numbers(4) * 3)
    same(asking(numbers(4)), numbers(4) * 2)
    products = compiled(lambda x, y: x @ y, numbers(4, 4), numbers(4, 4) + 1)
    with lg.autocast("cpu", dtype=lg.bfloat16):
        assert products(numbers(4, 4), numbers(4, 4) + 1).dtype is lg.bfloat16
    assert products(numbers(4, 4), numbers(4, 4) + 1).dtype is lg.float32
    made = compiled(lambda x: x + lg.arange(4) / 2, numbers(4))
    lg.set_default_dtype(lg.float64)
    try:
        assert made(numbers(4)).dtype is lg.float64
    finally:
        lg.set_default_dtype(lg.float32)


def test_subclasses_take_python(in_python):
    made = compiled(lambda x: x * 2, numbers(4))
    before = len(in_python)
    same(made(nn.Parameter(numbers(4), requires_grad=False)), numbers(4) * 2)
    assert len(in_python) == before + 1


def test_an_index_out_of_range_is_an_error_with_its_line():
    table = numbers(5, 2)
    made = compiled(lambda index: functional.embedding(index, table), lg.tensor([1, 2]))
    assert made.plans
    for _ in range(2):
        with pytest.raises(IndexError, match=r"\[embedding\] index 9 .*test_native_calls.py"):
            made(lg.tensor([1, 9]))
        same(made(lg.tensor([1, 2])), table[1:3])


def test_recordings_that_go_take_their_plans_along(monkeypatch):
    monkeypatch.setattr(capture, "MOST_ENTRIES", 3)
    made = lg.compile(lambda x: x + 1)
    for size in range(1, 9):
        for _ in range(3):
            same(made(numbers(size)), numbers(size) + 1)
    assert made.recordings == 3 and len(made.plans) == 3


def test_who_watches_programs_sees_all_of_them(monkeypatch):
    made = compiled(lambda x: x * 3, numbers(4))
    seen = []
    monkeypatch.setattr(program, "run_callbacks", program.run_callbacks)
    program.run_callbacks.append(seen.append)
    try:
        for _ in range(3):
            made(numbers(4))
            (numbers(4) + 1).numpy()
    finally:
        program.run_callbacks.remove(seen.append)
    assert len(seen) == 6


def test_tools_that_watch_see_all_runs():
    with Watch() as watch:
        made = compiled(lambda x: x * 3, numbers(4))  # three runs
        for _ in range(3):
            made(numbers(4))
            lg.relu(numbers(4)).numpy()
    assert sum(seen.runs for seen in watch.programs) == 9


# ---- one operation at a time


OPERATIONS = {
    "x @ y": lambda x, y: x @ y, "x @ x": lambda x, y: x @ x, "x + x": lambda x, y: x + x,
    "x - y": lambda x, y: x - y, "y - x": lambda x, y: y - x, "x * 2": lambda x, y: x * 2.0,
    "relu": lambda x, y: lg.relu(x), "softmax": lambda x, y: lg.softmax(x, 0),
    "exp": lambda x, y: x.exp(), "sum": lambda x, y: x.sum(1), "max": lambda x, y: x.max(1),
    "where": lambda x, y: lg.where(x > 0, x, y), "view": lambda x, y: x.T,
    "gather": lambda x, y: x.gather(0, (y * 0).long()), "clamp": lambda x, y: x.clamp(-1, 1),
    "sort": lambda x, y: x.sort()[0],
    "solve": lambda x, y: lg.linalg.solve(x + 9 * lg.eye(6, dtype=x.dtype), y),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_flushes_of_one_operation_equal_python_s(name, monkeypatch):
    function = OPERATIONS[name]
    draw = numpy.random.default_rng(0)
    for dtype in (numpy.float32, numpy.float64):
        for _ in range(4):
            x, y = (lg.from_numpy(draw.standard_normal((6, 6)).astype(dtype)) for _ in range(2))
            first = function(x, y)
            found = [part.clone().numpy().tobytes() for part in _parts(first)]
            with monkeypatch.context() as patch:
                patch.setattr(cell, "flush_natively", None)
                expected = [part.numpy().tobytes() for part in _parts(function(x, y))]
            again = function(x, y)
            lg.synchronize()
            assert found == expected == [part.numpy().tobytes() for part in _parts(again)]


def test_a_flush_of_one_operation_is_native(monkeypatch):
    x, y = numbers(6, 6), numbers(6, 6) + 1
    for _ in range(3):
        (x @ y).numpy()

    def never(*_):
        raise AssertionError("this flush was to be native")

    monkeypatch.setattr(program, "execute", never)
    result = x @ y
    lg.synchronize()
    expected = x.numpy() @ y.numpy()
    assert (result.numpy() == expected).all()
    again = x @ y
    assert (again.numpy() == expected).all()
    assert not cell._pending


def test_pending_work_beside_it_is_computed_as_well():
    x, y = numbers(6, 6), numbers(6, 6) + 1
    for _ in range(3):
        (x @ y).numpy()
    for look in (lambda tensor: tensor.numpy(), lambda tensor: lg.synchronize()):
        other = x.exp()
        product = x @ y
        look(product)
        assert other._cell.node.payload is not None and product._cell.node.payload is not None
        del other, product
        for _ in range(3):
            look(x.exp())
    written = x.clone()
    written.numpy()
    written.mul_(2)
    (x @ y).numpy()
    same(written, x * 2)


def test_history_is_kept():
    x, w = numbers(6, 6), (numbers(6, 6) + 1).requires_grad_()
    for _ in range(4):
        w.grad = None
        y = x @ w
        lg.synchronize()
        y.sum().backward()
        same(w.grad, x.T @ lg.ones(6, 6), 1e-6)


# ---- recording


class Calls:
    """Numbers the calls of operations that take Python."""

    count = 0

    def __next__(self):
        self.count += 1
        return self.count


@pytest.fixture
def operations(monkeypatch):
    """How many operations were recorded in Python: its `count`."""
    assert plans.native_functions() is not None
    monkeypatch.setattr(context, "calls", Calls())
    return context.calls


def _described(tensor):
    """What is in the slots of a tensor, its cell, its node and its call: values, and for what is an
    object of its own, its type.  (Read where it lies: asking a node for its inputs unfolds it.)
    """
    node = tensor._cell.node
    parts = []
    for thing in (tensor, tensor._cell, node, node.call):
        parts.append({})
        for kind in type(thing).__mro__:
            for name in vars(kind).get("__slots__", ()):
                if name in ("__weakref__", "__dict__"):
                    continue
                try:
                    content = vars(kind)[name].__get__(thing)
                except AttributeError:
                    content = "nothing"
                own = name in ("_cell", "node", "call", "serial")
                parts[-1][name] = type(content) if own else (type(content), content)
    return parts


RECORDED = {
    "x @ y": lambda x, y: x @ y, "x + y": lambda x, y: x + y, "x - 2": lambda x, y: x - 2,
    "2 - x": lambda x, y: 2 - x, "exp": lambda x, y: x.exp(), "neg": lambda x, y: -x,
    "tanh": lambda x, y: lg.tanh(x), "relu": lambda x, y: lg.relu(x), "x < y": lambda x, y: x < y,
    "softmax": lambda x, y: lg.softmax(x, 1), "sum": lambda x, y: x.sum(),
    "sums": lambda x, y: x.sum(0), "where": lambda x, y: lg.where(x > 0, x, y),
    "clamp": lambda x, y: x.clamp(-1.0, 1.0), "pow": lambda x, y: x ** 2,
    "linear": lambda x, y: functional.linear(x, y),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_operations_recorded_natively_are_those_of_python(
        name, gradients, operations, monkeypatch):
    function = RECORDED[name]
    x, y = numbers(4, 4), numbers(4, 4) + 1
    if gradients:
        x, y = nn.Parameter(x), (y * 1).requires_grad_()
    lg.synchronize()

    native = partial(function, x, y)

    def python():
        with monkeypatch.context() as patch:
            patch.setattr(context, "record_natively", lambda *_: None)
            return function(x, y)

    for mode in (lg.enable_grad, lg.no_grad):
        with mode():
            for _ in range(3):
                function(x, y)
            before = operations.count
            made = native()
            assert operations.count == before
            found = python()
            assert made._cell.node is found._cell.node  # interned, under the same key
            described = _described(made)
            requires, value = made.requires_grad, made.detach().numpy().tobytes()
            del made, found
            again = python()
            assert described == _described(again)
            assert requires == again.requires_grad
            assert value == again.detach().numpy().tobytes()
            del again


def test_each_node_has_the_line_that_recorded_it(operations):
    x = numbers(5)
    for _ in range(3):
        x.exp()

    def helper():
        return lg.exp(x + 1)

    lines = []
    for number in range(6):
        before = operations.count
        made = (x + 1).exp() if number % 2 else helper()
        lines.append(made._cell.node.location[0])
        del made
    assert operations.count == before
    first = helper.__code__.co_firstlineno + 1
    assert [line for _, line in lines] == [first, first + 5] * 3
    assert {file for file, _ in lines} == {__file__}


def test_a_recipe_is_for_any_two_tensors(operations):
    x, y = numbers(7), numbers(7) + 1
    for _ in range(3):
        same(x + x, x * 2)
    for _ in range(3):
        same(x + y, x * 2 + 1)
        same(y + x, x * 2 + 1)
    same(x + x, x * 2)
    same(x - x, lg.zeros(7))
    ones = lg.ones(7)  # a constant, which operations fold
    for _ in range(3):
        same(ones * x, x)
    before = operations.count
    assert (x + y).shape == (7,) and operations.count == before


def test_modes_count_for_what_is_recorded():
    x, w = numbers(4, 4), (numbers(4, 4) + 1).requires_grad_()
    for _ in range(4):
        assert (x @ w).requires_grad and not (x @ w.detach()).requires_grad
        with lg.no_grad():
            assert not (x @ w).requires_grad
        with lg.autocast("cpu", dtype=lg.bfloat16):
            assert (x @ w).dtype is lg.bfloat16
        same(lg.func.vmap(lambda row: row @ w.detach())(x), x @ w.detach(), 1e-6)
        same(lg.func.grad(lambda value: (value * 3).exp().sum())(x), (x * 3).exp() * 3, 1e-5)
        w.grad = None
        (x @ w).sum().backward()
        same(w.grad, x.T @ lg.ones(4, 4), 1e-6)


def test_attention_written_out_is_still_found():
    q, k, v = (lg.from_numpy(numpy.random.default_rng(seed).standard_normal(
        (2, 32, 16)).astype(numpy.float32)) for seed in range(3))

    def attention():
        return lg.softmax(q @ k.mT / 4, -1) @ v

    def ops():
        return {node.op for node in topological([attention()._cell.node])}

    expected = ops()
    for _ in range(4):
        assert (q @ v.mT).shape == (2, 32, 32)
        assert ops() == expected


def test_pending_work_recorded_natively_is_bounded():
    x = numbers(3)
    for _ in range(2 * cell.MOST_PENDING_NODES):
        x = x + 1.0
        assert len(cell._pending) <= cell.MOST_PENDING_NODES + 256
    same(x, numbers(3) + 2.0 * cell.MOST_PENDING_NODES)


# ---- memory


def test_the_allocator_counts_the_same_natively():
    assert plans.native_functions() is not None
    native_twins = (FreeList.take, Buffer.__del__)

    def history(twins):
        FreeList.take, Buffer.__del__ = twins
        try:
            allocator = Allocator(limit=1 << 22, cache_limit=1 << 17)
            draw, held, seen = numpy.random.default_rng(0), [], []
            for _ in range(2000):
                if held and draw.random() < 0.5:
                    held.pop(int(draw.integers(len(held))))
                else:
                    try:
                        held.append(allocator.allocate(int(draw.integers(1 << 16))))
                    except MemoryError:
                        held.clear()
                if draw.random() < 0.01:
                    allocator.reset_peak()
                seen.append(tuple(allocator.stats().values()))
            held.clear()
            assert allocator.stats()["allocated"] == 0
            return seen
        finally:
            FreeList.take, Buffer.__del__ = native_twins

    assert history(native_twins) == history(native_memory.PYTHON_TWINS)


def test_nothing_is_leaked():
    x, y = numbers(6, 6), numbers(6, 6) + 1
    one = compiled(lambda x, y: lg.tanh(x @ y), x, y)
    two = compiled(lambda x, y: (x + y, x), x, y)
    wrong = numbers(3, 3)
    counted = (None, True, False, (), lg.float32, x._cell.node, y._cell, lg.Tensor, "input", Buffer)

    def calls(count):
        for _ in range(count):
            one(x, y)
            two(x, y)
            one(wrong, wrong)  # does not fit, and takes Python
            (x @ y).numpy()
            x.exp().numpy()

    def state():
        gc.collect()
        return (len(gc.get_objects()), memory_stats()["allocated"],
                *map(sys.getrefcount, counted))

    calls(300)
    before = state()
    calls(10_000)
    after = state()
    assert max(abs(now - then) for now, then in zip(after, before, strict=True)) < 100


# ---- threads and processes


def _in_threads(*functions):
    """Runs functions at the same time, in quick alternation; raises what one of them raises."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("lock", [lambda: get_pool().lock, lambda: cell._lock])
def test_who_computes_elsewhere_is_waited_for(lock):
    x, y = numbers(6, 6), numbers(6, 6) + 1
    made = compiled(lambda x, y: lg.tanh(x @ y), x, y)
    for _ in range(3):
        (x @ y).numpy()
    results = []
    threads = [threading.Thread(target=lambda: results.append(made(x, y).numpy())),
               threading.Thread(target=lambda: results.append((x @ y).numpy()))]
    with lock():
        for thread in threads:
            thread.start()
            thread.join(0.05)
        assert all(thread.is_alive() for thread in threads) and not results
    for thread in threads:
        thread.join()
    assert len(results) == 2


def test_threads_call_at_the_same_time():
    x = [numbers(8, 8) + shift for shift in range(4)]
    expected = [(lg.tanh(each @ each.T) * 2).numpy() for each in x]
    transposed = [each.T.contiguous() for each in x]
    lg.synchronize()
    made = compiled(lambda x, y: lg.tanh(x @ y) * 2, x[0], transposed[0])

    def work(number):
        for _ in range(300):
            found = made(x[number], transposed[number]).numpy()
            product = (x[number] @ transposed[number]).numpy()
            assert abs(found - expected[number]).max() <= 1e-6
            assert numpy.isfinite(product).all()

    _in_threads(*[partial(work, number) for number in range(4)])


def test_a_step_in_another_thread_is_seen_whole():
    """A replayed step writes parameters over their old values; who reads them sees all new ones or
    all old ones.
    """
    parameters = [nn.Parameter(lg.zeros(64)) for _ in range(4)]
    optimizer = optim.SGD(parameters, lr=1.0)

    @lg.compile
    def step():
        optimizer.zero_grad()
        sum(parameter.sum() for parameter in parameters).backward()
        optimizer.step()

    step()
    read = lg.compile(lambda: lg.stack([p.detach() for p in parameters]))
    with lg.no_grad():
        for _ in range(3):
            read()
    assert read.plans
    done = threading.Event()

    def train():
        for _ in range(300):
            step()
        done.set()

    def look():
        with lg.no_grad():
            while not done.is_set():
                value = read().numpy()
                assert (value == value[0, 0]).all()

    _in_threads(train, look)


FORKED = """
import os
import lazygrad as lg
from lazygrad._core import capture, cell
capture.MANY_REPLAYS = cell._SAMPLED = 1
x, y = lg.rand(64, 64), lg.rand(64, 64)
made = lg.compile(lambda x, y: lg.tanh(x @ y))
for _ in range(3):
    expected = made(x, y).numpy()
    (x @ y).numpy()
child = os.fork()
for _ in range(3):
    assert (made(x, y).numpy() == expected).all()
    (x @ y).numpy()
if not child:
    from lazygrad_runtime.pool import get_pool
    assert get_pool()._running
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
print("both", len(made.plans))
"""


def test_a_forked_child_goes_on(tmp_path: Path):
    (tmp_path / "forked.py").write_text(FORKED)
    done = processes.python("forked.py", folder=tmp_path)
    assert done.stdout == "both 1\n", done.stderr


# ---- what native code knows of objects


def test_layouts_are_found_out():
    class Known:
        __slots__ = ("first", "second", "__weakref__")

    class More(Known):
        __slots__ = ("third",)

    places = native.layout(More)
    assert set(places) == {"first", "second", "third"} and len(set(places.values())) == 3

    class Hidden:
        __slots__ = ("first",)

    class Shadowed(Hidden):
        first = property(lambda self: 1, lambda self, value: None)

    class Wrong:
        pass

    Wrong.__slots__ = ("second",)  # after the fact: there is no such slot
    Wrong.second = Shadowed.first
    with pytest.raises(native.LayoutUnknown):
        native.layout(Wrong)


def test_without_native_code_everything_takes_python(monkeypatch):
    monkeypatch.setattr(plans, "is_supported", lambda: False)
    monkeypatch.setattr(plans, "native_functions", lambda: None)
    made = compiled(lambda x: x + 1, numbers(3))
    assert not made.plans
    same(made(numbers(3)), numbers(3) + 1)
