"""Whole training steps on a device equal those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lazygrad as lg
from lazygrad import nn

pytestmark = pytest.mark.usefixtures("fake")
F = nn.functional


class Elementwise(nn.Module):
    """A model without products: sums over axes, broadcasts, elementary functions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(lg.randn(6, 4))
        self.bias = nn.Parameter(lg.zeros(4))
        self.register_buffer("seen", lg.zeros(4))

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        y = (x[:, :, None] * self.weight).sum(1) + self.bias
        with lg.no_grad():
            self.seen.mul_(0.9).add_(0.1 * y.mean(0))
        return y.tanh()


def data(device: str) -> tuple[lg.Tensor, lg.Tensor]:
    rng = np.random.default_rng(1)
    x = lg.from_numpy(rng.normal(size=(8, 6)).astype(np.float32))
    y = lg.from_numpy(rng.normal(size=(8, 4)).astype(np.float32))
    return x.to(device), y.to(device)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: lg.optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": lambda p: lg.optim.AdamW(p, lr=0.05),
    "Adagrad": lambda p: lg.optim.Adagrad(p, lr=0.05),
    "NAdam": lambda p: lg.optim.NAdam(p, lr=0.05),
    "RMSprop": lambda p: lg.optim.RMSprop(p, lr=0.05),
}


def trained(
    device: str, name: str, steps: int = 4, compiled: bool = False
) -> tuple[list[float], dict[str, np.ndarray]]:
    lg.manual_seed(3)
    model = Elementwise().to(device)
    optimizer = OPTIMIZERS[name](model.parameters())
    schedule = lg.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(F.dropout(model(x), 0.25), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = lg.compile(step) if compiled else step
    losses = []
    for _ in range(steps):
        losses.append(run(*data(device)).item())
        schedule.step()
    if compiled:
        assert not run.reasons, run.reasons
    state = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
    assert all(value.device.type == device for value in model.state_dict().values())
    return losses, state


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [False, True])
def test_steps_equal_those_of_the_cpu(name: str, compiled: bool) -> None:
    losses, state = trained("cpu", name)
    on_device, device_state = trained("cuda", name, compiled=compiled)
    np.testing.assert_allclose(on_device, losses, rtol=1e-5)
    for key, value in state.items():
        np.testing.assert_allclose(device_state[key], value, rtol=1e-5, atol=1e-6)


def test_parameters_keep_their_memory_in_replays() -> None:
    weight = lg.ones(1000, device="cuda", requires_grad=True)
    optimizer = lg.optim.SGD([weight], lr=0.5)

    @lg.compile
    def step() -> None:
        weight.grad = None
        (weight * weight).sum().backward()
        optimizer.step()

    step()
    address = weight._cell.node.payload.address
    for _ in range(3):
        step()
        assert weight._cell.node.payload.address == address
    assert weight[0].item() == 0


def test_a_training_state_goes_to_a_file_and_back(tmp_path) -> None:
    lg.manual_seed(0)
    model = Elementwise().cuda()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        model(data("cuda")[0]).sum().backward()
        optimizer.step()
    lg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s")
    for where in ("cuda", "cpu"):
        saved = lg.load(tmp_path / "s", map_location=where)
        other = Elementwise().to(where)
        other.load_state_dict(saved["model"])
        again = OPTIMIZERS["AdamW"](other.parameters())
        again.load_state_dict(saved["optimizer"])
        for each, opt in ((model, optimizer), (other, again)):
            opt.zero_grad()
            place = next(each.parameters()).device
            each(data("cpu")[0].to(place)).sum().backward()
            opt.step()
        assert other.weight.device.type == where
        np.testing.assert_allclose(other.weight.detach().cpu().numpy(),
                                   model.weight.detach().cpu().numpy(), rtol=1e-5)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(lg.load(tmp_path / "s", map_location="cuda")["optimizer"])


def test_checkpoint_and_custom_functions() -> None:
    from lazygrad.utils.checkpoint import checkpoint

    class Cube(lg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: lg.Tensor) -> lg.Tensor:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, gradient: lg.Tensor) -> lg.Tensor:
            (x,) = ctx.saved_tensors
            return 3 * x * x * gradient

    x = lg.arange(1.0, 4, device="cuda", requires_grad=True)
    checkpoint(lambda v: Cube.apply(v).sin(), x, use_reentrant=False).sum().backward()
    expected = np.arange(1.0, 4)
    np.testing.assert_allclose(x.grad.cpu().numpy(), np.cos(expected**3) * 3 * expected**2,
                               rtol=1e-4)
    seen = []
    y = x * 2
    y.register_hook(lambda gradient: seen.append(gradient.device) or gradient * 10)
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [20, 20, 20] and str(seen[0]) == "cuda:0"


def test_transforms() -> None:
    x = lg.arange(1.0, 4, device="cuda")
    grad = lg.func.grad(lambda v: (v**3).sum())(x)
    assert str(grad.device) == "cuda:0" and grad.tolist() == [3, 12, 27]
    rows = lg.func.vmap(lambda v: v * 2 + v.sum())(lg.ones(2, 3, device="cuda"))
    assert str(rows.device) == "cuda:0" and rows.tolist() == [[5] * 3] * 2
    _, tangent = lg.func.jvp(lambda v: v * v, (x,), (lg.ones_like(x),))
    assert str(tangent.device) == "cuda:0" and tangent.tolist() == [2, 4, 6]


def test_a_model_on_two_sides() -> None:
    """The first layer on the CPU, the second on the device, trained together."""

    def run(second: str) -> tuple[float, np.ndarray, np.ndarray]:
        lg.manual_seed(1)
        first, last = Elementwise(), nn.Parameter(lg.randn(4).to(second).detach())
        optimizer = lg.optim.SGD([*first.parameters(), last], lr=0.1)
        x, y = data("cpu")
        for _ in range(3):
            optimizer.zero_grad()
            loss = (first(x).to(second) * last).sum(1).cpu().sub(y[:, 0]).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item(), first.weight.detach().numpy(), last.detach().cpu().numpy()

    for found, expected in zip(run("cuda"), run("cpu"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mixed_precision() -> None:
    weight = lg.ones(4, device="cuda", requires_grad=True)
    optimizer, scaler = lg.optim.SGD([weight], lr=1.0), lg.amp.GradScaler("cuda")
    assert scaler.is_enabled() and lg.amp.is_autocast_available("cuda")
    for factor, expected in ((2.0, -1.0), (float("inf"), -1.0), (1.0, -2.0)):
        optimizer.zero_grad()
        with lg.autocast("cuda", lg.bfloat16):
            assert lg.is_autocast_enabled("cuda")
            loss = (weight * factor).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == [expected] * 4
    assert scaler.get_scale() == 2.0**15
