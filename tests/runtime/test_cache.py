"""The compile cache: what was stored comes back, whole, and under its fields only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazygrad_runtime.cache import CompileCache
from lazygrad_runtime.cache_entry import key_of
from tests.runtime.cache_common import BLOBS, FIELDS, META, files_of, marks, silent

pytestmark = marks


def test_store_then_lookup(cache):
    assert cache.lookup(FIELDS) is None
    assert silent(lambda: cache.store(FIELDS, BLOBS, META))
    entry = CompileCache(cache.path).lookup(dict(reversed(FIELDS.items())))
    assert entry.key == key_of(FIELDS)
    assert {name: entry.read(name) for name in BLOBS} == BLOBS
    assert entry.manifest["meta"] == META
    assert entry.manifest["fields"] == FIELDS
    assert set(entry.manifest["blobs"]) == set(BLOBS)
    with pytest.raises(KeyError):
        entry.read("ptx")


def test_each_field_is_part_of_the_key(cache):
    cache.store(FIELDS, BLOBS)
    for name, value in FIELDS.items():
        changed = {**FIELDS, name: value + (1 if isinstance(value, int) else value)}
        assert cache.lookup(changed) is None
        assert cache.explain_miss(changed) == [name]
    assert cache.lookup({**FIELDS, "flags": ""}) is None
    assert cache.explain_miss({**FIELDS, "flags": ""}) == ["flags"]
    assert cache.lookup(FIELDS) is not None


def test_explaining_a_miss_in_an_empty_cache_names_all_fields(cache):
    assert cache.explain_miss(FIELDS) == sorted(FIELDS)


field_values = st.recursive(
    st.text(max_size=5) | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
some_fields = st.dictionaries(st.text(max_size=3), field_values, max_size=3)


@given(some_fields, some_fields)
def test_keys_are_equal_exactly_when_fields_are(first, second):
    assert (key_of(first) == key_of(second)) == (first == second)


def test_text_and_number_are_different_fields():
    assert len({key_of({"x": value}) for value in (1, "1", [1], ["1"], [[1]], "", [])}) == 7
    assert key_of({"x": (1, 2)}) == key_of({"x": [1, 2]})


@pytest.mark.parametrize("value", [1.5, None, {"a": 1}, b"x", [1, [2.0]]])
def test_fields_of_other_types_are_refused_by_name(cache, value):
    for action in (key_of, cache.lookup, lambda fields: cache.store(fields, {})):
        with pytest.raises(TypeError, match="'flags'"):
            action({"flags": value})


def test_equal_blobs_are_kept_once(cache):
    cache.store({"n": 1}, {"object": b"same" * 1000, "also": b"same" * 1000})
    cache.store({"n": 2}, {"object": b"same" * 1000})
    assert len(files_of(cache, "blobs")) == 1
    assert len(cache.entries()) == 2
    assert 4000 < cache.total_bytes() < 8000


def test_storing_again_replaces(cache):
    cache.store(FIELDS, {"object": b"old"}, {"round": 1})
    cache.store(FIELDS, {"object": b"new"}, {"round": 2})
    entry = cache.lookup(FIELDS)
    assert (entry.read("object"), entry.manifest["meta"]) == (b"new", {"round": 2})


def test_entries_and_clear(cache):
    for number in range(5):
        cache.store({"n": number}, {"object": bytes([number])})
    assert [entry.key for entry in cache.entries()] == sorted(key_of({"n": n}) for n in range(5))
    assert {entry.read("object") for entry in cache.entries()} == {bytes([n]) for n in range(5)}
    assert cache.clear() == 5
    assert (cache.entries(), cache.total_bytes(), cache.clear()) == ([], 0, 0)
    assert cache.lookup({"n": 1}) is None
    assert cache.store({"n": 1}, {}) and cache.lookup({"n": 1}) is not None
