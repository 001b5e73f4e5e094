"""Jobs side by side: order, failures, interrupts, and that object code does not depend on them."""

from __future__ import annotations

import sys
import threading
from functools import partial

import pytest

from lazygrad_compiler import parallel
from lazygrad_compiler.parallel import Jobs
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
from tests.compiler.every_kind import convolution
from tests.compiler.random_graphs import random_graph


def done(jobs, helpers):
    with Jobs(helpers) as at_work:
        for name, job in jobs.items():
            at_work.add(name, job)
        return at_work.finish()


@pytest.mark.parametrize("helpers", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_jobs(helpers):
    results = done({str(number): partial(pow, number, 2) for number in range(20)}, helpers)
    assert list(results.items()) == [(str(number), number**2) for number in range(20)]
    assert done({}, helpers) == {}


def test_a_helper_begins_before_the_caller_is_ready():
    begun = threading.Event()
    with Jobs(1) as jobs:
        jobs.add("a", begun.set)
        assert begun.wait(60)
        jobs.add("b", threading.current_thread)
        results = jobs.finish()
    assert results["a"] is None and list(results) == ["a", "b"]


def test_two_jobs_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=60)
    assert set(done({"a": meeting.wait, "b": meeting.wait}, 1).values()) == {0, 1}


@pytest.mark.parametrize("helpers", [0, 2])
def test_a_failure_is_raised_and_drops_the_rest(helpers):
    before, interval, ran = threading.active_count(), sys.getswitchinterval(), []

    def fail():
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        done({"bad": fail}, helpers)
    with pytest.raises(ValueError, match="broken"):
        done({"bad": fail, **{str(n): partial(ran.append, n) for n in range(9)}}, 0)
    assert ran == [] and threading.active_count() == before
    assert sys.getswitchinterval() == interval


def test_an_interrupt_waits_for_the_helpers_and_passes_on():
    caller, interrupted, ran = threading.current_thread(), threading.Event(), []

    def job(number):
        if threading.current_thread() is caller:
            interrupted.set()
            raise KeyboardInterrupt
        assert interrupted.wait(60)
        ran.append(number)

    before, interval = threading.active_count(), sys.getswitchinterval()
    with pytest.raises(KeyboardInterrupt):
        done({str(number): partial(job, number) for number in range(100)}, 1)
    assert threading.active_count() == before and sys.getswitchinterval() == interval
    assert len(ran) < 99


def test_an_interrupt_while_a_helper_starts(monkeypatch):
    start, before = threading.Thread.start, threading.active_count()

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Jobs(2) as jobs:
        try:
            jobs.add("a", int)
        finally:
            monkeypatch.setattr(threading.Thread, "start", start)
            jobs.add("b", int)
    assert threading.active_count() == before


def test_helpers_end_where_the_caller_was_interrupted_before_it_told_them(monkeypatch):
    monkeypatch.setattr(parallel, "LOOK_SECONDS", 0.01)
    before, interval = threading.enumerate(), sys.getswitchinterval()
    jobs = Jobs(2)
    jobs.add("a", int)
    jobs.add("b", int)
    helpers = [each for each in threading.enumerate() if each not in before]
    del jobs
    for each in helpers:
        each.join(60)
        assert not each.is_alive()
    sys.setswitchinterval(interval)


def test_a_job_that_a_helper_has_taken_is_done(monkeypatch):
    """Even where it has not begun when the caller comes to the end."""
    begin, taken, at_end = Jobs._do, threading.Event(), threading.Event()

    def slowly(jobs, job):
        if threading.current_thread().name.startswith("lazygrad-helper"):
            taken.set()
            assert at_end.wait(60)
        begin(jobs, job)

    monkeypatch.setattr(Jobs, "_do", slowly)
    with Jobs(1) as jobs:
        jobs.add("a", partial(pow, 2, 3))
        assert taken.wait(60)
        threading.Timer(0.05, at_end.set).start()
        assert jobs.finish() == {"a": 8}


def test_leaving_early_drops_what_has_not_begun():
    ran, go_on = [], threading.Event()
    with pytest.raises(RuntimeError, match="lowering"), Jobs(1) as jobs:
        jobs.add("first", partial(go_on.wait, 60))
        for number in range(50):
            jobs.add(str(number), partial(ran.append, number))
        threading.Timer(0.05, go_on.set).start()
        raise RuntimeError("lowering")
    assert ran == []


def test_a_failure_while_helpers_are_told_to_end():
    """The job that fails drops those that wait, and not the words that end the helpers."""
    jobs, begun = Jobs(2), threading.Event()

    def fail_at_the_end():
        begun.set()
        while not jobs._waiting.qsize():  # until the caller tells the helpers to end
            pass
        raise OSError("no space")

    jobs.add("first", fail_at_the_end)
    assert begun.wait(60)
    caught = []

    def finish():
        try:
            jobs.finish()
        except OSError as error:
            caught.append(str(error))

    waiting = threading.Thread(target=finish, daemon=True)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive() and caught == ["no space"]


def test_without_threads_the_caller_does_all(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert done({"a": partial(pow, 2, 2), "b": partial(pow, 3, 2)}, 2) == {"a": 4, "b": 9}


def test_object_code_does_not_depend_on_the_number_of_threads():
    for graph in (convolution(3, 8, 1), random_graph(1)[0], random_graph(5)[0]):
        alone = compile_graph(graph, host()).objects
        for _ in range(2):
            several = compile_graph(graph, host(), threads=4).objects
            assert several == alone and list(several) == list(alone)


def test_no_python_runs_while_llvmlite_takes_its_lock():
    """There an interrupt would leave it held, and whoever compiles next would wait for ever."""
    import llvmlite.binding as llvm
    seen = []
    outer = llvm.ffi.lib._lock
    sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code.co_name)))
    try:
        with outer:
            held = outer._lock._is_owned()
    finally:
        sys.setprofile(None)
    assert held and not outer._lock._is_owned()
    assert not [name for event, name in seen if event == "call"]
