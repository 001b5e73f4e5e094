"""Library calls at run time: failures leave everything usable, the disk cache knows them, threads
and forks and Ctrl-C meet them.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy
import pytest

import lazygrad as lg
from lazygrad._core import cell
from lazygrad_compiler.ir import library
from lazygrad_compiler.llvm import entry
from lazygrad_runtime import library_calls, program, store
from lazygrad_runtime.library_calls import LinAlgError

RANDOM = numpy.random.default_rng(0)
GOOD = RANDOM.uniform(-0.5, 0.5, (3, 3)) + 2 * numpy.eye(3)


def swapped(monkeypatch, name, function):
    """The row `name` with another function, for programs that run from now on."""
    monkeypatch.setitem(library.LIBRARY, name, replace(library.LIBRARY[name], function=function))


def inverse_is_right():
    numpy.testing.assert_allclose(lg.linalg.inv(lg.tensor(GOOD)).numpy(), numpy.linalg.inv(GOOD))


def test_the_two_layers_agree_on_names() -> None:
    assert entry.LIBRARY_SYMBOL == library_calls.SYMBOL
    assert entry.LIBRARY_UNDER_WAY == program.LIBRARY_UNDER_WAY


# ---- failures


def test_an_error_names_call_shapes_item_and_line() -> None:
    stack = numpy.stack([GOOD, 0 * GOOD, GOOD])
    made = lg.linalg.inv(lg.tensor(stack))
    with pytest.raises(LinAlgError, match=(
        r"^\[linalg.inv\] Singular matrix: float64 \(3, 3, 3\), at batch item 1 "
        r"\(test_library_calls.py:\d+\)\. linalg.pinv"
    )):
        made.numpy()


def test_the_error_is_of_all_the_kinds_that_people_catch() -> None:
    assert issubclass(LinAlgError, RuntimeError)
    assert issubclass(LinAlgError, numpy.linalg.LinAlgError)
    assert lg.linalg.LinAlgError is LinAlgError


def test_the_line_is_that_of_the_present_recording() -> None:
    """A program is shared by all recordings of one structure; its message is not."""
    lines = []
    for bad in (False, True, True):
        made = lg.linalg.inv(lg.tensor(0 * GOOD if bad else GOOD)); line = sys._getframe().f_lineno  # noqa: E702
        if not bad:
            made.numpy()
            continue
        with pytest.raises(LinAlgError) as caught:
            made.numpy()
        assert f"test_library_calls.py:{line})" in str(caught.value)
        lines.append(line)
    assert len(lines) == 2


def test_what_does_not_depend_on_the_failure_is_computed() -> None:
    x = lg.tensor(0 * GOOD)
    bad = lg.linalg.inv(x) + 1
    good = x + 5
    with pytest.raises(LinAlgError):
        bad.sum().item()
    assert good.sum().item() == 45
    with pytest.raises(LinAlgError):
        bad.sum().item()
    inverse_is_right()


def test_launches_after_the_failure_are_skipped(monkeypatch) -> None:
    called = []
    swapped(monkeypatch, "linalg.det", lambda options, a: called.append(1) or (a[..., 0, 0],))
    x = lg.tensor(0 * GOOD)
    with pytest.raises(LinAlgError):
        lg.linalg.det(lg.linalg.inv(x) + 1).item()
    assert called == []
    assert lg.linalg.det(lg.tensor(GOOD)).item() == GOOD[0, 0] and called == [1]


@pytest.mark.parametrize(
    "raised", [ZeroDivisionError("what"), AssertionError(), MemoryError("none")]
)
def test_any_exception_comes_back(monkeypatch, raised) -> None:
    def fails(options, a):
        raise raised

    with monkeypatch.context() as patched:
        swapped(patched, "linalg.inv", fails)
        kind = MemoryError if isinstance(raised, MemoryError) else LinAlgError
        with pytest.raises(kind, match=r"\[linalg.inv\].*"):
            lg.linalg.inv(lg.tensor(GOOD)).numpy()
    inverse_is_right()


def test_a_result_of_a_wrong_shape_is_an_error_not_garbage(monkeypatch) -> None:
    with monkeypatch.context() as patched:
        swapped(patched, "linalg.inv", lambda options, a: (numpy.ones((7, 7)),))
        with pytest.raises(LinAlgError, match="broadcast"):
            lg.linalg.inv(lg.tensor(GOOD)).numpy()
    inverse_is_right()


def test_operands_cannot_be_written(monkeypatch) -> None:
    def writes(options, a):
        a[...] = 0
        return (a,)

    x = lg.tensor(GOOD)
    with monkeypatch.context() as patched:
        swapped(patched, "linalg.inv", writes)
        with pytest.raises(LinAlgError, match="read-only"):
            lg.linalg.inv(x).numpy()
    numpy.testing.assert_array_equal(x.numpy(), GOOD)


def test_the_error_holds_no_arrays_over_freed_memory() -> None:
    with pytest.raises(LinAlgError) as caught:
        lg.linalg.inv(lg.tensor(0 * GOOD)).numpy()
    step = caught.value
    while step is not None:
        frames = step.__traceback__
        while frames is not None:
            assert frames.tb_frame.f_code.co_filename != library_calls.__file__
            frames = frames.tb_next
        step = step.__context__


def test_index_errors_of_the_same_program_stay_index_errors() -> None:
    x, index = lg.tensor(GOOD), lg.tensor([7])
    with pytest.raises(IndexError, match="index 7"):
        (lg.linalg.inv(x)[index]).numpy()
    with pytest.raises(LinAlgError):
        (lg.linalg.inv(x * 0)[lg.tensor([1])]).numpy()


def test_a_failed_step_leaves_parameters_as_they_were() -> None:
    weight = lg.nn.Parameter(lg.tensor(0 * GOOD))
    optimizer = lg.optim.SGD([weight], lr=0.1)
    lg.linalg.inv(weight).sum().backward()
    with pytest.raises(LinAlgError):
        optimizer.step()
        weight.detach().numpy()
    numpy.testing.assert_array_equal(weight.detach().numpy(), 0 * GOOD)


def test_compiled_functions_replay_and_fail_and_go_on() -> None:
    compiled = lg.compile(lambda x: lg.linalg.inv(x) * 2)
    for _ in range(2):
        numpy.testing.assert_allclose(
            compiled(lg.tensor(GOOD)).numpy(), 2 * numpy.linalg.inv(GOOD))
        with pytest.raises(LinAlgError, match="Singular"):
            compiled(lg.tensor(0 * GOOD)).numpy()


# ---- the disk


SCRIPT = """
import numpy, lazygrad as lg
from lazygrad_runtime import store
x = lg.tensor(numpy.array([[2.0, 1.0], [1.0, 3.0]]), requires_grad=True)
q, r = lg.linalg.qr(x)
spectrum = lg.fft.rfft(x, norm="ortho").abs()
(q.sum() + r.sum() + spectrum.sum() + lg.linalg.norm(x, "nuc")).backward()
print(x.grad.numpy().tolist())
try:
    lg.linalg.inv(x.detach() * 0).numpy()
except lg.linalg.LinAlgError as error:
    print(error)
print(store.counters.compiles, store.counters.disk_hits)
"""


def run_script(folder) -> list[str]:
    environment = dict(os.environ, LAZYGRAD_CACHE_DIR=str(folder),
                       PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_process_takes_the_program_from_disk(tmp_path) -> None:
    first, second = run_script(tmp_path / "cache"), run_script(tmp_path / "cache")
    assert first[:-1] == second[:-1] and "Singular" in first[1] and "<string>:10" in second[1]
    compiles, hits = map(int, first[-1].split())
    assert compiles and not hits
    assert second[-1] == f"0 {compiles}"


# ---- threads, forks, interrupts


def test_threads_run_calls_at_once_and_get_their_own_errors() -> None:
    matrices = [GOOD * (k + 1) for k in range(4)]
    wrong: list[object] = []

    def work(matrix, singular) -> None:
        try:
            for _ in range(15):
                made = lg.linalg.inv(lg.tensor(matrix * 0 if singular else matrix))
                if singular:
                    with pytest.raises(LinAlgError):
                        made.numpy()
                else:
                    numpy.testing.assert_allclose(made.numpy(), numpy.linalg.inv(matrix))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(matrix, number % 2 == 1))
               for number, matrix in enumerate(matrices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_slow_call_lets_other_threads_use_python(monkeypatch) -> None:
    started, seen = threading.Event(), []

    def slow(options, a):
        started.set()
        time.sleep(0.2)
        return (numpy.linalg.inv(a),)

    swapped(monkeypatch, "linalg.inv", slow)
    thread = threading.Thread(target=lambda: seen.append(lg.linalg.inv(lg.tensor(GOOD)).numpy()))
    thread.start()
    assert started.wait(60)
    total = lg.tensor([1.0, 2.0]).sum().item()  # waits for the pool, and is not stuck
    thread.join(60)
    assert total == 3 and len(seen) == 1


def test_ctrl_c_in_a_call(monkeypatch) -> None:
    def interrupted(options, a):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return (a,)

    # A shell starts what it runs in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            swapped(patched, "linalg.inv", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lg.linalg.inv(lg.tensor(GOOD)).numpy()
    finally:
        signal.signal(signal.SIGINT, before)
    inverse_is_right()


def test_an_interrupt_that_no_handler_sees_is_not_taken_for_success() -> None:
    caller = library_calls.LibraryCaller([], [])
    assert isinstance(caller.take(), KeyboardInterrupt)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_fork() -> None:
    inverse_is_right()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=inverse_is_right)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("sampled", [2**60, 1])  # native code learns of none, or of each
def test_programs_with_calls_can_be_forgotten(monkeypatch, sampled) -> None:
    monkeypatch.setattr(cell, "_SAMPLED", sampled)
    for _ in range(3):
        inverse_is_right()
        program.forget_programs()
        gc.collect()
    before = store.counters.memory_hits
    inverse_is_right()
    inverse_is_right()
    assert store.counters.memory_hits == before + 1
