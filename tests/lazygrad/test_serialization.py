"""save and load: what goes in comes out, nothing else does, and no failure costs the old file."""

import errno
import io
import json
import os
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad import serialization
from lazygrad.serialization import FileFormatError
from lazygrad.utils import safetensors
from tests.lazygrad import processes


def round_trip(value):
    file = io.BytesIO()
    lg.save(value, file)
    file.seek(0)
    return lg.load(file)


@pytest.mark.parametrize("value",
                         [None, True, False, 0, -1, 2**53 + 1, -(2**200), 0.1, -0.0, 1e308,
                          float("inf"), float("-inf"), "", "ä\n\0", "\ud800", b"\0\xff", 1 + 2j, [],
                          (), {}, [1, (2, "x", None)],
                          {"a": {1: [2.5]}, (1, 2): "tuple key", None: 0, True: 1.0}])
def test_plain_data_comes_back_equal_and_of_the_same_type(value):
    found = round_trip(value)
    assert found == value and type(found) is type(value)
    assert repr(found) == repr(value)


def test_nan_comes_back():
    found = round_trip(float("nan"))
    assert found != found


def test_ordered_dicts_keep_order_and_metadata():
    value = OrderedDict(b=1, a=2)
    value._metadata = OrderedDict({"": {"version": 1}})
    found = round_trip(value)
    assert type(found) is OrderedDict and list(found) == ["b", "a"]
    assert found._metadata == value._metadata


def test_sizes_and_dtypes():
    size, dtype = round_trip([lg.tensor([[1, 2]]).shape, lg.bfloat16])
    assert type(size) is lg.Size and size == (1, 2) and dtype is lg.bfloat16


@pytest.mark.parametrize("name",
                         ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32",
                          "int64", "float16", "bfloat16", "float32", "float64", "complex64",
                          "complex128"])
def test_every_dtype(name):
    dtype = getattr(lg, name)
    array = numpy.array([[0, 1, 3], [1, 0, 5]]).astype(dtype.numpy)
    found = round_trip(lg.from_numpy(array))
    assert found.dtype is dtype and tuple(found.shape) == (2, 3)
    assert found.numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1, 1), (3, 5)])
def test_shapes(shape):
    array = numpy.arange(numpy.prod(shape, dtype=int), dtype=numpy.float32).reshape(shape)
    found = round_trip(lg.from_numpy(array))
    assert tuple(found.shape) == shape and numpy.array_equal(found.numpy(), array)


def test_requires_grad_and_parameters_come_back():
    leaf, parameter, frozen = round_trip([lg.tensor([1.0], requires_grad=True),
                                          lg.nn.Parameter(lg.tensor([2.0])),
                                          lg.nn.Parameter(lg.tensor([3.0]), requires_grad=False)])
    assert leaf.requires_grad and leaf.is_leaf
    assert isinstance(parameter, lg.nn.Parameter) and parameter.requires_grad
    assert isinstance(frozen, lg.nn.Parameter) and not frozen.requires_grad


def test_the_same_tensor_twice_is_one_tensor_again():
    tensor = lg.tensor([1.0, 2.0])
    first, second = round_trip([tensor, tensor])
    assert first is second


def test_transposed_and_sliced_tensors():
    base = lg.from_numpy(numpy.arange(12, dtype=numpy.float32).reshape(3, 4))
    for view in (base.t(), base[1:, 2], base[:, ::2], base[None, :, :1]):
        assert numpy.array_equal(round_trip(view).numpy(), view.numpy())


def test_a_slice_does_not_save_what_it_was_cut_from():
    base = lg.from_numpy(numpy.zeros(100_000, numpy.float32))
    file = io.BytesIO()
    lg.save(base[:10], file)
    assert len(file.getvalue()) < 2000


def test_views_share_memory_after_loading():
    base = lg.from_numpy(numpy.arange(6, dtype=numpy.float32).reshape(2, 3))
    whole, row = round_trip([base, base[1]])
    row.zero_()
    assert numpy.array_equal(whole.numpy(), [[0, 1, 2], [0, 0, 0]])


def test_loaded_tensors_can_be_written():
    found = round_trip(lg.tensor([1.0, 2.0]))
    found.add_(1)
    assert found.tolist() == [2.0, 3.0]


def test_saving_twice_gives_the_same_bytes():
    value = {"a": lg.tensor([1.0]), "b": [1, 2]}
    first, second = io.BytesIO(), io.BytesIO()
    lg.save(value, first)
    lg.save(value, second)
    assert first.getvalue() == second.getvalue()


@pytest.mark.parametrize("value, hint", [
    (lambda: lg.nn.Linear(2, 2), "state_dict"), (lambda: numpy.zeros(2), "from_numpy"),
    (lambda: numpy.float32(1), r"\.item\(\)"), (lambda: {1, 2}, "sorted"), (lambda: print, "code"),
    (lambda: lambda: 1, "code"), (lambda: object(), "dict"),
])
def test_unsupported_objects_say_where_and_what_instead(value, hint):
    with pytest.raises(TypeError, match=hint) as caught:
        round_trip({"outer": [value()]})
    assert "obj['outer'][0]" in str(caught.value)


def test_data_containing_itself_and_deep_data_are_errors():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        round_trip(loop)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="too deeply"):
        round_trip(deep)


# ---- files


def test_paths_and_permissions(tmp_path):
    path = tmp_path / "model.lg"
    lg.save([1, 2], path)
    assert lg.load(str(path)) == [1, 2]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o600)
    lg.save([3], path)
    assert path.stat().st_mode & 0o777 == 0o600 and lg.load(path) == [3]
    assert os.listdir(tmp_path) == ["model.lg"]


def test_symbolic_links_are_followed(tmp_path):
    lg.save(1, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    lg.save(2, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and lg.load(tmp_path / "real") == 2


def test_an_unsupported_object_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.lg"
    lg.save("old", path)
    with pytest.raises(TypeError):
        lg.save({"a": lg.tensor([1.0]), "b": object()}, path)
    assert lg.load(path) == "old" and os.listdir(tmp_path) == ["model.lg"]


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "model.lg"
    lg.save("old", path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match=r"\[save\] No space.*the old file is whole.*make room, or "
                       r"save elsewhere \(test_serialization.py:\d+\): '.*model.lg'") as caught:
        lg.save("new", path)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert lg.load(path) == "old" and os.listdir(tmp_path) == ["model.lg"]


def test_a_limit_on_the_size_of_files_leaves_the_old_file(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LIMITED)
    done = processes.python(script, folder=tmp_path,
                            changes={"LAZYGRAD_CACHE_DIR": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    first, second, value = done.stdout.splitlines()
    assert "[save] File too large; the old file is whole" in first and "script.py:" in first
    assert "[save] File too large; there is no file of that name" in second
    assert value == "5000.0", "programs run where the cache cannot be written"
    assert lg.load(tmp_path / "model.lg") == "old" and not (tmp_path / "new.lg").exists()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


LIMITED = """\
import resource
import lazygrad as lg

lg.save("old", "model.lg")
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for name in ("model.lg", "new.lg"):
    try:
        lg.save(lg.zeros(1000), name)
    except OSError as error:
        print(error)
print((lg.ones(1000).cos().acos() + 4).sum().round().item())
"""


def test_the_place_of_a_file_that_cannot_be_saved(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[save\].*there is no folder .*make it first"):
        lg.save("new", tmp_path / "none" / "model.lg")
    with pytest.raises(IsADirectoryError, match=r"\[save\].*name a file in it"):
        lg.save("new", tmp_path)


def saved_bytes(value):
    file = io.BytesIO()
    lg.save(value, file)
    return file.getvalue()


def test_every_truncation_is_an_error():
    data = saved_bytes({"a": lg.tensor([1.0, 2.0]), "b": "text"})
    for length in range(0, len(data), 7):
        with pytest.raises(FileFormatError):
            lg.load(io.BytesIO(data[:length]))


def test_every_changed_byte_is_noticed_or_harmless():
    value = {"a": lg.tensor([1.0, 2.0]), "b": "text"}
    data = saved_bytes(value)
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        try:
            found = lg.load(io.BytesIO(bytes(damaged)))
        except FileFormatError:
            continue
        assert found["b"] == "text" and found["a"].tolist() == [1.0, 2.0]


def rewritten(data, change, compression=zipfile.ZIP_STORED):
    """The archive with its manifest changed."""
    old = zipfile.ZipFile(io.BytesIO(data))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(content)
                change(manifest)
                content = json.dumps(manifest)
            new.writestr(name, content)
    file.seek(0)
    return file


@pytest.mark.parametrize("change",
                         [lambda m: m.update(format="other"), lambda m: m.update(version=99),
                          lambda m: m.pop("root"), lambda m: m.pop("tensors"),
                          lambda m: m["tensors"][0].update(shape=[10**6]),
                          lambda m: m["tensors"][0].update(shape=[-1]),
                          lambda m: m["tensors"][0].update(offset=5),
                          lambda m: m["tensors"][0].update(strides=[10**9]),
                          lambda m: m["tensors"][0].update(storage=7),
                          lambda m: m["tensors"][0].update(storage=-1),
                          lambda m: m["tensors"][0].update(dtype="object"),
                          lambda m: m["tensors"][0].update(shape=[2.0]),
                          lambda m: m["tensors"][0].update(shape="2"),
                          lambda m: m.update(storages=[3]), lambda m: m.update(root={"tensor": 4}),
                          lambda m: m.update(root={"tensor": -1}),
                          lambda m: m.update(root={"eval": "1"}),
                          lambda m: m.update(root={"dict": [[{"list": []}, 1]]}),
                          lambda m: m.update(root=[1]),
                          lambda m: m.update(root={"dtype": "__class__"}),
                          lambda m: m.update(root={"int": "no number"})])
def test_hostile_manifests_are_errors(change):
    data = saved_bytes(lg.tensor([1.0, 2.0]))
    with pytest.raises(FileFormatError):
        lg.load(rewritten(data, change))


def test_compressed_entries_are_refused():
    data = saved_bytes(lg.tensor([1.0, 2.0]))
    with pytest.raises(FileFormatError, match="compressed"):
        lg.load(rewritten(data, lambda manifest: None, zipfile.ZIP_DEFLATED))


def test_foreign_files():
    for content in (b"", b"hello", b"\x80\x04}."):
        with pytest.raises(FileFormatError):
            lg.load(io.BytesIO(content))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(FileFormatError, match="did not write it"):
        lg.load(file)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        lg.load(tmp_path / "none")


# ---- torch's files


def torch_saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def test_a_state_dict_of_torch():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    found = lg.load(torch_saved(model.state_dict()))
    assert type(found) is OrderedDict and list(found) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert numpy.array_equal(found[name].numpy(), value.numpy())


def test_views_dtypes_and_plain_data_of_torch():
    base = torch.arange(12.0).reshape(3, 4)
    value = {"t": base.t(), "row": base[1], "half": torch.tensor([1.5], dtype=torch.bfloat16),
             "n": [1, 2.5, "x", None], "size": base.shape, "dtype": torch.float16,
             "p": torch.nn.Parameter(base.clone())}
    found = lg.load(torch_saved(value))
    assert numpy.array_equal(found["t"].numpy(), value["t"].numpy())
    assert numpy.array_equal(found["row"].numpy(), value["row"].numpy())
    assert found["half"].dtype is lg.bfloat16 and found["half"].tolist() == [1.5]
    assert found["n"] == value["n"] and found["size"] == (3, 4) and found["dtype"] is lg.float16
    assert isinstance(found["p"], lg.nn.Parameter) and found["p"].requires_grad


def test_conjugates_and_negatives_that_torch_has_only_noted():
    value = torch.tensor([[1 + 2j, 3 - 1j]])
    saved = [value.conj(), value.conj().t(), value.mH, value.clone().conj().imag]
    assert saved[0].is_conj() and saved[3].is_neg()
    for ours, theirs in zip(lg.load(torch_saved(saved)), saved):
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("value", [
    1 + 2j, {1, "a"}, frozenset([2]), b"\x00\xff", bytearray(b"ab"), Counter("aab"),
    defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}), 2**80])
def test_plain_python_data_of_torch(value):
    found = lg.load(torch_saved({"value": value}))["value"]
    assert found == value and type(found) is type(value)


def test_a_device_of_torch():
    assert lg.load(torch_saved(torch.device("cuda", 1))) == lg.device("cuda:1")


class Evil:
    def __reduce__(self):
        return os.system, ("echo run > /tmp/lazygrad-evil",)


class Greedy:
    def __reduce__(self):
        return bytearray, (10**15,)


class Calling:
    def __reduce__(self):
        return defaultdict, (len,)


def test_harmless_names_are_not_harmful():
    for value, message in [(Greedy(), "bytearray"), (Calling(), "len")]:
        with pytest.raises(FileFormatError, match=message):
            lg.load(torch_saved(value))


def test_files_of_other_kinds_are_told():
    file = io.BytesIO()
    torch.save(torch.ones(2), file, _use_new_zipfile_serialization=False)
    with pytest.raises(FileFormatError, match=r"before 1\.6"):
        lg.load(io.BytesIO(file.getvalue()))
    with pytest.raises(FileFormatError, match="load_file"):
        lg.load(io.BytesIO(safetensors.save({"a": lg.ones(2)})))
    for length in (40, len(file.getvalue()) - 30):
        with pytest.raises(FileFormatError):
            lg.load(io.BytesIO(torch_saved(torch.ones(2)).getvalue()[:length]))


def test_map_location():
    file = torch_saved({"a": torch.ones(2)})
    for where in ("cpu", lg.device("cpu"), {"cuda:0": "cpu"}, lambda storage, place: storage):
        file.seek(0)
        assert lg.load(file, map_location=where, mmap=False)["a"].tolist() == [1, 1]
    for where in ("cuda", {"cpu": "cuda"}):
        file.seek(0)
        with pytest.raises(RuntimeError, match="cuda"):
            lg.load(file, map_location=where)


def test_a_whole_training_state(tmp_path):
    def make():
        model = lg.nn.Linear(2, 1)
        optimizer = lg.optim.NAdam(model.parameters(), lr=0.1)
        return model, optimizer, lg.optim.lr_scheduler.StepLR(optimizer, 2)

    def train(model, optimizer, schedule, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (model(lg.ones(3, 2)) ** 2).sum().backward()
            optimizer.step()
            schedule.step()

    first, second = make(), make()
    train(*first, 3)
    lg.save([part.state_dict() for part in first], tmp_path / "state.lg")
    for part, state in zip(second, lg.load(tmp_path / "state.lg")):
        part.load_state_dict(state)
    train(*first, 2)
    train(*second, 2)
    assert first[0].weight.tolist() == second[0].weight.tolist()
    steps = [second[1].state[parameter]["step"] for parameter in second[0].parameters()]
    assert steps[0] is steps[1] and steps[0].item() == 5.0


@pytest.mark.parametrize("value", [lambda: Evil(), lambda: torch.nn.Linear(2, 2), lambda: print])
def test_code_in_torch_files_is_refused(value):
    with pytest.raises(FileFormatError, match="only tensors and plain data"):
        lg.load(torch_saved(value()))


def test_the_functions_that_pickles_may_call_cannot_be_changed():
    from lazygrad.utils.torch_format import KNOWN
    for allowed in KNOWN.values():
        with pytest.raises((AttributeError, TypeError)):
            allowed.injected = 1


def test_read_only_helpers_are_not_public():
    assert set(serialization.__all__) == {"FileFormatError", "load", "save"}
