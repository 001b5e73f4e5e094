"""Tuning: a slow default is found, whatever is kept is used, and nothing else changes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy
import pytest

from lazygrad_compiler.artifact import Tuned
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.ir.text import print_graph
from lazygrad_compiler.loops import candidates
from lazygrad_compiler.loops.kernel import LoopKernel, text
from lazygrad_compiler.loops.schedule import LoopSchedule, schedule_loops
from lazygrad_compiler.pipeline import candidates_of, lower
from lazygrad_compiler.target import Target, host
from lazygrad_runtime import cache_verify, pool, store, tune, tuned_schedules
from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from lazygrad_runtime.timed import TimedProgram
from lazygrad_runtime.tuned_schedules import Winner

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCache]:
    """An empty compile cache; what tests compile is forgotten afterwards."""
    own = CompileCache(tmp_path / "cache")
    own.enabled = True
    monkeypatch.setattr(store, "disk", lambda: own)
    monkeypatch.delenv("LAZYGRAD_TUNED", raising=False)
    store.forget_kernels()
    yield own
    store.forget_kernels()


def leaf(index: int, *shape: int) -> node:
    return node("input", index=index, dtype=DTYPES["float32"], shape=shape)


def chain() -> Graph:
    x = leaf(0, 300, 400)
    return Graph((node("tanh", node("exp", node("neg", x))),))


def inputs_of(graph: Graph) -> list[Buffer]:
    rng = numpy.random.default_rng(0)
    return [
        Buffer.from_numpy(rng.random(value.shape, numpy.float32)) for value in graph.inputs()
    ]


def bits(outputs: Sequence[Buffer]) -> list[bytes]:
    return [output.as_numpy(numpy.uint8, (output.nbytes,)).tobytes() for output in outputs]


def kernel_of(graph: Graph):
    (kernel,) = lower(graph, host()).kernels
    return kernel


def another(graph: Graph, kept: CompileCache, speedup: float = 2.0) -> Winner:
    """Keeps another schedule than the default for the graph's kernel, as if it had won."""
    kernel = kernel_of(graph)
    _, other, *_ = candidates_of(kernel, host())
    winner = Winner(Tuned(candidates.written(other), speedup),
                    candidates.written(kernel.schedule), (speedup, 1.0), 7)
    assert tuned_schedules.keep(
        kept, kernel.name, text(kernel.kernel), [(kernel.name, "tanh", (("net.py", 3),))],
        store.environment_fields(host()), winner)
    return winner


def planted(graph: Graph, seconds: Callable[[candidates.Schedule], float]) -> tune.Timer:
    """A timer by which the graph's one kernel takes what its schedule says; it runs, too."""
    kernel = kernel_of(graph)
    schedules = {kernel.name: kernel.schedule}
    for schedule in tune.candidates_of(kernel, host())[1:]:
        tuning = {kernel.name: Tuned(candidates.written(schedule), 1.0)}
        schedules[lower(graph, host(), tuning).names[0]] = schedule

    def timer(program: TimedProgram, inputs: Sequence[Buffer]) -> tuple[list[Buffer], list[float]]:
        outputs = program.run(inputs)
        (name,) = [name for name in program.artifact.objects if name != "program"]
        return outputs, [1.0, 1.0 + seconds(schedules[name])]

    return timer


# ---- the search


def test_the_fastest_by_the_clock_wins_and_is_used_from_then_on() -> None:
    graph = chain()
    inputs = inputs_of(graph)
    before = Program(store.artifact_for(graph)).run(inputs)
    wanted = candidates_of(kernel_of(graph), host())[3]
    (outcome,) = tune.tune(
        graph, inputs, timer=planted(graph, lambda s: 0.001 if s == wanted else 0.002)).outcomes
    assert candidates.read(outcome.winner.tuned.schedule) == wanted
    assert outcome.winner.tuned.speedup == pytest.approx(2)
    artifact = store.artifact_for(graph)
    assert list(artifact.tuning.values()) == [outcome.winner.tuned]
    assert bits(Program(artifact).run(inputs)) == bits(before)
    assert not tune.tune(graph, inputs, timer=planted(graph, lambda s: 1 / 0)).outcomes  # known


def test_a_planted_slow_default_is_found_on_the_real_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(kernel: LoopKernel, target: Target) -> LoopSchedule:
        return dataclasses.replace(schedule_loops(kernel, target), lanes=(2,))

    monkeypatch.setattr("lazygrad_compiler.llvm.backend.schedule_loops", slow)
    graph = chain()
    assert kernel_of(graph).schedule.lanes == (2,)
    (outcome,) = tune.tune(graph, inputs_of(graph)).outcomes
    found = candidates.read(outcome.winner.tuned.schedule)
    assert isinstance(found, LoopSchedule) and found.lanes[0] >= host().lanes(32)


def test_a_small_gain_is_none() -> None:
    graph = chain()
    default = kernel_of(graph).schedule
    (outcome,) = tune.tune(
        graph, inputs_of(graph),
        timer=planted(graph, lambda s: 0.00101 if s == default else 0.001)).outcomes
    assert not outcome.winner.is_better
    assert not store.artifact_for(graph).tuning


def test_a_candidate_that_changes_results_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph((node("sum", leaf(0, 60, 2000), axes=(1,)),))
    kernel = kernel_of(graph)
    wrong = dataclasses.replace(kernel.schedule, lanes=(16,))
    assert wrong != kernel.schedule
    right = candidates_of(kernel, host())
    assert wrong not in right
    inputs = inputs_of(graph)
    monkeypatch.setattr(tune, "candidates_of", lambda *_: [*right, wrong])
    (outcome,) = tune.tune(
        graph, inputs, timer=planted(graph, lambda s: 0.001 if s == wrong else 0.002)).outcomes
    assert outcome.refused == 1 and not outcome.winner.is_better


def test_an_interrupt_keeps_what_was_found() -> None:
    graph = chain()
    wanted = candidates_of(kernel_of(graph), host())[2]
    clock = planted(graph, lambda s: 0.001 if s == wanted else 0.002)
    runs = 0

    def timer(program: TimedProgram, inputs: Sequence[Buffer]) -> tuple[list[Buffer], list[float]]:
        nonlocal runs
        runs += 1
        if runs > 60:
            raise KeyboardInterrupt
        return clock(program, inputs)

    with pytest.raises(tune.Interrupted) as interrupted:
        tune.tune(graph, inputs_of(graph), timer=timer)
    (outcome,) = interrupted.value.report.outcomes
    assert outcome.winner.is_better and not outcome.winner.complete
    (tuned,) = store.artifact_for(graph).tuning.values()
    assert candidates.read(tuned.schedule) == wanted


def test_when_time_is_up_the_next_one_goes_on() -> None:
    graph = chain()
    known = candidates_of(kernel_of(graph), host())
    clock = planted(graph, lambda s: 0.001 if s == known[3] else 0.002)
    reports, timed = [], []
    while not reports or not reports[-1].complete:
        reports.append(tune.tune(graph, inputs_of(graph), timer=clock, seconds=1e-9))
        (outcome,) = reports[-1].outcomes
        assert outcome.winner.complete is reports[-1].complete
        timed.append(outcome.winner.tried)
        assert outcome.winner.is_better is (timed[-1] > 3)
    assert timed == sorted(set(timed)) and timed[0] == 3 and timed[-1] == len(known)
    assert candidates.read(outcome.winner.tuned.schedule) == known[3]
    assert not tune.tune(graph, inputs_of(graph), timer=clock).outcomes


def test_an_index_out_of_range_is_the_runs_business() -> None:
    index = node("input", index=1, dtype=DTYPES["int64"], shape=(3,))
    graph = Graph((node("gather", leaf(0, 4), index, axes=(0,)),))
    program = Program(store.artifact_for(graph))
    inputs = [Buffer.from_numpy(numpy.ones(4, numpy.float32)),
              Buffer.from_numpy(numpy.array([1, 2, 9]))]
    assert tune.tuned_program(program, graph, inputs) is program
    with pytest.raises(IndexError):
        program.run(inputs)


# ---- what is kept


def test_tuned_and_untuned_programs_do_not_mix(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain()
    plain = store.artifact_for(graph)
    winner = another(graph, cache)
    tuned = store.artifact_for(graph)
    assert list(tuned.tuning.values()) == [winner.tuned] and not plain.tuning
    assert tuned.objects.keys() != plain.objects.keys()
    monkeypatch.setenv("LAZYGRAD_TUNED", "0")
    assert store.artifact_for(graph).objects == plain.objects
    monkeypatch.delenv("LAZYGRAD_TUNED")
    compiles = store.counters.compiles
    assert store.artifact_for(graph).objects == tuned.objects
    assert store.counters.compiles == compiles
    assert len([entry for entry in cache.entries() if "graph" in entry.fields]) == 2


def test_winners_belong_to_a_number_of_threads(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain()
    another(graph, cache)
    monkeypatch.setattr(pool.get_pool(), "threads", pool.get_pool().threads + 1)
    assert not store.artifact_for(graph).tuning


def test_a_winner_that_is_not_used_says_why(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain()
    another(graph, cache)
    (entry,) = (each for each in cache.entries() if tuned_schedules.is_schedule(each))
    present = store.environment_fields(host())
    loops = text(kernel_of(graph).kernel)
    assert tuned_schedules.against(entry, present) == ""
    assert tuned_schedules.unused(cache, loops, present) == []
    for changes, expected in (
        ({"compiler": "0"}, "timed by another version of compiler"),
        ({"llvm": "0", "llvmlite": "0"}, "timed by another version of llvm, llvmlite"),
        ({"cpu": "other"}, f"timed on another machine: {host().cpu} {host().triple}"),
        ({"l2_bytes": 1}, "timed on another machine, whose features or caches differ"),
    ):
        assert tuned_schedules.unused(cache, loops, {**present, **changes}) == [expected]
    threads = pool.get_pool().threads
    monkeypatch.setattr(pool.get_pool(), "threads", threads + 7)
    (reason,) = tuned_schedules.unused(cache, loops, present)
    assert reason.startswith(f"timed with {threads} thread") and str(threads + 7) in reason
    assert tuned_schedules.unused(cache, "another kernel", present) == []


@pytest.mark.parametrize("part", ["entries", "blobs"])
def test_a_damaged_winner_is_none(cache: CompileCache, part: str) -> None:
    graph = chain()
    another(graph, cache)
    (path,) = (cache.path / part).iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [finding.reason for finding in cache_verify.verify(cache).findings] == [
        "manifest" if part == "entries" else "blob-contents"]
    assert not store.artifact_for(graph).tuning
    assert list((cache.path / "quarantine").iterdir())
    another(graph, cache)
    assert store.artifact_for(graph).tuning


def test_verify_knows_whose_schedule_it_is(cache: CompileCache) -> None:
    graph = chain()
    winner = another(graph, cache)
    assert not cache_verify.verify(cache).findings
    kernel = kernel_of(graph)
    environment = store.environment_fields(host())
    launches = [(kernel.name, "tanh", ())]
    tuned_schedules.keep(cache, kernel.name, "another kernel", launches, environment, winner)
    (finding,) = cache_verify.verify(cache).findings
    assert finding.reason == "schedule" and "another name" in finding.message
    nonsense = dataclasses.replace(winner, tuned=Tuned('["LoopSchedule", {}]', 2.0))
    tuned_schedules.keep(
        cache, kernel.name, text(kernel.kernel), launches, environment, nonsense)
    (finding,) = cache_verify.verify(cache).findings
    assert finding.reason == "schedule" and "not a schedule" in finding.message


def test_recompiling_a_tuned_program_gives_its_bytes(cache: CompileCache) -> None:
    graph = chain()
    another(graph, cache)
    store.artifact_for(graph)
    report = cache_verify.verify(cache, recompile=True)
    assert report.recompiled == 2 and not report.findings


def test_clearing_and_pruning_take_winners_along(cache: CompileCache) -> None:
    graph = chain()
    another(graph, cache)
    pruned = cache.prune(unwanted=lambda entry, _: tuned_schedules.is_schedule(entry))
    assert len(pruned.evicted) == 1 and not store.artifact_for(graph).tuning
    another(graph, cache)
    cache.clear()
    assert not store.artifact_for(graph).tuning


def test_a_program_of_another_graph_finds_the_same_winner(cache: CompileCache) -> None:
    another(chain(), cache)
    x = leaf(0, 300, 400)
    value = node("tanh", node("exp", node("neg", x)))
    graph = Graph((value, node("sum", leaf(1, 2000, 50), axes=(1,))))
    assert len(store.artifact_for(graph).tuning) == 1
    assert print_graph(graph) != print_graph(chain())


# ---- processes

SCRIPT = """\
import sys, time
import lazygrad as lg
lg.manual_seed(0)
print(lg.softmax(lg.rand(500, 300), dim=1).square().sum().item())
if "wait" in sys.argv:
    time.sleep(60)
"""


def command(folder: Path, *arguments: str) -> list[str]:
    script = folder / "net.py"
    script.write_text(SCRIPT)
    return [sys.executable, *arguments, str(script)]


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAZYGRAD")}
    paths = [str(ROOT), str(ROOT / "compiler"), str(ROOT / "runtime")]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "LAZYGRAD_CACHE_DIR": str(folder / "c")}


def test_ctrl_c_ends_the_command_and_leaves_a_sound_cache(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command(tmp_path, "-m", "lazygrad", "tune"), "wait"], env=environment(tmp_path),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's job ignores it
    entries = tmp_path / "c"
    while process.poll() is None and not list(entries.rglob("*.json")):
        time.sleep(0.01)  # until the script runs: Ctrl-C before, in and after tuning is alike
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert out.startswith("interrupted; ")
    assert not cache_verify.verify(CompileCache(entries)).findings
    after = subprocess.run(command(tmp_path, "-m", "lazygrad", "tune"), env=environment(tmp_path),
                           capture_output=True, text=True, timeout=120, check=True)
    assert "tuned" in after.stdout and "interrupted" not in after.stdout


def test_two_processes_tune_at_once_and_a_third_uses_what_they_found(tmp_path: Path) -> None:
    plain = subprocess.run(command(tmp_path), env={**environment(tmp_path), "LAZYGRAD_CACHE": "0"},
                           capture_output=True, text=True, timeout=120, check=True)
    both = [
        subprocess.Popen(command(tmp_path, "-m", "lazygrad", "tune"), env=environment(tmp_path),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert "tuned" in out and plain.stdout in err
    kept = CompileCache(tmp_path / "c")
    assert not cache_verify.verify(kept).findings
    winners = [tuned_schedules.winner_of(entry) for entry in kept.entries()
               if tuned_schedules.is_schedule(entry)]
    assert winners and all(winner is not None for winner in winners)
    third = subprocess.run(command(tmp_path), env=environment(tmp_path), capture_output=True,
                           text=True, timeout=120, check=True)
    assert third.stdout == plain.stdout
    assert kept.stats()["misses"] >= 1
    before = kept.stats()["misses"]
    subprocess.run(command(tmp_path), env=environment(tmp_path), timeout=120, check=True,
                   capture_output=True)
    assert kept.stats()["misses"] == before
