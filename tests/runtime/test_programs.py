"""The table of programs in memory: bounded, and those asked for last stay."""

import pytest

import lazygrad as lg
import lazygrad_runtime.program as programs
from lazygrad_runtime import store


@pytest.fixture(autouse=True)
def fresh_table():
    programs.forget_programs()
    yield
    programs.forget_programs()


def total(size: int) -> float:
    return float((lg.ones(size) * 2).sum())


def test_shapes_that_never_repeat_do_not_fill_the_memory(monkeypatch):
    total(3)
    one = programs._kept_code
    assert one > 0
    monkeypatch.setattr(programs, "LARGEST_KEPT_CODE", 8 * one)
    for size in range(4, 40):
        assert total(size) == 2 * size
        assert programs._kept_code <= 8 * one
        assert programs._kept_code == sum(
            kept.program.artifact.code_bytes for kept in programs._programs.values()
        )
    assert 1 < len(programs._programs) < 20  # of 36, which are not all of one size


def test_a_program_in_use_outlives_those_that_are_not(monkeypatch):
    total(3)
    monkeypatch.setattr(programs, "LARGEST_KEPT_CODE", 4 * programs._kept_code)
    for size in range(4, 30):
        total(size)
        hits = store.counters.memory_hits
        total(3)
        assert store.counters.memory_hits == hits + 1


def test_one_program_beyond_the_limit_stays(monkeypatch):
    monkeypatch.setattr(programs, "LARGEST_KEPT_CODE", 1)
    total(3)
    hits = store.counters.memory_hits
    total(3)
    assert store.counters.memory_hits == hits + 1
    assert total(4) == 8


def test_object_code_kept_for_later_programs_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "disk", lambda: store.CompileCache(tmp_path / "cache"))
    monkeypatch.setattr(store, "LARGEST_KEPT_OBJECTS", 4000)
    for size in range(50, 70):
        assert float((lg.ones(size) * 3 + size).sum()) == (3 + size) * size
        held = sum(map(len, store._objects.values()))
        assert held == store._object_bytes <= 4000
    assert store._objects
