"""Native calls: memory, threads and processes, and what native code knows of objects."""

from __future__ import annotations

import gc
import sys
import threading
import types
from functools import partial
from pathlib import Path

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad._core import cell, plans
from lazygrad_runtime import native, native_memory
from lazygrad_runtime.memory import Allocator, Buffer, FreeList, memory_stats
from lazygrad_runtime.pool import get_pool
from tests.lazygrad import processes
from tests.lazygrad.compiling import numbers, same
from tests.lazygrad.native_calls import NATIVE, compiled

pytestmark = NATIVE


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


def _with_the_pool_locked(action):
    with get_pool().lock:
        action()


@pytest.mark.parametrize("computing", [_with_the_pool_locked, cell.alone])
def test_who_computes_elsewhere_is_waited_for(computing):
    x, y = numbers(6, 6), numbers(6, 6) + 1
    made = compiled(lambda x, y: lg.tanh(x @ y), x, y)
    for _ in range(3):
        (x @ y).numpy()
    results = []
    threads = [threading.Thread(target=lambda: results.append(made(x, y).numpy())),
               threading.Thread(target=lambda: results.append((x @ y).numpy()))]

    def start():
        for thread in threads:
            thread.start()
            thread.join(0.05)
        assert all(thread.is_alive() for thread in threads) and not results

    computing(start)
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


def test_objects_of_unknown_layout_leave_calls_in_python_with_a_warning(monkeypatch):
    def unknown(kind):
        raise native.LayoutUnknown(f"slot of {kind.__name__}")

    monkeypatch.setattr(plans, "layout", unknown)
    with pytest.warns(RuntimeWarning, match="calls stay in Python: slot of"):
        assert plans.native_functions.__wrapped__() is None


def test_another_python_than_cpython_has_no_native_code(monkeypatch):
    other = types.SimpleNamespace(name="another")
    monkeypatch.setattr(native.sys, "implementation", other)
    assert not native.is_supported()
    assert plans.native_functions.__wrapped__() is None
