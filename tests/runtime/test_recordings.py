"""Programs found on disk by what was recorded: the right one, without a graph, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import lazygrad as lg
import lazygrad_runtime.program as programs
from lazygrad import nn
from lazygrad_runtime import recordings, store
from lazygrad_runtime.cache_limits import Limits


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    own = store.CompileCache(tmp_path / "cache")
    monkeypatch.setattr(store, "disk", lambda: own)
    lg.synchronize()
    programs.forget_programs()
    yield own
    programs.forget_programs()


@pytest.fixture
def unfolded(monkeypatch) -> list[int]:
    """The number of canonical graphs that were built, as the length of a list."""
    built: list[int] = []
    ordinary = programs.canonical_graph

    def counted(*arguments):
        built.append(1)
        return ordinary(*arguments)

    monkeypatch.setattr(programs, "canonical_graph", counted)
    return built


def data(*shape: int) -> lg.Tensor:
    return lg.from_numpy(np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))


def steps() -> list[np.ndarray]:
    """Two steps of training from scratch, as a process would take them."""
    lg.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
    optimizer = lg.optim.AdamW(model.parameters(), lr=0.1)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data(5, 12)), lg.tensor([0, 1, 2, 1, 0]))
        loss.backward()
        optimizer.step()
        found += [loss.detach().numpy().copy(), *[p.detach().numpy().copy()
                                                  for p in model.parameters()]]
    return found


def recurrent() -> list[np.ndarray]:
    """A loop, whose body is a graph of its own."""
    lg.manual_seed(0)
    out, _ = nn.LSTM(4, 6)(data(7, 2, 4))
    return [out.detach().numpy().copy()]


def partly_read() -> list[np.ndarray]:
    """A leaf that a call takes and none of its results reads."""
    x, y = data(3, 4), data(4, 3)
    return [(x.T * 2 + y).numpy().copy(), lg.where(x > 0, x, 0.5).sum().numpy().copy()]


@pytest.mark.parametrize("script", [steps, recurrent, partly_read])
def test_a_second_process_finds_the_same_programs_and_builds_no_graph(
    script: Callable[[], list[np.ndarray]], unfolded, cache
):
    first = script()
    assert unfolded
    programs.forget_programs()
    unfolded.clear()
    compiles, hits = store.counters.compiles, cache.stats()["hits"]
    again = script()
    assert not unfolded and store.counters.compiles == compiles
    assert cache.stats()["hits"] > hits
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


VARIANTS: dict[str, Callable[[lg.Tensor, lg.Tensor], lg.Tensor]] = {
    "constant": lambda x, y: x * 2.0 + y,
    "other constant": lambda x, y: x * 3.0 + y,
    "negative zero": lambda x, y: (x + -0.0) + y,
    "zero": lambda x, y: (x + 0.0) + y,
    "order": lambda x, y: y * 2.0 + x,
    "one of them": lambda x, y: x * 2.0 + x,
    "transposed": lambda x, y: (x * 2.0).T + y,
    "axis": lambda x, y: lg.softmax(x, 0) + y,
    "other axis": lambda x, y: lg.softmax(x, 1) + y,
    "dtype": lambda x, y: x.double() * 2.0 + y,
    "integers": lambda x, y: x.int() * 2 + y,
    "fewer": lambda x, y: x[1:] * 2.0 + y[1:],
    "others": lambda x, y: x[:-1] * 2.0 + y[:-1],
    "norm": lambda x, y: nn.functional.layer_norm(x, (4,)) + y,
    "norm with epsilon": lambda x, y: nn.functional.layer_norm(x, (4,), eps=0.5) + y,
    "rolled": lambda x, y: x.roll(1, 0) + y,
    "scanned": lambda x, y: x.cumsum(0) + y,
}


def test_recordings_that_differ_are_written_differently():
    written = {}
    for name, variant in VARIANTS.items():
        result = variant(data(4, 4), data(4, 4) + 1 - 1)
        key = programs.pending_key([result._cell.node])[0]
        written[name] = recordings.written(key)
    texts = list(written.values())
    assert None not in texts
    assert len(set(texts)) == len(texts)


def test_values_are_those_of_the_recording_whatever_was_noted_before():
    def values() -> dict[str, np.ndarray]:
        x, y = data(4, 4), lg.from_numpy(np.full((4, 4), 0.25, np.float32))
        return {name: variant(x, y).numpy().copy() for name, variant in VARIANTS.items()}

    first = values()
    programs.forget_programs()
    second = values()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_where_a_symbol_is_a_size_nothing_is_written():
    from lazygrad_compiler.ir.dtypes import float32
    from lazygrad_compiler.ir.node import Dim

    assert recordings.written([(float32, (Dim("n", 1, 8), 3)), (0,)]) is None
    assert recordings.written([(float32, (2, 3)), (0,)]) == "leaf float32 (2,3)\nreturn (0,)"


def doubled() -> float:
    return float((data(6) * 2 + 1).sum())


@pytest.mark.parametrize("how", ["cut", "changed", "no note", "another entry", "no entry"])
def test_a_note_that_cannot_be_believed_is_none(how, cache, unfolded):
    assert doubled() == pytest.approx(6)
    (note,) = (cache.path / "notes").iterdir()
    whole = note.read_bytes()
    if how == "cut":
        note.write_bytes(whole[:-5])
    elif how == "changed":
        note.write_bytes(whole.replace(b"[0]", b"[7]"))
        assert note.read_bytes() != whole
    elif how == "no note":
        note.unlink()
    elif how == "another entry":
        note.write_bytes(b"0" * 64 + whole[64:])
    else:
        for entry in (cache.path / "entries").iterdir():
            entry.unlink()
    programs.forget_programs()
    unfolded.clear()
    assert doubled() == pytest.approx(6)
    assert unfolded and note.read_bytes() == whole
    programs.forget_programs()
    unfolded.clear()
    assert doubled() == pytest.approx(6) and not unfolded


def test_a_damaged_program_is_compiled_again(cache):
    doubled()
    for blob in (cache.path / "blobs").iterdir():
        blob.write_bytes(b"damage")
    programs.forget_programs()
    compiles = store.counters.compiles
    assert doubled() == pytest.approx(6)
    assert store.counters.compiles == compiles + 1
    assert cache.stats()["rejects"] == 1


def test_who_listens_to_programs_sees_the_graph(unfolded):
    doubled()
    programs.forget_programs()
    unfolded.clear()
    seen = []
    store.compile_callbacks.append(lambda graph, stages, artifact: seen.append((graph, stages)))
    try:
        doubled()
    finally:
        store.compile_callbacks.pop()
    ((graph, stages),) = seen
    assert stages is None and unfolded and graph.outputs[0].op == "sum"


def test_notes_go_with_their_entries(cache):
    doubled()
    float((data(5) * 3).sum())
    assert len(list((cache.path / "notes").iterdir())) == 2
    cache.prune(Limits(entries=1))
    assert len(list((cache.path / "notes").iterdir())) == 1
    cache.clear()
    assert not list((cache.path / "notes").iterdir())
