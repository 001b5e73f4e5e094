"""The thread pool: every task runs exactly once, whoever is awake, whatever happens in between."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading

import llvmlite.binding as llvm
import numpy as np
import pytest

from lazygrad_runtime import ahead, pool_ir
from lazygrad_runtime import pool as pool_module
from lazygrad_runtime.loader import initialize_target, load_object
from lazygrad_runtime.machine import cpu_quota, memory_left, memory_limit, usable_cpus
from lazygrad_runtime.pool import (
    ThreadPool,
    compile_pool,
    get_num_threads,
    get_pool,
    set_num_threads,
)

# args of the kernels: {ptr marks (i32 per task), ptr sum (i64), i64 rounds of busy work}
KERNELS = """
declare i32 @usleep(i32)

; marks[task] += 1; sum += task
define void @mark(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %marks = load ptr, ptr %args
  %sum_field = getelementptr i8, ptr %args, i64 8
  %sum = load ptr, ptr %sum_field
  %none = icmp sge i64 %begin, %end
  br i1 %none, label %out, label %loop
loop:
  %task = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %cell = getelementptr i32, ptr %marks, i64 %task
  %old = atomicrmw add ptr %cell, i32 1 monotonic
  %old_sum = atomicrmw add ptr %sum, i64 %task monotonic
  %next = add i64 %task, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}

; like mark, after sleeping a millisecond: the caller's wait outlasts its spinning
define void @slow_mark(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
  %1 = call i32 @usleep(i32 1000)
  call void @mark(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  ret void
}

; marks as i64: the scratch address that the task saw; writes and checks the area's first word
define void @see_scratch(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
  %marks = load ptr, ptr %args
  %cell = getelementptr i64, ptr %marks, i64 %begin
  store i64 %begin, ptr %scratch
  %1 = call i32 @usleep(i32 500)
  %back = load i64, ptr %scratch
  %same = icmp eq i64 %back, %begin
  %address = ptrtoint ptr %scratch to i64
  %value = select i1 %same, i64 %address, i64 -1
  store i64 %value, ptr %cell
  ret void
}

; A program: launches mark `rounds` times back to back, alternating the task count 7, 8, 9, ...,
; with one buffer per launch, so that a stale job would mark the wrong buffer.
; table: {ptr buffers of {ptr, ptr} args, i64 rounds}
define void @program(ptr %table, ptr %pool) {
entry:
  %all_args = load ptr, ptr %table
  %rounds_field = getelementptr i8, ptr %table, i64 8
  %rounds = load i64, ptr %rounds_field
  %parallel = load ptr, ptr %pool
  br label %loop
loop:
  %round = phi i64 [ 0, %entry ], [ %next, %loop ]
  %args = getelementptr { ptr, ptr }, ptr %all_args, i64 %round
  %extra = urem i64 %round, 5
  %tasks = add i64 %extra, 7
  call void %parallel(ptr %pool, ptr @mark, ptr %args, i64 %tasks, i64 1)
  %next = add i64 %round, 1
  %more = icmp slt i64 %next, %rounds
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""

Parallel = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
Program = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def emit(source: str) -> bytes:
    initialize_target()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1, reloc="pic")
    return machine.emit_object(llvm.parse_assembly(source))


@pytest.fixture(scope="module")
def kernels():
    return load_object(emit(KERNELS))


@pytest.fixture
def four_threads():
    """Four threads, on however few processors: workers get descheduled in the middle."""
    before = get_num_threads()
    set_num_threads(4)
    yield get_pool()
    set_num_threads(before)


@pytest.fixture
def two_threads():
    """Two threads, which begin with a half each."""
    before = get_num_threads()
    set_num_threads(2)
    yield get_pool()
    set_num_threads(before)


def launch(pool: ThreadPool, kernel: int, args: np.ndarray, tasks: int, grain: int) -> None:
    parallel = ctypes.c_void_p.from_address(pool.pointer).value
    with pool.lock:
        Parallel(parallel)(pool.pointer, kernel, args.ctypes.data, tasks, grain)


def run_marks(pool: ThreadPool, kernel: int, tasks: int, grain: int) -> tuple[np.ndarray, int]:
    marks = np.zeros(max(tasks, 1), np.int32)
    total = np.zeros(1, np.int64)
    args = np.array([marks.ctypes.data, total.ctypes.data], np.int64)
    launch(pool, kernel, args, tasks, grain)
    return marks[:tasks], int(total[0])


def run_program(pool: ThreadPool, kernels, rounds: int) -> None:
    """Runs `program` and checks that each launch marked its own buffer, each task once."""
    marks = np.zeros((rounds, 11), np.int32)
    total = np.zeros(rounds, np.int64)
    args = np.empty((rounds, 2), np.int64)
    args[:, 0] = marks.ctypes.data + np.arange(rounds) * marks.strides[0]
    args[:, 1] = total.ctypes.data + np.arange(rounds) * 8
    table = np.array([args.ctypes.data, rounds], np.int64)
    with pool.lock:
        Program(kernels.address("program"))(table.ctypes.data, pool.pointer)
    tasks = 7 + np.arange(rounds) % 5
    expected = (np.arange(11)[None, :] < tasks[:, None]).astype(np.int32)
    assert np.array_equal(marks, expected)
    assert np.array_equal(total, tasks * (tasks - 1) // 2)


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64, 1000, 4097])
@pytest.mark.parametrize("grain", [1, 2, 3, 64, 5000, 0, -5])
def test_each_task_runs_once(kernels, four_threads, tasks, grain):
    marks, total = run_marks(four_threads, kernels.address("mark"), tasks, grain)
    assert np.all(marks == 1)
    assert total == tasks * (tasks - 1) // 2


@pytest.mark.parametrize("tasks", [2, 3, 7, 64, 1001])
@pytest.mark.parametrize("grain", [1, 2, 3, 64, -1, -5])
def test_each_task_runs_once_on_two_threads(kernels, two_threads, tasks, grain):
    for name in ("mark", "slow_mark"):
        if name == "mark" or tasks <= 64:
            marks, total = run_marks(two_threads, kernels.address(name), tasks, grain)
            assert np.all(marks == 1)
            assert total == tasks * (tasks - 1) // 2
    run_program(two_threads, kernels, 500)


def threads_of_chunks(pool: ThreadPool, kernels, chunks: int, grain: int) -> np.ndarray:
    """For each chunk of one task whether the caller ran it."""
    pool.ensure_scratch(4096)
    seen = np.zeros(chunks, np.int64)
    args = np.array([seen.ctypes.data, 0], np.int64)
    launch(pool, kernels.address("see_scratch"), args, chunks, grain)
    return seen == ctypes.c_void_p.from_address(pool.pointer + pool_ir.SCRATCH).value


def test_two_threads_begin_with_a_half_each(kernels, two_threads):
    both = 0
    for chunks in (2, 3, 8, 15, 16, 15):
        of_caller = threads_of_chunks(two_threads, kernels, chunks, 1).tolist()
        first, second = of_caller[:chunks // 2], of_caller[chunks // 2:]
        # a thread goes through its own half from the front, and helps in the other's from the end
        assert first == sorted(first, reverse=True)
        assert second == sorted(second)
        both += all(first) and not any(second)
    assert both


def test_a_grain_below_zero_has_two_threads_take_turns(kernels, two_threads):
    for _ in range(10):
        of_caller = threads_of_chunks(two_threads, kernels, 32, -1)
        if of_caller[:16].any() and not of_caller[:16].all():
            return
    raise AssertionError("the first half was one thread's ten times")


def test_thousands_of_launches_back_to_back(kernels, four_threads):
    run_program(four_threads, kernels, 20_000)


def test_launches_after_workers_fell_asleep(kernels, four_threads):
    sleep = threading.Event()
    for _ in range(50):
        sleep.wait(0.002)
        run_program(four_threads, kernels, 3)


def test_caller_sleeps_until_slow_workers_finish(kernels, four_threads):
    for _ in range(20):
        marks, _ = run_marks(four_threads, kernels.address("slow_mark"), 9, 1)
        assert np.all(marks == 1)


def test_scratch_areas_are_aligned_and_not_shared(kernels, four_threads):
    for nbytes in (100, 200_000, 1 << 20):
        four_threads.ensure_scratch(nbytes)
        seen = np.zeros(64, np.int64)
        args = np.array([seen.ctypes.data, 0], np.int64)
        launch(four_threads, kernels.address("see_scratch"), args, 64, 1)
        assert np.all(seen != -1), "two threads wrote the same scratch area"
        areas = np.unique(seen)
        assert 2 <= len(areas) <= 4
        assert np.all(areas % 64 == 0)
        assert np.all(np.diff(areas) >= nbytes)


def test_scratch_area_can_be_written_whole(four_threads):
    four_threads.ensure_scratch(3_000_001)
    for index in range(4):
        field = four_threads.pointer + pool_ir.SCRATCH + 8 * index
        ctypes.memset(ctypes.c_void_p.from_address(field).value, index, 3_000_001)


def test_python_threads_take_turns(kernels, four_threads):
    failures = []

    def work():
        try:
            for _ in range(20):
                run_program(get_pool(), kernels, 100)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


def test_resizing_keeps_the_pointer_and_works_at_every_size(kernels):
    before = get_num_threads()
    pointer = get_pool().pointer
    try:
        for count in (1, 3, 8, 2, 1, 4):
            set_num_threads(count)
            assert get_num_threads() == count == get_pool().threads
            assert get_pool().pointer == pointer
            run_program(get_pool(), kernels, 200)
            alive = [t for t in threading.enumerate() if t.name.startswith("lazygrad-worker")]
            assert len(alive) == count - 1
    finally:
        set_num_threads(before)


def test_after_shutdown_launches_run_inline_and_get_pool_restarts(kernels, four_threads):
    four_threads.shutdown()
    assert four_threads.threads == 1
    run_program(four_threads, kernels, 50)
    assert get_pool() is four_threads
    assert four_threads.threads == 4
    run_program(four_threads, kernels, 50)


@pytest.mark.parametrize("count", [0, -1, 5000])
def test_bad_thread_counts_are_refused(count):
    with pytest.raises(ValueError, match="threads"):
        set_num_threads(count)


def test_thread_count_must_be_an_int():
    with pytest.raises(TypeError, match="int"):
        set_num_threads(2.0)
    with pytest.raises(TypeError, match="int"):
        set_num_threads(True)


def test_environment_sets_the_default(monkeypatch):
    monkeypatch.setenv("LAZYGRAD_NUM_THREADS", "3")
    assert pool_module.default_thread_count() == 3
    monkeypatch.setenv("LAZYGRAD_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="LAZYGRAD_NUM_THREADS='many'"):
        pool_module.default_thread_count()
    monkeypatch.delenv("LAZYGRAD_NUM_THREADS")
    assert pool_module.default_thread_count() == usable_cpus()


@pytest.mark.parametrize("setting", ["2", "many"])
def test_a_pool_made_ahead_is_the_pool_and_its_errors_are_the_callers(setting, monkeypatch, capfd):
    monkeypatch.setattr(pool_module, "_pool", None)
    monkeypatch.setenv("LAZYGRAD_NUM_THREADS", setting)
    pool_module.prepare()
    makers = [each for each in threading.enumerate() if each.name == "lazygrad-pool"]
    for maker in makers:
        maker.join()
    assert capfd.readouterr().err == ""
    if setting == "many":
        with pytest.raises(ValueError, match="'many'"):
            get_pool()
    else:
        made = pool_module._pool
        assert made is not None and get_pool() is made
        pool_module.prepare()
        assert "lazygrad-pool" not in [each.name for each in threading.enumerate()]
        made.shutdown()


def test_what_is_compiled_ahead_serves_the_pool_and_starts_no_worker(monkeypatch):
    monkeypatch.setattr(pool_module, "_pool", None)
    monkeypatch.setattr(pool_module, "_code", None)
    monkeypatch.setattr(ahead, "_begun", False)
    monkeypatch.setattr(ahead, "usable_cpus", lambda: 2)
    monkeypatch.setenv("LAZYGRAD_NUM_THREADS", "2")
    before = set(threading.enumerate())
    ahead.begin()
    started = set(threading.enumerate()) - before
    ahead.begin()
    assert set(threading.enumerate()) - before <= started
    for thread in started:
        thread.join()
    code = pool_module._code
    assert code is not None and not set(threading.enumerate()) - before
    monkeypatch.setattr(pool_module, "compile_pool", None)
    made = get_pool()
    assert made._code is code and made.threads == 2
    made.shutdown()


def test_no_thread_works_ahead_on_a_single_processor(monkeypatch):
    monkeypatch.setattr(ahead, "_begun", False)
    monkeypatch.setattr(ahead, "usable_cpus", lambda: 1)
    before = set(threading.enumerate())
    ahead.begin()
    assert set(threading.enumerate()) <= before and ahead._begun


def test_timed_fallback_without_futex(kernels):
    """On systems without a futex the same pool runs on short sleeps."""
    pool = ThreadPool(3, compile_pool(system="other"))
    try:
        for _ in range(10):
            run_program(pool, kernels, 50)
            threading.Event().wait(0.001)
        marks, _ = run_marks(pool, kernels.address("slow_mark"), 7, 1)
        assert np.all(marks == 1)
    finally:
        pool.shutdown()


def test_assembles_for_aarch64():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM has no AArch64 target")
    module = llvm.parse_assembly(pool_ir.pool_module("aarch64", "linux"))
    module.triple = "aarch64-unknown-linux-gnu"
    module.verify()
    assembly = target.create_target_machine(opt=2).emit_assembly(module)
    assert "isb" in assembly and "#98" in assembly


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_gets_working_workers(kernels, four_threads):
    run_program(four_threads, kernels, 10)
    held = threading.Event()
    release = threading.Event()

    def hold_the_lock():
        with four_threads.lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_program(four_threads, kernels, 20)  # a kept reference: runs, on one thread
            assert four_threads.threads == 1
            run_program(get_pool(), kernels, 500)
            assert get_pool().threads == 4
            code = 0
        finally:
            os._exit(code)
    release.set()
    holder.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    run_program(four_threads, kernels, 100)  # the parent's workers are unharmed


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a fresh interpreter, with this one's import path and four threads."""
    environment = {
        **os.environ,
        "LAZYGRAD_NUM_THREADS": "4",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_interpreter_exit_is_clean(ending):
    script = textwrap.dedent(
        f"""
        import atexit, sys
        from lazygrad_runtime.pool import get_pool
        def late():
            assert get_pool().threads == 1
            print("late")
        atexit.register(late)
        import lazygrad_runtime.pool
        atexit.unregister(lazygrad_runtime.pool._at_exit)
        atexit.register(lazygrad_runtime.pool._at_exit)  # runs before `late`
        assert get_pool().threads == 4
        {ending}
        """
    )
    result = run_python(script)
    assert result.stdout.strip() == "late"
    if not ending:
        assert (result.returncode, result.stderr) == (0, "")
    elif "exit" in ending:
        assert (result.returncode, result.stderr) == (3, "")


def test_exit_with_a_program_running_in_a_daemon_thread():
    script = textwrap.dedent(
        """
        import threading, time
        from lazygrad_runtime.pool import get_pool
        pool = get_pool()
        def hang():
            with pool.lock:
                time.sleep(1000)
        threading.Thread(target=hang, daemon=True).start()
        time.sleep(0.05)
        """
    )
    result = run_python(script)
    assert (result.returncode, result.stderr) == (0, "")


def test_cpu_quota_of_nested_groups(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/outer/inner\n")
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    assert cpu_quota(groups, tmp_path) is None
    (tmp_path / "outer" / "inner" / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(groups, tmp_path) is None
    (tmp_path / "outer" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(groups, tmp_path) == 1.5
    (tmp_path / "outer" / "inner" / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(groups, tmp_path) == 0.5
    assert usable_cpus(groups, tmp_path) == 1


def test_cpu_quota_of_version_one(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpu,cpuacct:/box\n3:memory:/box\n")
    for name in ("cpu", "memory"):
        (tmp_path / name / "box").mkdir(parents=True)
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(groups, tmp_path) is None
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text("200000\n")
    assert cpu_quota(groups, tmp_path) == 2.0
    (tmp_path / "memory" / "box" / "memory.limit_in_bytes").write_text("1048576\n")
    assert memory_limit(groups, tmp_path) == 1 << 20


def test_memory_that_is_left(tmp_path):
    """What the machine has, or less: what the groups leave, whose file pages can be had back."""
    groups, info = tmp_path / "cgroup", tmp_path / "meminfo"
    info.write_text("MemTotal: 900 kB\nMemAvailable: 800 kB\nSwapFree: 100 kB\n")
    groups.write_text("0::/a/b\n4:memory:/box\n")
    assert memory_left(groups, tmp_path, info) == 900 << 10
    for folder, names in (("a", ("memory.max", "memory.current")),
                          ("memory/box", ("memory.limit_in_bytes", "memory.usage_in_bytes"))):
        (tmp_path / folder).mkdir(parents=True)
        for name, value in zip(names, ("500000", "200000")):
            (tmp_path / folder / name).write_text(value + "\n")
    (tmp_path / "a" / "memory.stat").write_text("anon 9\nactive_file 1000\ninactive_file 70\n")
    (tmp_path / "memory" / "box" / "memory.stat").write_text(
        "active_file 5\ntotal_active_file 600\ntotal_inactive_file 30\n")
    assert memory_left(groups, tmp_path, info) == 300630
    (tmp_path / "memory" / "box" / "memory.usage_in_bytes").write_text("500000\n")
    assert memory_left(groups, tmp_path, info) == 630
    assert memory_left(groups, tmp_path / "none", tmp_path / "none") is None


def test_groups_outside_the_namespace_do_not_leave_the_root(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/../../elsewhere\n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cpu.max").write_text("300000 100000\n")
    assert cpu_quota(groups, tmp_path / "root") == 3.0
