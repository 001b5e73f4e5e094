"""The safetensors format: what goes in comes out, files are as the format says, damage is told."""

import json
import os

import numpy
import pytest

import lazygrad as lg
from lazygrad.serialization import FileFormatError
from lazygrad.utils import safetensors


def written(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize("name", safetensors.NAMES)
def test_every_dtype_and_shape(name, tmp_path):
    dtype = getattr(lg, name)
    tensors = {"matrix": lg.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype),
               "number": lg.ones((), dtype=dtype), "none": lg.zeros((0, 3), dtype=dtype),
               "view": lg.ones((2, 3), dtype=dtype).t()}
    safetensors.save_file(tensors, tmp_path / "file.safetensors", {"format": "pt"})
    found = safetensors.load_file(tmp_path / "file.safetensors")
    assert set(found) == set(tensors) and os.listdir(tmp_path) == ["file.safetensors"]
    for key, tensor in tensors.items():
        assert found[key].dtype is dtype and found[key].shape == tensor.shape
        assert found[key].tolist() == tensor.tolist()
    assert safetensors.read_metadata(tmp_path / "file.safetensors") == {"format": "pt"}


def test_files_are_as_the_format_says():
    data = safetensors.save({"b": lg.tensor([1, 2], dtype=lg.uint8), "a": lg.tensor([1.5])})
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8:8 + length]) == {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]}}
    assert data[8 + length:] == numpy.float32(1.5).tobytes() + b"\x01\x02"


def test_loaded_tensors_can_be_written():
    found = safetensors.load(safetensors.save({"a": lg.ones(2)}))["a"]
    found.add_(1)
    assert found.tolist() == [2.0, 2.0]


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("data", [
    b"", b"1234567", written({"a": ENTRY}, bytes(7)), written({"a": ENTRY}, bytes(9)),
    written({"a": {**ENTRY, "shape": [3]}}, bytes(8)),
    written({"a": {**ENTRY, "shape": "2"}}, bytes(8)),
    written({"a": {**ENTRY, "shape": [-2]}}, bytes(8)),
    written({"a": {**ENTRY, "dtype": "F3"}}, bytes(8)),
    written({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
    written({"a": {**ENTRY, "shape": [2**62, 4]}}, bytes(8)),
    written({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)),
    written({"a": ENTRY, "b": ENTRY}, bytes(8)),
    written({"a": 3}), written([1]), written(b"{"), written(b"\xff\xff"),
    (10**15).to_bytes(8, "little") + b"{}", written(b"[" * 100_000)])
def test_damage_is_told(data):
    with pytest.raises(FileFormatError, match="safetensors"):
        safetensors.load(data)


def test_every_truncation_is_told():
    data = safetensors.save({"a": lg.ones(3), "b": lg.zeros(2, dtype=lg.int8)})
    for length in range(len(data)):
        with pytest.raises(FileFormatError):
            safetensors.load(data[:length])


@pytest.mark.parametrize("tensors, metadata", [({"a": 3}, None), ({1: lg.ones(2)}, None),
                                               ({"a": lg.ones(2, dtype=lg.complex128)}, None),
                                               ({"a": lg.ones(2)}, {"steps": 3})])
def test_what_the_format_does_not_hold(tensors, metadata):
    with pytest.raises(TypeError, match="safetensors"):
        safetensors.save(tensors, metadata)


def test_failing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    safetensors.save_file({"a": lg.ones(1)}, path)

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        safetensors.save_file({"a": lg.zeros(1)}, path)
    assert safetensors.load_file(path)["a"].tolist() == [1.0]
