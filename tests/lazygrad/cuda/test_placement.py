"""Tensors on devices: where results live, what may meet, copies and their gradients."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lazygrad as lg
from tests.cuda_fake import fake_cuda
from tests.ptx.driver import FakeDriver

pytestmark = pytest.mark.usefixtures("fake")
GPU = lg.device("cuda:0")


def equal(tensor: lg.Tensor, expected: object) -> bool:
    return np.array_equal(tensor.detach().cpu().numpy(), np.asarray(expected))


CREATIONS = {
    "zeros": lambda **k: lg.zeros(2, 3, **k), "ones": lambda **k: lg.ones(2, 3, **k),
    "empty": lambda **k: lg.empty(2, 3, **k), "full": lambda **k: lg.full((2, 3), 7, **k),
    "tensor": lambda **k: lg.tensor([[1.5, 2], [3, 4]], **k),
    "as_tensor": lambda **k: lg.as_tensor(np.arange(3.0), **k),
    "asarray": lambda **k: lg.asarray([1, 2], **k),
    "arange": lambda **k: lg.arange(2, 9, 2, **k),
    "linspace": lambda **k: lg.linspace(0, 1, 5, **k),
    "eye": lambda **k: lg.eye(3, **k), "rand": lambda **k: lg.rand(5, **k),
    "randn": lambda **k: lg.randn(5, **k), "randint": lambda **k: lg.randint(0, 9, (5,), **k),
    "zeros_like": lambda **k: lg.zeros_like(lg.ones(2), **k),
    "rand_like": lambda **k: lg.rand_like(lg.ones(4), **k),
    "new_zeros": lambda **k: lg.ones(2).new_zeros(3, **k),
    "new_tensor": lambda **k: lg.ones(2).new_tensor([1, 2], **k),
    "tril_indices": lambda **k: lg.tril_indices(3, 3, **k),
    "hann_window": lambda **k: lg.hann_window(6, **k),
}  # fmt: skip


@pytest.mark.parametrize("name", CREATIONS)
@pytest.mark.parametrize("where", ["cuda", "cuda:0", GPU, 0])
def test_creation(name: str, where: object) -> None:
    if where == 0 and name != "zeros":
        pytest.skip("numbers of devices are tried once")
    lg.manual_seed(5)
    expected = CREATIONS[name]()
    lg.manual_seed(5)
    made = CREATIONS[name](device=where)
    assert made.device == GPU and made.is_cuda and not made.is_cpu and made.get_device() == 0
    assert expected.device == lg.device("cpu")
    assert equal(made, expected.numpy()), "the same bits as on the CPU"
    assert made.dtype is expected.dtype and made.shape == expected.shape


def test_results_live_where_their_operands_do() -> None:
    x = lg.arange(6.0).reshape(2, 3).to("cuda")
    for made in (x + 1, x.sum(), x.T, x[0], x.reshape(-1), -x, x > 2, lg.zeros_like(x),
                 x.new_ones(3), lg.rand_like(x), lg.ones_like(x, dtype=lg.int32), x.detach(),
                 x.clone(), x.half(), lg.where(x > 1, x, 0.0), lg.stack([x, x]), x.nonzero(),
                 lg.full_like(x, 3), x * 0, x.requires_grad_()):  # fmt: skip
        assert made.device == GPU
    assert lg.zeros_like(x, device="cpu").device.type == "cpu"
    assert (x.cpu() + lg.ones(3)).device.type == "cpu"


def test_copies() -> None:
    x = lg.arange(5.0)
    there = x.to("cuda")
    assert there.to("cuda") is there and there.cuda() is there and x.cpu() is x
    assert there.to(GPU, lg.float64).dtype is lg.float64
    assert x.to(there).device == GPU and there.type_as(x).device.type == "cpu"
    back = there.cpu()
    assert back.device.type == "cpu" and equal(back, x.numpy())
    assert equal(there.to("cuda", copy=True), x.numpy())
    assert there.cpu().cuda().cpu().tolist() == x.tolist()
    assert x.to(0).device == GPU


def test_copies_are_lazy(fake: FakeDriver) -> None:
    x = lg.arange(5.0)
    lg.synchronize()
    fake.calls.clear()
    y = x.cuda() * 2
    assert not {name for name in fake.calls if name.startswith(("cuMem", "cuLaunch", "cuCtx"))}
    assert y.cpu().tolist() == [0, 2, 4, 6, 8]


def test_gradients_cross_over() -> None:
    x = lg.arange(1.0, 5).requires_grad_()
    w = lg.full((4,), 3.0, device="cuda", requires_grad=True)
    y = (x * x).cuda() * w  # on the CPU, then there, then back
    loss = (y.cpu() * lg.arange(4.0)).sum()
    loss.backward()
    assert x.grad.device.type == "cpu" and w.grad.device == GPU
    assert x.grad.tolist() == [2 * v * 3 * k for k, v in enumerate([1.0, 2, 3, 4])]
    assert w.grad.cpu().tolist() == [v * v * k for k, v in enumerate([1.0, 2, 3, 4])]
    assert loss.item() == sum(v * v * 3 * k for k, v in enumerate([1.0, 2, 3, 4]))


def test_second_derivatives_cross_over() -> None:
    x = lg.tensor([2.0, 3.0], requires_grad=True)
    y = (x.cuda() ** 3).cpu().sum()
    (first,) = lg.autograd.grad(y, x, create_graph=True)
    (second,) = lg.autograd.grad(first.sum(), x)
    assert first.tolist() == [12, 27] and second.tolist() == [12, 18]


def test_gradients_that_are_constants_are_on_the_device() -> None:
    x = lg.zeros(3, device="cuda", requires_grad=True)
    x.sum().backward()
    assert x.grad.device == GPU and x.grad.cpu().tolist() == [1, 1, 1]
    assert lg.autograd.grad(x.sum(), x)[0].device == GPU


MIXED = {
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "matmul": lambda a, b: a @ b,
    "where": lambda a, b: lg.where(a > 0, a, b), "cat": lambda a, b: lg.cat([a, b]),
    "add_": lambda a, b: a.add_(b), "maximum": lambda a, b: lg.maximum(a, b),
    "mse_loss": lambda a, b: lg.nn.functional.mse_loss(a, b),
    "linear": lambda a, b: lg.nn.functional.linear(a, b),
    "gather": lambda a, b: a.gather(0, b.long()),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("pending", [False, True])
def test_tensors_of_two_devices_do_not_meet(name: str, swap: bool, pending: bool) -> None:
    a, b = lg.ones(3, 3), lg.ones(3, 3, device="cuda")
    if pending:
        a, b = a * 2 + lg.rand(3, 3), b * 2
    if swap:
        a, b = b, a
    where = r"test_placement.py:\d+"
    with pytest.raises(RuntimeError, match=rf"\[{name}\].*cuda:0.*{where}") as error:
        MIXED[name](a, b)
    assert "cpu" in str(error.value) and ".to('cuda:0')" in str(error.value)


def test_single_numbers_come_over() -> None:
    x = lg.arange(3.0, device="cuda")
    two, half = lg.tensor(2.0), lg.ones(1).sum() / 2
    assert ((x + two) * half).device == GPU
    assert ((two + x) * half).tolist() == [1, 1.5, 2]
    weight = lg.tensor(3.0, requires_grad=True)
    (x * weight).sum().backward()
    assert weight.grad.device.type == "cpu" and weight.grad.item() == 3
    with pytest.raises(RuntimeError, match="cuda:0 and cpu|cpu and cuda:0"):
        lg.ones(3) + lg.tensor(1.0, device="cuda")


def test_indices_come_over() -> None:
    x = lg.arange(12.0).reshape(4, 3).cuda()
    index = lg.tensor([2, 0, 3])
    assert x[index].device == GPU and equal(x[index], np.arange(12.0).reshape(4, 3)[[2, 0, 3]])
    assert equal(x[[1, 2]], np.arange(12.0).reshape(4, 3)[[1, 2]])
    x[index] = 0.0
    assert x.device == GPU and x.cpu().sum().item() == 3 + 4 + 5


def test_in_place() -> None:
    x, y = lg.zeros(4, device="cuda"), lg.arange(4.0)
    x.copy_(y)
    x[1] = 9
    x.add_(1).mul_(2)
    assert x.device == GPU and x.tolist() == [2, 20, 6, 8]
    y.copy_(x)
    assert y.device.type == "cpu" and y.tolist() == [2, 20, 6, 8]
    x.zero_()
    assert x.device == GPU and x.tolist() == [0, 0, 0, 0]
    view = lg.ones(2, 2, device="cuda")
    view[0].fill_(3)
    assert view.tolist() == [[3, 3], [1, 1]]


def test_looking() -> None:
    x = lg.tensor([1.5, 2.5], device="cuda")
    with pytest.raises(TypeError, match=r"\[numpy\].*cuda:0.*x.cpu\(\).numpy\(\)"):
        x.numpy()
    with pytest.raises(TypeError):
        np.asarray(x)
    assert x[0].item() == 1.5 and x.tolist() == [1.5, 2.5] and float(x[1]) == 2.5
    assert repr(x) == "tensor([1.5000, 2.5000], device='cuda:0')"
    assert bool((x > 1).all()) and f"{x[0]:.1f}" == "1.5"
    assert x.__dlpack_device__() == (2, 0)
    assert lg.from_dlpack(x).tolist() == [1.5, 2.5]


def test_default_device() -> None:
    lg.set_default_device("cuda")
    try:
        assert lg.get_default_device() == GPU
        assert lg.ones(2).device == GPU and lg.nn.Linear(2, 2).weight.device == GPU
        assert lg.ones(2, device="cpu").device.type == "cpu"
        assert lg.zeros_like(lg.ones(2, device="cpu")).device.type == "cpu"
    finally:
        lg.set_default_device(None)
    with lg.device("cuda"):
        assert lg.tensor([1]).device == GPU
        with lg.device("cpu"):
            assert lg.tensor([1]).device.type == "cpu"
    assert lg.tensor([1]).device.type == "cpu"


def test_pickle_deepcopy_and_files(tmp_path) -> None:
    x = lg.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    for other in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert other.device == GPU and other.requires_grad and other.tolist() == [1, 2]
    path = tmp_path / "x.lg"
    lg.save({"x": x, "n": lg.ones(2)}, path)
    loaded = lg.load(path)
    assert loaded["x"].device == GPU and loaded["n"].device.type == "cpu"
    assert loaded["x"].tolist() == [1, 2]
    assert lg.load(path, map_location="cpu")["x"].device.type == "cpu"
    assert lg.load(path, map_location="cuda")["n"].device == GPU
    assert lg.load(path, map_location={"cuda:0": "cpu"})["x"].device.type == "cpu"


def test_two_devices() -> None:
    with fake_cuda(devices=2):
        a = lg.ones(3, device="cuda:1")
        b = a.to("cuda:0") * 2
        assert a.device == lg.device("cuda:1") and b.device == GPU and b.tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match="cuda:1 and cuda:0"):
            a + b
        assert (a + b.to("cuda:1")).tolist() == [3, 3, 3]
        with lg.cuda.device(1):
            assert lg.ones(1, device="cuda").get_device() == 1
        assert lg.ones(1, device="cuda").get_device() == 0


def test_modules_move() -> None:
    model = lg.nn.Sequential(lg.nn.Linear(3, 4), lg.nn.BatchNorm1d(4))
    expected = {name: value.numpy() for name, value in model.state_dict().items()}
    assert model.cuda() is model
    for name, value in model.state_dict().items():
        assert value.device == GPU and equal(value, expected[name])
    assert all(parameter.is_leaf for parameter in model.parameters())
    assert model.cpu().state_dict()["0.weight"].device.type == "cpu"


def test_no_such_device() -> None:
    with pytest.raises(RuntimeError, match=r"\[zeros\] there is no device cuda:7.*has 1 CUDA dev"):
        lg.zeros(2, device="cuda:7")
    with pytest.raises(RuntimeError, match="no device mars"):
        lg.zeros(2, device="mars")
